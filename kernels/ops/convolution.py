"""Conv, ConvTranspose, ConvInteger, QLinearConv (domain ai.onnx, all versions).

float16 and bfloat16 are computed in float32 and rounded once; integers are exact.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from types import ModuleType
from typing import Any

from distort.kernels.convolve import convolve, windows_of_convolution
from distort.kernels.errors import InvalidInput
from distort.kernels.exact_products import centred, exact_pair, to_int32
from distort.kernels.registry import kernel
from distort.kernels.windows import explicit_pads, shared_padding, spatial_attribute

Array = Any
Ints = Sequence[int] | None


def _add_bias(xp: ModuleType, y: Array, bias: Array | None, channels: int) -> None:
    if bias is None:
        return
    if bias.shape != (channels,):
        raise InvalidInput(f"B of shape {list(bias.shape)} must have one entry for each of {channels} output channels")
    y += bias.astype(y.dtype, copy=False).reshape(-1, *(1,) * (y.ndim - 2))


@kernel("Conv", since=1)
def conv(
    xp: ModuleType,
    x: Array,
    w: Array,
    b: Array | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Ints = None,
    group: int = 1,
    kernel_shape: Ints = None,
    pads: Ints = None,
    strides: Ints = None,
) -> Array:
    windows = windows_of_convolution(x.shape, w.shape, group, kernel_shape, strides, dilations, pads, auto_pad)
    dtype = x.dtype
    if dtype.itemsize < 4:
        x, w = x.astype(xp.float32), w.astype(xp.float32)
    y = convolve(xp, x, w, windows, group)
    _add_bias(xp, y, b, w.shape[0])
    return y.astype(dtype, copy=False)


@kernel("ConvInteger", since=10)
def conv_integer(
    xp: ModuleType,
    x: Array,
    w: Array,
    x_zero_point: Array | None = None,
    w_zero_point: Array | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Ints = None,
    group: int = 1,
    kernel_shape: Ints = None,
    pads: Ints = None,
    strides: Ints = None,
) -> Array:
    windows = windows_of_convolution(x.shape, w.shape, group, kernel_shape, strides, dilations, pads, auto_pad)
    x = centred(xp, x, _scalar("x_zero_point", x_zero_point))
    w = centred(xp, w, _by_filter("w_zero_point", w_zero_point, w))
    x, w = exact_pair(xp, x, w, tuple(range(1, w.ndim)))
    return to_int32(xp, convolve(xp, x, w, windows, group))


@kernel("QLinearConv", since=10)
def qlinear_conv(
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
    dilations: Ints = None,
    group: int = 1,
    kernel_shape: Ints = None,
    pads: Ints = None,
    strides: Ints = None,
) -> Array:
    """Rounds half to even, as onnxruntime does: float32(sum) * (x_scale * w_scale / y_scale) + y_zero_point."""
    windows = windows_of_convolution(x.shape, w.shape, group, kernel_shape, strides, dilations, pads, auto_pad)
    channels = w.shape[0]
    x = centred(xp, x, _scalar("x_zero_point", x_zero_point))
    weights = centred(xp, w, _by_filter("w_zero_point", w_zero_point, w))
    x, weights = exact_pair(xp, x, weights, tuple(range(1, w.ndim)))
    total = convolve(xp, x, weights, windows, group)
    if b is not None:
        total = total.astype(xp.float64, copy=False)  # the bias may be any int32
        _add_bias(xp, total, b, channels)
    scale = _scalar("x_scale", x_scale) * _by_filter("w_scale", w_scale, w) / _scalar("y_scale", y_scale)
    y = total.astype(xp.float32, copy=False)
    y *= scale.astype(xp.float32, copy=False).reshape(-1, *(1,) * (w.ndim - 2))
    y = xp.rint(y) + _scalar("y_zero_point", y_zero_point).astype(xp.float32)
    limits = xp.iinfo(y_zero_point.dtype)
    return xp.clip(y, limits.min, limits.max).astype(y_zero_point.dtype)


def _scalar(name: str, value: Array | None) -> Array | None:
    if value is not None and value.size != 1:
        raise InvalidInput(f"{name} of shape {list(value.shape)} must be a scalar")
    return None if value is None else value.reshape(())


def _by_filter(name: str, value: Array | None, w: Array) -> Array | None:
    """A scalar, or one entry an output channel, shaped to broadcast to w [M, C / group, *kernel]."""
    if value is None or value.size == 1:
        return None if value is None else value.reshape((1,) * w.ndim)
    if value.shape != w.shape[:1]:
        raise InvalidInput(f"{name} of shape {list(value.shape)} must be a scalar or have {w.shape[0]} entries")
    return value.reshape(-1, *(1,) * (w.ndim - 1))


@kernel("ConvTranspose", since=1)
def conv_transpose(
    xp: ModuleType,
    x: Array,
    w: Array,
    b: Array | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Ints = None,
    group: int = 1,
    kernel_shape: Ints = None,
    output_padding: Ints = None,
    output_shape: Ints = None,
    pads: Ints = None,
    strides: Ints = None,
) -> Array:
    """x [N, C, *size], w [C, M / group, *kernel] -> [N, M, *out]"""
    if x.ndim < 3 or w.ndim != x.ndim:
        raise InvalidInput(f"X {list(x.shape)} and W {list(w.shape)} must have the same rank, 3 or more")
    batch, channels, *size = x.shape
    kernel_size = w.shape[2:]
    rank = len(size)
    if group < 1 or channels % group or w.shape[0] != channels:
        raise InvalidInput(
            f"filter number not equal to input channel number: X {list(x.shape)}, W {list(w.shape)}, group {group}"
        )
    if kernel_shape and tuple(kernel_shape) != kernel_size:
        raise InvalidInput(f"kernel_shape {list(kernel_shape)} is not compatible with W shape {list(w.shape)}")
    steps = spatial_attribute("strides", strides, rank)
    spread = spatial_attribute("dilations", dilations, rank)
    extra = spatial_attribute("output_padding", output_padding, rank, default=0, least=0)
    full = [
        s * (n - 1) + e + (k - 1) * d + 1 for n, k, s, d, e in zip(size, kernel_size, steps, spread, extra, strict=True)
    ]
    begins, out = transposed_extent(size, full, steps, auto_pad, output_shape, pads)
    dtype = x.dtype
    if dtype.itemsize < 4:
        x, w = x.astype(xp.float32), w.astype(xp.float32)
    filters = w.shape[1]
    weights = w.reshape(group, channels // group, -1).swapaxes(1, 2)
    # [N, group, M / group * kernel, positions]
    columns = xp.matmul(weights, x.reshape(batch, group, channels // group, math.prod(size)))
    columns = columns.reshape(batch, group * filters, *kernel_size, *size)
    canvas = xp.zeros((batch, group * filters, *map(max, full, map(sum, zip(begins, out, strict=True)))), x.dtype)
    for element in product(*map(range, kernel_size)):
        where = tuple(
            slice(e * d, e * d + (n - 1) * s + 1, s) for e, d, n, s in zip(element, spread, size, steps, strict=True)
        )
        canvas[(..., *where)] += columns[(slice(None), slice(None), *element)]
    y = canvas[(..., *(slice(start, start + n) for start, n in zip(begins, out, strict=True)))]
    _add_bias(xp, y, b, group * filters)
    return xp.ascontiguousarray(y.astype(dtype, copy=False))


def transposed_extent(
    size: Sequence[int],
    full: Sequence[int],
    strides: Sequence[int],
    auto_pad: str,
    output_shape: Ints,
    pads: Ints,
) -> tuple[list[int], list[int]]:
    """(elements cut off before the first, output elements) an axis; ``full`` is the extent without padding."""
    rank = len(size)
    if auto_pad not in ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER", ""):
        raise InvalidInput(f"auto_pad '{auto_pad}' is none of NOTSET, SAME_UPPER, SAME_LOWER, VALID")
    if output_shape:
        if len(output_shape) not in (rank, rank + 2):
            raise InvalidInput(f"output_shape {list(output_shape)} must have {rank} entries, one a spatial axis")
        goal = list(output_shape[-rank:])
    elif auto_pad.startswith("SAME"):
        goal = [n * s for n, s in zip(size, strides, strict=True)]
    else:
        begins, ends = explicit_pads(None if auto_pad == "VALID" else pads, rank)
        out = [f - b - e for f, b, e in zip(full, begins, ends, strict=True)]
        if min(out) < 1:
            raise InvalidInput(f"pads {[*begins, *ends]} leave nothing of an output of {list(full)}")
        return list(begins), out
    if min(goal) < 1:
        raise InvalidInput(f"output_shape {goal} must be positive")
    return [shared_padding(max(f - g, 0), auto_pad)[0] for f, g in zip(full, goal, strict=True)], goal
