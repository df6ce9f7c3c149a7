"""Derivatives of products, convolutions, pools and BatchNormalization."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from distort.graph.errors import ModelError
from distort.graph.gradient.backward import Backward, rule
from distort.graph.ir import Node

Gradients = Sequence[str | None]


def _unsupported(node: Node, what: str) -> ModelError:
    return ModelError("NOT_IMPLEMENTED", f"no derivative of {node.op_type} with {what}, node '{node.label()}'")


@rule("MatMul")
def matmul(b: Backward, node: Node, incoming: Gradients) -> Gradients:
    gradient = incoming[0]
    assert gradient is not None
    left, right = node.inputs
    left_is_vector, right_is_vector = b.rank(left) == 1, b.rank(right) == 1
    if left_is_vector and right_is_vector:
        return [b.mul(gradient, right), b.mul(gradient, left)]
    if left_is_vector:
        equations = "...n,...kn->...k", "k,...n->...kn"
    elif right_is_vector:
        equations = "...m,k->...mk", "...mk,...m->...k"
    else:
        equations = "...mn,...kn->...mk", "...mk,...mn->...kn"
    found: list[str | None] = [None, None]
    if b.wanted[0]:
        part = b.emit("Einsum", gradient, right, equation=equations[0])
        found[0] = b.unbroadcast(part, part, left)
    if b.wanted[1]:
        part = b.emit("Einsum", left, gradient, equation=equations[1])
        found[1] = b.unbroadcast(part, part, right)
    return found


@rule("Gemm")
def gemm(b: Backward, node: Node, incoming: Gradients) -> Gradients:
    g = incoming[0]
    assert g is not None
    left, right = node.inputs[:2]
    alpha = node.attributes.get("alpha", 1.0)
    turned_left, turned_right = (int(bool(node.attributes.get(name, 0))) for name in ("transA", "transB"))
    found: list[str | None] = [None, None, None]
    if b.wanted[0]:
        if turned_left:
            found[0] = b.emit("Gemm", right, g, alpha=alpha, transA=turned_right, transB=1)
        else:
            found[0] = b.emit("Gemm", g, right, alpha=alpha, transB=1 - turned_right)
    if b.wanted[1]:
        if turned_right:
            found[1] = b.emit("Gemm", g, left, alpha=alpha, transA=1, transB=turned_left)
        else:
            found[1] = b.emit("Gemm", left, g, alpha=alpha, transA=1 - turned_left)
    if len(node.inputs) > 2 and b.wanted[2]:
        found[2] = b.unbroadcast(b.scaled(g, node.attributes.get("beta", 1.0)), node.outputs[0], node.inputs[2])
    return found


@rule("Einsum")
def einsum(b: Backward, node: Node, incoming: Gradients) -> Gradients:
    """The product of the gradient and the other factors, summed over what the factor lacks."""
    gradient = incoming[0]
    assert gradient is not None
    equation = node.attributes["equation"].replace(" ", "")
    sources, arrow, target = equation.partition("->")
    terms = sources.split(",")
    if not arrow:
        letters = sorted(set(sources) - {",", "."})
        target = ("..." if "..." in sources else "") + "".join(x for x in letters if sources.count(x) == 1)
    found: list[str | None] = []
    for position, (term, wanted) in enumerate(zip(terms, b.wanted, strict=True)):
        others = [i for i in range(len(terms)) if i != position]
        around = [target, *(terms[i] for i in others)]
        own = set(term) - {"."}
        if len(own) < len(term.replace("...", "")) or not all(any(x in one for one in around) for x in own):
            if wanted:
                raise _unsupported(node, f"equation '{equation}'")
            found.append(None)
        elif not wanted:
            found.append(None)
        else:
            back = (
                f"{','.join(around)}->{term if '...' in term or not any('...' in a for a in around) else '...' + term}"
            )
            part = b.emit("Einsum", gradient, *(node.inputs[i] for i in others), equation=back)
            found.append(b.unbroadcast(part, part, node.inputs[position]))
    return found


class _Window:
    """The attributes of a convolution or pool, as lists of one entry a spatial axis."""

    def __init__(self, node: Node, n_axes: int) -> None:
        attributes: dict[str, Any] = node.attributes
        auto_pad = attributes.get("auto_pad", "NOTSET")
        if auto_pad not in ("NOTSET", "VALID"):
            raise _unsupported(node, f"auto_pad {auto_pad}")
        self.strides = list(attributes.get("strides") or [1] * n_axes)
        self.dilations = list(attributes.get("dilations") or [1] * n_axes)
        pads = list(attributes.get("pads") or [0] * (2 * n_axes))
        self.pads = pads if auto_pad == "NOTSET" else [0] * (2 * n_axes)
        self.group = attributes.get("group", 1)


def _spread(b: Backward, gradient: str, weights: str, window: _Window, like: str) -> str:
    """What a convolution with ``weights`` took from its input, put back: [N, C, ...] of ``like``'s shape."""
    n_axes = len(window.strides)
    whole = b.emit(
        "ConvTranspose", gradient, weights, strides=window.strides, dilations=window.dilations, group=window.group
    )
    # the windows of a stride may end before the padded input does
    spatial = b.ints(*range(2, 2 + n_axes))
    size = b.emit("Gather", b.shape(like), spatial)
    begin = b.ints(*window.pads[:n_axes])
    end = b.add(size, begin)
    short = b.emit("Max", b.sub(end, b.emit("Gather", b.shape(whole), spatial)), b.ints(0))
    amounts = b.emit("Concat", b.ints(*[0] * n_axes), short, axis=0)
    padded = b.emit("Pad", whole, amounts, b.scalar(0.0, whole), spatial)
    return b.emit("Slice", padded, begin, end, spatial)


