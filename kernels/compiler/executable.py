"""A plan made ready to run: steps with the addresses of their kernels, and what each run at a time writes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from distort.kernels.compiler import arrays, flow
from distort.kernels.compiler.addresses import address_of
from distort.kernels.compiler.codegen import drive
from distort.kernels.compiler.ir import ALIGNMENT, Address, Array, ErrorWord, Host, Operation, Place, Scratch

if TYPE_CHECKING:
    from distort.kernels.compiler.library import Library
    from distort.kernels.compiler.model_files import ModelFiles
    from distort.kernels.compiler.quick import Tables
    from distort.kernels.compiler.specialise import Plan


@dataclass(slots=True)
class Instance:
    """What one run at a time writes."""

    memory: Array  # keeps the arena
    words: Array  # of all steps; the last one is the error word
    steps: Array  # [steps, words of a step]
    base: int  # the arena's address
    hosted: dict[int, tuple[list[Any], list[Any]]]  # by step: views of arguments and results
    cells: memoryview  # the words, quick to change
    address: int  # of the steps
    quick: Tables | None = None  # what quick runs go by


@dataclass(slots=True)
class Segment:
    """Native steps ``first`` to before ``last``, or one step of a NumPy kernel."""

    first: int = 0
    last: int = 0
    host: Host | None = None
    number: int = 0
    shared: bool = False  # whether a second thread has work


#: a feed's or result's number, and the words that hold its address: their positions, with offsets in bytes
Pointers = tuple[int, list[tuple[int, int]]]


@dataclass(slots=True)
class Compiled:
    """A plan whose kernels are there."""

    plan: Plan
    segments: list[Segment]
    steps: Array  # as in an instance, with offsets of words instead of their addresses
    words: Array  # with offsets where addresses of the arena will be
    of_arena: Array  # positions of such words
    of_error: Array  # positions of words that hold the error word's address
    feeds: list[Pointers]  # feeds whose addresses are needed
    results: list[Pointers]
    arrays: list[Array]  # constants that words point to
    operations: list[Operation]  # of each native step
    free: list[Instance] = field(default_factory=list)

    def take(self, memory_of: Callable[[int], Array]) -> Instance:
        """An instance, to be given back to ``free``; a new one in memory that ``memory_of`` has for so many bytes."""
        try:
            return self.free.pop()
        except IndexError:
            pass
        memory = memory_of(self.plan.arena_nbytes + ALIGNMENT)
        base = -(-memory.ctypes.data // ALIGNMENT) * ALIGNMENT
        words = self.words.copy()
        words[self.of_arena] += base
        words[self.of_error] = words.ctypes.data + (len(words) - 1) * words.itemsize
        steps = self.steps.copy()
        steps[:, 1] += words.ctypes.data
        hosted = {
            segment.number: (
                [arrays.view(t, memory, base) for t in segment.host.arguments],
                [arrays.view(t, memory, base) for t in segment.host.results],
            )
            for segment in self.segments
            if segment.host is not None
        }
        cells: Any = words
        return Instance(memory, words, steps, base, hosted, memoryview(cells), steps.ctypes.data)


def assemble(plan: Plan, library: Library, files: ModelFiles) -> Compiled:
    """Compile, or load, the kernels of a plan. ``files``: those that its constants may lie in."""
    calls = [step.call for step in plan.steps if step.call is not None]
    addresses = library.get(call.key for call in calls if call.key != flow.JUMP) | {flow.JUMP: 0}
    words: list[int] = []
    of_arena: list[int] = []
    of_error: list[int] = []
    pointing: dict[Place, dict[int, list[tuple[int, int]]]] = {Place.FEED: {}, Place.RESULT: {}}
    pointed: list[Array] = []
    native: list[tuple[int, int, int, int]] = []
    segments: list[Segment] = []
    for number, step in enumerate(plan.steps):
        if step.call is None:
            segments.append(Segment(host=step.host, number=number))
            continue
        if not segments or segments[-1].host is not None:
            segments.append(Segment(len(native), len(native)))
        segments[-1].last += 1
        segments[-1].shared |= step.n_threads > 1 and step.call.key != flow.JUMP
        place = len(words) * 8
        native.append((addresses[step.call.key], place, step.n_threads, step.n_chunks))
        for word in step.call.words:
            if type(word) is int:
                words.append(word)
            elif isinstance(word, Address):
                buffer = word.buffer
                if buffer.place is Place.ARENA:
                    of_arena.append(len(words))
                    words.append(buffer.offset + word.offset)
                elif buffer.place is Place.CONSTANT:
                    array = files.resident(buffer)
                    pointed.append(array)
                    words.append(address_of(array) + word.offset)
                else:
                    pointing[buffer.place].setdefault(buffer.number, []).append((len(words), word.offset))
                    words.append(0)
            elif isinstance(word, ErrorWord):
                of_error.append(len(words))
                words.append(0)
            else:
                assert not isinstance(word, Scratch)  # an address since the steps were made
                words.append(int(word))
    words.append(0)
    return Compiled(
        plan,
        segments,
        np.array(native, np.int64).reshape(-1, drive.STEP_WORDS),
        np.array(words, np.int64),
        np.array(of_arena, np.int64),
        np.array(of_error, np.int64),
        list(pointing[Place.FEED].items()),
        list(pointing[Place.RESULT].items()),
        pointed,
        [step.operation for step in plan.steps if step.call is not None and step.operation is not None],
    )


__all__ = ["Compiled", "Instance", "Pointers", "Segment", "assemble"]
