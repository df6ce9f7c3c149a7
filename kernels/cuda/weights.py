"""A program's weights on its GPU: each is there once, for all plans and for bodies over CuPy."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from distort.kernels.compiler.ir import Array, Buffer
from distort.kernels.cuda import copies, memory
from distort.kernels.cuda.fallback import on_host


class Weights:
    """Thread-safe. Arrays that were asked for once are kept, on the host too: they are known by their ``id``."""

    def __init__(self, pool: memory.Pool) -> None:
        self._pool = pool
        self._lock = threading.Lock()
        self._there: dict[int, tuple[Array, Any]] = {}
        #: of the GPU's memory of each, by ``id``
        self._memory: set[int] = set()
        self.nbytes = 0

    def of(self, array: Array) -> Any:
        """A CuPy array of the same elements. Raises OutOfMemory; TypeError for text."""
        known = self._there.get(id(array))
        if known is None:
            with self._lock:
                known = self._there.get(id(array))
                if known is None:
                    known = self._there[id(array)] = (array, self._send(array))
        return known[1]

    def _send(self, array: Array) -> Any:
        with self._pool.used():
            made = copies.to_device(array, self._pool.device_id)
        self.nbytes += array.nbytes
        self._memory.add(id(made.data.mem))
        return made

    def has(self, array: Any) -> bool:
        """Whether a CuPy array lies in the memory of one of them."""
        return id(array.data.mem) in self._memory

    def address(self, buffer: Buffer) -> int:
        """Of a plan's constant."""
        array = buffer.array
        assert array is not None, "a constant has its elements"
        return int(self.of(array).data.ptr)


def is_held(dtype: np.dtype[Any]) -> bool:
    """Whether CuPy computes with a dtype; what it only stores (8-bit floats, int4, text) is the CPU's."""
    return not on_host(dtype)


__all__ = ["Weights", "is_held"]
