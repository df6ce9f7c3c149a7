"""The memory that a program's plans have their values in: one for all of them, as large as any needs."""

from __future__ import annotations

from typing import Any

import numpy as np

from distort.kernels.cuda.memory import Pool, device_dtype
from distort.kernels.errors import OutOfMemory

#: what a slab that must grow may be larger than what is asked for
MOST_AHEAD_NBYTES = 1 << 30


class Slab:
    """Not thread-safe: one run at a time uses it.

    With each other address all graphs that were captured are lost: one that must grow is made twice as large (but by
    no more than MOST_AHEAD_NBYTES than is asked for), where there is room and ``doubles``.
    """

    def __init__(self, pool: Pool, *, doubles: bool = True) -> None:
        self._pool = pool
        self._doubles = doubles
        self._memory: Any = None
        #: how often its address changed
        self.n_moves = 0

    def reserve(self, nbytes: int) -> int:
        """Its address, with room for so many bytes. Raises OutOfMemory."""
        if self._memory is None or self._memory.mem.size < nbytes:
            before = 0 if self._memory is None else self._memory.mem.size
            self._memory = None
            self._memory = self._grown(nbytes, min(2 * before, nbytes + MOST_AHEAD_NBYTES))
            self.n_moves += 1
        return int(self._memory.ptr)

    def _grown(self, nbytes: int, ahead_nbytes: int) -> Any:
        if self._doubles and ahead_nbytes > nbytes:
            try:
                return self._pool.malloc(ahead_nbytes)
            except OutOfMemory:
                pass  # it may do with less
        return self._pool.malloc(nbytes)

    def array(self, address: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
        """A CuPy array at an address in it, of bytes where CuPy lacks the dtype."""
        import cupy

        dtype = device_dtype(dtype)

        nbytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        if not nbytes:
            return cupy.empty(shape, dtype)
        memory = cupy.cuda.UnownedMemory(address, nbytes, self._memory, self._pool.device_id)
        return cupy.ndarray(shape, dtype, cupy.cuda.MemoryPointer(memory, 0))

    def has(self, array: Any) -> bool:
        """Whether an array lies in it."""
        return 0 <= int(array.data.ptr) - int(self._memory.ptr) < int(self._memory.mem.size)

    def drop(self) -> None:
        """Give it back; what is captured with its address must not be launched any more."""
        self._memory = None


__all__ = ["Slab"]
