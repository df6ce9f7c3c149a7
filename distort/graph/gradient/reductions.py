"""Derivatives of reductions, Softmax and CumSum."""

from __future__ import annotations

from collections.abc import Sequence

from distort.graph.gradient.backward import Backward, rule
from distort.graph.ir import Node

Gradients = Sequence[str | None]


def _axes(b: Backward, node: Node) -> str | None:
    """The reduced axes as a value; None where all are. They were an attribute before they were an input."""
    if "axes" in node.attributes:
        return b.ints(*node.attributes["axes"])
    return node.inputs[1] if len(node.inputs) > 1 and node.inputs[1] else None


def _kept(b: Backward, node: Node, axes: str | None, name: str) -> str:
    """A result (or its gradient) with the reduced dimensions as 1, or as a scalar: it broadcasts to the input."""
    if node.attributes.get("keepdims", 1) or axes is None:
        return name
    return b.emit("Unsqueeze", name, axes)


@rule("ReduceSum", "ReduceMean", "ReduceSumSquare", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp")
def reduction(b: Backward, node: Node, incoming: Gradients) -> Gradients:
    assert incoming[0] is not None
    x, kind = node.inputs[0], node.op_type
    axes = _axes(b, node)
    gradient = _kept(b, node, axes, incoming[0])
    result = _kept(b, node, axes, node.outputs[0])
    if kind == "ReduceMean":
        n_each = b.div(b.emit("Size", x), b.emit("Size", node.outputs[0]))
        gradient = b.div(gradient, b.emit("CastLike", n_each, gradient))
    elif kind == "ReduceSumSquare":
        gradient = b.mul(gradient, b.scaled(x, 2.0))
    elif kind == "ReduceL1":
        gradient = b.mul(gradient, b.emit("Sign", x))
    elif kind == "ReduceL2":
        # at 0, where there is no derivative, 0
        safe = b.where(b.emit("Equal", result, b.scalar(0.0, result)), b.scalar(1.0, result), result)
        gradient = b.mul(gradient, b.div(x, safe))
    elif kind == "ReduceLogSum":
        gradient = b.div(gradient, b.emit("Exp", result))
    elif kind == "ReduceLogSumExp":
        gradient = b.mul(gradient, b.emit("Exp", b.sub(x, result)))
    return [b.emit("Expand", gradient, b.shape(x))]


@rule("ReduceMax", "ReduceMin")
def extreme(b: Backward, node: Node, incoming: Gradients) -> Gradients:
    """To the elements that are the result; equals share."""
    assert incoming[0] is not None
    axes = _axes(b, node)
    gradient = _kept(b, node, axes, incoming[0])
    hits = b.emit("CastLike", b.emit("Equal", node.inputs[0], _kept(b, node, axes, node.outputs[0])), gradient)
    noop = node.attributes.get("noop_with_empty_axes", 0)
    n_hits = b.emit("ReduceSum", hits, *([] if axes is None else [axes]), keepdims=1, noop_with_empty_axes=noop)
    return [b.mul(hits, b.div(gradient, n_hits))]


def _normalized_axes(b: Backward, node: Node) -> str:
    """The axes that a Softmax adds up: one since version 13, all from one on before."""
    if node.opset >= 13:
        return b.ints(node.attributes.get("axis", -1))
    axis = node.attributes.get("axis", 1)
    rank = b.emit("Squeeze", b.emit("Shape", b.shape(node.inputs[0])), b.ints(0))
    first = b.emit("Squeeze", b.ints(axis), b.ints(0))
    if axis < 0:
        first = b.add(first, rank)
    return b.emit("Range", first, rank, b.emit("Squeeze", b.ints(1), b.ints(0)))


@rule("Softmax", "LogSoftmax")
def softmax(b: Backward, node: Node, incoming: Gradients) -> Gradients:
    assert incoming[0] is not None
    gradient, y = incoming[0], node.outputs[0]
    axes = _normalized_axes(b, node)
    if node.op_type == "Softmax":
        inner = b.emit("ReduceSum", b.mul(gradient, y), axes, keepdims=1)
        return [b.mul(y, b.sub(gradient, inner))]
    total = b.emit("ReduceSum", gradient, axes, keepdims=1)
    return [b.sub(gradient, b.mul(b.emit("Exp", y), total))]


@rule("CumSum")
def cumulative_sum(b: Backward, node: Node, incoming: Gradients) -> Gradients:
    assert incoming[0] is not None
    attributes = {**node.attributes, "reverse": 1 - node.attributes.get("reverse", 0)}
    return [b.emit("CumSum", incoming[0], node.inputs[1], **attributes), None]
