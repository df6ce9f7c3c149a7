"""Reading by index as CUDA C against the NumPy kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from distort.kernels.cuda.codegen import launches

from .graphs import check, graph_of, operations_of, run
from .simulating import WAYS, Array

RANDOM = np.random.default_rng(7)


def array(*shape: int, dtype: Any = np.float32) -> Array:
    return (RANDOM.standard_normal(shape) * 50).astype(dtype)


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8", "int64", "float64"])
@pytest.mark.parametrize(("shape", "axis"), [((20, 64), 0), ((5, 7, 6), 1), ((5, 7), -1), ((4, 3, 9), 2), ((9,), 0)])
@pytest.mark.parametrize("indices", [(5,), (2, 3), ()])
def test_gather(indices: tuple[int, ...], shape: tuple[int, ...], axis: int, dtype: str) -> None:
    name = {"float32": "float", "float64": "double"}.get(dtype, dtype)
    places = RANDOM.integers(-shape[axis], shape[axis], indices)
    text = f"({name} y) {{ y = Gather <axis = {axis}> (x, i) }}"
    check(text, {"x": array(*shape, dtype=dtype), "i": places.astype(np.int64)}, ways=WAYS[:2])


def test_rows_are_copied_in_packs() -> None:
    text = "(float16 y) { y = Gather (x, i) }"
    feeds = {"x": array(30, 64, dtype=np.float16), "i": RANDOM.integers(0, 30, (3, 5)).astype(np.int32)}
    (operation,) = check(text, feeds)
    (launch,) = launches(operation) or []
    assert launch.n_threads == 15 * 64 // 8


def test_gather_of_a_view() -> None:
    text = "(float y) { t = Transpose <perm = [1, 0, 2]> (x) \n y = Gather <axis = 1> (t, i) }"
    check(text, {"x": array(4, 5, 6), "i": np.array([3, 0, -1])}, kinds=["cuda_gather"])


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_gather_elements(axis: int) -> None:
    x = array(5, 6, 7)
    shape = [3 if i != axis else 9 for i in range(3)]
    places = RANDOM.integers(-x.shape[axis], x.shape[axis], shape)
    check(f"(float y) {{ y = GatherElements <axis = {axis}> (x, i) }}", {"x": x, "i": places})


@pytest.mark.parametrize(("batch", "depth"), [(0, 1), (0, 2), (0, 3), (1, 1), (1, 2)])
def test_gather_nd(batch: int, depth: int) -> None:
    x = array(4, 5, 6)
    sizes = x.shape[batch : batch + depth]
    rows = (4, 3) if batch else (2, 3)
    places = np.stack([RANDOM.integers(-n, n, rows) for n in sizes], -1)
    check(f"(float y) {{ y = GatherND <batch_dims = {batch}> (x, i) }}", {"x": x, "i": places})


@pytest.mark.parametrize("wrong", [5, -6])
def test_an_index_out_of_range_is_told_and_reads_nothing_else(wrong: int) -> None:
    feeds = {"x": array(5, 8), "i": np.array([0, wrong, 2])}
    graph = graph_of("(float y) { y = Gather (x, i) }", feeds, 21)
    operations, results = operations_of(graph, feeds)
    with pytest.raises(AssertionError, match="refused"):
        run(operations, results, feeds, WAYS[1])


def test_nothing_is_gathered() -> None:
    feeds = {"x": array(5, 8), "i": np.zeros((0, 2), np.int64)}
    assert check("(float y) { y = Gather (x, i) }", feeds) == []


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("interleaved", [0, 1])
@pytest.mark.parametrize("turned", [0, 4])
def test_rotary_embedding(turned: int, interleaved: int, dtype: str) -> None:
    name = {"float32": "float"}.get(dtype, dtype)
    pairs = (turned or 8) // 2
    feeds = {
        "x": RANDOM.standard_normal((2, 3, 5, 8)).astype(dtype),
        "c": RANDOM.standard_normal((20, pairs)).astype(dtype),
        "s": RANDOM.standard_normal((20, pairs)).astype(dtype),
        "p": RANDOM.integers(0, 20, (2, 5)),
    }
    attributes = f"interleaved = {interleaved}, rotary_embedding_dim = {turned}"
    text = f"({name} y) {{ y = RotaryEmbedding <{attributes}> (x, c, s, p) }}"
    check(text, feeds, opset=23, ways=WAYS[1:2], rtol=1e-2 if dtype == "float16" else 1e-4)


def test_losses_read_by_index() -> None:
    feeds = {"x": array(6, 5), "t": RANDOM.integers(0, 5, 6)}
    check("(float y) { y = SoftmaxCrossEntropyLoss (x, t) }", feeds, ways=WAYS[1:2])
