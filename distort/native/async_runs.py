"""Runs of ``run_async``: on threads of their own, in order for each caller, and no more of them than are good.

A caller's runs begin in the order of its calls, and its callbacks are called in that order. On actors, where many runs
in flight are the point, a caller that is far ahead of them waits.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from distort import errors, logs

#: runs at once, at least
_LEAST_THREADS = 8
_NAME = "distort-async"


@dataclass(slots=True, eq=False)
class _Turn:
    """A run's place among those of its caller."""

    before: _Turn | None
    begun: threading.Event = field(default_factory=threading.Event)
    told: threading.Event = field(default_factory=threading.Event)


#: does a run, and calls its argument as soon as it has begun
Job = Callable[[Callable[[], None]], list[Any]]


class AsyncRuns:
    """``most`` bounds what a caller may be ahead of the runs; None: it may be as far ahead as it likes."""

    def __init__(self, n_threads: int = _LEAST_THREADS, most: int | None = None) -> None:
        self._pool = ThreadPoolExecutor(max(_LEAST_THREADS, n_threads), thread_name_prefix=_NAME)
        self._pid = os.getpid()
        self._room = threading.Semaphore(most) if most is not None else None
        self._lock = threading.Lock()
        self._last: dict[int, _Turn] = {}  # by the caller's thread

    @property
    def usable(self) -> bool:
        """Threads don't survive a fork."""
        return self._pid == os.getpid()

    def submit(self, job: Job, tell: Callable[[list[Any], str], None]) -> None:
        """``tell`` gets the results, or the text of the error."""
        # a callback may start runs: it can't wait for itself
        room = None if threading.current_thread().name.startswith(_NAME) else self._room
        if room is not None:
            room.acquire()
        caller = threading.get_ident()
        with self._lock:
            turn = _Turn(self._last.get(caller))
            self._last[caller] = turn
        try:
            self._pool.submit(self._do, job, tell, caller, turn, room)
        except BaseException:
            self._end(caller, turn, room)
            raise

    def _do(
        self,
        job: Job,
        tell: Callable[[list[Any], str], None],
        caller: int,
        turn: _Turn,
        room: threading.Semaphore | None,
    ) -> None:
        if turn.before is not None:
            turn.before.begun.wait()
        results: list[Any] = []
        text = ""
        try:
            results = job(turn.begun.set)
        except Exception as error:  # noqa: BLE001  # the callback is told, whatever it is
            text = errors.text_of(error)
        turn.begun.set()
        try:
            if turn.before is not None:
                turn.before.told.wait()
            tell(results, text)
        except Exception as error:  # noqa: BLE001  # the caller's own, and nobody waits for it
            logs.DEFAULT.log(logs.ERROR, f"A callback of run_async raised {type(error).__name__}: {error}")
        finally:
            self._end(caller, turn, room)

    def _end(self, caller: int, turn: _Turn, room: threading.Semaphore | None) -> None:
        turn.begun.set()
        turn.told.set()
        turn.before = None
        with self._lock:
            if self._last.get(caller) is turn:
                del self._last[caller]
        if room is not None:
            room.release()

    def close(self) -> None:
        """Wait for the runs under way; a callback that closes its session waits for nothing."""
        if self.usable:
            self._pool.shutdown(wait=not threading.current_thread().name.startswith(_NAME))
