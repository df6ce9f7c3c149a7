"""Reading images between their pixels: GridSample, AffineGrid, DeformConv, RoiAlign (ai.onnx, all versions)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from types import ModuleType
from typing import Any

import numpy as np

from distort.kernels.convolve import windows_of_convolution
from distort.kernels.errors import InvalidInput
from distort.kernels.registry import kernel

Array = Any
_MODES = {"linear": "linear", "bilinear": "linear", "nearest": "nearest", "cubic": "cubic", "bicubic": "cubic"}
_CUBIC_A = -0.75


def _reflected(xp: ModuleType, at: Array, low: float, high: float) -> Array:
    """Coordinates mirrored at both ends until they lie within [low, high]."""
    if high <= low:
        return xp.zeros_like(at)
    span = high - low
    distance = xp.abs(at - low) % (2 * span)
    mirrored = low + xp.minimum(distance, 2 * span - distance)
    return xp.where((at >= low) & (at <= high), at, mirrored)


def _axis_taps(
    xp: ModuleType, at: Array, size: int, mode: str, padding: str, align_corners: int
) -> list[tuple[Array, Array | None]]:
    """at [Q] in pixels -> for each tap (pixel [Q], weight [Q]); weight None is one. Pixels are within the image."""
    low, high = (0.0, size - 1.0) if align_corners else (-0.5, size - 0.5)
    if mode == "nearest":
        at = xp.rint(at)
    if padding == "border" and mode != "cubic":
        at = xp.clip(at, 0, size - 1)
    elif padding == "reflection":
        at = _reflected(xp, at, low, high)
    if mode == "nearest":
        taps: list[tuple[Array, Array | None]] = [(at, None)]
    else:
        base = xp.floor(at)
        t = at - base
        if mode == "linear":
            taps = [(base, 1 - t), (base + 1, t)]
        else:
            a = _CUBIC_A
            weights: list[Any] = []
            for distance in (1 + t, t, 1 - t, 2 - t):
                if len(weights) in (1, 2):
                    weights.append(((a + 2) * distance - (a + 3)) * distance * distance + 1)
                else:
                    weights.append(((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a)
            taps = [(base + offset, weight) for offset, weight in zip((-1, 0, 1, 2), weights, strict=True)]
    result = []
    for pixel, weight in taps:
        if padding == "zeros":
            if weight is None:
                weight = ((pixel >= 0) & (pixel <= size - 1)).astype(at.dtype)
            else:
                weight = xp.where((pixel < 0) | (pixel > size - 1), 0, weight)  # leaves NaN
        elif padding == "reflection":
            pixel = _reflected(xp, pixel, low, high)
        # NaN coordinates read some pixel; their weight is NaN
        result.append((xp.nan_to_num(xp.clip(pixel, 0, size - 1)).astype(xp.int64), weight))
    return result


def sampled(xp: ModuleType, image: Array, at: Sequence[Array], mode: str, padding: str, align_corners: int) -> Array:
    """image [C, *size], at: one array [Q] of pixel coordinates an axis -> [C, Q]"""
    size = image.shape[1:]
    axes = [_axis_taps(xp, where, n, mode, padding, align_corners) for where, n in zip(at, size, strict=True)]
    flat = image.reshape(image.shape[0], -1)
    total = None
    for taps in product(*axes):
        place, weight = 0, None
        for (pixel, factor), n in zip(taps, size, strict=True):
            place = place * n + pixel
            if factor is not None:
                weight = factor if weight is None else weight * factor
        part = xp.take(flat, place, axis=1)
        if weight is not None:
            part = part * weight
            if padding == "zeros":
                # what lies outside is zero even where the pixel read instead is not finite
                part = xp.where(weight == 0, part.dtype.type(0), part)
        total = part if total is None else total + part
    return total


@kernel("GridSample", since=16)
def grid_sample(
    xp: ModuleType,
    x: Array,
    grid: Array,
    *,
    align_corners: int = 0,
    mode: str = "linear",
    padding_mode: str = "zeros",
) -> Array:
    """x [N, C, *size], grid [N, *out, rank] in [-1, 1], last axis of x first -> [N, C, *out]"""
    rank = x.ndim - 2
    if rank < 1 or grid.ndim != x.ndim or grid.shape[-1] != rank or grid.shape[0] != x.shape[0]:
        raise InvalidInput(f"X {list(x.shape)} needs a grid [{x.shape[0]}, …, {rank}], got {list(grid.shape)}")
    if mode not in _MODES or padding_mode not in ("zeros", "border", "reflection"):
        raise InvalidInput(f"mode '{mode}' or padding_mode '{padding_mode}' is not known")
    if 0 in x.shape[2:] and 0 not in grid.shape:
        raise InvalidInput(f"X {list(x.shape)} has no pixel to sample")
    wide = xp.float64 if x.dtype == xp.float64 else xp.float32
    images = x.astype(wide, copy=False)
    result = xp.empty((*x.shape[:2], *grid.shape[1:-1]), x.dtype)
    for image, points, into in zip(images, grid.astype(wide, copy=False), result, strict=True):
        at = []
        for axis, n in enumerate(x.shape[2:]):
            g = points[..., rank - 1 - axis].reshape(-1)
            at.append((g + 1) / 2 * (n - 1) if align_corners else ((g + 1) * n - 1) / 2)
        values = sampled(xp, image, at, _MODES[mode], padding_mode, align_corners)
        if x.dtype.kind in "iu":
            values = xp.rint(values)
        into[...] = values.reshape(into.shape).astype(x.dtype, copy=False)
    return result


@kernel("AffineGrid", since=20, host=(1,))
def affine_grid(xp: ModuleType, theta: Array, size: Array, *, align_corners: int = 0) -> Array:
    """theta [N, rank, rank + 1], size [N, C, *out] -> [N, *out, rank], the last axis' coordinate first."""
    batch, _, *out = (int(n) for n in size)
    rank = len(out)
    if rank not in (2, 3) or theta.shape != (batch, rank, rank + 1):
        raise InvalidInput(f"theta {list(theta.shape)} must be [N, 2, 3] or [N, 3, 4] for size {size.tolist()}")
    wide = xp.float64 if theta.dtype == xp.float64 else xp.float32
    points = xp.ones((*out, rank + 1), wide)
    for axis, n in enumerate(out):
        along = (2 * xp.arange(n) + 1) / n - 1
        if align_corners and n > 1:
            along = xp.linspace(-1, 1, n)
        points[..., rank - 1 - axis] = along.reshape(-1, *(1,) * (rank - 1 - axis))
    grid = xp.matmul(points.reshape(-1, rank + 1), theta.astype(wide, copy=False).swapaxes(1, 2))
    return grid.reshape(batch, *out, rank).astype(theta.dtype, copy=False)


