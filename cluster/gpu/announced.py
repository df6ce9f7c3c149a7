"""Values that wait on a GPU for readers of other hosts: who may have each, and until when. Pure.

A reader asks for a value by its key once it runs what needs it. Until all readers have asked, or the run is over, the
value's memory is held.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection
from typing import Generic, TypeVar

Memory = TypeVar("Memory")


class Announced(Generic[Memory]):
    """``let_go`` is called with memory that nobody will ask for any more. One thread at a time."""

    def __init__(self, let_go: Callable[[Memory], None]) -> None:
        self._let_go = let_go
        self._keys = itertools.count(1)
        self._values: dict[int, tuple[int, Memory, set[int]]] = {}  # key -> run, memory, units that have not asked

    def __len__(self) -> int:
        return len(self._values)

    def add(self, run: int, memory: Memory, units: Collection[int]) -> int:
        """The key of a value of a run, for units that will ask for it."""
        key = next(self._keys)
        self._values[key] = (run, memory, set(units))
        return key

    def take(self, key: int, unit: int) -> Memory | None:
        """What a unit asks for, once; None where it is not there (any more). Followed by :meth:`taken`."""
        entry = self._values.get(key)
        return entry[1] if entry is not None and unit in entry[2] else None

    def taken(self, key: int, unit: int) -> None:
        """The unit is on its way to have it."""
        entry = self._values.get(key)
        if entry is None:
            return
        entry[2].discard(unit)
        if not entry[2]:
            self._drop(key)

    def forget_before(self, oldest: int) -> None:
        """Runs with a lower number are over."""
        for key in [key for key, (run, _, _) in self._values.items() if run < oldest]:
            self._drop(key)

    def cancel(self, run: int) -> None:
        for key in [key for key, (of, _, _) in self._values.items() if of == run]:
            self._drop(key)

    def lose(self, unit: int) -> None:
        """A unit is gone, and asks for nothing."""
        for key in list(self._values):
            self.taken(key, unit)

    def clear(self) -> None:
        for key in list(self._values):
            self._drop(key)

    def _drop(self, key: int) -> None:
        self._let_go(self._values.pop(key)[1])
