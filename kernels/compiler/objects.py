"""Objects on disk: bounded, checked, safe under several writers and sudden ends."""

from __future__ import annotations

import contextlib
import functools
import os
from pathlib import Path

from distort.graph import caching, digests
from distort.kernels.compiler import llvm
from distort.kernels.compiler.codegen.target import Target

#: all objects together; the ones used last stay
MOST_FILES, MOST_NBYTES = 4096, 1 << 28
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

    def find(self, name: str, target: Target) -> bytes | None:
        path = self._path(name, target)
        code = caching.read(path)
        if code is not None:
            with contextlib.suppress(OSError):
                os.utime(path)
        return code

    def keep(self, name: str, target: Target, code: bytes) -> None:
        """Write an object. A folder that can't be written is done without."""
        caching.keep(self._path(name, target), code, MOST_FILES, self.most_nbytes)


@functools.cache
def code_version() -> str:
    """Changes with every change of what prints kernels, and with LLVM."""
    content = [llvm.version().encode()]
    here = os.path.dirname(__file__)
    printing = [f"codegen/{name}" for name in os.listdir(f"{here}/codegen") if name.endswith(".py")]
    for name in sorted([*_AROUND, *printing]):
        with open(f"{here}/{name}", "rb") as file:
            content.append(file.read())
    return digests.name(b"\0".join(content))
