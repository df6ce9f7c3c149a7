"""Writing by index as CUDA C against the NumPy kernels: the last of several updates stays, in whatever order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from .graphs import check, graph_of, operations_of, run
from .simulating import WAYS, Array

RANDOM = np.random.default_rng(13)
_NAMES = {"float32": "float", "float64": "double"}


def array(*shape: int, dtype: Any = np.float32) -> Array:
    return (RANDOM.standard_normal(shape) * 9).astype(dtype)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_last_of_several_elements_stays(axis: int) -> None:
    x = array(5, 6, 7)
    shape = [4 if i != axis else 20 for i in range(3)]
    places = RANDOM.integers(-x.shape[axis], x.shape[axis], shape)
    text = f"(float y) {{ y = ScatterElements <axis = {axis}> (x, i, u) }}"
    check(text, {"x": x, "i": places, "u": array(*shape)})


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_the_last_of_several_rows_stays(depth: int) -> None:
    x = array(3, 4, 5)
    places = np.stack([RANDOM.integers(-n, n, (2, 30)) for n in x.shape[:depth]], -1)
    check("(float y) { y = ScatterND (x, i, u) }", {"x": x, "i": places, "u": array(2, 30, *x.shape[depth:])})


def test_one_update_needs_no_winners() -> None:
    feeds = {"x": array(6, 4), "i": np.array([[2]]), "u": array(1, 4)}
    operations = check("(float y) { y = ScatterND (x, i, u) }", feeds)
    assert [operation.kind for operation in operations] == ["map", "cuda_scatter"]


@pytest.mark.parametrize("reduction", ["add", "mul", "max", "min"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int8", "int32", "int64", "uint8"])
def test_reductions(dtype: str, reduction: str) -> None:
    x = RANDOM.integers(0, 4, (5, 7)).astype(dtype)
    updates = RANDOM.integers(0, 4, (9, 7)).astype(dtype)
    places = RANDOM.integers(0, 5, (9, 7))
    name = _NAMES.get(dtype, dtype)
    text = f'({name} y) {{ y = ScatterElements <reduction = "{reduction}"> (x, i, u) }}'
    check(text, {"x": x, "i": places, "u": updates}, ways=WAYS[1:], rtol=1e-3)
    text = f'({name} y) {{ y = ScatterND <reduction = "{reduction}"> (x, i, u) }}'
    check(text, {"x": x, "i": places[:, :1], "u": updates}, ways=WAYS[1:], rtol=1e-3)


def test_what_is_out_of_range_is_told_and_not_written() -> None:
    feeds = {"x": array(5, 4), "i": np.array([[1], [7]]), "u": array(2, 4)}
    graph = graph_of("(float y) { y = ScatterND (x, i, u) }", feeds, 21)
    operations, results = operations_of(graph, feeds)
    with pytest.raises(AssertionError, match="refused"):
        run(operations, results, feeds, WAYS[1])


def test_strided_operands_are_read_where_they_lie() -> None:
    text = "(float y) { t = Transpose (x) \n v = Transpose (u) \n j = Transpose (i) \n y = ScatterElements (t, j, v) }"
    feeds = {"x": array(6, 5), "i": RANDOM.integers(0, 5, (6, 3)), "u": array(6, 3)}
    operations = check(text, feeds)
    assert [operation.kind for operation in operations] == ["map", "map", "cuda_scatter", "cuda_scatter"]
