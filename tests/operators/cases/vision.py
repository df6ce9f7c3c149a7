"""Resampling, regions of interest, boxes, at every version."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..case import Case, case, since
from ..naive import cubic, linear, resample
from ..sweep import sweep

Array = np.ndarray[Any, Any]

_random = np.random.default_rng(3)
_X = _random.integers(-9, 9, (1, 2, 4, 5)).astype(np.float32)


def _f(x: Array) -> Array:
    return np.asarray(x).astype(np.float32)


def _nearest(rounding: Callable[[float], int]) -> Callable[[float], Any]:
    return lambda at: [(rounding(at), 1.0)]


_PLACES: dict[str, Callable[[int, int, float], Callable[[int], float]]] = {
    "asymmetric": lambda n_in, n_out, s: lambda i: i / s,
    "half_pixel": lambda n_in, n_out, s: lambda i: (i + 0.5) / s - 0.5,
    "pytorch_half_pixel": lambda n_in, n_out, s: lambda i: (i + 0.5) / s - 0.5 if n_out > 1 else 0.0,
    # the length of the output counts before it is rounded down
    "align_corners": lambda n_in, n_out, s: lambda i: i * (n_in - 1) / (n_in * s - 1) if n_out > 1 else 0.0,
    "half_pixel_symmetric": lambda n_in, n_out, s: lambda i: n_in / 2 * (1 - n_out / (n_in * s)) + (i + 0.5) / s - 0.5,
}
_ROUNDINGS: dict[str, Callable[[float], int]] = {
    "floor": math.floor,
    "ceil": math.ceil,
    "round_prefer_floor": lambda at: math.ceil(at - 0.5),
    "round_prefer_ceil": lambda at: math.floor(at + 0.5),
}


def _scaled(x: Array, scales: dict[int, float], mode: str, weights: Callable[[float], Any]) -> Array:
    y = x.astype(np.float64)
    for axis, scale in scales.items():
        n_out = math.floor(x.shape[axis] * scale)
        y = resample(y, axis, n_out, _PLACES[mode](x.shape[axis], n_out, scale), weights)
    return _f(y)


def _resizes() -> list[Case]:
    up, down = np.array([1, 1, 2, 3], np.float32), np.array([1, 1, 0.5, 0.75], np.float32)
    nothing = np.array([], np.float32)
    floor = _nearest(math.floor)
    found = []
    for label, scales in (("up", up), ("down", down)):
        both = {2: float(scales[2]), 3: float(scales[3])}
        # version 10 takes the element after where it shrinks, as onnxruntime does; the standard is silent
        for mode, weights in (("nearest", floor if label == "up" else _nearest(math.ceil)), ("linear", linear)):
            want = _scaled(_X, both, "asymmetric", weights)
            found.append(
                case(
                    "Resize",
                    10,
                    inputs=[_X, scales],
                    expected=[want],
                    attributes={"mode": mode},
                    label=f"{label}-{mode}",
                )
            )
        late = since("Resize", 11)
        for place in _PLACES:
            versions = since("Resize", 18) if place == "half_pixel_symmetric" else late
            for mode, weights in (("linear", linear), ("cubic", cubic)):
                found.append(
                    case(
                        "Resize",
                        *versions,
                        inputs=[_X, nothing, scales],
                        expected=[_scaled(_X, both, place, weights)],
                        attributes={"mode": mode, "coordinate_transformation_mode": place},
                        label=f"{label}-{mode}-{place}",
                        onnxruntime_differs="rounds the length of the output first, onnx's own suite does not"
                        if (label, place) == ("down", "align_corners")
                        else "",
                        rtol=1e-4,
                        atol=1e-4,
                    )
                )
        for name, rounding in _ROUNDINGS.items():
            found.append(
                case(
                    "Resize",
                    *late,
                    inputs=[_X, nothing, scales],
                    expected=[_scaled(_X, both, "half_pixel", _nearest(rounding))],
                    attributes={"nearest_mode": name},
                    label=f"{label}-{name}",
                )
            )
    sizes = np.array([1, 2, 7, 3], np.int64)
    by_size = _scaled(_X, {2: 7 / 4, 3: 3 / 5}, "half_pixel", linear)
    return [
        *found,
        case(
            "Resize",
            *since("Resize", 11),
            inputs=[_X, nothing, nothing, sizes],
            expected=[by_size],
            attributes={"mode": "linear"},
            label="sizes",
            rtol=1e-4,
            atol=1e-4,
        ),
        case(
            "Resize",
            *since("Resize", 18),
            inputs=[_X, None, None, sizes[2:]],
            expected=[by_size],
            attributes={"mode": "linear", "axes": [2, 3]},
            label="axes",
            rtol=1e-4,
            atol=1e-4,
        ),
        *sweep(
            "Resize",
            lambda t: (
                [np.array([1, 0, 1], np.float32).astype(t), np.array([2], np.float32)],
                [np.array([1, 1, 0, 0, 1, 1], np.float32).astype(t)],
            ),
            only=lambda version, dtype: version == 10 and dtype.kind != "O",
        ),
        *sweep(
            "Resize",
            lambda t: (
                [np.array([1, 0, 1], np.float32).astype(t), None, np.array([2], np.float32)],
                [np.array([1, 1, 0, 0, 1, 1], np.float32).astype(t)],
            ),
            "T1",
            attributes={"nearest_mode": "floor", "coordinate_transformation_mode": "asymmetric"},
            only=lambda version, dtype: version >= 13 and dtype.kind != "O",
        ),
        case(
            "Upsample",
            1,
            inputs=[_X],
            expected=[_scaled(_X, {2: 2, 3: 3}, "asymmetric", floor)],
            attributes={"height_scale": 2.0, "width_scale": 3.0},
        ),
        *(
            case(
                "Upsample",
                version,
                inputs=[_X] if version == 7 else [_X, up],
                expected=[_scaled(_X, {2: 2, 3: 3}, "asymmetric", weights)],
                attributes={"mode": mode, **({"scales": up.tolist()} if version == 7 else {})},
                label=mode,
            )
            for version in (7, 9)
            for mode, weights in (("nearest", floor), ("linear", linear))
        ),
        case(
            "Upsample",
            1,
            inputs=[_X],
            expected=[_scaled(_X, {2: 2, 3: 2}, "asymmetric", linear)],
            attributes={"height_scale": 2.0, "width_scale": 2.0, "mode": "bilinear"},
            label="bilinear",
        ),
    ]


def _bilinear(plane: Array, y: float, x: float) -> float:
    """Zero more than one outside, the border's value in between."""
    height, width = plane.shape
    if not (-1 <= y <= height and -1 <= x <= width):
        return 0.0
    y, x = max(y, 0), max(x, 0)
    top, left = min(int(y), height - 1), min(int(x), width - 1)
    y, x = min(y, height - 1), min(x, width - 1)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    a, b = y - top, x - left
    return float(
        (1 - a) * (1 - b) * plane[top, left]
        + (1 - a) * b * plane[top, right]
        + a * (1 - b) * plane[bottom, left]
        + a * b * plane[bottom, right]
    )


