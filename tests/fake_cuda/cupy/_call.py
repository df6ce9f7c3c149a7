"""From fake arrays to NumPy's and back: what is refused on the way, where results lie, what a capture keeps of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np

from . import _heap, _state
from .cuda import memory, runtime

_CHARS = "?bhilqBHILQefdFD"
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


def supported(dtype: Any) -> np.dtype[Any]:
    """A type of elements that CuPy has; ValueError for others: strings, objects, float8, int4, times."""
    found = np.dtype(dtype)
    if found == BFLOAT16 or (found.num < 24 and found.isnative and found.char in _CHARS):
        return found
    raise ValueError(f"Unsupported dtype {found}")


class Operand:
    """What the arrays of this module are to NumPy; ``_array.ndarray`` has the rest."""

    _np: np.ndarray[Any, Any]
    data: memory.MemoryPointer
    base: Any


#: set by _array: what makes an array of memory
make: Callable[[np.ndarray[Any, Any], memory.MemoryPointer], Any] = tuple  # type: ignore[assignment]


def view_of(
    pointer: memory.MemoryPointer, shape: tuple[int, ...], dtype: np.dtype[Any], strides: tuple[int, ...] | None
) -> np.ndarray[Any, Any]:
    """Memory as NumPy's array."""
    if strides is None:
        strides = contiguous(shape, dtype.itemsize)
    if 0 in shape:
        return np.ndarray(shape, dtype, strides=strides, buffer=np.empty(16, np.uint8)[:0])
    low = sum((n - 1) * step for n, step in zip(shape, strides, strict=True) if step < 0)
    high = sum((n - 1) * step for n, step in zip(shape, strides, strict=True) if step > 0) + dtype.itemsize
    memory_bytes = _heap.bytes_at(pointer.ptr + low, high - low)
    return np.ndarray(shape, dtype, buffer=memory_bytes, offset=-low, strides=strides)


def contiguous(shape: tuple[int, ...], itemsize: int, order: str = "C") -> tuple[int, ...]:
    sizes = shape if order == "F" else shape[::-1]
    strides, step = [], itemsize
    for n in sizes:
        strides.append(step)
        step *= max(n, 1)
    return tuple(strides if order == "F" else strides[::-1])


def empty(shape: tuple[int, ...], dtype: Any, strides: tuple[int, ...] | None = None) -> Any:
    """An array of fresh memory on the current device."""
    dtype = supported(dtype)
    pointer = memory.alloc(math.prod(shape) * dtype.itemsize)
    return make(view_of(pointer, shape, dtype, strides), pointer)


def operands(value: Any, found: list[Any]) -> Any:
    """A value with NumPy's arrays in place of ours, which go into ``found``."""
    if isinstance(value, Operand):
        check_device(value)
        found.append(value)
        return value._np
    if isinstance(value, np.ndarray):
        raise TypeError(f"Unsupported type {type(value)}: {value.dtype} array of the host, shape {value.shape}")
    if isinstance(value, (list, tuple)):
        parts = [operands(part, found) for part in value]
        return parts if isinstance(value, list) else tuple(parts)
    if isinstance(value, np.dtype):
        return supported(value)
    return value


def check_device(array: Any) -> None:
    device, here = array.data.device_id, _state.current_device()
    if device != here and not runtime.may_access(here, device):
        raise ValueError(
            f"Array device must be same as the current device: array device = {device} while current = {here}"
        )


def results(value: Any, sources: list[Any], copied: list[tuple[Any, tuple[int, ...]]], path: tuple[int, ...]) -> Any:
    """NumPy's results as our arrays: views stay views, others get memory of their own (and are noted in ``copied``)."""
    if isinstance(value, (tuple, list)):
        parts = [results(part, sources, copied, (*path, i)) for i, part in enumerate(value)]
        return tuple(parts) if isinstance(value, tuple) else parts
    if not isinstance(value, (np.ndarray, np.generic)):
        return value
    array = np.asarray(value)
    if array.size:
        source = _owner(array, sources)
        if source is not None:
            address = array.__array_interface__["data"][0]
            view = make(array, source.data + (address - source.data.ptr))
            view.base = source if source.base is None else source.base
            return view
    steps = array.strides if array.size and _dense(array) else None
    made = empty(array.shape, array.dtype, steps)
    copied.append((made, path))
    return made


def _owner(array: np.ndarray[Any, Any], sources: list[Any]) -> Any:
    address = array.__array_interface__["data"][0]
    if _state.heap_of(address) is None and runtime.device_of(address) < 0:
        return None
    for source in sources:
        if np.may_share_memory(array, source._np):
            return source
    raise AssertionError("a result in device memory that is none of the arguments'")


def _dense(array: np.ndarray[Any, Any]) -> bool:
    """Whether the elements lie without gaps in some order of axes: then a result keeps it, as CuPy's do."""
    order = sorted(range(array.ndim), key=lambda axis: -array.strides[axis])
    step = array.itemsize
    for axis in reversed(order):
        if array.shape[axis] > 1 and array.strides[axis] != step:
            return False
        step *= max(array.shape[axis], 1)
    return True


def compute(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call a function of NumPy on our arrays: on the current stream, or kept for the graph while that captures."""
    found: list[Any] = []
    plain = [operands(value, found) for value in args]
    named = {name: operands(value, found) for name, value in kwargs.items()}
    handle = _state.current_stream()
    capture = _state.capturing(handle)
    if capture is None:
        _state.stream_of(handle).drain()
        for array in found:  # whose work is on another stream is not waited for: that is the caller's to see to
            del array

    def call() -> Any:
        with np.errstate(all="ignore"):
            return function(*plain, **named)

    value = call()
    copied: list[tuple[Any, tuple[int, ...]]] = []
    made = results(value, found, copied, ())
    if copied:
        _state.counts["launch"] += 1
        targets = [(array._np, path) for array, path in copied]

        def store(value: Any) -> None:
            for target, path in targets:
                part = value
                for i in path:
                    part = part[i]
                np.copyto(target, part, casting="unsafe")

        if capture is not None:
            _state.enqueue(handle, lambda: store(call()))
        else:
            _state.enqueue(handle, lambda: store(value))
    return made


def write(target: Any, work: Callable[..., None], *args: Any) -> None:
    """Work that writes into an array of ours."""
    found: list[Any] = []
    plain = [operands(value, found) for value in (target, *args)]
    _state.counts["launch"] += 1

    def call() -> None:
        with np.errstate(all="ignore"):
            work(*plain)

    _state.enqueue(_state.current_stream(), call)
