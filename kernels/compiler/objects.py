"""Objects on disk: bounded, checked, safe under several writers and sudden ends.

An object has several kernels, which were compiled at once. It is found by each of them, since the next model, or the
next shape, needs others at once.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from pathlib import Path

from distort.graph import caching, digests
from distort.kernels.compiler import llvm
from distort.kernels.compiler.codegen.target import Target

#: all objects together; the ones used last stay
MOST_FILES, MOST_NBYTES = 1 << 14, 1 << 28
#: besides ``codegen``: what its modules and the making of an object go by
_AROUND = ("expression.py", "keys.py", "library.py", "llvm.py", "objects.py")
_SUFFIX = ".o"


class ObjectCache:
    """A folder of objects. A file is whole or is not there; a damaged one is removed."""

    def __init__(self, folder: Path, most_nbytes: int = MOST_NBYTES) -> None:
        self.folder = folder
        self.most_nbytes = most_nbytes

    @classmethod
    def default(cls) -> ObjectCache:
        return cls(caching.folder("objects"))

    def _path(self, name: str, target: Target) -> Path:
        key = f"{name} {target.triple} {target.cpu} {target.features} {code_version()}"
        return self.folder / (digests.name(key.encode()) + _SUFFIX)

    def find(self, name: str, target: Target) -> tuple[list[str], bytes] | None:
        """The object of a name, and the functions that it has."""
        content = caching.read(self._path(name, target))
        if content is None:
            return None
        symbols, _, code = content.partition(b"\n")
        return symbols.decode().split(), code

    def keep(self, symbols: Sequence[str], target: Target, code: bytes, name: str = "") -> None:
        """Write an object, to be found by its name, or where it has none by each of its functions.

        A folder that can't be written is done without.
        """
        first, *others = [self._path(one, target) for one in ([name] if name else symbols)]
        caching.keep(first, " ".join(symbols).encode() + b"\n" + code, MOST_FILES, self.most_nbytes, others)


@functools.cache
def code_version() -> str:
    """Changes with every change of what prints kernels, and with LLVM."""
    here = os.path.dirname(__file__)
    with os.scandir(f"{here}/codegen") as entries:
        printing = [f"codegen/{entry.name}" for entry in entries if entry.name.endswith(".py")]
    paths = [f"{here}/{name}" for name in sorted([*_AROUND, *printing])]
    return caching.digest_of(paths, llvm.version())
