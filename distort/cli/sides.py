"""Those that are measured against each other, and how their turns went."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from distort.cli.workload import Stretch

if TYPE_CHECKING:
    from distort.cli.rivals import Difference

#: runs of each side before any is measured: allocators, threads and shapes that are learned
WARM_RUNS = 5


@dataclass(slots=True)
class Side:
    """What makes a run, and the stretches of its turns."""

    name: str
    run: Callable[[], object]
    turns: list[Stretch] = field(default_factory=list)
    difference: Difference | None = None  # of a rival's outputs from ours

    @property
    def latencies_s(self) -> list[float]:
        return [latency for turn in self.turns for latency in turn.latencies_s]

    @property
    def median_s(self) -> float:
        return statistics.median(self.latencies_s)

    @property
    def runs_per_s(self) -> float:
        """The median of its turns."""
        return statistics.median(turn.runs_per_s for turn in self.turns)

    def as_dict(self) -> dict[str, Any]:
        from distort.cli.activity import PERCENTILES
        from distort.cluster.activity import percentiles

        times = percentiles(self.latencies_s, PERCENTILES)
        latency = {f"p{of}": s * 1e3 for of, s in zip(PERCENTILES, times, strict=True)}
        return {"runs": len(self.latencies_s), "runs_per_s": self.runs_per_s, "latency_ms": latency}


def alternate(
    sides: Sequence[Side],
    seconds: float,
    *,
    at_least: int = WARM_RUNS,
    on_tick: Callable[[Stretch], None] | None = None,
    tick_s: float = 0.5,
) -> None:
    """A run of each side in turn, for a time and at least so often. Raises what a run raises."""
    stretches = [Stretch() for _ in sides]
    until = time.perf_counter() + seconds
    told = time.perf_counter()
    n_rounds = 0
    while n_rounds < at_least or time.perf_counter() < until:
        n_rounds += 1
        for side, stretch in zip(sides, stretches, strict=True):
            began = time.perf_counter()
            side.run()
            took = time.perf_counter() - began
            stretch.latencies_s.append(took)
            stretch.seconds += took
        if on_tick is not None and time.perf_counter() - told > tick_s:
            told = time.perf_counter()
            on_tick(stretches[0])
    for side, stretch in zip(sides, stretches, strict=True):
        side.turns.append(stretch)
