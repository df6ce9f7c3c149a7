"""Orders of a stage and the mail that they wait for, by run.

Orders are run in the order of their runs, but one whose mail is not complete lets others go first. What a run is sent
before its order is kept; what comes for a run that is over (orders tell the oldest under way) is let go.
"""

from __future__ import annotations

import heapq
import threading
from collections.abc import Sequence
from typing import Any

from distort.cluster.errors import ClusterError
from distort.cluster.shm.slots import Reading

#: number of a value's name, the value, its bytes
Values = Sequence[tuple[int, Any, int]]


_NOTHING = (0, 0)


class Mail:
    """What has come for one run."""

    __slots__ = ("missing", "nbytes", "order", "readings", "run", "values")

    def __init__(self, run: int) -> None:
        self.run = run
        self.order: Any = None  # as the mailroom was given it, where it has come
        self.missing: set[str] = set()  # values that the order waits for
        self.values: dict[str, Any] = {}
        self.nbytes: dict[str, int] = {}  # of those that other stages sent
        self.readings: list[Reading] = []

    def release(self) -> None:
        """The slots that values lie in may be written again."""
        for reading in self.readings:
            reading.release()
        self.readings.clear()


class Mailroom:
    """Thread-safe. ``names``: of values, by number."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._n_waiting = 0  # calls that wait for mail
        self._mail: dict[int, Mail] = {}  # by run; of those that wait, or are sent mail before their order
        self._complete: list[int] = []  # runs whose orders and mail are there: a heap
        self._cancelled: set[int] = set()
        self._closed = False
        self.oldest = 0  # run under way
        #: mail, by name: bytes, messages
        self.received: dict[str, tuple[int, int]] = {}

    @property
    def queued(self) -> int:
        """Orders that wait."""
        return sum(mail.order is not None for mail in list(self._mail.values()))

    def enter(
        self, run: int, order: Any, wanted: Sequence[str], oldest: int, values: Values, readings: list[Reading]
    ) -> None:
        """An order, with the values that come along; it waits for mail of the names that are ``wanted``."""
        names = self._names
        with self._lock:
            if oldest > self.oldest:
                self._forget_before(oldest)
            mail = self._mail_of(run, readings)
            if mail is None:
                return
            for number, value, _ in values:
                mail.values[names[number]] = value
            mail.order = order
            if wanted:
                mail.missing = {name for name in wanted if name not in mail.values}
            if not mail.missing:
                heapq.heappush(self._complete, run)

    def put(self, run: int, values: Values, readings: list[Reading]) -> None:
        """Mail of another stage."""
        with self._lock:
            mail = self._put(run, values, readings)
            if mail is not None and mail.order is not None and not mail.missing:
                heapq.heappush(self._complete, run)
            if self._n_waiting:
                self._changed.notify_all()

    def put_with_order(
        self, run: int, order: Any, wanted: Sequence[str], oldest: int, values: Values, readings: list[Reading]
    ) -> None:
        """As :meth:`put`, and then :meth:`enter`: mail that an order goes along with."""
        with self._lock:
            mail = self._put(run, values, readings)
            if oldest > self.oldest:
                self._forget_before(oldest)
            if mail is not None:
                mail.order = order
                mail.missing = {name for name in wanted if name not in mail.values}
                if not mail.missing:
                    heapq.heappush(self._complete, run)

    def _put(self, run: int, values: Values, readings: list[Reading]) -> Mail | None:
        received, names = self.received, self._names
        if run < self.oldest:
            mail = None
            for reading in readings:
                reading.release()
        else:
            mail = self._mail_of(run, readings)
        for number, value, nbytes in values:
            name = names[number]
            before = received.get(name, _NOTHING)
            received[name] = (before[0] + nbytes, before[1] + 1)
            if mail is not None:
                mail.values[name] = value
                mail.nbytes[name] = nbytes
                if mail.missing:
                    mail.missing.discard(name)
        return mail

    def _mail_of(self, run: int, readings: list[Reading]) -> Mail | None:
        """What has come for a run, ``readings`` too; None, and these are given back, where it was cancelled."""
        if self._cancelled and run in self._cancelled:
            mail = self._mail.pop(run, None)
            if mail is not None:
                mail.release()
            for reading in readings:
                reading.release()
            return None
        mail = self._mail.get(run)
        if mail is None:
            mail = self._mail[run] = Mail(run)
        if readings:
            mail.readings += readings
        return mail

    def take(self) -> Mail | None:
        """The next run that has all it needs; it is the caller's now."""
        if not self._complete:
            return None
        complete = self._complete
        with self._lock:
            while complete:
                mail = self._mail.pop(heapq.heappop(complete), None)
                if mail is not None:
                    return mail
        return None

    @property
    def is_busy(self) -> bool:
        """Whether some run may have all it needs."""
        return bool(self._complete)

    def forget_before(self, oldest: int) -> None:
        """Runs with a lower number are over."""
        with self._lock:
            self._forget_before(oldest)

    def _forget_before(self, oldest: int) -> None:
        """``oldest`` may be one that is known already, or older. Called with the lock."""
        if oldest <= self.oldest:
            return
        self.oldest = oldest
        if self._mail:
            for run in [run for run, mail in self._mail.items() if run < oldest and mail.order is None]:
                self._mail.pop(run).release()
        if self._cancelled:
            self._cancelled = {run for run in self._cancelled if run >= oldest}

    def cancel(self, run: int) -> None:
        """Let go what is there for a run, and whatever comes."""
        with self._lock:
            self._cancelled.add(run)
            mail = self._mail.pop(run, None)
            if mail is not None:
                mail.release()
            self._changed.notify_all()

    def wait_for(self, run: int, names: Sequence[str], oldest: int) -> Mail:
        """For an order that came as a call: its mail. Raises ClusterError where the run was cancelled."""
        wanted = frozenset(names)
        with self._lock:
            self._forget_before(oldest)
            self._n_waiting += 1
            try:
                self._changed.wait_for(lambda: run in self._cancelled or self._closed or self._has(run, wanted))
            finally:
                self._n_waiting -= 1
            is_there = self._has(run, wanted)
            mail = self._mail.pop(run, None)
            if mail is None or not is_there:
                if mail is not None:
                    mail.release()
                raise ClusterError("The run was cancelled while it waited for values of another stage.")
        return mail

    def _has(self, run: int, wanted: frozenset[str]) -> bool:
        mail = self._mail.get(run)
        return mail is not None and wanted <= mail.values.keys()

    def close(self) -> None:
        """Nobody waits any longer."""
        with self._lock:
            self._closed = True
            self._changed.notify_all()


__all__ = ["Mail", "Mailroom"]
