"""Bytes on their way to a GPU through a ring of pinned blocks: one is filled while others are sent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

#: of one block, and how many there are: more of the host's memory is not taken, whatever is sent
BLOCK_NBYTES, N_BLOCKS = 4 * 2**20, 3
#: what follows in the same memory at no greater distance goes by the same copy
_MOST_GAP_NBYTES = 256


class Staging:
    """Used as a context; with its end all is there. The GPU of ``stream`` is current. Not thread-safe.

    ``pinned`` makes a block of so many bytes, pinned where the system lets it be.
    """

    def __init__(self, stream: Any, pinned: Callable[[int], Array]) -> None:
        self._stream, self._pinned = stream, pinned
        self._blocks: list[tuple[Array, Any]] = []  # each with the event behind its last copy
        self._number = 0  # of the block that is filled
        self._address = self._filled = 0  # where it goes, and how much of it is there
        #: copies so far
        self.n_copies = 0

    def __enter__(self) -> Staging:
        return self

    def __exit__(self, *of_error: object) -> None:
        if of_error[0] is None:
            self.flush()
        self._stream.synchronize()  # before the blocks go back to their pool

    def add(self, address: int, whole: Array) -> None:
        """Send bytes to an address. The array may change afterwards.

        What lies a little behind the last bytes is sent with them, and what is between is overwritten: between bytes
        of different memory is to be a :meth:`flush`.
        """
        begin = 0
        while begin < whole.nbytes:
            gap = address + begin - (self._address + self._filled)
            if self._filled and (not 0 <= gap < _MOST_GAP_NBYTES or self._filled + gap >= BLOCK_NBYTES):
                self.flush()
            if not self._filled:
                self._address, gap = address + begin, 0
            place = self._filled + gap
            part = whole[begin : begin + BLOCK_NBYTES - place]
            np.copyto(self._block()[place : place + part.nbytes], part)
            self._filled = place + part.nbytes
            begin += part.nbytes

    def _block(self) -> Array:
        """The one that is filled, which nothing reads any more."""
        if self._number == len(self._blocks):
            import cupy

            self._blocks.append((self._pinned(BLOCK_NBYTES), cupy.cuda.Event(disable_timing=True)))
        block, sent = self._blocks[self._number]
        if not self._filled:
            sent.synchronize()  # WAR: it may be on its way still
        return block

    def flush(self) -> None:
        """Send what is in the block."""
        if not self._filled:
            return
        from cupy.cuda import runtime

        block, sent = self._blocks[self._number]
        kind = runtime.memcpyHostToDevice
        runtime.memcpyAsync(self._address, block.ctypes.data, self._filled, kind, self._stream.ptr)
        self._stream.record(sent)
        self._number = (self._number + 1) % N_BLOCKS
        self._filled = 0
        self.n_copies += 1


__all__ = ["BLOCK_NBYTES", "N_BLOCKS", "Staging"]
