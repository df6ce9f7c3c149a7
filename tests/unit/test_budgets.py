"""Budgets of memory and the objective, as a session asks for them: what the plan is, before any actor starts."""

from __future__ import annotations

import re
import sys

import numpy as np
import onnx
import pytest

import distort as onnxruntime
from distort import planning, providers
from distort.graph.inference import infer
from distort.graph.ir import Model
from distort.graph.reader import read_model
from distort.scheduler.plan import Plan

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


CUDA = "CUDAExecutionProvider"
LIMIT = 5 * WEIGHT_NBYTES


def plan_on(devices: str, device_nbytes: int | None = None, **options: str) -> Plan:
    """For devices that aren't here, with options of the provider that they would have."""
    chosen = [(CUDA, options), (providers.CPU, {})]
    return planning.plan_model(
        model(), 0, devices_text=devices, device_nbytes=device_nbytes, typed=True, providers=chosen
    )[0]


def test_a_providers_memory_limit_is_its_devices_budget() -> None:
    assert len(plan_on("3xcuda:80GB").stages) == 1
    plan = plan_on("3xcuda:80GB", gpu_mem_limit=str(LIMIT))
    assert len(plan.stages) == 3
    assert all(stage.peak_nbytes <= LIMIT == stage.device.memory_nbytes for stage in plan.stages)
    assert f"memory of cuda:0, cuda:1, cuda:2: 81.92 KB, the gpu_mem_limit of {CUDA}" in plan.notes
    with pytest.raises(ValueError, match=r"the 2 devices have 163\.8 KB together"):
        plan_on("2xcuda:80GB", gpu_mem_limit=str(LIMIT))


def test_a_memory_limit_is_of_the_device_that_is_named() -> None:
    plan = plan_on("2xcuda:80GB", gpu_mem_limit="1", device_id="0")
    assert {stage.device.id for stage in plan.stages} == {"cuda:1"}
    assert not any("gpu_mem_limit" in note for note in plan_on("cpu:1:80GB", gpu_mem_limit="1").notes)


def test_a_device_has_no_more_than_its_memory_whatever_the_limit_says() -> None:
    (stage,) = plan_on("cuda:1MB", gpu_mem_limit=str(10**12)).stages
    assert stage.device.memory_nbytes == 10**6
    (stage,) = plan_on("cuda", gpu_mem_limit=str(2**64 - 1)).stages
    assert stage.device.memory_nbytes is None


def test_a_budget_that_is_asked_for_counts_more_than_a_providers_limit() -> None:
    plan = plan_on("3xcuda:80GB", device_nbytes=10**9, gpu_mem_limit=str(LIMIT))
    assert [stage.device.memory_nbytes for stage in plan.stages] == [10**9]
    assert any("gpu_mem_limit" in note and "not used" in note for note in plan.notes)


@pytest.mark.parametrize(
    ("option", "value", "remedy"),
    [
        ("gpu_mem_limit", "2GB", "bytes without a unit, as 2147483648"),
        ("gpu_mem_limit", "0", "bytes"),
        ("gpu_mem_limit", "-1", "bytes"),
        ("gpu_mem_limit", str(2**64), "bytes"),
        ("device_id", "first", "a GPU's number"),
    ],
)
def test_a_memory_limit_that_cannot_be_read_names_the_provider_and_the_option(
    monkeypatch: pytest.MonkeyPatch, option: str, value: str, remedy: str
) -> None:
    wanted = [(CUDA, {option: value})]
    expected = f"Failed to parse provider option \"{option}\" of {CUDA}: '{value}'. Give it {remedy}"
    with pytest.raises(RuntimeError, match=re.escape(expected)):
        plan_on("cuda", **{option: value})
    monkeypatch.setattr(providers, "available_providers", lambda: [CUDA, providers.CPU])
    with pytest.raises(RuntimeError, match=re.escape(expected)):
        onnxruntime.InferenceSession(chain().SerializeToString(), providers=wanted, enable_fallback=0)


def test_each_gpu_has_the_limit_of_its_own_entry() -> None:
    chosen = [(CUDA, {"device_id": "0", "gpu_mem_limit": "1"}), (CUDA, {"device_id": "1"}), (providers.CPU, {})]
    plan, _ = planning.plan_model(model(), 0, devices_text="2xcuda:80GB", typed=True, providers=chosen)
    assert {stage.device.id for stage in plan.stages} == {"cuda:1"}


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
