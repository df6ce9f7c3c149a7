"""onnxruntime's own operators on images: FusedConv, CropAndResize, ConvTransposeWithDynamicPads."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np

from distort.kernels.errors import InvalidInput, MissingKernel
from distort.kernels.ops.convolution import conv, conv_transpose
from distort.kernels.registry import kernel

Array = Any
Ints = Sequence[int] | None
_MS = "com.microsoft"


def activated(xp: ModuleType, y: Array, activation: str, parameters: Sequence[float] | None) -> Array:
    """The activations that onnxruntime fuses into convolutions."""
    given = list(parameters or ())
    if activation in ("", "Relu"):
        return xp.maximum(y, 0) if activation else y
    if activation == "Tanh":
        return xp.tanh(y)
    if activation == "Sigmoid":
        half = y.dtype.type(0.5)
        return xp.tanh(y * half) * half + half
    if activation == "LeakyRelu":
        slope = y.dtype.type(given[0] if given else 0.01)
        return xp.where(y >= 0, y, y * slope).astype(y.dtype, copy=False)
    if activation in ("Clip", "HardSigmoid"):
        if len(given) != 2:
            raise InvalidInput(f"{activation} needs two activation_params, got {given}")
        first, second = (y.dtype.type(value) for value in given)
        if activation == "Clip":
            return xp.minimum(xp.maximum(y, first), second)
        return xp.clip(y * first + second, 0, 1).astype(y.dtype, copy=False)
    raise MissingKernel(f"FusedConv has no activation {activation!r}")


@kernel("FusedConv", domain=_MS)
def fused_conv(
    xp: ModuleType,
    x: Array,
    w: Array,
    b: Array | None = None,
    z: Array | None = None,
    *,
    activation: str = "",
    activation_params: Sequence[float] | None = None,
    auto_pad: str = "NOTSET",
    dilations: Ints = None,
    group: int = 1,
    kernel_shape: Ints = None,
    pads: Ints = None,
    strides: Ints = None,
) -> Array:
    """Conv, plus z of the result's shape, and an activation."""
    y = conv(
        xp, x, w, b, auto_pad=auto_pad, dilations=dilations, group=group, kernel_shape=kernel_shape, pads=pads,
        strides=strides,
    )  # fmt: skip
    if z is not None:
        if z.shape != y.shape:
            raise InvalidInput(f"Z of shape {list(z.shape)} is added to a convolution of shape {list(y.shape)}")
        y = y + z
    return activated(xp, y, activation, activation_params)


@kernel("ConvTransposeWithDynamicPads", domain=_MS, host=(2,))
def conv_transpose_with_dynamic_pads(
    xp: ModuleType,
    x: Array,
    w: Array,
    pads: Any = None,
    b: Array | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Ints = None,
    group: int = 1,
    kernel_shape: Ints = None,
    output_padding: Ints = None,
    strides: Ints = None,
) -> Array:
    """ConvTranspose whose pads are an input."""
    amounts = None if pads is None else [int(value) for value in np.asarray(pads).reshape(-1)]
    return conv_transpose(
        xp, x, w, b, auto_pad=auto_pad, dilations=dilations, group=group, kernel_shape=kernel_shape,
        output_padding=output_padding, pads=amounts, strides=strides,
    )  # fmt: skip


@kernel("CropAndResize", domain=_MS, host=(3,))
def crop_and_resize(
    xp: ModuleType,
    x: Array,
    rois: Array,
    batch_indices: Array,
    crop_size: Any,
    *,
    extrapolation_value: float = 0.0,
    mode: str = "bilinear",
) -> Array:
    """x [N, C, H, W], rois [R, 4] as y1, x1, y2, x2 from 0 to 1 -> [R, C, *crop_size], corners on corners."""
    size = [int(n) for n in np.asarray(crop_size).reshape(-1)]
    if x.ndim != 4 or rois.ndim != 2 or rois.shape[1] != 4 or batch_indices.shape != rois.shape[:1]:
        raise InvalidInput(
            f"CropAndResize of {list(x.shape)}, rois {list(rois.shape)}, batch_indices {list(batch_indices.shape)}"
        )
    if len(size) != 2 or min(size) < 1:
        raise InvalidInput(f"crop_size must be two positive numbers, got {size}")
    if mode not in ("bilinear", "nearest"):
        raise InvalidInput(f"CropAndResize has no mode {mode!r}")
    if batch_indices.size and (int(batch_indices.min()) < 0 or int(batch_indices.max()) >= x.shape[0]):
        raise InvalidInput(f"batch_indices beyond the {x.shape[0]} images")
    places, inside = zip(
        *(_places(xp, rois[:, i], rois[:, i + 2], x.shape[2 + i], size[i]) for i in (0, 1)),
        strict=True,
    )
    images = batch_indices[:, None, None]
    rows, columns = places[0][:, :, None], places[1][:, None, :]  # [R, h, 1], [R, 1, w]

    def at(row: Array, column: Array) -> Array:
        return x[images, :, row, column]  # [R, h, w, C]

    limit_y, limit_x = x.shape[2] - 1, x.shape[3] - 1
    safe_y, safe_x = xp.clip(rows, 0, limit_y), xp.clip(columns, 0, limit_x)
    if mode == "nearest":
        y = at(_rounded(xp, safe_y), _rounded(xp, safe_x))
    else:
        top, left = xp.floor(safe_y).astype(int), xp.floor(safe_x).astype(int)
        bottom, right = xp.ceil(safe_y).astype(int), xp.ceil(safe_x).astype(int)
        down, across = (safe_y - top)[..., None], (safe_x - left)[..., None]
        upper = at(top, left) + (at(top, right) - at(top, left)) * across
        lower = at(bottom, left) + (at(bottom, right) - at(bottom, left)) * across
        y = upper + (lower - upper) * down
    seen = (inside[0][:, :, None] & inside[1][:, None, :])[..., None]
    y = xp.where(seen, y, x.dtype.type(extrapolation_value)).astype(x.dtype, copy=False)
    return xp.ascontiguousarray(xp.moveaxis(y, -1, 1))


def _rounded(xp: ModuleType, at: Array) -> Array:
    """Halves away from zero."""
    return xp.floor(at + at.dtype.type(0.5)).astype(int)


def _places(xp: ModuleType, first: Array, last: Array, n: int, count: int) -> tuple[Array, Array]:
    """([R, count] places in an axis of n pixels, whether they are inside)."""
    wide = first.dtype.type
    if count > 1:
        step = (last - first) * wide(n - 1) / wide(count - 1)
        at = first[:, None] * wide(n - 1) + xp.arange(count, dtype=first.dtype) * step[:, None]
    else:
        at = (wide(0.5) * (first + last) * wide(n - 1))[:, None]
    return at, (at >= 0) & (at <= n - 1)
