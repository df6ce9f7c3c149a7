"""Resize and Upsample in native code."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from .movement import between_convolutions, check, compiles_for_arm, lesser_library, one_node

_COORDINATES = ("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric")
_NEAREST = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")


def _values(shape: tuple[int, ...], dtype: Any = np.float32) -> np.ndarray[Any, Any]:
    scale = 1 if np.dtype(dtype).kind == "f" else 50
    return (np.random.default_rng(7).normal(size=shape) * scale).astype(dtype)


@pytest.mark.parametrize("coordinates", _COORDINATES)
@pytest.mark.parametrize("nearest", _NEAREST)
@pytest.mark.parametrize("scales", [[1, 1, 2, 2], [1, 1, 0.6, 2.6], [1, 1, 1, 0.4], [1, 2, 3, 1], [1.5, 1, 0.5, 4]])
def test_nearest(coordinates: str, nearest: str, scales: list[float]) -> None:
    feeds = {"x": _values((2, 3, 5, 19))}
    known = {"scales": np.array(scales, np.float32)}
    graph = one_node(
        "Resize",
        feeds,
        known,
        order=["x", "", "scales"],
        coordinate_transformation_mode=coordinates,
        nearest_mode=nearest,
    )
    check(graph, feeds)


@pytest.mark.parametrize("mode", ["linear", "cubic"])
@pytest.mark.parametrize("coordinates", _COORDINATES)
@pytest.mark.parametrize(
    "sizes", [[2, 3, 10, 38], [2, 3, 3, 40], [2, 3, 5, 7], [2, 7, 9, 19], [3, 3, 1, 1], [2, 3, 11, 57]]
)
def test_weighted(mode: str, coordinates: str, sizes: list[int]) -> None:
    feeds = {"x": _values((2, 3, 5, 19))}
    known = {"sizes": np.array(sizes)}
    attributes = {"mode": mode, "coordinate_transformation_mode": coordinates}
    graph = one_node("Resize", feeds, known, order=["x", "", "", "sizes"], **attributes)
    check(graph, feeds, exact=False)


@pytest.mark.parametrize("shape", [(40,), (7, 40), (2, 3, 4, 5, 6)])
@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_of_any_rank(mode: str, shape: tuple[int, ...]) -> None:
    feeds = {"x": _values(shape)}
    known = {"scales": np.linspace(0.5, 2.5, len(shape)).astype(np.float32)}
    check(one_node("Resize", feeds, known, order=["x", "", "scales"], mode=mode), feeds, exact=False)


@pytest.mark.parametrize("mode", ["linear", "cubic"])
def test_antialiased(mode: str) -> None:
    feeds = {"x": _values((1, 3, 40, 50))}
    known = {"sizes": np.array([13, 7])}
    attributes = {"mode": mode, "antialias": 1, "axes": [2, 3], "exclude_outside": 1}
    check(one_node("Resize", feeds, known, order=["x", "", "", "sizes"], **attributes), feeds, exact=False)


@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_cropped(mode: str) -> None:
    feeds = {"x": _values((1, 3, 20, 30))}
    for region, native in (((0.1, 0.2, 0.9, 0.7), True), ((-0.2, 0.2, 1.3, 0.7), False)):
        roi = np.array([0, 0, *region[:2], 1, 1, *region[2:]], np.float32)
        known = {"roi": roi, "sizes": np.array([1, 3, 17, 41])}
        attributes = {"mode": mode, "coordinate_transformation_mode": "tf_crop_and_resize", "extrapolation_value": 9.0}
        graph = one_node("Resize", feeds, known, order=["x", "roi", "", "sizes"], **attributes)
        check(graph, feeds, exact=False, native=native)


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float16])
def test_nearest_of_other_types(dtype: Any) -> None:
    feeds = {"x": _values((1, 2, 7, 33), dtype)}
    for scales in ([1, 1, 2, 2], [1, 1, 1.3, 0.7]):
        check(one_node("Resize", feeds, {"s": np.array(scales, np.float32)}, order=["x", "", "s"]), feeds)


@pytest.mark.parametrize("opset", [7, 9])
@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_upsample(opset: int, mode: str) -> None:
    feeds = {"x": _values((1, 2, 7, 33))}
    scales = [1.0, 1.0, 2.0, 3.0]
    if opset == 7:
        graph = one_node("Upsample", feeds, opset=opset, mode=mode, scales=scales)
    else:
        graph = one_node("Upsample", feeds, {"s": np.array(scales, np.float32)}, opset=opset, mode=mode)
    check(graph, feeds, exact=False)


def test_resize_in_its_first_form() -> None:
    feeds = {"x": _values((1, 2, 7, 33))}
    check(one_node("Resize", feeds, {"s": np.array([1, 1, 0.6, 1.7], np.float32)}, opset=10), feeds)


@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_with_two_threads_the_results_are_the_same_bits(mode: str) -> None:
    feeds = {"x": _values((3, 5, 33, 70))}
    graph = one_node("Resize", feeds, {"s": np.array([1, 1, 1.7, 2.3], np.float32)}, order=["x", "", "s"], mode=mode)
    (one,) = check(graph, feeds, exact=False)
    (two,) = check(graph, feeds, exact=False, n_threads=2)
    np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("target", ["avx2", "sse4.2"])
def test_on_lesser_machines(target: str) -> None:
    feeds = {"x": _values((1, 2, 7, 33))}
    for mode in ("nearest", "linear"):
        for scales in ([1, 1, 2, 2], [1, 2, 1.3, 0.7]):
            graph = one_node("Resize", feeds, {"s": np.array(scales, np.float32)}, order=["x", "", "s"], mode=mode)
            check(graph, feeds, exact=False, library=lesser_library(target))
            compiles_for_arm(graph, feeds)


@pytest.mark.parametrize("channels", [24, 32])
@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize("scales", [[1, 1, 2, 2], [1, 1, 1.3, 0.7], [1, 1, 1, 3], [1, 1, 0.5, 1]])
@pytest.mark.parametrize("n_threads", [1, 2])
def test_resize_between_convolutions(channels: int, mode: str, scales: list[float], n_threads: int) -> None:
    feeds = {"x": _values((2, channels, 7, 9))}
    graph = one_node("Resize", feeds, {"s": np.array(scales, np.float32)}, order=["x", "", "s"], mode=mode)
    check(between_convolutions(graph, channels), feeds, exact=False, n_threads=n_threads)
