"""Files that are there whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


def require_folder(path: str | os.PathLike[str]) -> None:
    """Raise NotADirectoryError now where :func:`writing` would, so that no work is done for nothing."""
    folder = Path(path).resolve().parent
    if not folder.is_dir():
        raise NotADirectoryError(f"{path}: there is no folder {folder}")


@contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """A binary file that takes the place of ``path`` when the block ends well; otherwise nothing changes.

    A link stays a link, and its target is replaced. What is no regular file (a pipe, /dev/null) is written to as it
    is. Raises OSError.
    """
    target = Path(path).resolve()
    if target.exists() and not target.is_file():
        with target.open("wb") as file:
            yield file
        return
    # in the same folder, for a rename must stay within a file system; mode as any new file's
    beside = target.with_name(f".{target.name}.{os.urandom(6).hex()}")
    try:
        with beside.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if target.exists():
            beside.chmod(target.stat().st_mode & 0o7777)
        beside.replace(target)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
