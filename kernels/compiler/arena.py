"""Where the values of a run lie: buffers that are not needed at the same time share memory."""

from __future__ import annotations

from bisect import insort
from collections.abc import Sequence

from distort.kernels.compiler.ir import ALIGNMENT, Buffer


def place(lifetimes: Sequence[tuple[Buffer, int, int]], alignment: int = ALIGNMENT) -> int:
    """Set the offsets of buffers with the first and last steps that touch them. Returns the arena's bytes.

    Large ones first, each at the lowest place that is free for as long as it lives.
    """
    placed: list[tuple[int, int, int, int]] = []  # begin, end, first step, last step
    total = 0
    for buffer, first, last in sorted(lifetimes, key=lambda item: -item[0].nbytes):
        nbytes = max(alignment, -(-buffer.nbytes // alignment) * alignment)
        begin = 0
        for taken, end, earliest, latest in placed:
            if earliest <= last and first <= latest:
                if taken - begin >= nbytes:
                    break
                if end > begin:
                    begin = end
        buffer.offset = begin
        insort(placed, (begin, begin + nbytes, first, last))
        total = max(total, begin + nbytes)
    return total
