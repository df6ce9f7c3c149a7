"""Device memory that this process writes and others of its host read, by CUDA's IPC.

A slot is memory of its own, outside the pool: what is exported is a whole allocation. Its event is recorded after a
value was copied into it; who reads it waits for that on the GPU, so that neither process waits.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from distort.cluster.gpu.budget import Budget
from distort.cluster.gpu.ledger import DeviceSlot, Ledger
from distort.cluster.gpu.page import FIRST_NUMBER, Handles, OwnedPage
from distort.cluster.shm.wire import DEVICE, Staged, element_that_travels

#: slots that are free are given back beyond this, when a new one is made
IDLE_NBYTES = 1 << 28


class _Memory:
    """Of one slot: the allocation, its event, and how others find both."""

    __slots__ = ("block", "event", "handles")

    def __init__(self, cupy: Any, nbytes: int, device: str) -> None:
        self.block = cupy.cuda.Memory(nbytes)
        self.event = cupy.cuda.Event(disable_timing=True, interprocess=True)
        runtime = cupy.cuda.runtime
        self.handles = Handles(
            runtime.ipcGetMemHandle(self.block.ptr), runtime.ipcGetEventHandle(self.event.ptr), nbytes, device
        )


class DeviceSlots:
    """Of one GPU. ``device``: its PCI bus id.

    Thread-safe. Called with the GPU and its stream current.
    """

    def __init__(self, device: str, budget: Budget) -> None:
        import cupy

        self._cupy: Any = cupy
        self._device = device
        self._budget = budget
        self._numbers = itertools.count(FIRST_NUMBER)
        self._ledger = Ledger(self._page)
        self._lock = threading.Lock()
        #: why values can't be exported; nothing while they can
        self.obstacle = ""

    @property
    def nbytes(self) -> int:
        with self._lock:
            return self._ledger.nbytes

    def stage(self, value: Any, readers: Sequence[Any], stream: Any) -> Staged | None:
        """Copy a value into a slot, by the stream; None where it can't be exported, or there is no memory for it.

        ``value``: a CuPy array, which may be written again by work that the stream is given afterwards.
        """
        if self.obstacle or value.nbytes == 0:
            return None
        element = element_that_travels(np.dtype(value.dtype))
        if element is None:
            return None
        with self._lock:
            slot = self._ledger.take(value.nbytes, readers) or self._make(value.nbytes, readers)
            if slot is None:
                return None
            memory = slot.memory
            assert isinstance(memory, _Memory)
            for page in slot.pages.values():
                assert isinstance(page, OwnedPage)
                if not page.known_to:
                    page.write(memory.handles)
        cupy = self._cupy
        cupy.ndarray(value.shape, value.dtype, cupy.cuda.MemoryPointer(memory.block, 0))[...] = value
        memory.event.record(stream)
        return Staged(DEVICE, element, value.shape, b"", slot, value.nbytes)

    def _page(self, slot: DeviceSlot) -> OwnedPage:
        return OwnedPage(next(self._numbers))

    def _make(self, nbytes: int, readers: Sequence[Any]) -> DeviceSlot | None:
        if self._ledger.nbytes + nbytes > IDLE_NBYTES:
            self._ledger.retire()
            self._reap()
        slot = self._ledger.add(nbytes, readers)
        slot.memory = self._allocated(slot.capacity)
        if slot.memory is None and not self.obstacle:
            self._ledger.retire()
            self._reap()
            self._budget.shrink()
            slot.memory = self._allocated(slot.capacity)
        if slot.memory is None:
            self._ledger.drop(slot)
            return None
        return slot

    def _allocated(self, nbytes: int) -> _Memory | None:
        """Memory of a slot; None where there is no room for it, or the GPU exports none (see ``obstacle``)."""
        if not self._budget.set_aside(nbytes):
            return None
        cupy = self._cupy
        try:
            return _Memory(cupy, nbytes, self._device)
        except cupy.cuda.memory.OutOfMemoryError:
            pass
        except cupy.cuda.runtime.CUDARuntimeError as error:
            if "MemoryAllocation" not in str(error):  # parts of a GPU (MIG), and some virtual machines, export nothing
                self.obstacle = str(error)
        self._budget.give_back(nbytes)
        return None

    def _reap(self) -> None:
        for slot in self._ledger.reap():
            self._free(slot)

    def _free(self, slot: DeviceSlot) -> None:
        slot.memory = None
        self._budget.give_back(slot.capacity)

    def take_forgotten(self, reader: Any) -> list[int]:
        """Numbers of pages of slots given back that a reader was not told of yet."""
        with self._lock:
            return self._ledger.take_forgotten(reader)

    def lose_reader(self, reader: Any) -> None:
        with self._lock:
            self._ledger.lose(reader)
            self._reap()

    def in_use(self) -> int:
        with self._lock:
            return self._ledger.in_use()

    def close(self) -> None:
        """Free what nobody has open; the rest goes with the process."""
        with self._lock, contextlib.suppress(self._cupy.cuda.runtime.CUDARuntimeError):
            for slot in self._ledger.close():
                self._free(slot)
