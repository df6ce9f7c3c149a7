"""Element-wise operators."""

from __future__ import annotations

import numpy as np

from distort.graph.ir import Node
from distort.kernels.compiler.builder import Builder, lowers
from distort.kernels.compiler.ir import Tensor

_BINARY = {"Add": "add", "Sub": "sub", "Mul": "mul", "Div": "div"}


@lowers(*_BINARY, blocks=True)
def _binary(b: Builder, node: Node, inputs: list[Tensor | None]) -> list[Tensor | None] | None:
    x, y = inputs
    if x is None or y is None or x.dtype != y.dtype:
        return None
    try:
        np.broadcast_shapes(x.shape, y.shape)
    except ValueError:
        return None  # the NumPy kernel says so, when it runs
    return [b.map(_BINARY[node.op_type], [x, y])]


@lowers("Relu", "Neg", blocks=True)
def _unary(b: Builder, node: Node, inputs: list[Tensor | None]) -> list[Tensor | None] | None:
    (x,) = inputs
    assert x is not None
    return [b.map(node.op_type.lower(), [x])]
