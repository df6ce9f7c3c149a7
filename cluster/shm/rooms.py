"""Where a stage's program makes what others are to read: in the slot itself, so that it need not be copied there."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from distort.cluster.shm.slots import Slot, SlotPool
from distort.cluster.shm.wire import Staged, in_slot, stage


class Rooms:
    """Of one run. ``readers``: who reads each value, and clears a flag of its slot then.

    Values up to ``inline_nbytes`` lie in messages; those in ``kept`` stay with the actor too.
    """

    def __init__(
        self, pool: SlotPool, readers: Mapping[str, tuple[Any, ...]], inline_nbytes: int, kept: Sequence[str] = ()
    ) -> None:
        self._pool, self._readers, self._inline_nbytes, self._kept = pool, readers, inline_nbytes, kept
        self._made: dict[str, tuple[npt.NDArray[Any], Slot]] = {}

    def room(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> npt.NDArray[Any] | None:
        """Memory for a value; None where it is to be made elsewhere."""
        nbytes = math.prod(shape) * dtype.itemsize
        if name not in self._readers or name in self._kept or name in self._made or nbytes <= self._inline_nbytes:
            return None
        try:
            slot = self._pool.take(nbytes, self._readers[name])
        except OSError:
            return None  # who stages it will say so
        made = slot.payload(nbytes).view(dtype).reshape(shape)
        self._made[name] = (made, slot)
        return made

    def pack(self, values: Mapping[str, Any]) -> dict[str, tuple[Staged, tuple[Any, ...]]]:
        """What others read, ready to be sent, with its readers. Raises OSError where there is no memory."""
        return {name: (self._stage(name, values[name], readers), readers) for name, readers in self._readers.items()}

    def _stage(self, name: str, value: Any, readers: tuple[Any, ...]) -> Staged:
        found = self._made.get(name)
        if found is None or found[0] is not value:
            return stage(value, self._pool, readers, self._inline_nbytes)
        del self._made[name]
        return in_slot(*found)

    def close(self) -> None:
        """Give back what was not taken."""
        while self._made:
            _, (_, slot) = self._made.popitem()
            slot.flags[: len(slot.readers)] = bytes(len(slot.readers))
