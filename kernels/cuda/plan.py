"""From a graph and the shapes of a run to a plan for a GPU: steps in order, and where values lie in one slab."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from distort.graph.ir import Graph
from distort.kernels.compiler import arena
from distort.kernels.compiler.codegen.target import Target, of_features
from distort.kernels.compiler.constants import Constants
from distort.kernels.compiler.fuse import fuse
from distort.kernels.compiler.ir import Buffer, Host, Operation, Place
from distort.kernels.compiler.specialise import FeedType, Result, late, lifetimes, lowered, unknown_of
from distort.kernels.cuda.attending import attend
from distort.kernels.cuda.builder import CudaBuilder
from distort.kernels.cuda.codegen import launches
from distort.kernels.cuda.device_libraries import ALIGNMENT_NBYTES as WORD_NBYTES
from distort.kernels.cuda.launch import Launch
from distort.kernels.cuda.library_call import LibraryCall, Withdrawn, has_library_call, library_call_of
from distort.kernels.cuda.packed_weights import without_unread

#: what CUDA's own allocations are aligned to, and what libraries count on
ALIGNMENT_NBYTES = 256
#: kinds of operations whose kernels read or write several elements as one
_IN_WORDS = frozenset(["cuda_n_bits", "cuda_unpack", "cuda_scatter"])


@dataclass(slots=True)
class CudaStep:
    """What one operation is on a GPU: launches, a library's work, or (``host``) a body over CuPy or NumPy."""

    operation: Operation
    launches: list[Launch] = field(default_factory=list)
    library: LibraryCall | None = None
    host: Host | None = None
    scratch: Buffer | None = None  # a library's workspace


@dataclass(slots=True)
class CudaPlan:
    steps: list[CudaStep]
    results: list[Result]
    slab_nbytes: int
    #: by the number of each result that is made in the run: where it lies in the slab, unless it is given memory
    result_offsets: dict[int, int]
    #: likewise of the feeds, for those that come from the host
    feed_offsets: dict[int, int]
    #: numbers of feeds that kernels and libraries read; others are read by nodes' bodies alone
    gpu_feeds: frozenset[int]
    #: numbers of feeds that anything reads
    used_feeds: frozenset[int]
    #: what addresses of feeds, and of results, must be multiples of, by their numbers; others may be anywhere
    feed_alignments: dict[int, int]
    result_alignments: dict[int, int]
    unknown: list[str]
    guessed: bool
    expects: bool

    @property
    def is_capturable(self) -> bool:
        """Whether a run is nothing but work that is enqueued."""
        return all(step.host is None for step in self.steps) and not any(result.name for result in self.results)


def target_of(capability: tuple[int, int]) -> Target:
    """What lowerings are told of a GPU: none of a CPU's vectors and instructions."""
    major, minor = capability
    return of_features("nvptx64-nvidia-cuda", f"sm_{major}{minor}", {})


def plan_of(
    graph: Graph,
    outputs: Sequence[str],
    inputs: Sequence[str],
    feeds: Sequence[FeedType],
    context: Any,
    constants: Constants,
    learned: Mapping[str, tuple[np.dtype[Any], tuple[int, ...]]],
    cautious: bool = False,
    steady: bool = True,
    branches: Mapping[str, bool] | None = None,
) -> CudaPlan:
    """``context``: the device's libraries and options, for operations that libraries do. ``branches``: a builder's."""
    while True:
        try:
            return _planned(
                graph, outputs, inputs, feeds, context, constants, learned, cautious, steady, branches or {}
            )
        except Withdrawn:
            continue  # each time for other problems, of which there are no more than operations


