"""A value that can't come from a GPU of another host: its run begins anew by another way. Without actors and GPUs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx.parser
import pytest

from distort.cluster.errors import SenderLost, StageLost
from distort.cluster.executor import Executor
from distort.cluster.orders import ExecuteOrder, FarValue
from distort.cluster.transport.base import Answer, Handle
from distort.cluster.transport.inproc import InprocHost, InprocTransport
from distort.engine import load_model
from distort.graph.inference import infer
from distort.parallel import stage_payloads
from distort.scheduler.device import cpu
from distort.scheduler.planner import Terms, plan_of_stages

CHAIN = """
<ir_version: 9, opset_import: ["" : 17]>
g (float[4] x) => (float[4] y) { a = Relu (x) y = Neg (a) }
"""


class FarHost(InprocHost):
    """Hands back FarValue for what it announces; the first that reads one finds the way cut."""

    transport: FarTransport

    def call(
        self, order: ExecuteOrder, run: int, oldest: int, values: Sequence[Handle], epochs: tuple[int, ...]
    ) -> list[Handle]:
        transport = self.transport
        reads = any(type(value) is FarValue for value in values)
        if self.unit == 1:
            transport.reads.append(reads)
        if reads and len(transport.reads) == 1:
            if transport.replaced:
                transport.hosts[0].epoch += 1
            self._listener(Answer(self.unit, epochs, run, None, SenderLost("cut", 0)))
            return [None] * len(order.returns)
        if reads:
            values = [transport.waiting if type(value) is FarValue else value for value in values]
        names = tuple(name for name, _ in order.announces)
        made = super().call(replace(order, returns=(*order.returns, *names), announces=()), run, oldest, values, epochs)
        if not names:
            return made
        transport.waiting = made.pop()
        return [*made, FarValue(self.unit, "process", 1, 1, (4,), 16)]


class FarTransport(InprocTransport):
    """``replaced``: the sender is another by the time that the reader finds out."""

    def __init__(self, replaced: bool) -> None:
        super().__init__()
        self.replaced = replaced
        self.reads: list[bool] = []  # of the second stage: whether it was given FarValue
        self.waiting: Any = None  # what was announced last
        self.cuts: list[tuple[int, int, str]] = []
        self.hosts: dict[int, FarHost] = {}

    def _host(self, unit: int) -> InprocHost:
        host = FarHost(unit, self._payloads[unit], self._weights[unit], self._listener, self._epochs[unit])
        host.transport = self
        self.hosts[unit] = host
        return host

    def far(self, producer: int, consumer: int) -> bool:
        return not self.cuts

    def cut(self, producer: int, consumer: int, why: str) -> None:
        self.cuts.append((producer, consumer, why))


def executor(transport: FarTransport, **options: Any) -> Executor:
    model = load_model(onnx.parser.parse_model(CHAIN).SerializeToString())
    infer(model)
    plan = plan_of_stages(model.graph, [0, 1], [cpu(0), cpu(1)], Terms(), why="were given")
    payloads, weights = stage_payloads(model.graph, plan)
    return Executor(plan, payloads, weights, transport, **options)


FEEDS = {"x": np.array([1, -1, 2, -2], np.float32)}


def test_the_run_begins_anew_and_goes_another_way_from_then_on() -> None:
    transport = FarTransport(replaced=False)
    session = executor(transport)
    for _ in range(2):
        (y,), _ = session.run(["y"], FEEDS, timeout_s=20)
        np.testing.assert_array_equal(y, [-1, 0, -2, 0])
    session.close()
    assert transport.cuts == [(0, 1, "cut")]
    assert transport.reads == [True, False, False]
    assert [host.epoch for host in transport.hosts.values()] == [0, 0]  # nobody is lost


def test_where_the_sender_is_another_by_now_its_link_stays_and_the_run_begins_anew_all_the_same() -> None:
    transport = FarTransport(replaced=True)
    session = executor(transport)
    (y,), _ = session.run(["y"], FEEDS, timeout_s=20)
    np.testing.assert_array_equal(y, [-1, 0, -2, 0])
    session.close()
    assert transport.cuts == [] and transport.reads == [True, True]


def test_without_replays_the_run_fails_and_says_why() -> None:
    session = executor(FarTransport(replaced=False), recovery="raise")
    with pytest.raises(StageLost, match=r"^cut$"):
        session.run(["y"], FEEDS, timeout_s=20)
    (y,), _ = session.run(["y"], FEEDS, timeout_s=20)
    np.testing.assert_array_equal(y, [-1, 0, -2, 0])
    session.close()