@rule("Conv")
def conv(b: Backward, node: Node, incoming: Gradients) -> Gradients:
    gradient = incoming[0]
    assert gradient is not None
    x, weights = node.inputs[:2]
    rank = b.rank(weights) or b.rank(x) or len(node.attributes.get("kernel_shape", ())) + 2
    if rank == 2:
        raise _unsupported(node, "weights of unknown rank and no kernel_shape")
    n_axes = rank - 2
    window = _Window(node, n_axes)
    found: list[str | None] = [None, None, None]
    if b.wanted[0]:
        found[0] = _spread(b, gradient, weights, window, x)
    if b.wanted[1]:
        found[1] = _weights_gradient(b, gradient, x, weights, window)
    if len(node.inputs) > 2 and b.wanted[2]:
        found[2] = b.emit("ReduceSum", gradient, b.ints(0, *range(2, rank)), keepdims=0)
    return found


def _weights_gradient(b: Backward, gradient: str, x: str, weights: str, window: _Window) -> str:
    """Inputs convolved with gradients: batch and channels change places, and so do strides and dilations."""
    n_axes = len(window.strides)
    swapped = [1, 0, *range(2, 2 + n_axes)]
    xs, gradients = (
        b.emit_many("Split", window.group, name, axis=1, num_outputs=window.group) if window.group > 1 else [name]
        for name in (x, gradient)
    )
    spatial = b.ints(*range(2, 2 + n_axes))
    size = b.emit("Gather", b.shape(weights), spatial)
    parts = []
    for one, other in zip(xs, gradients, strict=True):
        product = b.emit(
            "Conv",
            b.emit("Transpose", one, perm=swapped),
            b.emit("Transpose", other, perm=swapped),
            strides=window.dilations,
            dilations=window.strides,
            pads=window.pads,
        )
        cut = b.emit("Slice", product, b.ints(*[0] * n_axes), size, spatial)
        parts.append(b.emit("Transpose", cut, perm=swapped))
    return b.emit("Concat", *parts, axis=0) if len(parts) > 1 else parts[0]