@kernel("DeformConv", since=19)
def deform_conv(
    xp: ModuleType,
    x: Array,
    w: Array,
    offset: Array,
    b: Array | None = None,
    mask: Array | None = None,
    *,
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    offset_group: int = 1,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Array:
    """x [N, C, *size], w [M, C / group, *kernel], offset [N, offset_group * kernel * rank, *out], mask likewise."""
    windows = windows_of_convolution(x.shape, w.shape, group, kernel_shape, strides, dilations, pads, "NOTSET")
    batch, channels = x.shape[:2]
    rank, taps, places = len(windows.out), math.prod(windows.kernel), math.prod(windows.out)
    if offset_group < 1 or channels % offset_group:
        raise InvalidInput(f"{channels} channels can't be split into {offset_group} offset groups")
    if offset.shape != (batch, offset_group * taps * rank, *windows.out):
        raise InvalidInput(f"offset {list(offset.shape)} must be {[batch, offset_group * taps * rank, *windows.out]}")
    if mask is not None and mask.shape != (batch, offset_group * taps, *windows.out):
        raise InvalidInput(f"mask {list(mask.shape)} must be {[batch, offset_group * taps, *windows.out]}")
    if b is not None and b.shape != w.shape[:1]:
        raise InvalidInput(f"B of shape {list(b.shape)} must have {w.shape[0]} entries")
    wide = xp.float64 if x.dtype == xp.float64 else xp.float32
    shifts = offset.astype(wide, copy=False).reshape(batch, offset_group, taps, rank, places)
    # where each tap of each window lies without offsets: one [taps, places] an axis
    regular = []
    for axis in range(rank):
        tap = np.arange(windows.kernel[axis]) * windows.dilations[axis] - windows.begins[axis]
        place = np.arange(windows.out[axis]) * windows.strides[axis]
        tap = tap.reshape(-1, *(1,) * (rank - 1 - axis))
        place = place.reshape(-1, *(1,) * (rank - 1 - axis))
        tap = np.broadcast_to(tap, windows.kernel).reshape(-1, 1)
        place = np.broadcast_to(place, windows.out).reshape(1, -1)
        regular.append(xp.asarray(tap + place, dtype=wide))
    images = x.astype(wide, copy=False).reshape(batch, offset_group, channels // offset_group, *x.shape[2:])
    columns = xp.empty((batch, offset_group, channels // offset_group, taps, places), wide)
    for image, part in product(range(batch), range(offset_group)):
        at = [(regular[axis] + shifts[image, part, :, axis]).reshape(-1) for axis in range(rank)]
        values = sampled(xp, images[image, part], at, "linear", "zeros", 1).reshape(-1, taps, places)
        if mask is not None:
            values = values * mask[image].reshape(offset_group, taps, places)[part].astype(wide, copy=False)
        columns[image, part] = values
    matrix = w.astype(wide, copy=False).reshape(group, w.shape[0] // group, -1)
    y = xp.matmul(matrix, columns.reshape(batch, group, -1, places)).reshape(batch, w.shape[0], *windows.out)
    if b is not None:
        y += b.astype(wide, copy=False).reshape(-1, *(1,) * rank)
    return y.astype(x.dtype, copy=False)


@kernel("RoiAlign", since=16)
def roi_align(
    xp: ModuleType,
    x: Array,
    rois: Array,
    batch_indices: Array,
    *,
    coordinate_transformation_mode: str = "half_pixel",
    mode: str = "avg",
    output_height: int = 1,
    output_width: int = 1,
    sampling_ratio: int = 0,
    spatial_scale: float = 1.0,
) -> Array:
    """x [N, C, H, W], rois [R, 4]: x1, y1, x2, y2 -> [R, C, output_height, output_width]"""
    if x.ndim != 4 or rois.ndim != 2 or rois.shape[1] != 4 or batch_indices.shape != rois.shape[:1]:
        raise InvalidInput(
            f"X {list(x.shape)}, rois {list(rois.shape)}, batch_indices {list(batch_indices.shape)}: "
            "[N, C, H, W], [R, 4] and [R] are needed"
        )
    if mode not in ("avg", "max") or coordinate_transformation_mode not in ("half_pixel", "output_half_pixel"):
        raise InvalidInput(f"mode '{mode}' or '{coordinate_transformation_mode}' is not known")
    aligned = coordinate_transformation_mode == "half_pixel"
    wide = np.float64 if x.dtype == np.float64 else np.float32
    images = x.astype(wide, copy=False)
    result = xp.zeros((rois.shape[0], x.shape[1], output_height, output_width), x.dtype)
    corners = rois.astype(wide) * wide(spatial_scale) - wide(0.5 if aligned else 0.0)
    for number, (image, box) in enumerate(zip(batch_indices.tolist(), corners.tolist(), strict=True)):
        if not 0 <= image < x.shape[0]:
            raise InvalidInput(f"batch_indices name image {image} of {x.shape[0]}")
        rows = _roi_taps(box[1], box[3], output_height, sampling_ratio, x.shape[2], aligned, wide)
        columns = _roi_taps(box[0], box[2], output_width, sampling_ratio, x.shape[3], aligned, wide)
        parts = []
        for (row, row_weight), (column, column_weight) in product(rows, columns):
            pixels = images[image][:, xp.asarray(row)[:, None], xp.asarray(column)]
            parts.append(pixels * xp.asarray(row_weight[:, None] * column_weight))
        if not parts[0].size:
            continue
        if mode == "avg":
            values = parts[0] + parts[1] + parts[2] + parts[3]
        else:
            values = xp.maximum(xp.maximum(parts[0], parts[1]), xp.maximum(parts[2], parts[3]))
        values = values.reshape(x.shape[1], output_height, -1, output_width, len(columns[0][0]) // output_width)
        pooled = values.mean(axis=(2, 4)) if mode == "avg" else values.max(axis=(2, 4))
        result[number] = pooled.astype(x.dtype, copy=False)
    return result


@kernel("RoiAlign", since=10)
def roi_align_unaligned(
    xp: ModuleType,
    x: Array,
    rois: Array,
    batch_indices: Array,
    *,
    mode: str = "avg",
    output_height: int = 1,
    output_width: int = 1,
    sampling_ratio: int = 0,
    spatial_scale: float = 1.0,
) -> Array:
    """Version 10 shifts no pixel by half, which later versions call output_half_pixel."""
    return roi_align(
        xp,
        x,
        rois,
        batch_indices,
        coordinate_transformation_mode="output_half_pixel",
        mode=mode,
        output_height=output_height,
        output_width=output_width,
        sampling_ratio=sampling_ratio,
        spatial_scale=spatial_scale,
    )


def _roi_taps(
    begin: float, end: float, bins: int, sampling_ratio: int, size: int, aligned: bool, dtype: Any
) -> list[tuple[Array, Array]]:
    """Both neighbours of an axis' samples: (pixels [bins * samples], weights); more than one pixel outside weighs 0."""
    extent = dtype(end) - dtype(begin)
    if not aligned:
        extent = max(extent, dtype(1))
    bin_size = extent / dtype(bins)
    samples = sampling_ratio if sampling_ratio > 0 else max(int(np.ceil(bin_size)), 0)
    within = (np.arange(samples, dtype=dtype) + dtype(0.5)) * bin_size / dtype(max(samples, 1))
    at = (dtype(begin) + np.arange(bins, dtype=dtype)[:, None] * bin_size + within).reshape(-1)
    inside = ((at >= -1) & (at <= size)).astype(dtype)
    at = np.clip(at, 0, size - 1)
    low = np.floor(at)
    share = (at - low).astype(dtype)
    first = low.astype(np.int64)
    second = np.minimum(first + 1, size - 1)
    return [(first, (1 - share) * inside), (second, share * inside)]
