"""The profile that a session writes."""

from __future__ import annotations

import gc
import json
import re
import time
from pathlib import Path

import numpy as np

import distort

X = np.arange(1, 7, dtype=np.float32).reshape(3, 2)


def _options(tmp_path: Path) -> distort.SessionOptions:
    options = distort.SessionOptions()
    options.enable_profiling = True
    options.profile_file_prefix = str(tmp_path / "profile")
    return options


def test_the_events_of_a_run(tmp_path: Path, mul: bytes) -> None:
    session = distort.InferenceSession(mul, _options(tmp_path))
    assert abs(session.get_profiling_start_time_ns() - time.time_ns()) < 60e9
    session.run(None, {"X": X})
    path = session.end_profiling()
    assert re.fullmatch(r"profile_\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d_\d{3}\.json", Path(path).name)
    events = json.loads(Path(path).read_text())
    assert {tuple(event) for event in events} == {("cat", "pid", "tid", "dur", "ts", "ph", "name", "args")}
    names = [event["name"] for event in events]
    assert names == [
        "model_loading_array",
        "session_initialization",
        "mul_1_kernel_time",
        "SequentialExecutor::Execute",
        "model_run",
    ]
    (node,) = [event for event in events if event["cat"] == "Node"]
    assert node["args"] == {
        "op_name": "Mul",
        "provider": "CPUExecutionProvider",
        "node_index": "0",
        "input_type_shape": [{"float": [3, 2]}, {"float": [3, 2]}],
        "output_type_shape": [{"float": [3, 2]}],
        "activation_size": "24",
        "parameter_size": "24",
        "output_size": "24",
    }
    assert Path(path).read_text().startswith('[\n{"cat" : "Session","pid" :')
    assert session.end_profiling() == ""
    session.run(None, {"X": X})


def test_a_profile_that_nobody_ended_is_written_when_the_session_goes(tmp_path: Path, mul: bytes) -> None:
    session = distort.InferenceSession(mul, _options(tmp_path))
    session.run(None, {"X": X})
    assert list(tmp_path.iterdir()) == []
    del session
    gc.collect()
    (path,) = tmp_path.iterdir()
    assert len(json.loads(path.read_text())) == 5


def test_without_profiling(mul: bytes) -> None:
    session = distort.InferenceSession(mul)
    assert session.end_profiling() == ""
    assert session.get_profiling_start_time_ns() == 0
