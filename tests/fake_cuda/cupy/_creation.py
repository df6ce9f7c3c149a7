"""Arrays of values, of the host's arrays and of others' memory."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from . import _call, _state
from .cuda import memory

Operand = _call.Operand


def shape_of(shape: Any) -> tuple[int, ...]:
    if isinstance(shape, Operand):
        raise TypeError("a shape is integers of the host")
    sizes = (shape,) if np.isscalar(shape) else tuple(shape)
    found = tuple(operator.index(n) for n in sizes)
    if any(n < 0 for n in found):
        raise ValueError("Negative dimensions are not allowed")
    return found


def _upload(values: np.ndarray[Any, Any], order: str = "K") -> Any:
    """A copy of a host array on the current device; not while anything captures, as the real one's buffers."""
    _call.supported(values.dtype)
    _state.forbid_in_capture(_state.current_stream())
    fortran = order == "F" or (order in "KA" and values.flags.f_contiguous and not values.flags.c_contiguous)
    made = _call.empty(
        values.shape, values.dtype, _call.contiguous(values.shape, values.dtype.itemsize, "F") if fortran else None
    )
    _state.counts["upload"] += 1
    _state.counts["upload bytes"] += values.nbytes
    kept = values.copy()  # from pageable memory a copy is staged before the call returns
    target = made._np
    _state.enqueue(_state.current_stream(), lambda: np.copyto(target, kept))
    return made


def array(
    obj: Any,
    dtype: Any = None,
    copy: bool | None = True,
    order: str = "K",
    subok: bool = False,
    ndmin: int = 0,
    *,
    blocking: bool = False,
) -> Any:
    if subok:
        raise NotImplementedError
    order = order or "K"
    if isinstance(obj, Operand):
        made = obj.astype(obj.dtype if dtype is None else dtype, copy=bool(copy), order=order)  # type: ignore[attr-defined]
    elif hasattr(obj, "__cuda_array_interface__"):
        made = _of_interface(obj).astype(dtype or _of_interface(obj).dtype, copy=bool(copy))
    elif isinstance(obj, (list, tuple)) and _flat(obj) and all(isinstance(part, Operand) for part in _flat(obj)):
        made = _call.compute(np.asarray, obj)
        made = made if dtype is None else made.astype(dtype, copy=False)
    else:
        if copy is False:
            raise ValueError("Unable to avoid copy while creating an array as requested.")
        if isinstance(obj, (list, tuple)) and any(isinstance(part, Operand) for part in _flat(obj)):
            raise TypeError("Unsupported type: host values and device arrays in one list")
        values = np.array(obj, dtype=None if dtype is None else _call.supported(dtype))
        made = _upload(values, order)
    while made.ndim < ndmin:
        made = made[None]
    return made


def _flat(values: Any) -> list[Any]:
    return [part for value in values for part in (_flat(value) if isinstance(value, (list, tuple)) else [value])]


def _of_interface(obj: Any) -> Any:
    known = obj.__cuda_array_interface__
    address = known["data"][0]
    dtype = _call.supported(np.dtype(known["typestr"]))
    strides = known.get("strides")
    nbytes = int(np.prod(known["shape"])) * dtype.itemsize
    pointer = memory.MemoryPointer(memory.UnownedMemory(address, nbytes, obj), 0)
    return _call.make(_call.view_of(pointer, tuple(known["shape"]), dtype, strides and tuple(strides)), pointer)


def asarray(a: Any, dtype: Any = None, order: Any = None, *, copy: bool | None = None, blocking: bool = False) -> Any:
    return array(a, dtype, copy, order or "K")


def ascontiguousarray(a: Any, dtype: Any = None) -> Any:
    made = asarray(a, dtype)
    made = made if made.flags.c_contiguous else made.copy("C")
    return made if made.ndim else made.reshape(1)


def asfortranarray(a: Any, dtype: Any = None) -> Any:
    made = asarray(a, dtype)
    return made if made.flags.f_contiguous else made.copy("F")


def asnumpy(
    a: Any, stream: Any = None, order: str = "C", out: Any = None, *, blocking: bool = True
) -> np.ndarray[Any, Any]:
    if isinstance(a, Operand):
        return a.get(stream=stream, order=order, out=out, blocking=blocking)  # type: ignore[attr-defined, no-any-return]
    if out is not None:
        np.copyto(out, a)
        return out  # type: ignore[no-any-return]
    return np.asarray(a)


