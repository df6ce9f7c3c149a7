"""Device memory that another stream than the stage's reads or writes: taken, given back, used again.

A buffer is an allocation of its own, in whole granules, outside the pool: what the pool has belongs to one stream's
order. It may be taken again when nobody holds it and all events that were noted of it are done.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from distort.cluster.gpu.budget import Budget
from distort.scheduler.gpus import slot_nbytes

#: buffers that lie idle are given back beyond this, when a new one is made
IDLE_NBYTES = 1 << 28
#: no more is taken than this, unless it is for one value alone
MOST_NBYTES = 1 << 30
_MOST_WASTE = 8


class Buffer:
    """``held`` until who has it says otherwise; ``events`` are those behind which it is not used any more."""

    __slots__ = ("block", "capacity", "events", "held")

    def __init__(self, block: Any, capacity: int) -> None:
        self.block, self.capacity = block, capacity
        self.held = True
        self.events: list[Any] = []

    @property
    def address(self) -> int:
        return int(self.block.ptr)

    @property
    def free(self) -> bool:
        if self.held:
            return False
        self.events = [event for event in self.events if not event.done]
        return not self.events


class Buffers:
    """Thread-safe. Called with the GPU current."""

    def __init__(self, budget: Budget, most_nbytes: int = MOST_NBYTES) -> None:
        import cupy

        self._cupy: Any = cupy
        self._budget, self._most_nbytes = budget, most_nbytes
        self._lock = threading.Lock()
        self._all: list[Buffer] = []  # the one taken last at the end

    @property
    def nbytes(self) -> int:
        return sum(buffer.capacity for buffer in list(self._all))

    def in_use(self) -> int:
        with self._lock:
            return sum(not buffer.free for buffer in self._all)

    def take(self, nbytes: int, beyond: bool = False) -> Buffer | None:
        """One that is held; None where there is no room for it now. ``beyond``: that of the GPU counts alone."""
        capacity = slot_nbytes(nbytes)
        with self._lock:
            fitting = [b for b in self._all if capacity <= b.capacity <= _MOST_WASTE * capacity and b.free]
            if fitting:
                buffer = min(reversed(fitting), key=lambda b: b.capacity)
                self._all.remove(buffer)
                buffer.held = True
            else:
                made = self._make(capacity, beyond)
                if made is None:
                    return None
                buffer = made
            self._all.append(buffer)
        return buffer

    def _make(self, capacity: int, beyond: bool) -> Buffer | None:
        if self._made_nbytes() + capacity > IDLE_NBYTES:
            self._drop_idle()
        if self._all and self._made_nbytes() + capacity > self._most_nbytes and not beyond:
            return None
        made = self._allocated(capacity)
        if made is None:
            self._drop_idle()
            self._budget.shrink()
            made = self._allocated(capacity)
        return made

    def _allocated(self, capacity: int) -> Buffer | None:
        """None where there is no room for it."""
        if not self._budget.set_aside(capacity):
            return None
        try:
            return Buffer(self._cupy.cuda.Memory(capacity), capacity)
        except self._cupy.cuda.memory.OutOfMemoryError:
            self._budget.give_back(capacity)
            return None

    def _made_nbytes(self) -> int:
        return sum(buffer.capacity for buffer in self._all)

    def _drop_idle(self) -> None:
        idle = [buffer for buffer in self._all if buffer.free]
        self._all = [buffer for buffer in self._all if buffer not in idle]
        self._give_back(idle)

    def _give_back(self, buffers: Sequence[Buffer]) -> None:
        for buffer in buffers:
            self._budget.give_back(buffer.capacity)

    def close(self) -> None:
        with self._lock:
            self._give_back(self._all)
            self._all.clear()
