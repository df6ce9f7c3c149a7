"""BatchNormalization, InstanceNormalization and LRN against their formulas in float64."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

import distort.kernels.ops  # noqa: F401  # fills the registry
from distort.kernels.errors import InvalidInput
from distort.kernels.registry import find


def call(op_type, *inputs, opset=22, **attributes):
    return find("", op_type, opset).function(np, *inputs, **attributes)


def parameters(shape, seed=1):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape).astype(np.float32) for _ in range(3)] + [rng.random(shape).astype(np.float32)]


@pytest.mark.parametrize("shape", [(4, 3), (2, 3, 5), (2, 3, 4, 5), (0, 3, 2)])
def test_inference(shape):
    x = np.random.default_rng(2).normal(size=shape).astype(np.float32)
    scale, b, mean, var = parameters(3)
    along = (1, 3, *(1,) * (len(shape) - 2))
    s, o, m, v = (p.reshape(along).astype(np.float64) for p in (scale, b, mean, var))
    want = (x - m) / np.sqrt(v + 1e-3) * s + o
    for opset in (6, 9, 15):
        y = call("BatchNormalization", x, scale, b, mean, var, opset=opset, epsilon=1e-3)
        assert y.dtype == np.float32 and y.shape == shape
        np.testing.assert_allclose(y, want, rtol=1e-4, atol=1e-5)


def test_parameters_may_be_wider_than_x():
    scale, b, mean, var = parameters(3)
    x = np.random.default_rng(3).normal(size=(2, 3, 4)).astype(ml_dtypes.bfloat16)
    y = call("BatchNormalization", x, scale, b, mean, var)
    assert y.dtype == ml_dtypes.bfloat16
    want = call("BatchNormalization", x.astype(np.float32), scale, b, mean, var)
    np.testing.assert_array_equal(y, want.astype(ml_dtypes.bfloat16))


@pytest.mark.parametrize("opset, count", [(7, 5), (9, 5), (15, 3)])
def test_training(opset, count):
    rng = np.random.default_rng(4)
    x = (rng.normal(size=(4, 3, 5)) * 3 + 100).astype(np.float32)
    scale, b, mean, var = parameters(3)
    given = {"training_mode": 1} if opset >= 14 else {"n_outputs": 5}
    results = call("BatchNormalization", x, scale, b, mean, var, opset=opset, momentum=0.25, **given)
    assert len(results) == count
    wide = x.astype(np.float64)
    m, v = wide.mean(axis=(0, 2)), wide.var(axis=(0, 2))
    want = (wide - m[:, None]) / np.sqrt(v[:, None] + 1e-5) * scale[:, None] + b[:, None]
    np.testing.assert_allclose(results[0], want, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(results[1], mean * 0.25 + m * 0.75, rtol=1e-5)
    np.testing.assert_allclose(results[2], var * 0.25 + v * 0.75, rtol=1e-5)
    for saved, exact in zip(results[3:], (m, v), strict=False):
        np.testing.assert_allclose(saved, exact, rtol=1e-5)


def test_statistics_of_each_element():
    """spatial=0, up to version 7: parameters have the shape of one sample."""
    x = np.random.default_rng(5).normal(size=(6, 3, 2)).astype(np.float32)
    scale, b, mean, var = parameters((3, 2))
    y = call("BatchNormalization", x, scale, b, mean, var, opset=7, spatial=0)
    np.testing.assert_allclose(y, (x - mean) / np.sqrt(var + 1e-5) * scale + b, rtol=1e-4, atol=1e-5)
    y, *_ = call("BatchNormalization", x, scale, b, mean, var, opset=7, spatial=0, n_outputs=5)
    want = (x - x.mean(axis=0)) / np.sqrt(x.var(axis=0) + 1e-5) * scale + b
    np.testing.assert_allclose(y, want, rtol=1e-3, atol=1e-4)


def test_instance_normalization_of_a_far_mean():
    x = (np.random.default_rng(6).normal(size=(2, 3, 4, 5)) + 1000).astype(np.float32)
    scale, b, *_ = parameters(3)
    wide = x.astype(np.float64)
    m, v = wide.mean(axis=(2, 3), keepdims=True), wide.var(axis=(2, 3), keepdims=True)
    want = (wide - m) / np.sqrt(v + 1e-5) * scale[:, None, None] + b[:, None, None]
    np.testing.assert_allclose(call("InstanceNormalization", x, scale, b), want, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 9])
@pytest.mark.parametrize("beta", [0.75, 0.6])
def test_lrn_looks_at_neighbouring_channels(size, beta):
    x = np.random.default_rng(7).normal(size=(2, 6, 3)).astype(np.float32)
    want = np.empty(x.shape)
    for c in range(6):
        low, high = max(0, c - (size - 1) // 2), min(6, c + size // 2 + 1)
        squares = (x[:, low:high].astype(np.float64) ** 2).sum(axis=1)
        want[:, c] = x[:, c] / (2 + 0.5 / size * squares) ** beta
    y = call("LRN", x, size=size, alpha=0.5, beta=beta, bias=2.0)
    np.testing.assert_allclose(y, want, rtol=1e-5, atol=1e-6)


def test_parameters_of_another_length():
    x = np.zeros((1, 4, 2), np.float32)
    three = [np.ones(3, np.float32)] * 4
    with pytest.raises(InvalidInput, match="scale"):
        call("BatchNormalization", x, *three)
    with pytest.raises(InvalidInput, match="scale"):
        call("InstanceNormalization", x, *three[:2])
