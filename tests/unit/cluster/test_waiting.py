"""Who reads while callers wait for their runs."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from distort.cluster.transport.base import News, Transport
from distort.cluster.waiting import Waiting

from ...conftest import wait_until


@dataclass
class Waited:
    number: int
    done: bool = False
    wake: threading.Event | None = None


class Sockets:
    """A transport of which nothing can be read while its hosts are away."""

    def __init__(self) -> None:
        self.polls = False
        self.n_polls = 0
        self.answered = threading.Event()

    def poll(self, timeout_s: float | None) -> Sequence[News]:
        self.n_polls += 1
        self.answered.wait(5)
        return [cast(News, "an answer")]

    def wake(self) -> None:
        self.answered.set()


def test_a_caller_that_waits_while_all_hosts_are_away_reads_when_they_are_back() -> None:
    sockets = Sockets()
    waiting = Waiting(cast(Transport, sockets), threading.Lock())
    run = Waited(1)
    heard: list[Any] = []

    def hear(news: Sequence[News]) -> None:
        heard.extend(news)
        run.done = True

    def caller() -> None:
        while not run.done:  # a wait may end early
            waiting.wait(run, 10, hear)

    thread = threading.Thread(target=caller)
    began = time.monotonic()
    thread.start()
    assert wait_until(lambda: run.wake is not None, 5)
    assert sockets.n_polls == 0
    sockets.polls = True
    waiting.linked()
    assert wait_until(lambda: sockets.n_polls == 1, 5)
    sockets.answered.set()
    thread.join(10)
    assert heard == ["an answer"] and not thread.is_alive()
    assert time.monotonic() - began < 8
