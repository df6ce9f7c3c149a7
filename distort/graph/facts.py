"""What onnx's native module says, kept on disk: its schemas take longer to set up than a small session.

A fact is named by what was asked, and by the installed onnx. A file is whole or is not there; one that is damaged is as
if it weren't there. Where the process has ``onnx.defs`` it may have registered schemas of its own: onnx is asked then.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable

from . import caching, digests
from .onnx_parts import folder, native_file

#: all facts together; those used last stay
MOST_FILES, MOST_NBYTES = 1024, 1 << 25
_SUFFIX = ".fact"


def known(kind: str, asked: bytes, ask: Callable[[], bytes]) -> bytes:
    """The answer to ``asked``, from the disk or from ``ask``. What ``ask`` raises is not kept."""
    version = None if "onnx.defs" in sys.modules else _version()
    if version is None:
        return ask()
    path = caching.folder("onnx") / (digests.name(b"\0".join((version, kind.encode(), asked))) + _SUFFIX)
    found = caching.read(path)
    if found is None:
        found = ask()
        caching.keep(path, found, MOST_FILES, MOST_NBYTES)
    return found


@functools.cache
def _version() -> bytes | None:
    """Names the installed onnx; None where that can't be told."""
    try:
        state = native_file().stat()
        says = (folder() / "version.py").read_bytes()
    except OSError:
        return None
    return digests.digest(says + f"{state.st_size} {state.st_mtime_ns}".encode())
