"""Derivatives of operators that move elements: each gradient goes where its element came from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from distort.graph.gradient.backward import Backward, rule
from distort.graph.ir import Node

Gradients = Sequence[str | None]


@rule("Reshape", "Flatten", "Squeeze", "Unsqueeze")
def same_elements(b: Backward, node: Node, incoming: Gradients) -> Gradients:
    assert incoming[0] is not None
    return [b.reshape_like(incoming[0], node.inputs[0])]


@rule("Transpose")
def transpose(b: Backward, node: Node, incoming: Gradients) -> Gradients:
    assert incoming[0] is not None
    perm = node.attributes.get("perm")
    if perm is None:
        return [b.emit("Transpose", incoming[0])]
    return [b.emit("Transpose", incoming[0], perm=np.argsort(perm).tolist())]


@rule("Expand")
def expand(b: Backward, node: Node, incoming: Gradients) -> Gradients:
    assert incoming[0] is not None
    return [b.unbroadcast(incoming[0], node.outputs[0], node.inputs[0])]


@rule("Trilu")
def triangle(b: Backward, node: Node, incoming: Gradients) -> Gradients:
    assert incoming[0] is not None
    return [b.emit("Trilu", incoming[0], *node.inputs[1:], **node.attributes)]


@rule("Concat")
def concat(b: Backward, node: Node, incoming: Gradients) -> Gradients:
    assert incoming[0] is not None
    axis = node.attributes["axis"]
    sizes = [b.emit("Gather", b.shape(name), b.ints(axis)) for name in node.inputs]
    lengths = b.emit("Concat", *sizes, axis=0)
    return b.emit_many("Split", len(node.inputs), incoming[0], lengths, axis=axis)


@rule("Slice", "Split", "Gather", "GatherElements", "GatherND", "Tile", "DepthToSpace", "SpaceToDepth")
def moved(b: Backward, node: Node, incoming: Gradients) -> Gradients:
    """The numbers of the input's elements, moved as the elements were, say where each gradient belongs."""
    places = _places(b, node, node.inputs[1:])
    found: str | None = None
    for gradient, indices in zip(incoming, places, strict=True):
        if gradient is not None:
            part = b.scatter_back(gradient, node.inputs[0], indices)
            found = part if found is None else b.add(found, part)
    return [found]


def _places(b: Backward, node: Node, others: Sequence[str]) -> list[str]:
    positions = b.positions(node.inputs[0])
    outputs = b.emit_many(node.op_type, len(node.outputs), positions, *others, **node.attributes)
    b.nodes[-1] = replace(b.nodes[-1], opset=node.opset)
    return outputs


@rule("Pad")
def pad(b: Backward, node: Node, incoming: Gradients) -> Gradients:
    """What was filled in comes from nowhere: its number is -1."""
    gradient = incoming[0]
    assert gradient is not None
    minus_one = b.constant(np.int64(-1))
    value = minus_one if node.attributes.get("mode", "constant") == "constant" else ""
    others = [node.inputs[1], value, *node.inputs[3:]]
    places = _places(b, node, others)[0]
    filled = b.emit("Equal", places, minus_one)
    passed = b.where(filled, b.scalar(0.0, gradient), gradient)
    zero = b.constant(np.int64(0))
    found: list[str | None] = [b.scatter_back(passed, node.inputs[0], b.where(filled, zero, places)), None]
    if len(node.inputs) > 2 and b.wanted[2]:
        total = b.emit("ReduceSum", b.where(filled, gradient, b.scalar(0.0, gradient)), keepdims=0)
        found.append(b.reshape_like(total, node.inputs[2]))
    return found
