"""Resize and Upsample: known small results, and each mode against a sum over input elements."""

from __future__ import annotations

import math

import numpy as np
import pytest

import distort.kernels.ops  # noqa: F401  # fills the registry
from distort.kernels.errors import InvalidInput
from distort.kernels.registry import find


def call(op_type, *inputs, opset=19, **attributes):
    return find("", op_type, opset).function(np, *inputs, **attributes)


def line(*values):
    return np.array(values, np.float32)


def scaled(x, factor, **attributes):
    return call("Resize", x, None, np.array([factor], np.float32), **attributes)


@pytest.mark.parametrize(
    "nearest_mode, want",
    [
        # half_pixel at factor 2: -0.25 0.25 0.75 1.25 …; asymmetric: 0 0.5 1 1.5 2 2.5
        ("round_prefer_floor", [1, 1, 2, 2, 3, 3]),
        ("round_prefer_ceil", [1, 2, 2, 3, 3, 3]),
        ("floor", [1, 1, 2, 2, 3, 3]),
        ("ceil", [1, 2, 2, 3, 3, 3]),
    ],
)
def test_nearest_modes(nearest_mode, want):
    attributes = {"nearest_mode": nearest_mode, "coordinate_transformation_mode": "asymmetric"}
    np.testing.assert_array_equal(scaled(line(1, 2, 3), 2, **attributes), want)


@pytest.mark.parametrize(
    "mode, want",
    [
        ("half_pixel", [1, 1.25, 1.75, 2.25, 2.75, 3]),
        ("pytorch_half_pixel", [1, 1.25, 1.75, 2.25, 2.75, 3]),
        ("half_pixel_symmetric", [1, 1.25, 1.75, 2.25, 2.75, 3]),
        ("align_corners", [1, 1.4, 1.8, 2.2, 2.6, 3]),
        ("asymmetric", [1, 1.5, 2, 2.5, 3, 3]),
    ],
)
def test_linear_coordinates(mode, want):
    got = scaled(line(1, 2, 3), 2, mode="linear", coordinate_transformation_mode=mode)
    np.testing.assert_allclose(got, want, rtol=1e-6)


def test_half_pixel_symmetric_centres_a_cut_output():
    """4 * 0.7 = 2.8 is cut to 2; the two samples lie symmetrically around the middle, 2.5."""
    got = scaled(line(1, 2, 3, 4), 0.7, mode="linear", coordinate_transformation_mode="half_pixel_symmetric")
    np.testing.assert_allclose(got, [2.5 - 0.5 / 0.7, 2.5 + 0.5 / 0.7], rtol=1e-6)


def test_crop_and_resize_extrapolates_whole_pixels():
    x = np.arange(16, dtype=np.float32).reshape(4, 4)
    attributes = {"coordinate_transformation_mode": "tf_crop_and_resize", "extrapolation_value": -5.0}
    roi = line(0, 0.5, 1, 1.5)
    got = call("Resize", x, roi, None, np.array([4, 3]), mode="linear", **attributes)
    np.testing.assert_allclose(got[:, :2], [[1.5, 3], [5.5, 7], [9.5, 11], [13.5, 15]])
    np.testing.assert_array_equal(got[:, 2], [-5] * 4)
    nearest = call("Resize", x, roi, None, np.array([4, 3]), mode="nearest", **attributes)
    np.testing.assert_array_equal(nearest[:, 1:], [[3, -5], [7, -5], [11, -5], [15, -5]])
    with pytest.raises(InvalidInput, match="roi"):
        call("Resize", x, None, None, np.array([4, 3]), **attributes)


def cubic_weight(distance, a):
    distance = abs(distance)
    if distance <= 1:
        return (a + 2) * distance**3 - (a + 3) * distance**2 + 1
    return a * (distance**3 - 5 * distance**2 + 8 * distance - 4) if distance < 2 else 0.0


