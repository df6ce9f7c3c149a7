"""TensorScatter as CUDA C against the NumPy kernels; values without elements."""

from __future__ import annotations

import numpy as np
import pytest

from .corpus import kind
from .graphs import check, graph_of, operations_of, run
from .simulating import WAYS, Array

RANDOM = np.random.default_rng(61)


def _feeds(dtype: str, axis: int, starts: list[int]) -> dict[str, Array]:
    shape = [3, 2, 6, 5]
    past = (RANDOM.standard_normal(shape) * 9).astype(kind(dtype))
    shape[axis] = 2
    return {"p": past, "u": (RANDOM.standard_normal(shape) * 9).astype(kind(dtype)), "w": np.array(starts)}


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8", "float8_e4m3fn"])
@pytest.mark.parametrize(("axis", "starts"), [(-2, [0, 4, 3]), (3, [1, 0, 2])])
def test_entries_at_their_places(axis: int, starts: list[int], dtype: str) -> None:
    name = {"float32": "float"}.get(dtype, dtype.replace("_", ""))
    text = f"({name} y) {{ y = TensorScatter <axis = {axis}> (p, u, w) }}"
    check(text, _feeds(dtype, axis, starts), opset=24, ways=WAYS[1:2])


def test_entries_that_go_round() -> None:
    text = '(float y) { y = TensorScatter <mode = "circular"> (p, u, w) }'
    check(text, _feeds("float32", -2, [5, 13, 0]), opset=24, ways=WAYS[:2])


def test_entries_from_the_first_place_on() -> None:
    text = "(float y) { y = TensorScatter (p, u) }"
    feeds = _feeds("float32", -2, [0, 0, 0])
    check(text, {name: feeds[name] for name in "pu"}, opset=24, ways=WAYS[1:2])


@pytest.mark.parametrize("starts", [[0, 5, 0], [-1, 0, 0]])
def test_entries_outside_are_refused(starts: list[int]) -> None:
    feeds = _feeds("float32", -2, starts)
    operations, results = operations_of(graph_of("(float y) { y = TensorScatter (p, u, w) }", feeds, 24), feeds)
    with pytest.raises(AssertionError, match="refused"):
        run(operations, results, feeds, WAYS[0])


@pytest.mark.parametrize("op", ["ReduceSum", "ReduceMax", "ReduceProd", "ReduceLogSumExp"])
def test_what_is_made_of_nothing_is_known(op: str) -> None:
    text = f"(float y) <int64[1] a = {{1}}> {{ y = {op} (x, a) }}"
    assert check(text, {"x": np.zeros((2, 0, 4), np.float32)}, opset=20) == []
