"""Windows that overlap, as matrix products: rows that are views of a signal, rows that are added where they meet."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from distort.kernels.compiler.builder import Builder
from distort.kernels.compiler.ir import Array, Tensor
from distort.kernels.compiler.lower.padding import padded
from distort.kernels.compiler.products import multiply


def of_rows(b: Builder, x: Tensor, w: Array, stride: int, bias: Tensor | None) -> Tensor | None:
    """A convolution of one channel whose kernel is as wide as the image: its windows are rows of a view.

    x: [N, 1, H, W], w: [K, 1, KH, W], no padding -> [N, K, OH, 1]
    """
    x = b.contiguous(b.plain(x))
    n, _, height, width = x.shape
    outputs, _, rows, _ = w.shape
    count = (height - rows) // stride + 1
    windows = x.view((n, count, rows * width), (height * width, stride * width, 1))
    turned = b.packed(("rows of windows", b.identity(w)), lambda: np.ascontiguousarray(w.reshape(outputs, -1).T))
    made = multiply(b, windows, turned)
    if made is None:
        return None
    if bias is not None:
        made = b.map("add", [made, bias])
    return made.permuted([0, 2, 1]).view((n, outputs, count, 1), (count * outputs, 1, outputs, 1))


def added(b: Builder, x: Tensor, w: Array, stride: int, begin: int, out: int, bias: Tensor | None) -> Tensor | None:
    """A transposed convolution of one dimension: one product makes all windows, which are added where they overlap.

    x: [N, C, T], w: [C, K, size] -> [N, K, out], from element ``begin`` of the whole sum on
    """
    x = b.plain(x)
    n, channels, count = x.shape
    _, outputs, size = w.shape
    parts = -(-size // stride)

    def matrix() -> Array:
        whole = np.pad(w, [(0, 0), (0, 0), (0, parts * stride - size)])
        return np.ascontiguousarray(whole.reshape(channels, -1))

    made = multiply(b, x.permuted([0, 2, 1]), b.packed(("added", b.identity(w), stride), matrix))
    if made is None:
        return None
    made = made.reshaped((n, count, outputs, parts, stride))
    # steps of the result, and with what output_padding adds
    steps = max(count + parts - 1, -(-(begin + out) // stride))
    around = padded(b, made, [0, parts - 1, 0, 0, 0], [0, steps - count, 0, 0, 0], "constant", None)
    if around is None:
        return None
    total: Tensor | None = None
    for part in range(parts):
        first = (parts - 1 - part) * around.strides[1] + part * around.strides[3]
        shape, strides = (n, steps, outputs, stride), (*around.strides[:3], around.strides[4])
        piece = around.view(shape, strides, first)
        total = piece if total is None else b.map("add", [total, piece])
    assert total is not None
    whole = b.contiguous(total.permuted([0, 2, 1, 3])).reshaped((n, outputs, steps * stride))
    result = whole.view((n, outputs, out), whole.strides, begin)
    return result if bias is None else b.map("add", [result, _column(bias)])


def _column(bias: Tensor) -> Tensor:
    return bias.reshaped((bias.size, 1))


def spectra(b: Builder, signal: Tensor, stride: int, window: Array | None, size: int, onesided: bool) -> Tensor | None:
    """Frames of a real signal [N, samples], each by a matrix of sines: [N, frames, bins, 2]."""
    signal = b.contiguous(b.plain(signal))
    n, samples = signal.shape
    count, bins = (samples - size) // stride + 1, size // 2 + 1 if onesided else size
    frames = signal.view((n, count, size), (samples, stride, 1))

    def matrix() -> Array:
        angle = -2 * np.pi / size * (np.outer(np.arange(size), np.arange(bins)) % size)
        waves = np.stack([np.cos(angle), np.sin(angle)], axis=-1).reshape(size, 2 * bins)
        return (waves if window is None else waves * window[:, None]).astype(np.float32)

    key = ("spectra", size, bins, None if window is None else b.identity(window))
    made = multiply(b, frames, b.packed(key, matrix))
    return None if made is None else made.reshaped((n, count, bins, 2))


def is_of_rows(shape: Sequence[int], kernel: Sequence[int], padded_width: bool) -> bool:
    """Whether :func:`of_rows` takes a convolution of an image [N, 1, H, W]."""
    return len(shape) == 4 and shape[1] == 1 and 1 < shape[3] == kernel[1] and not padded_width


__all__ = ["added", "is_of_rows", "of_rows", "spectra"]
