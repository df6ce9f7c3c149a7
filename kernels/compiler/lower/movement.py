"""Operators that move elements: joining, repeating and rearranging."""

from __future__ import annotations

import math

from distort.graph.ir import Node
from distort.kernels.compiler import layout
from distort.kernels.compiler.builder import Builder, lowers
from distort.kernels.compiler.ir import Tensor
from distort.kernels.compiler.lower.expecting import repeats
from distort.kernels.compiler.lower.views import numbers, reshape

Result = list[Tensor | None] | None


@lowers("Concat", blocks=True)
def _concat(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    parts = [t for t in inputs if t is not None]
    if node.attributes.get("axis", 1) == 1 and any(t.block for t in parts):
        joined = layout.joined(b, parts)
        if joined is not None:
            return [joined]
    parts = [b.plain(t) for t in parts]
    rank = len(parts[0].shape)
    axis = node.attributes.get("axis", 1)
    if len(parts) != len(inputs) or not -rank <= axis < rank:
        return None
    axis %= rank
    first = parts[0]
    for part in parts:
        others = [n for i, n in enumerate(part.shape) if i != axis]
        if part.dtype != first.dtype or others != [n for i, n in enumerate(first.shape) if i != axis]:
            return None
    if len(parts) == 1:
        return [first]
    shape = list(first.shape)
    shape[axis] = sum(part.shape[axis] for part in parts)
    result = b.new(first.dtype, shape)
    begin = 0
    for part in parts:
        if part.size:
            b.copy(b.plain(part), result.view(part.shape, result.strides, begin * result.strides[axis]))
        begin += part.shape[axis]
    return [result]


@lowers("Tile")
def _tile(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    x, counts = inputs[0], numbers(inputs[1])
    if x is None or node.opset < 6:
        return None
    if counts is None:
        counts = repeats(b, node, x, inputs[1])
    if counts is None or len(counts) != len(x.shape) or any(n < 0 for n in counts):
        return None
    x = b.plain(x)
    apart: list[int] = []
    strides: list[int] = []
    for size, stride, count in zip(x.shape, x.strides, counts, strict=True):
        apart += [count, size]
        strides += [0, stride]
    shape = [n * count for n, count in zip(x.shape, counts, strict=True)]
    if 0 in shape:
        return [b.new(x.dtype, shape)]
    return [reshape(b, x.view(apart, strides), shape)]


@lowers("SpaceToDepth", "DepthToSpace")
def _between_space_and_depth(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    (x,) = inputs
    assert x is not None
    size, mode = node.attributes.get("blocksize", 0), node.attributes.get("mode", "DCR")
    if len(x.shape) != 4 or size < 1 or mode not in ("DCR", "CRD"):
        return None
    n, c, h, w = x.shape
    if node.op_type == "SpaceToDepth":
        if h % size or w % size:
            return None
        apart = [n, c, h // size, size, w // size, size]
        axes = (0, 3, 5, 1, 2, 4) if mode == "DCR" else (0, 1, 3, 5, 2, 4)
        shape = [n, c * size * size, h // size, w // size]
    else:
        depth = c // (size * size)
        if c % (size * size):
            return None
        apart = [n, size, size, depth, h, w] if mode == "DCR" else [n, depth, size, size, h, w]
        axes = (0, 3, 4, 1, 5, 2) if mode == "DCR" else (0, 1, 4, 2, 5, 3)
        shape = [n, depth, h * size, w * size]
    if not math.prod(x.shape):
        return [b.new(x.dtype, shape)]
    return [reshape(b, reshape(b, x, apart).permuted(axes), shape)]
