"""Quantization against exact arithmetic."""

from __future__ import annotations

import pickle

import ml_dtypes
import numpy as np
import pytest
from onnx import TensorProto

import distort.kernels.ops  # noqa: F401  # fills the registry
from distort.kernels.errors import InvalidInput
from distort.kernels.registry import find


def call(op_type, *inputs, opset=25, **attributes):
    return find("", op_type, opset).function(np, *inputs, **attributes)


INTEGERS = [
    *(np.uint8, np.int8, np.uint16, np.int16),
    *(ml_dtypes.uint4, ml_dtypes.int4, ml_dtypes.uint2, ml_dtypes.int2),
]


def test_a_zero_point_out_of_a_pickle():
    """Its dtype compares equal to NumPy's own, and says that it is not built in."""
    zero_point = pickle.loads(pickle.dumps(np.array(3, np.int8)))
    assert call("QuantizeLinear", np.float32([2.6]), np.array(1, np.float32), zero_point).tolist() == [6]


@pytest.mark.parametrize("dtype", INTEGERS)
def test_integers_round_half_to_even_and_saturate(dtype):
    limits = ml_dtypes.iinfo(dtype)
    x = np.array([-np.inf, -1e9, -1.5, -0.5, 0, 0.5, 1.5, 2.5, 1e9, np.inf, np.nan], np.float32)
    y = call("QuantizeLinear", x, np.float32(1).reshape(()), np.zeros((), dtype))
    assert y.dtype == dtype
    want = np.clip(
        [limits.min, limits.min, -2, 0, 0, 0, 2, 2, limits.max, limits.max, limits.min], limits.min, limits.max
    )
    np.testing.assert_array_equal(y.astype(np.int64), want)
    back = call("DequantizeLinear", y, np.array(0.5, np.float32), np.ones((), dtype))
    np.testing.assert_array_equal(back, (want - 1) * 0.5)


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -3])
def test_a_scale_for_each_element_of_an_axis(axis):
    rng = np.random.default_rng(1)
    x = (rng.normal(size=(3, 4, 5)) * 100).astype(np.float32)
    n = x.shape[axis]
    scale = (rng.random(n) + 0.1).astype(np.float32)
    zero = rng.integers(-20, 20, n).astype(np.int8)
    along = [1, 1, 1]
    along[axis] = n
    exact = np.clip(np.rint(x / scale.reshape(along)) + zero.reshape(along), -128, 127)
    y = call("QuantizeLinear", x, scale, zero, axis=axis)
    np.testing.assert_array_equal(y, exact)
    back = call("DequantizeLinear", y, scale, zero, axis=axis)
    np.testing.assert_allclose(back, (exact - zero.reshape(along)) * scale.reshape(along), rtol=1e-6)


