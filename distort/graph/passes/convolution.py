"""BatchNormalization behind a convolution, folded into its weights."""

from __future__ import annotations

from typing import Any

import numpy as np

from distort.graph.annotations import apart, joined
from distort.graph.ir import Graph, Node

from .context import Context


def fold_batch_normalization(graph: Graph, context: Context) -> int:
    """Conv -> BatchNormalization becomes Conv with scaled weights, computed in double precision."""
    constants = context.constants(graph)
    producers = {name: node for node in graph.nodes for name in node.outputs if name}
    readers = graph.consumers()
    outputs = set(graph.outputs)
    dropped: set[int] = set()
    for node in graph.nodes:
        conv = producers.get(node.inputs[0]) if _is_inference(node) else None
        if conv is None or conv.op_type != "Conv" or conv.domain:
            continue
        between = node.inputs[0]
        if len(readers.get(between, ())) != 1 or between in outputs or apart(conv, node):
            continue
        parameters = [constants.get(name) for name in (*conv.inputs[1:3], *node.inputs[1:5]) if name]
        if any(not isinstance(value, np.ndarray) or value.dtype != np.float32 for value in parameters):
            continue
        weights, bias = _scaled(conv, node, constants)
        target = node.outputs[0]
        weights_name, bias_name = f"{target}/folded weights", f"{target}/folded bias"
        graph.initializers[weights_name], graph.initializers[bias_name] = weights, bias
        conv.inputs = [conv.inputs[0], weights_name, bias_name]
        conv.device_configurations = joined(conv, node)
        conv.outputs = [target]
        producers[target] = conv
        dropped.add(id(node))
    if dropped:
        graph.nodes = [node for node in graph.nodes if id(node) not in dropped]
    return len(dropped)


def _is_inference(node: Node) -> bool:
    return (
        node.op_type == "BatchNormalization"
        and not node.domain
        and not node.attributes.get("training_mode", 0)
        and not any(node.outputs[1:])
        and (node.opset >= 7 or bool(node.attributes.get("is_test", 0)))
        and node.attributes.get("spatial", 1) == 1
    )


def _scaled(conv: Node, node: Node, constants: dict[str, Any]) -> tuple[Any, Any]:
    scale, shift, mean, variance = (constants[name].astype(np.float64) for name in node.inputs[1:5])
    weights = constants[conv.inputs[1]].astype(np.float64)
    factor = scale / np.sqrt(variance + node.attributes.get("epsilon", 1e-5))
    bias = constants[conv.inputs[2]].astype(np.float64) if len(conv.inputs) > 2 and conv.inputs[2] else 0.0
    folded = weights * factor.reshape(-1, *[1] * (weights.ndim - 1))
    return folded.astype(np.float32), ((bias - mean) * factor + shift).astype(np.float32)
