"""RoiAlign in native code."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from distort.kernels.compiler.program import CompiledProgram
from distort.kernels.errors import InvalidInput

from .movement import between_convolutions, check, compiles_for_arm, lesser_library, one_node


def _feeds(shape: tuple[int, ...], count: int) -> dict[str, np.ndarray[Any, Any]]:
    """Regions inside, across borders, outside, turned round and without area."""
    rng = np.random.default_rng(6)
    corners = rng.uniform(-8, 1.3 * max(shape), (count, 4)).astype(np.float32)
    corners[: count // 2, 2:] = corners[: count // 2, :2] + rng.uniform(0, 20, (count // 2, 2)).astype(np.float32)
    corners[0] = 0
    return {
        "x": rng.normal(size=shape).astype(np.float32),
        "regions": corners,
        "images": rng.integers(0, shape[0], count),
    }


@pytest.mark.parametrize("mode", ["avg", "max"])
@pytest.mark.parametrize("way", ["half_pixel", "output_half_pixel"])
@pytest.mark.parametrize("samples", [0, 1, 3])
@pytest.mark.parametrize(("shape", "bins"), [((2, 3, 13, 9), (2, 3)), ((1, 85, 20, 31), (7, 5))])
def test_regions(mode: str, way: str, samples: int, shape: tuple[int, ...], bins: tuple[int, int]) -> None:
    feeds = _feeds(shape, 9)
    graph = one_node(
        "RoiAlign",
        feeds,
        mode=mode,
        coordinate_transformation_mode=way,
        sampling_ratio=samples,
        output_height=bins[0],
        output_width=bins[1],
        spatial_scale=0.7,
    )
    (alone,) = check(graph, feeds, exact=False)
    (shared,) = check(graph, feeds, exact=False, n_threads=2)
    np.testing.assert_array_equal(alone, shared)


def test_first_version_and_no_regions() -> None:
    feeds = _feeds((1, 20, 9, 9), 5)
    check(one_node("RoiAlign", feeds, opset=10, output_height=3, output_width=2), feeds, exact=False)
    none = {**feeds, "regions": feeds["regions"][:0], "images": feeds["images"][:0]}
    check(one_node("RoiAlign", none, output_height=3), none)


@pytest.mark.parametrize("target", ["avx2", "sse4.2"])
def test_on_lesser_machines(target: str) -> None:
    feeds = _feeds((1, 21, 9, 9), 5)
    for mode in ("avg", "max"):
        graph = one_node("RoiAlign", feeds, output_height=3, output_width=2, mode=mode)
        check(graph, feeds, exact=False, library=lesser_library(target))
        compiles_for_arm(graph, feeds)


def test_between_convolutions() -> None:
    feeds = _feeds((2, 40, 9, 9), 6)
    graph = between_convolutions(one_node("RoiAlign", feeds, output_height=3, output_width=2), 40)
    check(graph, feeds, exact=False)


@pytest.mark.parametrize("image", [-1, 2])
def test_images_that_are_none(image: int) -> None:
    feeds = _feeds((2, 20, 9, 9), 6)
    feeds["images"][3] = image
    with pytest.raises(InvalidInput, match=f"batch_indices name image {image}"):
        CompiledProgram(one_node("RoiAlign", feeds)).run(feeds)
