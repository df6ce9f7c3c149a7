"""Where the values of a run lie: buffers that are not needed at the same time share memory."""

from __future__ import annotations

from collections.abc import Sequence

from distort.kernels.compiler.ir import ALIGNMENT, Buffer


def place(lifetimes: Sequence[tuple[Buffer, int, int]]) -> int:
    """Set the offsets of buffers with the first and last steps that touch them. Returns the arena's bytes.

    Large ones first, each at the lowest place that is free for as long as it lives.
    """
    placed: list[tuple[int, int, int, int]] = []  # first step, last step, begin, end
    total = 0
    for buffer, first, last in sorted(lifetimes, key=lambda item: -item[0].nbytes):
        nbytes = max(ALIGNMENT, -(-buffer.nbytes // ALIGNMENT) * ALIGNMENT)
        begin = 0
        for _, _, taken, end in sorted(
            (other for other in placed if other[0] <= last and first <= other[1]), key=lambda other: other[2]
        ):
            if taken - begin >= nbytes:
                break
            begin = max(begin, end)
        buffer.offset = begin
        placed.append((first, last, begin, begin + nbytes))
        total = max(total, begin + nbytes)
    return total
