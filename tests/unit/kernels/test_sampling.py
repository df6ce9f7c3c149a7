"""Reading between pixels: grids, deformed windows and regions of interest."""

from __future__ import annotations

import math

import numpy as np
import pytest

import distort.kernels.ops  # noqa: F401  # fills the registry
from distort.kernels.errors import InvalidInput
from distort.kernels.registry import find


def call(op_type, *inputs, opset=22, **attributes):
    with np.errstate(all="ignore"):  # as programs run kernels
        return find("", op_type, opset).function(np, *inputs, **attributes)


def identity_grid(size, align_corners):
    theta = np.eye(len(size), len(size) + 1, dtype=np.float32)[None]
    return call("AffineGrid", theta, np.array([1, 1, *size]), align_corners=align_corners)


@pytest.mark.parametrize("mode", ["linear", "nearest", "cubic"])
@pytest.mark.parametrize("align_corners", [0, 1])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("size", [(4, 5), (3, 2, 4)])
def test_the_identity_grid_gives_the_image(mode, align_corners, padding, size):
    x = np.random.default_rng(1).normal(size=(1, 2, *size)).astype(np.float32)
    grid = identity_grid(size, align_corners)
    got = call("GridSample", x, grid, mode=mode, align_corners=align_corners, padding_mode=padding)
    np.testing.assert_allclose(got, x, rtol=1e-5, atol=1e-5)


def along_a_row(pixels, x=(1.0, 2.0, 4.0, 8.0), **attributes):
    """A row image sampled at pixel positions (align_corners: -1 is pixel 0, 1 the last one)."""
    row = np.array(x, np.float32).reshape(1, 1, 1, -1)
    at = np.array(pixels, np.float32) * 2 / (len(x) - 1) - 1
    grid = np.stack([at, np.zeros_like(at)], axis=-1).reshape(1, 1, -1, 2)
    return call("GridSample", row, grid, align_corners=1, **attributes)[0, 0, 0]


@pytest.mark.parametrize(
    "padding, want",
    [
        ("zeros", [0.5, 0, 1.5, 4, 0]),
        ("border", [1, 1, 1.5, 8, 8]),
        ("reflection", [1.5, 2, 1.5, 6, 4]),
    ],
)
def test_linear_padding(padding, want):
    got = along_a_row([-0.5, -1, 0.5, 3.5, 4], mode="linear", padding_mode=padding)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


def test_reflection_goes_back_and_forth():
    got = along_a_row([-3, 6, 7, 12], mode="nearest", padding_mode="reflection")
    np.testing.assert_array_equal(got, [8, 1, 2, 1])


def test_cubic_weights_of_the_border():
    """Halfway before the first pixel four taps read the first, first, second; a = -0.75."""
    outer = -0.75 * (1.5**3 - 5 * 1.5**2 + 8 * 1.5 - 4)
    inner = 1.25 * 0.125 - 2.25 * 0.25 + 1
    got = along_a_row([-0.5, 0.5], mode="cubic", padding_mode="border")
    want = [outer * 1 + inner * 1 + inner * 1 + outer * 2, outer * 1 + inner * 1 + inner * 2 + outer * 4]
    np.testing.assert_allclose(got, want, rtol=1e-5)
    got = along_a_row([-0.5], mode="cubic", padding_mode="zeros")
    np.testing.assert_allclose(got, [inner * 1 + outer * 2], rtol=1e-5)


def test_infinite_pixels_and_nan_positions():
    got = along_a_row([-3, 0, 2, np.nan], x=(np.inf, 1, 2, 3), mode="linear")
    np.testing.assert_array_equal(got[[0, 2]], [0, 2])
    assert np.isnan(got[3])


def test_affine_grid_moves_the_last_axis_first():
    theta = np.array([[[1, 0, 0.25], [0, 2, 0]]], np.float32)
    grid = call("AffineGrid", theta, np.array([1, 1, 2, 4]))
    np.testing.assert_allclose(grid[0, 0, :, 0], [-0.5, 0, 0.5, 1])
    np.testing.assert_allclose(grid[0, :, 0, 1], [-1, 1])
    with pytest.raises(InvalidInput, match="theta"):
        call("AffineGrid", theta, np.array([1, 1, 2, 4, 5]))


