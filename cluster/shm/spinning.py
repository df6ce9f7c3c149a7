"""Waiting awake for a moment: a processor that has gone to sleep takes longer to wake than most messages take."""

from __future__ import annotations

import os
import select
import time

#: longer than the answer of a small stage takes, where processes share cores too
DEFAULT_SPIN_US = 2000
#: how much of what is typical the last wait is, and the most that it counts for, in times of ``most_s``: who was awake
#: stays so after one pause, or two
_WEIGHT, _MOST_COUNTED = 0.25, 2.0


class Spinner:
    """Polls an epoll; where waits have been short lately, awake for up to ``most_s``, else asleep at once.

    Others on this processor go first, so that who is waited for is not held up.
    """

    def __init__(self, epoll: select.epoll, most_s: float) -> None:
        self._epoll = epoll
        self.most_s = most_s
        self._typical_s = 0.0

    def poll(self, timeout_s: float | None = None) -> list[tuple[int, int]]:
        """As the epoll's own; None: as long as it takes."""
        most_s = self.most_s
        if most_s <= 0:
            return self._epoll.poll(timeout_s)
        began = now = time.perf_counter()
        if self._typical_s < most_s and (timeout_s is None or timeout_s > most_s):
            poll, give_way, clock, end = self._epoll.poll, os.sched_yield, time.perf_counter, began + most_s
            while now < end:
                events = poll(0)
                if events:
                    self._typical_s += _WEIGHT * (now - began - self._typical_s)
                    return events
                give_way()
                now = clock()
        events = self._epoll.poll(timeout_s)
        waited_s = min(time.perf_counter() - began, _MOST_COUNTED * most_s)
        self._typical_s += _WEIGHT * (waited_s - self._typical_s)
        return events
