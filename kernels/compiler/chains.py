"""Chains of element-wise nodes that work on one value and on weights: they become one operation, whatever its shape.

A bias, a learned scale, a hard swish or a GELU that is written out are one or more nodes. That they fuse to one map of
the value that they begin with does not depend on its sizes, but for those that weights have too: it is found out by the
first plan, and later ones add that map at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from distort.graph.ir import Graph, Node
from distort.kernels.compiler import layout
from distort.kernels.compiler.constants import Constants
from distort.kernels.compiler.depths import RANK
from distort.kernels.compiler.expression import Expression
from distort.kernels.compiler.fuse import fuse
from distort.kernels.compiler.ir import Map, Operation, Place, Tensor

if TYPE_CHECKING:
    from distort.kernels.compiler.builder import Builder

#: operators whose lowerings make maps of their operands, in blocks too
_OPERATORS = frozenset(
    [
        "Add",
        "Sub",
        "Mul",
        "Div",
        "Pow",
        "Clip",
        "Relu",
        "LeakyRelu",
        "Elu",
        "HardSigmoid",
        "Gelu",
        "Neg",
        "Abs",
        "Sigmoid",
        "HardSwish",
        "Tanh",
        "Erf",
        "Exp",
        "Log",
        "Sqrt",
        "Reciprocal",
        "Softplus",
        "Mish",
    ]
)
_MOST_NODES = 12
#: kinds of heads that a chain is known for
_MOST_KNOWN = 16


class _Known(NamedTuple):
    """What is the same in maps of the head: their operands, of which that itself is None, expression and names."""

    operands: list[Tensor | None]
    expression: Expression
    names: list[str]


@dataclass(slots=True, eq=False)
class Chain:
    """``nodes`` in their order, of which only the last one's value is read by others; ``head`` is what they work on."""

    head: str
    nodes: list[Node]
    #: axes of the head, from its last one, along which weights have several elements
    axes: list[int]
    #: by what the map depends on; None where it isn't one map
    known: dict[Any, _Known | None] = field(default_factory=dict)


def chains_of(graph: Graph, inputs: Sequence[str], outputs: Sequence[str], constants: Constants) -> dict[int, Chain]:
    """The chains among a graph's nodes, by ``id`` of each of these. ``outputs`` are read from outside."""
    readers: dict[str, int] = dict.fromkeys(outputs, 2)
    for node in graph.nodes:
        for name in {*node.inputs, *node.captured()}:
            readers[name] = readers.get(name, 0) + 1
    shapes = {
        name: value.shape
        for name, value in graph.initializers.items()
        if name not in inputs and isinstance(value, np.ndarray) and value.dtype == np.float32
    }
    place = {id(node): number for number, node in enumerate(graph.nodes)}
    made: dict[str, Chain] = {}  # by the value that a chain makes
    for node in graph.nodes:
        if node.op_type not in _OPERATORS or node.domain or len(node.outputs) != 1:
            continue
        form = constants.form(node)
        own = {name: tensor.shape for name, tensor in form.constants}
        read = {name for name in form.node.inputs if name and name not in shapes and name not in own}
        weights = [own.get(name) or shapes.get(name, ()) for name in form.node.inputs]
        axes = {axis - len(shape) for shape in weights for axis, size in enumerate(shape) if size != 1}
        before = [made[name] for name in read if name in made and readers[name] == 1]
        heads = {made[name].head if name in made and readers[name] == 1 else name for name in read}
        nodes = sorted([*[n for chain in before for n in chain.nodes], node], key=lambda n: place[id(n)])
        if len(heads) != 1:
            continue
        if len(nodes) > _MOST_NODES:
            if len(read) != 1:
                continue
            heads, before, nodes = read, [], [node]
        axes.update(axis for chain in before for axis in chain.axes)
        for name in read:
            if made.get(name) in before:
                del made[name]
        made[node.outputs[0]] = Chain(heads.pop(), nodes, sorted(axes))
    return {id(node): chain for chain in made.values() for node in chain.nodes}


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
            begun = self._begun[chain] = _Begun(b.find(chain.head), chain.axes)
        known = chain.known.get(begun.key)
        if known is not None:
            if node is chain.nodes[-1] and begun.head is not None:
                _add_map(b, node, begun.head, known)
            return True
        first = len(b.operations)
        b.lower_alone(node)
        if begun.key is not None and begun.key not in chain.known and len(chain.known) < _MOST_KNOWN:
            begun.operations += b.operations[first:]
            if node is chain.nodes[-1]:
                chain.known[begun.key] = _one_map(b, begun, b.find(node.outputs[0]))
        return True


class _Begun:
    """A chain some of whose nodes are lowered, and the operations that these became."""

    def __init__(self, head: Tensor | None, axes: Sequence[int]) -> None:
        self.head = head
        self.operations: list[Operation] = []
        self.key: Any = None  # of what the map depends on
        if head is not None and head.value is None and len(head.shape) < RANK:
            rank, shape = len(head.shape), head.shape
            sizes = tuple([shape[axis] if -axis <= rank else 0 for axis in axes])
            self.key = (head.dtype, rank, sizes, head.block and (head.block, shape[1] % head.block))


def _add_map(b: Builder, node: Node, head: Tensor, known: _Known) -> None:
    inner = layout.memory(head) if head.block else head
    shape = inner.shape
    result = b.new(head.dtype, shape)
    inputs = [
        inner.broadcast(shape) if t is None else Tensor(t.dtype, shape, t.strides, t.buffer, t.offset)
        for t in known.operands
    ]
    b.add(Map(inputs, [result], known.expression, names=list(known.names)))
    b.define(node, layout.of_work(result, head.shape) if head.block else result)


def _one_map(b: Builder, begun: _Begun, result: Tensor | None) -> _Known | None:
    """What the operations fuse to; None where that isn't one map of the head to a result that lies as that does."""
    fused, head = fuse(begun.operations, b.target), begun.head
    if len(fused) != 1 or head is None or result is None:
        return None
    (operation,) = fused
    alike = (result.shape, result.dtype, result.block) == (head.shape, head.dtype, head.block)
    if not isinstance(operation, Map) or not alike or operation.outputs[0].buffer is not result.buffer:
        return None
    operands = [None if t.buffer is head.buffer else t for t in operation.inputs]
    if operands.count(None) != 1 or any([t is not None and t.buffer.place is not Place.CONSTANT for t in operands]):
        return None
    return _Known(operands, operation.expression, operation.names)


__all__ = ["Chain", "Chaining", "chains_of"]
