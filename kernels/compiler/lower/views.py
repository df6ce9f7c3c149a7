"""Operators that move nothing: their results are views of their inputs, or known from shapes alone."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence

import numpy as np

from distort.graph.ir import Node
from distort.kernels.compiler import layout
from distort.kernels.compiler.builder import Builder, lowers
from distort.kernels.compiler.ir import Tensor, broadcast_shape, strides_of

Result = list[Tensor | None] | None


def numbers(tensor: Tensor | None) -> list[int] | None:
    """The integers of a known tensor."""
    if tensor is None or tensor.value is None:
        return None
    return [int(n) for n in tensor.value.reshape(-1).tolist()]


@lowers("Identity", blocks=True)
def _identity(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    return [inputs[0]]


@lowers("Shape", blocks=True)
def _shape(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    (x,) = inputs
    assert x is not None
    rank = len(x.shape)
    begin, end, _ = slice(node.attributes.get("start", 0), node.attributes.get("end")).indices(rank)
    return [b.constant(np.array(x.shape[begin:end], np.int64))]


@lowers("Size", blocks=True)
def _size(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    (x,) = inputs
    assert x is not None
    return [b.constant(np.array(x.size, np.int64))]


def reshape(b: Builder, x: Tensor, shape: Sequence[int]) -> Tensor:
    """A view where that goes, else a copy."""
    x = b.plain(x)
    if x.contiguous:
        return x.reshaped(shape)
    strides = strides_after(x, shape)
    if strides is not None and x.value is None:
        return x.view(shape, strides)
    return b.contiguous(x).reshaped(shape)


def strides_after(x: Tensor, shape: Sequence[int]) -> tuple[int, ...] | None:
    """Strides of a reshape that only cuts dimensions, or joins those that lie next to each other."""
    shape = tuple(shape)
    return x.strides if shape == x.shape else _strides_after(x.shape, x.strides, shape)


@functools.lru_cache(4096)
def _strides_after(old: tuple[int, ...], strides: tuple[int, ...], new: tuple[int, ...]) -> tuple[int, ...] | None:
    if math.prod(old) != math.prod(new):
        return None
    if not math.prod(new):
        return strides_of(new)
    kept = [(size, stride) for size, stride in zip(old, strides, strict=True) if size != 1]
    made: list[int] = []
    begin = taken = 0
    while taken < len(kept):
        # the fewest dimensions of each that have as many elements
        last, end = taken + 1, begin + 1
        have, want = kept[taken][0], new[begin]
        while have != want:
            if want < have:
                want *= new[end]
                end += 1
            else:
                have *= kept[last][0]
                last += 1
        for (_, outer), (size, inner) in itertools.pairwise(kept[taken:last]):
            if outer != size * inner:
                return None
        inside = strides_of(new[begin:end])
        made += [step * kept[last - 1][1] for step in inside]
        taken, begin = last, end
    return (*made, *[1] * (len(new) - begin))


@lowers("Reshape")
def _reshape(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    x, wanted = inputs[0], numbers(inputs[1])
    if x is None or wanted is None:
        return None
    shape = list(wanted)
    if not node.attributes.get("allowzero", 0):
        if any(n == 0 and i >= len(x.shape) for i, n in enumerate(shape)):
            return None
        shape = [x.shape[i] if n == 0 else n for i, n in enumerate(shape)]
    if shape.count(-1) == 1:
        rest = math.prod(n for n in shape if n != -1)
        if not rest or x.size % rest:
            return None
        shape[shape.index(-1)] = x.size // rest
    if any(n < 0 for n in shape) or math.prod(shape) != x.size:
        return None
    return [reshape(b, x, shape)]


@lowers("Flatten")
def _flatten(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    (x,) = inputs
    assert x is not None
    axis = node.attributes.get("axis", 1)
    axis += len(x.shape) if axis < 0 else 0
    if not 0 <= axis <= len(x.shape):
        return None
    return [reshape(b, x, (math.prod(x.shape[:axis]), math.prod(x.shape[axis:])))]


@lowers("Unsqueeze", blocks=True)
def _unsqueeze(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    x, axes = inputs[0], numbers(inputs[1])
    if x is None or axes is None:
        return None
    rank = len(x.shape) + len(axes)
    places = sorted(a + rank if a < 0 else a for a in axes)
    if len(set(places)) != len(places) or any(not 0 <= p < rank for p in places):
        return None
    if x.block and min(places) > 1 and len(x.shape) < 5 and (rank < 5 or 2 in places):
        inner = _inserted(layout.memory(x), places)
        return [layout.of_memory(inner, x.shape[1])]
    return [_inserted(b.plain(x), places)]


def _inserted(x: Tensor, places: Sequence[int]) -> Tensor:
    """With dimensions of one element at these places of the result."""
    shape, strides = list(x.shape), list(x.strides)
    for place in places:
        shape.insert(place, 1)
        strides.insert(place, 0)
    made = x.view(shape, strides)
    made.value = None if x.value is None else x.value.reshape(shape)
    return made


@lowers("Squeeze", blocks=True)
def _squeeze(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    x = inputs[0]
    assert x is not None
    rank = len(x.shape)
    if len(inputs) > 1 and inputs[1] is not None:
        axes = numbers(inputs[1])
        if axes is None:
            return None
        gone = {a + rank if a < 0 else a for a in axes}
        if any(not 0 <= a < rank or x.shape[a] != 1 for a in gone):
            return None
    else:
        gone = {i for i, n in enumerate(x.shape) if n == 1}
    kept = [i for i in range(rank) if i not in gone]
    if x.block and min(gone, default=2) > 1 and len(kept) > 2 and (rank < 5 or 2 in gone):
        inner = layout.memory(x)
        chosen = [*kept, rank]
        view = inner.view([inner.shape[i] for i in chosen], [inner.strides[i] for i in chosen])
        return [layout.of_memory(view, x.shape[1])]
    x = b.plain(x)
    made = x.view([x.shape[i] for i in kept], [x.strides[i] for i in kept])
    made.value = None if x.value is None else x.value.reshape(made.shape)
    return [made]


@lowers("Transpose")
def _transpose(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    (x,) = inputs
    assert x is not None
    axes = node.attributes.get("perm") or list(reversed(range(len(x.shape))))
    if sorted(axes) != list(range(len(x.shape))):
        return None
    return [b.plain(x).permuted(axes)]


@lowers("Expand")
def _expand(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    x, wanted = inputs[0], numbers(inputs[1])
    if x is None:
        return None
    if wanted is None:
        from distort.kernels.compiler.lower import expecting  # few models need it

        seen = expecting.shape_of(b, node, inputs[1], x.shape)
        return None if seen is None else [b.plain(x).broadcast(seen)]
    try:
        shape = broadcast_shape(x.shape, tuple(wanted))
    except ValueError:
        return None
    return [b.plain(x).broadcast(shape)]


@lowers("Slice")
def _slice(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    x, starts, ends = inputs[0], numbers(inputs[1]), numbers(inputs[2])
    rest = [numbers(t) if t is not None else [] for t in inputs[3:]]
    if x is None or starts is None or ends is None or any(r is None for r in rest):
        return None
    axes = (rest[0] if rest and rest[0] else None) or list(range(len(starts)))
    steps = (rest[1] if len(rest) > 1 and rest[1] else None) or [1] * len(starts)
    x = b.plain(x)
    shape, strides, extra = list(x.shape), list(x.strides), 0
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        if not -len(shape) <= axis < len(shape) or step == 0:
            return None
        size = x.shape[axis]
        if step < 0:
            # ONNX clamps to [-1, size - 1] going backwards; Python's slices mean the same but for "before the first"
            first = min(start + size if start < 0 else start, size - 1)
            last = max(end + size if end < 0 else end, -1)
            chosen = range(first, last, step)
        else:
            chosen = range(size)[start:end:step]
        shape[axis] = len(chosen)
        if len(chosen):
            extra += chosen[0] * strides[axis]
        strides[axis] *= step
    made = x.view(shape, strides, extra if math.prod(shape) else 0)
    return [made]


@lowers("Split")
def _split(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    x = inputs[0]
    assert x is not None
    axis = node.attributes.get("axis", 0)
    if not -len(x.shape) <= axis < len(x.shape):
        return None
    axis %= len(x.shape)
    size = x.shape[axis]
    if len(inputs) > 1 and inputs[1] is not None:
        sizes = numbers(inputs[1])
    else:
        n = node.attributes.get("num_outputs", len(node.outputs))
        if n != len(node.outputs):
            return None
        part = -(-size // n)
        sizes = [min(part, size - part * i) for i in range(n)]
        if node.opset < 18 and size % n:
            return None
    if sizes is None or sum(sizes) != size or any(n < 0 for n in sizes) or len(sizes) != len(node.outputs):
        return None
    x = b.plain(x)
    parts: list[Tensor | None] = []
    begin = 0
    for n in sizes:
        shape = [*x.shape[:axis], n, *x.shape[axis + 1 :]]
        parts.append(x.view(shape, x.strides, begin * x.strides[axis]))
        begin += n
    return parts
