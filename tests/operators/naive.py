"""Windows over images as the standard defines them, one output element at a time, in float64."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def pads_of(
    auto_pad: str, shape: Sequence[int], kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> tuple[list[int], list[int]]:
    begins, ends = [], []
    for size, window, stride, dilation in zip(shape, kernel, strides, dilations, strict=True):
        total = max((-(-size // stride) - 1) * stride + (window - 1) * dilation + 1 - size, 0)
        total = 0 if auto_pad == "VALID" else total
        small, large = total // 2, total - total // 2
        begins.append(small if auto_pad != "SAME_LOWER" else large)
        ends.append(large if auto_pad != "SAME_LOWER" else small)
    return begins, ends


def windows(
    shape: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    dilations: Sequence[int] | None = None,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
) -> tuple[tuple[int, ...], Iterator[tuple[tuple[int, ...], list[tuple[tuple[int, ...], tuple[int, ...]]], int]]]:
    """The shape of the output, and for each place there: its taps (in the input, in the kernel) and the padded size."""
    n = len(kernel)
    strides, dilations = list(strides or [1] * n), list(dilations or [1] * n)
    begins, ends = list((pads or [0] * 2 * n)[:n]), list((pads or [0] * 2 * n)[n:])
    if auto_pad != "NOTSET":
        begins, ends = pads_of(auto_pad, shape, kernel, strides, dilations)
    out = []
    for axis in range(n):
        room = shape[axis] + begins[axis] + ends[axis] - dilations[axis] * (kernel[axis] - 1) - 1
        count = (-(-room // strides[axis]) if ceil_mode else room // strides[axis]) + 1
        if ceil_mode and (count - 1) * strides[axis] >= shape[axis] + begins[axis]:
            count -= 1  # no window begins in the padding at the end
        out.append(count)

    def walk() -> Iterator[Any]:
        for place in np.ndindex(*out):
            inside, padded = [], 0
            for tap in np.ndindex(*kernel):
                at = [p * s - b + t * d for p, s, b, t, d in zip(place, strides, begins, tap, dilations, strict=True)]
                padded += all(-b <= i < size + e for i, b, e, size in zip(at, begins, ends, shape, strict=True))
                if all(0 <= i < size for i, size in zip(at, shape, strict=True)):
                    inside.append((tuple(at), tap))
            yield place, inside, padded

    return tuple(out), walk()


def pool(x: Array, reduce: Callable[[Array, int], Any], kernel: Sequence[int], **settings: Any) -> Array:
    """``reduce`` gets the elements under the window and how many places it has, padding counted."""
    out, walk = windows(x.shape[2:], kernel, **settings)
    y = np.zeros(x.shape[:2] + out)
    for place, inside, padded in walk:
        for image in np.ndindex(*x.shape[:2]):
            y[image + place] = reduce(np.array([x[image + at] for at, _ in inside], np.float64), padded)
    return y


def conv(x: Array, w: Array, bias: Array | None = None, group: int = 1, **settings: Any) -> Array:
    out, walk = windows(x.shape[2:], w.shape[2:], **settings)
    n_out, n_in = w.shape[:2]
    y = np.zeros((x.shape[0], n_out, *out))
    for place, inside, _ in walk:
        for image in range(x.shape[0]):
            for channel in range(n_out):
                first = channel // (n_out // group) * n_in
                y[(image, channel, *place)] = sum(
                    float(x[(image, first + c, *at)]) * float(w[(channel, c, *tap)])
                    for at, tap in inside
                    for c in range(n_in)
                ) + (0.0 if bias is None else float(bias[channel]))
    return y


def conv_transpose(
    x: Array,
    w: Array,
    bias: Array | None = None,
    group: int = 1,
    strides: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    dilations: Sequence[int] | None = None,
    output_padding: Sequence[int] | None = None,
) -> Array:
    """Each input element spreads the kernel over the output."""
    n = x.ndim - 2
    strides, dilations = list(strides or [1] * n), list(dilations or [1] * n)
    pads, output_padding = list(pads or [0] * 2 * n), list(output_padding or [0] * n)
    kernel = w.shape[2:]
    full = [
        (x.shape[2 + i] - 1) * strides[i] + (kernel[i] - 1) * dilations[i] + 1 + output_padding[i] for i in range(n)
    ]
    per_group = w.shape[1]
    y = np.zeros((x.shape[0], per_group * group, *full))
    for at in np.ndindex(*x.shape):
        block = at[1] // (x.shape[1] // group)
        for tap in np.ndindex(*kernel):
            to = tuple(at[2 + i] * strides[i] + tap[i] * dilations[i] for i in range(n))
            for c in range(per_group):
                y[(at[0], block * per_group + c, *to)] += float(x[at]) * float(w[(at[1], c, *tap)])
    cut = tuple(slice(pads[i], full[i] - pads[n + i]) for i in range(n))
    y = y[(slice(None), slice(None), *cut)]
    return y if bias is None else y + bias.reshape(-1, *[1] * n)


def resample(x: Array, axis: int, n_out: int, place: Callable[[int], float], weights: Callable[[float], Any]) -> Array:
    """Along one axis: ``place`` of an output index in the input, ``weights`` there as (index, weight) pairs."""
    rows = np.moveaxis(x.astype(np.float64), axis, 0)
    y = np.zeros((n_out, *rows.shape[1:]))
    for i in range(n_out):
        for index, weight in weights(place(i)):
            y[i] += weight * rows[min(max(index, 0), len(rows) - 1)]
    return np.moveaxis(y, 0, axis)


def linear(at: float) -> list[tuple[int, float]]:
    low = math.floor(at)
    return [(low, 1 - (at - low)), (low + 1, at - low)]


def cubic(at: float, a: float = -0.75) -> list[tuple[int, float]]:
    low = math.floor(at)
    part = at - low
    near = lambda t: ((a + 2) * t - (a + 3)) * t * t + 1  # noqa: E731
    far = lambda t: ((a * t - 5 * a) * t + 8 * a) * t - 4 * a  # noqa: E731
    return [(low - 1, far(part + 1)), (low, near(part)), (low + 1, near(1 - part)), (low + 2, far(2 - part))]