def empty(shape: Any, dtype: Any = float, order: str = "C") -> Any:
    sizes, kind = shape_of(shape), _call.supported(dtype)
    return _call.empty(sizes, kind, _call.contiguous(sizes, kind.itemsize, order))


def full(shape: Any, fill_value: Any, dtype: Any = None, order: str = "C") -> Any:
    if dtype is None:
        dtype = fill_value.dtype if isinstance(fill_value, Operand) else np.asarray(fill_value).dtype  # type: ignore[attr-defined]
    made = empty(shape, dtype, order)
    made.fill(fill_value)
    return made


def zeros(shape: Any, dtype: Any = float, order: str = "C") -> Any:
    return full(shape, 0, dtype, order)


def ones(shape: Any, dtype: Any = float, order: str = "C") -> Any:
    return full(shape, 1, dtype, order)


def _like(a: Any, dtype: Any, order: str, subok: Any, shape: Any) -> Any:
    if subok is not None:
        raise TypeError("subok is not supported yet")
    if not isinstance(a, Operand):
        raise TypeError(f"Unsupported type {type(a)}")
    known: Any = a
    dtype = _call.supported(known.dtype if dtype is None else dtype)
    if shape is not None:
        return empty(shape, dtype, "F" if order == "F" else "C")
    if order in "KA" and known.size and _call._dense(known._np):
        scale = [step // known.dtype.itemsize * dtype.itemsize for step in known.strides]
        return _call.empty(known.shape, dtype, tuple(scale))
    return empty(known.shape, dtype, "F" if order == "F" else "C")


def empty_like(prototype: Any, dtype: Any = None, order: str = "K", subok: Any = None, shape: Any = None) -> Any:
    return _like(prototype, dtype, order, subok, shape)


def full_like(
    a: Any, fill_value: Any, dtype: Any = None, order: str = "K", subok: Any = None, shape: Any = None
) -> Any:
    made = _like(a, dtype, order, subok, shape)
    made.fill(fill_value)
    return made


def zeros_like(a: Any, dtype: Any = None, order: str = "K", subok: Any = None, shape: Any = None) -> Any:
    return full_like(a, 0, dtype, order, subok, shape)


def ones_like(a: Any, dtype: Any = None, order: str = "K", subok: Any = None, shape: Any = None) -> Any:
    return full_like(a, 1, dtype, order, subok, shape)


def _scalar(value: Any) -> Any:
    """A bound as the host's number; of a device array that waits for the device."""
    return value.item() if isinstance(value, Operand) else value  # type: ignore[attr-defined]


def arange(start: Any, stop: Any = None, step: Any = 1, dtype: Any = None) -> Any:
    bounds = (0, start) if stop is None else (start, stop)
    values = np.arange(_scalar(bounds[0]), _scalar(bounds[1]), _scalar(1 if step is None else step), dtype=dtype)
    return _made_there(values)


def linspace(
    start: Any,
    stop: Any,
    num: int = 50,
    endpoint: bool = True,
    retstep: bool = False,
    dtype: Any = None,
    axis: int = 0,
) -> Any:
    values = np.linspace(_scalar(start), _scalar(stop), num, endpoint, retstep, dtype, axis)
    return (_made_there(values[0]), values[1]) if retstep else _made_there(values)


def eye(N: int, M: int | None = None, k: int = 0, dtype: Any = float, order: Any = "C") -> Any:
    return _made_there(np.eye(N, M, k, dtype, order))


def identity(n: int, dtype: Any = float) -> Any:
    return eye(n, dtype=dtype)


def tri(N: int, M: int | None = None, k: int = 0, dtype: Any = float) -> Any:
    return _made_there(np.tri(N, M, k, dtype))


def _made_there(values: np.ndarray[Any, Any]) -> Any:
    """What a kernel makes of numbers: nothing travels."""
    made = _call.empty(values.shape, values.dtype)
    _state.counts["launch"] += 1
    target = made._np
    _state.enqueue(_state.current_stream(), lambda: np.copyto(target, values))
    return made


def from_dlpack(array: Any, *, device: Any = None, copy: bool | None = None) -> Any:
    if isinstance(array, Operand):
        return array.copy() if copy else array.view()  # type: ignore[attr-defined]
    kind, _ = array.__dlpack_device__()
    if kind in (1, 3) and not hasattr(array, "__cuda_array_interface__"):
        return globals()["array"](np.from_dlpack(array))
    return _of_interface(array)
