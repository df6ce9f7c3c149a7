"""Row operations as CUDA C against the NumPy kernels: groups of every size, along and across, in one pass and more."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distort.kernels.cuda.codegen import launches

from .graphs import check
from .simulating import WAYS, Array

RANDOM = np.random.default_rng(3)


def array(*shape: int, dtype: Any = np.float32) -> Array:
    return RANDOM.standard_normal(shape).astype(dtype)


SHAPES = [(3, 7), (2, 3, 16), (5, 40), (1, 1000), (2, 3, 4, 5), (33, 1), (4, 65), (2, 5000), (300, 4)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("axis", [-1, 0, 1])
def test_softmax(axis: int, shape: tuple[int, ...]) -> None:
    check(f"(float y) {{ y = Softmax <axis = {axis}> (x) }}", {"x": array(*shape)}, kinds=["rows"])


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
    x = array(6, 40, dtype=dtype)
    check(f"({name} y) {{ y = {op} (x) }}", {"x": x}, rtol=1e-2 if dtype == "float16" else 1e-9)


@pytest.mark.parametrize(("shape", "axis"), [((4, 50), -1), ((2, 5, 8), 1), ((3, 16), 0), ((2, 4096), -1)])
@pytest.mark.parametrize("outputs", [1, 3])
def test_layer_normalization(outputs: int, shape: tuple[int, ...], axis: int) -> None:
    sizes = shape[axis:] if axis >= 0 else shape[-1:]
    names = ["y", "m", "s"][:outputs]
    declared, made = ", ".join(f"float {n}" for n in names), ", ".join(names)
    text = f"({declared}) {{ {made} = LayerNormalization <axis = {axis}> (x, g, b) }}"
    check(text, {"x": array(*shape), "g": array(*sizes), "b": array(*sizes)}, kinds=["rows"])


def test_normalization_of_large_means_is_accurate() -> None:
    x = array(3, 4096) + 1000
    text = "(float y) { y = LayerNormalization (x, g) }"
    check(text, {"x": x, "g": np.ones(4096, np.float32)}, rtol=1e-3, atol=2e-4, ways=[WAYS[1]])


def test_half_precision_in_packs() -> None:
    text = "(float16 y, float16 s) { y, , , s = com.microsoft.SkipLayerNormalization (x, k, g, b) }"
    feeds = {name: array(*shape, dtype=np.float16) for name, shape in
             (("x", (2, 5, 512)), ("k", (2, 5, 512)), ("g", (512,)), ("b", (512,)))}  # fmt: skip
    (operation,) = check(text, feeds, kinds=["rows"], rtol=1e-2)
    (launch,) = launches(operation) or []
    assert "Pack<unsigned short, 8>" in launch.kernel.source


@pytest.mark.parametrize("size", [(7,), (5, 6), (8, 8)])
def test_instance_and_group_normalization(size: tuple[int, ...]) -> None:
    x = array(2, 6, *size)
    check("(float y) { y = InstanceNormalization (x, s, b) }", {"x": x, "s": array(6), "b": array(6)})
    text = "(float y) { y = GroupNormalization <num_groups = 3> (x, s, b) }"
    check(text, {"x": x, "s": array(6), "b": array(6)})


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_reductions_over_any_axes(data: st.DataObject) -> None:
    rank = data.draw(st.integers(1, 4))
    sizes = st.sampled_from([1, 2, 3, 8, 17, 33, 70])
    shape = tuple(data.draw(st.lists(sizes, min_size=rank, max_size=rank)))
    if math.prod(shape) > 40_000:
        shape = shape[:2]
    axes = sorted(data.draw(st.sets(st.sampled_from(range(len(shape))), min_size=1)))
    op = data.draw(
        st.sampled_from(["ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceLogSumExp"])
    )
    dtype = data.draw(st.sampled_from(["float32", "int32", "float16"]))
    if dtype == "int32" and op in ("ReduceMean", "ReduceLogSumExp"):
        op = "ReduceSumSquare"
    x = (RANDOM.standard_normal(shape) * (20 if dtype == "int32" else 1)).astype(dtype)
    name = {"float32": "float"}.get(dtype, dtype)
    text = f"({name} y) <int64[{len(axes)}] a = {{{','.join(map(str, axes))}}}> {{ y = {op} (x, a) }}"
    way = data.draw(st.sampled_from(WAYS))
    check(
        text, {"x": x}, ways=[way], rtol=1e-2 if dtype == "float16" else 1e-4, atol=1e-2 if dtype == "float16" else 1e-4
    )


@pytest.mark.parametrize("dtype", ["float32", "int32", "int8", "uint8", "float64"])
@pytest.mark.parametrize("last", [0, 1])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_places_of_extremes(axis: int, last: int, dtype: str) -> None:
    x = RANDOM.integers(0, 5, (3, 70, 9)).astype(dtype)
    if np.dtype(dtype).kind == "f":
        x[0, 5], x[1, 3, 2], x[1, 50, 2], x[2, :, 1] = np.nan, np.nan, np.nan, -np.inf
    for op in ("ArgMax", "ArgMin"):
        text = f"(int64 y) {{ y = {op} <axis = {axis}, select_last_index = {last}> (x) }}"
        check(text, {"x": x})


def test_what_is_fused_with_rows() -> None:
    text = "(float y) { a = Add (x, m) \n b = Softmax (a) \n y = Mul (b, x) }"
    check(text, {"x": array(4, 3, 60), "m": array(4, 1, 60)}, kinds=["rows"])
    text = "(float y) { g = Gelu (x) \n s = Softmax (g) \n h = Softmax (s) \n y = Neg (h) }"
    (operation,) = check(text, {"x": array(9, 64)}, kinds=["rows"])
    (launch,) = launches(operation) or []
    assert launch.shared_nbytes > 0  # what is dear is kept


def test_rows_that_are_too_long_to_be_kept() -> None:
    text = "(float y) { g = Gelu (x) \n y = Softmax (g) }"
    (operation,) = check(text, {"x": array(2, 9000)}, kinds=["rows"])
    (launch,) = launches(operation) or []
    assert launch.shared_nbytes == 0


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_largest_of_what_is_no_number(value: str) -> None:
    x = array(4, 50)
    x[1, 20] = float(value)
    check("(float y, float z) { y = ReduceMax (x) \n z = ReduceMin (x) }", {"x": x})


def test_a_row_has_a_thread_a_warp_or_a_block() -> None:
    def lanes(*shape: int) -> tuple[int, int]:
        (operation,) = check("(float y) { y = Softmax (x) }", {"x": array(*shape)}, ways=[WAYS[1]])
        (launch,) = launches(operation) or []
        return launch.n_threads // shape[0], launch.block

    assert lanes(100, 4) == (1, 256)
    assert lanes(100, 64) == (16, 256)
    assert lanes(10, 2048) == (512, 512)
    assert lanes(10, 49) == (64, 64)
    assert lanes(1100, 49) == (32, 256)


@pytest.mark.parametrize("axis", [0, 1])
def test_many_reductions_share_their_memory(axis: int) -> None:
    lines = [f"y{n} = Softmax <axis = {axis}> (y{n - 1})" for n in range(1, 9)]
    text = f"(double z) {{ y0 = Gelu (x) \n {chr(10).join(lines)} \n z = Neg (y8) }}"
    (operation,) = check(text, {"x": array(40, 40, dtype=np.float64)}, kinds=["rows"], ways=WAYS[1:])
    (launch,) = launches(operation) or []
    declared = re.findall(r"__shared__ (?:double|long long) \w+\[(\d+)\]", launch.kernel.source)
    assert 8 * sum(map(int, declared)) + launch.shared_nbytes <= 48 << 10
