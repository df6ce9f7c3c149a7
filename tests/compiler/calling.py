"""Kernels called by hand."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np

from distort.kernels.compiler.expression import Expression, Instruction, name_of
from distort.kernels.compiler.ir import Address, Call
from distort.kernels.compiler.keys import Key
from distort.kernels.compiler.library import Library

_LIBRARY = Library()


def invoke(key: Key, words: Sequence[int], n_threads: int = 1, library: Library = _LIBRARY) -> None:
    """Every thread's part, one after another."""
    address = library.get([key])[key]
    function = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)(address)
    memory = np.array(words, np.int64)
    for thread in range(n_threads):
        function(memory.ctypes.data, thread, n_threads, thread)


def address(array: np.ndarray[Any, Any]) -> int:
    return int(array.__array_interface__["data"][0])


def invoke_call(call: Call, n_threads: int = 1) -> None:
    """A call whose words point to constants only."""
    scratch = np.empty(call.scratch_nbytes + 64, np.uint8)
    words = []
    for word in call.words:
        if isinstance(word, int):
            words.append(word)
        elif isinstance(word, Address):
            assert word.buffer.array is not None
            words.append(address(word.buffer.array) + word.offset)
        else:
            words.append(address(scratch))
    invoke(call.key, words, n_threads)


def apply(
    op: str,
    inputs: Sequence[np.ndarray[Any, Any]],
    dtype: Any = None,
    attributes: tuple[Any, ...] = (),
    numbers: Sequence[float] = (),
    library: Library = _LIBRARY,
) -> np.ndarray[Any, Any]:
    """An operator on arrays of one shape, by a ``map``; ``numbers`` are further operands, constants."""
    dtypes = tuple(name_of(x.dtype) for x in inputs)
    n = len(inputs)
    constants = [Instruction("constant", (0,), dtypes[0], (number,)) for number in numbers]
    result = np.dtype(dtype or inputs[0].dtype)
    last = Instruction(op, tuple(range(n + len(numbers))), name_of(result), attributes)
    expression = Expression(dtypes, (*constants, last), (n + len(numbers),))
    out = np.empty(inputs[0].shape, result)
    inputs = [np.ascontiguousarray(x) for x in inputs]
    size = out.size
    words = [-(-size // 256), 256, size, *(address(x) for x in (*inputs, out))]
    invoke(Key("map", (expression, 1, (1,) * (n + 1))), words, 2, library)
    return out
