"""A program on a GPU whose steps are libraries' work between kernels of ours: eager, and as one launch of a graph."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx.parser
import pytest

from distort.engine import load_model
from distort.kernels.cuda.options import CudaOptions
from distort.kernels.program import Program

from .lowered import model_of
from .test_library_operations import node, real

_CONVOLUTIONAL = [
    node("Conv", "x w b", "c", pads=[1, 1, 1, 1]),
    node("Relu", "c", "r"),
    node("Flatten", "r", "f"),
    node("MatMul", "f m", "g"),
    node("Add", "g d", "h"),
    node("Softmax", "h"),
]
_WEIGHTS = {"w": real(4, 3, 3, 3), "b": real(4), "m": real(100, 6), "d": real(6)}
_ATTENTIVE = [
    node("MatMul", "x m", "p"),
    node("Attention", "p p p", "a", q_num_heads=2, kv_num_heads=2, is_causal=1),
    node("Add", "a x"),
]


def _host(array: Any) -> Any:
    return array.get() if hasattr(array, "get") else array


@pytest.mark.parametrize("captured", [False, True])
@pytest.mark.parametrize("search", ["DEFAULT", "EXHAUSTIVE"])
def test_a_convolutional_network(fake_cuda: Any, captured: bool, search: str) -> None:
    from distort.kernels.cuda.program import CudaProgram

    graph = load_model(model_of(_CONVOLUTIONAL, {"x": real(2, 3, 5, 5)}, _WEIGHTS, ["y"])).graph
    options = CudaOptions(enable_cuda_graph=captured, cudnn_conv_algo_search=search)
    program = CudaProgram(graph, options)
    for seed in range(4):
        feeds = {"x": real(2, 3, 5, 5, seed=seed)}
        (got,) = program.run(feeds)
        np.testing.assert_allclose(_host(got), Program(graph).run(feeds)[0], 2e-2, 1e-3)  # TF32
    ((_, plan),) = program.plans
    assert [step.operation.kind for step in plan.steps] == ["cuda convolution", "cuda product", "rows"]
    assert program.n_graph_runs >= (3 if captured else 1)
    assert not program.context.libraries.missing


def test_plans_are_timed_within_the_memory_limit(fake_cuda: Any) -> None:
    """One that wants more is none of those that are timed."""
    from distort.kernels.cuda.program import CudaProgram

    graph = load_model(model_of(_CONVOLUTIONAL[:1], {"x": real(2, 3, 5, 5)}, _WEIGHTS, ["c"])).graph
    program = CudaProgram(graph, CudaOptions(gpu_mem_limit=16 << 20, use_tf32=False))
    feeds = {"x": real(2, 3, 5, 5)}
    np.testing.assert_allclose(_host(program.run(feeds)[0]), Program(graph).run(feeds)[0], 1e-4, 1e-4)
    ((_, plan),) = program.plans
    assert [step.library.workspace_nbytes for step in plan.steps if step.library is not None] == [1024]


@pytest.mark.parametrize("captured", [False, True])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_an_attentive_network(fake_cuda: Any, captured: bool, dtype: str) -> None:
    from distort.kernels.cuda.program import CudaProgram

    weights = {"m": real(16, 16, dtype=dtype)}
    graph = load_model(model_of(_ATTENTIVE, {"x": real(2, 5, 16, dtype=dtype)}, weights, ["y"])).graph
    program = CudaProgram(graph, CudaOptions(enable_cuda_graph=captured, use_tf32=False))
    for seed in range(4):
        feeds = {"x": real(2, 5, 16, seed=seed, dtype=dtype)}
        (got,) = program.run(feeds)
        atol = 2e-2 if dtype == "float16" else 1e-4
        np.testing.assert_allclose(_host(got), Program(graph).run(feeds)[0], atol, atol)
    ((_, plan),) = program.plans
    kinds = [step.operation.kind for step in plan.steps]
    assert ("cuda attention" in kinds) == (dtype == "float16")
    assert kinds.count("cuda product") == (1 if dtype == "float16" else 3)
    assert program.n_graph_runs >= (3 if captured else 1)


def test_what_cannot_be_built_after_all_is_lowered_again(fake_cuda: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some engine supports it, and none can be built: as with an epilogue whose kernel doesn't compile."""
    import cudnn

    from distort.kernels.cuda.program import CudaProgram

    build_plans = cudnn.pygraph.build_plans

    def failing(self: Any) -> None:
        if len(self._steps) > 1:
            raise cudnn.cudnnGraphNotSupportedError("no plan in the list could be built")
        build_plans(self)

    monkeypatch.setattr(cudnn.pygraph, "build_plans", failing)
    graph = load_model(model_of(_CONVOLUTIONAL, {"x": real(2, 3, 5, 5)}, _WEIGHTS, ["y"])).graph
    program = CudaProgram(graph, CudaOptions(cudnn_conv_algo_search="DEFAULT"))
    feeds = {"x": real(2, 3, 5, 5)}
    np.testing.assert_allclose(_host(program.run(feeds)[0]), Program(graph).run(feeds)[0], 2e-2, 1e-3)
    ((_, plan),) = program.plans
    kinds = ["cuda convolution", "map", "cuda product", "rows"]
    assert [step.operation.kind for step in plan.steps] == kinds and not program.refused


def test_operands_that_no_algorithm_takes_are_multiplied_another_way(
    fake_cuda: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where an operand begins in memory is known when a plan is made: no run finds out."""
    from distort.kernels.cuda import blaslt
    from distort.kernels.cuda.libraries import LibraryFailed
    from distort.kernels.cuda.program import CudaProgram

    asked: list[int] = []
    candidates = blaslt.ProductPlan._candidates

    def strict(self: Any, alignment: int, *others: Any) -> Any:
        asked.append(alignment)
        if alignment < 16:
            raise LibraryFailed("cuBLASLt: CUBLAS_STATUS_NOT_SUPPORTED while looking for an algorithm")
        return candidates(self, alignment, *others)

    monkeypatch.setattr(blaslt.ProductPlan, "_candidates", strict)
    text = """<ir_version: 10, opset_import: ["" : 18]> g (float[6, 8] x, float[8, 5] w) => (float[5, 5] y) {
        begin = Constant <value_ints = [1, 0]> ()
        end = Constant <value_ints = [6, 7]> ()
        axes = Constant <value_ints = [0, 1]> ()
        part = Slice (x, begin, end, axes)
        begin_w = Constant <value_ints = [1]> ()
        end_w = Constant <value_ints = [8]> ()
        axes_w = Constant <value_ints = [0]> ()
        part_w = Slice (w, begin_w, end_w, axes_w)
        y = MatMul (part, part_w)
    }"""
    graph = load_model(onnx.parser.parse_model(text).SerializeToString()).graph
    program = CudaProgram(graph)
    feeds = {"x": real(6, 8), "w": real(8, 5)}
    for _ in range(4):
        np.testing.assert_allclose(_host(program.run(feeds)[0]), Program(graph).run(feeds)[0], 2e-2, 1e-3)
    assert min(asked) == 4 and not program.refused
    (why,) = program.context.libraries.obstacles()
    assert "no algorithm for operands that are aligned to 4 bytes" in why
