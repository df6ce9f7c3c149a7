"""The QLinear family against onnxruntime. A tie that it rounds by another sum of float32 is one step off."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from .oracle import against_onnxruntime, answers

DTYPES = [np.uint8, np.int8]


def scale(value: float) -> np.ndarray:
    return np.array(value, dtype=np.float32)


def eight_bits(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    limits = np.iinfo(dtype)
    return rng.integers(limits.min, limits.max + 1, shape).astype(dtype)


def zero(dtype: Any, value: int) -> np.ndarray:
    return np.array(value, dtype=dtype)


RNG = np.random.default_rng(3)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("op_type", ["QLinearAdd", "QLinearMul"])
@pytest.mark.parametrize(
    "shapes", [((3, 5), (3, 5)), ((2, 3, 4), (4,)), ((1,), (2, 3)), ((2, 1), (1, 3)), ((0, 3), (3,))]
)
def test_binary(op_type: str, dtype: Any, shapes: Any) -> None:
    a, b = (eight_bits(RNG, shape, dtype) for shape in shapes)
    c_scale = scale(0.09 if op_type == "QLinearAdd" else 1.7)
    inputs = [a, scale(0.05), zero(dtype, 7), b, scale(0.11), zero(dtype, 3), c_scale, zero(dtype, 5)]
    against_onnxruntime(op_type, inputs, atol=1)


@pytest.mark.parametrize("op_type", ["QLinearAdd", "QLinearMul"])
def test_zero_points_are_optional(op_type: str) -> None:
    """onnxruntime's own type inference refuses what its documentation allows."""
    a, b = (eight_bits(RNG, (2, 3), np.uint8) for _ in range(2))
    none = zero(np.uint8, 0)
    (want,) = answers(op_type, [a, scale(0.5), none, b, scale(0.25), none, scale(1.5), none])
    (got,) = answers(op_type, [a, scale(0.5), None, b, scale(0.25), None, scale(1.5)])
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("op_type", "attributes"), [("QLinearSigmoid", {}), ("QLinearLeakyRelu", {"alpha": 0.3})])
def test_unary(op_type: str, attributes: dict[str, Any], dtype: Any) -> None:
    x = np.arange(256, dtype=np.uint8).view(dtype).reshape(4, 64)
    y_scale = scale(1 / 256 if op_type == "QLinearSigmoid" else 0.04)
    inputs = [x, scale(0.05), zero(dtype, 9), y_scale, zero(dtype, 0)]
    against_onnxruntime(op_type, inputs, attributes, constant=[1, 2, 3, 4])
    against_onnxruntime(op_type, inputs, attributes)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("opset", "axis"), [(13, -1), (13, 1), (12, 1), (12, 0)])
def test_softmax(dtype: Any, opset: int, axis: int) -> None:
    x = eight_bits(RNG, (2, 5, 4), dtype)
    inputs = [x, scale(0.03), zero(dtype, 3), scale(1 / 256), zero(dtype, 0 if dtype is np.uint8 else -128)]
    against_onnxruntime("QLinearSoftmax", inputs, {"opset": opset, "axis": axis}, atol=1, default_opset=opset)


@pytest.mark.parametrize("dtype", DTYPES)
def test_concat(dtype: Any) -> None:
    parts: list[Any] = [scale(0.1), zero(dtype, 4)]
    for width, size, offset in ((2, 0.1, 4), (3, 0.07, 1), (1, 0.2, 6)):
        parts += [eight_bits(RNG, (2, width, 3), dtype), scale(size), zero(dtype, offset)]
    against_onnxruntime("QLinearConcat", parts, {"axis": 1}, atol=1)
    against_onnxruntime("QLinearConcat", parts, {"axis": -2}, atol=1)


@pytest.mark.parametrize("dtype", DTYPES)
def test_where(dtype: Any) -> None:
    condition = RNG.random((2, 3, 4)) < 0.5
    x, y = eight_bits(RNG, (3, 4), dtype), eight_bits(RNG, (2, 1, 4), dtype)
    inputs = [condition, x, scale(0.1), zero(dtype, 3), y, scale(0.2), zero(dtype, 1), scale(0.15), zero(dtype, 2)]
    against_onnxruntime("QLinearWhere", inputs, atol=1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels_last", [0, 1])
@pytest.mark.parametrize(
    "attributes",
    [
        {"kernel_shape": [2, 2]},
        {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 0, 1, 1]},
        {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1], "count_include_pad": 1},
        {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1},
        {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"},
    ],
)
def test_average_pool(dtype: Any, channels_last: int, attributes: dict[str, Any]) -> None:
    x = eight_bits(RNG, (2, 6, 7, 3) if channels_last else (2, 3, 6, 7), dtype)
    inputs = [x, scale(0.05), zero(dtype, 8), scale(0.04), zero(dtype, 2)]
    against_onnxruntime("QLinearAveragePool", inputs, {**attributes, "channels_last": channels_last}, atol=1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels_last", [0, 1])
def test_global_average_pool(dtype: Any, channels_last: int) -> None:
    x = eight_bits(RNG, (2, 6, 7, 3), dtype)
    inputs = [x, scale(0.05), zero(dtype, 8), scale(0.04), zero(dtype, 2)]
    against_onnxruntime("QLinearGlobalAveragePool", inputs, {"channels_last": channels_last}, atol=1)


@pytest.mark.parametrize("channels_last", [0, 1])
@pytest.mark.parametrize("dtype", DTYPES)
def test_conv(dtype: Any, channels_last: int) -> None:
    x = eight_bits(RNG, (1, 6, 5, 4) if channels_last else (1, 4, 6, 5), dtype)
    w = eight_bits(RNG, (6, 2, 3, 3), np.int8)
    inputs = [x, scale(0.02), zero(dtype, 3), w, RNG.random(6).astype(np.float32) / 50 + 0.01, np.zeros(6, np.int8)]
    inputs += [scale(0.3), zero(dtype, 5), RNG.integers(-500, 500, 6).astype(np.int32)]
    attributes = {"group": 2, "pads": [1, 1, 1, 1], "strides": [2, 1], "channels_last": channels_last}
    against_onnxruntime("QLinearConv", inputs, attributes, atol=1)


@pytest.mark.parametrize("dtype", DTYPES)
def test_nhwc_max_pool(dtype: Any) -> None:
    x = eight_bits(RNG, (2, 6, 7, 3), dtype)
    for attributes in (
        {"kernel_shape": [2, 2]},
        {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 0, 1, 1], "dilations": [1, 2]},
        {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1},
    ):
        against_onnxruntime("NhwcMaxPool", [x], attributes)
