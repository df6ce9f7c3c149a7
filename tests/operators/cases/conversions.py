"""Casts between all pairs of element types, and quantization, at every version."""

from __future__ import annotations

import itertools
from typing import Any

import ml_dtypes
import numpy as np
from onnx import helper

from ..case import Case, case, since
from ..sweep import is_floating, samples, types_of

Array = np.ndarray[Any, Any]

_FLOAT8 = (
    ml_dtypes.float8_e4m3fn,
    ml_dtypes.float8_e4m3fnuz,
    ml_dtypes.float8_e5m2,
    ml_dtypes.float8_e5m2fnuz,
)


def _number(dtype: Any) -> int:
    return helper.np_dtype_to_tensor_dtype(np.dtype(dtype))


def _casts() -> list[Case]:
    """Values that every type in question has: what is lost elsewhere is in the cases of edges."""
    plain = np.array([0, 1, 1], np.float32)
    found = []
    for version in since("Cast", 1):
        sources, targets = types_of("Cast", version, "T1"), types_of("Cast", version, "T2")
        for source, target in itertools.product(sources, targets):
            if version not in (6, 28) and np.float32 not in (source, target):
                continue  # all pairs twice are enough
            if object in (source, target):
                continue
            attributes = {"to": _name(target) if version == 1 else _number(target)}
            x = np.ones(3, np.float32) if "e8m0" in f"{source}{target}" else plain  # which has no zero
            found.append(
                case(
                    "Cast",
                    version,
                    inputs=[x.astype(source)],
                    expected=[x.astype(target)],
                    attributes=attributes,
                    label=f"{source.name}-{target.name}",
                )
            )
    return found


def _name(dtype: Any) -> str:
    """Version 1 names types by text."""
    return str(helper.tensor_dtype_to_string(_number(dtype))).removeprefix("TensorProto.")


def _edges() -> list[Case]:
    x = np.array([-2.7, -0.5, 0.5, 2.7, np.nan, np.inf, -np.inf], np.float32)
    whole = x[:4]
    big = np.array([1e6, -1e6, 448, 464.1, np.inf], np.float32)
    words = np.array(["-1.5", "2", "1e3", "NaN", "INF", "-inf"], object)
    found = [
        case(
            "Cast",
            *since("Cast", 6),
            inputs=[whole],
            expected=[np.array([-2, 0, 0, 2], np.int64)],
            attributes={"to": 7},
            label="trunc",
        ),
        case(
            "Cast",
            *since("Cast", 6),
            inputs=[x],
            expected=[np.array([1, 1, 1, 1, 1, 1, 1], bool)],
            attributes={"to": 9},
            label="bool",
        ),
        case(
            "Cast",
            *since("Cast", 6),
            inputs=[np.array([300, -1, 70000], np.int64)],
            expected=[np.array([44, 255, 112], np.uint8)],
            attributes={"to": 2},
            label="wrap",
        ),
        case(
            "Cast",
            *since("Cast", 9),
            inputs=[words],
            expected=[np.array([-1.5, 2, 1000, np.nan, np.inf, -np.inf], np.float32)],
            attributes={"to": 1},
            label="parse",
        ),
        case(
            "Cast",
            *since("Cast", 9),
            inputs=[np.array(["12", "-3"], object)],
            expected=[np.array([12, -3], np.int32)],
            attributes={"to": 6},
            label="parse-int",
        ),
        case(
            "Cast",
            *since("Cast", 9),
            inputs=[np.array([12, -3], np.int32)],
            expected=[np.array(["12", "-3"], object)],
            attributes={"to": 8},
            label="print-int",
        ),
        case(
            "Cast",
            *since("Cast", 9),
            inputs=[np.array([0.5, -3, np.nan, np.inf, -np.inf], np.float32)],
            expected=[np.array(["0.5", "-3", "NaN", "INF", "-INF"], object)],
            attributes={"to": 8},
            label="print",
        ),
    ]
    for kind in _FLOAT8:
        limits = ml_dtypes.finfo(kind)
        kept = np.clip(big, float(limits.min), float(limits.max)).astype(kind)
        over = big.astype(kind)
        found += [
            case(
                "Cast",
                *since("Cast", 19),
                inputs=[big],
                expected=[kept],
                attributes={"to": _number(kind)},
                label=f"saturate-{np.dtype(kind).name}",
            ),
            case(
                "Cast",
                *since("Cast", 19),
                inputs=[big],
                expected=[over],
                attributes={"to": _number(kind), "saturate": 0},
                label=f"over-{np.dtype(kind).name}",
            ),
        ]
    return found


