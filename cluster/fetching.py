"""Values that stay on actors, on their way to callers that ask for them over the actors' sockets."""

from __future__ import annotations

import itertools
import threading
from dataclasses import dataclass
from typing import Any

from distort.cluster.errors import SessionClosed, StageLost
from distort.cluster.transport.base import Fetched, StageHost
from distort.cluster.waiting import Hear, Waiting


@dataclass(slots=True, eq=False)
class _Fetch:
    number: int
    unit: int
    epoch: int
    done: bool = False
    wake: threading.Event | None = None  # see waiting.py
    answer: Fetched | None = None


class Fetching:
    """``lock`` guards it, as it does the runs."""

    def __init__(self, waiting: Waiting, lock: threading.Lock) -> None:
        self._waiting = waiting
        self._lock = lock
        # not those of runs, by which followers are told apart
        self._numbers = itertools.count(-1, -1)
        self._fetches: dict[int, _Fetch] = {}
        self._closed = False

    def fetch(self, host: StageHost, unit: int, key: int, hear: Hear) -> Fetched | None:
        """A value that a host holds; None where the host can't be asked. Not with the lock."""
        with self._lock:
            if self._closed:
                return None
            fetch = _Fetch(next(self._numbers), unit, host.epoch)
            self._fetches[fetch.number] = fetch
        if not host.fetch(key, -fetch.number):
            with self._lock:
                self._fetches.pop(fetch.number, None)
            return None
        while not fetch.done:
            self._waiting.wait(fetch, None, hear)
        return fetch.answer

    # with the lock

    def answered(self, news: Fetched) -> None:
        fetch = self._fetches.pop(-news.request, None)
        if fetch is not None:
            fetch.answer = news
            fetch.done = True
            self._waiting.ended(fetch)

    def lost(self, unit: int, epoch: int, reason: str) -> None:
        """A host is gone: nobody answers."""
        for fetch in [f for f in self._fetches.values() if (f.unit, f.epoch) == (unit, epoch)]:
            self.answered(Fetched(-fetch.number, error=StageLost(reason)))

    def close(self) -> None:
        self._closed = True
        for number in list(self._fetches):
            self.answered(Fetched(-number, error=SessionClosed("The session was closed.")))


def result_of(answer: Fetched) -> Any:
    """The value. Raises what kept it from coming."""
    if answer.error is not None:
        raise answer.error
    return answer.value
