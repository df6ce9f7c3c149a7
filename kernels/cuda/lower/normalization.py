"""BatchNormalization by statistics that a run has, and Dropout where nothing is dropped."""

from __future__ import annotations

import numpy as np

from distort.graph.ir import Node
from distort.kernels.compiler.builder import Builder
from distort.kernels.compiler.expression import Instruction
from distort.kernels.compiler.ir import Tensor
from distort.kernels.cuda.lower import lowers_cuda

Result = list[Tensor | None] | None


@lowers_cuda("BatchNormalization", wide=True)
def _batch_normalization(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    """Known ones are the CPU's lowering's, which makes one factor and one offset of them."""
    given = [t for t in inputs if t is not None]
    get = node.attributes.get
    if len(given) != 5 or get("training_mode", 0) or not get("spatial", 1) or len([n for n in node.outputs if n]) > 1:
        return None
    x, *statistics = given
    if len(x.shape) < 2 or x.element not in ("float32", "float64") or all(t.value is not None for t in statistics):
        return None
    if any(t.dtype != x.dtype or t.shape != x.shape[1:2] for t in statistics):
        return None
    spatial = (x.shape[1], *(1 for _ in x.shape[2:]))
    scale, shift, mean, variance = (b.contiguous(t).reshaped(spatial) for t in statistics)
    real = x.element
    body = [
        Instruction("constant", (0,), real, (float(get("epsilon", 1e-5)),)),
        Instruction("add", (4, 5), real),
        Instruction("sqrt", (6,), real),
        Instruction("div", (1, 7), real),
        Instruction("sub", (0, 3), real),
        Instruction("mul", (9, 8), real),
        Instruction("add", (10, 2), real),
    ]
    return [b.map("", [x, scale, shift, mean, variance], body=body)]


@lowers_cuda("Dropout")
def _dropout(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    x, _, training = [*inputs, None, None][:3]
    trains = node.opset < 7 and not node.attributes.get("is_test", 0)
    if x is None or trains or (len(inputs) > 2 and (training is None) != (not node.inputs[2])):
        return None
    if training is not None and (training.value is None or training.value.any()):
        return None
    if len(node.outputs) < 2 or not node.outputs[1]:
        return [x]
    mask = np.ones((), np.bool_ if node.opset >= 10 else x.dtype)
    return [x, b.constant(np.broadcast_to(mask, x.shape))]
