"""Operators that work on elements, with or without broadcasting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from .rules import EVERY, MICROSOFT, ML, Site, rule
from .values import Refused, Tensor, Value

_UNARY = (
    *("Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "BitCast", "BitwiseNot", "Cast", "Ceil", "Celu", "Cos"),
    *("Cosh", "Elu", "Erf", "Exp", "Floor", "HardSigmoid", "HardSwish", "Identity", "IsInf", "IsNaN", "LeakyRelu"),
    *("Log", "Mish", "Neg", "Not", "Reciprocal", "Relu", "Round", "Selu", "Shrink", "Sigmoid", "Sign", "Sin", "Sinh"),
    *("Softplus", "Softsign", "Sqrt", "Tan", "Tanh", "ThresholdedRelu", "Gelu", "Swish", "RegexFullMatch"),
)
BROADCASTING = (
    *("Add", "And", "BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Div", "Equal", "Greater", "GreaterOrEqual"),
    *("Less", "LessOrEqual", "Max", "Mean", "Min", "Mod", "Mul", "Or", "PRelu", "Pow", "StringConcat", "Sub", "Sum"),
    *("Where", "Xor"),
)


def bare(value: Tensor) -> Tensor:
    """Its shape and axis, for elements that are others."""
    return replace(value, array=None)


def broadcast_dim(dims: Sequence[int | None]) -> int | None:
    sizes = {dim for dim in dims if dim not in (1, None)}
    if len(sizes) > 1:
        raise Refused(f"dimensions of {' and '.join(sorted(map(str, sizes)))} don't broadcast")
    return sizes.pop() if sizes else None if None in dims else 1


def broadcast(values: Sequence[Tensor]) -> Tensor:
    """Shapes aligned at their ends. Samples may meet samples of the same axis, and what has no extent there."""
    if not values:
        raise Refused("it has no inputs")
    batched = [value for value in values if value.axis is not None]
    if not batched and any(value.shape is None for value in values):
        return Tensor()
    rank = max(value.rank for value in values)
    axis = None
    if batched:
        ends = {value.rank - value.batch_axis for value in batched}
        if len(ends) > 1:
            raise Refused("it puts values together whose samples lie along different axes")
        end = ends.pop()
        rows = {value.rows for value in batched}
        if len(rows) > 1:
            raise Refused(f"it puts {' and '.join(map(str, sorted(rows)))} rows of a sample together")
        for value in values:
            if value.axis is None and value.rank >= end and value.dims[-end] != 1:
                count = "an unknown number of" if value.dims[-end] is None else str(value.dims[-end])
                raise Refused(f"an operand that is the same for every part has {count} rows along the batch axis")
        axis = rank - end
    dims: list[int | None] = []
    for i in range(rank):
        at = [value.dims[i - rank + value.rank] for value in values if i - rank + value.rank >= 0]
        dims.append(batched[0].rows if i == axis else broadcast_dim(at))
    return Tensor(tuple(dims), axis)


@rule(*_UNARY)
def unary(site: Site) -> Value:
    return bare(site.tensor())


rule("LabelEncoder", "Binarizer", "CategoryMapper", domain=ML)(unary)
rule("QuickGelu", domain=MICROSOFT)(unary)
rule("CastLike", samples=(0, 1), sizes=(1,))(unary)  # of the second input only the element type counts


@rule("Clip")
def clip(site: Site) -> Value:
    return bare(site.tensor())


@rule(*BROADCASTING, samples=EVERY)
def broadcasting(site: Site) -> Value:
    values = site.tensors()
    if site.node.opset < 7 and site.attribute("broadcast"):
        values[1] = _placed(values[1], values[0], site.attribute("axis"))
    if site.node.op_type == "PRelu" and site.node.opset < 7 and values[0].axis not in (None, 0):
        site.refuse("its slopes are those of channels")
    return broadcast(values)


def _placed(value: Tensor, target: Tensor, axis: int | None) -> Tensor:
    """Broadcasting before version 7: the second operand's dimensions begin at ``axis`` of the first."""
    if axis is None:
        return value
    axis = axis + target.rank if axis < 0 else axis
    return Tensor(value.dims + (1,) * (target.rank - axis - value.rank), value.axis)


rule("BiasGelu", "FastGelu", domain=MICROSOFT, samples=EVERY)(lambda site: broadcast(site.tensors()))


@rule("Dropout")
def dropout(site: Site) -> Sequence[Value]:
    value = bare(site.tensor())
    if site.node.opset >= 12:
        training = site.optional(2)
        if training is not None and (training.array is None or bool(training.array.any())):
            site.refuse("it is in training mode, or may be: what it drops is random")
    elif site.node.opset < 7 and not site.attribute("is_test", 0):
        site.refuse("it is in training mode: what it drops is random")
    return value, value


@rule("QuantizeLinear", "DequantizeLinear")
def linear_quantization(site: Site) -> Value:
    value, scale = bare(site.tensor()), site.tensor(1)
    if value.axis is None or scale.rank == 0 or (scale.rank == 1 and scale.dims[0] == 1):
        return value
    axis = site.attribute("axis", 1)
    if site.attribute("block_size", 0) or scale.rank > 1:
        site.refuse("it has scales by block")
    if (axis + value.rank if axis < 0 else axis) == value.axis:
        site.refuse("it has a scale for each row of the batch axis")
    return value


@rule("QLinearLeakyRelu", "QLinearSigmoid", domain=MICROSOFT)
def quantized_unary(site: Site) -> Value:
    return bare(site.tensor())


@rule("QLinearAdd", "QLinearMul", domain=MICROSOFT, samples=(0, 3))
def quantized_binary(site: Site) -> Value:
    return broadcast([site.tensor(0), site.tensor(3)])


@rule("QLinearWhere", domain=MICROSOFT, samples=(0, 1, 4))
def quantized_where(site: Site) -> Value:
    return broadcast([site.tensor(0), site.tensor(1), site.tensor(4)])
