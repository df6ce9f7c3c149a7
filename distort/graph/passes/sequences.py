"""Sequences whose items are known: these are read where they come from, so that no sequence is made in a run."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from distort.graph.ir import Graph, Initializer, Node
from distort.graph.types import TensorType

from .context import Context

_READERS = ("ConcatFromSequence", "SequenceAt", "SequenceLength")
#: Split and Identity of these versions do what is needed
_OPSET = 13


def read_items(graph: Graph, context: Context) -> int:
    """Items of SequenceConstruct, and of SplitToSequence by known sizes, are read themselves."""
    readers = [node for node in graph.nodes if not node.domain and node.op_type in _READERS]
    if not readers:
        return 0
    producers = {name: node for node in graph.nodes for name in node.outputs if name}
    constants = context.constants(graph)
    splits: dict[int, tuple[Node | None, list[str]]] = {}
    n_read = 0
    for node in readers:
        maker = producers.get(node.inputs[0])
        if maker is None or maker.domain:
            continue
        items: list[str] | None = None
        if maker.op_type == "SequenceConstruct":
            items = list(maker.inputs)
        elif maker.op_type == "SplitToSequence":
            if id(maker) not in splits:
                sizes = _sizes(maker, context, constants)
                if sizes is None:
                    continue
                splits[id(maker)] = _split(graph, maker, sizes, producers)
            items = splits[id(maker)][1]
        if items and all(items) and _reads(graph, node, items, constants):
            n_read += 1
    if n_read:
        made = {number: split for number, (split, _) in splits.items()}
        graph.nodes = [one for node in graph.nodes for one in (made.get(id(node)), node) if one is not None]
    return n_read


def _sizes(maker: Node, context: Context, constants: Mapping[str, Initializer]) -> list[int] | None:
    """Of the items of a SplitToSequence along its axis; None where a run says them."""
    given = constants.get(maker.inputs[1]) if len(maker.inputs) > 1 and maker.inputs[1] else None
    if len(maker.inputs) > 1 and maker.inputs[1] and not isinstance(given, np.ndarray):
        return None
    if isinstance(given, np.ndarray) and given.ndim == 1:
        return [int(size) for size in given]
    known, axis = context.types.get(maker.inputs[0]), maker.attributes.get("axis", 0)
    shape = known.shape if isinstance(known, TensorType) else None
    if shape is None or not -len(shape) <= axis < len(shape):
        return None
    size = shape[axis]
    if not isinstance(size, int) or (given is None and not maker.attributes.get("keepdims", 1)):
        return None
    part = 1 if given is None else int(np.asarray(given))
    return [min(part, size - begin) for begin in range(0, size, part)] if part > 0 else None


def _split(graph: Graph, maker: Node, sizes: list[int], producers: Mapping[str, Node]) -> tuple[Node | None, list[str]]:
    """A Split, and its outputs; None and these where an earlier round has made it."""
    sequence = maker.outputs[0]
    items = [f"{sequence}/{number}" for number in range(len(sizes))]
    if items and items[0] in producers:
        return None, items
    name = f"{sequence}/sizes"
    graph.initializers[name] = np.array(sizes, np.int64)
    attributes = {"axis": maker.attributes.get("axis", 0)}
    return Node("Split", "", [maker.inputs[0], name], items, attributes, maker.name, _OPSET), items


def _reads(graph: Graph, node: Node, items: list[str], constants: Mapping[str, Initializer]) -> bool:
    """Make a node read items. False where it has to read the sequence."""
    if node.op_type == "ConcatFromSequence":
        if node.attributes.get("new_axis", 0):
            return False
        node.op_type, node.inputs, node.attributes = "Concat", items, {"axis": node.attributes["axis"]}
        node.opset = _OPSET
        return True
    if node.op_type == "SequenceLength":
        source = f"{node.outputs[0]}/count"
        graph.initializers[source] = np.array(len(items), np.int64)
    else:
        position = constants.get(node.inputs[1])
        place = int(position.item()) if isinstance(position, np.ndarray) and position.size == 1 else len(items)
        if not -len(items) <= place < len(items):
            return False
        source = items[place]
    node.op_type, node.inputs, node.attributes, node.opset = "Identity", [source], {}, _OPSET
    return True


__all__ = ["read_items"]
