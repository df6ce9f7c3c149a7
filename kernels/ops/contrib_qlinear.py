"""onnxruntime's operators on 8-bit tensors: QLinearAdd, Mul, Sigmoid, LeakyRelu, Softmax, Concat, Where, the pools.

Operators of one 8-bit operand are tables of 256 entries.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

from distort.kernels.errors import InvalidInput
from distort.kernels.ops.activations import sigmoid
from distort.kernels.ops.convolution import qlinear_conv
from distort.kernels.ops.pooling import average_pool, global_average_pool, max_pool
from distort.kernels.ops.quantization import saturated
from distort.kernels.ops.shape import axes_of, axis_of
from distort.kernels.registry import kernel

Array = Any
Ints = list[int] | None
_MS = "com.microsoft"


def _single(xp: ModuleType, value: Array | None, name: str) -> Any:
    """A scale or zero point of a whole tensor, as float32; 0 where a zero point is absent."""
    if value is None:
        return xp.float32(0)
    if value.size != 1:
        raise InvalidInput(f"{name} must be a scalar, not of shape {list(value.shape)}")
    return value.reshape(()).astype(xp.float32)


def _real(xp: ModuleType, x: Array, scale: Array, zero_point: Array | None, name: str) -> Array:
    if zero_point is not None and zero_point.dtype != x.dtype:
        raise InvalidInput(f"{name}_zero_point is {zero_point.dtype}, {name} is {x.dtype}")
    return (x.astype(xp.float32) - _single(xp, zero_point, f"{name}_zero_point")) * _single(xp, scale, f"{name}_scale")


def _quantized(xp: ModuleType, y: Array, scale: Array, zero_point: Array | None, dtype: Any) -> Array:
    """Rounded half to even, saturated."""
    if zero_point is not None and zero_point.dtype != dtype:
        raise InvalidInput(f"the result's zero point is {zero_point.dtype}, expected {dtype}")
    y = xp.rint(y / _single(xp, scale, "scale of the result")) + _single(xp, zero_point, "zero point of the result")
    return xp.asarray(saturated(xp, xp.asarray(y, dtype=xp.float32), np.dtype(dtype)))


def _every_value(xp: ModuleType, dtype: Any) -> Array:
    """The 256 values of an 8-bit type, in the order of their bits."""
    if np.dtype(dtype).itemsize != 1 or np.dtype(dtype).kind not in "iu":
        raise InvalidInput(f"int8 or uint8 is expected, not {dtype}")
    return xp.arange(256, dtype=xp.uint8).view(dtype)


def _looked_up(xp: ModuleType, x: Array, formula: Callable[[Array], Array]) -> Array:
    """An elementwise formula over an 8-bit tensor."""
    table = formula(_every_value(xp, x.dtype))
    return xp.asarray(table[x.view(xp.uint8)])


@kernel("QLinearAdd", domain=_MS)
def qlinear_add(
    xp: ModuleType,
    a: Array,
    a_scale: Array,
    a_zero_point: Array | None,
    b: Array,
    b_scale: Array,
    b_zero_point: Array | None,
    c_scale: Array,
    c_zero_point: Array | None = None,
) -> Array:
    real = _real(xp, a, a_scale, a_zero_point, "A") + _real(xp, b, b_scale, b_zero_point, "B")
    return _quantized(xp, real, c_scale, c_zero_point, a.dtype)


@kernel("QLinearMul", domain=_MS)
def qlinear_mul(
    xp: ModuleType,
    a: Array,
    a_scale: Array,
    a_zero_point: Array | None,
    b: Array,
    b_scale: Array,
    b_zero_point: Array | None,
    c_scale: Array,
    c_zero_point: Array | None = None,
) -> Array:
    real = _real(xp, a, a_scale, a_zero_point, "A") * _real(xp, b, b_scale, b_zero_point, "B")
    return _quantized(xp, real, c_scale, c_zero_point, a.dtype)


@kernel("QLinearSigmoid", domain=_MS)
def qlinear_sigmoid(
    xp: ModuleType,
    x: Array,
    x_scale: Array,
    x_zero_point: Array | None,
    y_scale: Array,
    y_zero_point: Array | None = None,
) -> Array:
    def formula(values: Array) -> Array:
        real = sigmoid(xp, _real(xp, values, x_scale, x_zero_point, "X"))
        return _quantized(xp, real, y_scale, y_zero_point, x.dtype)

    return _looked_up(xp, x, formula)


@kernel("QLinearLeakyRelu", domain=_MS)
def qlinear_leaky_relu(
    xp: ModuleType,
    x: Array,
    x_scale: Array,
    x_zero_point: Array | None,
    y_scale: Array,
    y_zero_point: Array | None = None,
    *,
    alpha: float = 0.01,
) -> Array:
    def formula(values: Array) -> Array:
        real = _real(xp, values, x_scale, x_zero_point, "X")
        real = xp.where(real < 0, real * xp.float32(alpha), real)
        return _quantized(xp, real, y_scale, y_zero_point, x.dtype)

    return _looked_up(xp, x, formula)


def _prepare_softmax(*, opset: int, axis: int = -1) -> dict[str, Any]:
    """``opset`` is the version whose Softmax is meant: before 13 dimensions from ``axis`` on are one."""
    return {"flattens": opset < 13, "axis": axis}


@kernel("QLinearSoftmax", domain=_MS, prepare=_prepare_softmax)
def qlinear_softmax(
    xp: ModuleType,
    x: Array,
    x_scale: Array,
    x_zero_point: Array | None,
    y_scale: Array,
    y_zero_point: Array | None = None,
    *,
    flattens: bool,
    axis: int,
) -> Array:
    """The zero point of x does not matter."""
    first = axis_of(axis, x.ndim)
    exponents = xp.exp(xp.arange(-255, 1, dtype=xp.float32) * _single(xp, x_scale, "X_scale"))
    wide = x.astype(xp.int32)
    axes = tuple(range(first, x.ndim)) if flattens else (first,)
    if not x.size:
        return x.copy()
    terms = exponents[wide - wide.max(axis=axes, keepdims=True) + 255]
    return _quantized(xp, terms / terms.sum(axis=axes, keepdims=True), y_scale, y_zero_point, x.dtype)


def _requantized(
    xp: ModuleType, x: Array, scale: Array, zero_point: Array, new_scale: Array, new_zero_point: Array
) -> Array:
    same = _single(xp, scale, "scale") == _single(xp, new_scale, "scale")
    if same and _single(xp, zero_point, "zero point") == _single(xp, new_zero_point, "zero point"):
        return x

    def formula(values: Array) -> Array:
        return _quantized(xp, _real(xp, values, scale, zero_point, "input"), new_scale, new_zero_point, x.dtype)

    return _looked_up(xp, x, formula)


@kernel("QLinearConcat", domain=_MS)
def qlinear_concat(xp: ModuleType, y_scale: Array, y_zero_point: Array, *inputs: Array, axis: int) -> Array:
    """Inputs come in threes: tensor, scale, zero point."""
    if not inputs or len(inputs) % 3:
        raise InvalidInput(f"QLinearConcat has {len(inputs)} inputs, expected three for each tensor")
    parts = [
        _requantized(xp, *inputs[i : i + 3], y_scale, y_zero_point)  # type: ignore[call-arg]  # three it has
        for i in range(0, len(inputs), 3)
    ]
    try:
        return xp.concatenate(parts, axis=axis_of(axis, parts[0].ndim))
    except ValueError:
        shapes = ", ".join(str(list(part.shape)) for part in parts)
        raise InvalidInput(f"QLinearConcat can't join shapes {shapes} along axis {axis}") from None


@kernel("QLinearWhere", domain=_MS)
def qlinear_where(
    xp: ModuleType,
    condition: Array,
    x: Array,
    x_scale: Array,
    x_zero_point: Array,
    y: Array,
    y_scale: Array,
    y_zero_point: Array,
    z_scale: Array,
    z_zero_point: Array,
) -> Array:
    chosen = _requantized(xp, x, x_scale, x_zero_point, z_scale, z_zero_point)
    return xp.where(condition, chosen, _requantized(xp, y, y_scale, y_zero_point, z_scale, z_zero_point))


def _channels_second(xp: ModuleType, x: Array, channels_last: int) -> Array:
    return xp.moveaxis(x, -1, 1) if channels_last else x


def _channels_back(xp: ModuleType, y: Array, channels_last: int) -> Array:
    return xp.ascontiguousarray(xp.moveaxis(y, 1, -1)) if channels_last else y


@kernel("QLinearAveragePool", domain=_MS)
def qlinear_average_pool(
    xp: ModuleType,
    x: Array,
    x_scale: Array,
    x_zero_point: Array | None,
    y_scale: Array,
    y_zero_point: Array | None = None,
    *,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    channels_last: int = 0,
    count_include_pad: int = 0,
    kernel_shape: list[int],
    pads: Ints = None,
    strides: Ints = None,
) -> Array:
    real = _real(xp, _channels_second(xp, x, channels_last), x_scale, x_zero_point, "X")
    pooled = average_pool(
        xp,
        real,
        kernel_shape=kernel_shape,
        auto_pad=auto_pad,
        ceil_mode=ceil_mode,
        count_include_pad=count_include_pad,
        pads=pads,
        strides=strides,
    )
    return _channels_back(xp, _quantized(xp, pooled, y_scale, y_zero_point, x.dtype), channels_last)


@kernel("QLinearGlobalAveragePool", domain=_MS)
def qlinear_global_average_pool(
    xp: ModuleType,
    x: Array,
    x_scale: Array,
    x_zero_point: Array,
    y_scale: Array,
    y_zero_point: Array,
    *,
    channels_last: int = 0,
) -> Array:
    real = _real(xp, _channels_second(xp, x, channels_last), x_scale, x_zero_point, "X")
    pooled = global_average_pool(xp, real)
    return _channels_back(xp, _quantized(xp, pooled, y_scale, y_zero_point, x.dtype), channels_last)


@kernel("QLinearReduceMean", domain=_MS)
def qlinear_reduce_mean(
    xp: ModuleType,
    x: Array,
    x_scale: Array,
    x_zero_point: Array | None,
    y_scale: Array,
    y_zero_point: Array | None = None,
    *,
    axes: list[int],
    keepdims: int,
) -> Array:
    real = _real(xp, x, x_scale, x_zero_point, "data")
    mean = real.mean(axis=axes_of(axes, x.ndim) if axes else None, keepdims=bool(keepdims), dtype=xp.float32)
    return _quantized(xp, mean, y_scale, y_zero_point, x.dtype)


@kernel("QLinearConv", domain=_MS)
def qlinear_conv_ms(
    xp: ModuleType,
    x: Array,
    x_scale: Array,
    x_zero_point: Array,
    w: Array,
    w_scale: Array,
    w_zero_point: Array,
    y_scale: Array,
    y_zero_point: Array,
    b: Array | None = None,
    *,
    auto_pad: str = "NOTSET",
    channels_last: int = 0,
    dilations: Ints = None,
    group: int = 1,
    kernel_shape: Ints = None,
    pads: Ints = None,
    strides: Ints = None,
) -> Array:
    y = qlinear_conv(
        xp,
        _channels_second(xp, x, channels_last),
        x_scale,
        x_zero_point,
        w,
        w_scale,
        w_zero_point,
        y_scale,
        y_zero_point,
        b,
        auto_pad=auto_pad,
        dilations=dilations,
        group=group,
        kernel_shape=kernel_shape,
        pads=pads,
        strides=strides,
    )
    return _channels_back(xp, y, channels_last)


@kernel("NhwcMaxPool", domain=_MS)
def nhwc_max_pool(
    xp: ModuleType,
    x: Array,
    *,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: Ints = None,
    kernel_shape: list[int],
    pads: Ints = None,
    strides: Ints = None,
) -> Array:
    y = max_pool(
        xp,
        _channels_second(xp, x, 1),
        kernel_shape=kernel_shape,
        auto_pad=auto_pad,
        ceil_mode=ceil_mode,
        dilations=dilations,
        pads=pads,
        strides=strides,
        n_outputs=1,
    )
    return _channels_back(xp, y, 1)
