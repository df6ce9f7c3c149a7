"""Element-wise operators.

What the NumPy kernel refuses (shapes that don't fit, a division of integers by zero) is left to it.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

from distort.graph.ir import Node
from distort.graph.types import DTYPE_OF, limits_of
from distort.kernels.compiler.builder import Builder, lowers
from distort.kernels.compiler.expression import STORED, name_of
from distort.kernels.compiler.ir import Tensor, broadcast_shape

Result = list[Tensor | None] | None

_ARITHMETIC = {"Add": "add", "Sub": "sub", "Mul": "mul", "Div": "div", "PRelu": "prelu"}
_LOGIC = {"And": "and", "Or": "or", "Xor": "xor"}
_BITWISE = {"BitwiseAnd": "bitwise_and", "BitwiseOr": "bitwise_or", "BitwiseXor": "bitwise_xor"}
_COMPARISONS = {
    "Equal": "equal",
    "Less": "less",
    "Greater": "greater",
    "LessOrEqual": "less_or_equal",
    "GreaterOrEqual": "greater_or_equal",
}
_EXTREMES = {"Max": "max", "Min": "min"}
#: of floating point numbers only
_FUNCTIONS = {
    "Floor": "floor",
    "Ceil": "ceil",
    "Round": "round",
    "Sqrt": "sqrt",
    "Reciprocal": "reciprocal",
    "Exp": "exp",
    "Log": "log",
    "Tanh": "tanh",
    "Erf": "erf",
    "Sigmoid": "sigmoid",
    "Sin": "sin",
    "Cos": "cos",
    "Tan": "tan",
    "Asin": "asin",
    "Acos": "acos",
    "Atan": "atan",
    "Sinh": "sinh",
    "Cosh": "cosh",
    "Asinh": "asinh",
    "Acosh": "acosh",
    "Atanh": "atanh",
    "HardSwish": "hard_swish",
    "Softsign": "softsign",
    "Softplus": "softplus",
    "Mish": "mish",
}
#: operator -> instruction, its attributes with their defaults
_WITH_ATTRIBUTES: dict[str, tuple[str, dict[str, float]]] = {
    "LeakyRelu": ("leaky_relu", {"alpha": 0.01}),
    "Elu": ("elu", {"alpha": 1.0}),
    "Celu": ("celu", {"alpha": 1.0}),
    "HardSigmoid": ("hard_sigmoid", {"alpha": 0.2, "beta": 0.5}),
    "ThresholdedRelu": ("thresholded_relu", {"alpha": 1.0}),
    "Swish": ("swish", {"alpha": 1.0}),
    "Selu": ("selu", {"alpha": 1.6732631921768188, "gamma": 1.0507010221481323}),
    "Shrink": ("shrink", {"bias": 0.0, "lambd": 0.5}),
}
_SELU_1 = {"alpha": 1.6732, "gamma": 1.0507}


def _present(inputs: Sequence[Tensor | None]) -> list[Tensor] | None:
    """The inputs, where all are there and their shapes go together."""
    found = [t for t in inputs if t is not None]
    if len(found) != len(inputs):
        return None
    shapes = [t.shape for t in found]
    try:
        broadcast_shape(*shapes)
    except ValueError:
        return None
    return found


def _alike(inputs: Sequence[Tensor | None]) -> list[Tensor] | None:
    """As :func:`_present`, all of one dtype."""
    found = _present(inputs)
    if not found:
        return None
    dtype = found[0].dtype
    return found if all([t.dtype == dtype for t in found]) else None


def _is_real(tensor: Tensor) -> bool:
    return tensor.element in ("float32", "float64", "float16", "bfloat16")


def _never_zero(b: Builder, divisor: Tensor) -> bool:
    """Of integers. What the run makes is looked at there."""
    if divisor.value is not None:
        return bool(np.all(divisor.value != 0))
    from distort.kernels.compiler.lower import expecting  # few models need it

    return expecting.expect_no_zero(b, divisor)


@lowers(*_ARITHMETIC, blocks=True)
def _arithmetic(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    found = _alike(inputs)
    if found is None or node.attributes or len(found) != 2:
        return None  # before version 7 attributes say how shapes go together
    x, y = found
    if x.dtype.kind == "b" or (node.op_type == "Div" and not _is_real(x) and not _never_zero(b, y)):
        return None
    return [b.map(_ARITHMETIC[node.op_type], found)]


@lowers("Mod")
def _mod(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    found = _alike(inputs)
    if found is None:
        return None
    fmod = node.attributes.get("fmod", 0)
    if _is_real(found[0]):
        if not fmod and node.opset < 28:
            return None
    elif not _never_zero(b, found[1]):
        return None
    return [b.map("mod", found, attributes=(fmod,))]


@lowers("Pow", blocks=True)
def _pow(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    found = _present(inputs)
    if found is None or node.attributes or not _is_real(found[0]):
        return None
    return [b.map("pow", found)]


@lowers("Sum", "Mean")
def _sum(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    found = _alike(inputs)
    if found is None or not found or not _is_real(found[0]) or node.opset < 8:
        return None
    total = functools.reduce(lambda x, y: b.map("add", [x, y]), found)
    if node.op_type == "Mean":
        total = b.map("div", [total, b.constant(np.array(len(found), total.dtype))])
    return [total]


@lowers(*_EXTREMES, blocks=True)
def _extreme(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    found = _alike(inputs)
    if found is None or not found or node.opset < 8 or found[0].dtype == bool:
        return None
    op = _EXTREMES[node.op_type]
    return [functools.reduce(lambda x, y: b.map(op, [x, y]), found)]


@lowers(*_LOGIC)
def _logic(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    found = _alike(inputs)
    if found is None or found[0].dtype != bool or node.attributes:
        return None
    return [b.map(_LOGIC[node.op_type], found)]


@lowers(*_BITWISE)
def _bitwise(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    found = _alike(inputs)
    if found is None or found[0].dtype.kind not in "iu":
        return None
    return [b.map(_BITWISE[node.op_type], found)]


@lowers("BitShift")
def _shift(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    found = _alike(inputs)
    direction = node.attributes.get("direction")
    if found is None or direction not in ("LEFT", "RIGHT") or found[0].dtype.kind != "u":
        return None
    return [b.map("bit_shift", found, attributes=(direction,))]


@lowers("Not", "BitwiseNot")
def _not(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    (x,) = inputs
    assert x is not None
    if (x.dtype == bool) != (node.op_type == "Not"):
        return None
    return [b.map("not", [x])]


@lowers(*_COMPARISONS, blocks=True)
def _compare(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    found = _alike(inputs)
    if found is None or node.attributes or (found[0].dtype == bool and node.op_type != "Equal"):
        return None
    return [b.map(_COMPARISONS[node.op_type], found, np.bool_)]


@lowers("Where", blocks=True)
def _where(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    found = _present(inputs)
    if found is None or found[0].dtype != bool or found[1].dtype != found[2].dtype:
        return None
    return [b.map("where", found, found[1].dtype)]


@lowers("IsNaN", "IsInf")
def _kinds(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    (x,) = inputs
    assert x is not None
    if not _is_real(x):
        return None
    if node.op_type == "IsNaN":
        return [b.map("is_nan", [x], np.bool_)]
    wanted = tuple(node.attributes.get(f"detect_{sign}", 1) for sign in ("negative", "positive"))
    return [b.map("is_inf", [x], np.bool_, wanted)]


@lowers(*_FUNCTIONS, blocks=True)
def _function(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    (x,) = inputs
    assert x is not None
    if not _is_real(x):
        return None
    return [b.map(_FUNCTIONS[node.op_type], [x])]


@lowers("Relu", "Neg", "Abs", "Sign", blocks=True)
def _simple(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    (x,) = inputs
    assert x is not None
    if x.dtype == bool or (x.dtype.kind == "u" and node.op_type == "Neg"):
        return None
    return [b.map(node.op_type.lower(), [x])]


@lowers(*_WITH_ATTRIBUTES, blocks=True)
def _activation(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    (x,) = inputs
    assert x is not None
    if not _is_real(x):
        return None
    op, defaults = _WITH_ATTRIBUTES[node.op_type]
    if node.op_type == "Selu" and node.opset < 6:
        defaults = _SELU_1
    elif node.opset < 6 and node.op_type in ("LeakyRelu", "Elu", "HardSigmoid"):
        return None
    return [b.map(op, [x], attributes=tuple(float(node.attributes.get(n, d)) for n, d in defaults.items()))]


@lowers("Gelu", blocks=True)
def _gelu(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    (x,) = inputs
    approximate = node.attributes.get("approximate", "none")
    assert x is not None
    if approximate not in ("none", "tanh") or not _is_real(x):
        return None
    return [b.map("gelu", [x], attributes=(approximate,))]


@lowers("Gelu", "BiasGelu", "FastGelu", domain="com.microsoft", wide=True)
def _microsoft_gelu(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    """Of the sum with a bias, where there is one."""
    x, bias = (*inputs, None)[:2]
    assert x is not None
    if not _is_real(x) or (bias is not None and (bias.dtype != x.dtype or bias.shape != x.shape[-1:])):
        return None
    if bias is not None:
        x = b.map("add", [x, bias])
    return [b.map("gelu", [x], attributes=("tanh" if node.op_type == "FastGelu" else "none",))]


@lowers("QuickGelu", domain="com.microsoft", wide=True)
def _quick_gelu(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    (x,) = inputs
    assert x is not None
    if not _is_real(x):
        return None
    alpha = b.constant(np.asarray(node.attributes.get("alpha", 1.702), x.dtype))
    return [b.map("mul", [x, b.map("sigmoid", [b.map("mul", [x, alpha])])])]


@lowers("Clip", blocks=True)
def _clip(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    x, low, high = (*inputs, None, None)[:3]
    assert x is not None
    given = [low, high]
    if node.opset >= 6 and (low is None or high is None) and _is_real(x):
        # a bound that is left out is the last finite number
        limits = limits_of(np.dtype(np.float32) if node.opset < 11 else x.dtype)
        ends = (limits.min, limits.max)
        with np.errstate(over="ignore"):
            given = [b.constant(np.asarray(e, x.dtype)) if t is None else t for t, e in zip(given, ends, strict=True)]
    for op, bound in zip(("max", "min"), given, strict=True):
        if bound is None:
            continue
        if bound.dtype != x.dtype or bound.size != 1:
            return None
        if bound.value is None:
            bound = bound.view((), ())
        elif bound.shape:
            bound = b.constant(bound.value.reshape(()))
        x = b.map(op, [x, bound])
    return [b.map("max", [x, x])] if x.block and x is inputs[0] else [x]


@lowers("Cast", "CastLike", blocks=True)
def _cast(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    x = inputs[0]
    assert x is not None
    if node.op_type == "CastLike":
        like = inputs[1]
        dtype = None if like is None else like.dtype
    else:
        to = node.attributes.get("to")
        dtype = DTYPE_OF.get(to) if isinstance(to, int) else None
    if dtype is None or name_of(dtype) not in STORED or dtype.kind == "O":
        return None
    if dtype == x.dtype:
        return [x]
    if _is_real(x) and dtype.kind in "iu":
        return None if x.element in ("float16", "bfloat16") else [b.map("cast", [x], dtype)]
    return [b.map("cast", [x], dtype)]
