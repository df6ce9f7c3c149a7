"""com.microsoft's operators on 8-bit tensors that are no products: element-wise, joined, averaged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from distort.graph.ir import Node
from distort.kernels.compiler.builder import Builder, lowering_of, lowers
from distort.kernels.compiler.ir import Array, Call, Native, Tensor
from distort.kernels.compiler.keys import Key
from distort.kernels.compiler.lower.quantization import quantized, real
from distort.kernels.compiler.lower.quantized import BYTES
from distort.kernels.compiler.lower.quantized_linear import scalar
from distort.kernels.ops import contrib_qlinear

Result = list[Tensor | None] | None
_MS = "com.microsoft"


def looked_up(b: Builder, x: Tensor, table: Array) -> Tensor:
    """A function of a byte; ``table`` has its values in the order of the bits."""
    x = b.contiguous(b.plain(x))
    result = b.new(table.dtype, x.shape)
    if x.size:
        known = b.constant(np.ascontiguousarray(table))
        words: list[Any] = [x.size, x.address(), known.address(), result.address()]
        b.add(Native([x, known], [result], [Call(Key("lookup", ()), words, x.size * 0.3)]))
    return result


def by_table(
    b: Builder, x: Tensor, parameters: Sequence[Tensor | None], kernel: Any, **attributes: Any
) -> Tensor | None:
    """A NumPy kernel of one 8-bit tensor whose scales and zero points are known, done for each of its values."""
    if x.dtype not in BYTES or any(p is not None and p.value is None for p in parameters):
        return None
    every = np.arange(256, dtype=np.uint8).view(x.dtype)
    return looked_up(b, x, kernel(np, every, *(None if p is None else p.value for p in parameters), **attributes))


def dequantized(b: Builder, x: Tensor, scale: Tensor | None, zero: Tensor | None) -> Tensor | None:
    """(x − zero) · scale; None where they are not single numbers."""
    of_x = scalar(b, scale)
    if of_x is None or of_x.dtype != np.float32 or x.dtype not in BYTES:
        return None
    if zero is not None and (zero.size != 1 or zero.dtype != x.dtype):
        return None
    wide = b.map("cast", [x], np.float32)
    if zero is not None and (zero.value is None or zero.value.any()):
        known = scalar(b, zero)
        assert known is not None
        wide = b.map("sub", [wide, real(b, known)])
    return b.map("mul", [wide, of_x])


def requantized(b: Builder, y: Tensor, scale: Tensor | None, zero: Tensor | None, dtype: Any) -> Tensor | None:
    of_y = scalar(b, scale)
    if of_y is None or of_y.dtype != np.float32 or (zero is not None and (zero.size != 1 or zero.dtype != dtype)):
        return None
    return quantized(b, y, of_y, scalar(b, zero), np.dtype(dtype))


@lowers("QLinearAdd", "QLinearMul", domain=_MS)
def _binary(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    x, x_scale, x_zero, y, y_scale, y_zero, scale, zero = [*inputs, None][:8]
    if x is None or y is None or x.dtype != y.dtype:
        return None
    try:
        np.broadcast_shapes(x.shape, y.shape)
    except ValueError:
        return None
    left, right = dequantized(b, x, x_scale, x_zero), dequantized(b, y, y_scale, y_zero)
    if left is None or right is None:
        return None
    made = requantized(b, b.map("add" if node.op_type == "QLinearAdd" else "mul", [left, right]), scale, zero, x.dtype)
    return None if made is None else [made]


@lowers("QLinearSigmoid", "QLinearLeakyRelu", domain=_MS)
def _unary(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    x, *parameters = inputs
    if x is None:
        return None
    if node.op_type == "QLinearSigmoid":
        made = by_table(b, x, parameters, contrib_qlinear.qlinear_sigmoid)
    else:
        alpha = node.attributes.get("alpha", 0.01)
        made = by_table(b, x, parameters, contrib_qlinear.qlinear_leaky_relu, alpha=alpha)
    return None if made is None else [made]


def _rescaled(b: Builder, triple: Sequence[Tensor | None], scale: Tensor, zero: Tensor) -> Tensor | None:
    """A tensor, its scale and its zero point, in another scale and with another zero point."""
    x, *parameters = triple
    if x is None:
        return None
    known = [*parameters, scale, zero]
    if any(t is None or t.value is None or t.size != 1 for t in known):
        return None
    numbers = [t.value.reshape(()) for t in known if t is not None and t.value is not None]
    if numbers[0] == numbers[2] and numbers[1] == numbers[3] and zero.dtype == x.dtype:
        return x
    return by_table(b, x, known, contrib_qlinear._requantized)


@lowers("QLinearConcat", domain=_MS)
def _concat(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    scale, zero, *rest = inputs
    if scale is None or zero is None or not rest or len(rest) % 3:
        return None
    parts = [_rescaled(b, rest[i : i + 3], scale, zero) for i in range(0, len(rest), 3)]
    if any(part is None for part in parts):
        return None
    lowering = lowering_of("", "Concat")
    assert lowering is not None
    return lowering(b, replace(node, op_type="Concat", domain=""), parts)


@lowers("QLinearWhere", domain=_MS)
def _where(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    condition, *rest = inputs
    scale, zero = rest[6:8]
    if condition is None or scale is None or zero is None or condition.dtype != np.bool_:
        return None
    x, y = _rescaled(b, rest[:3], scale, zero), _rescaled(b, rest[3:6], scale, zero)
    if x is None or y is None or x.dtype != y.dtype:
        return None
    try:
        np.broadcast_shapes(condition.shape, x.shape, y.shape)
    except ValueError:
        return None
    return [b.map("where", [condition, x, y], x.dtype)]


@lowers("QLinearGlobalAveragePool", "QLinearAveragePool", domain=_MS)
def _average(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    x, x_scale, x_zero, scale, zero = [*inputs, None][:5]
    plain = replace(node, op_type=node.op_type.removeprefix("QLinear"), domain="")
    lowering = lowering_of("", plain.op_type)
    if x is None or lowering is None or len(x.shape) < 3:
        return None
    rank = len(x.shape)
    last = node.attributes.get("channels_last", 0)
    wide = dequantized(b, b.plain(x).permuted([0, rank - 1, *range(1, rank - 1)]) if last else x, x_scale, x_zero)
    if wide is None:
        return None
    pooled = lowering(b, plain, [wide])
    if pooled is None or pooled[0] is None:
        return None
    made = requantized(b, b.plain(pooled[0]), scale, zero, x.dtype)
    if made is None:
        return None
    return [made.permuted([0, *range(2, rank), 1]) if last else made]
