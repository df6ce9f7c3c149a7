"""Waiting awake for a moment: a processor that has gone to sleep takes longer to wake than most messages take."""

from __future__ import annotations

import os
import select
import time

#: long enough for an answer of a small stage, and a small part of what a large one takes
DEFAULT_SPIN_US = 250


def spin(epoll: select.epoll, duration_s: float) -> list[tuple[int, int]] | None:
    """What an epoll has to say within a short time; None where that is nothing. Others on this processor go first."""
    if duration_s <= 0:
        return None
    end = time.perf_counter() + duration_s
    while True:
        events = epoll.poll(0)
        if events:
            return events
        if time.perf_counter() >= end:
            return None
        os.sched_yield()
