"""What a session's actors have done, over a period."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from distort.cluster.activity import EdgeActivity, Lane, Snapshot, Tally, UnitActivity, lanes, percentiles


class Clock:
    now_ns = 0

    def __call__(self) -> int:
        return self.now_ns


@pytest.fixture
def clock() -> Iterator[Clock]:
    yield Clock()


def unit(busy_ns: int, executions: int = 1, *, epoch: int = 0, answers: bool = True) -> UnitActivity:
    return UnitActivity(0, 0, "stage0", "cpu:0", epoch, answers, executions, busy_ns)


def edge(nbytes: int, messages: int, value: str = "x", producer: int = -1) -> EdgeActivity:
    return EdgeActivity(value, producer, 0, "shm", nbytes, messages)


def test_time_counts_as_active_while_some_run_is_in_flight(clock: Clock) -> None:
    tally = Tally(clock)
    begun = []
    for clock.now_ns in (0, 50):
        begun.append(tally.begin())
    for clock.now_ns, began in zip((100, 180), begun, strict=True):
        tally.end(began, failed=False)
    clock.now_ns = 1000
    assert tally.snapshot([], []).active_ns == 180
    tally.begin()
    clock.now_ns = 1020
    snapshot = tally.snapshot([], [])
    assert (snapshot.active_ns, snapshot.in_flight, snapshot.done) == (200, 1, 2)
    assert snapshot.recent_s == (100e-9, 130e-9)


def test_latencies_are_counted_by_class_and_failures_apart(clock: Clock) -> None:
    tally = Tally(clock)
    for took_ns, failed in ((500_000, False), (600_000, False), (60_000_000_000, False), (1, True)):
        began = tally.begin()
        clock.now_ns += took_ns
        tally.end(began, failed)
    snapshot = tally.snapshot([], [])
    assert (snapshot.by_class[:2], snapshot.by_class[-1], sum(snapshot.by_class)) == ((1, 1), 1, 3)
    assert (snapshot.done, snapshot.failed) == (3, 1)


def test_a_period_is_a_difference(clock: Clock) -> None:
    tally = Tally(clock)
    began = tally.begin()
    before = tally.snapshot([unit(100)], [edge(8, 1)])
    clock.now_ns = 1000
    tally.end(began, failed=False)
    clock.now_ns = 2_000_000_000
    period = tally.snapshot([unit(350, 3)], [edge(24, 3), edge(5, 1, "h", 1)]).since(before)
    assert (period.done, period.seconds, period.runs_per_s) == (1, 2.0, 0.5)
    (only,) = period.units
    assert (only.executions, only.busy, only.bubble) == (2, 0.25, 0.75)
    assert lanes(period.edges) == [Lane(-1, 0, "shm", 1, 16, 2), Lane(1, 0, "shm", 1, 5, 1)]


@pytest.mark.parametrize(
    ("after", "busy"),
    [
        (unit(40, epoch=1), 0.4),  # its counts began anew
        (unit(0, answers=False), None),
        (unit(1300), 1.0),  # read a little later than the clock
    ],
)
def test_actors_that_were_restarted_or_are_silent(clock: Clock, after: UnitActivity, busy: float | None) -> None:
    tally = Tally(clock)
    before = tally.snapshot([unit(100)], [])
    began = tally.begin()
    clock.now_ns = 100
    tally.end(began, failed=False)
    period = tally.snapshot([after], []).since(before)
    assert period.units[0].busy == busy
    assert period.restarts == after.epoch


def test_snapshots_travel_as_json(clock: Clock) -> None:
    tally = Tally(clock)
    tally.end(tally.begin(), failed=False)
    snapshot = tally.snapshot([unit(3)], [edge(8, 1)])
    assert Snapshot.from_dict(json.loads(json.dumps(snapshot.as_dict()))) == snapshot


def test_percentiles() -> None:
    assert percentiles([]) == ()
    assert percentiles([3.0]) == (3.0, 3.0, 3.0)
    assert percentiles([float(i) for i in range(101)]) == (50.0, 90.0, 99.0)
