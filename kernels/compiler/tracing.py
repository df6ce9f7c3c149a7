"""What an observed run of compiled steps tells: an event for each operation, with the nodes that it stands for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from distort.graph.ir import Graph, Node
from distort.kernels.compiler.ir import Array, Operation, Tensor
from distort.kernels.program import StepObserver

#: columns of a trace, see ``codegen/drive.py``
BEGAN, TICKS, COUNT, ENDED = range(4)


@dataclass(slots=True, eq=False)
class Compiled(Node):
    """What an operation stands for: of several nodes, it has all operators and the last one's name.

    A node may be part of several operations, as of one that lays out its operand and the one that is done with it.
    """

    parts: tuple[Node, ...] = ()


def node_of(operation: Operation, nodes: Mapping[str, Node]) -> Compiled:
    parts = tuple(nodes[name] for name in dict.fromkeys(operation.names) if name in nodes)
    types = "+".join(dict.fromkeys(node.op_type for node in parts)) or type(operation).__name__
    last = parts[-1] if parts else Node("", "", [], [])
    inputs = last.inputs if len(parts) == 1 else [""] * len(operation.inputs)
    return Compiled(types, last.domain, inputs, last.outputs, name=last.name, parts=parts)


def nodes_of(graph: Graph) -> dict[str, Node]:
    """Nodes by how errors and operations name them, those of bodies too."""
    return {node.label(): node for node in _inside_out(graph)}


def _inside_out(graph: Graph) -> Iterator[Node]:
    """Those of the graph itself last."""
    for node in graph.nodes:
        for body in node.subgraphs():
            yield from _inside_out(body)
    yield from graph.nodes


def tell(
    observer: StepObserver,
    operations: Sequence[Operation],
    trace: Array,
    begin_ns: int,
    end_ns: int,
    nodes: Mapping[str, Node],
    find: Callable[[Tensor], Any],
) -> None:
    """Call the observer for what ran between two moments. ``trace`` has a row for each native step.

    ``operations`` are the steps', in order. Ticks are scaled so that the segment's are the time that it took.
    """
    ran = trace[:, COUNT] > 0
    if not ran.any():
        return
    first, last = int(trace[ran, BEGAN].min()), int(trace[ran, ENDED].max())
    scale = (end_ns - begin_ns) / max(1, last - first)
    totals: dict[Operation, list[int]] = {}
    for operation, row in zip(operations, trace, strict=True):
        if not row[COUNT]:
            continue
        entry = totals.setdefault(operation, [int(row[BEGAN]), 0])
        entry[0] = min(entry[0], int(row[BEGAN]))
        entry[1] += int(row[TICKS])
    for operation, (began, ticks) in totals.items():
        start = begin_ns + int((began - first) * scale)
        ins, outs = ([find(t) for t in tensors] for tensors in (operation.inputs, operation.outputs))
        observer(node_of(operation, nodes), start, start + max(1, int(ticks * scale)), ins, outs)
