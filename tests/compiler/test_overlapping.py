"""Windows that overlap: convolutions of rows, transposed ones with long steps, spectra, wide means."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import helper

from tests.compiler.comparing import agree, both

Array = np.ndarray[Any, Any]


def check(
    op_type: str, x: Array, *weights: Array | None, n_threads: int = 1, hosts: int = 0, **attributes: Any
) -> None:
    known = {f"w{i}": w for i, w in enumerate(weights) if w is not None}
    names = [f"w{i}" if w is not None else "" for i, w in enumerate(weights)]
    node = helper.make_node(op_type, ["x", *names], ["y"], **attributes)
    results, expected, kinds = both([node], {"x": x}, known, n_threads=n_threads)
    assert sum(kind.startswith("host") for kind in kinds) == hosts, kinds
    agree(results, expected, rtol=1e-4, atol=1e-4)


def normal(*shape: int) -> Array:
    return np.random.default_rng(len(shape)).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize(
    ("images", "height", "width", "rows", "stride"), [(1, 60, 100, 3, 1), (2, 9, 5, 9, 1), (1, 31, 7, 4, 3)]
)
def test_kernels_as_wide_as_the_image(
    images: int, height: int, width: int, rows: int, stride: int, n_threads: int
) -> None:
    x, w = normal(images, 1, height, width), normal(20, 1, rows, width)
    check("Conv", x, w, normal(20), strides=[stride, 1], n_threads=n_threads)
    check("Conv", x, w, strides=[stride, 1], pads=[1, 0, 0, 0])
    check("Conv", x, w, strides=[stride, 1], pads=[0, 1, 0, 1])


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize(("size", "stride", "extra"), [(512, 128, 0), (50, 20, 3), (16, 16, 0), (17, 40, 5)])
@pytest.mark.parametrize("pads", [[0, 0], [7, 2]])
def test_windows_that_are_added(size: int, stride: int, extra: int, pads: list[int], n_threads: int) -> None:
    for outputs in (1, 3):
        x, w = normal(2, 24, 11), normal(24, outputs, size)
        options: dict[str, Any] = {"strides": [stride], "pads": pads, "output_padding": [extra]}
        check("ConvTranspose", x, w, normal(outputs), n_threads=n_threads, **options)
        check("ConvTranspose", x[:, :, :1], w, **options)


@pytest.mark.parametrize("onesided", [0, 1])
@pytest.mark.parametrize("size", [64, 25])
def test_spectra(size: int, onesided: int) -> None:
    step, window, length = np.array(13), normal(size), np.array(size)
    for x in (normal(2, 200, 1), normal(1, 100)):
        check("STFT", x, step, window, length, onesided=onesided)
        check("STFT", x, step, None, length, onesided=onesided)
        check("STFT", x, step, window, onesided=onesided)
    check("STFT", normal(1, 90, 2), step, window, length, onesided=0, hosts=1)


def test_wide_means() -> None:
    check("AveragePool", normal(1, 20, 120), kernel_shape=[25], strides=[1])
    check("AveragePool", normal(2, 32, 90), kernel_shape=[40], strides=[40])
    check("AveragePool", normal(1, 16, 60), kernel_shape=[31], pads=[15, 15], count_include_pad=1)
