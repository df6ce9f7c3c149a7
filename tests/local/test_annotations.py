"""Models that carry their own partition, on actors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import distort as onnxruntime

from ..annotated_models import annotate
from .conftest import actor_pids

MODEL = """<ir_version: 9, opset_import: ["" : 17]>
g (float[N,4] x) => (float[N,3] y)
<float[4,4] w = {1,0,2,0,0,1,0,2,3,0,1,0,0,3,0,1}, float[4,3] v = {1,2,3,4,5,6,7,8,9,1,2,3}, float[3] b = {1,2,3}> {
    [first] a = MatMul(x, w)
    [second] c = Relu(a)
    [third] d = MatMul(c, v)
    [fourth] y = Add(d, b)
}
"""


def options_of(**entries: str) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.execution_mode = onnxruntime.ExecutionMode.ORT_PARALLEL
    options.add_session_config_entry("distort.start", "wait")
    options.intra_op_num_threads = 1
    for key, value in entries.items():
        options.add_session_config_entry(f"distort.{key}", value)
    return options


def groups(session: Any) -> list[list[str]]:
    return [list(stage.node_names) for stage in session.plan.stages]


X = np.arange(8, dtype=np.float32).reshape(2, 4)


def wanted() -> Any:
    return onnxruntime.InferenceSession(onnx.parser.parse_model(MODEL).SerializeToString()).run(None, {"x": X})[0]


def test_a_model_runs_as_onnx_ir_annotated_it(tmp_path: Path) -> None:
    ir = pytest.importorskip("onnx_ir", minversion="1.0")
    model = ir.serde.deserialize_model(onnx.parser.parse_model(MODEL))
    model.ir_version = 11
    mine = model.add_device_configuration("mine", device_names=("CPU:0", "CPU:1"))
    for node in model.graph:
        # bias and product are apart, so they stay two nodes
        node.set_pipeline_stage(mine, 1 if node.name == "fourth" else 0)
    path = tmp_path / "annotated.onnx"
    ir.save(model, path)
    with onnxruntime.InferenceSession(path, options_of(partition="annotations:mine")) as session:
        assert groups(session) == [["first", "second", "third"], ["fourth"]]
        assert [stage.device.id for stage in session.plan.stages] == ["cpu:0", "cpu:1"]
        np.testing.assert_array_equal(session.run(None, {"x": X})[0], wanted())
        crossed = {(edge["value"], edge["producer"], edge["consumer"]) for edge in session.get_transfer_stats()}
        assert ("d", 0, 1) in crossed and not any(value in ("a", "c") for value, _, _ in crossed)


def test_the_optimized_model_carries_the_plan_that_ran(tmp_path: Path) -> None:
    path = tmp_path / "optimized.onnx"
    options = options_of()
    options.inter_op_num_threads = 2
    options.optimized_model_filepath = str(path)
    with onnxruntime.InferenceSession(onnx.parser.parse_model(MODEL).SerializeToString(), options) as session:
        first = groups(session)
        assert len(first) == 2
    onnx.checker.check_model(path, full_check=True)
    assert onnx.load(path).ir_version == 11
    with onnxruntime.InferenceSession(path, options_of(partition="annotations")) as session:
        assert groups(session) == first
        np.testing.assert_array_equal(session.run(None, {"x": X})[0], wanted())


def test_a_stage_with_copies() -> None:
    stages = {"first": 0, "second": 0, "third": 1, "fourth": 1}
    devices = ("cpu:0", "cpu:1", "cpu:2")
    proto = annotate(MODEL, stages, devices=devices, on={"first": [0], "third": [1, 2]})
    with onnxruntime.InferenceSession(proto.SerializeToString(), options_of(partition="annotations")) as session:
        assert [len(stage.devices) for stage in session.plan.stages] == [1, 2]
        assert len(actor_pids()) == 3
        for _ in range(4):
            np.testing.assert_array_equal(session.run(None, {"x": X})[0], wanted())


def test_stages_that_share_a_device() -> None:
    proto = annotate(MODEL, {"first": 0, "second": 1, "third": 1, "fourth": 2}, devices=("cpu:0",))
    with onnxruntime.InferenceSession(proto.SerializeToString(), options_of(partition="annotations")) as session:
        assert groups(session) == [["first"], ["second", "third"], ["fourth"]]
        assert "share cpu:0" in session.plan.explain()
        np.testing.assert_array_equal(session.run(None, {"x": X})[0], wanted())
