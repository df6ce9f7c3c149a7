"""Memory that a GPU still reads, to be released when its work has got there. Pure: an event has ``done``."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Protocol


class _Event(Protocol):
    @property
    def done(self) -> bool: ...


class _Reading(Protocol):
    def release(self) -> None: ...


class Releases:
    """In the order of one stream: what waits behind something that isn't done isn't done either."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[_Event, tuple[_Reading, ...]]] = deque()

    def after(self, event: _Event, readings: Sequence[_Reading]) -> None:
        """Release ``readings`` when ``event`` is done."""
        if readings:
            self._waiting.append((event, tuple(readings)))

    def poll(self) -> bool:
        """Release what can be. Whether something waits still."""
        while self._waiting and self._waiting[0][0].done:
            for reading in self._waiting.popleft()[1]:
                reading.release()
        return bool(self._waiting)

    def __len__(self) -> int:
        return len(self._waiting)
