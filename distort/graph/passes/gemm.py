"""MatMul and the Add of a bias, as one Gemm, where both are two-dimensional."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from distort.graph.annotations import apart, joined
from distort.graph.ir import Graph, Node
from distort.graph.types import TensorType

from .context import Context

_FLOATS = frozenset((1, 10, 11, 16))


def merge_bias(graph: Graph, context: Context) -> int:
    """x [M, K] @ w [K, N] + b becomes Gemm; b is a constant of shape [], [1], [N], [1, 1] or [1, N]."""
    constants = context.constants(graph)
    producers = {name: node for node in graph.nodes for name in node.outputs if name}
    readers = graph.consumers()
    outputs = set(graph.outputs)
    dropped: set[int] = set()
    for node in graph.nodes:
        if node.op_type != "Add" or node.domain or node.opset < 11:
            continue
        for product, bias in (node.inputs, node.inputs[::-1]):
            matmul = producers.get(product)
            if matmul is None or id(matmul) in dropped or product in outputs or len(readers[product]) != 1:
                continue
            if node.inputs[0] == node.inputs[1] or not _fits(matmul, constants.get(bias), constants, context):
                continue
            if apart(matmul, node):
                continue
            node.op_type, node.inputs = "Gemm", [*matmul.inputs, bias]
            node.device_configurations = joined(matmul, node)
            dropped.add(id(matmul))
            break
    if dropped:
        graph.nodes = [node for node in graph.nodes if id(node) not in dropped]
    return len(dropped)


def _fits(matmul: Node, bias: object, constants: Mapping[str, object], context: Context) -> bool:
    if matmul.op_type != "MatMul" or matmul.domain or not isinstance(bias, np.ndarray):
        return False
    left, right = context.types.get(matmul.inputs[0]), constants.get(matmul.inputs[1])
    if not isinstance(left, TensorType) or left.shape is None or len(left.shape) != 2 or left.element not in _FLOATS:
        return False
    if not isinstance(right, np.ndarray) or right.ndim != 2 or bias.ndim > 2:
        return False
    return bias.size == 1 or (bias.shape[-1] == right.shape[1] and bias.size == bias.shape[-1])


__all__ = ["merge_bias"]