def _casts_like() -> list[Case]:
    found = []
    for version in since("CastLike", 15):
        for target in types_of("CastLike", version, "T2"):
            want = np.array(["1", "1"], object) if target.kind == "O" else np.array([1, 1], np.float32).astype(target)
            like = np.ones(1, np.float32).astype(target)
            source = np.ones(2, np.int32)
            inputs = [source, np.array(["a"], object) if target.kind == "O" else like]
            found.append(case("CastLike", version, inputs=inputs, expected=[want], label=target.name))
        for origin in types_of("CastLike", version, "T1"):
            if origin.kind != "O":
                x = np.array([1, 1], np.float32).astype(origin)
                inputs = [x, np.ones(1, np.float32)]
                want = np.ones(2, np.float32)
                found.append(case("CastLike", version, inputs=inputs, expected=[want], label=f"from-{origin.name}"))
    return found


def _limits(dtype: Any) -> tuple[float, float]:
    if is_floating(dtype):
        return float(ml_dtypes.finfo(dtype).min), float(ml_dtypes.finfo(dtype).max)
    return float(ml_dtypes.iinfo(dtype).min), float(ml_dtypes.iinfo(dtype).max)


def _quantized(x: Array, scale: Any, zero: Any, dtype: Any) -> Array:
    """Halves to even, saturating."""
    y = x.astype(np.float64) / np.asarray(scale, np.float64)
    if not is_floating(dtype):
        y = np.rint(y) + np.asarray(zero, np.float64)
    return np.clip(y, *_limits(dtype)).astype(np.float32).astype(dtype)


_V = np.array([[-200, -3, -1.5, 0], [0.5, 1.5, 2.5, 200]], np.float32)


def _quantizations() -> list[Case]:
    zero_types = {
        10: ("T2",),
        13: ("T2",),
        19: ("T2",),
        21: ("T2",),
        23: ("T3",),
        24: ("T3",),
        25: ("T3",),
        28: ("T3",),
    }
    found = []
    for version in since("QuantizeLinear", 10):
        for dtype in types_of("QuantizeLinear", version, zero_types[version][0]):
            zero = np.array(0 if is_floating(dtype) else 1, np.float32).astype(dtype)
            found.append(
                case(
                    "QuantizeLinear",
                    version,
                    inputs=[_V, np.float32(0.5), zero],
                    expected=[_quantized(_V, 0.5, zero, dtype)],
                    label=dtype.name,
                )
            )
    scales = np.array([0.5, 2], np.float32)
    zeros = np.array([10, 128], np.uint8)
    found += [
        case("QuantizeLinear", inputs=[_V, np.float32(1)], expected=[_quantized(_V, 1, 0, np.uint8)], label="default"),
        case(
            "QuantizeLinear",
            *since("QuantizeLinear", 13),
            inputs=[_V, scales, zeros],
            expected=[_quantized(_V, scales[:, None], zeros[:, None], np.uint8)],
            attributes={"axis": 0},
            label="axis",
        ),
        case(
            "QuantizeLinear",
            *since("QuantizeLinear", 13),
            inputs=[_V.T.copy(), scales, zeros],
            expected=[_quantized(_V.T, scales, zeros, np.uint8)],
            attributes={"axis": -1},
            label="negative",
        ),
        case(
            "QuantizeLinear",
            *since("QuantizeLinear", 21),
            inputs=[_V, np.repeat(scales[:, None], 2, 1), np.repeat(zeros[:, None], 2, 1)],
            expected=[_quantized(_V, scales[:, None], zeros[:, None], np.uint8)],
            attributes={"axis": 1, "block_size": 2},
            label="block",
        ),
        case(
            "QuantizeLinear",
            *since("QuantizeLinear", 21),
            inputs=[_V, np.float32(0.5)],
            expected=[_quantized(_V, 0.5, 0, np.int16)],
            attributes={"output_dtype": _number(np.int16)},
            label="output-dtype",
        ),
    ]
    return found


