"""The trace of a parallel session, of what stages report: rows, arrows, bubbles, the critical path."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distort.cluster.orders import NodeEvent, StageReport
from distort.profiling import Profiler

from .. import chrome_trace

Event = dict[str, Any]


@pytest.fixture
def profiler(tmp_path: Path) -> Profiler:
    made = Profiler(str(tmp_path / "profile"))
    made.name_stages(["stage0 on cpu:0", "stage1 on cpu:1", "stage2 on cpu:2"])
    return made


def ended(profiler: Profiler) -> list[Event]:
    events: list[Event] = json.loads(Path(profiler.end()).read_text())
    chrome_trace.check(events)
    return events


@pytest.fixture
def report(profiler: Profiler) -> Callable[..., StageReport]:
    """A stage's report, times in microseconds since the profile began."""

    def make(run: int, stage: int, start_us: int, end_us: int, *, pid: int = 0, **told: Any) -> StageReport:
        start_ns, end_ns = (profiler.start_ns + us * 1000 for us in (start_us, end_us))
        made = StageReport(run, stage, start_ns, end_ns, {}, {}, pid=pid or 900_000 + stage, thread=7, unit=stage)
        for name, value in told.items():
            setattr(made, name, value)
        profiler.report(made)
        return made

    return make


def end_run(profiler: Profiler, start_us: int, end_us: int) -> None:
    profiler.end_run("ParallelExecutor::Execute", *(profiler.start_ns + us * 1000 for us in (start_us, end_us)))


def test_arrows_go_from_the_caller_through_the_stages_and_back(profiler: Profiler, report: Any) -> None:
    report(0, 0, 100, 200, edges=[("x", -1, 8, "shm")])
    report(0, 1, 250, 400, edges=[("h", 0, 64, "object_store")], returned=[("y", 16, "shm")])
    end_run(profiler, 50, 450)
    events = ended(profiler)
    arrows = [(event["name"], event["ph"], event["pid"], event["ts"]) for event in events if event["ph"] in "sf"]
    here = os.getpid()
    assert arrows == [
        *[("x", "s", here, 50), ("x", "f", 900_000, 100)],
        *[("h", "s", 900_000, 199), ("h", "f", 900_001, 250)],
        *[("y", "s", 900_001, 399), ("y", "f", here, 449)],
    ]
    assert [e["args"] for e in events if e["name"] == "h"] == [{"nbytes": 64, "transport": "object_store"}] * 2


def test_a_value_that_stayed_is_no_arrow(profiler: Profiler, report: Any) -> None:
    report(0, 0, 100, 200, edges=[("state", 1, 8, "object_store")])
    report(0, 1, 250, 400, edges=[("h", 0, 8, "shm")])
    end_run(profiler, 50, 450)
    assert {event["name"] for event in ended(profiler) if event["ph"] in "sf"} == {"h"}


def test_the_critical_path_has_the_slower_branch(profiler: Profiler, report: Any) -> None:
    report(3, 0, 100, 200, edges=[("x", -1, 8, "shm")])
    report(3, 1, 110, 500, edges=[("x", -1, 8, "shm")])
    report(3, 2, 510, 600, edges=[("a", 0, 8, "shm"), ("b", 1, 8, "shm")], returned=[("y", 8, "shm")])
    end_run(profiler, 100, 620)
    events = ended(profiler)
    stages = {event["args"]["stage"]: event for event in events if event["cat"] == "Stage"}
    assert ["critical" in stages[stage]["args"] for stage in range(3)] == [False, True, True]
    path = [(event["name"], event["ts"], event["dur"]) for event in events if event["cat"] == "CriticalPath"]
    assert path == [
        *[("→ stage1", 100, 10), ("stage1", 110, 390), ("→ stage2", 500, 10)],
        *[("stage2", 510, 90), ("→ caller", 600, 20)],
    ]


def test_runs_that_overlap_have_tracks_of_their_own_and_say_for_what_they_waited(
    profiler: Profiler, report: Any
) -> None:
    for run in range(2):
        report(run, 0, 100 + 100 * run, 200 + 100 * run, edges=[("x", -1, 8, "shm")], returned=[("y", 8, "shm")])
        end_run(profiler, 90, 210 + 100 * run)
    report(2, 0, 500, 600, edges=[("x", -1, 8, "shm")], returned=[("y", 8, "shm")])
    end_run(profiler, 450, 610)
    path = [event for event in ended(profiler) if event["cat"] == "CriticalPath"]
    tracks = {event["args"]["run"]: event["tid"] for event in path}
    assert tracks[0] == tracks[2] != tracks[1]
    waits = {event["args"]["run"]: event["args"]["actor_busy_us"] for event in path if event["name"] == "→ stage0"}
    assert waits == {0: 0, 1: 100, 2: 0}


def test_bubbles_tell_how_long_runs_were_in_flight(profiler: Profiler, report: Any) -> None:
    report(0, 0, 100, 200)
    end_run(profiler, 90, 250)
    report(1, 0, 400, 500)
    end_run(profiler, 390, 510)
    (bubble,) = [event for event in ended(profiler) if event["cat"] == "Bubble"]
    assert (bubble["ts"], bubble["dur"]) == (200, 200)
    assert bubble["args"] == {"stage": 0, "before_run": 1, "in_flight_us": 60}


def test_processes_of_one_number_on_two_hosts_have_rows_of_their_own(profiler: Profiler, report: Any) -> None:
    report(0, 0, 100, 200, pid=77, edges=[("x", -1, 8, "object_store")])
    report(0, 1, 150, 300, pid=77, edges=[("h", 0, 8, "object_store")], clock_error_ns=90_000)
    report(0, 2, 310, 320, pid=os.getpid(), edges=[("i", 1, 8, "object_store")], clock_error_ns=-1)
    end_run(profiler, 90, 400)
    events = ended(profiler)
    named = {event["args"]["name"]: event["pid"] for event in events if event["name"] == "process_name"}
    assert list(named) == ["driver", "stage0 on cpu:0", "stage1 on cpu:1", "stage2 on cpu:2"]
    assert len(set(named.values())) == 4 and named["stage0 on cpu:0"] == 77
    errors = [event["args"].get("clock_error_us") for event in events if event["cat"] == "Stage"]
    assert errors == [None, 90, -1]


def test_nodes_lie_within_their_stage_when_times_are_rounded(profiler: Profiler, report: Any) -> None:
    base = profiler.start_ns
    step = NodeEvent("n", "Relu", "y", base + 100_900, base + 200_999, {})
    report(0, 0, 100, 201, events=[step], edges=[("x", -1, 8, "shm")])
    end_run(profiler, 90, 210)
    (node,) = [event for event in ended(profiler) if event["cat"] == "Node"]
    assert (node["ts"], node["dur"]) == (100, 100)


def test_a_run_that_failed_leaves_nothing_for_the_next(profiler: Profiler, report: Any) -> None:
    end_run(profiler, 0, 10)
    report(1, 0, 20, 30, returned=[("y", 8, "shm")])
    end_run(profiler, 15, 40)
    assert [e["args"]["run"] for e in ended(profiler) if e["name"] == "→ caller"] == [1]
