"""Budgets of memory and the objective, as a session asks for them: what the plan is, before any actor starts."""

from __future__ import annotations

import sys

import numpy as np
import onnx
import pytest

import distort as onnxruntime
from distort import planning
from distort.graph.inference import infer
from distort.graph.ir import Model
from distort.graph.reader import read_model

N_WEIGHTS, SIDE = 12, 64
WEIGHT_NBYTES = SIDE * SIDE * 4


def chain() -> onnx.ModelProto:
    """Products with a weight each."""
    helper = onnx.helper
    nodes = [helper.make_node("MatMul", [f"v{i}", f"w{i}"], [f"v{i + 1}"], name=f"mm{i}") for i in range(N_WEIGHTS)]
    weights = [onnx.numpy_helper.from_array(np.zeros((SIDE, SIDE), np.float32), f"w{i}") for i in range(N_WEIGHTS)]
    ends = [helper.make_tensor_value_info(name, 1, ["N", SIDE]) for name in ("v0", f"v{N_WEIGHTS}")]
    graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def model() -> Model:
    made = read_model(chain())
    infer(made)
    return made


def test_a_budget_makes_as_many_actors_as_it_takes() -> None:
    budget = 2 * WEIGHT_NBYTES + 3 * SIDE * 4
    plan, _ = planning.plan_model(model(), 0, device_nbytes=budget, typed=True)
    assert len(plan.stages) == N_WEIGHTS // 2
    assert len({stage.device.id for stage in plan.stages}) == len(plan.stages)
    assert all(stage.peak_nbytes <= budget for stage in plan.stages)
    assert any("one stage wants" in note for note in plan.notes)
    assert any("share the" in note for note in plan.notes) or len(plan.stages) <= planning.cpu_devices(1, 0)[0].threads


def test_a_large_budget_changes_nothing() -> None:
    plan, _ = planning.plan_model(model(), 0, device_nbytes=10**12, typed=True)
    assert plan.in_process and len(plan.stages) == 1


def test_a_session_whose_node_is_too_large_says_which_and_starts_nothing() -> None:
    options = onnxruntime.SessionOptions()
    options.execution_mode = onnxruntime.ExecutionMode.ORT_PARALLEL
    options.add_session_config_entry("distort.device_memory", "10KB")
    had_ray = "ray" in sys.modules
    with pytest.raises(Exception, match=r"Node 'mm\d+' alone wants \d+ bytes, of which the weight 'w\d+'") as raised:
        onnxruntime.InferenceSession(chain().SerializeToString(), options)
    assert type(raised.value).__module__.startswith(("distort", "onnxruntime"))
    assert ("ray" in sys.modules) == had_ray


def test_strict_wants_what_it_asked_to_measure(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setenv("DISTORT_CACHE_DIR", str(tmp_path))
    sequences = read_model(
        onnx.parser.parse_model(
            '<ir_version: 9, opset_import: ["": 18]> '
            "g (seq(float[2]) s) => (float[2] y) <int64 i = {0}> { y = SequenceAt(s, i) }"
        )
    )
    plan, _ = planning.plan_model(sequences, 1, costs="measured")
    assert any("could not be measured" in note for note in plan.notes)
    with pytest.raises(ValueError, match="could not be measured: input 's' is seq"):
        planning.plan_model(sequences, 1, costs="measured", strict=True)
