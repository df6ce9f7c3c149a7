"""What an observed run of compiled steps tells: an event for each operation, with the nodes that it stands for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from distort.graph.ir import Node
from distort.kernels.compiler.ir import Array, Operation, Tensor
from distort.kernels.program import StepObserver

#: columns of a trace, see ``codegen/drive.py``
BEGAN, TICKS, COUNT, ENDED = range(4)


def node_of(operation: Operation, nodes: Mapping[str, Node]) -> Node:
    """The node that an operation stands for; for several, one with their operators' names, and the last one's name."""
    known = [nodes[name] for name in dict.fromkeys(operation.names) if name in nodes]
    if len(known) == 1:
        return known[0]
    types = "+".join(dict.fromkeys(node.op_type for node in known)) or type(operation).__name__
    last = known[-1] if known else Node("", "", [], [])
    return Node(types, last.domain, [""] * len(operation.inputs), last.outputs, name=last.name)


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