@pytest.mark.parametrize("size", [6, 7])
def test_a_scale_for_each_block(size):
    """A last block may be shorter."""
    rng = np.random.default_rng(2)
    x = (rng.normal(size=(2, size, 3)) * 50).astype(np.float32)
    blocks = -(-size // 2)
    scale = (rng.random((2, blocks, 3)) + 0.1).astype(np.float32)
    zero = rng.integers(0, 100, (2, blocks, 3)).astype(np.uint8)
    y = call("QuantizeLinear", x, scale, zero, axis=1, block_size=2)
    for i in range(size):
        exact = np.clip(np.rint(x[:, i] / scale[:, i // 2]) + zero[:, i // 2], 0, 255)
        np.testing.assert_array_equal(y[:, i], exact)
        back = call("DequantizeLinear", y, scale, zero, axis=-2, block_size=2)[:, i]
        np.testing.assert_allclose(back, (exact - zero[:, i // 2]) * scale[:, i // 2], rtol=1e-6)


@pytest.mark.parametrize(
    "dtype, saturated_inf, overflow",
    [
        (ml_dtypes.float8_e4m3fn, 448, np.nan),
        (ml_dtypes.float8_e4m3fnuz, 240, np.nan),
        (ml_dtypes.float8_e5m2, 57344, np.inf),
        (ml_dtypes.float8_e5m2fnuz, 57344, np.nan),
    ],
)
def test_float8(dtype, saturated_inf, overflow):
    x = np.array([1.0625, np.inf, 1e9, np.nan], np.float32)
    one = np.array(1, np.float32)
    y = call("QuantizeLinear", x, one, np.zeros((), dtype)).astype(np.float32)
    np.testing.assert_array_equal(y, [1, saturated_inf, saturated_inf, np.nan])
    y = call("QuantizeLinear", x, one, np.zeros((), dtype), saturate=0).astype(np.float32)
    np.testing.assert_array_equal(y, [1, overflow, overflow, np.nan])


def test_the_output_type_comes_from_the_zero_point_or_the_attribute():
    x, one = np.array([3.0], np.float32), np.array(1, np.float32)
    assert call("QuantizeLinear", x, one).dtype == np.uint8
    assert call("QuantizeLinear", x, one, output_dtype=TensorProto.INT4).dtype == ml_dtypes.int4
    y = call("QuantizeLinear", x, one, output_dtype=TensorProto.FLOAT4E2M1)
    assert y.dtype == ml_dtypes.float4_e2m1fn and float(y[0]) == 3
    with pytest.raises(InvalidInput, match="output_dtype"):
        call("QuantizeLinear", x, one, np.zeros((), np.int8), output_dtype=TensorProto.UINT8)
    half = call("DequantizeLinear", np.array([3], np.int8), np.array(0.5, np.float16))
    assert half.dtype == np.float16
    wide = call("DequantizeLinear", np.array([3], np.int8), np.array(0.5, np.float16), output_dtype=TensorProto.FLOAT)
    assert wide.dtype == np.float32


def test_precision_of_the_division():
    x = np.array([2049], np.float32)
    scale = np.array(4096, np.float32)  # 0.500244…, in float16 0.5
    assert call("QuantizeLinear", x, scale).item() == 1
    assert call("QuantizeLinear", x, scale, precision=TensorProto.BFLOAT16).item() == 0


def test_int32_is_not_rounded_before_its_scale():
    x = np.array([16777217, -2147483648], np.int32)
    zero = np.array(16777216, np.int32)
    y = call("DequantizeLinear", x, np.array(1, np.float32), zero)
    np.testing.assert_array_equal(y, np.array([1, -2147483648 - 16777216], np.float32))


def test_dynamic_quantization_holds_zero():
    x = np.array([2, 4, 6], np.float32)
    y, scale, zero = call("DynamicQuantizeLinear", x)
    assert (y.dtype, scale.dtype, zero.dtype) == (np.uint8, np.float32, np.uint8)
    assert scale.shape == zero.shape == ()
    assert scale == np.float32(6) / np.float32(255) and zero == 0
    np.testing.assert_array_equal(y, [85, 170, 255])
    y, scale, zero = call("DynamicQuantizeLinear", np.zeros((2, 3), np.float32))
    assert scale == 1 and zero == 0 and not y.any()
    assert call("DynamicQuantizeLinear", np.zeros(0, np.float32))[0].shape == (0,)


@pytest.mark.parametrize("a_shape, b_shape", [((4, 7), (7, 3)), ((2, 4, 7), (7, 3)), ((7,), (7, 3)), ((4, 7), (7,))])
@pytest.mark.parametrize("depth", [1, 200])
def test_matmul_integer_is_exact(a_shape, b_shape, depth):
    rng = np.random.default_rng(3)
    a = np.concatenate([rng.integers(0, 256, a_shape)] * depth, axis=-1).astype(np.uint8)
    b = np.concatenate([rng.integers(0, 256, b_shape)] * depth, axis=0).astype(np.uint8)
    y = call("MatMulInteger", a, b, np.array(255, np.uint8), np.array(255, np.uint8))
    want = np.matmul(a.astype(np.int64) - 255, b.astype(np.int64) - 255)
    assert y.dtype == np.int32
    np.testing.assert_array_equal(y, want)


def test_matmul_integer_with_a_zero_point_for_each_row_and_column():
    rng = np.random.default_rng(4)
    a, b = rng.integers(-128, 128, (4, 6)).astype(np.int8), rng.integers(-128, 128, (6, 3)).astype(np.int8)
    a_zero, b_zero = rng.integers(-128, 128, 4).astype(np.int8), rng.integers(-128, 128, 3).astype(np.int8)
    want = (a.astype(int) - a_zero[:, None]) @ (b.astype(int) - b_zero)
    np.testing.assert_array_equal(call("MatMulInteger", a, b, a_zero, b_zero), want)
    with pytest.raises(InvalidInput, match="a_zero_point"):
        call("MatMulInteger", a, b, a_zero[:2])
    with pytest.raises(InvalidInput, match="don't match"):
        call("MatMulInteger", a, b[1:])


def test_qlinear_matmul():
    rng = np.random.default_rng(5)
    a, b = rng.integers(0, 256, (2, 4, 6)).astype(np.uint8), rng.integers(-128, 128, (6, 3)).astype(np.int8)
    quarter, half = np.array(0.25, np.float32), np.array([0.5, 1, 2], np.float32)
    zero_b = np.array([1, 2, 3], np.int8)
    y = call(
        *("QLinearMatMul", a, quarter, np.array(128, np.uint8), b, half, zero_b),
        *(np.array(64, np.float32), np.array(100, np.uint8)),
    )
    exact = ((a.astype(int) - 128) @ (b.astype(int) - zero_b)) * (0.25 * half.astype(float) / 64)
    np.testing.assert_array_equal(y, np.clip(np.rint(exact) + 100, 0, 255))
    assert y.dtype == np.uint8


@pytest.mark.parametrize(
    "scale, zero, attributes, text",
    [
        ((3,), None, {"axis": 1}, "4 entries"),
        ((4,), (3,), {"axis": 1}, "same shape"),
        ((4,), None, {"axis": 2}, "out of range"),
        ((2, 3), None, {"axis": 1, "block_size": 2}, "y_scale"),
    ],
)
def test_contradictions(scale, zero, attributes, text):
    x = np.zeros((2, 4), np.float32)
    zero = None if zero is None else np.zeros(zero, np.int8)
    with pytest.raises(InvalidInput, match=text):
        call("QuantizeLinear", x, np.ones(scale, np.float32), zero, **attributes)
