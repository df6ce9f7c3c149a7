"""Files and folders that are written beside their place and then moved into it, all of them or none."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from types import TracebackType
from typing import Self

from distort.model_package.paths import inside


def remove(path: str) -> None:
    """A file, a link or a folder with all that is in it; nothing where there is none."""
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.remove(path)


class Staging:
    """Leaving the block without ``keep`` takes back what is staged, and what came to be in ``new``, an empty folder."""

    def __init__(self, new: str = "") -> None:
        self._new = new
        self._moves: list[tuple[str, str]] = []
        self._made: list[str] = []  # folders that were not there before, outer ones first
        self._published: list[str] = []
        self._done = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._done:
            return
        for path, _ in self._moves:
            remove(path)
        for path in self._published:
            if self._new and inside(path, self._new):
                remove(path)
        for folder in reversed(self._made):
            if os.path.isdir(folder) and not os.listdir(folder):
                os.rmdir(folder)

    def make_folder(self, path: str) -> None:
        missing = []
        while not os.path.lexists(path):
            missing.append(path)
            path = os.path.dirname(path)
        if not os.path.isdir(path):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
        for folder in reversed(missing):
            os.mkdir(folder)
            self._made.append(folder)

    def place(self, path: str) -> str:
        """Where to write what goes to ``path``."""
        staged = f"{path}.tmp.{secrets.token_hex(8)}"
        if os.path.isdir(path):
            raise OSError(f"Rename '{staged}' -> '{path}' failed: {os.strerror(errno.EISDIR)}")
        self.make_folder(os.path.dirname(path))
        self._moves.append((staged, path))
        return staged

    def write(self, path: str, text: str) -> None:
        staged = self.place(path)
        with open(staged, "x", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())

    def publish(self) -> None:
        """Move everything into its place, in the order of ``place``."""
        while self._moves:
            staged, path = self._moves[0]
            os.replace(staged, path)
            self._published.append(self._moves.pop(0)[1])

    def keep(self) -> None:
        """What was published stays."""
        self._done = True
