"""From a graph and the shapes of a run to a plan: operations placed in an arena, kernels named, steps in order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from distort.graph.ir import Graph
from distort.kernels.compiler import arena, flow
from distort.kernels.compiler.builder import Builder
from distort.kernels.compiler.chains import chains_of
from distort.kernels.compiler.codegen.target import Target
from distort.kernels.compiler.constants import Constants
from distort.kernels.compiler.expression import name_of
from distort.kernels.compiler.fuse import fuse
from distort.kernels.compiler.ir import (
    Address,
    Array,
    Buffer,
    Call,
    Host,
    Jump,
    Mark,
    Operation,
    Place,
    Scratch,
    Tensor,
)
from distort.kernels.compiler.repeats import Repeats
from distort.kernels.registry import has_custom

#: of an array: NumPy's limit
_MOST_DIMENSIONS = 64
#: a step that takes one thread less than this is not shared
LEAST_SHARED_NS = 8000.0

#: a thread's share is done in up to so many parts, none shorter than this
MOST_CHUNKS, LEAST_CHUNK_NS = 4, 20000.0

#: of a feed: its dtype and shape; None: no tensor
FeedType = tuple[np.dtype[Any], tuple[int, ...]] | None


@dataclass(slots=True)
class Step:
    """One call of a kernel, or (``host``) of a NumPy kernel."""

    call: Call | None = None
    host: Host | None = None
    n_threads: int = 1
    n_chunks: int = 1  # parts of each thread's share
    scratch: Buffer | None = None
    operation: Operation | None = None


@dataclass(slots=True)
class Result:
    """What becomes of a graph output: a tensor made for the caller, a known value, or a value by name."""

    tensor: Tensor | None = None
    value: Array | None = None
    name: str = ""


@dataclass(slots=True)
class Plan:
    steps: list[Step]
    results: list[Result]
    arena_nbytes: int
    operations: list[Operation]
    #: names of values whose shapes are not known before they are made
    unknown: list[str] = field(default_factory=list)
    #: whether a run may be refused because something likely was taken for certain
    guessed: bool = False
    #: whether it may be because a shape was taken for that of earlier runs
    expects: bool = False


#: kinds of dtypes that text is fed as
_TEXT = "OUT"


def specialise(
    graph: Graph,
    outputs: Sequence[str],
    inputs: Sequence[str],
    feeds: Sequence[FeedType],
    target: Target,
    n_threads: int,
    constants: Constants,
    learned: Mapping[str, tuple[np.dtype[Any], tuple[int, ...]]],
    precision: str = "float32",
    cautious: bool = False,
    steady: bool = True,
    varied: bool = False,
    keep_qdq: bool = False,
) -> Plan:
    chains = constants.once("chains", lambda: chains_of(graph, inputs, outputs, constants))
    builder = Builder(
        graph,
        target,
        n_threads,
        constants,
        learned,
        precision,
        cautious,
        steady,
        varied,
        None if has_custom() else chains,
        keep_qdq,
    )
    operations, results = lowered(builder, outputs, inputs, feeds)
    operations = late(_with_attention(fuse(operations, target)))
    steps: list[Step] = []
    marks: dict[Operation, int] = {}
    repeats = constants.once("repeats", lambda: Repeats(target, n_threads))
    repeats.trim()
    for operation in operations:
        if isinstance(operation, Mark):
            marks[operation] = len(steps)
        else:
            steps += _steps(operation, repeats, n_threads)
    flow.set_distances(steps, marks)
    arena_nbytes = arena.place(flow.over_loops(lifetimes(steps), steps))
    return Plan(steps, results, arena_nbytes, operations, unknown_of(operations), builder.guessed, builder.expects)


def unknown_of(operations: Sequence[Operation]) -> list[str]:
    """Names of values whose shapes nobody knows before they are made."""
    hosts = [operation for operation in operations if isinstance(operation, Host)]
    return [result for host in hosts for result in host.results if isinstance(result, str) and result]


def lowered(
    builder: Builder, outputs: Sequence[str], inputs: Sequence[str], feeds: Sequence[FeedType]
) -> tuple[list[Operation], list[Result]]:
    """The operations of the builder's graph, one after another, and what becomes of its outputs."""
    graph = builder.graph
    for number, (name, feed) in enumerate(zip(inputs, feeds, strict=True)):
        if feed is None or name_of(feed[0]) not in builder.dtypes:
            if name in graph.initializers and feed is None:
                continue  # its default
            builder.unknown(name, feed[1] if feed is not None and feed[0].kind in _TEXT else None)
        else:
            builder.feed(name, feed[0], feed[1], number)
    for node in graph.nodes:
        builder.lower(node)
    results = _results(builder, outputs)
    return builder.operations, results


