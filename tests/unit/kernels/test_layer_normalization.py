"""Layer, RMS and group normalization and onnxruntime's fused forms against float64 formulas."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

import distort.kernels.ops  # noqa: F401  # fills the registry
from distort.kernels.errors import InvalidInput
from distort.kernels.registry import find

RNG = np.random.default_rng(5)
TOLERANCE = {np.float64: 1e-12, np.float32: 1e-5, np.float16: 4e-3, ml_dtypes.bfloat16: 3e-2}


def call(op_type: str, *inputs: Any, opset: int = 24, domain: str = "", **attributes: Any) -> Any:
    entry = find(domain, op_type, opset)
    assert entry is not None
    return entry.function(np, *inputs, **attributes)


def near(got: Any, want: Any, dtype: Any) -> None:
    assert got.dtype == dtype and got.shape == want.shape
    np.testing.assert_allclose(got.astype(np.float64), want, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("axis", [0, 1, 2, -1, -2])
@pytest.mark.parametrize("transposed", [False, True])
def test_layer_normalization(dtype: Any, axis: int, transposed: bool) -> None:
    x = RNG.normal(2, 3, (4, 3, 5)).astype(dtype)
    x = x.transpose(1, 2, 0) if transposed else x
    scale, bias = (RNG.normal(size=x.shape[axis % 3 :]).astype(dtype) for _ in range(2))
    y, mean, inverse = call("LayerNormalization", x, scale, bias, axis=axis, epsilon=1e-3)
    wide, axes = x.astype(np.float64), tuple(range(axis % 3, 3))
    m = wide.mean(axis=axes, keepdims=True)
    s = 1 / np.sqrt(wide.var(axis=axes, keepdims=True) + 1e-3)
    near(y, (wide - m) * s * scale.astype(np.float64) + bias.astype(np.float64), dtype)
    stash = np.float64 if dtype == np.float64 else np.float32
    near(mean, m, stash)
    near(inverse, s, stash)


def test_layer_normalization_stashes_in_bfloat16_when_told() -> None:
    x = RNG.normal(size=(2, 4)).astype(np.float32)
    _, mean, _ = call("LayerNormalization", x, np.ones(4, np.float32), stash_type=16)
    assert mean.dtype == ml_dtypes.bfloat16


def test_scale_that_broadcasts_over_the_rows() -> None:
    x = RNG.normal(size=(3, 2, 4)).astype(np.float32)
    scale = RNG.normal(size=(3, 1, 4)).astype(np.float32)
    plain = call("LayerNormalization", x, np.ones(4, np.float32))[0]
    np.testing.assert_allclose(call("LayerNormalization", x, scale)[0], plain * scale, rtol=1e-6)
    with pytest.raises(InvalidInput, match="broadcast"):
        call("LayerNormalization", x, np.ones(3, np.float32))


def test_nothing_to_normalize_is_refused_and_no_rows_are_fine() -> None:
    with pytest.raises(InvalidInput):
        call("LayerNormalization", np.zeros((2, 0), np.float32), np.zeros(0, np.float32))
    with pytest.raises(InvalidInput, match="axis"):
        call("RMSNormalization", np.zeros((2, 1), np.float32), np.zeros(1, np.float32), axis=2)
    assert call("LayerNormalization", np.zeros((0, 2), np.float32), np.ones(2, np.float32))[0].shape == (0, 2)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_rms_normalization(dtype: Any) -> None:
    x, scale = RNG.normal(2, 3, (2, 3, 4)).astype(dtype), RNG.normal(size=(3, 4)).astype(dtype)
    wide = x.astype(np.float64)
    rms = np.sqrt((wide**2).mean(axis=(1, 2), keepdims=True) + 1e-5)
    near(call("RMSNormalization", x, scale, axis=1), wide / rms * scale.astype(np.float64), dtype)
    y, inverse = call("SimplifiedLayerNormalization", x, scale, axis=1)
    near(y, wide / rms * scale.astype(np.float64), dtype)
    assert inverse.shape == (2, 1, 1)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", [(2, 6), (2, 6, 3), (1, 6, 2, 2)])
def test_group_normalization(dtype: Any, shape: tuple[int, ...]) -> None:
    x = RNG.normal(2, 3, shape).astype(dtype)
    scale, bias = RNG.normal(size=(2, 6)).astype(dtype)
    wide = x.astype(np.float64).reshape(shape[0], 3, -1)
    want = (wide - wide.mean(-1, keepdims=True)) / np.sqrt(wide.var(-1, keepdims=True) + 1e-5)
    column = (6, *(1,) * (len(shape) - 2))
    want = want.reshape(shape)
    affine = want * scale.astype(np.float64).reshape(column) + bias.astype(np.float64).reshape(column)
    near(call("GroupNormalization", x, scale, bias, num_groups=3), affine, dtype)
    groups = np.repeat(scale[:3], 2), np.repeat(bias[:3], 2)
    old = call("GroupNormalization", x, scale[:3], bias[:3], num_groups=3, opset=18)
    near(old, want * groups[0].astype(float).reshape(column) + groups[1].astype(float).reshape(column), dtype)


def test_groups_that_do_not_divide_the_channels() -> None:
    one = np.ones(6, np.float32)
    with pytest.raises(InvalidInput, match="groups"):
        call("GroupNormalization", np.ones((1, 6, 2), np.float32), one, one, num_groups=4)
    with pytest.raises(InvalidInput, match="one a channel"):
        call("GroupNormalization", np.ones((1, 6, 2), np.float32), one[:3], one[:3], num_groups=3)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("skip_shape", [(2, 3, 4), (1, 3, 4), (3, 4)])
def test_skip_layer_normalization(dtype: Any, skip_shape: tuple[int, ...]) -> None:
    x, skip = RNG.normal(size=(2, 3, 4)).astype(dtype), RNG.normal(size=skip_shape).astype(dtype)
    gamma, beta, bias = RNG.normal(size=(3, 4)).astype(dtype)
    total = x.astype(np.float64) + skip + bias
    y, _, _, summed = call("SkipLayerNormalization", x, skip, gamma, beta, bias, domain="com.microsoft", epsilon=1e-5)
    want = (total - total.mean(-1, keepdims=True)) / np.sqrt(total.var(-1, keepdims=True) + 1e-5) * gamma + beta
    near(y, want, dtype)
    near(summed, total, dtype)
    y, none, _, summed = call(
        "SkipSimplifiedLayerNormalization", x, skip, gamma, bias, domain="com.microsoft", epsilon=1e-5
    )
    assert none is None
    near(y, total / np.sqrt((total**2).mean(-1, keepdims=True) + 1e-5) * gamma, dtype)


def test_skip_of_another_shape_is_refused() -> None:
    x, g = np.zeros((2, 3, 4), np.float32), np.ones(4, np.float32)
    with pytest.raises(InvalidInput, match="skip is expected"):
        call("SkipLayerNormalization", x, x[:, :1], g, domain="com.microsoft")
