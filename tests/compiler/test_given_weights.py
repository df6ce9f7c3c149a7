"""Convolutions whose weights are made by the run, against the NumPy kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from .movement import between_convolutions, check, compiles_for_arm, lesser_library, one_node

CONVOLUTIONS: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "3 x 3": ((1, 32, 14, 13), (64, 32, 3, 3), {"pads": [1, 1, 1, 1]}),
    "odd channels": ((2, 37, 7, 9), (45, 37, 3, 2), {"strides": [2, 1]}),
    "first layer": ((1, 3, 20, 19), (24, 3, 5, 5), {"pads": [2, 2, 2, 2], "strides": [2, 2]}),
    "pointwise": ((2, 24, 5, 7), (40, 24, 1, 1), {}),
    "pointwise, strided, groups": ((1, 64, 9, 9), (64, 32, 1, 1), {"group": 2, "strides": [2, 2]}),
    "pointwise, groups": ((2, 40, 6, 5), (40, 8, 1, 1), {"group": 5}),
    "dilated": ((1, 16, 20, 20), (16, 16, 3, 3), {"pads": [2, 2, 2, 2], "dilations": [2, 2]}),
    "a row": ((1, 20, 50), (32, 20, 5), {"pads": [2, 1]}),
    "groups": ((1, 96, 6, 8), (64, 48, 3, 3), {"group": 2, "pads": [1, 1, 1, 1]}),
    "small groups": ((1, 64, 8, 8), (64, 4, 3, 3), {"group": 16, "pads": [1, 1, 1, 1]}),
    "odd groups": ((1, 15, 8, 8), (21, 5, 3, 3), {"group": 3, "pads": [1, 1, 1, 1]}),
    "depthwise": ((1, 40, 15, 15), (40, 1, 5, 5), {"group": 40}),
    "depthwise row": ((2, 32, 40), (32, 1, 3), {"group": 32, "pads": [1, 1]}),
    "correlation": ((1, 40, 12, 12), (1, 40, 4, 5), {}),
    "correlation of several": ((1, 96, 9, 10), (6, 32, 3, 3), {"group": 3, "pads": [1, 0, 1, 0]}),
}


def _feeds(x: tuple[int, ...], w: tuple[int, ...]) -> dict[str, Any]:
    rng = np.random.default_rng(11)
    return {"x": rng.normal(size=x).astype(np.float32), "w": rng.normal(0, 0.05, w).astype(np.float32)}


@pytest.mark.parametrize("name", CONVOLUTIONS)
@pytest.mark.parametrize("n_threads", [1, 2])
def test_convolution(name: str, n_threads: int) -> None:
    x, w, attributes = CONVOLUTIONS[name]
    feeds = _feeds(x, w)
    check(one_node("Conv", feeds, **attributes), feeds, exact=False, n_threads=n_threads)
    feeds["b"] = np.linspace(-1, 1, w[0], dtype=np.float32)
    check(one_node("Conv", feeds, **attributes), feeds, exact=False, n_threads=n_threads)


TRANSPOSED: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "4 x 4": ((1, 20, 6, 5), (20, 16, 4, 4), {"strides": [2, 2], "pads": [1] * 4}),
    "3 x 3": ((2, 16, 6, 5), (16, 20, 3, 3), {"strides": [2, 2], "pads": [1] * 4, "output_padding": [1, 1]}),
    "sparse": ((1, 16, 6, 5), (16, 8, 2, 2), {"strides": [3, 3], "pads": [1, 0, 1, 2]}),
    "groups": ((1, 32, 5, 5), (32, 24, 3, 3), {"strides": [2, 2], "group": 2}),
    "dilated": ((1, 16, 6, 5), (16, 16, 3, 4), {"strides": [2, 3], "dilations": [3, 2], "pads": [3, 4, 1, 2]}),
    "to one": ((1, 24, 8, 8), (24, 1, 2, 2), {"strides": [2, 2]}),
    "a row": ((1, 16, 30), (16, 8, 16), {"strides": [8], "pads": [4, 4]}),
}


@pytest.mark.parametrize("name", TRANSPOSED)
def test_transposed_convolution(name: str) -> None:
    x, w, attributes = TRANSPOSED[name]
    feeds = _feeds(x, w)
    check(one_node("ConvTranspose", feeds, **attributes), feeds, exact=False, n_threads=2)
    feeds["b"] = np.linspace(-1, 1, w[1] * attributes.get("group", 1), dtype=np.float32)
    check(one_node("ConvTranspose", feeds, **attributes), feeds, exact=False)
    known = {"w": feeds.pop("w")}
    check(one_node("ConvTranspose", feeds, known, order=["x", "w", "b"], **attributes), feeds, exact=False)


@pytest.mark.parametrize("target", ["avx2", "sse4.2"])
@pytest.mark.parametrize("name", ["3 x 3", "odd channels", "small groups", "depthwise", "correlation"])
def test_on_lesser_machines(name: str, target: str) -> None:
    x, w, attributes = CONVOLUTIONS[name]
    feeds = _feeds(x, w)
    graph = one_node("Conv", feeds, **attributes)
    check(graph, feeds, exact=False, library=lesser_library(target))
    compiles_for_arm(graph, feeds)


@pytest.mark.parametrize("name", ["pointwise, groups", "correlation", "odd groups"])
def test_between_convolutions(name: str) -> None:
    x, w, attributes = CONVOLUTIONS[name]
    if w[0] != x[1]:
        w = (x[1], *w[1:])
    feeds = _feeds(x, w)
    graph = between_convolutions(one_node("Conv", feeds, **attributes), x[1])
    check(graph, feeds, exact=False)


@pytest.mark.parametrize("shape", [(1, 3, 6, 6, 6), (1, 16, 9, 9)])
def test_bias_of_the_run(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(2)
    feeds = {"x": rng.normal(size=shape).astype(np.float32), "b": rng.normal(size=8).astype(np.float32)}
    w = rng.normal(0, 0.05, (8, shape[1], *[3] * (len(shape) - 2))).astype(np.float32)
    check(one_node("Conv", feeds, {"w": w}, order=["x", "w", "b"]), feeds, exact=False)


@given(st.data())
@settings(max_examples=25, deadline=None)
def test_any_convolution(data: st.DataObject) -> None:
    groups = data.draw(st.sampled_from([1, 1, 2, 3]))
    inputs, outputs = (data.draw(st.integers(1, 36)) * groups for _ in range(2))
    size = [data.draw(st.integers(3, 20)) for _ in range(2)]
    kernel = [data.draw(st.integers(1, 3)) for _ in range(2)]
    attributes = {
        "group": groups,
        "pads": [data.draw(st.integers(0, 2)) for _ in range(4)],
        "strides": [data.draw(st.integers(1, 2)) for _ in range(2)],
    }
    feeds = _feeds((data.draw(st.integers(1, 2)), inputs, *size), (outputs, inputs // groups, *kernel))
    graph = one_node("Conv", feeds, **attributes)
    (alone,) = check(graph, feeds, exact=False, native=False)
    (shared,) = check(graph, feeds, exact=False, native=False, n_threads=2)
    np.testing.assert_array_equal(alone, shared)
