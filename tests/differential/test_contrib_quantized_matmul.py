"""Products of quantized matrices, and gathers from them, against onnxruntime."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from .oracle import against_onnxruntime, answers

RNG = np.random.default_rng(5)


def scalar(value: float, dtype: Any = np.float32) -> np.ndarray:
    return np.array(value, dtype=dtype)


def integers(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    limits = np.iinfo(dtype)
    return RNG.integers(limits.min, limits.max + 1, shape).astype(dtype)


@pytest.mark.parametrize(("a_type", "b_type"), [(np.uint8, np.uint8), (np.uint8, np.int8), (np.int8, np.int8)])
@pytest.mark.parametrize("turned", [(0, 0), (1, 0), (0, 1), (1, 1)])
@pytest.mark.parametrize("per_column", [True, False])
@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("to_float", [True, False])
def test_q_gemm(a_type: Any, b_type: Any, turned: Any, per_column: bool, with_bias: bool, to_float: bool) -> None:
    a = integers((5, 3) if turned[0] else (3, 5), a_type)
    b = integers((4, 5) if turned[1] else (5, 4), b_type)
    b_scale = RNG.random(4).astype(np.float32) / 10 + 0.05 if per_column else scalar(0.1)
    b_zero = RNG.integers(0, 5, 4).astype(b_type) if per_column else scalar(3, b_type)
    c = RNG.integers(-1000, 1000, 4).astype(np.int32) if with_bias else None
    inputs = [a, scalar(0.02), scalar(2, a_type), b, b_scale, b_zero, c]
    if not to_float:
        inputs += [scalar(0.9), scalar(7, a_type)]
    attributes = {"alpha": 0.5, "transA": turned[0], "transB": turned[1]}
    against_onnxruntime("QGemm", inputs, attributes, atol=1e-5 if to_float else 1)


@pytest.mark.parametrize(("a_type", "b_type"), [(np.uint8, np.uint8), (np.uint8, np.int8), (np.int8, np.int8)])
@pytest.mark.parametrize("shapes", [((3, 5), (5, 4)), ((2, 3, 5), (5, 4)), ((2, 3, 5), (2, 5, 4))])
@pytest.mark.parametrize("per_column", [True, False])
def test_matmul_integer_to_float(a_type: Any, b_type: Any, shapes: Any, per_column: bool) -> None:
    a, b = integers(shapes[0], a_type), integers(shapes[1], b_type)
    column = per_column and b.ndim == 2
    b_scale = RNG.random(4).astype(np.float32) / 10 if column else scalar(0.1)
    b_zero = RNG.integers(0, 5, 4).astype(b_type) if column else scalar(3, b_type)
    bias = RNG.standard_normal(4).astype(np.float32)
    inputs = [a, b, scalar(0.02), b_scale]
    against_onnxruntime("MatMulIntegerToFloat", inputs)
    against_onnxruntime("MatMulIntegerToFloat", [*inputs, scalar(2, a_type), b_zero])
    against_onnxruntime("MatMulIntegerToFloat", [*inputs, scalar(2, a_type), b_zero, bias])
    against_onnxruntime("MatMulIntegerToFloat", [*inputs, None, None, bias])


@pytest.mark.parametrize("b_type", [np.uint8, np.int8])
@pytest.mark.parametrize("per_column", [True, False])
def test_dynamic_quantize_matmul(b_type: Any, per_column: bool) -> None:
    a = RNG.standard_normal((2, 3, 5)).astype(np.float32)
    b = integers((5, 4), b_type)
    b_scale = RNG.random(4).astype(np.float32) / 10 if per_column else scalar(0.1)
    b_zero = RNG.integers(0, 5, 4).astype(b_type) if per_column else scalar(3, b_type)
    bias = RNG.standard_normal(4).astype(np.float32)
    against_onnxruntime("DynamicQuantizeMatMul", [a, b, b_scale])
    against_onnxruntime("DynamicQuantizeMatMul", [a, b, b_scale, b_zero, bias])


def test_matmul_integer_16() -> None:
    against_onnxruntime("MatMulInteger16", [integers((2, 3, 5), np.int16), integers((5, 4), np.int16)])


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int16])
@pytest.mark.parametrize("axis", [None, 0, 1, -1])
def test_quantize_and_dequantize(dtype: Any, axis: int | None) -> None:
    x = (RNG.standard_normal((4, 6)) * 3).astype(np.float32)
    n = () if axis is None else (x.shape[axis],)
    scale = np.asarray(RNG.random(n) + 0.1, dtype=np.float32)
    zero = np.asarray(RNG.integers(0, 5, n)).astype(dtype)
    attributes = {} if axis is None else {"axis": axis}
    (quantized,) = against_onnxruntime("QuantizeLinear", [x, scale, zero], attributes)
    against_onnxruntime("DequantizeLinear", [quantized, scale, zero], attributes)


@pytest.mark.parametrize("dtype", [ml_dtypes.uint4, ml_dtypes.int4])
def test_quantize_to_four_bits(dtype: Any) -> None:
    """onnxruntime's kernels have these types, its bindings don't."""
    x = (RNG.standard_normal((4, 6)) * 3).astype(np.float32)
    scale, zero = RNG.random(4).astype(np.float32) + 0.1, RNG.integers(0, 5, 4).astype(dtype)
    (quantized,) = answers("QuantizeLinear", [x, scale, zero], {"axis": 0})
    limits = ml_dtypes.iinfo(dtype)
    offset = zero.astype(np.float32)[:, None]
    want = np.clip(np.rint(x / scale[:, None]) + offset, int(limits.min), int(limits.max))
    assert quantized.dtype == dtype
    np.testing.assert_array_equal(quantized.astype(np.float32), want)
    (back,) = answers("DequantizeLinear", [quantized, scale, zero], {"axis": 0})
    np.testing.assert_allclose(back, (want - offset) * scale[:, None], rtol=1e-6)


@pytest.mark.parametrize("scales_type", [np.float32, np.float16])
@pytest.mark.parametrize("index_type", [np.int32, np.int64])
@pytest.mark.parametrize("with_zeros", [True, False])
@pytest.mark.parametrize("data_type", [ml_dtypes.int4, ml_dtypes.uint4])
@pytest.mark.parametrize("axes", [(0, 1, 2), (1, 0, 2), (2, 1, 1), (-1, -3, 0)])
def test_gather_block_quantized(
    data_type: Any, axes: tuple[int, int, int], with_zeros: bool, index_type: Any, scales_type: Any
) -> None:
    gather, quantized, _ = axes
    if gather % 3 == quantized % 3:
        pytest.skip("one axis")
    shape = [4, 5, 3]
    shape[quantized] = 40
    limits = ml_dtypes.iinfo(data_type)
    data = RNG.integers(int(limits.min), int(limits.max) + 1, shape).astype(data_type)
    blocks = list(shape)
    blocks[quantized] = 3
    scales = RNG.random(blocks).astype(scales_type)
    zeros = RNG.integers(0, 5, blocks).astype(data_type) if with_zeros else None
    indices = np.array([[0, 2], [1, -1]], dtype=index_type)
    attributes = {"gather_axis": gather, "quantize_axis": quantized, "block_size": 16}
    inputs = [data, indices, scales] + ([zeros] if with_zeros else [])
    against_onnxruntime("GatherBlockQuantized", inputs, attributes, constant=[0, 2, 3], rtol=2e-3)


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("with_zeros", [True, False])
def test_gather_of_packed_bytes(bits: int, with_zeros: bool) -> None:
    data = integers((6, 64 * bits // 8), np.uint8)
    scales = RNG.random((6, 4)).astype(np.float32)
    zeros = integers((6, -(-4 * bits // 8)), np.uint8)
    attributes = {"gather_axis": 0, "quantize_axis": 1, "block_size": 16, "bits": bits}
    inputs = [data, np.array([[5, 0], [3, 3]]), scales, *([zeros] if with_zeros else [])]
    against_onnxruntime("GatherBlockQuantized", inputs, attributes, constant=[0, 2, 3])


@pytest.mark.parametrize("dtype", [ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2, ml_dtypes.float4_e2m1fn])
@pytest.mark.parametrize("scales_shape", [(6, 2), (6, 1), (1, 1)])
def test_gather_of_small_floats(dtype: Any, scales_shape: tuple[int, int]) -> None:
    data = RNG.standard_normal((6, 32)).astype(dtype)
    scales = RNG.random(scales_shape).astype(np.float32)
    attributes = {"gather_axis": 0, "quantize_axis": 1, "block_size": 16 if scales_shape[1] == 2 else 0}
    against_onnxruntime("GatherBlockQuantized", [data, np.array([5, 0, 3]), scales], attributes, constant=[0, 2])


def test_gather_out_of_range_is_zero() -> None:
    data = np.arange(64, dtype=np.int8).reshape(2, 32) % 7
    scales = np.ones((2, 2), np.float32)
    (got,) = answers(
        "GatherBlockQuantized",
        [data.astype(ml_dtypes.int4), np.array([1, 9, -3, -2]), scales],
        {"block_size": 16},
    )
    want = data.astype(np.float32)[[1, 0, 0, 0]]
    want[[1, 2]] = 0
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("quant_type", [0, 1])
@pytest.mark.parametrize("block_size", [16, 64])
def test_matmul_bnb4(quant_type: int, block_size: int) -> None:
    n, k = 6, 32
    a = RNG.standard_normal((2, 3, k)).astype(np.float32)
    b = integers(((n * k + 1) // 2,), np.uint8)
    absmax = RNG.random(-(-n * k // block_size)).astype(np.float32)
    attributes = {"K": k, "N": n, "block_size": block_size, "quant_type": quant_type}
    against_onnxruntime("MatMulBnb4", [a, b, absmax], attributes, constant=[1, 2])
    # the other way round onnxruntime 1.32 answers with memory that it never wrote
    (weights,) = answers("MatMulBnb4", [np.eye(k, dtype=np.float32), b, absmax], attributes)
    (got,) = answers("MatMulBnb4", [a[..., :n], b, absmax], {**attributes, "transB": 0})
    np.testing.assert_allclose(got, a[..., :n] @ weights.T, rtol=1e-4, atol=1e-5)
