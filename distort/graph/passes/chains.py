"""Two nodes in a row that one can do: transposes of transposes, reshapes of reshapes."""

from __future__ import annotations

import numpy as np

from distort.graph.ir import Graph, Node

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


def _before(node: Node, producers: dict[str, Node]) -> Node | None:
    """The node of ai.onnx that makes the first input."""
    found = producers.get(node.inputs[0])
    return None if found is None or found.domain else found


__all__ = ["merge_reshapes", "merge_transposes"]
