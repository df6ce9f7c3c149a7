"""The profile of a parallel session: all actors in one file, on one clock."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import onnx

import distort
from distort.cluster.clocks import SAME, measure

from .. import chrome_trace
from ..conftest import wait_until

MODEL = """
<ir_version: 9, opset_import: ["" : 17]>
chain (float[N,8] x) => (float[N,8] y) <float[8] w = {1, 2, 3, 4, 5, 6, 7, 8}> {
    a = Add (x, w)
    b = Sqrt (a)
    y = Mul (b, b)
}
"""


def test_one_file_for_all_actors(tmp_path: Path) -> None:
    options = distort.SessionOptions()
    options.execution_mode = distort.ExecutionMode.ORT_PARALLEL
    options.add_session_config_entry("distort.start", "wait")
    options.inter_op_num_threads = 2
    options.add_session_config_entry("distort.start", "wait")
    options.enable_profiling = True
    options.profile_file_prefix = str(tmp_path / "profile")
    model = onnx.parser.parse_model(MODEL).SerializeToString()
    with distort.InferenceSession(model, options) as session:
        for _ in range(3):
            session.run(None, {"x": np.ones((3, 8), np.float32)})
        began_ns, ended_ns = session.get_profiling_start_time_ns(), time.time_ns()
        stats = {(e["value"], e["producer"], e["consumer"]): e["nbytes"] for e in session.get_transfer_stats()}
        path = session.end_profiling()
    events = json.loads(Path(path).read_text())
    chrome_trace.check(events)
    names = [event["args"]["name"] for event in events if event["name"] == "process_name"]
    assert names == ["driver", "stage0 on cpu:0", "stage1 on cpu:1"]
    timed = [event for event in events if event["ph"] == "X"]
    assert all(0 <= event["ts"] <= event["ts"] + event["dur"] <= (ended_ns - began_ns) // 1000 for event in timed)
    stages = [event for event in timed if event["cat"] == "Stage"]
    nodes = [event for event in timed if event["cat"] == "Node"]
    runs = [event for event in timed if event["name"] == "model_run"]
    # three nodes, of which two are one operation
    assert (len(stages), len(nodes), len(runs)) == (6, 6, 3)
    assert {event["name"] for event in timed if event["cat"] == "Session"} >= {"ParallelExecutor::Execute"}
    for node in nodes:  # each within its stage's execution, in its process
        (stage,) = [s for s in stages if s["pid"] == node["pid"] and str(s["args"]["run"]) == node["args"]["run"]]
        assert stage["ts"] <= node["ts"]
        assert node["ts"] + node["dur"] <= stage["ts"] + stage["dur"] + 1
    operators = [node["args"]["op_name"] for node in nodes]
    assert sorted("+".join(operators).split("+")) == ["Add"] * 3 + ["Mul"] * 3 + ["Sqrt"] * 3
    assert nodes[0]["args"]["output_type_shape"] == [{"float": [3, 8]}]
    bubbles = [event for event in timed if event["cat"] == "Bubble"]
    assert len(bubbles) == 4  # between three runs, on two actors
    assert all(0 < bubble["args"]["in_flight_us"] <= bubble["dur"] for bubble in bubbles)
    arrows = [event for event in events if event["ph"] == "s"]
    assert sum(arrow["args"]["nbytes"] for arrow in arrows) == sum(stats.values())
    path = [event for event in timed if event["cat"] == "CriticalPath"]
    assert sum(event["dur"] for event in path) == sum(run["dur"] for run in runs)  # from the call to its return
    moved: dict[tuple[str, int, int], int] = {}
    for stage in stages:
        for edge in stage["args"]["edges"]:
            producer = -1 if edge["from"] == "driver" else int(edge["from"].removeprefix("stage"))
            key = (edge["value"], producer, stage["args"]["stage"])
            moved[key] = moved.get(key, 0) + edge["nbytes"]
    assert moved == {key: nbytes for key, nbytes in stats.items() if key[2] >= 0}


def test_the_clock_of_another_host_is_measured() -> None:
    """This process with a clock that is an hour ahead, and another kernel's name: an actor is as on another host."""
    options = distort.SessionOptions()
    options.execution_mode = distort.ExecutionMode.ORT_PARALLEL
    options.inter_op_num_threads = 2
    options.add_session_config_entry("distort.start", "wait")
    model = onnx.parser.parse_model(MODEL).SerializeToString()
    with distort.InferenceSession(model, options) as session:
        host = session._sess._loaded.engine.executor.hosts[1]
        assert measure(host.clock) is SAME
        hour_ns = 3600 * 10**9
        offset = measure(host.clock, lambda: (time.time_ns() + hour_ns, "another"))
        assert abs(offset.ns - hour_ns) <= offset.error_ns < 10**9
    assert wait_until(lambda: host.clock() is None, 10)
