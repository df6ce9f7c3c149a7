"""TopK and CumSum in native code."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from .movement import check, compiles_for_arm, lesser_library, one_node


@pytest.mark.parametrize("largest", [0, 1])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int32, np.uint32, np.int8, np.uint16])
@pytest.mark.parametrize(
    ("shape", "axis", "k"),
    [((40,), 0, 40), ((3, 100), -1, 7), ((3, 100), 0, 2), ((2, 50, 3), 1, 20), ((5, 1), 1, 1), ((2, 9), 1, 0)],
)
def test_top_k(shape: tuple[int, ...], axis: int, k: int, dtype: Any, largest: int) -> None:
    # few different values: many ties
    feeds = {"x": np.random.default_rng(1).integers(-30 if np.dtype(dtype).kind != "u" else 0, 30, shape).astype(dtype)}
    graph = one_node("TopK", feeds, {"k": np.array([k])}, n_outputs=2, axis=axis, largest=largest)
    check(graph, feeds)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(width=32) | st.sampled_from([0.0, -0.0, float("nan"), float("inf")]), min_size=1, max_size=90),
    st.data(),
    st.booleans(),
)
def test_top_k_of_any_numbers(numbers: list[float], data: st.DataObject, largest: bool) -> None:
    feeds = {"x": np.array(numbers, np.float32)}
    k = data.draw(st.integers(0, len(numbers)))
    check(one_node("TopK", feeds, {"k": np.array([k])}, n_outputs=2, largest=int(largest)), feeds)


def test_top_k_of_long_rows() -> None:
    feeds = {"x": np.random.default_rng(1).normal(size=(4, 8400)).astype(np.float32)}
    check(one_node("TopK", feeds, {"k": np.array([300])}, n_outputs=2), feeds, n_threads=2)


@pytest.mark.parametrize("exclusive", [0, 1])
@pytest.mark.parametrize("reverse", [0, 1])
@pytest.mark.parametrize("dtype", [np.float32, np.int64, np.float64])
@pytest.mark.parametrize(("shape", "axis"), [((40,), 0), ((3, 50), -1), ((3, 50), 0), ((2, 5, 300), 1), ((3, 0), 1)])
def test_cumulative(shape: tuple[int, ...], axis: int, dtype: Any, reverse: int, exclusive: int) -> None:
    feeds = {"x": (np.random.default_rng(1).normal(size=shape) * 10).astype(dtype)}
    for op_type, opset in (("CumSum", 21), ("CumProd", 26)):
        graph = one_node(op_type, feeds, {"axis": np.array(axis)}, reverse=reverse, exclusive=exclusive, opset=opset)
        check(graph, feeds)


@pytest.mark.parametrize("target", ["avx2", "sse4.2"])
def test_on_lesser_machines(target: str) -> None:
    feeds = {"x": np.random.default_rng(1).normal(size=(50, 90)).astype(np.float32)}
    for axis in (0, 1):
        for graph in (
            one_node("TopK", feeds, {"k": np.array([9])}, n_outputs=2, axis=axis),
            one_node("CumSum", feeds, {"axis": np.array(axis)}),
        ):
            check(graph, feeds, library=lesser_library(target))
            compiles_for_arm(graph, feeds)
