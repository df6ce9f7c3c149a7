"""Device memory that is host memory: a sparse file for each device, mapped once.

An address says which device it is of, other processes can map the file (as CUDA's IPC does), fresh memory is full of
ones (NaN, -1) and what lies behind an allocation is watched, so that a kernel that writes there is found.
"""

from __future__ import annotations

import ctypes
import os
import threading
from bisect import bisect_right, insort
from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np

ALIGNMENT = 512
GUARD = 256  # bytes behind each allocation that must stay as they are
_GUARD_BYTE = 0xA5
_FRESH_BYTE = 0xFF

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_READ_WRITE, _SHARED, _NO_RESERVE = 3, 1, 0x4000


class _Interface:
    """What NumPy needs to see memory at an address."""

    def __init__(self, address: int, nbytes: int) -> None:
        self.__array_interface__ = {"data": (address, False), "shape": (nbytes,), "typestr": "|u1", "version": 3}


def bytes_at(address: int, nbytes: int) -> np.ndarray[Any, Any]:
    """Memory at an address as bytes."""
    if nbytes == 0:
        return np.empty(0, np.uint8)
    return np.asarray(_Interface(address, nbytes))


def map_file(descriptor: int, nbytes: int, offset: int = 0) -> int:
    """The address of a part of a file, shared with all that map it."""
    address = _libc.mmap(None, nbytes, _READ_WRITE, _SHARED | _NO_RESERVE, descriptor, offset)
    if address in (None, ctypes.c_void_p(-1).value):
        raise OSError(ctypes.get_errno(), "mmap")
    return int(address)


def unmap(address: int, nbytes: int) -> None:
    _libc.munmap(address, nbytes)


def _is_guard(address: int, nbytes: int) -> bool:
    """Whether nothing was written there.

    Without NumPy, for garbage may be collected in the middle of a change of its error state, which in CPython 3.11
    is lost where something asks for it meanwhile (a variable of a context keeps what was deleted).
    """
    return ctypes.string_at(address, nbytes) == bytes((_GUARD_BYTE,)) * nbytes


class WroteBehind(AssertionError):
    """Something wrote behind the end of an allocation."""


