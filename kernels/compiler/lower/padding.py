"""Pad and CenterCropPad: the input is copied into its place in the result, and what surrounds it is filled."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from distort.graph.ir import Node
from distort.kernels.compiler.builder import Builder, lowers
from distort.kernels.compiler.ir import Tensor
from distort.kernels.compiler.layout import memory, of_memory
from distort.kernels.compiler.lower.views import numbers

Result = list[Tensor | None] | None


@lowers("Pad", blocks=True)
def _pad(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    x = inputs[0]
    assert x is not None
    rank = len(x.shape)
    filling: Tensor | None = None
    axes: list[int] | None = None
    if node.opset < 11:
        amounts = node.attributes.get("pads", node.attributes.get("paddings"))
        filling = b.constant(np.asarray(node.attributes.get("value", 0.0), x.dtype))
    else:
        optional = [*inputs[1:], None, None, None]
        amounts, filling = numbers(optional[0]), optional[1]
        if optional[0] is None or len(optional[0].shape) != 1:
            return None
        if optional[2] is not None:
            axes = numbers(optional[2])
            if axes is None:
                return None
    axes = list(range(rank)) if axes is None else [a + rank if a < 0 else a for a in axes]
    if amounts is None or len(amounts) != 2 * len(axes) or len(set(axes)) != len(axes):
        return None
    if any(not 0 <= a < rank for a in axes):
        return None
    if filling is not None and (filling.dtype != x.dtype or not filling.size):
        return None
    before, after = [0] * rank, [0] * rank
    for position, axis in enumerate(axes):
        before[axis], after[axis] = amounts[position], amounts[position + len(axes)]
    less = [max(-n, 0) for n in before], [max(-n, 0) for n in after]
    more = [max(n, 0) for n in before], [max(n, 0) for n in after]
    mode = node.attributes.get("mode", "constant")
    filling = None if filling is None else b.plain(filling)
    beside = any(n for side in (*less, *more) for n in side[:2])
    if x.block and rank < 5 and not beside and _stays_finite(x, mode, filling):
        cut = _cut(memory(x), *([*side, 0] for side in less))
        made = None if cut is None else padded(b, cut, [*more[0], 0], [*more[1], 0], mode, filling)
        return None if made is None else [of_memory(made, x.shape[1])]
    cut = _cut(b.plain(x), *less)
    made = None if cut is None else padded(b, cut, *more, mode, filling)
    return None if made is None else [made]


def _stays_finite(x: Tensor, mode: str, filling: Tensor | None) -> bool:
    """Whether lanes beyond the channels of a tensor in blocks do."""
    if mode != "constant" or filling is None or x.shape[1] % x.block == 0:
        return True
    return filling.value is not None and bool(np.isfinite(filling.value).all())


@lowers("CenterCropPad")
def _center_crop_pad(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    x, goals = inputs[0], numbers(inputs[1])
    if x is None or goals is None:
        return None
    rank = len(x.shape)
    axes = node.attributes.get("axes", list(range(rank)))
    if len(goals) != len(axes) or any(not -rank <= a < rank for a in axes) or any(n < 0 for n in goals):
        return None
    axes = [a % rank for a in axes]
    if len(set(axes)) != len(axes):
        return None
    less, more = ([0] * rank, [0] * rank), ([0] * rank, [0] * rank)
    for axis, goal in zip(axes, goals, strict=True):
        size = x.shape[axis]
        begin, end = less if goal < size else more
        begin[axis] = abs(size - goal) // 2
        end[axis] = abs(size - goal) - begin[axis]
    cut = _cut(b.plain(x), *less)
    made = None if cut is None else padded(b, cut, *more, "constant", None)
    return None if made is None else [made]


def _cut(x: Tensor, before: Sequence[int], after: Sequence[int]) -> Tensor | None:
    """A view without the first and last elements of each axis."""
    shape = [n - low - high for n, low, high in zip(x.shape, before, after, strict=True)]
    if any(n < 0 for n in shape):
        return None
    if not any(before) and not any(after):
        return x
    return _region(x, before, shape)


def _region(x: Tensor, begin: Sequence[int], shape: Sequence[int]) -> Tensor:
    empty = 0 in shape
    return x.view(shape, x.strides, 0 if empty else sum(n * s for n, s in zip(begin, x.strides, strict=True)))


def padded(
    b: Builder, x: Tensor, before: Sequence[int], after: Sequence[int], mode: str, filling: Tensor | None
) -> Tensor | None:
    """x with so many elements more on each side of each axis; None where the mode can't.

    ``filling``: a number, 0 where there is none.
    """
    if not any(before) and not any(after):
        return x
    for size, low, high in zip(x.shape, before, after, strict=True):
        most = {"constant": max(low, high), "edge": max(low, high) if size else 0, "reflect": size - 1, "wrap": size}
        if max(low, high) > most.get(mode, -1):
            return None
    shape = [low + n + high for n, low, high in zip(x.shape, before, after, strict=True)]
    result = b.new(x.dtype, shape)
    if mode == "constant":
        filling = filling if filling is not None else b.constant(np.zeros((), x.dtype))
        filling = filling.view((1,), (0,)) if filling.value is None else b.constant(filling.value.reshape(-1)[:1])
    begin, sizes = list(before), list(x.shape)
    if x.size:
        b.copy(x, _region(result, begin, sizes))
    # the last axis first: what is filled later is long rows
    for axis in reversed(range(len(shape))):
        size, low, high = x.shape[axis], before[axis], after[axis]
        for first, count in ((0, low), (low + size, high)):
            begin[axis], sizes[axis] = first, count
            if 0 in sizes:
                continue
            target = _region(result, begin, sizes)
            if filling is not None and mode == "constant":
                source = filling.broadcast(sizes)
            else:
                begin[axis], step = _origin(mode, first, low, size)
                strides = list(target.strides)
                strides[axis] *= step
                source = _region(result, begin, sizes).view(sizes, strides)
            b.copy(source, target)
        begin[axis], sizes[axis] = 0, shape[axis]
    return result


def _origin(mode: str, first: int, low: int, size: int) -> tuple[int, int]:
    """Where along an axis of the result the elements come from that are put at ``first``, and the step there.

    ``low`` elements are before the ``size`` ones of the input.
    """
    if mode == "edge":
        return (low if first < low else low + size - 1), 0
    if mode == "reflect":
        return (2 * low if first < low else low + size - 2), -1
    return (size if first < low else low), 1
