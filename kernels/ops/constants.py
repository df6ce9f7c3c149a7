"""Values from attributes: Constant, ConstantOfShape, EyeLike, Range; and Identity."""

from __future__ import annotations

from typing import Any

import numpy as np

from distort.kernels.errors import InvalidInput
from distort.kernels.ops.elementwise import dtype_of
from distort.kernels.ops.shape import vector
from distort.kernels.registry import kernel


@kernel("Identity")
def identity(xp: Any, x: Any) -> Any:
    return x


@kernel("Constant")
def constant(
    xp: Any,
    *,
    value: Any = None,
    sparse_value: Any = None,
    value_float: float | None = None,
    value_floats: list[float] | None = None,
    value_int: int | None = None,
    value_ints: list[int] | None = None,
    value_string: str | None = None,
    value_strings: list[str] | None = None,
) -> Any:
    if value is not None:
        return xp.asarray(value) if value.dtype != object else value
    if sparse_value is not None:
        return sparse_value.dense()
    if value_float is not None:
        return xp.asarray(value_float, dtype=np.float32)
    if value_floats is not None:
        return xp.asarray(value_floats, dtype=np.float32)
    if value_int is not None:
        return xp.asarray(value_int, dtype=np.int64)
    if value_ints is not None:
        return xp.asarray(value_ints, dtype=np.int64)
    if value_string is not None:
        return np.array(value_string, dtype=object)
    if value_strings is not None:
        return np.array(value_strings, dtype=object)
    raise InvalidInput("Constant has no value")


@kernel("ConstantOfShape", 9, host=(0,))
def constant_of_shape(xp: Any, shape: Any, *, value: Any = None) -> Any:
    sizes = tuple(vector(shape, "the shape of ConstantOfShape"))
    if any(size < 0 for size in sizes):
        raise InvalidInput(f"ConstantOfShape can't make shape {list(sizes)}")
    if value is None:
        return xp.zeros(sizes, dtype=np.float32)
    if value.dtype == object:
        result = np.empty(sizes, dtype=object)
        result[...] = value.reshape(-1)[0]
        return result
    return xp.full(sizes, value.reshape(-1)[0], dtype=value.dtype)


@kernel("EyeLike", 9)
def eye_like(xp: Any, x: Any, *, dtype: int | None = None, k: int = 0) -> Any:
    if x.ndim != 2:
        raise InvalidInput(f"EyeLike needs a matrix, not shape {list(x.shape)}")
    return xp.eye(*x.shape, k=k, dtype=x.dtype if dtype is None else dtype_of(dtype))


@kernel("Range", 11, host=(0, 1, 2))
def sequence_range(xp: Any, start: Any, limit: Any, delta: Any) -> Any:
    """max(ceil((limit - start) / delta), 0) values, each start + i * delta in the input's type."""
    first, last, step = start.reshape(-1)[0], limit.reshape(-1)[0], delta.reshape(-1)[0]
    if step == 0:
        raise InvalidInput("delta of Range must not be 0")
    if start.dtype.kind in "iu":
        first, last, step = int(first), int(last), int(step)
        return xp.arange(first, last, step, dtype=start.dtype)
    wide = np.float64 if start.dtype == np.float64 else np.float32
    count = max(int(np.ceil((float(last) - float(first)) / float(step))), 0)
    # onnxruntime adds up in the type itself; products round less and agree to the last bits
    return (xp.arange(count, dtype=wide) * wide(step) + wide(first)).astype(start.dtype)
