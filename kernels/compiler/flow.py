"""Branches and loops within a plan: jumps between steps, and what they mean for memory and for waiting threads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from distort.kernels.compiler.ir import Buffer, Call, Jump, Operation
from distort.kernels.compiler.keys import Key

if TYPE_CHECKING:
    from distort.kernels.compiler.specialise import Step

#: stands where a kernel would: the driver jumps
JUMP = Key("jump", ())
_DISTANCE = 2
#: further than any plan
_OUT = 1 << 40


def jump_call(jump: Jump) -> Call:
    """Its words: the address of the byte, what it must be, how many steps further."""
    return Call(JUMP, [jump.inputs[0].address() if jump.inputs else 0, int(jump.when), 0], 0.0)


def set_distances(steps: Sequence[Step], marks: Mapping[Operation, int]) -> None:
    """``marks``: before which step each is. Jumps lead over native steps only."""
    for position, step in enumerate(steps):
        if isinstance(step.operation, Jump):
            assert step.call is not None
            to = step.operation.to
            step.call.words[_DISTANCE] = _OUT if to is None else marks[to] - position


def _jumps(steps: Sequence[Step]) -> list[tuple[int, int]]:
    """From where to where."""
    found = []
    for position, step in enumerate(steps):
        if isinstance(step.operation, Jump):
            assert step.call is not None
            distance = step.call.words[_DISTANCE]
            assert isinstance(distance, int)
            if distance == _OUT:
                continue
            found.append((position, position + distance))
    return found


def over_loops(lifetimes: Sequence[tuple[Buffer, int, int]], steps: Sequence[Step]) -> list[tuple[Buffer, int, int]]:
    """What is alive where a loop begins or ends is alive in all of it."""
    loops = sorted(
        ((to, position) for position, to in _jumps(steps) if to <= position), key=lambda loop: loop[1] - loop[0]
    )
    made = []
    for buffer, first, last in lifetimes:
        for begin, end in loops:  # inner ones first
            if first <= end and last >= begin and (first < begin or last > end):
                first, last = min(first, begin), max(last, end)
        made.append((buffer, first, last))
    return made
