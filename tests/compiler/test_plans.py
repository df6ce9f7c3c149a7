"""Plans of one program for several shapes: what they share, and that it is right for each."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import pytest
from onnx import helper

from distort.engine import load_model
from distort.kernels.compiler import program as programs
from distort.kernels.compiler.builder import Builder
from distort.kernels.compiler.ir import Place, Tensor
from distort.kernels.compiler.program import CompiledProgram
from distort.kernels.program import Program

from .comparing import agree, both, model_of

Array = np.ndarray[Any, Any]


def _feeds(n: int) -> dict[str, Array]:
    return {"x": np.random.default_rng(n).standard_normal((n, 64)).astype(np.float32)}


def _programs() -> tuple[CompiledProgram, Program]:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "zero"], ["n"]),
        helper.make_node("Neg", ["minus_tail"], ["tail"]),
        helper.make_node("Concat", ["n", "tail"], ["goal"], axis=0),
        helper.make_node("Reshape", ["h", "goal"], ["r"]),
        helper.make_node("ReduceSum", ["r", "last"], ["y"], keepdims=0),
    ]
    weights = {
        "w": np.random.default_rng(0).standard_normal((64, 256)).astype(np.float32),
        "zero": np.array([0]),
        "minus_tail": np.array([-8, -32]),
        "last": np.array([2]),
    }
    graph = load_model(model_of(nodes, _feeds(4), weights, ["y"])).graph
    return CompiledProgram(graph), Program(graph)


def _weights_of(program: CompiledProgram, feeds: dict[str, Array]) -> list[Tensor]:
    plan = program.prepare([(value.dtype, value.shape) for value in feeds.values()])
    return [t for op in plan.operations for t in op.inputs if t.buffer.place is Place.CONSTANT]


def test_results_are_right_for_each_shape() -> None:
    compiled, plain = _programs()
    for n in (4, 1, 7, 4, 33):
        agree(compiled.run(_feeds(n)), plain.run(_feeds(n)), rtol=1e-4, atol=1e-4)


def test_weights_are_packed_once() -> None:
    program, _ = _programs()
    first, second = (_weights_of(program, _feeds(n)) for n in (4, 9))
    assert first
    assert [t.buffer for t in first] == [t.buffer for t in second]


def test_collector_is_as_before() -> None:
    program, _ = _programs()
    assert gc.isenabled()
    program.run(_feeds(3))
    assert gc.isenabled()
    gc.disable()
    try:
        program.run(_feeds(5))
        assert not gc.isenabled()
    finally:
        gc.enable()


@pytest.mark.parametrize("order", [(0.0, -0.0), (-0.0, 0.0)])
def test_zero_has_a_sign(order: tuple[float, float]) -> None:
    nodes = [helper.make_node("Div", ["x", f"z{i}"], [f"y{i}"]) for i in range(2)]
    weights = {f"z{i}": np.array(zero, np.float32) for i, zero in enumerate(order)}
    results, expected, _ = both(nodes, {"x": np.ones(5, np.float32)}, weights, ["y0", "y1"])
    agree(results, expected)


def test_plans_of_many_shapes_stay() -> None:
    program, _ = _programs()
    first = program.prepare([(np.dtype(np.float32), (1, 64))])
    for n in range(2, 301):
        program.prepare([(np.dtype(np.float32), (n, 64))])
    assert len(program.plans) == 300
    assert program.prepare([(np.dtype(np.float32), (1, 64))]) is first


def test_plans_are_dropped_by_size_and_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "LEAST_PLANS", 2)
    monkeypatch.setattr(programs, "MOST_PLANS_NBYTES", 1)
    compiled, _ = _programs()
    for n in (3, 4):
        compiled.run(_feeds(n))
    assert [key[0][1] for key, _ in compiled.plans if key[0]] == [(3, 64), (4, 64)]
    monkeypatch.setattr(programs, "LEAST_PLANS", 1)
    compiled.run(_feeds(3))
    compiled.run(_feeds(5))
    assert [key[0][1] for key, _ in compiled.plans if key[0]] == [(5, 64)]


def test_those_used_last_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "LEAST_PLANS", 1)
    monkeypatch.setattr(programs, "MOST_PLANS", 2)
    compiled, _ = _programs()
    for n in (3, 4, 3, 5):
        compiled.run(_feeds(n))
    assert [key[0][1] for key, _ in compiled.plans if key[0]] == [(3, 64), (5, 64)]


def test_a_plan_does_not_keep_its_builder() -> None:
    x = np.random.default_rng(0).standard_normal((1, 32, 9, 9)).astype(np.float32)
    nodes = [
        helper.make_node("MaxPool", ["x"], ["p"], kernel_shape=[2, 2]),
        helper.make_node("Conv", ["p", "w"], ["c"]),
        helper.make_node("GlobalAveragePool", ["c"], ["y"]),
    ]
    weights = {"w": np.ones((32, 32, 3, 3), np.float32)}
    program = CompiledProgram(load_model(model_of(nodes, {"x": x}, weights, ["y"])).graph)
    program.run({"x": x})
    assert not [found for found in gc.get_objects() if type(found) is Builder]
