"""Shape arithmetic on sizes that inference proved becomes constants."""

from __future__ import annotations

from typing import Any

import numpy as np

from distort.graph.ir import Graph, Node
from distort.graph.types import Dim, TensorType

from .context import Context

#: what is known of the elements of a shape: sizes, and None or a symbol where the run decides
Sizes = list[Dim]


def fold_shapes(graph: Graph, context: Context) -> int:
    """Shape and Size of values of known sizes, and what Gather and Slice pick of a shape that is known in part."""
    constants = context.constants(graph)
    partial: dict[str, Sizes] = {}
    kept: list[Node] = []
    for node in graph.nodes:
        found = None if node.domain else _sizes(node, partial, constants, context)
        if found is None:
            kept.append(node)
            continue
        sizes, dims = found
        if all(isinstance(size, int) for size in sizes):
            value = np.array(sizes, np.int64).reshape(dims)
            graph.initializers[node.outputs[0]] = constants[node.outputs[0]] = value
        else:
            if dims:
                partial[node.outputs[0]] = sizes
            kept.append(node)
    n_folded = len(graph.nodes) - len(kept)
    graph.nodes = kept
    return n_folded


def _sizes(
    node: Node, partial: dict[str, Sizes], constants: dict[str, Any], context: Context
) -> tuple[Sizes, tuple[int, ...]] | None:
    """The elements that the node makes, as far as known, and the shape that they have."""
    if node.op_type in ("Shape", "Size"):
        known = context.types.get(node.inputs[0])
        if not isinstance(known, TensorType) or known.shape is None:
            return None
        if node.op_type == "Shape":
            sizes = list(known.shape[node.attributes.get("start", 0) : node.attributes.get("end")])
            return sizes, (len(sizes),)
        count = 1
        for dim in known.shape:
            if not isinstance(dim, int):
                return None
            count *= dim
        return [count], ()
    source = partial.get(node.inputs[0]) if node.inputs else None
    if source is None:
        return None
    if node.op_type == "Gather":
        picked = constants.get(node.inputs[1])
        if not isinstance(picked, np.ndarray) or picked.ndim > 1:
            return None
        positions = picked.reshape(-1).tolist()
        if any(not -len(source) <= position < len(source) for position in positions):
            return None
        return [source[position] for position in positions], picked.shape
    if node.op_type == "Slice":
        return _sliced(node, source, constants)
    return None


def _sliced(node: Node, source: Sizes, constants: dict[str, Any]) -> tuple[Sizes, tuple[int, ...]] | None:
    bounds: list[int] = []
    for name, position, absent in (("starts", 1, None), ("ends", 2, None), ("axes", 3, 0), ("steps", 4, 1)):
        if node.opset < 10:
            given = node.attributes.get(name)
        else:
            given = constants.get(node.inputs[position]) if len(node.inputs) > position else None
            if given is None and len(node.inputs) > position and node.inputs[position]:
                return None
            given = None if given is None else given.tolist()
        if given is None and absent is not None:
            given = [absent]
        if given is None or len(given) != 1:
            return None
        bounds.append(given[0])
    start, end, axis, step = bounds
    if axis not in (0, -1) or step == 0:
        return None
    if step < 0 and end <= -len(source) - 1:
        taken = source[start::step] if start >= -len(source) else []
    else:
        taken = source[start:end:step]
    return taken, (len(taken),)


__all__ = ["fold_shapes"]
