"""Stage loops that talk to one another and to a caller, in threads of this process; killing one is closing it."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pytest

from distort.cluster.errors import ClusterError
from distort.cluster.orders import ExecuteOrder, StageReport
from distort.cluster.shm import loop as loops
from distort.cluster.shm.caller import Line, Switchboard
from distort.cluster.shm.loop import StageLoop
from distort.cluster.transport.base import Answer, Fetched, Loss
from distort.kernels.program import Room

from ...conftest import wait_until

NAMES = ("x", "a", "b", "y")
TOKEN = "secret"
numbers = itertools.count()

Stage = Callable[[Mapping[str, Any], Room], dict[str, Any]]


class Fleet:
    """Loops, linked to each other, and a switchboard with a line to each."""

    def __init__(self) -> None:
        self.loops: list[StageLoop] = []
        self.lines: list[Line] = []
        self.switchboard = Switchboard()
        self.cancelled: list[int] = []
        self.released: list[int] = []
        self.orders = itertools.count(1)

    def add(self, stage: Stage) -> int:
        unit = len(self.loops)

        def compute(
            order: ExecuteOrder, run: int, values: Mapping[str, Any], received: dict[str, int], room: Room
        ) -> tuple[dict[str, Any], StageReport]:
            return stage(values, room), StageReport(run, unit, 0, 0, dict(received), {})

        made = StageLoop(
            unit,
            NAMES,
            f"distort-test-{next(numbers)}-{id(self)}",
            TOKEN,
            compute,
            release=self.released.extend,
            export=lambda key: np.full(3, key),
            cancel=self.cancelled.append,
            on_caller_gone=lambda: None,
        )
        self.loops.append(made)
        self.lines.append(self.switchboard.connect(unit, 0, made.endpoint, TOKEN, NAMES))
        for one in self.loops:
            one.set_peers({other.unit: other.endpoint for other in self.loops})
        return unit

    def order(self, unit: int, order: ExecuteOrder, run: int, oldest: int = 0, **values: Any) -> None:
        number = next(self.orders)
        self.lines[unit].prepare(number, order)
        self.lines[unit].order(number, [values[name] for name in order.inputs], run, oldest)

    def hear(self, count: int = 1, timeout_s: float = 10.0) -> list[Answer | Loss | Fetched]:
        found: list[Answer | Loss | Fetched] = []
        deadline = time.monotonic() + timeout_s
        while len(found) < count and time.monotonic() < deadline:
            found += self.switchboard.poll(0.1)
        return found

    def quiet(self) -> bool:
        """Whether no slot is read any more; a loop lets its inputs go when it has answered."""
        pools = [self.switchboard.pool, *(made.out.pool for made in self.loops)]
        return wait_until(lambda: not any(pool.in_use() for pool in pools), 5)

    def close(self) -> None:
        self.switchboard.close()
        for made in self.loops:
            made.stop()


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    made = Fleet()
    yield made
    made.close()


def plus_one(source: str, target: str) -> Stage:
    return lambda values, _: {target: values[source] + 1}


def answer(news: Answer | Loss | Fetched) -> Answer:
    assert isinstance(news, Answer)
    return news


ALONE = ExecuteOrder(inputs=("x",), results=("y",))


def test_an_order_is_answered(fleet: Fleet) -> None:
    fleet.add(plus_one("x", "y"))
    for size in (1, 100_000):
        fleet.order(0, ALONE, run=8, x=np.zeros(size, np.float32))
        (news,) = fleet.hear()
        value, nbytes = answer(news).values["y"]
        np.testing.assert_array_equal(value, np.ones(size, np.float32))
        assert (answer(news).run, nbytes, value.flags.writeable) == (8, 4 * size, True)
    del value, news  # a large one lies where the stage wrote it
    assert fleet.quiet()


def test_what_is_made_in_its_room_is_not_copied(fleet: Fleet) -> None:
    addresses = []

    def stage(values: Mapping[str, Any], room: Room) -> dict[str, Any]:
        x = values["x"]
        assert room("x", x.shape, x.dtype) is None, "nobody reads it"
        made = room("y", x.shape, x.dtype)
        assert (made is None) == (x.nbytes < 5000)
        assert room("y", x.shape, x.dtype) is None, "there is one already"
        if made is None or x[0] == 7:  # may be made elsewhere all the same
            return {"y": x + 1}
        addresses.append(made.ctypes.data)
        assert made.ctypes.data % 64 == 0
        np.add(x, 1, out=made)
        if x[0] == 9:
            raise ClusterError("too bad")
        return {"y": made}

    fleet.add(stage)
    slots = fleet.loops[0].out.pool
    for size, first in ((3, 0), (100_000, 0), (100_000, 7), (100_000, 9), (100_000, 1)):
        fleet.order(0, ALONE, run=8, x=np.full(size, first, np.float32))
        (news,) = fleet.hear()
        if first == 9:
            assert isinstance(answer(news).error, ClusterError)
        else:
            np.testing.assert_array_equal(answer(news).values["y"][0], np.full(size, first + 1, np.float32))
        del news
        assert fleet.quiet()
    assert len(addresses) == 3 and len(set(addresses)) < 3, "a slot that is free serves again"
    assert sum(len(same) for same in slots._slots.values()) == 2, "one beside the one that was not used"


@pytest.mark.parametrize("size", [3, 100_000])
def test_values_pass_from_stage_to_stage(fleet: Fleet, size: int) -> None:
    """A chain, of which the last stage's order goes along with what it is sent."""
    fleet.add(plus_one("x", "a"))
    fleet.add(plus_one("a", "y"))
    last = ExecuteOrder(inputs=(), mail=("a",), results=("y",))
    fleet.lines[1].prepare(70, last)
    first = ExecuteOrder(inputs=("x",), sends=((1, ("a",)),), forwards=((1, 70),), silent=True)
    fleet.lines[0].prepare(71, first)
    for run in range(5):
        fleet.lines[0].order(71, [np.full(size, run)], run, run)
        (news,) = fleet.hear()
        np.testing.assert_array_equal(answer(news).values["y"][0], np.full(size, run + 2))
    del news
    assert fleet.loops[1].mail.received["a"] == (5 * 8 * size, 5)
    assert fleet.quiet()