def _with_attention(operations: list[Operation]) -> list[Operation]:
    if not {"product", "rows"} <= {operation.kind for operation in operations}:
        return operations
    from distort.kernels.compiler.attending import attend  # few models have both, or its kernels

    return attend(operations)


def _results(builder: Builder, outputs: Sequence[str]) -> list[Result]:
    results = []
    taken: set[Buffer] = set()
    for number, name in enumerate(outputs):
        tensor = builder.find(name)
        if tensor is None:
            results.append(Result(name=builder.aliases.get(name, name)))
            continue
        if tensor.value is not None:
            results.append(Result(value=tensor.value))
            continue
        tensor = builder.plain(tensor)
        if len(tensor.shape) > _MOST_DIMENSIONS:
            raise ValueError(f"{name} has {len(tensor.shape)} dimensions, more than an array may have")
        fresh = tensor.buffer.place is Place.ARENA and tensor.buffer not in taken
        if not (fresh and tensor.whole):
            made = builder.new(tensor.dtype, tensor.shape)
            builder.copy(tensor, made)
            tensor = made
        taken.add(tensor.buffer)
        tensor.buffer.place, tensor.buffer.number = Place.RESULT, number
        results.append(Result(tensor=tensor))
    return results


def late(operations: Sequence[Operation]) -> list[Operation]:
    """In an order in which NumPy kernels whose results no compiled step reads come after those: fewer segments."""
    made: list[Operation] = []
    waiting: list[Host] = []
    for operation in operations:
        if isinstance(operation, Host) and not operation.outputs and operation.region == 0:
            waiting.append(operation)
            continue
        written = {tensor.buffer for tensor in operation.outputs}
        in_step = operation.kind in ("mark", "jump", "host") or any(
            tensor.buffer in written for host in waiting for tensor in host.inputs
        )
        if in_step:
            made += waiting
            waiting.clear()
        made.append(operation)
    return [*made, *waiting]


def _steps(operation: Operation, repeats: Repeats, n_threads: int) -> list[Step]:
    if isinstance(operation, Host):
        return [Step(host=operation, operation=operation)]
    if isinstance(operation, Jump):
        return [Step(call=flow.jump_call(operation), n_threads=n_threads, operation=operation)]
    steps = []
    for call in repeats.calls(operation):
        wanted = 1 if call.work_ns < LEAST_SHARED_NS else min(n_threads, call.most_threads)
        scratch = Buffer(call.scratch_nbytes) if call.scratch_nbytes else None
        if scratch is not None:
            call.words = [Address(scratch) if type(word) is Scratch else word for word in call.words]
        chunks = 1 if call.meets or wanted == 1 else _chunks(call, wanted)
        steps.append(Step(call=call, n_threads=wanted, n_chunks=chunks, scratch=scratch, operation=operation))
    return steps


def _chunks(call: Call, n_threads: int) -> int:
    """In how many parts a thread's share is done: as many as are worth their beginning."""
    return max(1, min(MOST_CHUNKS, int(call.work_ns / n_threads / LEAST_CHUNK_NS), call.most_threads // n_threads))


class _Placed(Protocol):
    """A step, as far as memory goes."""

    @property
    def operation(self) -> Operation | None: ...

    @property
    def scratch(self) -> Buffer | None: ...


def _buffers(step: _Placed) -> tuple[list[Buffer], list[Buffer]]:
    """What a step reads, and what it writes."""
    operation = step.operation
    assert operation is not None
    writes = [t.buffer for t in operation.outputs]
    if step.scratch is not None:
        writes.append(step.scratch)
    return [t.buffer for t in operation.inputs], writes


def lifetimes(steps: Sequence[_Placed]) -> list[tuple[Buffer, int, int]]:
    """Of the arena's buffers: the first and the last steps that touch them."""
    first: dict[Buffer, int] = {}
    last: dict[Buffer, int] = {}
    for position, step in enumerate(steps):
        for buffers in _buffers(step):
            for buffer in buffers:
                if buffer.place is Place.ARENA:
                    first.setdefault(buffer, position)
                    last[buffer] = position
    return [(buffer, first[buffer], last[buffer]) for buffer in first]
