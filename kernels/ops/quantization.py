"""QuantizeLinear, DequantizeLinear, DynamicQuantizeLinear, MatMulInteger, QLinearMatMul (domain ai.onnx, all versions).

Computed in float32, whatever the scale's type, as in onnxruntime; integer sums are exact.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np

from distort.graph.types import limits_of
from distort.kernels.errors import Failed, InvalidInput
from distort.kernels.exact_products import centred, exact_pair, to_int32
from distort.kernels.ops.elementwise import dtype_of
from distort.kernels.registry import kernel

Array = Any


def _granular(
    xp: ModuleType, x: Array, parameter: Array, axis: int, block_size: int, name: str
) -> tuple[Array, tuple[int, ...]]:
    """(the parameter in a shape that broadcasts to x in the second result's shape, that shape).

    Per tensor, per axis or per block of ``axis``. Where blocks divide the axis, x is seen as [.., blocks, block, ..];
    else the parameter is repeated.
    """
    if parameter.ndim == 0 or (parameter.shape == (1,) and not block_size):
        return parameter.reshape(()), x.shape
    if not -x.ndim <= axis < x.ndim:
        raise InvalidInput(f"axis {axis} is out of range for an input of shape {list(x.shape)}")
    axis %= x.ndim
    size = x.shape[axis]
    if not block_size:
        if parameter.shape != (size,):
            raise Failed(f"{name} of shape {list(parameter.shape)} must have {size} entries, one along axis {axis}")
        return parameter.reshape(-1, *(1,) * (x.ndim - 1 - axis)), x.shape
    if block_size < 0:
        raise InvalidInput(f"block_size {block_size} must not be negative")
    blocks = -(-size // block_size)
    expected = (*x.shape[:axis], blocks, *x.shape[axis + 1 :])
    if parameter.shape != expected:
        raise InvalidInput(
            f"{name} of shape {list(parameter.shape)} must be {list(expected)}, one a block of axis {axis}"
        )
    if size % block_size == 0:
        split = (*x.shape[:axis], blocks, block_size, *x.shape[axis + 1 :])
        return xp.expand_dims(parameter, axis + 1), split
    repeated = xp.repeat(parameter, block_size, axis=axis)
    return repeated[(*(slice(None),) * axis, slice(size))], x.shape


def _same_shape(name: str, zero_point: Array | None, scale: Array) -> None:
    if zero_point is not None and zero_point.shape != scale.shape and (zero_point.size, scale.size) != (1, 1):
        raise InvalidInput(
            f"{name} must have the same shape as its scale: {list(zero_point.shape)} and {list(scale.shape)}"
        )


def _is_integer(dtype: np.dtype[Any]) -> bool:
    return dtype.kind in "iu" or dtype.name in ("int4", "uint4", "int2", "uint2")  # numpy's kind of ml_dtypes is "V"


def saturated(xp: ModuleType, y: Array, dtype: np.dtype[Any], saturate: int = 1) -> Array:
    """float32, already rounded for integers, in ``dtype``; may overwrite y. NaN becomes the least integer.

    ``saturate`` 0 lets float8 types overflow to their infinity or NaN.
    """
    if _is_integer(dtype):
        limits = limits_of(dtype)
        low, high = float(limits.min), float(limits.max)
        # fmax, which turns NaN into the least integer, is slow in numpy and seldom needed
        if xp.__name__ != "numpy" or (y.size and np.isnan(y.min())):
            y = xp.fmax(y, y.dtype.type(low))
        y = xp.clip(y, low, high, out=y) if y.ndim else xp.clip(y, low, high)
    elif saturate or not dtype.name.startswith("float8"):
        # cast to the float type rounds to nearest, ties to even
        limit = float(limits_of(dtype).max)
        y = xp.clip(y, -limit, limit)
    return y.astype(dtype)


@kernel("QuantizeLinear", since=10)
def quantize_linear(
    xp: ModuleType,
    x: Array,
    y_scale: Array,
    y_zero_point: Array | None = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
    precision: int = 0,
    saturate: int = 1,
) -> Array:
    _same_shape("y_zero_point", y_zero_point, y_scale)
    dtype = dtype_of(output_dtype or 2) if y_zero_point is None else y_zero_point.dtype
    if output_dtype and dtype != dtype_of(output_dtype):
        raise InvalidInput(f"output_dtype {dtype_of(output_dtype)} differs from that of y_zero_point, {dtype}")
    division = dtype_of(precision) if precision else xp.dtype("float32")
    if x.dtype.kind in "iu" and y_scale.dtype.kind in "iu":
        division = xp.dtype("float64")  # float32 can't hold every int32
    wide = xp.dtype("float32") if division.itemsize < 4 else division
    scale, shape = _granular(xp, x, y_scale.astype(wide, copy=False), axis, block_size, "y_scale")
    y = x.reshape(shape).astype(wide, copy=False) / scale
    if division.itemsize < 4:
        # float32 quotients of float16 operands round to the float16 quotient
        y = y.astype(division).astype(wide)
    if _is_integer(dtype):
        y = xp.rint(y, out=y) if y.ndim else xp.rint(y)
    if y_zero_point is not None:
        y += _granular(xp, x, y_zero_point.astype(wide), axis, block_size, "y_zero_point")[0]
    return xp.asarray(saturated(xp, y, dtype, saturate)).reshape(x.shape)


@kernel("DequantizeLinear", since=10)
def dequantize_linear(
    xp: ModuleType,
    x: Array,
    x_scale: Array,
    x_zero_point: Array | None = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
) -> Array:
    _same_shape("x_zero_point", x_zero_point, x_scale)
    if x_zero_point is not None and x_zero_point.dtype != x.dtype:
        raise InvalidInput(f"x_zero_point is {x_zero_point.dtype}, x is {x.dtype}")
    dtype = dtype_of(output_dtype) if output_dtype else x_scale.dtype
    scale, shape = _granular(xp, x, x_scale.astype(xp.float32, copy=False), axis, block_size, "x_scale")
    # int32 values less their zero point need more than float32's 24 bits until they are rounded once
    exact = xp.float64 if x.dtype.itemsize == 4 and x_zero_point is not None else xp.float32
    y = x.reshape(shape).astype(exact)
    if x_zero_point is not None:
        y -= _granular(xp, x, x_zero_point.astype(exact), axis, block_size, "x_zero_point")[0]
    y = y.astype(xp.float32, copy=False)
    y *= scale
    return y.reshape(x.shape).astype(dtype, copy=False)


@kernel("DynamicQuantizeLinear", since=11)
def dynamic_quantize_linear(xp: ModuleType, x: Array) -> tuple[Array, Array, Array]:
    """uint8 over the range of x, widened to hold zero; an all-zero or empty x has scale 1, as in onnxruntime."""
    zero = xp.float32(0)
    low = xp.asarray(xp.minimum(x.min(), zero) if x.size else zero, dtype=xp.float32)
    high = xp.asarray(xp.maximum(x.max(), zero) if x.size else zero, dtype=xp.float32)
    scale = xp.where(high == low, xp.float32(1), (high - low) / xp.float32(255)).astype(xp.float32)
    zero_point = xp.asarray(saturated(xp, xp.rint(-low / scale), np.dtype(np.uint8)))
    y = xp.rint(x / scale) + zero_point.astype(xp.float32)
    return xp.asarray(saturated(xp, y, np.dtype(np.uint8))), scale, zero_point


@kernel("MatMulInteger", since=10)
def matmul_integer(
    xp: ModuleType, a: Array, b: Array, a_zero_point: Array | None = None, b_zero_point: Array | None = None
) -> Array:
    a, b = _centred_operands(xp, a, b, a_zero_point, b_zero_point)
    return to_int32(xp, xp.asarray(xp.matmul(*exact_pair(xp, a, b, -2 if b.ndim > 1 else 0))))


def _centred_operands(
    xp: ModuleType, a: Array, b: Array, a_zero_point: Array | None, b_zero_point: Array | None
) -> tuple[Array, Array]:
    if a.ndim == 0 or b.ndim == 0 or a.shape[-1] != b.shape[-2 if b.ndim > 1 else 0]:
        raise InvalidInput(f"matmul dimensions don't match: {list(a.shape)} and {list(b.shape)}")
    a_zero = _along(a_zero_point, a, -2, "a_zero_point")
    b_zero = _along(b_zero_point, b, -1, "b_zero_point")
    return centred(xp, a, a_zero), centred(xp, b, b_zero)


def _along(parameter: Array | None, of: Array, axis: int, name: str) -> Array | None:
    """A scale or zero point of one matrix operand: a scalar, one entry a row (column), or that with batch axes."""
    if parameter is None:
        return None
    if parameter.size == 1:
        return parameter.reshape(())
    if of.ndim >= 2:
        if parameter.shape == (of.shape[axis],):
            return parameter[:, None] if axis == -2 else parameter
        expected = (*of.shape[:-2], of.shape[-2], 1) if axis == -2 else (*of.shape[:-2], 1, of.shape[-1])
        if parameter.shape == expected:
            return parameter
    raise InvalidInput(f"{name} of shape {list(parameter.shape)} doesn't fit an operand of shape {list(of.shape)}")


@kernel("QLinearMatMul", since=10)
def qlinear_matmul(
    xp: ModuleType,
    a: Array,
    a_scale: Array,
    a_zero_point: Array,
    b: Array,
    b_scale: Array,
    b_zero_point: Array,
    y_scale: Array,
    y_zero_point: Array,
) -> Array:
    """float32(exact sum) * (a_scale * b_scale / y_scale), rounded half to even, plus y_zero_point, saturated."""
    a_factor = _along(a_scale, a, -2, "a_scale").astype(xp.float32)
    b_factor = _along(b_scale, b, -1, "b_scale").astype(xp.float32)
    a, b = _centred_operands(xp, a, b, a_zero_point, b_zero_point)
    if _is_integer(y_zero_point.dtype):
        a, b = exact_pair(xp, a, b, -2 if b.ndim > 1 else 0)
    total = xp.asarray(xp.matmul(a, b)).astype(xp.float32, copy=False)
    factor = a_factor * b_factor
    y = total * (factor / _along(y_scale, total, -2, "y_scale").astype(xp.float32))
    if _is_integer(y_zero_point.dtype):
        y = xp.rint(y)
    y = y + _along(y_zero_point, total, -2, "y_zero_point").astype(xp.float32)
    return xp.asarray(saturated(xp, y, y_zero_point.dtype))
