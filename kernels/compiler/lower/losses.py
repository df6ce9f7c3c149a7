"""NegativeLogLikelihoodLoss and SoftmaxCrossEntropyLoss. N: samples, C: classes."""

from __future__ import annotations

import numpy as np

from distort.graph.ir import Node
from distort.kernels.compiler.builder import Builder, lowering_of, lowers
from distort.kernels.compiler.expression import Instruction
from distort.kernels.compiler.ir import Tensor
from distort.kernels.compiler.rows import Body

Result = list[Tensor | None] | None


@lowers("NegativeLogLikelihoodLoss", wide=True)
def _likelihood(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    x, target, weight = [*inputs, None][:3]
    return None if x is None or target is None else _loss(b, node, x, target, weight)


@lowers("SoftmaxCrossEntropyLoss", wide=True)
def _cross_entropy(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    scores, target, weight = [*inputs, None][:3]
    softmax = lowering_of("", "LogSoftmax")
    if scores is None or target is None or softmax is None or len(scores.shape) < 2:
        return None
    made = softmax(b, Node("LogSoftmax", "", [""], [""], {"axis": 1}, opset=13), [scores])
    if made is None or made[0] is None:
        return None
    loss = _loss(b, node, made[0], target, weight)
    return loss if loss is None or len(node.outputs) < 2 else [*loss, made[0]]


def _loss(b: Builder, node: Node, x: Tensor, target: Tensor, weight: Tensor | None) -> Result:
    """x: [N, C, ...], target: [N, ...]"""
    reduction, ignored = node.attributes.get("reduction", "mean"), node.attributes.get("ignore_index")
    shape = x.shape
    if x.dtype != np.float32 or len(shape) < 2 or target.shape != shape[:1] + shape[2:] or not x.size:
        return None
    if target.element not in ("int32", "int64") or reduction not in ("none", "sum", "mean"):
        return None
    if weight is not None and (weight.shape != shape[1:2] or weight.dtype != np.float32):
        return None
    if ignored is not None and not -(1 << 31) <= ignored < 1 << 31:
        return None
    target = b.contiguous(b.plain(target))
    # classes below 0 don't count from the end: they become what no class is
    kind = target.element
    instructions = [
        Instruction("constant", (0,), kind, (0,)),
        Instruction("less", (0, 1), "bool"),
        Instruction("constant", (0,), kind, (shape[1],)),
        Instruction("where", (2, 3, 0), kind),
    ]
    if ignored is not None:
        instructions += [
            Instruction("constant", (0,), kind, (ignored,)),
            Instruction("equal", (0, 5), "bool"),
            Instruction("where", (6, 1, 4), kind),
        ]
    classes = b.map("", [target], target.dtype, body=instructions)
    wide = classes.view((shape[0], 1, *shape[2:]), (classes.strides[0], 0, *classes.strides[1:]))
    chosen = b.gathered_elements(x, 1, wide)
    loss = b.map("neg", [chosen.reshaped(target.shape)])
    scale = None if weight is None else b.gathered(weight, 0, classes).reshaped(target.shape)
    if ignored is not None:
        zero, one = (b.constant(np.asarray(number, np.float32)) for number in (0, 1))
        hit = b.map("equal", [target, b.constant(np.asarray(ignored, target.dtype))], np.bool_)
        scale = b.map("where", [hit, zero, one if scale is None else scale], np.float32)
        loss = b.map("where", [hit, zero, loss], np.float32)
    if scale is not None:
        loss = b.map("mul", [loss, scale])
    if reduction == "none":
        return [loss]
    total = _sum(b, loss)
    if total is None or reduction == "sum":
        return None if total is None else [total]
    by = b.number("size", target.size, np.float32) if scale is None else _sum(b, scale)
    return None if by is None else [b.map("div", [total, by])]


def _sum(b: Builder, x: Tensor) -> Tensor | None:
    """All elements: a scalar."""
    body = Body((x.size,), "float32")
    made = body.add(b, (0,), [(body.op("row_sum", body.input(b.contiguous(x).reshaped((x.size,)))), "float32", True)])
    return None if made is None else made[0].reshaped(())
