"""cuBLASLt without a GPU: ``cublaslt.c``, compiled when it is first asked for and kept by its digest."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import subprocess
import tempfile
from pathlib import Path

_SOURCE = Path(__file__).with_name("cublaslt.c")


@functools.cache
def path() -> str:
    """Of the shared library."""
    digest = hashlib.sha256(_SOURCE.read_bytes()).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"fake-cuda-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    made = folder / f"cublaslt-{digest}.so"
    if not made.exists():
        # two processes may compile at once: each moves its own into place
        own = made.with_suffix(f".{os.getpid()}")
        command = ["gcc", "-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-o", str(own), str(_SOURCE), "-lm"]
        subprocess.run(command, check=True, capture_output=True)
        own.rename(made)
    return str(made)


def library() -> ctypes.CDLL:
    return ctypes.CDLL(path())