def test_deform_conv_without_offsets_is_conv():
    rng = np.random.default_rng(2)
    x = rng.normal(size=(2, 4, 6, 5)).astype(np.float32)
    w = rng.normal(size=(6, 2, 3, 2)).astype(np.float32)
    b = rng.normal(size=6).astype(np.float32)
    attributes = {"group": 2, "pads": [1, 0, 2, 1], "strides": [2, 1], "dilations": [1, 2]}
    want = call("Conv", x, w, b, **attributes)
    offset = np.zeros((2, 2 * 3 * 2 * 2, *want.shape[2:]), np.float32)
    got = call("DeformConv", x, w, offset, b, offset_group=2, **attributes)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
    half = np.full((2, 2 * 3 * 2, *want.shape[2:]), 0.5, np.float32)
    got = call("DeformConv", x, w, offset, b, half, offset_group=2, **attributes)
    along = b[:, None, None]
    np.testing.assert_allclose(got - along, (want - along) / 2, rtol=1e-4, atol=1e-5)


def test_deform_conv_shifts_by_its_offsets():
    """Whole offsets (rows first) read other pixels, halves their mean; outside is zero."""
    x = np.arange(1, 10, dtype=np.float32).reshape(1, 1, 3, 3)
    offset = np.zeros((1, 2, 3, 3), np.float32)
    offset[:, 0] = 1
    offset[:, 1] = 0.5
    got = call("DeformConv", x, np.ones((1, 1, 1, 1), np.float32), offset)
    np.testing.assert_allclose(got[0, 0], [[4.5, 5.5, 3], [7.5, 8.5, 4.5], [0, 0, 0]])
    with pytest.raises(InvalidInput, match="offset"):
        call("DeformConv", x, np.ones((1, 1, 1, 1), np.float32), offset[:, :1])


def bilinear(plane, y, x):
    height, width = plane.shape
    if y < -1 or y > height or x < -1 or x > width:
        return [0.0] * 4
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    y0, x0 = int(y), int(x)
    y1, x1 = min(y0 + 1, height - 1), min(x0 + 1, width - 1)
    dy, dx = y - y0, x - x0
    return [
        plane[y0, x0] * (1 - dy) * (1 - dx),
        plane[y0, x1] * (1 - dy) * dx,
        plane[y1, x0] * dy * (1 - dx),
        plane[y1, x1] * dy * dx,
    ]


@pytest.mark.parametrize("mode", ["avg", "max"])
@pytest.mark.parametrize("sampling_ratio", [0, 2])
@pytest.mark.parametrize("opset, transformation", [(10, None), (16, "half_pixel"), (22, "output_half_pixel")])
def test_roi_align(mode, sampling_ratio, opset, transformation):
    rng = np.random.default_rng(3)
    x = rng.normal(size=(2, 2, 7, 9)).astype(np.float32)
    rois = np.array([[1, 2, 9, 7.5], [0, 0, 30, 20], [4, 4, 4.5, 4.25], [-9, -9, 3, 3]], np.float32)
    images = np.array([1, 0, 1, 0])
    given = {} if transformation is None else {"coordinate_transformation_mode": transformation}
    got = call(
        *("RoiAlign", x, rois, images),
        mode=mode,
        sampling_ratio=sampling_ratio,
        output_height=2,
        output_width=3,
        **{"spatial_scale": 0.5, "opset": opset, **given},
    )
    assert got.shape == (4, 2, 2, 3)
    shift = 0.5 if transformation == "half_pixel" else 0.0
    for r, c, i, j in np.ndindex(got.shape):
        x1, y1, x2, y2 = rois[r] * 0.5 - shift
        width, height = x2 - x1, y2 - y1
        if not shift:
            width, height = max(width, 1), max(height, 1)
        rows = sampling_ratio or math.ceil(height / 2)
        columns = sampling_ratio or math.ceil(width / 3)
        samples = [
            bilinear(
                x[images[r], c], y1 + (i + (a + 0.5) / rows) * height / 2, x1 + (j + (b + 0.5) / columns) * width / 3
            )
            for a in range(rows)
            for b in range(columns)
        ]
        want = np.sum(samples) / len(samples) if mode == "avg" else np.max(samples)
        np.testing.assert_allclose(got[r, c, i, j], want, rtol=1e-4, atol=1e-5)
    with pytest.raises(InvalidInput, match="image 2"):
        call("RoiAlign", x, rois, images + 1)
