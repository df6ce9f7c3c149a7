"""What a session tells of itself: its plan, and what was measured since."""

from __future__ import annotations

import re

import numpy as np
import onnx
import pytest

import distort

MODEL = """
<ir_version: 9, opset_import: ["" : 17]>
chain (float[N,M] x) => (float[N,M] y) <float[8] w = {1, 2, 3, 4, 5, 6, 7, 8}> {
    a = Add (x, w)
    b = Sqrt (a)
    y = Mul (b, b)
}
"""
X = np.ones((4, 8), np.float32)


def session(transport: str | None, **keys: str) -> distort.InferenceSession:
    options = distort.SessionOptions()
    for key, value in keys.items():
        options.add_session_config_entry(f"distort.{key}", value)
    if transport is not None:
        options.execution_mode = distort.ExecutionMode.ORT_PARALLEL
        options.inter_op_num_threads = 2
        options.add_session_config_entry("distort.start", "wait")
        options.add_session_config_entry("distort.transport", transport)
    return distort.InferenceSession(onnx.parser.parse_model(MODEL).SerializeToString(), options)


@pytest.mark.parametrize("transport", ["shm", "object_store"])
def test_what_was_measured(transport: str) -> None:
    with session(transport) as opened:
        assert "no run has ended yet, 0 in flight" in opened.explain()
        for _ in range(5):
            opened.run(None, {"x": X})
        assert opened.explain().count("none on NumPy kernels") == 2
        with pytest.raises(Exception, match="Add"):
            opened.run(None, {"x": np.ones((4, 7), np.float32)})
        text = opened.explain()
    assert text.startswith(opened.plan.explain())
    assert "5 runs on actors, 1 failed, 0 in flight" in text
    for stage in (0, 1):
        busy, waiting = map(
            int, re.findall(rf"stage{stage} on cpu:{stage}: 5 executions, busy (\d+)% and waiting (\d+)%", text)[0]
        )
        assert 99 <= busy + waiting <= 101 and busy < 100
    assert re.search(rf"stage0 → stage1: .* in all; 1 value by {transport}", text)
    assert "restarted" not in text


def test_what_is_not_compiled_on_an_actor_is_told() -> None:
    with session("shm", compile="0") as opened:
        opened.run(None, {"x": X})
        assert opened.explain().count("NumPy kernels run every node") == 2


def test_a_session_without_actors_says_so() -> None:
    with session(None) as opened:
        opened.run(None, {"x": X})
        assert "runs in this process" in opened.explain()
