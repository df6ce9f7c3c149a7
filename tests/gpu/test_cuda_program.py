"""A graph on one GPU: plans that become graphs, memory that runs out, weights that are there once."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import onnx.parser
import pytest

import distort
from distort.engine import load_model
from distort.errors import Fail
from distort.kernels.cuda import plans
from distort.kernels.cuda.blaslt import ProductPlan
from distort.kernels.cuda.launch import Kernel, Launch
from distort.kernels.cuda.libraries import LibraryFailed
from distort.kernels.cuda.options import CudaOptions
from distort.kernels.cuda.program import CudaProgram
from distort.kernels.errors import OutOfMemory
from distort.kernels.program import Program

CUDA = "CUDAExecutionProvider"
LAYER = """<ir_version: 10, opset_import: ["" : 21]>
    layer (float[N, 16] x, float[16, 16] w) => (float[N, 16] y) {
        h = MatMul(x, w)
        r = Relu(h)
        y = Softmax(r)
    }"""


@pytest.fixture(autouse=True)
def errors_of_ours_are_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plans, "STRICT", True)


def proto_of(text: str) -> bytes:
    return onnx.parser.parse_model(text).SerializeToString()


def fed(rng: np.random.Generator, rows: int) -> dict[str, Any]:
    return {"x": rng.random((rows, 16), np.float32), "w": rng.random((16, 16), np.float32)}


def test_runs_with_the_same_addresses_become_a_graph(fake_cuda: Any) -> None:
    graph = load_model(proto_of(LAYER)).graph
    program, plain = CudaProgram(graph), Program(graph)
    rng = np.random.default_rng(0)
    for _ in range(6):
        feeds = fed(rng, 5)
        (got,) = program.run(feeds)
        np.testing.assert_allclose(got.get(), plain.run(feeds)[0], rtol=2e-3)
    assert program.n_graph_runs == 4  # the first two are launched one by one


def test_a_graph_never_runs_over_what_a_caller_has(fake_cuda: Any) -> None:
    program = CudaProgram(load_model(proto_of(LAYER)).graph)
    rng = np.random.default_rng(1)
    kept = []
    for _ in range(5):
        (got,) = program.run(fed(rng, 4))
        kept.append((got, got.get()))
    for value, then in kept:
        assert np.array_equal(value.get(), then)


def test_out_of_memory_names_what_ran_and_the_program_goes_on(fake_cuda: Any) -> None:
    program = CudaProgram(load_model(proto_of(LAYER)).graph, CudaOptions(gpu_mem_limit=1 << 20), label="stage3")
    rng = np.random.default_rng(2)
    small = fed(rng, 3)
    (first,) = program.run(small)
    with pytest.raises(OutOfMemory, match=r"size \d+: of cuda:0's .* lets the session have 1048576.*stage3.*x float32"):
        program.run(fed(rng, 40_000))
    (again,) = program.run(small)
    assert np.array_equal(first.get(), again.get())


def test_plans_share_weights(fake_cuda: Any) -> None:
    model = onnx.parser.parse_model(LAYER)
    weight = onnx.numpy_helper.from_array(np.ones((16, 16), np.float32), "w")
    model.graph.initializer.append(weight)
    del model.graph.input[1]
    program = CudaProgram(load_model(model.SerializeToString()).graph)
    for rows in (2, 3, 4, 2):
        program.run({"x": np.ones((rows, 16), np.float32)})
    assert len(program.plans) == 3
    assert program.context.weights.nbytes == 16 * 16 * 4


def test_a_session_explains_where_it_runs(fake_cuda: Any) -> None:
    session = distort.InferenceSession(proto_of(LAYER), providers=[CUDA, "CPUExecutionProvider"])
    session.run(None, fed(np.random.default_rng(3), 2))
    told = session.explain()
    assert "stage0 on cuda:0" in told
    assert "GPU program, on cuda:0" in told


def test_an_error_of_ours_in_a_plan_is_kept_with_its_place(fake_cuda: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes run one at a time then, and their answers are right: only ``explain`` shows it."""
    monkeypatch.setattr(plans, "STRICT", False)

    def broken(*_: Any) -> Any:
        raise TypeError("no such argument\nat all")

    monkeypatch.setattr("distort.kernels.cuda.plan.launches", broken)
    session = distort.InferenceSession(proto_of(LAYER), providers=[CUDA])
    feeds = fed(np.random.default_rng(0), 3)
    (got,) = session.run(None, feeds)
    np.testing.assert_allclose(got, Program(load_model(proto_of(LAYER)).graph).run(feeds)[0], rtol=2e-3)
    why = r"TypeError: no such argument \(kernels\.cuda\.plan:\d+ in _step\)"
    assert re.search(why, session.explain())
    (fault,) = session._sess._loaded.engine.gpu.faults.values()
    assert "in broken" in fault


def test_a_launch_that_cuda_refuses_is_named(fake_cuda: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    session = distort.InferenceSession(proto_of(LAYER), providers=[CUDA])
    monkeypatch.setattr("distort.kernels.cuda.launch.Launch.grid", lambda self, most: 1 << 40)
    with pytest.raises(Fail) as error:
        session.run(None, fed(np.random.default_rng(0), 3))
    assert re.search(r"CUDA failure: CUDA_ERROR_INVALID_VALUE.*launching rows_\w+ \(\d+ blocks of", str(error.value))


def test_a_kernel_that_does_not_compile_is_none_of_a_plan(fake_cuda: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plans, "STRICT", False)
    bad = Kernel("kernel_bad", 'extern "C" __global__ void kernel_bad(float* x) { x[0] = undeclared; }\n')
    monkeypatch.setattr("distort.kernels.cuda.plan.launches", lambda operation: [Launch(bad, [0], 1)])
    program = CudaProgram(load_model(proto_of(LAYER)).graph)
    feeds = fed(np.random.default_rng(0), 3)
    want = Program(program.graph).run(feeds)[0]
    for _ in range(2):
        np.testing.assert_allclose(program.run(feeds)[0].get(), want, rtol=2e-3)
    (why,) = program.refused.values()
    assert "CUDA C of kernel_bad can't be compiled" in why and not program.plans


def test_what_a_library_fails_in_is_done_without_a_plan(fake_cuda: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a captured graph too: that isn't captured then, and fails when it is enqueued."""
    monkeypatch.setattr(plans, "STRICT", False)
    program = CudaProgram(load_model(proto_of(LAYER)).graph)
    feeds = fed(np.random.default_rng(0), 3)
    want = Program(program.graph).run(feeds)[0]
    for failing in (False, False, True, True):
        if failing:
            monkeypatch.setattr(
                ProductPlan,
                "run",
                lambda *_: (_ for _ in ()).throw(LibraryFailed("cuBLASLt: status 13 while enqueuing")),
            )
        np.testing.assert_allclose(program.run(feeds)[0].get(), want, rtol=2e-3)
    (why,) = program.refused.values()
    assert "LibraryFailed: cuBLASLt: status 13 while enqueuing" in why