def test_a_value_for_several_readers_and_the_caller_is_in_one_slot(fleet: Fleet) -> None:
    fleet.add(plus_one("x", "a"))
    fleet.add(plus_one("a", "b"))
    fleet.add(lambda values, _: {"y": values["a"] + values["b"]})
    big = np.zeros(100_000)
    fleet.order(2, ExecuteOrder(inputs=(), mail=("a", "b"), results=("y",)), 0)
    fleet.order(1, ExecuteOrder(inputs=(), mail=("a",), sends=((2, ("b",)),), silent=True), 0)
    fleet.order(0, ExecuteOrder(inputs=("x",), sends=((1, ("a",)), (2, ("a",))), results=("a",)), 0, x=big)
    found = {name: value for news in fleet.hear(2) for name, (value, _) in answer(news).values.items()}
    np.testing.assert_array_equal(found["y"], np.full(100_000, 3.0))
    np.testing.assert_array_equal(found["a"], np.full(100_000, 1.0))
    assert [len(same) for same in fleet.loops[0].out.pool._slots.values()] == [1]
    del found
    assert fleet.quiet()


def test_mail_may_come_before_its_order(fleet: Fleet) -> None:
    fleet.add(plus_one("x", "a"))
    fleet.add(plus_one("a", "y"))
    fleet.order(0, ExecuteOrder(inputs=("x",), sends=((1, ("a",)),)), 5, x=np.zeros(2))
    assert answer(fleet.hear()[0]).unit == 0
    assert fleet.hear(1, 0.1) == []
    fleet.order(1, ExecuteOrder(inputs=(), mail=("a",), results=("y",)), 5)
    assert answer(fleet.hear()[0]).values["y"][0].tolist() == [2, 2]


def test_an_order_that_waits_lets_others_go_first(fleet: Fleet) -> None:
    fleet.add(lambda values, _: {"y": next(iter(values.values()))})
    fleet.order(0, ExecuteOrder(inputs=(), mail=("a",), results=("y",)), 0)
    fleet.order(0, ALONE, 8, x=np.ones(1))
    assert answer(fleet.hear()[0]).run == 8
    assert fleet.loops[0].mail.queued == 1


