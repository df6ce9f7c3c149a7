"""The graph beneath everything: names, nodes, types, initializers. Plain data, cheap to pickle.

A value is its name. ``Graph`` keeps what is known of it (type, initializer) and indexes who makes it and who
reads it. A subgraph (the body of If, Loop, Scan) is a ``Graph`` in an attribute; names that it reads and does
not define are captured from the graph around it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .types import ValueType

#: int, float, str, bytes, array (tensor), Graph, ValueType, SparseInitializer, or a list of one of them.
AttributeValue = Any


@dataclass(slots=True, eq=False)
class SparseInitializer:
    """A sparse tensor as ONNX stores it: ``values`` [NNZ], ``indices`` [NNZ] or [NNZ, rank], dense ``dims``."""

    values: np.ndarray[Any, Any]
    indices: np.ndarray[Any, Any]
    dims: tuple[int, ...]

    def dense(self) -> np.ndarray[Any, Any]:
        """As an array of ``dims``, with zeros where there are no values."""
        result = np.zeros(self.dims, dtype=self.values.dtype)
        if self.indices.ndim == 2:
            result[tuple(self.indices.T)] = self.values
        else:
            result.reshape(-1)[self.indices] = self.values
        return result


Initializer = np.ndarray[Any, Any] | SparseInitializer


@dataclass(slots=True, eq=False)
class Node:
    op_type: str
    domain: str  # "" is ai.onnx
    inputs: list[str]  # "" is an absent optional input
    outputs: list[str]  # "" is an output that nobody wants
    attributes: dict[str, AttributeValue] = field(default_factory=dict)
    name: str = ""
    #: opset version of the node's domain in the model (or function) that it came from
    opset: int = 0
    overload: str = ""
    #: ``NodeProto.device_configurations`` (IR 11), as serialized protos; annotations.py reads and writes them
    device_configurations: tuple[bytes, ...] = ()
    #: metadata_props carried through
    metadata: dict[str, str] = field(default_factory=dict)

    def subgraphs(self) -> Iterator[Graph]:
        for value in self.attributes.values():
            if type(value) is Graph:
                yield value
            elif type(value) is list and value and type(value[0]) is Graph:  # items of a list are of one kind
                yield from value

    def captured(self) -> list[str]:
        """Names that the node's subgraphs read from the graphs around them, each once, in order."""
        # asked of each node by each pass, and hardly any has one
        for value in self.attributes.values():
            kind = type(value)
            if kind is Graph or (kind is list and value and type(value[0]) is Graph):
                break
        else:
            return []
        subgraphs = [*self.subgraphs()]
        if len(subgraphs) == 1:
            return subgraphs[0].captures()
        return list(dict.fromkeys(name for subgraph in subgraphs for name in subgraph.captures()))

    def reads(self) -> list[str]:
        """Every value that the node needs: inputs that are present, then what its subgraphs capture."""
        names = dict.fromkeys(self.inputs)
        names.pop("", None)
        captured = self.captured()
        if captured:
            names.update(dict.fromkeys(captured))
        return list(names)

    def label(self) -> str:
        """How errors name the node."""
        return self.name or f"{self.op_type} -> {next((o for o in self.outputs if o), '')}"


@dataclass(slots=True, eq=False)
class Graph:
    name: str = ""
    inputs: list[str] = field(default_factory=list)  # feeds; initializers that are no feed are not listed
    outputs: list[str] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)  # in topological order
    initializers: dict[str, Initializer] = field(default_factory=dict)
    #: what is known of a value: declared, or inferred
    types: dict[str, ValueType] = field(default_factory=dict)
    #: inputs of ``inputs`` that have an initializer as their default (overridable initializers)
    defaults: list[str] = field(default_factory=list)
    doc: str = ""

    def captures(self) -> list[str]:
        """Names read here, or by subgraphs inside, that are defined outside."""
        defined = set(self.inputs) | set(self.initializers)
        missing: dict[str, None] = {}
        for node in self.nodes:
            for names in (node.inputs, node.captured()):
                for name in names:
                    if name and name not in defined:
                        missing[name] = None
            defined.update(node.outputs)
        for name in self.outputs:
            if name and name not in defined:
                missing[name] = None
        return list(missing)

    def producers(self) -> dict[str, int]:
        """Value name -> index of the node that makes it."""
        return {name: i for i, node in enumerate(self.nodes) for name in node.outputs if name}

    def consumers(self) -> dict[str, list[int]]:
        """Value name -> indices of the nodes that read it, captures included."""
        readers: dict[str, list[int]] = {}
        for i, node in enumerate(self.nodes):
            for name in node.reads():
                readers.setdefault(name, []).append(i)
        return readers

    def needed(self, values: Iterable[str]) -> list[int]:
        """Indices of the nodes that values depend on, in order."""
        producers = self.producers()
        found: set[int] = set()
        waiting = [producers[value] for value in values if value in producers]
        while waiting:
            index = waiting.pop()
            if index not in found:
                found.add(index)
                waiting += [producers[value] for value in self.nodes[index].reads() if value in producers]
        return sorted(found)

    def extract(self, indices: Iterable[int], name: str = "") -> Graph:
        """The part made of the nodes at ``indices`` (kept in order).

        Its inputs are the values that it reads and others make (feeds too); its outputs those that others or the
        graph's outputs read; it holds just the initializers that it reads. A graph output that is a feed or an
        initializer belongs to no part.
        """
        wanted = sorted(set(indices))
        nodes = [self.nodes[i] for i in wanted]
        made = {value for node in nodes for value in node.outputs if value}
        inside = set(wanted)
        reads: dict[str, None] = {}
        for node in nodes:
            reads.update(dict.fromkeys(node.reads()))
        consumers = self.consumers()
        results = set(self.outputs)
        outputs = [
            value
            for node in nodes
            for value in node.outputs
            if value and (value in results or any(i not in inside for i in consumers.get(value, ())))
        ]
        initializers = {v: self.initializers[v] for v in reads if v in self.initializers and v not in self.defaults}
        inputs = [v for v in reads if v not in made and v not in initializers]
        known = made.union(reads)
        types = {value: self.types[value] for value in known if value in self.types}
        return Graph(name or self.name, inputs, outputs, nodes, initializers, types)


@dataclass(slots=True, eq=False)
class Function:
    """A model-local function: its body, its formal names, attribute names and defaults."""

    name: str
    domain: str
    inputs: list[str]
    outputs: list[str]
    attributes: list[str]
    attribute_defaults: dict[str, AttributeValue]
    nodes: list[Node]
    opsets: dict[str, int]
    overload: str = ""


@dataclass(slots=True, eq=False)
class Model:
    graph: Graph
    opsets: dict[str, int]
    ir_version: int = 0
    producer_name: str = ""
    producer_version: str = ""
    domain: str = ""
    version: int = 0
    doc: str = ""
    metadata: dict[str, str] = field(default_factory=dict)
    functions: dict[tuple[str, str, str], Function] = field(default_factory=dict)
    #: ``ModelProto.configuration`` (IR 11), as serialized protos
    configurations: tuple[bytes, ...] = ()
    path: str | None = None
