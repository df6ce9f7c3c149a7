"""GridSample as CUDA C against the NumPy kernels."""

from __future__ import annotations

import numpy as np
import pytest

from .graphs import check
from .simulating import WAYS

RANDOM = np.random.default_rng(31)


@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("mode", ["linear", "nearest"])
@pytest.mark.parametrize("align", [0, 1])
@pytest.mark.parametrize("size", [(5, 6), (3, 4, 5)])
def test_grid_sample(size: tuple[int, ...], align: int, mode: str, padding: str) -> None:
    x = RANDOM.standard_normal((2, 3, *size)).astype(np.float32)
    grid = RANDOM.uniform(-1.8, 1.8, (2, *[7] * len(size), len(size))).astype(np.float32)
    grid.reshape(-1)[:4] = np.nan, 1, -1, 0
    attributes = f'mode = "{mode}", padding_mode = "{padding}", align_corners = {align}'
    text = f"(float y) {{ y = GridSample <{attributes}> (x, g) }}"
    check(text, {"x": x, "g": grid}, opset=20, kinds=["cuda_sample"], ways=WAYS[:2], atol=1e-4)


def test_what_lies_outside_is_zero_beside_what_is_not_finite() -> None:
    x = np.full((1, 1, 4, 4), np.inf, np.float32)
    grid = np.array([[[[3, 3], [0, 0]]]], np.float32)
    check("(float y) { y = GridSample (x, g) }", {"x": x, "g": grid}, opset=20, ways=WAYS[1:2])


def test_half_precision() -> None:
    x = RANDOM.standard_normal((1, 2, 5, 6)).astype(np.float16)
    grid = RANDOM.uniform(-1.2, 1.2, (1, 4, 4, 2)).astype(np.float16)
    check("(float16 y) { y = GridSample (x, g) }", {"x": x, "g": grid}, opset=20, ways=WAYS[1:2], rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("align", [0, 1])
def test_between_four_pixels_an_axis(align: int, padding: str) -> None:
    x = RANDOM.standard_normal((2, 3, 6, 7)).astype(np.float32)
    grid = RANDOM.uniform(-1.6, 1.6, (2, 3, 5, 2)).astype(np.float32)
    grid[0, 0, 0, 0] = np.nan
    attributes = f'mode = "cubic", padding_mode = "{padding}", align_corners = {align}'
    text = f"(float y) {{ y = GridSample <{attributes}> (x, g) }}"
    check(text, {"x": x, "g": grid}, opset=20, kinds=["cuda_sample"], ways=WAYS[:2], atol=1e-4)


def test_regions_of_images() -> None:
    rng = np.random.default_rng(1)
    feeds = {
        "x": rng.normal(size=(2, 3, 6, 7)).astype(np.float32),
        "r": rng.uniform(-0.2, 1.2, (3, 4)).astype(np.float32),
        "i": np.array([1, 0, 1], np.int32),
    }
    text = (
        "(float y) <int64[2] s = {3, 4}> { y = com.microsoft.CropAndResize <extrapolation_value = 2.0> (x, r, i, s) }"
    )
    operations = check(text, feeds)
    assert "cuda_sample" in [operation.kind for operation in operations]
