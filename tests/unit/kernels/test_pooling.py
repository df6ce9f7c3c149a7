"""Pools against a direct reduction of each window's elements."""

from __future__ import annotations

from itertools import product

import ml_dtypes
import numpy as np
import pytest

import distort.kernels.ops  # noqa: F401  # fills the registry
from distort.kernels.errors import InvalidInput
from distort.kernels.registry import find


def call(op_type, *inputs, opset=22, **attributes):
    return find("", op_type, opset).function(np, *inputs, **attributes)


def window_elements(size, out, kernel, strides, dilations, begins):
    """(output place, coordinates that its window reads, padding included)"""
    for place in product(*map(range, out)):
        yield (
            place,
            [
                tuple(
                    p * s + e * d - b for p, s, e, d, b in zip(place, strides, element, dilations, begins, strict=True)
                )
                for element in product(*map(range, kernel))
            ],
        )


CASES = [
    # size, kernel, strides, dilations, pads, ceil_mode, out
    ((7,), (3,), (2,), (1,), (1, 1), 0, (4,)),
    ((6,), (3,), (2,), (1,), (0, 0), 1, (3,)),
    ((5,), (2,), (3,), (1,), (0, 1), 1, (2,)),  # a third window would start in the padding
    ((6, 7), (2, 3), (2, 2), (2, 1), (1, 0, 0, 2), 0, (3, 4)),
    ((6, 7), (3, 3), (2, 3), (1, 2), (1, 1, 1, 1), 1, (4, 3)),
    ((4, 5, 6), (2, 2, 3), (1, 2, 2), (1, 1, 2), (0, 1, 1, 0, 0, 1), 0, (3, 3, 2)),
    ((4, 4), (1, 1), (2, 2), (1, 1), (0, 0, 0, 0), 0, (2, 2)),
]


