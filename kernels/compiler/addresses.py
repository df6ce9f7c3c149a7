"""Where an array's elements are. NumPy's own ways to say it take microseconds, a tenth of which is enough."""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


class _Head(ctypes.Structure):
    """What an array object begins with: NumPy's C interface fixes it for good."""

    _fields_ = (("object", ctypes.c_char * object.__basicsize__), ("data", ctypes.c_size_t))


def _by_interface(array: Array) -> int:
    address: int = array.__array_interface__["data"][0]
    return address


def _by_head(array: Array, head: Callable[[int], Any] = _Head.from_address) -> int:
    address: int = head(id(array)).data
    return address


def _is_as_expected() -> bool:
    if platform.python_implementation() != "CPython":
        return False
    arrays = np.arange(12.0), np.arange(12)[3:], np.array(1.5)
    return all(_by_head(array) == _by_interface(array) for array in arrays)


#: the address of the first element of an ndarray
address_of: Callable[[Array], int] = _by_head if _is_as_expected() else _by_interface