def test_what_was_cancelled_is_not_run_and_keeps_no_slot(fleet: Fleet) -> None:
    fleet.add(plus_one("x", "a"))
    fleet.add(plus_one("a", "y"))
    waiting = ExecuteOrder(inputs=("x",), mail=("a",), results=("y",))
    fleet.order(1, waiting, 0, x=np.zeros(100_000))
    fleet.lines[1].cancel(0)
    fleet.order(1, waiting, 0, x=np.zeros(100_000))  # comes late
    # late mail is let go
    fleet.order(0, ExecuteOrder(inputs=("x",), sends=((1, ("a",)),)), 0, x=np.zeros(100_000))
    fleet.hear()
    fleet.order(1, ALONE_ON_A, 8, 8, x=np.zeros(1), a=np.zeros(1))
    assert answer(fleet.hear()[0]).run == 8
    assert fleet.cancelled == [0]
    assert fleet.quiet()


ALONE_ON_A = ExecuteOrder(inputs=("x", "a"), results=("y",))


def test_mail_of_runs_that_are_over_is_let_go(fleet: Fleet) -> None:
    fleet.add(plus_one("x", "a"))
    fleet.add(plus_one("a", "y"))
    for run in range(3):
        fleet.order(0, ExecuteOrder(inputs=("x",), sends=((1, ("a",)),)), run, x=np.zeros(100_000))
        fleet.hear()
    assert fleet.loops[0].out.pool.in_use() == 3
    fleet.order(1, ALONE_ON_A, 9, oldest=9, x=np.zeros(1), a=np.zeros(1))
    fleet.hear()
    assert fleet.quiet()


def test_errors_travel_with_their_class(fleet: Fleet) -> None:
    class Local(Exception):
        """Can't be pickled."""

    def fail(values: Mapping[str, Any], _: Room) -> dict[str, Any]:
        raise ClusterError("too bad") if values["x"].size == 1 else Local("worse")

    fleet.add(fail)
    fleet.order(0, ALONE, 0, x=np.zeros(1))
    error = answer(fleet.hear()[0]).error
    assert type(error) is ClusterError and str(error) == "too bad"
    fleet.order(0, ALONE, 8, x=np.zeros(2))
    error = answer(fleet.hear()[0]).error
    assert type(error) is ClusterError and str(error) == "Local: worse"


def test_values_that_stay_are_fetched_and_released(fleet: Fleet) -> None:
    fleet.add(plus_one("x", "y"))
    fleet.lines[0].fetch(7, 99)
    (news,) = fleet.hear()
    assert isinstance(news, Fetched) and news.request == 99 and news.value.tolist() == [7, 7, 7]
    fleet.lines[0].release([1, 2])
    fleet.order(0, ALONE, 0, x=np.zeros(1))  # they go along
    fleet.hear()
    assert fleet.released == [1, 2]


def test_a_stage_that_is_gone_is_told_at_once_and_its_readers_hold_nothing(fleet: Fleet) -> None:
    fleet.add(plus_one("x", "a"))
    fleet.add(plus_one("a", "y"))
    fleet.order(0, ExecuteOrder(inputs=("x",), sends=((1, ("a",)),)), 0, x=np.zeros(100_000))
    fleet.hear()
    assert fleet.loops[0].out.pool.in_use() == 1
    began = time.monotonic()
    fleet.loops[1].stop()
    (news,) = fleet.hear()
    assert isinstance(news, Loss) and news.unit == 1
    assert time.monotonic() - began < 1
    assert fleet.quiet()
    # sending to it does no harm
    fleet.order(0, ExecuteOrder(inputs=("x",), sends=((1, ("a",)),), results=("a",)), 8, x=np.zeros(100_000))
    assert answer(fleet.hear()[0]).values["a"][0].size == 100_000


def test_who_does_not_know_the_token_is_not_let_in(fleet: Fleet) -> None:
    fleet.add(plus_one("x", "y"))
    with pytest.raises(ConnectionError):
        fleet.switchboard.connect(0, 0, fleet.loops[0].endpoint, "wrong", NAMES)


def test_a_loop_that_fails_takes_its_process_along(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = threading.Event()
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    monkeypatch.setattr(loops, "read_values", None)
    made = StageLoop(
        0,
        NAMES,
        f"distort-test-{next(numbers)}",
        TOKEN,
        lambda *_: ({}, StageReport(0, 0, 0, 0, {}, {})),
        release=lambda _: None,
        export=lambda _: None,
        cancel=lambda _: None,
        on_caller_gone=gone.set,
    )
    switchboard = Switchboard()
    line = switchboard.connect(0, 0, made.endpoint, TOKEN, NAMES)
    line.prepare(1, ALONE)
    line.order(1, [np.zeros(1)], 0, 0)
    assert gone.wait(5)
    made._thread.join(5)  # its exception is told before the hook is put back
    switchboard.close()
