"""Shared assets: folders that are named by a hash of what is in them."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat

_CHUNK_NBYTES = 1 << 20


def _sha256_of_file(path: str) -> str:
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while chunk := file.read(_CHUNK_NBYTES):
                digest.update(chunk)
    except OSError as error:
        raise OSError(f"ComputeDirectoryAssetUri: failed to hash file '{path}': {error.strerror}") from error
    return digest.hexdigest()


def _files(folder: str) -> list[str]:
    """Regular files below a folder. Raises for links, sockets and whatever else is neither file nor folder."""
    found: list[str] = []
    try:
        with os.scandir(folder) as scan:
            entries = list(scan)
    except OSError as error:
        raise OSError(f"ComputeDirectoryAssetUri: cannot iterate '{folder}': {error.strerror}") from error
    for entry in entries:
        if entry.is_symlink():
            raise ValueError(f"ComputeDirectoryAssetUri: symlink not allowed: '{entry.path}'.")
        if entry.is_dir(follow_symlinks=False):
            found += _files(entry.path)
        elif entry.is_file(follow_symlinks=False):
            found.append(entry.path)
        else:
            raise ValueError(
                f"ComputeDirectoryAssetUri: unsupported file kind: '{entry.path}' "
                "(only regular files and directories allowed)."
            )
    return found


def directory_uri(folder: str) -> str:
    """``sha256:<hex>`` over the names and bytes of a folder's files; empty folders count for nothing."""
    if not folder:
        raise OSError("ComputeDirectoryAssetUri: cannot make path '' absolute: Invalid argument")
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"ComputeDirectoryAssetUri: '{folder}' is not a directory.")
    folder = os.path.abspath(folder)
    names = {os.path.relpath(path, folder).replace(os.sep, "/"): path for path in _files(folder)}
    lines = [(os.fsencode(name), _sha256_of_file(path).encode()) for name, path in names.items()]
    text = b"".join(digest + b"  " + name + b"\n" for name, digest in sorted(lines))
    return "sha256:" + hashlib.sha256(text).hexdigest()


def copy(source: str, target: str) -> None:
    """Copy a folder that has only files and folders in it to a new place."""
    if os.path.islink(source):
        raise ValueError(f"shared asset source: source directory cannot be a link: '{source}'.")
    if not os.path.isdir(source):
        raise FileNotFoundError(f"shared asset source: '{source}' is not a directory.")
    os.makedirs(target)
    with os.scandir(source) as scan:
        entries = sorted(scan, key=lambda entry: entry.name)
    for entry in entries:
        mode = entry.stat(follow_symlinks=False).st_mode
        place = os.path.join(target, entry.name)
        if stat.S_ISLNK(mode):
            raise ValueError(f"shared asset source contains a symlink: '{entry.path}'.")
        if stat.S_ISDIR(mode):
            copy(entry.path, place)
        elif stat.S_ISREG(mode):
            shutil.copyfile(entry.path, place)
        else:
            raise ValueError(f"unsupported file kind in shared asset source: '{entry.path}'.")
