"""MaxPool, AveragePool, LpPool and their global forms (domain ai.onnx, all versions).

A window's reduction is separable: first along the last axis, then along the one before it, …, each as a running
result over the kernel's elements, which are strided slices.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from types import ModuleType
from typing import Any

import numpy as np

from distort.kernels.errors import InvalidInput
from distort.kernels.registry import kernel
from distort.kernels.windows import Windows, padded_input, windows_of

Array = Any
Ints = Sequence[int] | None


def _windows(
    x: Array, kernel_shape: Ints, strides: Ints, dilations: Ints, pads: Ints, auto_pad: str, ceil_mode: int
) -> Windows:
    if x.ndim < 3:
        raise InvalidInput(f"Input dimension cannot be less than 3. X: {list(x.shape)}")
    if not kernel_shape or len(kernel_shape) != x.ndim - 2:
        raise InvalidInput(
            f"kernel_shape {list(kernel_shape or ())} must have {x.ndim - 2} entries for {list(x.shape)}"
        )
    windows = windows_of(x.shape[2:], kernel_shape, strides, dilations, pads, auto_pad, ceil_mode)
    reach = [(k - 1) * d + 1 for k, d in zip(windows.kernel, windows.dilations, strict=True)]
    if any(max(b, e) >= r for b, e, r in zip(windows.begins, windows.ends, reach, strict=True)):
        raise InvalidInput(
            f"pads {[*windows.begins, *windows.ends]} must be smaller than the kernel {list(kernel_shape)}"
        )
    return windows


def _reduce(combine: Callable[..., Array], padded: Array, windows: Windows) -> Array:
    """padded [N, C, *padded] -> [N, C, *out]; a view of ``padded`` for a kernel of one element."""
    result = padded
    for axis in reversed(range(len(windows.out))):
        lead = (slice(None),) * (2 + axis)
        running = result[(*lead, windows.tap(axis, 0))]
        for position in range(1, windows.kernel[axis]):
            tap = result[(*lead, windows.tap(axis, position))]
            running = combine(running, tap) if position == 1 else combine(running, tap, out=running)
        result = running
    return result


def _lowest(xp: ModuleType, dtype: Any) -> Any:
    return xp.iinfo(dtype).min if dtype.kind in "iu" else -float("inf")


@kernel("MaxPool", since=1)
def max_pool(
    xp: ModuleType,
    x: Array,
    *,
    kernel_shape: Ints = None,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: Ints = None,
    pads: Ints = None,
    storage_order: int = 0,
    strides: Ints = None,
    n_outputs: int = 1,
) -> Array | tuple[Array, Array]:
    """NaN wins over every number. The index of equal elements is the first one's."""
    windows = _windows(x, kernel_shape, strides, dilations, pads, auto_pad, ceil_mode)
    padded = padded_input(xp, x, windows, _lowest(xp, x.dtype))
    if n_outputs == 1:
        return _reduce(xp.maximum, padded, windows)
    return _max_with_indices(xp, x, padded, windows, storage_order)


def _max_with_indices(
    xp: ModuleType, x: Array, padded: Array, windows: Windows, storage_order: int
) -> tuple[Array, Array]:
    """Indices count elements of the whole tensor; ``storage_order`` 1 counts each plane's first axis fastest."""
    size = x.shape[2:]
    rank = len(size)
    pitch = [1] * rank
    order = range(rank - 1) if storage_order else range(rank - 1, 0, -1)
    for axis in order:
        neighbour = axis + 1 if storage_order else axis - 1
        pitch[neighbour] = pitch[axis] * size[axis]
    best = xp.full((*x.shape[:2], *windows.out), _lowest(xp, x.dtype), x.dtype)
    index = xp.full(best.shape, -1, xp.int64)
    for element, where in windows.taps():
        place, inside = 0, True
        for axis, position in enumerate(element):
            coordinate = xp.arange(windows.out[axis]) * windows.strides[axis]
            coordinate = coordinate + (position * windows.dilations[axis] - windows.begins[axis])
            shape = (-1, *(1,) * (rank - 1 - axis))
            place = place + (coordinate * pitch[axis]).reshape(shape)
            inside = inside & ((coordinate >= 0) & (coordinate < size[axis])).reshape(shape)
        candidate = padded[(..., *where)]
        better = (candidate > best) | ((index < 0) & inside)
        if x.dtype.kind not in "iu":
            better |= xp.isnan(candidate) & ~xp.isnan(best)
        best = xp.where(better, candidate, best).astype(x.dtype, copy=False)  # cupy's bfloat16 became float32
        index = xp.where(better, place, index)
    planes = xp.arange(x.shape[0] * x.shape[1], dtype=xp.int64) * int(np.prod(size))
    index += planes.reshape(*x.shape[:2], *(1,) * rank)
    return best, index


