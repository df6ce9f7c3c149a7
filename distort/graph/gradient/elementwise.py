"""Derivatives of elementwise operators."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from distort.graph.gradient.backward import RULES, Backward, rule
from distort.graph.ir import Node

Gradients = Sequence[str | None]


def _unary(op_type: str, derivative: Callable[[Backward, str, str], str]) -> None:
    """``derivative(b, x, y)`` is dy/dx."""

    def body(b: Backward, node: Node, incoming: Gradients) -> Gradients:
        assert incoming[0] is not None
        return [b.mul(incoming[0], derivative(b, node.inputs[0], node.outputs[0]))]

    RULES[op_type] = body


def _one_minus_square(b: Backward, a: str) -> str:
    return b.sub(b.scalar(1.0, a), b.mul(a, a))


def _one_plus_square(b: Backward, a: str) -> str:
    return b.add(b.scalar(1.0, a), b.mul(a, a))


def _inverse(b: Backward, a: str) -> str:
    return b.emit("Reciprocal", a)


def _inverse_root(b: Backward, a: str) -> str:
    return _inverse(b, b.emit("Sqrt", a))


_unary("Abs", lambda b, x, y: b.emit("Sign", x))
_unary("Exp", lambda b, x, y: y)
_unary("Log", lambda b, x, y: _inverse(b, x))
_unary("Sqrt", lambda b, x, y: b.div(b.scalar(0.5, y), y))
_unary("Reciprocal", lambda b, x, y: b.neg(b.mul(y, y)))
_unary("Sin", lambda b, x, y: b.emit("Cos", x))
_unary("Cos", lambda b, x, y: b.neg(b.emit("Sin", x)))
_unary("Tan", lambda b, x, y: _one_plus_square(b, y))
_unary("Asin", lambda b, x, y: _inverse_root(b, _one_minus_square(b, x)))
_unary("Acos", lambda b, x, y: b.neg(_inverse_root(b, _one_minus_square(b, x))))
_unary("Atan", lambda b, x, y: _inverse(b, _one_plus_square(b, x)))
_unary("Sinh", lambda b, x, y: b.emit("Cosh", x))
_unary("Cosh", lambda b, x, y: b.emit("Sinh", x))
_unary("Tanh", lambda b, x, y: _one_minus_square(b, y))
_unary("Asinh", lambda b, x, y: _inverse_root(b, _one_plus_square(b, x)))
_unary("Acosh", lambda b, x, y: _inverse_root(b, b.sub(b.mul(x, x), b.scalar(1.0, x))))
_unary("Atanh", lambda b, x, y: _inverse(b, _one_minus_square(b, x)))
_unary("Sigmoid", lambda b, x, y: b.sub(y, b.mul(y, y)))
_unary("Softplus", lambda b, x, y: b.emit("Sigmoid", x))


def _erf(b: Backward, x: str, y: str) -> str:
    return b.scaled(b.emit("Exp", b.neg(b.mul(x, x))), 2.0 / math.sqrt(math.pi))


def _softsign(b: Backward, x: str, y: str) -> str:
    root = b.add(b.scalar(1.0, x), b.emit("Abs", x))
    return _inverse(b, b.mul(root, root))


_unary("Erf", _erf)
_unary("Softsign", _softsign)


def _positive(b: Backward, x: str) -> str:
    return b.emit("Greater", x, b.scalar(0.0, x))


@rule("Relu")
def relu(b: Backward, node: Node, incoming: Gradients) -> Gradients:
    assert incoming[0] is not None
    gradient = incoming[0]
    return [b.where(_positive(b, node.inputs[0]), gradient, b.scalar(0.0, gradient))]


@rule("LeakyRelu", "Elu", "Selu")
def slope_below_zero(b: Backward, node: Node, incoming: Gradients) -> Gradients:
    """A derivative of ``gamma`` above zero, and below of alpha, alpha exp(x), gamma alpha exp(x)."""
    assert incoming[0] is not None
    gradient, x = incoming[0], node.inputs[0]
    defaults = {"LeakyRelu": 0.01, "Elu": 1.0, "Selu": 1.67326319217681884765625}
    alpha = node.attributes.get("alpha", defaults[node.op_type])
    gamma = node.attributes.get("gamma", 1.05070102214813232421875) if node.op_type == "Selu" else 1.0
    if node.op_type == "LeakyRelu":
        below = b.scaled(gradient, alpha)
    else:
        below = b.mul(gradient, b.scaled(b.emit("Exp", x), gamma * alpha))
    return [b.where(_positive(b, x), b.scaled(gradient, gamma), below)]


@rule("Celu")
def celu(b: Backward, node: Node, incoming: Gradients) -> Gradients:
    """Below zero exp(x / alpha)."""
    assert incoming[0] is not None
    gradient, x = incoming[0], node.inputs[0]
    below = b.emit("Exp", b.scaled(x, 1.0 / node.attributes.get("alpha", 1.0)))
    return [b.where(_positive(b, x), gradient, b.mul(gradient, below))]


@rule("HardSigmoid")
def hard_sigmoid(b: Backward, node: Node, incoming: Gradients) -> Gradients:
    assert incoming[0] is not None
    gradient, y = incoming[0], node.outputs[0]
    zero, one = b.scalar(0.0, y), b.scalar(1.0, y)
    inside = b.emit("And", b.emit("Greater", y, zero), b.emit("Less", y, one))
    alpha = node.attributes.get("alpha", 0.2)
    return [b.where(inside, b.scaled(gradient, alpha), b.scalar(0.0, gradient))]


@rule("Identity", "Neg", "Cast", "CastLike")
def linear(b: Backward, node: Node, incoming: Gradients) -> Gradients:
    assert incoming[0] is not None
    if node.op_type == "Identity":
        return [incoming[0]]
    if node.op_type == "Neg":
        return [b.neg(incoming[0])]
    return [b.emit("CastLike", incoming[0], node.inputs[0])]


@rule("Dropout")
def dropout(b: Backward, node: Node, incoming: Gradients) -> Gradients:
    """Where it trains, the mask says which gradients pass, as their values did."""
    gradient = incoming[0]
    assert gradient is not None
    if len(node.inputs) < 3 or not node.inputs[2]:
        return [gradient]
    if len(node.outputs) < 2 or not node.outputs[1]:
        node.outputs[1:] = [f"{node.outputs[0]}/mask"]
    keep = b.emit("Cast", node.outputs[1], to=9)
    ratio = b.emit("CastLike", node.inputs[1], gradient) if node.inputs[1] else b.scalar(0.5, gradient)
    scaled = b.div(gradient, b.sub(b.scalar(1.0, gradient), ratio))
    passed = b.where(keep, scaled, b.scalar(0.0, gradient))
    return [b.where(node.inputs[2], passed, gradient)]


@rule("Add", "Sum", "Mean")
def add(b: Backward, node: Node, incoming: Gradients) -> Gradients:
    gradient = incoming[0]
    assert gradient is not None
    if node.op_type == "Mean":
        gradient = b.scaled(gradient, 1.0 / len(node.inputs))
    return [
        b.unbroadcast(gradient, node.outputs[0], name) if wanted else None
        for name, wanted in zip(node.inputs, b.wanted, strict=True)
    ]


@rule("Sub", "Mul", "Div", "Pow")
def binary(b: Backward, node: Node, incoming: Gradients) -> Gradients:
    gradient = incoming[0]
    assert gradient is not None
    x, y, result = node.inputs[0], node.inputs[1], node.outputs[0]
    kind = node.op_type
    found: list[str | None] = [None, None]
    if b.wanted[0]:
        if kind == "Sub":
            part = gradient
        elif kind == "Mul":
            part = b.mul(gradient, y)
        elif kind == "Div":
            part = b.div(gradient, y)
        else:
            exponent = b.emit("CastLike", y, x)
            lower = b.emit("Pow", x, b.sub(exponent, b.scalar(1.0, exponent)))
            part = b.mul(gradient, b.mul(exponent, lower))
        found[0] = b.unbroadcast(part, result, x)
    if b.wanted[1]:
        if kind == "Sub":
            part = b.neg(gradient)
        elif kind == "Mul":
            part = b.mul(gradient, x)
        elif kind == "Div":
            part = b.neg(b.div(b.mul(gradient, result), y))
        else:
            # 0 to any power is 0, and so is what the exponent does to it
            zero = b.scalar(0.0, x)
            safe = b.where(b.emit("Greater", x, zero), x, b.scalar(1.0, x))
            part = b.emit("CastLike", b.mul(gradient, b.mul(result, b.emit("Log", safe))), y)
        found[1] = b.unbroadcast(part, result, y)
    return found


@rule("Max", "Min")
def extreme(b: Backward, node: Node, incoming: Gradients) -> Gradients:
    """To each input where it is the result; among equals they share."""
    gradient, result = incoming[0], node.outputs[0]
    assert gradient is not None
    hits = [b.emit("CastLike", b.emit("Equal", name, result), gradient) for name in node.inputs]
    shared = b.div(gradient, b.emit("Sum", *hits))
    return [
        b.unbroadcast(b.mul(shared, hit), result, name) if wanted else None
        for name, hit, wanted in zip(node.inputs, hits, b.wanted, strict=True)
    ]


@rule("Clip")
def clip(b: Backward, node: Node, incoming: Gradients) -> Gradients:
    """To x inside the bounds, to a bound where it binds."""
    gradient, x, y = incoming[0], node.inputs[0], node.outputs[0]
    assert gradient is not None
    zero = b.scalar(0.0, gradient)
    unchanged = b.emit("Equal", x, y)
    found: list[str | None] = [b.where(unchanged, gradient, zero)]
    clipped = b.where(unchanged, zero, gradient)
    for position, comparison in ((1, "Less"), (2, "Greater")):
        if position < len(node.inputs) and node.inputs[position]:
            bound = node.inputs[position]
            hit = b.where(b.emit(comparison, x, bound), clipped, zero)
            found.append(b.unbroadcast(hit, y, bound) if b.wanted[position] else None)
        else:
            found.append(None)
    return found


@rule("Where")
def where(b: Backward, node: Node, incoming: Gradients) -> Gradients:
    gradient, result = incoming[0], node.outputs[0]
    assert gradient is not None
    condition, x, y = node.inputs
    zero = b.scalar(0.0, gradient)
    return [
        None,
        b.unbroadcast(b.where(condition, gradient, zero), result, x) if b.wanted[1] else None,
        b.unbroadcast(b.where(condition, zero, gradient), result, y) if b.wanted[2] else None,
    ]
