"""cupy.cuda.pinned_memory: host memory that copies can run from and to by themselves."""

from __future__ import annotations

import ctypes
import mmap
from typing import Any

from .. import _state


class PinnedMemory:
    def __init__(self, size: int, flags: int = 0) -> None:
        _state.need_context()
        self.size = size
        self._map = mmap.mmap(-1, max(size, 1))
        self.ptr = ctypes.addressof(ctypes.c_char.from_buffer(self._map))
        _state.pinned[self.ptr] = size

    def __int__(self) -> int:
        return self.ptr

    def __del__(self) -> None:
        _state.pinned.pop(getattr(self, "ptr", 0), None)


class PinnedMemoryPointer(mmap.mmap):
    """Has the buffer protocol: ``numpy.frombuffer(pointer, dtype, count)``; as large as the pool's block."""

    mem: Any
    ptr: int

    @classmethod
    def of(cls, nbytes: int) -> PinnedMemoryPointer:
        _state.need_context()
        found = cls(-1, max(nbytes, 1))
        found.mem = found
        found.ptr = ctypes.addressof(ctypes.c_char.from_buffer(found))
        _state.pinned[found.ptr] = found.size()
        return found

    def size(self) -> int:
        return len(self)

    def __int__(self) -> int:
        return self.ptr

    def __del__(self) -> None:
        _state.pinned.pop(getattr(self, "ptr", 0), None)


class PinnedMemoryPool:
    """Sizes are rounded up to a power of two of at least 512, as the real pool does."""

    def malloc(self, size: int) -> PinnedMemoryPointer:
        _state.counts["pinned"] += 1
        return PinnedMemoryPointer.of(max(512, 1 << max(size - 1, 0).bit_length()))

    def free_all_blocks(self) -> None:
        return None

    def n_free_blocks(self) -> int:
        return 0


default_pool = PinnedMemoryPool()
_allocator: Any = default_pool.malloc


def alloc_pinned_memory(size: int) -> Any:
    return _allocator(size)


def set_pinned_memory_allocator(allocator: Any = None) -> None:
    global _allocator
    _allocator = PinnedMemoryPointer.of if allocator is None else allocator


def is_memory_pinned(data: int) -> bool:
    return _state.is_pinned(data)
