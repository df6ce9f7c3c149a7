"""Clocks of other hosts, measured as NTP does."""

from __future__ import annotations

from distort.cluster.clocks import SAME, UNKNOWN, Clocks, Offset, Reading, measure
from distort.cluster.orders import NodeEvent, StageReport


class Wire:
    """Two clocks, of which the other one is ``ahead_ns``, and the delays of questions and answers."""

    def __init__(self, ahead_ns: int, delays_ns: list[tuple[int, int]], boot: str = "there") -> None:
        self.now_ns = 1_000_000
        self.epoch = 0
        self._ahead_ns, self._delays_ns, self._boot = ahead_ns, iter(delays_ns), boot
        self.asked = 0

    def here(self) -> Reading:
        return self.now_ns, "here"

    def clock(self) -> Reading | None:
        self.asked += 1
        there_ns, back_ns = next(self._delays_ns)
        self.now_ns += there_ns
        told = self.now_ns + self._ahead_ns
        self.now_ns += back_ns
        return told, self._boot


def test_the_quickest_exchange_is_believed() -> None:
    wire = Wire(5_000, [(900, 100), (30, 30), (10, 400), *[(500, 500)] * 5])
    assert measure(wire.clock, wire.here) == Offset(-5_000, 30)


def test_the_error_is_no_larger_than_said() -> None:
    wire = Wire(-777, [(10, 90), *[(300, 20)] * 7])
    offset = measure(wire.clock, wire.here)
    assert abs(offset.ns - 777) <= offset.error_ns == 50


def test_processes_of_one_kernel_have_one_clock() -> None:
    wire = Wire(0, [(10, 10)], boot="here")
    assert measure(wire.clock, wire.here) is SAME and wire.asked == 1


def test_a_host_that_does_not_answer() -> None:
    assert measure(lambda: None) == UNKNOWN


def test_a_report_is_put_onto_this_clock_and_a_clock_asked_once() -> None:
    wire = Wire(5_000_000_000_000_000_000, [(0, 0)] * 8)  # far from any real clock
    clocks = Clocks()
    reports = [
        StageReport(0, 0, wire.now_ns, wire.now_ns + 10, {}, {}, [NodeEvent("n", "Relu", "y", 5, 7, {})])
        for _ in range(2)
    ]
    for report in reports:
        clocks.align(report, wire)
    assert wire.asked == 8
    first, second = reports
    assert (first.start_ns, first.end_ns, first.events) == (second.start_ns, second.end_ns, second.events)
    assert first.end_ns - first.start_ns == 10
    assert first.events[0].start_ns - first.start_ns == 5 - 1_000_000
    assert first.start_ns != 1_000_000 and first.clock_error_ns >= 0
    wire.epoch += 1  # it was restarted, perhaps elsewhere
    wire._delays_ns = iter([(0, 0)] * 8)
    clocks.align(StageReport(0, 0, 0, 0, {}, {}), wire)
    assert wire.asked == 16