@pytest.mark.parametrize("size, kernel, strides, dilations, pads, ceil_mode, out", CASES)
def test_pools_reduce_their_windows(size, kernel, strides, dilations, pads, ceil_mode, out):
    rng = np.random.default_rng(1)
    rank = len(size)
    x = rng.normal(size=(2, 3, *size)).astype(np.float32)
    common = {
        "kernel_shape": kernel,
        "strides": strides,
        "dilations": dilations,
        "pads": pads,
        "ceil_mode": ceil_mode,
    }
    got = {
        "max": call("MaxPool", x, **common),
        "mean": call("AveragePool", x, **common),
        "padded mean": call("AveragePool", x, count_include_pad=1, **common),
        "norm": call("LpPool", x, p=3, **common),
    }
    largest, index = call("MaxPool", x, n_outputs=2, **common)
    np.testing.assert_array_equal(largest, got["max"])
    np.testing.assert_array_equal(x.reshape(-1)[index], largest)
    _, columns = call("MaxPool", x, n_outputs=2, storage_order=1, **common)
    plane = int(np.prod(size))
    for n, c in np.ndindex(2, 3):
        by_column = x[n, c].reshape(-1, order="F")
        np.testing.assert_array_equal(by_column[columns[n, c] - (n * 3 + c) * plane], largest[n, c])
    assert all(value.shape == (2, 3, *out) for value in got.values())
    for place, elements in window_elements(size, out, kernel, strides, dilations, pads[:rank]):
        inside = [e for e in elements if all(0 <= i < n for i, n in zip(e, size, strict=True))]
        counted = [
            e
            for e in elements
            if all(-b <= i < n + a for i, n, b, a in zip(e, size, pads[:rank], pads[rank:], strict=True))
        ]
        values = np.stack([x[(slice(None), slice(None), *e)] for e in inside]).astype(np.float64)
        at = (slice(None), slice(None), *place)
        np.testing.assert_array_equal(got["max"][at], values.max(axis=0))
        np.testing.assert_allclose(got["mean"][at], values.mean(axis=0), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(got["padded mean"][at], values.sum(axis=0) / len(counted), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(got["norm"][at], (np.abs(values) ** 3).sum(axis=0) ** (1 / 3), rtol=1e-5)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
def test_max_pool_of_integers(dtype):
    x = np.array([[[np.iinfo(dtype).min, 3, np.iinfo(dtype).min]]], dtype)
    y, index = call("MaxPool", x, kernel_shape=[2], pads=[1, 1], n_outputs=2)
    assert y.dtype == dtype
    np.testing.assert_array_equal(y, [[[x.min(), 3, 3, x.min()]]])
    np.testing.assert_array_equal(index, [[[0, 1, 1, 2]]])


def test_max_pool_of_ties_infinities_and_nan():
    x = np.array([[[2, 2, -np.inf, -np.inf, np.nan, 1]]], np.float32)
    y, index = call("MaxPool", x, kernel_shape=[2], n_outputs=2)
    np.testing.assert_array_equal(y, [[[2, 2, -np.inf, np.nan, np.nan]]])
    np.testing.assert_array_equal(index, [[[0, 1, 2, 4, 4]]])
    np.testing.assert_array_equal(call("MaxPool", x, kernel_shape=[2]), y)


def test_same_padding_of_pools():
    x = np.arange(5, dtype=np.float32).reshape(1, 1, 5)
    upper = call("MaxPool", x, kernel_shape=[2], auto_pad="SAME_UPPER")
    lower = call("MaxPool", x, kernel_shape=[2], auto_pad="SAME_LOWER")
    np.testing.assert_array_equal(upper, [[[1, 2, 3, 4, 4]]])
    np.testing.assert_array_equal(lower, [[[0, 1, 2, 3, 4]]])


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_means_of_half_precision_are_summed_in_float32(dtype):
    x = np.ones((1, 1, 64, 64), dtype)
    assert call("GlobalAveragePool", x) == 1
    assert call("GlobalAveragePool", x).dtype == dtype
    assert call("AveragePool", x, kernel_shape=[64, 64]).astype(np.float32).item() == 1
    assert call("GlobalLpPool", x, p=1).astype(np.float32).item() == 4096


def test_global_pools():
    x = np.array([[[3, -4], [1, np.inf]]], np.float32)
    np.testing.assert_array_equal(call("GlobalMaxPool", x), [[[3], [np.inf]]])
    np.testing.assert_array_equal(call("GlobalLpPool", x), [[[5], [np.inf]]])
    np.testing.assert_array_equal(call("GlobalAveragePool", x), [[[-0.5], [np.inf]]])
    with pytest.raises(InvalidInput, match="no elements"):
        call("GlobalMaxPool", np.zeros((1, 2, 0), np.float32))


def test_unpool_undoes_a_pool_of_disjoint_windows():
    rng = np.random.default_rng(2)
    x = rng.normal(size=(2, 3, 4, 6)).astype(np.float32)
    y, index = call("MaxPool", x, kernel_shape=[2, 3], strides=[2, 3], n_outputs=2)
    back = call("MaxUnpool", y, index, kernel_shape=[2, 3], strides=[2, 3])
    np.testing.assert_array_equal(back, np.where(np.isin(x, y), x, 0))
    larger = call("MaxUnpool", y, index, np.array([2, 3, 5, 6]), kernel_shape=[2, 3], strides=[2, 3])
    np.testing.assert_array_equal(larger[:, :, :4], back)
    assert not larger[:, :, 4].any()
    with pytest.raises(InvalidInput, match="indices"):
        call("MaxUnpool", y, index + x.size, kernel_shape=[2, 3], strides=[2, 3])
    with pytest.raises(InvalidInput, match="smaller"):
        call("MaxUnpool", y, index, np.array([2, 3, 3, 6]), kernel_shape=[2, 3], strides=[2, 3])


def test_max_roi_pool():
    x = np.arange(36, dtype=np.float32).reshape(1, 1, 6, 6)
    rois = np.array([[0, 0, 0, 5, 5], [0, 2, 2, 3, 3], [0, 20, 20, 30, 30]], np.float32)
    y = call("MaxRoiPool", x, rois, pooled_shape=[2, 2])
    np.testing.assert_array_equal(y[:, 0], [[[14, 17], [32, 35]], [[14, 15], [20, 21]], [[0, 0], [0, 0]]])
    with pytest.raises(InvalidInput, match="image 3"):
        call("MaxRoiPool", x, np.array([[3, 0, 0, 1, 1]], np.float32), pooled_shape=[1, 1])


@pytest.mark.parametrize(
    "shape, attributes, text",
    [
        ((1, 1, 4, 4), {"kernel_shape": [2]}, "kernel_shape"),
        ((1, 1, 4, 4), {"kernel_shape": [2, 2], "pads": [2, 0, 0, 0]}, "pads"),
        ((1, 1, 4, 4), {"kernel_shape": [5, 2]}, "smaller than the kernel"),
        ((1, 4), {"kernel_shape": [2]}, "less than 3"),
    ],
)
def test_contradictions(shape, attributes, text):
    for op_type in ("MaxPool", "AveragePool", "LpPool"):
        with pytest.raises(InvalidInput, match=text):
            call(op_type, np.zeros(shape, np.float32), **attributes)