def _aligned(
    x: Array, rois: Array, indices: Array, size: int, ratio: int, scale: float, mode: str, half: bool
) -> Array:
    y = np.zeros((len(rois), x.shape[1], size, size))
    for r, (left, top, right, bottom) in enumerate(rois.astype(np.float64) * scale - (0.5 if half else 0)):
        height, width = bottom - top, right - left
        if not half:
            height, width = max(height, 1.0), max(width, 1.0)
        n_y = ratio or math.ceil(height / size)
        n_x = ratio or math.ceil(width / size)
        for c, i, j in np.ndindex(x.shape[1], size, size):
            values = [
                _bilinear(
                    x[indices[r], c],
                    top + (i + (a + 0.5) / n_y) * height / size,
                    left + (j + (b + 0.5) / n_x) * width / size,
                )
                for a in range(n_y)
                for b in range(n_x)
            ]
            y[r, c, i, j] = max(values) if mode == "max" else sum(values) / len(values)
    return _f(y)


def _regions() -> list[Case]:
    x = _random.normal(size=(2, 2, 8, 8)).astype(np.float32)
    rois = np.array([[0, 0, 7, 7], [1.5, 2, 4, 6.25], [5, 5, 5.2, 5.2]], np.float32)
    indices = np.array([0, 1, 1], np.int64)
    found = []
    for label, settings in (
        ("plain", {"sampling_ratio": 2}),
        ("adaptive", {}),
        ("scale", {"sampling_ratio": 3, "spatial_scale": 0.5}),
    ):
        ratio, scale = int(settings.get("sampling_ratio", 0)), settings.get("spatial_scale", 1.0)
        for version in since("RoiAlign", 10):
            want = _aligned(x, rois, indices, 2, ratio, scale, "avg", version >= 16)
            attributes = {"output_height": 2, "output_width": 2, **settings}
            known = {"inputs": [x, rois, indices], "rtol": 1e-4}
            found.append(case("RoiAlign", version, expected=[want], attributes=attributes, label=label, **known))
    whole = np.array([[0, 0, 0, 3, 3], [1, 2, 2, 7, 5], [0, 4, 4, 4, 4]], np.float32)
    return [
        *found,
        case(
            "MaxRoiPool",
            inputs=[x, whole],
            expected=[_pooled(x, whole, 2, 1.0)],
            attributes={"pooled_shape": [2, 2]},
        ),
        case(
            "MaxRoiPool",
            inputs=[x, whole * np.array([1, 2, 2, 2, 2], np.float32)],
            expected=[_pooled(x, whole, 3, 1.0)],
            attributes={"pooled_shape": [3, 3], "spatial_scale": 0.5},
            label="scale",
        ),
    ]


