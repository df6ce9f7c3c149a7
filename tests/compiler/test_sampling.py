"""GridSample in native code."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from .movement import check, compiles_for_arm, lesser_library, one_node


def _feeds(shape: tuple[int, ...], out: tuple[int, int]) -> dict[str, np.ndarray[Any, Any]]:
    rng = np.random.default_rng(5)
    grid = rng.uniform(-1.4, 1.4, (shape[0], *out, 2)).astype(np.float32)
    grid.reshape(-1)[:8] = [-1, -1, 1, 1, 0, 0, -1, 1]
    return {"x": rng.normal(size=shape).astype(np.float32), "grid": grid}


@pytest.mark.parametrize("mode", ["linear", "nearest"])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("align_corners", [0, 1])
@pytest.mark.parametrize(
    ("shape", "out"), [((2, 3, 7, 9), (5, 11)), ((1, 2, 4, 1), (3, 5)), ((1, 17, 20, 30), (20, 30))]
)
def test_grid_sample(mode: str, padding: str, align_corners: int, shape: tuple[int, ...], out: tuple[int, int]) -> None:
    feeds = _feeds(shape, out)
    graph = one_node("GridSample", feeds, mode=mode, padding_mode=padding, align_corners=align_corners)
    check(graph, feeds, exact=False)


@pytest.mark.parametrize("mode", ["linear", "nearest"])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
def test_points_and_pixels_that_are_no_numbers(mode: str, padding: str) -> None:
    feeds = _feeds((1, 2, 6, 6), (4, 9))
    feeds["grid"].reshape(-1)[10:14] = np.nan
    if padding != "reflection":  # mirrored so often, a point could be anywhere
        feeds["grid"].reshape(-1)[20:24] = [1e30, 0, 0.3, -1e30]
    feeds["x"][0, 0, 0] = np.inf
    check(one_node("GridSample", feeds, mode=mode, padding_mode=padding), feeds, exact=False)


def test_with_two_threads() -> None:
    feeds = _feeds((2, 16, 60, 80), (60, 80))
    check(one_node("GridSample", feeds), feeds, exact=False, n_threads=2)


@pytest.mark.parametrize("target", ["avx2", "sse4.2"])
def test_on_lesser_machines(target: str) -> None:
    feeds = _feeds((1, 3, 7, 9), (5, 11))
    for padding in ("zeros", "reflection"):
        graph = one_node("GridSample", feeds, padding_mode=padding)
        check(graph, feeds, exact=False, library=lesser_library(target))
        compiles_for_arm(graph, feeds)