def _planned(
    graph: Graph,
    outputs: Sequence[str],
    inputs: Sequence[str],
    feeds: Sequence[FeedType],
    context: Any,
    constants: Constants,
    learned: Mapping[str, tuple[np.dtype[Any], tuple[int, ...]]],
    cautious: bool,
    steady: bool,
    branches: Mapping[str, bool],
) -> CudaPlan:
    """As :func:`plan_of`. Raises Withdrawn."""
    target = target_of(context.capability)
    builder = CudaBuilder(graph, target, 1, constants, learned, cautious=cautious, steady=steady, keep_qdq=True)
    builder.use(context.libraries)
    builder.branches = branches
    operations, results = lowered(builder, outputs, inputs, feeds)
    steps = _steps(late(attend(fuse(without_unread(operations), target), context.libraries)), context)
    slab_nbytes = arena.place(lifetimes(steps), ALIGNMENT_NBYTES)
    feed_offsets, slab_nbytes = _offsets(
        {number: _nbytes(feed) for number, feed in enumerate(feeds) if feed is not None and _nbytes(feed)}, slab_nbytes
    )
    made = {number: result.tensor.nbytes for number, result in enumerate(results) if result.tensor is not None}
    result_offsets, slab_nbytes = _offsets(made, slab_nbytes)
    return CudaPlan(
        steps,
        results,
        slab_nbytes,
        result_offsets,
        feed_offsets,
        _feeds_of([step for step in steps if step.host is None]),
        _feeds_of(steps),
        _alignments(steps, Place.FEED),
        _alignments(steps, Place.RESULT),
        unknown_of([step.operation for step in steps]),
        builder.guessed,
        builder.expects,
    )


def _feeds_of(steps: Sequence[CudaStep]) -> frozenset[int]:
    """Numbers of the feeds that steps read."""
    tensors = (tensor for step in steps for tensor in step.operation.inputs)
    return frozenset(tensor.buffer.number for tensor in tensors if tensor.buffer.place is Place.FEED)


def _alignments(steps: Sequence[CudaStep], place: Place) -> dict[int, int]:
    """Bytes that a feed's or a result's address must be a multiple of, by its number.

    Libraries want more than an element, and so do kernels that read several as one word; others look at addresses.
    """
    found: dict[int, int] = {}
    for step in steps:
        in_words = step.library is not None or step.operation.kind in _IN_WORDS
        for tensor in (*step.operation.inputs, *step.operation.outputs):
            if tensor.buffer.place is place:
                wanted = WORD_NBYTES if in_words else tensor.dtype.itemsize
                found[tensor.buffer.number] = max(wanted, found.get(tensor.buffer.number, 1))
    return found


def _steps(operations: Sequence[Operation], context: Any) -> list[CudaStep]:
    """Raises Withdrawn when all have been asked for."""
    steps, withdrawn = [], None
    for operation in operations:
        try:
            steps.append(_step(operation, context))
        except Withdrawn as error:
            withdrawn = error
    if withdrawn is not None:
        raise withdrawn
    return steps


def _step(operation: Operation, context: Any) -> CudaStep:
    if isinstance(operation, Host):
        return CudaStep(operation, host=operation)
    if has_library_call(operation):
        call = library_call_of(operation, context)
        scratch = Buffer(call.workspace_nbytes) if call.workspace_nbytes else None
        return CudaStep(operation, library=call, scratch=scratch)
    made = launches(operation)
    if made is None:
        raise NotImplementedError(f"no CUDA C is printed for an operation of kind {operation.kind}")
    return CudaStep(operation, launches=made)


def _aligned(nbytes: int) -> int:
    return -(-nbytes // ALIGNMENT_NBYTES) * ALIGNMENT_NBYTES


def _nbytes(feed: FeedType) -> int:
    assert feed is not None
    dtype, shape = feed
    return 0 if dtype.kind in "OUST" else int(np.prod(shape, dtype=np.int64)) * dtype.itemsize


def _offsets(sizes: Mapping[int, int], begin: int) -> tuple[dict[int, int], int]:
    """Places one after another, and the end of the last one."""
    found: dict[int, int] = {}
    for number, nbytes in sizes.items():
        found[number] = begin
        begin += _aligned(max(nbytes, 1))
    return found, begin


__all__ = ["ALIGNMENT_NBYTES", "CudaPlan", "CudaStep", "plan_of", "target_of"]
