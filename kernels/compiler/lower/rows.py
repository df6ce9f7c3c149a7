"""Softmax and normalizations: row operations with element-wise work before, between and after reductions."""

from __future__ import annotations

import math

from distort.graph.ir import Node
from distort.kernels.compiler.builder import Builder, lowers
from distort.kernels.compiler.ir import Tensor
from distort.kernels.compiler.rows import Body

Result = list[Tensor | None] | None
_REALS = ("float32", "float64", "float16", "bfloat16")


def statistics_dtype(x: Tensor) -> str:
    """What sums are made in."""
    return "float64" if x.element == "float64" else "float32"


def _wants(node: Node, position: int) -> bool:
    return len(node.outputs) > position and bool(node.outputs[position])


@lowers("Softmax", "LogSoftmax")
def _softmax(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    (x,) = inputs
    if x is None or x.element not in _REALS or not x.shape or not x.size:
        return None
    rank, shape = len(x.shape), x.shape
    axis = node.attributes.get("axis", -1 if node.opset >= 13 else 1)
    if not -rank <= axis < rank:
        return None
    axis %= rank
    if node.opset < 13 and axis != rank - 1:
        x = b.contiguous(x).reshaped((math.prod(shape[:axis]), math.prod(shape[axis:])))
        axis = 1
    body = Body(x.shape, x.element)  # half precision: each step is rounded, as the standard's body has it
    element = body.input(x)
    # NaN makes the sum one
    moved = body.op("sub", element, body.op("row_max", element, attributes=("numbers",)))
    power = body.op("exp_to_one", moved)
    total = body.op("row_sum", power)
    if node.op_type == "Softmax":
        result = body.op("mul", power, body.op("reciprocal", total, dtype=statistics_dtype(x)))
    else:
        result = body.op("sub", moved, body.op("log", total))
    made = body.add(b, (axis,), [(result, x.element, False)])
    return None if made is None else [made[0].reshaped(shape)]


def standardized(body: Body, element: int, epsilon: float, centred: bool) -> tuple[int, int, int]:
    """(x - mean) / std, or x / rms; the mean (or x), and 1 / std."""
    mean = body.op("row_mean", element) if centred else element
    moved = body.op("sub", element, mean) if centred else element
    variance = body.op("row_mean", body.op("mul", moved, moved))
    inverse = body.op("reciprocal", body.op("sqrt", body.op("add", variance, body.number(epsilon))))
    return body.op("mul", moved, inverse), mean, inverse


def _affine(body: Body, element: int, scale: int | None, bias: int | None, dtype: str) -> int:
    if scale is not None:
        element = body.op("mul", element, scale, dtype="" if bias is not None else dtype)
    if bias is not None:
        element = body.op("add", element, bias, dtype=dtype)
    return element


def _parameter(tensor: Tensor, shape: tuple[int, ...], axis: int) -> Tensor | None:
    """A scale or bias as a view that broadcasts to ``shape``; None where it doesn't."""
    if len(tensor.shape) == 1 and tensor.size == math.prod(shape[axis:]) and tensor.contiguous:
        return tensor.reshaped(shape[axis:])
    fits = len(tensor.shape) <= len(shape) and all(
        size in (1, goal) for size, goal in zip(reversed(tensor.shape), reversed(shape), strict=False)
    )
    return tensor if fits else None


@lowers("LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization")
def _layer_normalization(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    centred = node.op_type == "LayerNormalization"
    x, scale = inputs[:2]
    bias = inputs[2] if centred and len(inputs) > 2 else None
    rank = 0 if x is None else len(x.shape)
    axis = node.attributes.get("axis", -1)
    if x is None or scale is None or x.element not in _REALS or not -rank <= axis < rank or not x.size:
        return None
    if node.attributes.get("stash_type", 1) != 1:
        return None
    axis %= rank
    statistics = statistics_dtype(x)
    body = Body(x.shape, statistics)
    element = body.input(x)
    places: list[int | None] = []
    for parameter in (scale, bias):
        view = None if parameter is None else _parameter(parameter, x.shape, axis)
        if view is None and parameter is not None:
            return None
        places.append(None if view is None else body.input(view))
    value, mean, inverse = standardized(body, element, node.attributes.get("epsilon", 1e-5), centred)
    wanted = [(_affine(body, value, places[0], places[1], x.element), x.element, False)]
    rows = (mean, inverse) if centred else (inverse,)
    wanted += [(number, statistics, True) for i, number in enumerate(rows, 1) if _wants(node, i)]
    made = body.add(b, range(axis, rank), wanted)
    if made is None:
        return None
    rest = iter(made[1:])
    return [made[0], *(next(rest) if _wants(node, i) else None for i in range(1, len(rows) + 1))]


@lowers("SimplifiedLayerNormalization", domain="com.microsoft")
def _simplified(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    return _layer_normalization(b, node, inputs)


@lowers("SkipLayerNormalization", "SkipSimplifiedLayerNormalization", domain="com.microsoft")
def _skip_layer_normalization(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    """Of x + skip + bias. Outputs: the result, the mean, 1 / std, and that sum."""
    centred = node.op_type == "SkipLayerNormalization"
    x, skip, gamma, *rest = [*inputs, *[None] * 5][:5]
    beta, bias = rest if centred else (None, rest[0])
    if x is None or skip is None or gamma is None or x.element not in _REALS or not x.size:
        return None
    if x.shape[len(x.shape) - len(skip.shape) :] != skip.shape and skip.shape != (1, *x.shape[1:]):
        return None
    if any(t is not None and t.shape != x.shape[-1:] for t in (gamma, beta, bias)):
        return None
    statistics = statistics_dtype(x)
    body = Body(x.shape, statistics)
    total, other, scale = (body.input(t) for t in (x, skip, gamma))
    shift = None if beta is None else body.input(beta)
    extra = None if bias is None else body.input(bias)
    total = body.op("add", total, other)
    if extra is not None:
        total = body.op("add", total, extra)
    value, mean, inverse = standardized(body, total, node.attributes.get("epsilon", 1e-12), centred)
    # the sum as it is stored
    stored = total if x.element == statistics else body.op("cast", total, dtype=x.element)
    results = {
        0: (_affine(body, value, scale, shift, x.element), x.element, False),
        1: (mean, statistics, True),
        2: (inverse, statistics, True),
        3: (stored, x.element, False),
    }
    if not centred:
        if _wants(node, 1):
            return None
        del results[1]
    chosen = [i for i in results if i == 0 or _wants(node, i)]
    made = body.add(b, (len(x.shape) - 1,), [results[i] for i in chosen])
    if made is None:
        return None
    return [dict(zip(chosen, made, strict=True)).get(i) for i in range(4)]


def _by_channel(tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    """[C] as [1, G, C / G, 1], or [G] as [1, G, 1, 1]; ``shape``: [N, G, C / G, …]."""
    groups = shape[1]
    sizes = (groups, tensor.size // groups, *(1 for _ in shape[3:]))
    (stride,) = tensor.strides
    return tensor.view(sizes, (stride * sizes[1], stride, *(0 for _ in shape[3:])))


@lowers("InstanceNormalization", "GroupNormalization")
def _group_normalization(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    x, scale, bias = inputs
    if x is None or scale is None or bias is None or x.element not in _REALS or len(x.shape) < 3 or not x.size:
        return None
    channels = x.shape[1]
    groups = channels if node.op_type == "InstanceNormalization" else node.attributes["num_groups"]
    if groups < 1 or channels % groups or scale.shape != bias.shape:
        return None
    each = groups if node.op_type == "GroupNormalization" and node.opset < 21 else channels
    if scale.shape != (each,) or node.attributes.get("stash_type", 1) != 1:
        return None
    original = x.shape
    shape = (x.shape[0], groups, channels // groups, math.prod(x.shape[2:]))
    x = b.contiguous(x).reshaped(shape)
    body = Body(shape, statistics_dtype(x))
    element, times, plus = (body.input(t) for t in (x, _by_channel(scale, shape), _by_channel(bias, shape)))
    value, _, _ = standardized(body, element, node.attributes.get("epsilon", 1e-5), True)
    made = body.add(b, (2, 3), [(_affine(body, value, times, plus, x.element), x.element, False)])
    return None if made is None else [made[0].reshaped(original)]


@lowers("LpNormalization")
def _lp_normalization(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    """x / norm; 0 where the norm is 0."""
    (x,) = inputs
    rank = 0 if x is None else len(x.shape)
    axis, p = node.attributes.get("axis", -1), node.attributes.get("p", 2)
    if x is None or x.element not in _REALS or not -rank <= axis < rank or p not in (1, 2) or not x.size:
        return None
    body = Body(x.shape, statistics_dtype(x))
    element = body.input(x)
    norm = body.op("row_sum", body.op("abs", element) if p == 1 else body.op("mul", element, element))
    if p == 2:
        norm = body.op("sqrt", norm)
    none = body.op("equal", norm, body.number(0.0), dtype="bool")
    divisor = body.op("where", none, body.number(1.0), norm)
    result = body.op("div", element, divisor, dtype=x.element)
    return list(body.add(b, (axis % rank,), [(result, x.element, False)]) or []) or None


@lowers("MeanVarianceNormalization")
def _mean_variance_normalization(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    (x,) = inputs
    axes = node.attributes.get("axes", [0, 2, 3])
    rank = 0 if x is None else len(x.shape)
    if x is None or x.element not in _REALS or any(not -rank <= axis < rank for axis in axes) or not x.size:
        return None
    body = Body(x.shape, statistics_dtype(x))
    element = body.input(x)
    moved = body.op("sub", element, body.op("row_mean", element))
    deviation = body.op("sqrt", body.op("row_mean", body.op("mul", moved, moved)))
    result = body.op("div", moved, body.op("add", deviation, body.number(1e-9)), dtype=x.element)
    return list(body.add(b, sorted({axis % rank for axis in axes}), [(result, x.element, False)]) or []) or None
