"""If of a condition that no run changes: the branch that it takes, put in its place."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from distort.graph.annotations import inherited
from distort.graph.ir import Graph, Node

from .context import Context, rename_reads


def inline_branches(graph: Graph, context: Context) -> int:
    """Nodes and initializers of the taken branch move out, under names that nobody else has."""
    if not any(node.op_type == "If" for node in graph.nodes):
        return 0
    constants = context.constants(graph)
    taken: set[str] | None = None
    nodes: list[Node] = []
    n_inlined = 0
    for node in graph.nodes:
        condition = constants.get(node.inputs[0]) if node.op_type == "If" and not node.domain else None
        if not isinstance(condition, np.ndarray) or condition.size != 1:
            nodes.append(node)
            continue
        if taken is None:
            taken = {*context.outer, *_names(graph)}
        branch = node.attributes["then_branch" if condition.item() else "else_branch"]
        nodes.extend(_moved_out(node, branch, graph, taken))
        n_inlined += 1
    graph.nodes = nodes
    return n_inlined


def _moved_out(node: Node, branch: Graph, graph: Graph, taken: set[str]) -> Iterator[Node]:
    made = {name for inner in branch.nodes for name in inner.outputs if name}
    names: dict[str, str] = {}
    for formal, actual in zip(branch.outputs, node.outputs, strict=False):
        if actual and formal in made and formal not in names:
            names[formal] = actual
    for name in (*branch.initializers, *made):
        if name not in names:
            fresh = f"{node.label()}/{name}"
            while fresh in taken:
                fresh += "_"
            taken.add(fresh)
            names[name] = fresh
    for name, value in branch.initializers.items():
        graph.initializers[names[name]] = value
    inner = Graph(nodes=[replace(item, inputs=list(item.inputs)) for item in branch.nodes])
    rename_reads(inner, names)
    for item in inner.nodes:
        item.outputs = [names.get(name, name) for name in item.outputs]
        item.name = f"{node.label()}/{item.name}" if item.name else ""
        item.device_configurations = inherited(node, item)
        yield item
    for formal, actual in zip(branch.outputs, node.outputs, strict=False):
        source = names.get(formal, formal)
        if actual and source != actual:  # captured, an initializer, or an output listed twice
            handed = Node("Identity", "", [source], [actual], opset=node.opset)
            handed.device_configurations = inherited(node, handed)
            yield handed


def _names(graph: Graph) -> Iterator[str]:
    yield from graph.inputs
    yield from graph.initializers
    for node in graph.nodes:
        yield from node.outputs
        for body in node.subgraphs():
            yield from _names(body)


__all__ = ["inline_branches"]
