"""What a session's actors have done: runs, busy time, bytes by edge; and what that makes of a period.

A :class:`Tally` counts runs as they begin and end. A :class:`Snapshot` is all that is known at one moment, plain data;
a :class:`Period` is what lies between two of them.
"""

from __future__ import annotations

import bisect
import statistics
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from distort.cluster.orders import ActorStats
from distort.scheduler.units import Units

#: upper bounds of the classes that latencies are counted in; one more class has what is above
LATENCY_BOUNDS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
#: the last latencies, of which percentiles are told
_RECENT = 1024


class Tally:
    """Runs, counted under the executor's lock."""

    def __init__(self, clock_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self._clock_ns = clock_ns
        self.done = 0
        self.failed = 0
        self.in_flight = 0
        self.total_s = 0.0  # the latencies of those that are done, added up
        self.by_class = [0] * (len(LATENCY_BOUNDS_S) + 1)
        self.recent_s: deque[float] = deque(maxlen=_RECENT)
        self._uncounted_s: list[float] = []  # latencies of runs that are done: somebody waits for a run's end
        self.active_ns = 0  # time with a run in flight, up to when the last one ended
        self._active_since_ns = 0

    def begin(self) -> int:
        """The moment, for :meth:`end`."""
        now_ns = self._clock_ns()
        if not self.in_flight:
            self._active_since_ns = now_ns
        self.in_flight += 1
        return now_ns

    def end(self, began_ns: int, failed: bool) -> None:
        now_ns = self._clock_ns()
        self.in_flight -= 1
        if not self.in_flight:
            self.active_ns += now_ns - self._active_since_ns
        if failed:
            self.failed += 1
            return
        self.done += 1
        self._uncounted_s.append((now_ns - began_ns) / 1e9)
        if len(self._uncounted_s) >= _RECENT:
            self._add_up()

    def _add_up(self) -> None:
        for latency_s in self._uncounted_s:
            self.total_s += latency_s
            self.by_class[bisect.bisect_left(LATENCY_BOUNDS_S, latency_s)] += 1
        self.recent_s += self._uncounted_s
        self._uncounted_s.clear()

    def snapshot(self, units: Sequence[UnitActivity], edges: Sequence[EdgeActivity]) -> Snapshot:
        """With what actors and edges have come to."""
        now_ns = self._clock_ns()
        self._add_up()
        return Snapshot(
            at_ns=now_ns,
            done=self.done,
            failed=self.failed,
            in_flight=self.in_flight,
            active_ns=self.active_ns + (now_ns - self._active_since_ns if self.in_flight else 0),
            total_s=self.total_s,
            by_class=tuple(self.by_class),
            recent_s=tuple(self.recent_s),
            units=tuple(units),
            edges=tuple(edges),
        )


@dataclass(frozen=True, slots=True)
class UnitActivity:
    """A stage's actor, or a replica's. Counts are since the actor was loaded, which a restart does anew."""

    unit: int
    stage: int
    name: str
    device: str
    epoch: int  # its restarts
    answers: bool  # else it did not say, and all counts are 0
    executions: int = 0
    busy_ns: int = 0
    queued: int = 0  # orders that wait
    held: int = 0  # values that stay for callers
    held_nbytes: int = 0
    slots_nbytes: int = 0  # shared memory that it sends from
    program: str = ""  # what of the stage is compiled, in words


def unit_activity(units: Units, unit: int, epoch: int, stats: ActorStats | None) -> UnitActivity:
    """A unit's, of what its actor says (None: nothing)."""
    known = (unit, units.stage_of[unit], units.name(unit), units.device_of[unit].id, epoch)
    if stats is None:
        return UnitActivity(*known, answers=False)
    counts = (stats.executions, stats.busy_ns, stats.queued, stats.held, stats.held_nbytes, stats.slots_nbytes)
    return UnitActivity(*known, True, *counts, stats.program)


@dataclass(frozen=True, slots=True)
class EdgeActivity:
    """One value on its way from stage to stage (-1: the caller)."""

    value: str
    producer: int
    consumer: int
    transport: str
    nbytes: int
    messages: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All since the session was made."""

    at_ns: int  # of a clock that only goes on
    done: int
    failed: int
    in_flight: int
    active_ns: int
    total_s: float
    by_class: tuple[int, ...]  # runs that are done, by LATENCY_BOUNDS_S
    recent_s: tuple[float, ...]
    units: tuple[UnitActivity, ...]
    edges: tuple[EdgeActivity, ...]

    @property
    def restarts(self) -> int:
        return sum(unit.epoch for unit in self.units)

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, told: Mapping[str, Any]) -> Snapshot:
        """Raises KeyError and TypeError for what :meth:`as_dict` did not make."""
        return cls(
            **{
                **told,
                "by_class": tuple(told["by_class"]),
                "recent_s": tuple(told["recent_s"]),
                "units": tuple(UnitActivity(**unit) for unit in told["units"]),
                "edges": tuple(EdgeActivity(**edge) for edge in told["edges"]),
            }
        )

    def since(self, before: Snapshot | None = None) -> Period:
        """The period from another snapshot of the same session (None: from its first run) to this one."""
        return Period(before, self)


@dataclass(frozen=True, slots=True)
class UnitPeriod:
    """Shares are of the time in which some run was in flight; None where the actor was silent or nothing ran."""

    now: UnitActivity
    executions: int
    busy: float | None
    bubble: float | None  # the rest: the actor had nothing to do while runs were in flight


@dataclass(frozen=True, slots=True)
class EdgePeriod:
    edge: EdgeActivity
    nbytes: int
    messages: int


class Period:
    """Differences of two snapshots."""

    def __init__(self, before: Snapshot | None, after: Snapshot) -> None:
        self.after = after
        self.done = after.done - (before.done if before else 0)
        self.failed = after.failed - (before.failed if before else 0)
        self.restarts = after.restarts - (before.restarts if before else 0)
        self.active_s = max(0, after.active_ns - (before.active_ns if before else 0)) / 1e9
        #: the whole of it; without a first snapshot, what of it was active
        self.seconds = (after.at_ns - before.at_ns) / 1e9 if before else self.active_s
        known = {unit.unit: unit for unit in before.units} if before else {}
        self.units = tuple(self._unit(known.get(unit.unit), unit) for unit in after.units)
        seen = {_key(edge): edge for edge in before.edges} if before else {}
        self.edges = tuple(_edge(seen.get(_key(edge)), edge) for edge in after.edges)

    @property
    def runs_per_s(self) -> float:
        return self.done / self.seconds if self.seconds > 0 else 0.0

    def _unit(self, before: UnitActivity | None, after: UnitActivity) -> UnitPeriod:
        if not after.answers:
            return UnitPeriod(after, 0, None, None)
        executions, busy_ns = after.executions, after.busy_ns
        if before is not None and before.epoch == after.epoch:  # else it began anew
            executions -= before.executions
            busy_ns -= before.busy_ns
        if self.active_s <= 0:
            return UnitPeriod(after, executions, None, None)
        # the two are read at slightly different moments
        busy = min(1.0, max(0.0, busy_ns / 1e9 / self.active_s))
        return UnitPeriod(after, executions, busy, 1.0 - busy)


def _key(edge: EdgeActivity) -> tuple[str, int, int, str]:
    return edge.value, edge.producer, edge.consumer, edge.transport


def _edge(before: EdgeActivity | None, after: EdgeActivity) -> EdgePeriod:
    if before is None:
        return EdgePeriod(after, after.nbytes, after.messages)
    return EdgePeriod(after, after.nbytes - before.nbytes, after.messages - before.messages)


def percentiles(latencies_s: Sequence[float], of: Sequence[int] = (50, 90, 99)) -> tuple[float, ...]:
    """Interpolated between the two nearest, as numpy does; of nothing: nothing."""
    if not latencies_s:
        return ()
    if len(latencies_s) == 1:
        return (latencies_s[0],) * len(of)
    cuts = statistics.quantiles(latencies_s, n=100, method="inclusive")
    return tuple(cuts[percent - 1] for percent in of)


@dataclass(frozen=True, slots=True)
class Lane:
    """All that went from one stage to another by one transport."""

    producer: int
    consumer: int
    transport: str
    values: int
    nbytes: int
    messages: int


def lanes(edges: Sequence[EdgePeriod]) -> list[Lane]:
    """Edges put together by their ends and transport, those along which nothing went left out."""
    found: dict[tuple[int, int, str], list[EdgePeriod]] = {}
    for edge in edges:
        if edge.messages:
            found.setdefault((edge.edge.producer, edge.edge.consumer, edge.edge.transport), []).append(edge)
    return [
        Lane(*ends, len(of), sum(edge.nbytes for edge in of), sum(edge.messages for edge in of))
        for ends, of in sorted(found.items())
    ]
