"""Tensors of a run as NumPy arrays, over the memory in which they lie."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from distort.kernels.compiler.ir import Array, Place, Tensor


def find(memory: Array, base: int, given: Sequence[Any], results: Sequence[Any], tensor: Tensor) -> Any:
    """A tensor of a run as an array."""
    seen = view(tensor, memory, base)
    return seen if seen is not None else outside(tensor, given, results)


def apart(value: Any, memory: Array) -> Any:
    """A value that outlives the arena's use of its memory."""
    if isinstance(value, np.ndarray):
        if value.base is None:
            return value
        return value.copy() if np.may_share_memory(value, memory) else value
    if isinstance(value, (list, tuple)):
        return type(value)(apart(item, memory) for item in value)
    if isinstance(value, dict):
        return {key: apart(item, memory) for key, item in value.items()}
    return value


def view(tensor: Tensor | str | None, memory: Array, base: int) -> Any:
    """A tensor as an array; None where it lies in a feed or result, or is no tensor."""
    if not isinstance(tensor, Tensor):
        return None
    if tensor.value is not None:
        return tensor.value
    if tensor.buffer.array is not None:
        return _strided(tensor, np.ascontiguousarray(tensor.buffer.array).reshape(-1).view(np.uint8))
    if tensor.buffer.place is not Place.ARENA:
        return None
    begin = base - memory.ctypes.data + tensor.buffer.offset
    return _strided(tensor, memory[begin : begin + max(tensor.buffer.nbytes, 1)])


def outside(tensor: Tensor, given: Sequence[Any], results: Sequence[Any]) -> Any:
    """A tensor that lies in a feed or a result."""
    number = tensor.buffer.number
    return within(tensor, given[number] if tensor.buffer.place is Place.FEED else results[number])


def within(tensor: Tensor, array: Array) -> Array:
    """A tensor that is all of an array, or a part."""
    if array.shape == tensor.shape and tensor.whole:
        return array
    return _strided(tensor, np.ascontiguousarray(array).reshape(-1).view(np.uint8))


def _strided(tensor: Tensor, raw: Array) -> Array:
    itemsize = tensor.dtype.itemsize
    if tensor.size == 0:
        return np.empty(tensor.shape, tensor.dtype)
    return np.ndarray(tensor.shape, tensor.dtype, raw, tensor.offset * itemsize, [s * itemsize for s in tensor.strides])
