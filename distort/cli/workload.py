"""A number of runs in flight for a while, and how long each took."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

#: how often whoever watches is told
_TICK_S = 0.5


@dataclass(slots=True)
class Stretch:
    """Runs of some time in which as many were in flight as was asked for."""

    seconds: float = 0.0
    latencies_s: list[float] = field(default_factory=list)

    @property
    def runs_per_s(self) -> float:
        return len(self.latencies_s) / self.seconds if self.seconds > 0 else 0.0

    def add(self, other: Stretch) -> None:
        self.seconds += other.seconds
        self.latencies_s += other.latencies_s


def keep_running(
    run: Callable[[], object],
    in_flight: int,
    seconds: float,
    *,
    at_least: int = 1,
    on_tick: Callable[[Stretch], None] | None = None,
) -> Stretch:
    """Call ``run`` from ``in_flight`` threads for a time, and ``at_least`` so often. Raises what a call raises."""
    stretch = Stretch()
    begin = time.perf_counter()
    until = begin + seconds
    left = [at_least]
    errors: list[BaseException] = []
    lock = threading.Lock()

    def caller() -> None:
        while not errors:
            with lock:
                if time.perf_counter() >= until and left[0] <= 0:
                    return
                left[0] -= 1
            started = time.perf_counter()
            try:
                run()
            except BaseException as error:  # noqa: BLE001  # raised below, on the thread that waits
                errors.append(error)
                return
            stretch.latencies_s.append(time.perf_counter() - started)

    threads = [threading.Thread(target=caller, name="distort-bench", daemon=True) for _ in range(in_flight)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():
                thread.join(_TICK_S)
                if on_tick is not None and thread.is_alive():
                    stretch.seconds = time.perf_counter() - begin
                    on_tick(stretch)
    except BaseException as error:
        errors.append(error)
        raise
    stretch.seconds = time.perf_counter() - begin
    if errors:
        raise errors[0]
    return stretch
