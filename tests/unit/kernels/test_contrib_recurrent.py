"""DynamicQuantizeLSTM: with weights and inputs on the quantization grid it is an LSTM."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import distort.kernels.ops  # noqa: F401  # fills the registry
from distort.kernels.errors import InvalidInput
from distort.kernels.ops.contrib_recurrent import quantized
from distort.kernels.registry import find

T, B, I, H = 4, 2, 6, 3  # noqa: E741  # the names of the standard


def call(op_type: str, *inputs: Any, domain: str = "", **attributes: Any) -> tuple[Any, ...]:
    entry = find(domain, op_type, 14)
    assert entry is not None
    return entry.function(np, *inputs, **attributes)  # type: ignore[no-any-return]


def test_quantization_is_that_of_dynamic_quantize_linear() -> None:
    a = np.float32([-1.0, 0.0, 0.5, 3.0])
    whole, scale = quantized(np, a)
    assert scale == np.float32(4 / 255)
    np.testing.assert_array_equal(whole, [-64, 0, 32, 191])  # the zero point is round(63.75)
    assert quantized(np, np.zeros(3, np.float32))[1] == 1
    np.testing.assert_array_equal(quantized(np, np.float32([5, 5]))[0], [255, 255])  # zero is always in the range


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
@pytest.mark.parametrize("per_column", [False, True])
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
def test_against_lstm_with_dequantized_weights(dtype: Any, per_column: bool, direction: str) -> None:
    rng = np.random.default_rng(2)
    n = 2 if direction == "bidirectional" else 1
    info = np.iinfo(dtype)
    shape = (n, 4 * H) if per_column else (n,)
    x, h, c = (rng.normal(size=s).astype(np.float32) for s in ((T, B, I), (n, B, H), (n, B, H)))
    b = rng.normal(size=(n, 8 * H)).astype(np.float32)
    weights, wide = [], []
    for size in (I, H):
        w = rng.integers(info.min, info.max, (n, size, 4 * H), dtype, endpoint=True)
        scale = rng.uniform(0.001, 0.004, shape).astype(np.float32)
        zero = rng.integers(info.min // 4, info.max // 4, shape, dtype)
        weights.append((w, scale, zero))
        column = (n, 1, -1)
        wide.append(((w - zero.reshape(column).astype(np.float32)) * scale.reshape(column)).transpose(0, 2, 1))
    (w, w_scale, w_zero), (r, r_scale, r_zero) = weights
    got = call(
        "DynamicQuantizeLSTM",
        *(x, w, r, b, None, h, c, None, w_scale, w_zero, r_scale, r_zero),
        domain="com.microsoft",
        direction=direction,
        hidden_size=H,
    )
    want = call("LSTM", x, *wide, b, None, h, c, None, direction=direction)
    for one, other in zip(got, want, strict=True):
        assert one.dtype == np.float32 and one.shape == other.shape
        np.testing.assert_allclose(one, other, atol=0.03)  # what 8 bits of the inputs cost


def test_scales_that_fit_no_layout_are_refused() -> None:
    w, r = np.zeros((1, I, 4 * H), np.int8), np.zeros((1, H, 4 * H), np.int8)
    one, zero = np.ones(1, np.float32), np.zeros(1, np.int8)
    x = np.zeros((T, B, I), np.float32)
    with pytest.raises(InvalidInput, match="W_scale"):
        call(
            "DynamicQuantizeLSTM",
            *(x, w, r, None, None, None, None, None, np.ones(3, np.float32), zero, one, zero),
            domain="com.microsoft",
        )
