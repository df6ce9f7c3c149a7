"""Batch normalization of inference: one multiplication and one addition, with numbers by channel."""

from __future__ import annotations

import numpy as np

from distort.graph.ir import Node
from distort.kernels.compiler.builder import Builder, lowers
from distort.kernels.compiler.expression import Instruction
from distort.kernels.compiler.ir import Array, Tensor


@lowers("BatchNormalization", blocks=True, wide=True)
def _batch_normalization(b: Builder, node: Node, inputs: list[Tensor | None]) -> list[Tensor | None] | None:
    x = inputs[0]
    known = [t.value for t in inputs[1:5] if t is not None and t.value is not None]
    a = node.attributes
    trains = a.get("training_mode", 0) or not a.get("spatial", 1) or len([n for n in node.outputs if n]) > 1
    if x is None or len(x.shape) < 2 or len(known) != 4 or trains:
        return None
    if {x.dtype, *(v.dtype for v in known)} != {np.dtype(np.float32)} or any(v.shape != x.shape[1:2] for v in known):
        return None
    scale, shift, mean, variance = (v.astype(np.float64) for v in known)
    factor = scale / np.sqrt(variance + a.get("epsilon", 1e-5))
    spatial = (-1, *(1 for _ in x.shape[2:]))
    name = tuple(b.identity(v) for v in known)

    def kept(what: str, value: Array) -> Tensor:
        return b.packed(
            (what, name, a.get("epsilon", 1e-5), spatial), lambda: value.astype(np.float32).reshape(spatial)
        )

    times, plus = kept("factor", factor), kept("offset", shift - mean * factor)
    body = [Instruction("mul", (0, 1), "float32"), Instruction("add", (3, 2), "float32")]
    return [b.map("", [x, times, plus], body=body)]
