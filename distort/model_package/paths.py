"""Which file a path in a package means, and whether it may.

In the layout ``portable`` a path is relative, has no ``..``, and stays in the package, also when links are followed.
In the layout ``installed`` it may be anywhere. ``root`` is always canonical, or empty for a package without a folder.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

_URI = re.compile(r"sha256:[0-9a-f]{64}")


def is_asset_uri(text: str) -> bool:
    return _URI.fullmatch(text) is not None


def split_asset_uri(text: str) -> tuple[str, str] | None:
    """The URI that a reference starts with and what follows its slash; None where there is none."""
    found = _URI.match(text)
    if found is None or text[found.end() : found.end() + 1] not in ("", "/"):
        return None
    return found.group(), text[found.end() + 1 :]


def asset_folder_name(uri: str) -> str:
    return uri.replace(":", "-", 1)


def _normal(path: str) -> str:
    """Without ``.``, ``..`` and doubled slashes, links unseen; a slash at the end stays."""
    if not path:
        return ""
    parts: list[str] = []
    rooted = path.startswith("/")
    folder = False
    for part in path.split("/"):
        folder = part in ("", ".", "..")
        if part == "..":
            if parts and parts[-1] != "..":
                parts.pop()
            elif not rooted:
                parts.append(part)
                folder = False
        elif part not in ("", "."):
            parts.append(part)
    text = ("/" if rooted else "") + "/".join(parts)
    return text + "/" if folder and parts else text or "."


def weakly_canonical(path: str) -> str:
    """Links resolved as far as the path exists, the rest as it is."""
    parts = path.split("/")
    exists = ""
    used = 0
    for position, part in enumerate(parts):
        longer = "/" if position == 0 and not part else os.path.join(exists, part)
        if not os.path.exists(longer):
            break
        exists, used = longer, position + 1
    start = os.path.realpath(exists) if exists else ""
    return _normal(os.path.join(start, *parts[used:])) if used < len(parts) else start


def inside(path: str, root: str, *, strictly: bool = False) -> bool:
    """Is a normal path in a folder? ``strictly``: the folder itself is not."""
    path, root = os.path.normpath(path), os.path.normpath(root)
    return (path == root and not strictly) or path.startswith(root.rstrip("/") + "/")


@dataclass(frozen=True, slots=True)
class Resolver:
    """The rules of one package."""

    root: str
    anywhere: bool  # absolute paths, ".." and what is outside of the root are allowed
    follow_symlinks: bool

    def resolve(self, text: str, base: str, must_exist: bool) -> str:
        """The file or folder. Raises ValueError for what is not allowed, FileNotFoundError for what is missing."""
        if not text:
            raise ValueError("ResolvePath: input must not be empty.")
        if not self.anywhere:
            if text.startswith("/"):
                raise ValueError(
                    f"ResolvePath: absolute or drive-rooted path '{text}' is not allowed in portable layout."
                )
            if ".." in text.split("/"):
                raise ValueError(f"ResolvePath: '..' segments are not allowed in portable layout: '{text}'.")
        candidate = os.path.join(base, text)
        if os.path.exists(candidate):
            found = os.path.realpath(candidate)
        elif must_exist:
            raise FileNotFoundError(f"ResolvePath: '{candidate}' does not exist.")
        else:
            found = weakly_canonical(candidate) if self.follow_symlinks else _normal(candidate)
        if self.root and not self.anywhere and not inside(found, self.root):
            raise ValueError(f"ResolvePath: '{found}' escapes package_root '{self.root}'.")
        return found


def check_portable(path: str, root: str, *, must_exist: bool = False) -> None:
    """A path of a portable package goes through no link and ends inside of it. Raises ValueError, FileNotFoundError."""
    path = "/" + "/".join(part for part in path.split("/") if part not in ("", "."))
    if path == root or not inside(path, root):
        raise ValueError(f"Portable path '{path}' escapes package_root '{root}'.")
    here = root
    for part in path.removeprefix(root).split("/")[1:] if path.startswith(root + "/") else ():
        here += "/" + part
        if os.path.islink(here):
            raise ValueError(f"Portable path contains a link: '{here}'.")
    if os.path.exists(path):
        if not inside(os.path.realpath(path), root, strictly=True):
            raise ValueError(f"Portable path '{path}' resolves outside package_root.")
    elif must_exist:
        raise FileNotFoundError(f"Portable path does not exist: '{path}'.")
