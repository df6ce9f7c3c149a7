"""Convolution of float32 and float64 arrays through matrix products; what every operator of the family calls."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import product
from types import ModuleType
from typing import Any

from distort.kernels.errors import Failed, InvalidInput
from distort.kernels.windows import Windows, padded_input, windows_of

Array = Any

# Columns that stay in the second-level cache between being gathered and multiplied; on a GPU only memory limits.
_COLUMN_BYTES_HOST = 2 << 20
_COLUMN_BYTES_DEVICE = 256 << 20
_LEAST_COLUMNS = 128  # fewer starve the matrix product
_PLANE_BYTES = 256 << 10  # planes of a depthwise convolution that are worked on together
_SMALL_PLANE = 4  # output elements a channel up to which planes are narrower than rows of channels
_DEPTHWISE_MULTIPLIER = 4  # more outputs a channel than that are better off as a matrix product


def windows_of_convolution(
    x_shape: Sequence[int],
    w_shape: Sequence[int],
    group: int,
    kernel_shape: Sequence[int] | None,
    strides: Sequence[int] | None,
    dilations: Sequence[int] | None,
    pads: Sequence[int] | None,
    auto_pad: str,
) -> Windows:
    """The windows of x [N, C, *size] under w [M, C / group, *kernel]. Raises InvalidInput if they contradict."""
    if len(x_shape) < 3 or len(w_shape) != len(x_shape):
        raise InvalidInput(f"X {list(x_shape)} and W {list(w_shape)} must have the same rank, 3 or more")
    if group < 1 or w_shape[0] % group:
        raise InvalidInput(f"Output channels M is not divisible by group. M: {w_shape[0]} group: {group}")
    if x_shape[1] != w_shape[1] * group:
        raise Failed(
            f"Input channels C is not equal to kernel channels * group. "
            f"C: {x_shape[1]} kernel channels: {w_shape[1]} group: {group}"
        )
    if kernel_shape and tuple(kernel_shape) != tuple(w_shape[2:]):
        raise InvalidInput(f"kernel_shape {list(kernel_shape)} is not compatible with W shape {list(w_shape)}")
    return windows_of(x_shape[2:], w_shape[2:], strides, dilations, pads, auto_pad)


def convolve(xp: ModuleType, x: Array, w: Array, windows: Windows, group: int) -> Array:
    """x [N, C, *size], w [M, C / group, *kernel], one dtype -> [N, M, *out] in memory of its own."""
    if x.shape[0] == 0:
        return xp.zeros((0, w.shape[0], *windows.out), x.dtype)
    if not windows.padded and max(windows.kernel) == 1:
        return _pointwise(xp, x, w, windows, group)
    if group > 1 and w.shape[1] == 1 and w.shape[0] <= _DEPTHWISE_MULTIPLIER * group:
        if w.shape[0] == group and math.prod(windows.out) <= _SMALL_PLANE * group and xp.__name__ == "numpy":
            return _depthwise_small(xp, x, w, windows)
        return _depthwise(xp, x, w, windows)
    return _by_columns(xp, padded_input(xp, x, windows), w, windows, group)


def _pointwise(xp: ModuleType, x: Array, w: Array, windows: Windows, group: int) -> Array:
    if max(windows.strides) > 1:
        x = x[(slice(None), slice(None), *(windows.tap(axis, 0) for axis in range(len(windows.out))))]
    batch, channels = x.shape[:2]
    if group == 1:
        result = xp.matmul(w.reshape(w.shape[0], channels), x.reshape(batch, channels, -1))
    else:
        result = xp.matmul(
            w.reshape(group, w.shape[0] // group, channels // group),
            x.reshape(batch, group, channels // group, -1),
        )
    return result.reshape(batch, w.shape[0], *windows.out)


def _by_columns(xp: ModuleType, x: Array, w: Array, windows: Windows, group: int) -> Array:
    """x is padded. Gathers a block of windows as columns and multiplies; blocks are images, then output rows."""
    batch, channels = x.shape[:2]
    rank = len(windows.out)
    strides = x.strides
    view = xp.lib.stride_tricks.as_strided(
        x,
        (batch, channels, *windows.kernel, *windows.out),
        (
            *strides[:2],
            *(step * d for step, d in zip(strides[2:], windows.dilations, strict=True)),
            *(step * s for step, s in zip(strides[2:], windows.strides, strict=True)),
        ),
    )
    out_channels = w.shape[0]
    depth = channels // group * math.prod(windows.kernel)
    groups = (group,) if group > 1 else ()
    matrix = w.reshape(*groups, out_channels // group, depth)
    result = xp.empty((batch, *groups, out_channels // group, math.prod(windows.out)), x.dtype)
    budget = _COLUMN_BYTES_HOST if xp.__name__ == "numpy" else _COLUMN_BYTES_DEVICE
    gathered = None  # memory of the columns, the first block's being the largest
    for images, place, run in _blocks(batch, windows.out, channels * math.prod(windows.kernel) * x.itemsize, budget):
        block = view[(images, *(slice(None),) * (1 + rank), *place)]
        if gathered is None:
            gathered = xp.empty(block.size, x.dtype)
        columns = gathered[: block.size].reshape(block.shape)
        columns[...] = block
        xp.matmul(matrix, columns.reshape(block.shape[0], *groups, depth, -1), out=result[images, ..., run])
    return result.reshape(batch, out_channels, *windows.out)


def _blocks(
    batch: int, out: tuple[int, ...], bytes_a_window: int, budget: int
) -> Iterator[tuple[slice, tuple[slice, ...], slice]]:
    """(images, one slice an output axis, the same as a run of the flattened output) that cover everything.

    A block's columns fit the budget if they can; no block is larger than the first.
    """
    windows = max(budget // bytes_a_window, _LEAST_COLUMNS)
    image = math.prod(out)
    if image <= windows:
        step = max(1, windows // image)
        for start in range(0, batch, step):
            yield slice(start, start + step), (), slice(0, image)
        return
    # the first axes one index at a time, until a run of the next axis fits
    axis = 0
    inner = image // out[0]
    while inner > windows and axis < len(out) - 1:
        axis += 1
        inner //= out[axis]
    step = max(1, windows // inner)
    for image_index in range(batch):
        for position, outer in enumerate(_indices(out[:axis])):
            for start in range(0, out[axis], step):
                stop = min(start + step, out[axis])
                run = slice((position * out[axis] + start) * inner, (position * out[axis] + stop) * inner)
                yield slice(image_index, image_index + 1), (*outer, slice(start, stop)), run


def _indices(sizes: tuple[int, ...]) -> Iterator[tuple[slice, ...]]:
    if not sizes:
        yield ()
        return
    for head in range(sizes[0]):
        for tail in _indices(sizes[1:]):
            yield (slice(head, head + 1), *tail)


def _depthwise(xp: ModuleType, x: Array, w: Array, windows: Windows) -> Array:
    """One filter (or a few) a channel: kernel taps, each a product of whole planes.

    The padded planes are split by stride phase (all even rows and columns, …) and flattened, so that a tap is one
    contiguous run a plane: it starts at the tap's offset and is as long as the output, rows as wide as the phase's.
    What such a run computes past a row's last output is cut off at the end.
    """
    batch, channels = x.shape[:2]
    multiplier = w.shape[0] // channels
    # rows of a phase must hold the output and what the farthest tap of any phase reaches
    phase = tuple(
        o + (k - 1) * d // s
        for o, k, d, s in zip(windows.out, windows.kernel, windows.dilations, windows.strides, strict=True)
    )
    pitch = [math.prod(phase[axis + 1 :]) for axis in range(len(phase))]
    run = sum((o - 1) * step for o, step in zip(windows.out, pitch, strict=True)) + 1
    taps = []
    for element in product(*map(range, windows.kernel)):
        reach = [position * d for position, d in zip(element, windows.dilations, strict=True)]
        which = tuple(r % s for r, s in zip(reach, windows.strides, strict=True))
        start = sum(r // s * step for r, s, step in zip(reach, windows.strides, pitch, strict=True))
        taps.append((which, start))
    filters = w.reshape(channels, multiplier, -1, 1)
    result = xp.empty((batch, channels, multiplier, *windows.out), x.dtype)
    step = max(1, _PLANE_BYTES // (batch * multiplier * math.prod(phase) * x.itemsize))
    if xp.__name__ != "numpy":
        step = channels
    for first in range(0, channels, step):
        part = slice(first, first + step)
        planes = _phases(xp, x[:, part], windows, phase, {which for which, _ in taps})
        total = xp.empty((batch, min(step, channels - first), multiplier, math.prod(phase)), x.dtype)
        scaled = xp.empty((*total.shape[:3], run), x.dtype)
        summed = total[..., :run]
        for position, (which, start) in enumerate(taps):
            source = planes[which][:, :, None, start : start + run]
            if position:
                xp.multiply(source, filters[part, :, position], out=scaled)
                summed += scaled
            else:
                xp.multiply(source, filters[part, :, position], out=summed)
        valid = tuple(slice(o) for o in windows.out)
        result[:, part] = total.reshape(*total.shape[:3], *phase)[(..., *valid)]
    return result.reshape(batch, channels * multiplier, *windows.out)


def _depthwise_small(xp: ModuleType, x: Array, w: Array, windows: Windows) -> Array:
    """As ``_depthwise`` with one filter a channel, channels last: numpy's inner loops then run over channels."""
    channels = x.shape[1]
    filters = xp.ascontiguousarray(w.reshape(channels, -1).T)
    result = xp.empty((x.shape[0], channels, *windows.out), x.dtype)
    total = xp.empty((*windows.out, channels), x.dtype)
    scaled = xp.empty_like(total)
    for image, into in zip(x, result, strict=True):
        pixels = xp.moveaxis(padded_input(xp, image[None], windows)[0], 0, -1)
        pixels = xp.ascontiguousarray(pixels)
        for position, (_, where) in enumerate(windows.taps()):
            if position:
                xp.multiply(pixels[where], filters[position], out=scaled)
                total += scaled
            else:
                xp.multiply(pixels[where], filters[position], out=total)
        into[...] = xp.moveaxis(total, -1, 0)
    return result


def _phases(
    xp: ModuleType, x: Array, windows: Windows, phase: tuple[int, ...], wanted: set[tuple[int, ...]]
) -> dict[tuple[int, ...], Array]:
    """The padded planes' elements of each stride phase, [N, C, product of ``phase``], zero beyond the input."""
    planes = {}
    for which in wanted:
        plane = xp.zeros((*x.shape[:2], *phase), x.dtype)
        source, target = [], []
        for n, f, s, b, size in zip(x.shape[2:], which, windows.strides, windows.begins, phase, strict=True):
            first = max(0, -(-(b - f) // s))  # the first row of the phase that is not padding
            begin = first * s + f - b
            count = max(0, min(size - first, -(-(n - begin) // s)))
            source.append(slice(begin, begin + (count - 1) * s + 1 if count else begin, s))
            target.append(slice(first, first + count))
        plane[(..., *target)] = x[(..., *source)]
        planes[which] = plane.reshape(*x.shape[:2], -1)
    return planes
