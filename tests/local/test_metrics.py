"""Metrics of a parallel session on real actors, and the commands that show them."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import onnx
import pytest

import distort
from distort.capi.onnxruntime_pybind11_state import Fail
from distort.cli import main

MODEL = """
<ir_version: 9, opset_import: ["" : 17]>
chain (float[N,8] x) => (float[N,8] y) <float[8] w = {1, 2, 3, 4, 5, 6, 7, 8}> {
    a = Add (x, w)
    b = Sqrt (a)
    y = Mul (b, b)
}
"""
X = np.ones((4, 8), np.float32)


def test_a_scrape_and_top(capsys: pytest.CaptureFixture[str]) -> None:
    options = distort.SessionOptions()
    options.execution_mode = distort.ExecutionMode.ORT_PARALLEL
    options.inter_op_num_threads = 2
    options.add_session_config_entry("distort.start", "wait")
    options.add_session_config_entry("distort.metrics", "127.0.0.1:0")
    with distort.InferenceSession(onnx.parser.parse_model(MODEL).SerializeToString(), options) as session:
        for _ in range(5):
            session.run(None, {"x": X})
        found = re.search(r"metrics at (http://127\.0\.0\.1:\d+)/metrics", session.explain())
        assert found is not None
        url = found[1]
        with urllib.request.urlopen(f"{url}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        samples = {re.sub(r'session="\w+",model="chain",?', "", k): v for k, v in re.findall(r"(.*) (\S+)", text)}
        assert samples['distort_runs_total{outcome="done"}'] == "5"
        assert samples['distort_edge_bytes_total{edge="stage0->stage1",transport="shm"}'] == str(5 * X.nbytes)
        assert float(samples['distort_stage_busy_seconds_total{stage="stage1",device="cpu:1"}']) > 0
        assert main(["top", url, "--every", "0.05"]) == 0
        shown = capsys.readouterr().out
        assert "chain: 5 runs, 0 in flight" in shown and "stage1" in shown
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"{url}/metrics", timeout=10)


def test_an_address_that_is_taken_is_an_error_of_the_session() -> None:
    options = distort.SessionOptions()
    options.execution_mode = distort.ExecutionMode.ORT_PARALLEL
    options.inter_op_num_threads = 2
    options.add_session_config_entry("distort.metrics", "203.0.113.1:9")  # nobody's
    with pytest.raises(Fail, match=r"distort\.metrics=203\.0\.113\.1:9: .*listen"):
        distort.InferenceSession(onnx.parser.parse_model(MODEL).SerializeToString(), options)


def test_bench_on_actors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(onnx.parser.parse_model(MODEL).SerializeToString())
    given = ["bench", str(path), "--parallel", "2", "--threads", "1", "--seconds", "0.3", "--dim", "N=4"]
    given += ["--objective", "latency"]
    assert main([*given, "--profile", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    (told,) = document["measured"]
    assert (told["stages"], told["actors"], document["in_flight"]) == (2, 2, 4)
    for actor in told["activity"]["actors"]:
        assert 0 < actor["busy"] < 1 and actor["bubble"] == pytest.approx(1 - actor["busy"])
        assert actor["executions"] >= told["runs"] - 4
    nbytes = {(e["producer"], e["consumer"]): e["nbytes"] / e["messages"] for e in told["activity"]["edges"]}
    assert nbytes == {(-1, 0): X.nbytes, (0, 1): X.nbytes, (1, -1): X.nbytes}
    ran = "+".join(operation["operators"] for operation in told["profile"]["operations"])
    assert set(ran.split("+")) == {"Add", "Sqrt", "Mul"}
    assert main(given) == 0
    shown = capsys.readouterr().out
    assert "2 stages on actors, 4 in flight" in shown and "stage0 → stage1" in shown