def _pooled(x: Array, rois: Array, size: int, scale: float) -> Array:
    y = np.zeros((len(rois), x.shape[1], size, size), np.float32)
    for r, roi in enumerate(rois):
        left, top, right, bottom = (round(float(v) * scale) for v in roi[1:])
        height, width = max(bottom - top + 1, 1), max(right - left + 1, 1)
        for i, j in np.ndindex(size, size):
            rows = slice(top + math.floor(i * height / size), top + math.ceil((i + 1) * height / size))
            columns = slice(left + math.floor(j * width / size), left + math.ceil((j + 1) * width / size))
            part = x[int(roi[0]), :, rows, columns]
            y[r, :, i, j] = part.max((1, 2)) if part.size else 0
    return y


def _grids() -> list[Case]:
    """A grid at the centres of the pixels gives the image; one beyond its border what the padding says."""
    x = _X[:, :, :4, :4]
    centres = (np.arange(4) * 2 + 1) / 4 - 1
    same = np.stack(np.meshgrid(centres, centres), -1)[None].astype(np.float32)
    corners = np.stack(np.meshgrid(np.linspace(-1, 1, 4), np.linspace(-1, 1, 4)), -1)[None].astype(np.float32)
    shifted = same + np.array([0.25, 0], np.float32)  # half a pixel to the right
    zero = np.concatenate([x, np.zeros((1, 2, 4, 1), np.float32)], 3)
    edge = np.concatenate([x, x[..., -1:]], 3)
    outside = same + np.array([0.5, 0], np.float32)  # a whole one
    mirrored = np.concatenate([x[..., 1:], x[..., -1:]], 3)
    first = {16: "bilinear"}
    found = []
    for version in since("GridSample", 16):
        mode = first.get(version, "linear")
        for label, grid, want, attributes in (
            ("same", same, x, {}),
            ("corners", corners, x, {"align_corners": 1}),
            ("zeros", shifted, (zero[..., :-1] + zero[..., 1:]) / 2, {"mode": mode}),
            ("border", shifted, (edge[..., :-1] + edge[..., 1:]) / 2, {"mode": mode, "padding_mode": "border"}),
            ("reflection", outside, mirrored, {"mode": mode, "padding_mode": "reflection"}),
            ("nearest", outside, zero[..., 1:], {"mode": "nearest"}),
            ("cubic", same, x, {"mode": "bicubic" if version == 16 else "cubic", "padding_mode": "border"}),
        ):
            known = {"inputs": [x, grid], "expected": [want], "label": label, "atol": 1e-5}
            found.append(case("GridSample", version, attributes=attributes, **known))
    return found


def _boxes() -> list[Case]:
    boxes = np.array([[[0, 0, 1, 1], [0, 0.1, 1, 1.1], [0, -0.1, 1, 0.9], [0, 10, 1, 11], [0, 10.1, 1, 11.1]]], "f")
    scores = np.array([[[0.9, 0.75, 0.6, 0.95, 0.5]]], np.float32)
    centred = np.stack([boxes[..., 1] + 0.5, boxes[..., 0] + 0.5, np.ones((1, 5)), np.ones((1, 5))], -1).astype(
        np.float32
    )
    every = np.array([[0, 0, 3], [0, 0, 0]], np.int64)
    many, overlap, threshold = np.array([3]), np.array([0.5], np.float32), np.array([0.92], np.float32)
    return [
        case("NonMaxSuppression", inputs=[boxes, scores, many, overlap], expected=[every]),
        case(
            "NonMaxSuppression", inputs=[boxes, scores, many, overlap, threshold], expected=[every[:1]], label="score"
        ),
        case("NonMaxSuppression", inputs=[boxes, scores], expected=[every[:0]], label="none"),
        case("NonMaxSuppression", inputs=[boxes, scores, np.array([1]), overlap], expected=[every[:1]], label="one"),
        case(
            "NonMaxSuppression",
            inputs=[centred, scores, many, overlap],
            expected=[every],
            attributes={"center_point_box": 1},
            label="centres",
        ),
    ]


CASES = [*_resizes(), *_regions(), *_grids(), *_boxes()]
