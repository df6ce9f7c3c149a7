"""Callers that wait for their runs: where a transport has to be polled, one of them leads, and reads for all.

When the leader's own run is done it wakes another, which leads then. So a run from one thread goes out and comes back
without a change of threads, and there is no thread that reads where nobody waits.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from distort.cluster.transport.base import News, Transport

#: is given what a poll brought
Hear = Callable[[Sequence[News]], None]


class Waited(Protocol):
    """A run, as its waiting caller sees it."""

    number: int
    done: bool
    #: set when the run is done, or when its caller is to lead; there where a caller waits and doesn't lead
    wake: threading.Event | None


class Waiting:
    """``lock`` guards the runs' ``done`` and ``wake``."""

    def __init__(self, transport: Transport, lock: threading.Lock) -> None:
        self._transport = transport
        self._lock = lock
        self._leading = threading.Lock()  # held by the thread that polls
        self._leader: int | None = None
        self._followers: dict[int, Waited] = {}

    def wait(self, run: Waited, timeout_s: float | None, hear: Hear) -> None:
        """Until the run is done, or the time is over; it may end early."""
        if self._may_lead():
            self._lead(run, timeout_s, hear)
        else:
            self._follow(run, timeout_s, hear)

    def _may_lead(self) -> bool:
        """Take the lead, if nobody has it and there is something to read."""
        return self._transport.polls and self._leading.acquire(blocking=False)

    def _follow(self, run: Waited, timeout_s: float | None, hear: Hear) -> None:
        with self._lock:
            if run.done:
                return
            wake = run.wake = threading.Event()
            self._followers[run.number] = run
        # it is known now: whoever led before, or linked hosts, either wakes it or has let go already
        if self._may_lead():
            self._leave(run)
            self._lead(run, timeout_s, hear)
            return
        try:
            wake.wait(timeout_s)
        finally:
            self._leave(run)

    def _leave(self, run: Waited) -> None:
        with self._lock:
            run.wake = None
            self._followers.pop(run.number, None)

    def _lead(self, run: Waited, timeout_s: float | None, hear: Hear) -> None:
        """Read for everybody until this run is done. The caller has taken the lead, and this gives it back."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        self._leader = threading.get_ident()
        try:
            while not run.done:
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    break
                hear(self._transport.poll(left))
        finally:
            self._leader = None
            self._leading.release()
            self._pass_on()

    def linked(self) -> None:
        """There is something to read again: while all hosts were away, nobody led."""
        self._pass_on()

    def _pass_on(self) -> None:
        """Wake one of the callers that wait, to lead."""
        if self._followers:
            with self._lock:
                for run in self._followers.values():
                    if not run.done and run.wake is not None:
                        run.wake.set()
                        return

    def look(self, hear: Hear) -> None:
        """Read what has come, where nobody waits for it."""
        if self._may_lead():
            try:
                hear(self._transport.poll(0))
            finally:
                self._leading.release()
                self._pass_on()

    def ended(self, run: Waited) -> None:
        """Wake the caller of a run that is done. Called with the lock."""
        if run.wake is not None:
            run.wake.set()
        elif self._leader is not None and self._leader != threading.get_ident():
            self._transport.wake()

    def close(self, end: Callable[[], None]) -> None:
        """Call ``end`` when nobody polls. All runs are done."""
        self._transport.wake()
        with self._leading:
            end()
