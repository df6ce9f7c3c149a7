"""Chains of element-wise nodes that work on one value and on numbers: they become one operation, whatever its shape.

A learned scale, a hard swish or a GELU that is written out are several nodes. That they fuse to one map of the value
that they begin with does not depend on shapes: it is found out by the first plan, and later ones add that map at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from distort.graph.ir import Graph, Node
from distort.kernels.compiler import layout
from distort.kernels.compiler.constants import Constants
from distort.kernels.compiler.depths import RANK
from distort.kernels.compiler.expression import Expression
from distort.kernels.compiler.fuse import fuse
from distort.kernels.compiler.ir import Map, Operation, Tensor

if TYPE_CHECKING:
    from distort.kernels.compiler.builder import Builder

#: operators whose lowerings make maps of their operands, in blocks too
_OPERATORS = frozenset(
    ["Add", "Sub", "Mul", "Div", "Pow", "Clip", "Relu", "LeakyRelu", "Elu", "HardSigmoid", "Gelu", "Neg", "Abs"]
    + ["Sigmoid", "HardSwish", "Tanh", "Erf", "Exp", "Log", "Sqrt", "Reciprocal", "Softplus", "Mish"]
)
_MOST_NODES = 12


@dataclass(slots=True, eq=False)
class Chain:
    """``nodes`` in their order, of which only the last one's value is read by others; ``head`` is what they work on."""

    head: str
    nodes: list[Node]
    #: by what is known of the head: the map's expression and names; None where it isn't one map
    known: dict[Any, tuple[Expression, list[str]] | None] = field(default_factory=dict)


def chains_of(graph: Graph, inputs: Sequence[str], outputs: Sequence[str], constants: Constants) -> dict[int, Chain]:
    """The chains among a graph's nodes, by ``id`` of each of these. ``outputs`` are read from outside."""
    readers: dict[str, int] = dict.fromkeys(outputs, 2)
    for node in graph.nodes:
        for name in {*node.inputs, *node.captured()}:
            readers[name] = readers.get(name, 0) + 1
    fixed = {
        name: value
        for name, value in graph.initializers.items()
        if name not in inputs and isinstance(value, np.ndarray) and value.size == 1 and value.dtype == np.float32
    }
    place = {id(node): number for number, node in enumerate(graph.nodes)}
    made: dict[str, Chain] = {}  # by the value that a chain makes
    for node in graph.nodes:
        if node.op_type not in _OPERATORS or node.domain or len(node.outputs) != 1:
            continue
        form = constants.form(node)
        numbers = fixed.keys() | {name for name, tensor in form.constants if tensor.size == 1}
        read = {name for name in form.node.inputs if name and name not in numbers}
        before = [made[name] for name in read if name in made and readers[name] == 1]
        heads = {made[name].head if name in made and readers[name] == 1 else name for name in read}
        nodes = sorted([*[n for chain in before for n in chain.nodes], node], key=lambda n: place[id(n)])
        if len(heads) != 1:
            continue
        if len(nodes) > _MOST_NODES:
            if len(read) != 1:
                continue
            heads, before, nodes = read, [], [node]
        for name in read:
            if made.get(name) in before:
                del made[name]
        made[node.outputs[0]] = Chain(heads.pop(), nodes)
    return {id(node): chain for chain in made.values() if len(chain.nodes) > 1 for node in chain.nodes}


class Chaining:
    """What becomes of chains, of which ``chains`` has those of nodes, in one plan."""

    def __init__(self, chains: dict[int, Chain]) -> None:
        self._chains = chains
        self._begun: dict[Chain, _Begun] = {}

    def lower(self, b: Builder, node: Node) -> bool:
        """Add what a node does where it is one of a chain, or leave it to the last one. False where it is in none."""
        chain = self._chains.get(id(node))
        if chain is None:
            return False
        begun = self._begun.get(chain)
        if begun is None:
            begun = self._begun[chain] = _Begun(b.find(chain.head))
        known = chain.known.get(begun.key)
        if known is not None:
            if node is chain.nodes[-1] and begun.head is not None:
                _add_map(b, node.outputs[0], begun.head, *known)
            return True
        first = len(b.operations)
        b.lower_alone(node)
        if begun.key is not None and begun.key not in chain.known:
            begun.operations += b.operations[first:]
            if node is chain.nodes[-1]:
                chain.known[begun.key] = _one_map(b, begun, b.find(node.outputs[0]))
        return True


class _Begun:
    """A chain some of whose nodes are lowered, and the operations that these became."""

    def __init__(self, head: Tensor | None) -> None:
        self.head = head
        self.operations: list[Operation] = []
        self.key: Any = None  # of what the map depends on
        if head is not None and head.value is None and len(head.shape) < RANK:
            self.key = (head.dtype, len(head.shape), head.block and (head.block, head.shape[1] % head.block))


def _add_map(b: Builder, name: str, head: Tensor, expression: Expression, names: list[str]) -> None:
    inner = layout.memory(head) if head.block else head
    result = b.new(head.dtype, inner.shape)
    b.add(Map([inner.broadcast(inner.shape)], [result], expression, names=list(names)))
    b.define(name, layout.of_work(result, head.shape) if head.block else result)


def _one_map(b: Builder, begun: _Begun, result: Tensor | None) -> tuple[Expression, list[str]] | None:
    """What the operations fuse to; None where that isn't one map of the head to a result that lies as that does."""
    fused, head = fuse(begun.operations, b.target), begun.head
    if len(fused) != 1 or head is None or result is None:
        return None
    (operation,) = fused
    alike = (result.shape, result.dtype, result.block) == (head.shape, head.dtype, head.block)
    if not isinstance(operation, Map) or not alike or len(operation.inputs) != 1:
        return None
    (read,), (written,) = operation.inputs, operation.outputs
    if read.buffer is not head.buffer or written.buffer is not result.buffer:
        return None
    return operation.expression, operation.names


__all__ = ["Chain", "Chaining", "chains_of"]