@kernel("AveragePool", since=1)
def average_pool(
    xp: ModuleType,
    x: Array,
    *,
    kernel_shape: Ints = None,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    count_include_pad: int = 0,
    dilations: Ints = None,
    pads: Ints = None,
    strides: Ints = None,
) -> Array:
    """Padding counts where ``count_include_pad``; what ceil_mode reaches beyond the padding never does."""
    windows = _windows(x, kernel_shape, strides, dilations, pads, auto_pad, ceil_mode)
    wide = x.astype(xp.float32) if x.dtype.itemsize < 4 else x
    total = _reduce(xp.add, padded_input(xp, wide, windows), windows)
    rank = len(windows.out)
    count: Any = np.ones((1,) * rank)
    for axis, n in enumerate(x.shape[2:]):
        low, high = 0, n
        if count_include_pad:
            low, high = -windows.begins[axis], n + windows.ends[axis]
        starts = np.arange(windows.out[axis])[:, None] * windows.strides[axis] - windows.begins[axis]
        reads = starts + np.arange(windows.kernel[axis]) * windows.dilations[axis]
        inside = ((reads >= low) & (reads < high)).sum(axis=1)
        count = count * inside.reshape(-1, *(1,) * (rank - 1 - axis))
    if (count == count.flat[0]).all():
        count = count.reshape(-1)[:1]
    result = total / xp.asarray(np.maximum(count, 1), dtype=total.dtype)
    return result.astype(x.dtype, copy=False)


def _root(xp: ModuleType, total: Array, p: float) -> Array:
    if p == 2:
        return xp.sqrt(total)
    return total if p == 1 else total ** total.dtype.type(1 / p)


def _power(xp: ModuleType, x: Array, p: float) -> Array:
    if p == 2:
        return x * x
    return xp.abs(x) if p == 1 else xp.abs(x) ** x.dtype.type(p)


@kernel("LpPool", since=1)
def lp_pool(
    xp: ModuleType,
    x: Array,
    *,
    kernel_shape: Ints = None,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: Ints = None,
    p: float = 2,
    pads: Ints = None,
    strides: Ints = None,
) -> Array:
    windows = _windows(x, kernel_shape, strides, dilations, pads, auto_pad, ceil_mode)
    wide = x.astype(xp.float32) if x.dtype.itemsize < 4 else x
    total = _reduce(xp.add, padded_input(xp, _power(xp, wide, p), windows), windows)
    return _root(xp, total, p).astype(x.dtype, copy=False)


def _planes(x: Array) -> Array:
    """[N, C, …] -> [N, C, elements of a plane]"""
    if x.ndim < 2:
        raise InvalidInput(f"Input dimension cannot be less than 2. X: {list(x.shape)}")
    return x.reshape(*x.shape[:2], int(np.prod(x.shape[2:], dtype=np.int64)))


@kernel("GlobalMaxPool", since=1)
def global_max_pool(xp: ModuleType, x: Array) -> Array:
    planes = _planes(x)
    if not planes.shape[2]:
        raise InvalidInput(f"a maximum over no elements: X {list(x.shape)}")
    return planes.max(axis=2).reshape(*x.shape[:2], *(1,) * (x.ndim - 2))


@kernel("GlobalAveragePool", since=1)
def global_average_pool(xp: ModuleType, x: Array) -> Array:
    wide = xp.float32 if x.dtype.itemsize < 4 else x.dtype
    mean = _planes(x.astype(wide, copy=False)).mean(axis=2)
    return mean.reshape(*x.shape[:2], *(1,) * (x.ndim - 2)).astype(x.dtype, copy=False)


