"""What the owner of a device slot and one reader share: two flags, and handles by which the reader finds the memory.

A page is a memfd, like a slot of shared memory: its descriptor goes over the socket once, and the kernel frees it with
the last process that maps it.
"""

from __future__ import annotations

import mmap
import os
import struct
from typing import NamedTuple

#: numbers of pages are apart from those of slots: both are known to a channel by number
FIRST_NUMBER = 1 << 31
NBYTES = mmap.PAGESIZE
_READING, _MAPPED = 0, 1
_HANDLES = struct.Struct("<64s64sQ32s")
_HANDLES_AT = 64


class Handles(NamedTuple):
    """By which another process finds a slot's memory and the event after which it may be read."""

    memory: bytes  # CUDA's IPC handles, 64 bytes each
    event: bytes
    nbytes: int
    device: str  # the PCI bus id of the GPU that it is on


class OwnedPage:
    """The owner's end."""

    def __init__(self, number: int, handles: Handles | None = None) -> None:
        self.number = number
        self.capacity = NBYTES
        self.fd = os.memfd_create("distort-gpu-page", os.MFD_CLOEXEC)
        os.ftruncate(self.fd, NBYTES)
        self._memory = mmap.mmap(self.fd, NBYTES)
        self.known_to: set[object] = set()  # channels that were sent the descriptor
        if handles is not None:
            self.write(handles)

    def write(self, handles: Handles) -> None:
        """Before anybody is told of the page."""
        packed = _HANDLES.pack(handles.memory, handles.event, handles.nbytes, handles.device.encode())
        self._memory[_HANDLES_AT : _HANDLES_AT + _HANDLES.size] = packed

    @property
    def reading(self) -> bool:
        return bool(self._memory[_READING])

    @reading.setter
    def reading(self, value: bool) -> None:
        self._memory[_READING] = value

    @property
    def mapped(self) -> bool:
        return bool(self._memory[_MAPPED])

    def close(self) -> None:
        os.close(self.fd)
        self._memory.close()


class ReadPage:
    """A reader's end."""

    def __init__(self, memory: mmap.mmap) -> None:
        self._memory = memory

    @property
    def handles(self) -> Handles:
        memory, event, nbytes, device = _HANDLES.unpack_from(self._memory, _HANDLES_AT)
        return Handles(memory, event, nbytes, device.rstrip(b"\0").decode())

    @property
    def reading(self) -> bool:
        return bool(self._memory[_READING])

    @property
    def mapped(self) -> bool:
        return bool(self._memory[_MAPPED])

    @mapped.setter
    def mapped(self, value: bool) -> None:
        self._memory[_MAPPED] = value

    def release(self) -> None:
        """The slot may be written again, as far as this reader is concerned."""
        self._memory[_READING] = 0