@rule("MaxPool")
def max_pool(b: Backward, node: Node, incoming: Gradients) -> Gradients:
    gradient = incoming[0]
    assert gradient is not None
    if node.attributes.get("storage_order", 0):
        raise _unsupported(node, "storage_order 1")
    if len(node.outputs) < 2 or not node.outputs[1]:
        node.outputs[1:] = [f"{node.outputs[0]}/indices"]
    return [b.scatter_back(gradient, node.inputs[0], node.outputs[1])]


@rule("AveragePool")
def average_pool(b: Backward, node: Node, incoming: Gradients) -> Gradients:
    """Each gradient, shared among what its window held."""
    gradient, x = incoming[0], node.inputs[0]
    assert gradient is not None
    kernel_shape = list(node.attributes["kernel_shape"])
    window = _Window(node, len(kernel_shape))
    if node.attributes.get("ceil_mode", 0):
        raise _unsupported(node, "ceil_mode 1")
    ones = b.emit("CastLike", b.constant(np.ones((1, 1, *kernel_shape), dtype=np.float32)), gradient)
    singles = b.ints(-1, 1), b.ints(*range(2, 2 + len(kernel_shape)))

    def one_channel(name: str) -> str:
        size = b.emit("Gather", b.shape(name), singles[1])
        return b.emit("Reshape", name, b.emit("Concat", singles[0], size, axis=0))

    alone, input_alone = one_channel(gradient), one_channel(x)
    if node.attributes.get("count_include_pad", 0):
        shared = b.scaled(alone, 1.0 / float(np.prod(kernel_shape)))
    else:
        held = b.emit(
            "Conv",
            b.filled_like(input_alone, 1.0),
            ones,
            strides=window.strides,
            dilations=window.dilations,
            pads=window.pads,
        )
        shared = b.div(alone, held)
    return [b.reshape_like(_spread(b, shared, ones, window, input_alone), x)]


@rule("GlobalAveragePool")
def global_average_pool(b: Backward, node: Node, incoming: Gradients) -> Gradients:
    gradient, x = incoming[0], node.inputs[0]
    assert gradient is not None
    n_each = b.div(b.emit("Size", x), b.emit("Size", node.outputs[0]))
    return [b.emit("Expand", b.div(gradient, b.emit("CastLike", n_each, gradient)), b.shape(x))]


@rule("BatchNormalization")
def batch_normalization(b: Backward, node: Node, incoming: Gradients) -> Gradients:
    """With statistics that are given; those of a batch have no rule."""
    gradient = incoming[0]
    assert gradient is not None
    if node.attributes.get("training_mode", 0):
        raise _unsupported(node, "training_mode 1")
    x, scale, bias, mean, variance = node.inputs
    shape = b.shape(x)
    axis = b.emit("Range", b.constant(np.int64(0)), b.emit("Size", shape), b.constant(np.int64(1)))
    one = b.ints(1)
    channels_only = b.where(b.emit("Equal", axis, one), shape, one)

    def by_channel(name: str) -> str:
        return b.emit("CastLike", b.emit("Reshape", name, channels_only), x)

    epsilon = b.scalar(node.attributes.get("epsilon", 1e-5), x)
    deviation = b.emit("Sqrt", b.add(by_channel(variance), epsilon))
    normal = b.div(b.sub(x, by_channel(mean)), deviation)
    factor = b.div(by_channel(scale), deviation)

    def summed(values: str, like: str) -> str:
        return b.emit("CastLike", b.reshape_like(b.unbroadcast(values, values, by_channel(like)), like), like)

    scaled = b.mul(gradient, factor)
    found: list[str | None] = [scaled if b.wanted[0] else None]
    found.append(summed(b.mul(gradient, normal), scale) if b.wanted[1] else None)
    found.append(summed(gradient, bias) if b.wanted[2] else None)
    found.append(summed(b.neg(scaled), mean) if b.wanted[3] else None)
    if b.wanted[4]:
        half = b.scaled(b.mul(scaled, b.div(normal, deviation)), -0.5)
        found.append(summed(half, variance))
    return found
