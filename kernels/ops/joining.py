"""Parts and wholes: Concat, Split, Slice, Pad."""

from __future__ import annotations

from typing import Any

import numpy as np

from distort.kernels.errors import Failed, InvalidInput
from distort.kernels.ops.shape import axes_of, axis_of, vector
from distort.kernels.registry import kernel


@kernel("Concat", 1)
def concat_1(xp: Any, *inputs: Any, axis: int = 1) -> Any:
    return concat(xp, *inputs, axis=axis)


@kernel("Concat", 4)
def concat(xp: Any, *inputs: Any, axis: int) -> Any:
    if len(inputs) == 1:
        return inputs[0]
    try:
        return xp.concatenate(inputs, axis)
    except ValueError:
        shapes = ", ".join(str(list(x.shape)) for x in inputs)
        raise Failed(f"Concat can't join shapes {shapes} along axis {axis}") from None


@kernel("Split", (1, 2), host=(1,))
def split(xp: Any, x: Any, sizes: Any = None, *, axis: int = 0, n_outputs: int) -> Any:
    """Equal parts where no sizes are given."""
    position = axis_of(axis, x.ndim)
    total = x.shape[position]
    if sizes is None:
        if total % n_outputs:
            raise InvalidInput(f"Split can't cut axis {axis} of shape {list(x.shape)} into {n_outputs} equal parts")
        parts = [total // n_outputs] * n_outputs
    else:
        parts = [int(part) for part in vector(sizes, "split")]  # floats in version 1
    return _cut(x, position, parts, n_outputs)


@kernel("Split", 18, host=(1,))
def split_18(
    xp: Any, x: Any, sizes: Any = None, *, axis: int = 0, num_outputs: int | None = None, n_outputs: int
) -> Any:
    """The last part is smaller where ``num_outputs`` does not divide the axis."""
    position = axis_of(axis, x.ndim)
    if sizes is not None:
        return _cut(x, position, vector(sizes, "split"), n_outputs)
    count = n_outputs if num_outputs is None else num_outputs
    total = x.shape[position]
    if not n_outputs <= count <= max(total, n_outputs):
        raise InvalidInput(f"Invalid num_outputs value of {count}. Size of dimension being split is {total}")
    part = -(-total // count)
    parts = [max(min(part, total - i * part), 0) for i in range(count)]
    return _cut(x, position, parts, n_outputs)


def _cut(x: Any, axis: int, parts: list[int], n_outputs: int) -> tuple[Any, ...]:
    if sum(parts) != x.shape[axis] or len(parts) < n_outputs or any(part < 0 for part in parts):
        raise InvalidInput(f"Split sizes {parts} don't add up to axis {axis} of shape {list(x.shape)}")
    before = (slice(None),) * axis
    results = []
    start = 0
    for part in parts:
        results.append(x[(*before, slice(start, start + part))])
        start += part
    return tuple(results)


@kernel("Slice", host=(1, 2, 3, 4))
def slice_tensor(xp: Any, x: Any, starts: Any, ends: Any, axes: Any = None, steps: Any = None) -> Any:
    """A view; bounds are clamped as Python clamps them, and with a negative step an end may lie before item 0."""
    firsts, lasts = vector(starts, "starts"), vector(ends, "ends")
    chosen = range(len(firsts)) if axes is None else axes_of(axes, x.ndim)
    strides = [1] * len(firsts) if steps is None else vector(steps, "steps")
    if not len(firsts) == len(lasts) == len(chosen) == len(strides) or len(firsts) > x.ndim:
        raise InvalidInput(f"Slice has {len(firsts)} starts, {len(lasts)} ends, {len(chosen)} axes for rank {x.ndim}")
    index = [slice(None)] * x.ndim
    for axis, first, last, step in zip(chosen, firsts, lasts, strides, strict=True):
        total = x.shape[axis]
        if step == 0:
            raise InvalidInput("Slice step must not be 0")
        if step > 0:
            index[axis] = slice(first, last, step)
        else:
            begin = min(max(first + total if first < 0 else first, -1), total - 1)
            end = last + total if last < 0 else last
            # an end before the first item means down to and with item 0
            index[axis] = slice(begin, None if end < 0 else end, step) if begin >= 0 else slice(0, 0)
    return x[(*index, ...)]


_MODES = {"constant": "constant", "reflect": "reflect", "edge": "edge", "wrap": "wrap"}


@kernel("Pad", (1, 2))
def pad_attributes(
    xp: Any,
    x: Any,
    *,
    pads: list[int] | None = None,
    paddings: list[int] | None = None,
    mode: str = "constant",
    value: float = 0.0,
) -> Any:
    amounts = pads if pads is not None else paddings or []
    return pad(xp, x, np.asarray(amounts), np.asarray(value, dtype=x.dtype), mode=mode)


@kernel("Pad", 11, host=(1, 2, 3))
def pad(xp: Any, x: Any, pads: Any, value: Any = None, axes: Any = None, *, mode: str = "constant") -> Any:
    """Negative amounts cut away."""
    if mode not in _MODES:
        raise InvalidInput(f"Pad has no mode {mode!r}")
    chosen = tuple(range(x.ndim)) if axes is None else axes_of(axes, x.ndim)
    amounts = vector(pads, "pads")
    if len(amounts) != 2 * len(chosen):
        raise Failed(f"Pad has {len(amounts)} pads for {len(chosen)} axes")
    widths = [(0, 0)] * x.ndim
    index = [slice(None)] * x.ndim
    for position, axis in enumerate(chosen):
        before, after = amounts[position], amounts[position + len(chosen)]
        widths[axis] = (max(before, 0), max(after, 0))
        if before < 0 or after < 0:
            index[axis] = slice(max(-before, 0), x.shape[axis] - max(-after, 0))
    x = x[(*index, ...)]  # the ellipsis keeps a 0-d array an array
    if all(width == (0, 0) for width in widths):
        return x
    if mode == "constant":
        shape = [size + sum(width) for size, width in zip(x.shape, widths, strict=True)]
        fill = 0 if value is None else value.reshape(-1)[0]
        if x.dtype == object:
            result = np.empty(shape, dtype=object)
            result[...] = "" if value is None else fill
        elif value is None:
            result = xp.zeros(shape, dtype=x.dtype)
        else:
            result = xp.full(shape, fill, dtype=x.dtype)
        result[tuple(slice(low, low + size) for (low, _), size in zip(widths, x.shape, strict=True))] = x
        return result
    if 0 in x.shape:
        raise InvalidInput(f"Pad can't {mode} an empty tensor of shape {list(x.shape)}")
    return xp.pad(x, widths, mode=_MODES[mode])
