"""Row operations, compiled, against the NumPy kernels: softmax, normalizations, reductions, and what they fuse with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx.parser
import pytest

from distort.graph import reader
from distort.kernels.compiler.library import Library
from distort.kernels.compiler.program import CompiledProgram
from distort.kernels.program import Program

Array = np.ndarray[Any, Any]
RANDOM = np.random.default_rng(3)


def array(*shape: int, dtype: Any = np.float32) -> Array:
    return RANDOM.standard_normal(shape).astype(dtype)


def check(
    text: str,
    feeds: dict[str, Array],
    *,
    opset: int = 21,
    kinds: Sequence[str] = ("rows",),
    n_threads: int = 1,
    library: Library | None = None,
    rtol: float = 1e-4,
) -> None:
    """Compile, run, compare. ``kinds`` of operations that the plan has."""
    names = {"float32": "float", "float64": "double"}
    declared = ", ".join(
        f"{names.get(a.dtype.name, a.dtype.name)}[{','.join(map(str, a.shape))}] {name}" for name, a in feeds.items()
    )
    head = f'<ir_version: 10, opset_import: ["": {opset}, "com.microsoft": 1]> g ({declared})'
    model = onnx.parser.parse_model(f"{head} => {text}")
    graph = reader.read_model(model).graph
    program = CompiledProgram(graph, n_threads=n_threads, library=library)
    expected = Program(graph).run(feeds)
    got = program.run(feeds)
    for one, other in zip(got, expected, strict=True):
        assert one.dtype == other.dtype and one.shape == other.shape
        wide = [x.astype(np.float64) for x in (one, other)]
        np.testing.assert_allclose(*wide, rtol=rtol, atol=rtol / 10)
    plan = program.prepare([(a.dtype, a.shape) for a in feeds.values()])
    assert [operation.kind for operation in plan.operations] == list(kinds)


SHAPES = [(3, 7), (2, 3, 16), (5, 40), (1, 1000), (2, 3, 4, 5), (33, 1), (4, 65)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("axis", [-1, 0, 1])
@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax"])
def test_softmax(op: str, axis: int, shape: tuple[int, ...]) -> None:
    check(f"(float y) {{ y = {op} <axis = {axis}> (x) }}", {"x": array(*shape)})


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_softmax_of_old_versions(axis: int) -> None:
    check(f"(float y) {{ y = Softmax <axis = {axis}> (x) }}", {"x": array(3, 4, 5)}, opset=11)


def test_softmax_of_special_numbers() -> None:
    x = array(5, 20)
    x[0, 3], x[1, 4], x[2, 5] = np.nan, np.inf, -np.inf
    x[3] = -np.inf
    x[4] = 1e30
    check("(float y) { y = Softmax (x) }", {"x": x})


@pytest.mark.parametrize("dtype", ["float16", "float64"])
@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax", "ReduceMean", "ReduceL2", "ReduceLogSumExp"])
def test_other_floats(op: str, dtype: str) -> None:
    name = {"float64": "double"}.get(dtype, dtype)
    check(f"({name} y) {{ y = {op} (x) }}", {"x": array(6, 37, dtype=dtype)}, rtol=1e-2 if dtype == "float16" else 1e-9)


@pytest.mark.parametrize(
    ("shape", "axis"), [((4, 50), -1), ((2, 5, 8), 1), ((2, 3, 70), 2), ((7, 1), -1), ((3, 16), 0)]
)
@pytest.mark.parametrize("outputs", [1, 3])
def test_layer_normalization(outputs: int, shape: tuple[int, ...], axis: int) -> None:
    sizes = shape[axis:] if axis >= 0 else shape[-1:]
    names = ["y", "m", "s"][:outputs]
    declared, made = ", ".join(f"float {n}" for n in names), ", ".join(names)
    text = f"({declared}) {{ {made} = LayerNormalization <axis = {axis}> (x, g, b) }}"
    check(text, {"x": array(*shape), "g": array(*sizes), "b": array(*sizes)})


def test_root_mean_square_normalization() -> None:
    check("(float y) { y = RMSNormalization (x, g) }", {"x": array(2, 9, 48), "g": array(48)}, opset=23)
    text = "(float y, float r) { y, r = com.microsoft.SimplifiedLayerNormalization <epsilon = 1e-6> (x, g) }"
    check(text, {"x": array(2, 9, 48), "g": array(48)})


@pytest.mark.parametrize("wanted", ["y", "y, , , s", "y, m, v, s"])
def test_skip_layer_normalization(wanted: str) -> None:
    outputs = ", ".join(f"float {name}" for name in wanted.replace(" ", "").split(",") if name)
    text = f"({outputs}) {{ {wanted} = com.microsoft.SkipLayerNormalization (x, k, g, b, o) }}"
    feeds = {"x": array(2, 5, 40), "k": array(2, 5, 40), "g": array(40), "b": array(40), "o": array(40)}
    check(text, feeds)
    feeds["k"] = array(5, 40)
    check(text, feeds)


def test_skip_root_mean_square_normalization() -> None:
    text = "(float y, float s) { y, , , s = com.microsoft.SkipSimplifiedLayerNormalization (x, k, g) }"
    check(text, {"x": array(2, 5, 40), "k": array(2, 5, 40), "g": array(40)})


@pytest.mark.parametrize("size", [(7,), (5, 6), (8, 8)])
def test_instance_and_group_normalization(size: tuple[int, ...]) -> None:
    x = array(2, 6, *size)
    check("(float y) { y = InstanceNormalization (x, s, b) }", {"x": x, "s": array(6), "b": array(6)})
    text = "(float y) { y = GroupNormalization <num_groups = 3> (x, s, b) }"
    check(text, {"x": x, "s": array(6), "b": array(6)})
    check(text, {"x": x, "s": array(3), "b": array(3)}, opset=18)


def test_norms() -> None:
    x = array(4, 30, 3)
    x[0, :, 0] = 0
    for p in (1, 2):
        check(f"(float y) {{ y = LpNormalization <axis = 1, p = {p}> (x) }}", {"x": x})
    check("(float y) { y = MeanVarianceNormalization (x) }", {"x": array(2, 3, 4, 5)})


_AXES = [None, [0], [1], [2], [-1], [0, 1], [1, 2], [0, 2], [0, 1, 2]]


@pytest.mark.parametrize("axes", _AXES)
@pytest.mark.parametrize(
    "op", [f"Reduce{n}" for n in ("Sum", "Mean", "Max", "Min", "Prod", "L1", "L2", "SumSquare", "LogSum", "LogSumExp")]
)
def test_reduction(op: str, axes: list[int] | None) -> None:
    x = np.abs(array(5, 6, 35)) if op == "ReduceLogSum" else array(5, 6, 35)
    for keep in (0, 1):
        text = "" if axes is None else f", axes = {axes}"
        check(f"(float y) {{ y = {op} <keepdims = {keep}{text}> (x) }}", {"x": x}, opset=12)


@pytest.mark.parametrize("dtype", ["int32", "int64", "uint8", "int8"])
@pytest.mark.parametrize("op", ["ReduceSum", "ReduceMax", "ReduceMin"])
def test_reduction_of_integers(op: str, dtype: str) -> None:
    x = RANDOM.integers(0, 100, (6, 70)).astype(dtype)
    check(f"({dtype} y) {{ a = Constant <value_ints = [1]> () y = {op} (x, a) }}", {"x": x})


def test_extremes_and_no_numbers() -> None:
    x = array(4, 50)
    x[1, 7] = np.nan
    check("(float y) { y = ReduceMax <axes = [1]> (x) }", {"x": x}, opset=12)
    check("(float y) { y = ReduceMin <axes = [0]> (x) }", {"x": x}, opset=12)


@pytest.mark.parametrize("op", ["ArgMax", "ArgMin"])
@pytest.mark.parametrize("last", [0, 1])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "int64", "uint8"])
def test_places_of_extremes(op: str, last: int, dtype: str) -> None:
    x = RANDOM.integers(0, 9, (7, 50, 21)).astype(dtype)  # ties
    if dtype == "float32":
        x[1, 5, :4] = np.nan
        x[2] = -np.inf
    for axis in (0, 1, 2):
        for keep in (0, 1):
            text = f"<axis = {axis}, keepdims = {keep}, select_last_index = {last}>"
            check(f"(int64 y) {{ y = {op} {text} (x) }}", {"x": x})


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "int32"])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_running_sums(axis: int, dtype: str) -> None:
    x = RANDOM.integers(-9, 9, (3, 6, 37)).astype(dtype)
    name = {"float32": "float", "float64": "double"}.get(dtype, dtype)
    for flags in ((0, 0), (0, 1), (1, 0), (1, 1)):
        attributes = f"<exclusive = {flags[0]}, reverse = {flags[1]}>"
        text = f"({name} y) {{ a = Constant <value_int = {axis}> () y = CumSum {attributes} (x, a) }}"
        check(text, {"x": x}, kinds=("native",), n_threads=2)


def test_layer_normalization_in_parts_is_one_operation() -> None:
    text = """(float y) {
        two = Constant <value_float = 2.0> () eps = Constant <value_float = 1e-5> ()
        m = ReduceMean <axes = [-1]> (x) d = Sub (x, m) q = Pow (d, two) v = ReduceMean <axes = [-1]> (q)
        e = Add (v, eps) s = Sqrt (e) n = Div (d, s) w = Mul (n, g) y = Add (w, b)
    }"""
    check(text, {"x": array(2, 5, 48), "g": array(48), "b": array(48)}, opset=12)


def test_root_mean_square_in_parts_is_one_operation() -> None:
    text = """(float y) {
        two = Constant <value_float = 2.0> () eps = Constant <value_float = 1e-5> ()
        q = Pow (x, two) v = ReduceMean <axes = [-1]> (q) e = Add (v, eps) s = Sqrt (e) r = Reciprocal (s)
        n = Mul (x, r) y = Mul (g, n)
    }"""
    check(text, {"x": array(2, 5, 48), "g": array(48)}, opset=12)


def test_softmax_of_a_scaled_and_masked_sum() -> None:
    text = "(float y) { c = Constant <value_float = 0.125> () s = Mul (x, c) t = Add (s, m) y = Softmax (t) }"
    check(text, {"x": array(2, 3, 5, 37), "m": array(2, 1, 1, 37)})


def test_work_after_a_reduction() -> None:
    check("(float y) { m = ReduceMax <axes = [1], keepdims = 0> (x) y = Exp (m) }", {"x": array(6, 50)}, opset=12)
    text = "(float y) { m = ReduceSum <axes = [1]> (x) y = Div (x, m) }"
    check(text, {"x": np.abs(array(6, 50, 20))}, opset=12)


@pytest.mark.parametrize("shape", [(50, 3), (40, 33, 2), (2, 100, 4), (100, 3, 2)])
def test_short_rows(shape: tuple[int, ...]) -> None:
    x = array(*shape)
    check("(float y) { y = Softmax (x) }", {"x": x})
    check("(float y) { y = ReduceL2 <axes = [-1], keepdims = 0> (x) }", {"x": x}, opset=12)
    check("(float y) { m = ReduceMean <axes = [-1]> (x) y = Sub (x, m) }", {"x": x}, opset=12)
    check("(int64 y) { y = ArgMax <axis = -1> (x) }", {"x": x})


@pytest.mark.parametrize("n_threads", [2, 3])
def test_threads_change_nothing(n_threads: int) -> None:
    text = """<ir_version: 10, opset_import: ["": 12]> g (float[301,703] x) => (float u, float y, float z) {
        u = Tanh (x) y = Softmax (x) z = ReduceMean <axes = [0]> (x)
    }"""
    graph = reader.read_model(onnx.parser.parse_model(text)).graph
    feeds = {"x": array(301, 703)}
    alone = CompiledProgram(graph, n_threads=1).run(feeds)
    for one, other in zip(CompiledProgram(graph, n_threads=n_threads).run(feeds), alone, strict=True):
        np.testing.assert_array_equal(one, other)
