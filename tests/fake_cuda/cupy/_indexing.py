"""Indices as CuPy takes them: arrays wrap around, of several writes to one place none is promised to be the last."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import _call, _state


def prepare(index: Any) -> tuple[list[Any], bool]:
    """The parts of an index, with lists and host arrays brought to the device as CuPy does; whether any is an array."""
    from ._creation import array

    parts = list(index) if isinstance(index, tuple) else [index]
    has_arrays = False
    for i, part in enumerate(parts):
        if part is None or part is Ellipsis or isinstance(part, slice):
            continue
        if isinstance(part, _call.Operand):
            has_arrays = True
            continue
        if np.isscalar(part) and not isinstance(part, (bool, np.bool_)):
            continue
        parts[i] = array(part)
        if isinstance(part, (list, tuple)) and not parts[i].size:
            parts[i] = parts[i].astype(np.int32)
        has_arrays = True
    for part in parts:
        if isinstance(part, _call.Operand) and part._np.dtype.kind not in "biu":
            raise IndexError(f"arrays used as indices must be of integer or boolean type (actual: {part._np.dtype})")
        if isinstance(part, _call.Operand) and part._np.dtype.kind == "b":
            _state.declare("boolean index")
    return parts, has_arrays


def wrapped(shape: tuple[int, ...], parts: list[Any]) -> tuple[Any, ...]:
    """An index of NumPy's arrays whose integers wrap around the axes that they index."""
    consumed = sum(part.ndim if _is_mask(part) else 1 for part in parts if part is not None and part is not Ellipsis)
    out: list[Any] = []
    axis = 0
    for part in parts:
        if part is Ellipsis:
            axis += len(shape) - consumed
        elif _is_mask(part):
            axis += part.ndim
        elif part is not None:
            if isinstance(part, np.ndarray):
                part = wrap(part, shape[axis]) if axis < len(shape) else part
            axis += 1
        out.append(part)
    return tuple(out)


def wrap(indices: np.ndarray[Any, Any], n: int) -> np.ndarray[Any, Any]:
    """Indices modulo the size of their axis."""
    if n == 0:
        if indices.size:
            raise IndexError("cannot do a non-empty take from an empty axes.")
        return indices
    return np.asarray(indices.astype(np.int64) % n)


def _is_mask(part: Any) -> bool:
    return isinstance(part, np.ndarray) and part.dtype.kind == "b"


def get(source: np.ndarray[Any, Any], *parts: Any) -> Any:
    return np.asarray(source[wrapped(source.shape, list(parts))])


def put(target: np.ndarray[Any, Any], value: Any, *parts: Any) -> None:
    """Write; where several values go to one place, another wins than NumPy's: the first."""
    index = wrapped(target.shape, list(parts))
    if not any(isinstance(part, np.ndarray) and part.dtype.kind != "b" for part in index):
        target[index] = _converted(value, target.dtype)
        return
    places = np.arange(target.size).reshape(target.shape)[index]
    values = np.broadcast_to(_converted(value, target.dtype), places.shape)
    flat_places, flat_values = places.reshape(-1)[::-1], values.reshape(-1)[::-1]
    coordinates = np.unravel_index(flat_places, target.shape) if target.ndim else ()
    target[coordinates] = flat_values


def _converted(value: Any, dtype: np.dtype[Any]) -> Any:
    return convert(value, dtype) if isinstance(value, np.ndarray) else value


def convert(values: np.ndarray[Any, Any], dtype: Any) -> np.ndarray[Any, Any]:
    """astype as a GPU does it: to integers, numbers out of range saturate at 32 or 64 bits and NaN is 0."""
    target = np.dtype(dtype)
    if values.dtype.kind in "fV" and target.kind in "iu" and values.size:
        wide = values.astype(np.float64)
        bits = 64 if target.itemsize == 8 else 32
        low, high = (0, 2.0**bits) if target.kind == "u" else (-(2.0 ** (bits - 1)), 2.0 ** (bits - 1))
        kept = np.trunc(np.where(np.isnan(wide), 0, wide))
        kind = np.dtype(f"{target.kind}{bits // 8}")
        limits = np.iinfo(kind)
        inside = np.where((kept >= low) & (kept < high), kept, 0).astype(kind)
        whole = np.where(kept < low, limits.min, np.where(kept >= high, limits.max, inside)).astype(kind)
        return np.asarray(whole.astype(target))
    return values.astype(target)