class Heap:
    """One device's memory."""

    def __init__(self, device_id: int, nbytes: int) -> None:
        self.device_id = device_id
        self.nbytes = nbytes
        self.descriptor = os.memfd_create(f"fake_cuda_{device_id}")
        os.ftruncate(self.descriptor, nbytes)
        self.base = map_file(self.descriptor, nbytes)
        self.live: dict[int, int] = {}  # address -> bytes asked for
        self._lent: dict[int, tuple[int, int]] = {}  # a pool's blocks in use: address -> (bytes asked for, bytes)
        self._free: list[tuple[int, int]] = [(ALIGNMENT, nbytes - ALIGNMENT)]  # (offset, bytes), ascending
        self._starts: list[int] = []
        self._lock = threading.Lock()
        #: freed while the lock was held: by what garbage collection found meanwhile, perhaps in the thread that has it
        self._waiting: deque[int] = deque()
        #: what was found when memory was collected as garbage, where nobody could be told
        self.found: list[str] = []
        self.used_nbytes = 0
        self.closed = False

    def contains(self, address: int) -> bool:
        return self.base <= address < self.base + self.nbytes

    def allocate(self, nbytes: int) -> int | None:
        """The address of memory, None where there is none."""
        size = -(-(max(nbytes, 1) + GUARD) // ALIGNMENT) * ALIGNMENT
        self._free_waiting()
        with self._lock:
            for place, (offset, length) in enumerate(self._free):
                if length >= size:
                    if length == size:
                        del self._free[place]
                    else:
                        self._free[place] = (offset + size, length - size)
                    break
            else:
                return None
            address = self.base + offset
            self.live[address] = nbytes
            insort(self._starts, address)
            self.used_nbytes += size
        memory = bytes_at(address, size)
        memory[:nbytes] = _FRESH_BYTE
        memory[nbytes:] = _GUARD_BYTE
        return address

    def free(self, address: int) -> None:
        if self.closed:
            return
        self._waiting.append(address)
        self._free_waiting()

    def _free_waiting(self) -> None:
        """Free what waits for that; whoever has the lock does it later, with the next that is asked for or freed."""
        if not self._lock.acquire(blocking=False):
            return
        try:
            broken = [address for address in self._taken() if not self._freed(address)]
        finally:
            self._lock.release()
        if broken:
            raise WroteBehind(f"something wrote behind the memory at {', '.join(map(hex, broken))}")

    def _taken(self) -> Iterator[int]:
        while self._waiting:
            yield self._waiting.popleft()

    def _freed(self, address: int) -> bool:
        """Whether nothing wrote behind it."""
        nbytes = self.live.pop(address)
        self._starts.remove(address)
        size = -(-(max(nbytes, 1) + GUARD) // ALIGNMENT) * ALIGNMENT
        self.used_nbytes -= size
        intact = self._intact(address, nbytes) and self._is_returned(address)
        ctypes.memset(address, 0xFB, nbytes)  # who reads it now, reads nonsense
        self._give_back(address - self.base, size)
        return intact

    def _is_returned(self, address: int) -> bool:
        """Whether nothing wrote behind a block of a pool that is garbage at once with its memory."""
        asked, nbytes = self._lent.pop(address, (0, 0))
        return _is_guard(address + asked, nbytes - asked)

    def _give_back(self, offset: int, size: int) -> None:
        place = bisect_right(self._free, (offset, size))
        if place < len(self._free) and self._free[place][0] == offset + size:
            size += self._free.pop(place)[1]
        if place and sum(self._free[place - 1]) == offset:
            offset = self._free[place - 1][0]
            size += self._free[place - 1][1]
            del self._free[place - 1]
            place -= 1
        self._free.insert(place, (offset, size))

    def allocation_of(self, address: int) -> tuple[int, int] | None:
        """(start, bytes) of the allocation that an address lies in."""
        with self._lock:
            place = bisect_right(self._starts, address)
            if not place:
                return None
            start = self._starts[place - 1]
            nbytes = self.live[start]
        return (start, nbytes) if address < start + max(nbytes, 1) else None

    def lend(self, address: int, asked: int, nbytes: int) -> None:
        """A pool gives a block away: it is as fresh memory."""
        memory = bytes_at(address, nbytes)
        memory[:asked] = _FRESH_BYTE
        memory[asked:] = _GUARD_BYTE
        self._lent[address] = asked, nbytes

    def end_lending(self, address: int, asked: int) -> None:
        known, nbytes = self._lent.get(address, (0, 0))
        if self.closed or known != asked or not nbytes:  # its memory went before it, and may be another's
            return
        del self._lent[address]
        if not _is_guard(address + asked, nbytes - asked):
            raise WroteBehind(f"something wrote behind the {asked} bytes at {address:#x}")

    def _intact(self, address: int, nbytes: int) -> bool:
        return _is_guard(address + nbytes, GUARD)

    def check(self) -> None:
        """Raise WroteBehind where something wrote behind any allocation."""
        self._free_waiting()
        if self.found:
            raise WroteBehind("; ".join(self.found))
        with self._lock:
            for address, nbytes in self.live.items():
                if not self._intact(address, nbytes):
                    raise WroteBehind(f"something wrote behind the {nbytes} bytes at {address:#x}")
        for address, (asked, nbytes) in list(self._lent.items()):
            if not _is_guard(address + asked, nbytes - asked):
                raise WroteBehind(f"something wrote behind the {asked} bytes at {address:#x}")

    def close(self) -> None:
        """Give the memory back to the system; its addresses stay mapped, for those who still hold them."""
        self.closed = True
        os.ftruncate(self.descriptor, 0)
        os.ftruncate(self.descriptor, self.nbytes)
        os.close(self.descriptor)
