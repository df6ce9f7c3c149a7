"""Element-wise nodes on one value and weights: later plans, which go by what the first one found, are as it was."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import NodeProto, helper

from distort.engine import load_model
from distort.kernels.compiler.ir import Map, Place
from distort.kernels.compiler.program import CompiledProgram
from distort.kernels.compiler.specialise import Plan
from distort.kernels.program import Program

from .comparing import agree, model_of

Array = np.ndarray[Any, Any]
node = helper.make_node
_NUMBERS = {name: np.array(value, np.float32) for name, value in (("three", 3), ("zero", 0), ("six", 6), ("half", 0.5))}
_COLUMN = np.random.default_rng(1).standard_normal((1, 32, 1, 1)).astype(np.float32)
_ROW = np.random.default_rng(2).standard_normal(20).astype(np.float32)

#: a swish of x, whose value is used twice
_SWISH = [
    node("Add", ["x", "three"], ["a"]),
    node("Clip", ["a", "zero", "six"], ["b"]),
    node("Mul", ["x", "b"], ["c"]),
    node("Div", ["c", "six"], ["y"]),
]
_GELU = [
    node("Add", ["x", "row"], ["a"]),
    node("Erf", ["a"], ["b"]),
    node("Add", ["b", "half"], ["c"]),
    node("Mul", ["a", "c"], ["y"]),
]
_CASES: dict[str, tuple[list[NodeProto], dict[str, Array], list[tuple[int, ...]], list[str]]] = {
    "swish": (_SWISH, _NUMBERS, [(2, 3), (5, 1), (0, 3), (4, 5, 6), (1, 1), ()], ["y"]),
    "gelu": (_GELU, {**_NUMBERS, "row": _ROW}, [(3, 20), (7, 20), (2, 5, 20), (3, 1), (2, 1, 20), (20,)], ["y"]),
    "scaled": ([node("Mul", ["column", "x"], ["y"])], {"column": _COLUMN}, [(1, 32, 4, 5), (2, 32, 1, 1)], ["y"]),
    "read elsewhere": (_SWISH, _NUMBERS, [(2, 3), (4, 5)], ["y", "b"]),
    "reversed": (
        [node("Sub", ["three", "x"], ["a"]), node("Div", ["half", "a"], ["y"])],
        _NUMBERS,
        [(2, 3), (9,), (4, 1, 2)],
        ["y"],
    ),
    "of an average": (
        [
            node("AveragePool", ["x"], ["p"], kernel_shape=[2, 2]),
            node("Mul", ["p", "column"], ["q"]),
            node("Relu", ["q"], ["y"]),
        ],
        {"column": _COLUMN},
        [(1, 32, 4, 5), (2, 32, 6, 3), (1, 32, 2, 2)],
        ["y"],
    ),
}


def _described(plan: Plan) -> list[Any]:
    """Steps with their words, as far as these are the same in each program."""
    told: list[Any] = [plan.arena_nbytes]
    for operation in plan.operations:
        views = [(t.shape, t.strides, t.offset, t.buffer.place) for t in (*operation.inputs, *operation.outputs)]
        held = [t.buffer.array.tobytes() for t in operation.inputs if t.buffer.array is not None]
        told.append((operation.kind, operation.names, views, held, getattr(operation, "expression", None)))
    return told


@pytest.mark.parametrize("case", _CASES)
def test_plans_are_those_of_a_new_program(case: str) -> None:
    nodes, weights, shapes, fetch = _CASES[case]
    feeds = [np.random.default_rng(0).standard_normal(shape).astype(np.float32) for shape in [*shapes, *shapes[::-1]]]
    model = model_of(nodes, {"x": feeds[0]}, weights, fetch)
    graph = load_model(model).graph
    compiled, plain = CompiledProgram(graph), Program(graph)
    for x in feeds:
        agree(compiled.run({"x": x}), plain.run({"x": x}), rtol=1e-4, atol=1e-5)
        fresh = CompiledProgram(load_model(model).graph)
        key = [(x.dtype, x.shape)]
        assert _described(compiled.prepare(key)) == _described(fresh.prepare(key))


def test_a_default_that_is_fed_is_no_weight() -> None:
    x, three = np.ones((2, 2), np.float32), np.array(3, np.float32)
    feeds = {"x": x, "three": three}
    graph = load_model(model_of([node("Add", ["x", "three"], ["y"])], feeds, {"three": three}, ["y"])).graph
    program = CompiledProgram(graph)
    for value in (3, 5):
        (y,) = program.run({"x": x, "three": np.array(value, np.float32)})
        assert (y == 1 + value).all()
    (y,) = program.run({"x": x})
    assert (y == 4).all()


def test_a_chain_is_one_map() -> None:
    graph = load_model(model_of(_SWISH, {"x": np.ones((2, 3), np.float32)}, _NUMBERS, ["y"])).graph
    program = CompiledProgram(graph)
    for size in (3, 4):
        (operation,) = program.prepare([(np.dtype(np.float32), (2, size))]).operations
        assert isinstance(operation, Map)
        assert [t.buffer.place for t in operation.inputs] == [Place.FEED]
