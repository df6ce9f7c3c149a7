"""Nodes in a row that fewer can do: transposes of transposes, reshapes of reshapes, columns of what was joined."""

from __future__ import annotations

from collections import Counter

import numpy as np

from distort.graph.ir import Graph, Node
from distort.graph.types import TensorType

from .context import Context

#: operators that change the shape and nothing else
_RESHAPING = frozenset(("Reshape", "Squeeze", "Unsqueeze", "Flatten"))


def merge_transposes(graph: Graph, context: Context) -> int:
    """Transpose of Transpose becomes one."""
    producers = {name: node for node in graph.nodes for name in node.outputs if name}
    n_merged = 0
    for node in graph.nodes:
        before = _before(node, producers) if node.op_type == "Transpose" and not node.domain else None
        if before is None or before.op_type != "Transpose":
            continue
        first, second = before.attributes.get("perm"), node.attributes.get("perm")
        if first is None and second is None:  # reversed twice
            node.op_type, node.attributes = "Identity", {}
        elif first is None or second is None or len(first) != len(second):
            continue
        else:
            node.attributes = {**node.attributes, "perm": [first[axis] for axis in second]}
        node.inputs = [before.inputs[0]]
        n_merged += 1
    return n_merged


def merge_reshapes(graph: Graph, context: Context) -> int:
    """A Reshape whose result does not depend on its input's shape reads what came before earlier reshapings."""
    producers = {name: node for node in graph.nodes for name in node.outputs if name}
    constants = context.constants(graph)
    n_merged = 0
    for node in graph.nodes:
        if node.op_type != "Reshape" or node.domain:
            continue
        before = _before(node, producers)
        if before is None or before.op_type not in _RESHAPING:
            continue
        wanted = constants.get(node.inputs[1]) if len(node.inputs) > 1 else None
        if not isinstance(wanted, np.ndarray):
            continue
        # 0 copies a size of the input; -1 among zeros has no size that follows
        if (wanted == 0).any():
            continue
        node.inputs = [before.inputs[0], *node.inputs[1:]]
        n_merged += 1
    return n_merged


def read_columns(graph: Graph, context: Context) -> int:
    """Columns of inputs that were joined are read from the input that they are of, as each of a table's is encoded."""
    if not _has_extractors(graph):
        return 0
    producers = {name: node for node in graph.nodes for name in node.outputs if name}
    constants = context.constants(graph)
    n_read = 0
    for node in graph.nodes:
        if (node.domain, node.op_type) != ("ai.onnx.ml", "ArrayFeatureExtractor"):
            continue
        before, wanted = _before(node, producers), constants.get(node.inputs[1])
        if before is None or before.op_type != "Concat" or before.attributes.get("axis") not in (1, -1):
            continue
        widths = [_columns(graph, name) for name in before.inputs]
        if not isinstance(wanted, np.ndarray) or wanted.size != 1 or None in widths:
            continue
        place = int(wanted.reshape(-1)[0])
        for name, width in zip(before.inputs, widths, strict=True):
            if width == 1 and place == 0:
                node.op_type, node.domain, node.inputs, node.attributes = "Identity", "", [name], {}
                node.opset = before.opset
                n_read += 1
                break
            place -= width or 0
            if place < 0:
                break
    return n_read


def gather_labels(graph: Graph, context: Context) -> int:
    """Labels that are looked up by class as a row of a table, and then are flat, are gathered: as compiled ones are."""
    if not _has_extractors(graph):
        return 0
    producers = {name: node for node in graph.nodes for name in node.outputs if name}
    constants = context.constants(graph)
    n_readers = Counter(name for node in graph.nodes for name in (*node.inputs, *node.captured()))
    n_gathered = 0
    for node in graph.nodes:
        before = producers.get(node.inputs[0]) if (node.domain, node.op_type) == ("", "Reshape") else None
        if before is None or (before.domain, before.op_type) != ("ai.onnx.ml", "ArrayFeatureExtractor"):
            continue
        labels, shape = constants.get(before.inputs[0]), constants.get(node.inputs[1])
        looked_up = before.outputs[0]
        if not isinstance(labels, np.ndarray) or labels.ndim != 1 or labels.dtype != object:
            continue
        if not isinstance(shape, np.ndarray) or shape.tolist() != [-1]:
            continue
        if n_readers[looked_up] != 1 or looked_up in graph.outputs:
            continue
        name = f"{looked_up}/class"
        before.op_type, before.domain, before.opset = "Reshape", "", node.opset
        table, before.inputs, before.outputs = before.inputs[0], [before.inputs[1], node.inputs[1]], [name]
        node.op_type, node.inputs, node.attributes = "Gather", [table, name], {}
        n_gathered += 1
    return n_gathered


def _has_extractors(graph: Graph) -> bool:
    return any(node.op_type == "ArrayFeatureExtractor" for node in graph.nodes)


def _columns(graph: Graph, name: str) -> int | None:
    """How many an input of the graph has, by its declaration; None for anything else."""
    type_ = graph.types.get(name) if name in graph.inputs and name not in graph.initializers else None
    shape = type_.shape if isinstance(type_, TensorType) else None
    return shape[1] if shape is not None and len(shape) == 2 and isinstance(shape[1], int) else None


def _before(node: Node, producers: dict[str, Node]) -> Node | None:
    """The node of ai.onnx that makes the first input."""
    found = producers.get(node.inputs[0])
    return None if found is None or found.domain else found


__all__ = ["gather_labels", "merge_reshapes", "merge_transposes", "read_columns"]
