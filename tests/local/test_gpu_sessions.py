"""Parallel sessions whose providers name GPUs, with tests/fake_cuda for CuPy here and on the actors."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnx

import distort as onnxruntime

from ..gpu.conftest import FOLDER
from ..gpu.conftest import fake_cuda as fake_cuda

CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
SIDE, N_PRODUCTS = 64, 6


def model() -> bytes:
    helper, rng = onnx.helper, np.random.default_rng(0)
    nodes, weights = [], []
    for i in range(N_PRODUCTS):
        nodes.append(helper.make_node("MatMul", [f"v{i}", f"w{i}"], [f"p{i}"]))
        nodes.append(helper.make_node("Relu", [f"p{i}"], [f"v{i + 1}"]))
        values = rng.standard_normal((SIDE, SIDE)).astype(np.float32) / 4
        weights.append(onnx.numpy_helper.from_array(values, f"w{i}"))
    ends = [helper.make_tensor_value_info(name, 1, ["N", SIDE]) for name in ("v0", f"v{N_PRODUCTS}")]
    graph = helper.make_graph(nodes, "layers", ends[:1], ends[1:], weights)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    content: bytes = made.SerializeToString()
    return content


@contextmanager
def session(*providers: Any, **keys: str) -> Iterator[onnxruntime.InferenceSession]:
    options = onnxruntime.SessionOptions()
    options.execution_mode = onnxruntime.ExecutionMode.ORT_PARALLEL
    path = os.pathsep.join([str(FOLDER), *filter(None, [os.environ.get("PYTHONPATH")])])
    keys = {"runtime_env": json.dumps({"env_vars": {"PYTHONPATH": path}}), **keys}
    for key, value in keys.items():
        options.add_session_config_entry(f"distort.{key}", value)
    exact = [(name, {"use_tf32": 0, **chosen}) for name, chosen in providers]
    with onnxruntime.InferenceSession(model(), options, providers=[*exact, CPU]) as opened:
        opened.disable_fallback()
        yield opened


def feed(n: int) -> dict[str, np.ndarray]:
    return {"v0": np.random.default_rng(n).standard_normal((n, SIDE)).astype(np.float32)}


def expected(feeds: dict[str, np.ndarray]) -> np.ndarray:
    result: np.ndarray = onnxruntime.InferenceSession(model()).run(None, feeds)[0]
    return result


def check(opened: onnxruntime.InferenceSession, n: int) -> None:
    feeds = feed(n)
    np.testing.assert_allclose(opened.run(None, feeds)[0], expected(feeds), rtol=1e-4, atol=1e-4)


def test_two_entries_are_two_actors_on_two_gpus(fake_cuda: Any) -> None:
    with session((CUDA, {"device_id": 0}), (CUDA, {"device_id": 1})) as opened:
        assert sorted(stage.device.id for stage in opened.plan.stages) == ["cuda:0", "cuda:1"]
        for n in (1, 300, 20, 300):
            check(opened, n)
        moved = {row["transport"] for row in opened.get_transfer_stats()}
        assert moved == {"h2d", "cuda_ipc", "d2h"}
        told = opened.explain()
        assert "by cuda_ipc" in told and "on GPU 1 (0000:02:00.0)" in told


def test_one_entry_is_this_process_on_its_gpu(fake_cuda: Any) -> None:
    with session((CUDA, {"device_id": 1, "gpu_mem_limit": 64 << 20})) as opened:
        assert opened.plan.in_process and opened.plan.stages[0].device.id == "cuda:1"
        engine = opened._sess._loaded.engine
        assert engine.gpu is not None and engine.gpu.device_id == 1
        assert engine.gpu.options.gpu_mem_limit == 64 << 20
        check(opened, 50)


def test_whole_replicas_for_throughput_share_nothing(fake_cuda: Any) -> None:
    with session((CUDA, {"device_id": 0}), (CUDA, {"device_id": 1}), replicas="2", stages="1") as opened:
        (stage,) = opened.plan.stages
        assert [device.id for device in stage.devices] == ["cuda:0", "cuda:1"]
        for n in range(1, 8):
            check(opened, n)
        executed = [told.executions for told in opened._sess._loaded.engine.executor.stats()]
        assert sum(executed) == 7 and all(executed)


def test_each_entry_has_its_options(fake_cuda: Any) -> None:
    entries = [(CUDA, {"device_id": i, "gpu_mem_limit": 64 << 20}) for i in range(2)]
    with session(*entries) as opened:
        assert {stage.device.memory_nbytes for stage in opened.plan.stages} == {64 << 20}
        check(opened, 100)


def test_results_that_are_bound_stay_on_the_gpu_that_made_them(fake_cuda: Any) -> None:
    with session((CUDA, {"device_id": 0}), (CUDA, {"device_id": 1})) as opened:
        feeds = feed(200)
        binding = opened.io_binding()
        binding.bind_cpu_input("v0", feeds["v0"])
        binding.bind_output(f"v{N_PRODUCTS}", "cuda", 1)
        opened.run_with_iobinding(binding)
        (value,) = binding.get_outputs()
        before = {row["transport"] for row in opened.get_transfer_stats()}
        assert "d2h" not in before
        np.testing.assert_allclose(value.numpy(), expected(feeds), rtol=1e-4, atol=1e-4)
        (row,) = [row for row in opened.get_transfer_stats() if row["transport"] == "d2h"]
        assert row["messages"] == 1 and row["nbytes"] == feeds["v0"].nbytes
