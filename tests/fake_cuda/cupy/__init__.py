"""A CuPy for tests: its arrays lie in host memory, and refuse what the real ones refuse.

``fake`` has what tests ask of it: counts of synchronizations and copies, a check of all memory's ends, launches for
libraries that are faked elsewhere.
"""

from __future__ import annotations

import sys
import types
from typing import Any

import numpy as _numpy

from . import cuda, fake
from ._array import ndarray
from ._creation import from_dlpack
from ._data import DATA as _DATA
from ._functions import FUNCTIONS as _FUNCTIONS
from ._functions import add_methods as _add_methods
from ._raw import RawKernel, RawModule
from ._ufunc import UFUNCS as _UFUNCS
from ._ufunc import ufunc

__version__ = _DATA["version"]

_TYPES = (
    "bool_ int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64 complex64 complex128 intp uintp "
    "intc uintc byte ubyte short ushort longlong ulonglong half single double generic number integer floating inexact "
    "signedinteger unsignedinteger complexfloating dtype iinfo finfo newaxis inf nan pi e euler_gamma"
).split()


def _module(path: str) -> Any:
    """A module below this one, made where there is none."""
    name = __name__
    there: Any = sys.modules[__name__]
    for part in path.split("."):
        name = f"{name}.{part}"
        if name not in sys.modules:
            sys.modules[name] = types.ModuleType(name)
        setattr(there, part, sys.modules[name])
        there = sys.modules[name]
    return there


def _fill() -> None:
    names = globals()
    for name in _TYPES:
        names[name] = getattr(_numpy, name)
    names["bool"] = _numpy.bool_
    for path, function in {**_FUNCTIONS, **_UFUNCS}.items():
        folder, _, name = path.rpartition(".")
        if folder:
            setattr(_module(folder), name, function)
        else:
            names[name] = function


fromDlpack = from_dlpack


def get_default_memory_pool() -> cuda.MemoryPool:
    return cuda.memory.default_pool


def get_default_pinned_memory_pool() -> Any:
    return cuda.pinned_memory.default_pool


_fill()
_add_methods(ndarray)
get_array_module = _FUNCTIONS["get_array_module"]
__all__ = ["RawKernel", "RawModule", "cuda", "fake", "fromDlpack", "from_dlpack", "ndarray", "ufunc"]
