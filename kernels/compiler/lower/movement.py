"""Operators that move elements: joining and padding."""

from __future__ import annotations

from distort.graph.ir import Node
from distort.kernels.compiler import layout
from distort.kernels.compiler.builder import Builder, lowers
from distort.kernels.compiler.ir import Tensor

Result = list[Tensor | None] | None


@lowers("Concat", blocks=True)
def _concat(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    if node.attributes.get("axis", 1) == 1 and any(t is not None and t.block for t in inputs):
        joined = layout.joined(b, [t for t in inputs if t is not None])
        if joined is not None:
            return [joined]
    parts = [b.plain(t) for t in inputs if t is not None]
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
    shape = list(first.shape)
    shape[axis] = sum(part.shape[axis] for part in parts)
    result = b.new(first.dtype, shape)
    begin = 0
    for part in parts:
        if part.size:
            b.copy(part, result.view(part.shape, result.strides, begin * result.strides[axis]))
        begin += part.shape[axis]
    return [result]
