"""GroupQueryAttention on a GPU: one operation of cuDNN's in half precision, where all of the past is used."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx.helper
import pytest

from distort.engine import load_model
from distort.kernels.cuda import plans
from distort.kernels.cuda.options import CudaOptions
from distort.kernels.cuda.program import CudaProgram
from distort.kernels.program import Program

BATCH, HEADS, SIZE = 2, 4, 16


@pytest.fixture(autouse=True)
def errors_of_ours_are_errors(fake_cuda: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plans, "STRICT", True)


def graph_of(feeds: dict[str, Any], groups: int, rotary: int) -> Any:
    names = ["q", "k", "v", "pk", "pv", "n", "t", "c", "s"]
    node = onnx.helper.make_node(
        "GroupQueryAttention",
        names,
        ["y", "k2", "v2"],
        domain="com.microsoft",
        num_heads=HEADS,
        kv_num_heads=groups,
        do_rotary=rotary,
    )
    element = onnx.helper.np_dtype_to_tensor_dtype
    inputs = [onnx.helper.make_tensor_value_info(n, element(feeds[n].dtype), feeds[n].shape) for n in names]
    outputs = [onnx.helper.make_tensor_value_info(n, element(feeds["q"].dtype), None) for n in node.output]
    opsets = [onnx.helper.make_opsetid("", 21), onnx.helper.make_opsetid("com.microsoft", 1)]
    made = onnx.helper.make_graph([node], "g", inputs, outputs)
    return load_model(onnx.helper.make_model(made, opset_imports=opsets, ir_version=10).SerializeToString()).graph


def feeds_of(dtype: str, steps: int, past: int, groups: int, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)

    def real(*shape: int) -> np.ndarray[Any, Any]:
        return (rng.random(shape, np.float32) - 0.5).astype(dtype)

    feeds: dict[str, Any] = {"q": real(BATCH, steps, HEADS * SIZE)}
    for name in ("k", "v"):
        feeds[name] = real(BATCH, steps, groups * SIZE)
        feeds["p" + name] = real(BATCH, groups, past, SIZE)
    feeds["n"] = np.full(BATCH, past + steps - 1, np.int32)
    feeds["t"] = np.array(past + steps, np.int32)
    return feeds | {name: real(32, SIZE // 2) for name in ("c", "s")}


def check(program: CudaProgram, plain: Program, feeds: dict[str, Any]) -> None:
    atol = 3e-3 if feeds["q"].dtype == np.float16 else 1e-5
    for mine, theirs in zip(program.run(feeds), plain.run(feeds), strict=True):
        found = mine if isinstance(mine, np.ndarray) else mine.get()
        np.testing.assert_allclose(found.astype(float), theirs.astype(float), atol=atol)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize(("steps", "past"), [(1, 5), (4, 0), (3, 4)])
@pytest.mark.parametrize(("groups", "rotary"), [(4, 0), (2, 1), (1, 1), (1, 0)])
def test_a_group_is_read_by_all_of_its_heads(dtype: str, steps: int, past: int, groups: int, rotary: int) -> None:
    feeds = feeds_of(dtype, steps, past, groups)
    graph = graph_of(feeds, groups, rotary)
    program = CudaProgram(graph, CudaOptions(use_tf32=False))
    for _ in range(4):
        check(program, Program(graph), feeds)
    ((_, plan),) = program.plans
    kinds = [step.operation.kind for step in plan.steps]
    assert plan.is_capturable and program.n_graph_runs == 2
    if dtype == "float16":
        (attention,) = (step.operation for step in plan.steps if step.operation.kind == "cuda attention")
        assert [t.shape[1] for t in attention.inputs[:3]] == [HEADS, groups, groups]
        assert "cuda product" not in kinds
    else:
        assert kinds.count("cuda product") == 2


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize(("steps", "past", "groups"), [(1, 6, 2), (1, 6, 4), (3, 6, 2), (4, 0, 1)])
@pytest.mark.parametrize("rotary", [0, 1])
def test_a_cache_of_which_entries_use_a_part(
    fake_cuda: Any, dtype: str, steps: int, past: int, groups: int, rotary: int
) -> None:
    """A cache that stays as long as it is: what is new goes where an entry's tokens end.

    That all of the past is used was taken for likely: the first run that has less is done by NumPy's kernels.
    """
    feeds = feeds_of(dtype, steps, past, groups)
    graph = graph_of(feeds, groups, rotary)
    program, plain = CudaProgram(graph, CudaOptions(use_tf32=False)), Program(graph)
    feeds["t"] = np.array(max(past, steps), np.int32)
    many = [(past - 1, 0), (steps - 1, past - 1)] if past else [(3, 1), (0, 2)]
    for n in [*many, *many, many[0], many[0], many[0]]:
        feeds["n"] = np.array(n, np.int32)
        check(program, plain, feeds)
    plan = program.plans[-1][1]
    kinds = [step.operation.kind for step in plan.steps]
    assert "host" not in kinds and program.n_graph_runs
    # several queries have a mask of their own
    assert ("cuda attention" in kinds) == (dtype == "float16" and steps == 1)


def test_what_fits_no_cache_is_done_by_nodes(fake_cuda: Any) -> None:
    feeds = feeds_of("float16", 1, 6, 2)
    graph = graph_of(feeds, 2, 0)
    program, plain = CudaProgram(graph), Program(graph)
    feeds["t"] = np.array(6, np.int32)
    for n, total in (((5, 3), 6), ((2, 3), 6), ((6, 6), 7), ((6, 3), 7), ((5, 1), 6)):
        feeds["n"], feeds["t"] = np.array(n, np.int32), np.array(total, np.int32)
        check(program, plain, feeds)
