"""Nodes that change nothing, nodes that nobody needs, and nodes that say the same twice."""

from __future__ import annotations

from typing import Any

import numpy as np

from distort.graph.annotations import place
from distort.graph.ir import Graph, Node
from distort.graph.operators import operator

from .context import Context, rename_reads, resolve
from .noops import hands_on

#: two of them are never the same
_IMPURE = frozenset(
    ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial", "Dropout")
)


def remove_dead(graph: Graph, context: Context) -> int:
    """Drop nodes and initializers that no output depends on."""
    needed = {name for name in graph.outputs if name}
    kept: list[Node] = []
    for node in reversed(graph.nodes):
        if any(output in needed for output in node.outputs):
            _drop_unread(node, needed)
            needed.update(node.reads())
            kept.append(node)
    n_removed = len(graph.nodes) - len(kept)
    graph.nodes = kept[::-1]
    for name in [n for n in graph.initializers if n not in needed and n not in graph.defaults]:
        del graph.initializers[name]
    return n_removed


def _drop_unread(node: Node, needed: set[str]) -> None:
    """Optional outputs that nobody reads need not be made; others must have a name."""
    if len(node.outputs) == 1 or all(output in needed for output in node.outputs):
        return
    schema = operator(node.domain, node.op_type, node.opset)
    if schema is None or not schema.outputs:
        return
    for position, output in enumerate(node.outputs):
        formal = schema.output_at(position)
        if output not in needed and not formal.single and not formal.variadic:
            node.outputs[position] = ""
    while not node.outputs[-1]:
        node.outputs.pop()


def remove_identities(graph: Graph, context: Context) -> int:
    """Let readers of a node that hands its input on read the input."""
    outputs = set(graph.outputs)
    producers = {name: node for node in graph.nodes for name in node.outputs if name}
    names: dict[str, str] = {}
    dropped: set[int] = set()
    captured = {name for node in graph.nodes for name in node.captured()}
    constants = context.constants(graph)
    for node in graph.nodes:
        if any(node.outputs[1:]) or not hands_on(node, context.types, constants):
            continue
        source, target = node.inputs[0], node.outputs[0]
        while source in names:
            source = names[source]
        if target not in outputs:
            names[target] = source
            dropped.add(id(node))
        elif source in producers and source not in outputs and source not in captured:
            # the output's name moves to the node that makes the value
            producer = producers[source]
            if id(producer) in dropped or _reads_in_bodies(producer, source):
                continue
            producer.outputs = [target if name == source else name for name in producer.outputs]
            names[source] = target
            producers[target] = producer
            outputs.add(target)
            dropped.add(id(node))
    if dropped:
        graph.nodes = [node for node in graph.nodes if id(node) not in dropped]
        rename_reads(graph, resolve(names))
    return len(dropped)


def _reads_in_bodies(node: Node, name: str) -> bool:
    return any(name in body.outputs for body in node.subgraphs())


def remove_duplicates(graph: Graph, context: Context) -> int:
    """Common subexpressions: a node that repeats another's operator, attributes and inputs goes."""
    outputs = set(graph.outputs)
    first: dict[Any, Node] = {}
    names: dict[str, str] = {}
    kept: list[Node] = []
    for node in graph.nodes:
        inputs = tuple(names.get(name, name) for name in node.inputs)
        key = None if node.op_type in _IMPURE else _key(node, inputs)
        known = first.get(key) if key is not None else None
        if known is None or any(name in outputs for name in node.outputs) or not _covers(known, node):
            if key is not None:
                first.setdefault(key, node)
            kept.append(node)
            continue
        names.update((old, new) for old, new in zip(node.outputs, known.outputs, strict=False) if old)
    n_removed = len(graph.nodes) - len(kept)
    if n_removed:
        graph.nodes = kept
        rename_reads(graph, resolve(names))
    return n_removed


def _covers(known: Node, node: Node) -> bool:
    return len(known.outputs) == len(node.outputs) and all(
        new or not old for old, new in zip(node.outputs, known.outputs, strict=True)
    )


def _key(node: Node, inputs: tuple[str, ...]) -> Any | None:
    attributes = []
    for name in sorted(node.attributes):
        value = node.attributes[name]
        if isinstance(value, np.ndarray):
            if value.nbytes > 256 or value.dtype == object:
                return None
            value = (value.dtype.str, value.shape, value.tobytes())
        elif isinstance(value, list):
            if not all(isinstance(item, (int, float, str)) for item in value):
                return None
            value = tuple(value)
        elif not isinstance(value, (int, float, str)):
            return None
        # repr tells 0.0 from -0.0 and 1 from 1.0
        attributes.append((name, repr(value)))
    # what a model puts in two places stays two nodes
    where = tuple(place(node).items())
    return (node.domain, node.op_type, node.opset, node.overload, inputs, tuple(attributes), where)
