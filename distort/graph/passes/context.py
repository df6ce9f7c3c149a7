"""What passes share: what is constant, who reads a value, and renaming."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from distort.graph.ir import Graph, Initializer, Node
from distort.graph.types import ValueType

#: (node, inputs) -> outputs, or None where the node can't be evaluated here
Evaluate = Callable[[Node, Sequence[Any]], "tuple[Any, ...] | None"]


@dataclass(slots=True)
class Context:
    evaluate: Evaluate
    #: constants of the graphs around a body
    outer: dict[str, Initializer] = field(default_factory=dict)
    #: types that inference proved; empty inside bodies
    types: Mapping[str, ValueType] = field(default_factory=dict)
    changes: dict[str, int] = field(default_factory=dict)
    #: nodes of constants that can't be evaluated, or whose result is too large to keep, by id
    refused: dict[int, Node] = field(default_factory=dict)
    #: the largest result of folding; None: in proportion to what it is made of
    fold_nbytes: int | None = None

    def count(self, what: str, n: int) -> int:
        if n:
            self.changes[what] = self.changes.get(what, 0) + n
        return n

    def constants(self, graph: Graph) -> dict[str, Initializer]:
        """Values that no run changes: a default of an input is not one."""
        hidden = set(graph.inputs)
        found = {name: value for name, value in self.outer.items() if name not in hidden}
        found.update((name, value) for name, value in graph.initializers.items() if name not in hidden)
        return found


def rename_reads(graph: Graph, names: Mapping[str, str]) -> None:
    """Make every reader of a name, in bodies too, read another instead. Graph outputs keep their names."""
    for node in graph.nodes:
        if any(name in names for name in node.inputs):
            node.inputs = [names.get(name, name) for name in node.inputs]
        for body in node.subgraphs():
            defined = {*body.inputs, *body.initializers, *(o for n in body.nodes for o in n.outputs)}
            visible = {old: new for old, new in names.items() if old not in defined}
            if visible:
                rename_reads(body, visible)
                body.outputs = [visible.get(name, name) for name in body.outputs]


def resolve(names: dict[str, str]) -> dict[str, str]:
    """Follow chains of renamings to their ends."""
    resolved = {}
    for old in names:
        new = names[old]
        while new in names:
            new = names[new]
        resolved[old] = new
    return resolved
