"""Slots: shared memory that one process writes and others read, each a segment without a name.

A segment is a memfd. Its descriptor goes over a Unix socket once, so nothing is left behind whoever is killed when:
the kernel frees it with the last process that maps it. The first bytes of a slot are flags, one for each reader of
what the slot holds now; a reader clears its own when it is done, and a slot without flags is free to be written again.
How many slots there are is bounded by the runs in flight.
"""

from __future__ import annotations

import mmap
import os
import threading
from dataclasses import dataclass, field
from typing import Any

import numpy as np

#: where the payload begins: a cache line of flags before it
HEADER_NBYTES = 64
MOST_READERS = HEADER_NBYTES
#: the smallest slot; larger ones double
LEAST_NBYTES = 1 << 16
#: slots that are free are given back beyond this, when a new one is made
IDLE_NBYTES = 1 << 28


@dataclass(slots=True, eq=False)
class Slot:
    """As its owner has it."""

    number: int
    fd: int
    memory: mmap.mmap
    capacity: int
    flags: memoryview
    #: who may hold a flag now, by position
    readers: tuple[Any, ...] = ()
    #: peers that were sent the descriptor
    known_to: set[Any] = field(default_factory=set)

    @property
    def free(self) -> bool:
        return not any(self.flags[: len(self.readers)])

    def payload(self, nbytes: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
        return np.frombuffer(self.memory, np.uint8, nbytes, HEADER_NBYTES)

    def close(self) -> None:
        self.flags.release()
        os.close(self.fd)
        # the mapping itself ends with the last array over it
        self.memory = None  # type: ignore[assignment]  # nobody uses a closed slot


class SlotPool:
    """The slots that this process writes. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._slots: dict[int, list[Slot]] = {}  # by capacity, the one used last at the end
        self._n_made = 0
        self.nbytes = 0
        #: what page-locks slots for a GPU (cluster/gpu/pinning.py)
        self.pins: Any = None
        #: slots given back, for their readers to hear: peer -> numbers
        self.forgotten: dict[Any, list[int]] = {}

    def take(self, nbytes: int, readers: tuple[Any, ...]) -> Slot:
        """A free slot for a payload, flagged for each reader. Raises OSError where there is no memory."""
        if len(readers) > MOST_READERS:
            raise ValueError(f"a slot has at most {MOST_READERS} readers, and {len(readers)} are wanted")
        capacity = LEAST_NBYTES
        while capacity < nbytes + HEADER_NBYTES:
            capacity *= 2
        with self._lock:
            same = self._slots.setdefault(capacity, [])
            # the one that was used last is likely to be in a cache still
            for position in range(len(same) - 1, -1, -1):
                if same[position].free:
                    slot = same.pop(position)
                    break
            else:
                slot = self._make(capacity)
            same.append(slot)
            slot.readers = readers
            slot.flags[: len(readers)] = b"\1" * len(readers)
        return slot

    def _make(self, capacity: int) -> Slot:
        if self.nbytes + capacity > IDLE_NBYTES:
            self._trim()
        self._n_made += 1
        fd = os.memfd_create("distort-slot", os.MFD_CLOEXEC)
        try:
            os.ftruncate(fd, capacity)
            memory = mmap.mmap(fd, capacity)
        except BaseException:
            os.close(fd)
            raise
        self.nbytes += capacity
        if self.pins is not None:
            self.pins.lock(memory)
        return Slot(self._n_made, fd, memory, capacity, memoryview(memory)[:HEADER_NBYTES])

    def _trim(self) -> None:
        """Give back the slots that are free."""
        for slots in self._slots.values():
            for slot in [slot for slot in slots if slot.free]:
                slots.remove(slot)
                self._drop(slot)

    def _drop(self, slot: Slot) -> None:
        self.nbytes -= slot.capacity
        for peer in slot.known_to:
            self.forgotten.setdefault(peer, []).append(slot.number)
        self._close(slot)

    def _close(self, slot: Slot) -> None:
        if self.pins is not None:
            self.pins.unlock(slot.memory)
        slot.close()

    def take_forgotten(self, peer: Any) -> list[int]:
        """Numbers of slots given back that ``peer`` was not told of yet."""
        if not self.forgotten:
            return []
        with self._lock:
            return self.forgotten.pop(peer, [])

    def lose_reader(self, peer: Any) -> None:
        """A peer is gone: nobody clears its flags any more."""
        with self._lock:
            self.forgotten.pop(peer, None)
            for slots in self._slots.values():
                for slot in slots:
                    slot.known_to.discard(peer)
                    for position, reader in enumerate(slot.readers):
                        if reader is peer:
                            slot.flags[position] = 0

    def in_use(self) -> int:
        """How many slots somebody still reads."""
        with self._lock:
            return sum(not slot.free for slots in self._slots.values() for slot in slots)

    def close(self) -> None:
        with self._lock:
            for slots in self._slots.values():
                for slot in slots:
                    self._close(slot)
            self._slots.clear()
            self.forgotten.clear()


@dataclass(frozen=True, slots=True)
class Reading:
    """A payload in another process's slot, as long as its reader's flag stands."""

    memory: mmap.mmap
    position: int  # of the flag
    nbytes: int

    def payload(self) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """Its bytes, read-only, valid until :meth:`release`."""
        found = np.frombuffer(self.memory, np.uint8, self.nbytes, HEADER_NBYTES)
        found.flags.writeable = False
        return found

    def release(self) -> None:
        """The slot may be written again, as far as this reader is concerned."""
        self.memory[self.position] = 0


#: how many payloads a process may have as its own, of one peer: each keeps a descriptor and a mapping
MOST_LEASES = 32
#: and how small they may be: a smaller one is copied sooner than it is leased
LEAST_LEASE_NBYTES = 1 << 16


class _Forks:
    """How often this process has forked: what its children may read is not given back."""

    count = 0

    @classmethod
    def add(cls) -> None:
        cls.count += 1


os.register_at_fork(before=_Forks.add)


class Lease:
    """The base of an array over another process's slot: this process is its only reader, and may write.

    The slot is free again when the last array over it is gone. ``held`` has those that aren't.
    """

    __slots__ = ("__array_interface__", "_forks", "_held", "_reading")
    exclusive = True  # no other memory's array lies here

    def __init__(self, reading: Reading, held: set[int]) -> None:
        address = np.frombuffer(reading.memory, np.uint8, 1, HEADER_NBYTES).ctypes.data
        self._reading, self._held, self._forks = reading, held, _Forks.count
        self.__array_interface__ = {
            "data": (address, False),
            "shape": (reading.nbytes,),
            "typestr": "|u1",
            "version": 3,
        }
        held.add(id(self))

    def __del__(self) -> None:
        if self._forks == _Forks.count:
            self._reading.release()
            self._held.discard(id(self))


def map_slot(fd: int, capacity: int) -> mmap.mmap:
    """Another process's segment, mapped. Takes the descriptor."""
    try:
        return mmap.mmap(fd, capacity)
    finally:
        os.close(fd)
