"""The platform's folder for caches; files there that are whole and undamaged; how a cache keeps its bounds.

Several processes may read and write at once; one that is killed leaves at most a temporary file (a name with a dot
before it), which a later writer removes.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from . import atomic, digests

#: a temporary file this old belongs to nobody
STALE_S = 3600.0
#: a file that was written this long ago has another time when it is written again
_SETTLED_S = 2.0
_MOST_DIGESTS = 64


def folder(kind: str) -> Path:
    """Where a kind of cache is: below ``DISTORT_CACHE_DIR``, else below the platform's folder for caches."""
    given = os.environ.get("DISTORT_CACHE_DIR")
    if given:
        return Path(given) / kind
    if sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "distort" / kind


def read(path: Path) -> bytes | None:
    """What :func:`keep` wrote, or None; it is used now. A damaged file is removed."""
    try:
        file = path.read_bytes()
    except OSError:
        return None
    digest, content = file[: digests.NBYTES], file[digests.NBYTES :]
    if digests.digest(content) == digest:
        mark_used(path)
        return content
    with contextlib.suppress(OSError):
        path.unlink()
    return None


def mark_used(path: Path) -> None:
    """The files that were used longest ago go first."""
    with contextlib.suppress(OSError):  # another process took it away, or it isn't ours to touch
        os.utime(path)


def keep(path: Path, content: bytes, most_files: int, most_nbytes: int, also: Sequence[Path] = ()) -> None:
    """Write a file, and keep its folder's files of this suffix in bounds. A folder that can't be written stays.

    ``also``: other names of the file, in the same folder.
    """
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic.writing(path) as file:
            file.write(digests.digest(content) + content)
        for other in also:
            _link(path, other)
        trim(path.parent, path.suffix, most_files, most_nbytes)


def digest_of(paths: Sequence[str], also: str) -> str:
    """Of what files hold, and of a text. Kept on disk by the files' sizes and times: to read them takes longer."""
    states = [os.stat(path) for path in paths]
    named = [f"{path} {state.st_size} {state.st_mtime_ns}" for path, state in zip(paths, states, strict=True)]
    kept_in = folder("digests") / (digests.name("\n".join([*named, also]).encode()) + ".digest")
    known = read(kept_in)
    if known is not None:
        return known.decode()
    content = [also.encode()]
    for path in paths:
        with open(path, "rb") as file:
            content.append(file.read())
    made = digests.name(b"\0".join(content))
    if max(state.st_mtime for state in states) < time.time() - _SETTLED_S:  # else one may yet change within its time
        keep(kept_in, made.encode(), _MOST_DIGESTS, 1 << 20)
    return made


def _link(path: Path, other: Path) -> None:
    """Let a file have another name, which may have been another file's. Where file systems have no links: a copy."""
    beside = other.with_name(f".{other.name}.{os.urandom(6).hex()}")
    try:
        os.link(path, beside)
    except OSError:
        with atomic.writing(other) as file:
            file.write(path.read_bytes())
        return
    beside.replace(other)


def trim(where: Path, suffix: str, most_files: int, most_nbytes: int) -> None:
    """Remove the files that were used longest ago where there are too many, and what a killed writer left."""
    kept: list[tuple[float, str, int, int]] = []  # when it was used, its name, its number, its size
    with os.scandir(where) as entries:
        for entry in entries:
            try:
                state = entry.stat()
                if entry.name.startswith(".") and time.time() - state.st_mtime > STALE_S:
                    os.unlink(entry.path)
                elif entry.name.endswith(suffix):
                    kept.append((-state.st_mtime, entry.name, state.st_ino, state.st_size))
            except OSError:
                continue  # another process was faster
    nbytes, counted = 0, set()
    for position, (_, name, number, size) in enumerate(sorted(kept)):
        nbytes += 0 if number in counted else size
        counted.add(number)
        if position >= most_files or (nbytes > most_nbytes and position):
            (where / name).unlink(missing_ok=True)
