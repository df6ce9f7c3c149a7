"""Convolution, pooling and their inverses, at every version."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..case import Case, case, since
from ..naive import conv, conv_transpose, pool
from ..sweep import is_floating, sweep

Array = np.ndarray[Any, Any]

_random = np.random.default_rng(7)


def _values(*shape: int) -> Array:
    return _random.integers(-4, 5, shape).astype(np.float32)


_LINE, _IMAGE, _CUBE = _values(2, 2, 9), _values(1, 2, 7, 6), _values(1, 1, 4, 5, 4)


def _cast(y: Array) -> Array:
    return y.astype(np.float32)


def _average(include: bool = False) -> Any:
    return lambda values, padded: values.sum() / (padded if include else len(values))


def _greatest(values: Array, padded: int) -> float:
    return float(values.max())


_WINDOWS: list[tuple[str, Array, dict[str, Any]]] = [
    ("1d", _LINE, {"kernel_shape": [3]}),
    ("2d", _IMAGE, {"kernel_shape": [3, 2], "strides": [2, 3]}),
    ("3d", _CUBE, {"kernel_shape": [2, 2, 2], "strides": [1, 2, 1]}),
    ("pads", _IMAGE, {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 0, 2, 1]}),
    ("upper", _IMAGE, {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    ("lower", _IMAGE, {"kernel_shape": [2, 2], "strides": [1, 1], "auto_pad": "SAME_LOWER"}),
    ("valid", _IMAGE, {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "VALID"}),
]
_CEIL = ("ceil", _IMAGE, {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1})
_CEIL_PADS = ("ceil-pads", _IMAGE, {"kernel_shape": [2, 2], "strides": [3, 3], "pads": [1, 1, 1, 1], "ceil_mode": 1})
_DILATED = ("dilated", _IMAGE, {"kernel_shape": [2, 3], "dilations": [3, 2], "strides": [2, 1], "pads": [1, 1, 1, 1]})


def _settings(attributes: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in attributes.items() if key != "kernel_shape"}


def _pools() -> list[Case]:
    found = []
    for label, x, attributes in [*_WINDOWS, _CEIL, _CEIL_PADS, _DILATED]:
        kernel, settings = attributes["kernel_shape"], _settings(attributes)
        first = {"ceil": 10, "ceil-pads": 10, "dilated": 10}.get(label, 1)
        want = _cast(pool(x, _greatest, kernel, **settings))
        found.append(
            case("MaxPool", *since("MaxPool", first), inputs=[x], expected=[want], attributes=attributes, label=label)
        )
        first = {"ceil": 10, "ceil-pads": 10, "dilated": 19}.get(label, 1)
        versions = since("AveragePool", first)
        found.append(
            case(
                "AveragePool",
                *versions,
                inputs=[x],
                expected=[_cast(pool(x, _average(), kernel, **settings))],
                attributes=attributes,
                label=label,
            )
        )
        if "pads" in attributes and label != "ceil-pads":
            found.append(
                case(
                    "AveragePool",
                    *since("AveragePool", max(first, 7)),
                    inputs=[x],
                    expected=[_cast(pool(x, _average(True), kernel, **settings))],
                    attributes={**attributes, "count_include_pad": 1},
                    label=f"{label}-included",
                )
            )
        # powers are summed, padding adds nothing
        first = {"ceil": 18, "ceil-pads": 18, "dilated": 18}.get(label, 2)
        for p in (1, 2, 3):
            found.append(
                case(
                    "LpPool",
                    *since("LpPool", first),
                    inputs=[x],
                    expected=[_cast(pool(x, _norm(p), kernel, **settings))],
                    attributes={**attributes, "p": p},
                    label=f"{label}-{p}",
                )
            )
    kernel = {"kernel_shape": [3, 2]}
    norm = _cast(pool(_IMAGE, _norm(2), [3, 2]))
    return [
        *found,
        case("LpPool", inputs=[_IMAGE], expected=[norm], attributes=kernel, label="default"),
        case(
            "LpPool",
            1,
            inputs=[_IMAGE],
            expected=[_cast(pool(_IMAGE, _norm(3), [3, 2]))],
            attributes={**kernel, "p": 3.0},
            label="float",
        ),
        *_indices(),
        *sweep("MaxPool", _ones_to_four(max), attributes={"kernel_shape": [2, 2]}),
        *sweep("AveragePool", _ones_to_four(lambda v: sum(v) / 4), attributes={"kernel_shape": [2, 2]}),
        *sweep("LpPool", _ones_to_four(lambda v: sum(x * x for x in v) ** 0.5), attributes={"kernel_shape": [2, 2]}),
        *sweep("GlobalMaxPool", _ones_to_four(max)),
        *sweep("GlobalAveragePool", _ones_to_four(lambda v: sum(v) / 4)),
        *sweep("GlobalLpPool", _ones_to_four(lambda v: sum(x * x for x in v) ** 0.5)),
        case("GlobalMaxPool", inputs=[_CUBE], expected=[_CUBE.max((2, 3, 4), keepdims=True)], label="3d"),
        case("GlobalAveragePool", inputs=[_LINE], expected=[_LINE.mean(2, keepdims=True)], label="1d"),
        case(
            "GlobalLpPool",
            1,
            inputs=[_IMAGE],
            expected=[np.cbrt((np.abs(_IMAGE) ** 3).sum((2, 3), keepdims=True))],
            attributes={"p": 3.0},
            label="3",
        ),
        case(
            "GlobalLpPool",
            *since("GlobalLpPool", 2),
            inputs=[_IMAGE],
            expected=[np.cbrt((np.abs(_IMAGE) ** 3).sum((2, 3), keepdims=True))],
            attributes={"p": 3},
            label="3",
        ),
    ]


def _norm(p: int) -> Any:
    return lambda values, padded: (np.abs(values) ** p).sum() ** (1 / p)


def _ones_to_four(function: Any) -> Any:
    def make(dtype: np.dtype[Any]) -> tuple[list[Any], list[Any]]:
        x = np.array([1, 4, 2, 3], np.float32).reshape(1, 1, 2, 2).astype(dtype)
        return [x], [np.array(function([1, 4, 2, 3]), np.float64).reshape(1, 1, 1, 1).astype(dtype)]

    return make


def _indices() -> list[Case]:
    """The second output counts in the whole tensor, row-major unless told; MaxUnpool is its inverse."""
    x = _random.permutation(2 * 2 * 4 * 6).reshape(2, 2, 4, 6).astype(np.float32)
    blocks = x.reshape(2, 2, 2, 2, 3, 2).transpose(0, 1, 2, 4, 3, 5).reshape(2, 2, 2, 3, 4)
    y = blocks.max(-1)
    flat = np.array([int(np.flatnonzero(x == value)[0]) for value in y.ravel()]).reshape(y.shape)
    n, c, h, w = np.unravel_index(flat, x.shape)
    columns = ((n * 2 + c) * 6 + w) * 4 + h
    attributes = {"kernel_shape": [2, 2], "strides": [2, 2]}
    back = np.zeros_like(x)
    back.ravel()[flat] = y
    large = np.zeros((2, 2, 5, 7), np.float32)
    large[:, :, :4, :6] = back
    return [
        case("MaxPool", *since("MaxPool", 8), inputs=[x], expected=[y, flat], attributes=attributes, label="indices"),
        case(
            "MaxPool",
            *since("MaxPool", 8),
            inputs=[x],
            expected=[y, columns],
            attributes={**attributes, "storage_order": 1},
            label="columns",
        ),
        case("MaxUnpool", inputs=[y, flat], expected=[back], attributes=attributes),
        case(
            "MaxUnpool",
            inputs=[y, flat, np.array([2, 2, 5, 7])],
            expected=[large],
            attributes=attributes,
            label="shape",
            onnxruntime_differs="counts the indices in the output asked for, onnx's suite in the one before padding",
        ),
        *sweep(
            "MaxUnpool",
            lambda t: ([y.astype(t), flat], [back.astype(t)]),
            "T1",
            attributes=attributes,
            only=lambda version, dtype: is_floating(dtype),
        ),
    ]


def _convolutions() -> list[Case]:
    found = []
    for label, x, attributes in [*_WINDOWS, _DILATED]:
        settings = _settings(attributes)
        w = _values(3, x.shape[1], *attributes["kernel_shape"])
        bias = _values(3)
        want = _cast(conv(x, w, bias, **settings))
        found.append(case("Conv", inputs=[x, w, bias], expected=[want], attributes=attributes, label=label))
    x, w = _values(2, 4, 5, 5), _values(6, 2, 3, 3)
    depth = _values(4, 1, 3, 3)
    four = np.arange(4, dtype=np.float32).reshape(1, 1, 2, 2)

    def make(dtype: np.dtype[Any]) -> tuple[list[Any], list[Any]]:
        return [four.astype(dtype), four.astype(dtype)], [np.full((1, 1, 1, 1), 14, np.float32).astype(dtype)]

    return [
        *found,
        case("Conv", inputs=[x, w], expected=[_cast(conv(x, w, group=2))], attributes={"group": 2}, label="groups"),
        case("Conv", inputs=[x, depth], expected=[_cast(conv(x, depth, group=4))], attributes={"group": 4}, label="dw"),
        case("Conv", inputs=[x[:0], w], expected=[np.zeros((0, 6, 3, 3), "f")], attributes={"group": 2}, label="empty"),
        *sweep("Conv", make),
    ]


def _transposed() -> list[Case]:
    x, w, bias = _values(1, 2, 3, 4), _values(2, 3, 3, 2), _values(3)
    forms: list[tuple[str, dict[str, Any]]] = [
        ("plain", {}),
        ("strides", {"strides": [2, 3]}),
        ("pads", {"strides": [2, 2], "pads": [1, 0, 0, 1]}),
        ("output-padding", {"strides": [3, 2], "output_padding": [2, 1]}),
        ("dilated", {"dilations": [2, 3]}),
    ]
    four = np.arange(4, dtype=np.float32).reshape(1, 1, 2, 2)
    grouped = _values(4, 2, 2, 2)
    wide = _values(1, 4, 3, 3)
    full = conv_transpose(x, w, bias, strides=[2, 2])  # [7, 8]

    def make(dtype: np.dtype[Any]) -> tuple[list[Any], list[Any]]:
        one = np.ones((1, 1, 1, 1), np.float32).astype(dtype)
        return [four.astype(dtype), one], [four.astype(dtype)]

    return [
        *(
            case(
                "ConvTranspose",
                inputs=[x, w, bias],
                expected=[_cast(conv_transpose(x, w, bias, **settings))],
                attributes={"kernel_shape": [3, 2], **settings},
                label=label,
            )
            for label, settings in forms
        ),
        case(
            "ConvTranspose",
            inputs=[wide, grouped],
            expected=[_cast(conv_transpose(wide, grouped, group=2))],
            attributes={"group": 2},
            label="groups",
        ),
        case(
            "ConvTranspose",
            inputs=[_LINE, _values(2, 1, 3)],
            expected=[lambda got: np.testing.assert_equal(got.shape, (2, 1, 11))],
            label="1d",
        ),
        case(
            "ConvTranspose",
            *since("ConvTranspose", 11),
            inputs=[x, w, bias],
            expected=[_cast(full[:, :, :6, :])],
            attributes={"strides": [2, 2], "auto_pad": "SAME_UPPER"},
            label="upper",
        ),
        case(
            "ConvTranspose",
            *since("ConvTranspose", 11),
            inputs=[x, w, bias],
            expected=[_cast(full[:, :, 1:, :])],
            attributes={"strides": [2, 2], "auto_pad": "SAME_LOWER"},
            label="lower",
        ),
        case(
            "ConvTranspose",
            inputs=[x, w],
            expected=[lambda got: np.testing.assert_equal(got.shape, (1, 3, 8, 9))],
            attributes={"strides": [2, 2], "output_shape": [8, 9]},
            label="shape",
        ),
        *sweep("ConvTranspose", make),
    ]


def _deformed() -> list[Case]:
    """Whole offsets move the taps: a shift of one row is a convolution of the image moved up."""
    x, w = _values(1, 2, 5, 5), _values(2, 2, 2, 2)
    shift = np.zeros((1, 8, 3, 4), np.float32)
    shift[:, ::2] = 1
    moved = x[:, :, 1:]
    half = np.zeros((1, 8, 4, 4), np.float32)
    mask = np.full((1, 4, 4, 4), 0.5, np.float32)
    return [
        case("DeformConv", inputs=[x[:, :, :4], w, shift], expected=[_down(moved[:, :, :3], w)], label="shift"),
        case("DeformConv", inputs=[x, w, half], expected=[_cast(conv(x, w))], label="zero"),
        case(
            "DeformConv",
            inputs=[x, w, half, np.ones(2, np.float32), mask],
            expected=[_cast(conv(x, w) / 2 + 1)],
            label="mask",
        ),
    ]


def _down(moved: Array, w: Array) -> Array:
    """Below the image all is zero."""
    return _cast(conv(np.pad(moved, [(0, 0), (0, 0), (0, 1), (0, 0)]), w))


CASES = [*_pools(), *_convolutions(), *_transposed(), *_deformed()]