def _dequantizations() -> list[Case]:
    found = []
    for version in since("DequantizeLinear", 10):
        for dtype in types_of("DequantizeLinear", version, "T1" if version >= 19 else "T"):
            x = samples(dtype)
            if dtype == np.int32:
                zero = np.zeros((), dtype)  # the only one allowed
            else:
                zero = np.array(0 if is_floating(dtype) else 1, np.float32).astype(dtype)
            y = (x.astype(np.float64) - zero.astype(np.float64)) * 0.5
            inputs = [x, np.float32(0.5), zero]
            found.append(case("DequantizeLinear", version, inputs=inputs, expected=[y.astype("f")], label=dtype.name))
    x = np.arange(8, dtype=np.uint8).reshape(2, 4)
    scales = np.array([0.5, 2], np.float32)
    zeros = np.array([10, 128], np.uint8)

    def want(values: Array, scale: Array, zero: Array) -> list[Array]:
        return [(values.astype(np.float32) - zero.astype(np.float32)) * scale]

    found += [
        case(
            "DequantizeLinear", inputs=[x, np.float32(2)], expected=want(x, scales[1], zeros[:0].sum()), label="no-zero"
        ),
        case(
            "DequantizeLinear",
            *since("DequantizeLinear", 13),
            inputs=[x, scales, zeros],
            expected=want(x, scales[:, None], zeros[:, None]),
            attributes={"axis": 0},
            label="axis",
        ),
        case(
            "DequantizeLinear",
            *since("DequantizeLinear", 13),
            inputs=[x.T.copy(), scales, zeros],
            expected=want(x.T, scales, zeros),
            attributes={"axis": -1},
            label="negative",
        ),
        case(
            "DequantizeLinear",
            *since("DequantizeLinear", 21),
            inputs=[x, np.tile(scales, (2, 1)), np.tile(zeros, (2, 1))],
            expected=want(x, np.repeat(scales, 2), np.repeat(zeros, 2)),
            attributes={"axis": 1, "block_size": 2},
            label="block",
        ),
    ]
    return found


def _products() -> list[Case]:
    a, b = np.array([[1, 2, 250], [3, 0, 9]], np.uint8), np.array([[1, 9], [200, 4], [5, 6]], np.uint8)
    scale_a, scale_b, scale_y = np.float32(0.1), np.float32(0.2), np.float32(0.5)
    zero_a, zero_b, zero_y = np.uint8(2), np.uint8(5), np.uint8(100)
    exact = (a.astype(int) - int(zero_a)) @ (b.astype(int) - int(zero_b))
    y = _quantized(exact * 0.1 * 0.2, 0.5, 100, np.uint8)
    signed = (b.astype(int) - 128).astype(np.int8)
    return [
        case("QLinearMatMul", inputs=[a, scale_a, zero_a, b, scale_b, zero_b, scale_y, zero_y], expected=[y], atol=1),
        case("MatMulInteger", inputs=[a, b, zero_a, zero_b], expected=[exact.astype(np.int32)]),
        case(
            "MatMulInteger",
            inputs=[a, signed],
            expected=[(a.astype(np.int64) @ signed.astype(np.int64)).astype(np.int32)],
            label="signed",
        ),
        case(
            "DynamicQuantizeLinear",
            inputs=[np.array([0, 2, -3, -2.5, 1.34, 0.5], np.float32)],
            expected=[
                np.array([153, 255, 0, 26, 221, 179], np.uint8),
                np.array(5 / 255, np.float32),
                np.array(153, np.uint8),
            ],
        ),
    ]


CASES = [*_casts(), *_edges(), *_casts_like(), *_quantizations(), *_dequantizations(), *_products()]