@kernel("GlobalLpPool", since=1)
def global_lp_pool(xp: ModuleType, x: Array, *, p: float = 2) -> Array:
    wide = xp.float32 if x.dtype.itemsize < 4 else x.dtype
    total = _power(xp, _planes(x.astype(wide, copy=False)), p).sum(axis=2)
    return _root(xp, total, p).reshape(*x.shape[:2], *(1,) * (x.ndim - 2)).astype(x.dtype, copy=False)


@kernel("MaxUnpool", since=9, host=(2,))
def max_unpool(
    xp: ModuleType,
    x: Array,
    indices: Array,
    output_shape: Array | None = None,
    *,
    kernel_shape: Ints = None,
    pads: Ints = None,
    strides: Ints = None,
) -> Array:
    """Indices count elements of the inferred shape; a larger ``output_shape`` is zero beyond it."""
    if x.shape != indices.shape:
        raise InvalidInput(
            f"Index tensor shape {list(indices.shape)} should be same as that of the input {list(x.shape)}"
        )
    rank = x.ndim - 2
    if rank < 1 or not kernel_shape or len(kernel_shape) != rank:
        raise InvalidInput(f"kernel_shape {list(kernel_shape or ())} must have {rank} entries for {list(x.shape)}")
    steps = strides or (1,) * rank
    around = pads or (0,) * (2 * rank)
    inferred = [*x.shape[:2]]
    for axis, n in enumerate(x.shape[2:]):
        inferred.append((n - 1) * steps[axis] + kernel_shape[axis] - around[axis] - around[axis + rank])
    if min(inferred[2:]) < 1:
        raise InvalidInput(f"pads {list(around)} leave nothing of X {list(x.shape)}")
    count = int(np.prod(inferred))
    if x.size and (int(indices.min()) < 0 or int(indices.max()) >= count):
        raise InvalidInput(f"indices must be in [0, {count}) for an output of {inferred}")
    flat = xp.zeros(count, x.dtype)
    flat[indices.reshape(-1)] = x.reshape(-1)
    y = flat.reshape(inferred)
    if output_shape is None:
        return y
    goal = [int(n) for n in output_shape]
    if goal == inferred:
        return y
    if len(goal) != len(inferred) or any(g < n for g, n in zip(goal, inferred, strict=True)):
        raise InvalidInput(f"output_shape {goal} is smaller than the inferred shape {inferred}")
    larger = xp.zeros(goal, x.dtype)
    larger[tuple(map(slice, inferred))] = y
    return larger


@kernel("MaxRoiPool", since=1)
def max_roi_pool(
    xp: ModuleType, x: Array, rois: Array, *, pooled_shape: Sequence[int], spatial_scale: float = 1.0
) -> Array:
    """rois [R, 5]: image, x1, y1, x2, y2 -> [R, C, *pooled_shape]; a bin without elements is zero."""
    if x.ndim != 4 or rois.ndim != 2 or rois.shape[1] != 5 or len(pooled_shape) != 2:
        raise InvalidInput(f"X {list(x.shape)} must have 4 axes, rois {list(rois.shape)} must be [R, 5]")
    boxes = rois.tolist()  # they steer slices, so they are needed on the host
    y = xp.zeros((len(boxes), x.shape[1], *pooled_shape), x.dtype)
    for number, (image, *corners) in enumerate(boxes):
        if not 0 <= int(image) < x.shape[0]:
            raise InvalidInput(f"rois name image {int(image)} of {x.shape[0]}")
        x1, y1, x2, y2 = (_round_away(corner * spatial_scale) for corner in corners)
        rows = _bins(y1, y2, pooled_shape[0], x.shape[2])
        columns = _bins(x1, x2, pooled_shape[1], x.shape[3])
        for (i, (top, bottom)), (j, (left, right)) in product(enumerate(rows), enumerate(columns)):
            if top < bottom and left < right:
                y[number, :, i, j] = x[int(image), :, top:bottom, left:right].max(axis=(1, 2))
    return y


def _round_away(value: float) -> int:
    return int(np.floor(abs(value) + 0.5)) * (1 if value >= 0 else -1)


def _bins(first: int, last: int, bins: int, size: int) -> list[tuple[int, int]]:
    width = np.float32(max(last - first + 1, 1)) / np.float32(bins)
    return [
        (
            min(max(int(np.floor(i * width)) + first, 0), size),
            min(max(int(np.ceil((i + 1) * width)) + first, 0), size),
        )
        for i in range(bins)
    ]
