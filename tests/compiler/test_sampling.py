"""GridSample, DeformConv, CropAndResize and AffineGrid in native code."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from distort.kernels.compiler.program import CompiledProgram
from distort.kernels.convolve import windows_of_convolution
from distort.kernels.errors import KernelError

from .movement import check, compiles_for_arm, lesser_library, one_node


def _feeds(shape: tuple[int, ...], out: tuple[int, int]) -> dict[str, np.ndarray[Any, Any]]:
    rng = np.random.default_rng(5)
    grid = rng.uniform(-1.4, 1.4, (shape[0], *out, 2)).astype(np.float32)
    grid.reshape(-1)[:8] = [-1, -1, 1, 1, 0, 0, -1, 1]
    return {"x": rng.normal(size=shape).astype(np.float32), "grid": grid}


@pytest.mark.parametrize("mode", ["linear", "nearest", "cubic"])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("align_corners", [0, 1])
@pytest.mark.parametrize(
    ("shape", "out"), [((2, 3, 7, 9), (5, 11)), ((1, 2, 4, 1), (3, 5)), ((1, 17, 20, 30), (20, 30))]
)
def test_grid_sample(mode: str, padding: str, align_corners: int, shape: tuple[int, ...], out: tuple[int, int]) -> None:
    feeds = _feeds(shape, out)
    graph = one_node("GridSample", feeds, mode=mode, padding_mode=padding, align_corners=align_corners)
    check(graph, feeds, exact=False)


@pytest.mark.parametrize("mode", ["linear", "nearest", "cubic"])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
def test_points_and_pixels_that_are_no_numbers(mode: str, padding: str) -> None:
    feeds = _feeds((1, 2, 6, 6), (4, 9))
    feeds["grid"].reshape(-1)[10:14] = np.nan
    if padding != "reflection":  # mirrored so often, a point could be anywhere
        feeds["grid"].reshape(-1)[20:24] = [1e30, 0, 0.3, -1e30]
    feeds["x"][0, 0, 0] = np.inf
    check(one_node("GridSample", feeds, mode=mode, padding_mode=padding), feeds, exact=False)


@pytest.mark.parametrize(
    ("groups", "parts", "kernel", "more"),
    [
        (1, 1, (3, 3), {}),
        (2, 1, (3, 2), {"strides": [2, 1], "pads": [1, 0, 1, 2]}),
        (2, 4, (1, 3), {"dilations": [1, 2]}),
        (1, 2, (3, 3), {"pads": [1, 1, 1, 1], "dilations": [2, 2]}),
    ],
)
@pytest.mark.parametrize("extras", [(), ("b",), ("b", "m")])
def test_deform_conv(
    groups: int, parts: int, kernel: tuple[int, int], more: dict[str, list[int]], extras: tuple[str, ...]
) -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(2, 8, 9, 11)).astype(np.float32)
    w = rng.normal(size=(6, 8 // groups, *kernel)).astype(np.float32)
    out = windows_of_convolution(
        x.shape, w.shape, groups, None, more.get("strides"), more.get("dilations"), more.get("pads"), "NOTSET"
    ).out
    taps = kernel[0] * kernel[1]
    offset = rng.normal(size=(2, parts * taps * 2, *out)).astype(np.float32) * 2
    feeds = {"x": x, "o": offset}
    known = {"w": w}
    if "b" in extras:
        known["b"] = rng.normal(size=6).astype(np.float32)
    if "m" in extras:
        feeds["m"] = rng.uniform(size=(2, parts * taps, *out)).astype(np.float32)
    order = ["x", "w", "o", *extras]
    graph = one_node("DeformConv", feeds, known, order=order, group=groups, offset_group=parts, **more)
    check(graph, feeds, exact=False, n_threads=2)


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
@pytest.mark.parametrize("beyond", [0.0, 2.5])
@pytest.mark.parametrize("size", [(4, 5), (1, 3), (7, 1)])
def test_crop_and_resize(mode: str, beyond: float, size: tuple[int, int]) -> None:
    rng = np.random.default_rng(2)
    regions = rng.uniform(-0.2, 1.2, (9, 4)).astype(np.float32)
    regions[0], regions[1] = [0, 0, 1, 1], [1, 0, 0, 1]
    feeds = {
        "x": rng.normal(size=(3, 5, 8, 9)).astype(np.float32),
        "r": regions,
        "i": rng.integers(0, 3, 9).astype(np.int32),
    }
    graph = one_node("CropAndResize", feeds, {"s": np.array(size, np.int32)}, mode=mode, extrapolation_value=beyond)
    graph.nodes = [replace(graph.nodes[0], domain="com.microsoft", opset=1)]
    check(graph, feeds, exact=False, n_threads=2)
    feeds["i"][4] = 3
    with pytest.raises(KernelError):
        CompiledProgram(graph).run(feeds)


@pytest.mark.parametrize("align_corners", [0, 1])
@pytest.mark.parametrize("out", [(5, 7), (1, 4), (40, 33)])
def test_affine_grid(out: tuple[int, int], align_corners: int) -> None:
    feeds = {"t": np.random.default_rng(3).normal(size=(2, 2, 3)).astype(np.float32)}
    graph = one_node("AffineGrid", feeds, {"s": np.array([2, 3, *out])}, align_corners=align_corners, opset=20)
    check(graph, feeds, exact=False)


@pytest.mark.parametrize(
    ("size", "block", "more"),
    [
        ((7, 40), (3, 3), {"pads": [1, 1, 1, 1]}),
        ((9, 8), (2, 3), {"strides": [2, 3], "pads": [0, 2, 1, 1]}),
        ((6, 37), (3, 2), {"dilations": [2, 5], "pads": [3, 0, 0, 9]}),
        ((70,), (4,), {"strides": [1], "dilations": [3]}),
        ((70,), (4,), {"strides": [5]}),
        ((3, 3), (2, 2), {"pads": [6, 6, 6, 6], "strides": [4, 1]}),
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_col2im(size: tuple[int, ...], block: tuple[int, ...], more: dict[str, list[int]], dtype: Any) -> None:
    rank = len(size)
    pads = more.get("pads", [0] * 2 * rank)
    steps, spread = (more.get(name, [1] * rank) for name in ("strides", "dilations"))
    counts = [
        (size[i] + pads[i] + pads[i + rank] - (block[i] - 1) * spread[i] - 1) // steps[i] + 1 for i in range(rank)
    ]
    shape = (2, 5 * int(np.prod(block)), int(np.prod(counts)))
    feeds = {"x": np.random.default_rng(0).normal(size=shape).astype(dtype)}
    graph = one_node("Col2Im", feeds, {"s": np.array(size), "k": np.array(block)}, **more)
    check(graph, feeds, n_threads=2)


@pytest.mark.parametrize("scale", [1.0, 0.3])
def test_max_roi_pool(scale: float) -> None:
    rng = np.random.default_rng(4)
    regions = rng.uniform(-4, 30, (12, 5)).astype(np.float32)
    regions[:, 0] = rng.integers(0, 3, 12)
    regions[0, 1:], regions[1, 1:] = [2.5, 3.5, 4.5, 4.5], [9, 9, 2, 2]
    regions[2, 0] = -0.5
    feeds = {"x": rng.normal(size=(3, 21, 9, 13)).astype(np.float32), "r": regions}
    feeds["x"][0, 0, 2, 2] = np.nan
    graph = one_node("MaxRoiPool", feeds, pooled_shape=[3, 4], spatial_scale=scale)
    check(graph, feeds, n_threads=2)
    compiles_for_arm(graph, feeds)
    for place, wrong in ((0, 3.0), (0, -1.0), (0, np.nan)):
        regions[4, place] = wrong
        with pytest.raises((KernelError, ValueError)):
            CompiledProgram(graph).run(feeds)


def test_with_two_threads() -> None:
    feeds = _feeds((2, 16, 60, 80), (60, 80))
    check(one_node("GridSample", feeds), feeds, exact=False, n_threads=2)


@pytest.mark.parametrize("target", ["avx2", "sse4.2"])
def test_on_lesser_machines(target: str) -> None:
    feeds = _feeds((1, 3, 7, 9), (5, 11))
    for padding in ("zeros", "reflection"):
        graph = one_node("GridSample", feeds, padding_mode=padding)
        check(graph, feeds, exact=False, library=lesser_library(target))
        compiles_for_arm(graph, feeds)
