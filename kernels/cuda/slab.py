"""The memory that a program's plans have their values in: one for all of them, as large as any needs."""

from __future__ import annotations

from typing import Any

import numpy as np

from distort.kernels.cuda.memory import Pool


class Slab:
    """Not thread-safe: one run at a time uses it."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._memory: Any = None

    def reserve(self, nbytes: int) -> int:
        """Its address, with room for so many bytes. Raises OutOfMemory."""
        if self._memory is None or self._memory.mem.size < nbytes:
            self._memory = None
            self._memory = self._pool.malloc(nbytes)
        return int(self._memory.ptr)

    def array(self, address: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
        """A CuPy array at an address in it."""
        import cupy

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
