"""Tables of ``codegen.entering``, and its functions as Python calls them."""

from __future__ import annotations

import ctypes
import functools
import platform
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from distort.kernels.compiler.codegen.entering import (
    ARRAY_FLAGS,
    DATA,
    DESCR,
    DIMS,
    HEAD_NBYTES,
    ITEMS,
    JOB_WORDS,
    N_DIMS,
)

#: flags of NumPy's: elements lie next to each other, where their type may lie
_PLAIN = 0x1 | 0x100

#: words that an address is written to: their addresses, and bytes that are added
Cells = Sequence[tuple[int, int]]


class Expected(NamedTuple):
    """A feed as a plan was made for it."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]


@functools.cache
def is_possible() -> bool:
    """Whether this interpreter's objects, and NumPy's arrays, lie in memory as the code takes for granted."""
    if platform.python_implementation() != "CPython" or ctypes.sizeof(ctypes.c_size_t) != 8:
        return False

    def word(address: int, type_: Any = ctypes.c_size_t) -> int:
        return type_.from_address(address).value  # type: ignore[no-any-return]

    for array in (np.arange(24.0).reshape(2, 3, 4), np.array(["a", "b"], object), np.arange(9, dtype=np.int8)[::2]):
        head = id(array) + HEAD_NBYTES
        dims = word(head + DIMS)
        fields = (
            word(id(array) + HEAD_NBYTES - 8) == id(np.ndarray),
            word(head + DATA) == array.__array_interface__["data"][0],
            word(head + N_DIMS, ctypes.c_int) == array.ndim,
            [word(dims + 8 * i) for i in range(array.ndim)] == list(array.shape),
            word(head + DESCR) == id(array.dtype),
            word(head + ARRAY_FLAGS, ctypes.c_int) & _PLAIN == array.flags.num & _PLAIN,
        )
        if not all(fields):
            return False
    text = "text"
    held = [text, held_too := object()]
    first = word(id(held) + HEAD_NBYTES + ITEMS)
    return (word(first), word(first + 8), word(id(text) + HEAD_NBYTES - 8)) == (id(text), id(held_too), id(str))


def table_of(
    job: Sequence[int], feeds: Sequence[tuple[Expected, Cells]], results: Sequence[Cells]
) -> np.ndarray[Any, np.dtype[np.int64]]:
    """For objects that are feeds, then results: these are arrays of ours, or None where they have no cells."""
    assert len(job) == JOB_WORDS
    words = [*job, len(feeds) + len(results)]
    for expected, cells in feeds:
        element = id(str) if expected.dtype == np.dtype(object) else 0
        checks = [id(np.ndarray), id(expected.dtype), _PLAIN, element, len(expected.shape), *expected.shape]
        words += [1 + len(checks) + 2 * len(cells), *checks, *(word for cell in cells for word in cell)]
    for cells in results:
        words += [6 + 2 * len(cells), 0, 0, 0, 0, 0, *(word for cell in cells for word in cell)]
    return np.array(words, np.int64)


__all__ = ["Cells", "Expected", "is_possible", "table_of"]