@pytest.mark.parametrize("mode", ["linear", "cubic"])
@pytest.mark.parametrize("antialias", [0, 1])
@pytest.mark.parametrize("exclude_outside", [0, 1])
@pytest.mark.parametrize("factor", [0.3, 0.5, 0.75, 1.5, 3.0])
def test_interpolation_weighs_every_element(mode, antialias, exclude_outside, factor):
    rng = np.random.default_rng(1)
    x = rng.normal(size=12).astype(np.float32)
    out = math.floor(12 * np.float32(factor))
    narrow = min(factor, 1.0) if antialias else 1.0
    want = []
    for place in range(out):
        at = (place + 0.5) / factor - 0.5
        total = weight_sum = 0.0
        for i in range(-20, 32):
            distance = (i - at) * narrow
            weight = max(0.0, 1 - abs(distance)) if mode == "linear" else cubic_weight(distance, -0.5)
            if exclude_outside and not 0 <= i < 12:
                continue
            weight_sum += weight
            total += weight * float(x[min(max(i, 0), 11)])
        want.append(total / weight_sum)
    got = scaled(x, factor, mode=mode, antialias=antialias, exclude_outside=exclude_outside, cubic_coeff_a=-0.5)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_axes_are_independent():
    x = np.random.default_rng(2).normal(size=(2, 3, 5, 4)).astype(np.float32)
    both = call("Resize", x, None, None, np.array([7, 9]), axes=[-1, 2], mode="cubic")
    assert both.shape == (2, 3, 9, 7)
    rows = call("Resize", x, None, None, np.array([9]), axes=[2], mode="cubic")
    np.testing.assert_allclose(
        call("Resize", rows, None, None, np.array([7]), axes=[3], mode="cubic"), both, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("policy, shape", [("stretch", (4, 9)), ("not_larger", (4, 5)), ("not_smaller", (8, 9))])
def test_kept_aspect_ratio(policy, shape):
    x = np.zeros((7, 8), np.float32)
    assert call("Resize", x, None, None, np.array([4, 9]), keep_aspect_ratio_policy=policy).shape == shape


def test_whole_factors_repeat_elements_of_any_type():
    x = np.array([["a", "b"], ["c", "d"]], object)
    attributes = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    got = call("Resize", x, None, np.array([2, 3], np.float32), **attributes)
    np.testing.assert_array_equal(got, np.repeat(np.repeat(x, 2, axis=0), 3, axis=1))
    assert got.dtype == object


def test_an_infinite_element_reaches_only_its_neighbours():
    got = scaled(line(np.inf, 1, 2, 3), 2, mode="linear")
    assert np.isfinite(got[3:]).all() and np.isinf(got[:3]).all()


def test_integers_saturate():
    x = np.array([0, 0, 255, 255], np.uint8)
    got = scaled(x, 4, mode="cubic")
    assert got.dtype == np.uint8
    assert got.min() == 0 and got.max() == 255 and (np.diff(got.astype(int)) >= 0).all()


def test_version_10_rounds_up_where_it_shrinks():
    x = line(0, 1, 2, 3, 4)
    half = np.array([0.6], np.float32)
    # positions 0, 1.67, 3.33
    np.testing.assert_array_equal(call("Resize", x, half, opset=10), [0, 2, 4])
    np.testing.assert_array_equal(call("Resize", x[:2], np.array([1.5], np.float32), opset=10), [0, 0, 1])


def test_upsample():
    x = np.arange(4, dtype=np.float32).reshape(1, 1, 2, 2)
    want = [[[[0, 0, 1, 1], [2, 2, 3, 3]]]]
    np.testing.assert_array_equal(call("Upsample", x, opset=1, height_scale=1.0, width_scale=2.0), want)
    np.testing.assert_array_equal(call("Upsample", x, line(1, 1, 1, 2), opset=9), want)
    linear = call("Upsample", x, line(1, 1, 1, 2), opset=9, mode="linear")
    np.testing.assert_array_equal(linear, [[[[0, 0.5, 1, 1], [2, 2.5, 3, 3]]]])
    with pytest.raises(InvalidInput, match="greater than or equal to 1"):
        call("Upsample", x, line(1, 1, 1, 0.5), opset=9)


def test_empty_outputs_and_inputs():
    assert call("Resize", np.zeros((2, 0), np.float32), None, line(1, 2)).shape == (2, 0)
    assert scaled(line(1, 2, 3), 0.1).shape == (0,)
    with pytest.raises(InvalidInput, match="no element"):
        call("Resize", np.zeros((2, 0), np.float32), None, None, np.array([2, 3]))


@pytest.mark.parametrize(
    "scales, sizes, attributes, text",
    [
        (None, None, {}, "sizes. or .scales"),
        ([2.0], [4], {}, "sizes. or .scales"),
        ([2.0, 2.0], None, {}, "for 1 axes"),
        ([0.0], None, {}, "greater than 0"),
        (None, [-1], {}, "negative"),
        ([2.0], None, {"mode": "area"}, "mode 'area'"),
        ([2.0], None, {"nearest_mode": "up"}, "nearest_mode"),
        ([2.0], None, {"coordinate_transformation_mode": "corner"}, "coordinate_transformation_mode"),
        ([2.0], None, {"axes": [1]}, "axes"),
    ],
)
def test_contradictions(scales, sizes, attributes, text):
    scales = None if scales is None else np.array(scales, np.float32)
    sizes = None if sizes is None else np.array(sizes, np.int64)
    with pytest.raises(InvalidInput, match=text):
        call("Resize", line(1, 2, 3), None, scales, sizes, **attributes)
