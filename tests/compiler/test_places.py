"""MaxPool with the places of what it finds, and MaxUnpool, against the NumPy kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distort.kernels.compiler.program import CompiledProgram
from distort.kernels.errors import InvalidInput

from .movement import between_convolutions, check, compiles_for_arm, lesser_library, one_node

POOLS: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "halved": ((1, 16, 8, 10), {"kernel_shape": [2, 2], "strides": [2, 2]}),
    "padded": ((2, 19, 9, 7), {"kernel_shape": [3, 3], "strides": [2, 1], "pads": [1, 1, 0, 2]}),
    "dilated": ((1, 3, 12, 11), {"kernel_shape": [2, 3], "dilations": [3, 2], "pads": [1, 2, 2, 1]}),
    "ceil": ((1, 5, 7, 9), {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}),
    "a row": ((1, 20, 33), {"kernel_shape": [3], "strides": [2], "pads": [1, 1]}),
}


def _numbers(shape: tuple[int, ...]) -> dict[str, Any]:
    """Few different ones, NaN and infinities among them."""
    x = np.random.default_rng(4).integers(-3, 3, shape).astype(np.float32)
    x.reshape(-1)[::17] = np.nan
    x.reshape(-1)[::5] = -np.inf
    return {"x": x}


@pytest.mark.parametrize("name", POOLS)
@pytest.mark.parametrize("storage_order", [0, 1])
def test_places(name: str, storage_order: int) -> None:
    shape, attributes = POOLS[name]
    feeds = _numbers(shape)
    graph = one_node("MaxPool", feeds, n_outputs=2, storage_order=storage_order, **attributes)
    check(graph, feeds)
    check(graph, feeds, n_threads=2)


@pytest.mark.parametrize("target", ["avx2", "sse4.2"])
def test_on_lesser_machines(target: str) -> None:
    shape, attributes = POOLS["padded"]
    feeds = _numbers(shape)
    graph = one_node("MaxPool", feeds, n_outputs=2, **attributes)
    check(graph, feeds, library=lesser_library(target))
    compiles_for_arm(graph, feeds)


def test_between_convolutions() -> None:
    feeds = {"x": np.random.default_rng(1).normal(size=(1, 20, 9, 9)).astype(np.float32)}
    graph = between_convolutions(one_node("MaxPool", feeds, n_outputs=2, kernel_shape=[2, 2]), 20)
    graph.outputs = ["y0"]
    check(graph, feeds, exact=False)


@given(st.data())
@settings(max_examples=25, deadline=None)
def test_any_window(data: st.DataObject) -> None:
    size = [data.draw(st.integers(4, 12)) for _ in range(2)]
    kernel = [data.draw(st.integers(1, 4)) for _ in range(2)]
    attributes = {
        "kernel_shape": kernel,
        "strides": [data.draw(st.integers(1, 3)) for _ in range(2)],
        "pads": [data.draw(st.integers(0, k - 1)) for k in kernel * 2],
        "ceil_mode": data.draw(st.integers(0, 1)),
    }
    feeds = _numbers((data.draw(st.integers(1, 2)), data.draw(st.integers(1, 18)), *size))
    check(one_node("MaxPool", feeds, n_outputs=2, **attributes), feeds)


def _pooled(shape: tuple[int, ...]) -> dict[str, Any]:
    """Elements and places in planes twice as large."""
    rng = np.random.default_rng(8)
    count = int(np.prod(shape))
    places = rng.permutation(count * 4)[:count].reshape(shape)
    return {"x": rng.normal(size=shape).astype(np.float32), "i": places}


@pytest.mark.parametrize("goal", [None, [1, 20, 10, 12], [2, 20, 11, 15]])
def test_unpool(goal: list[int] | None) -> None:
    feeds = _pooled((1, 20, 5, 6))
    known = {} if goal is None else {"goal": np.array(goal)}
    graph = one_node("MaxUnpool", feeds, known, kernel_shape=[2, 2], strides=[2, 2])
    check(graph, feeds, n_threads=2)


@pytest.mark.parametrize("place", [-1, 20 * 120])
def test_places_that_are_none(place: int) -> None:
    feeds = _pooled((1, 20, 5, 6))
    feeds["i"][0, 3, 2, 1] = place
    graph = one_node("MaxUnpool", feeds, kernel_shape=[2, 2], strides=[2, 2])
    with pytest.raises(InvalidInput, match="indices must be in"):
        CompiledProgram(graph).run(feeds)
