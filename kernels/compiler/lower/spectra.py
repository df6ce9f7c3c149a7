"""Spectra of real signals, as products."""

from __future__ import annotations

import numpy as np

from distort.graph.ir import Node
from distort.kernels.compiler import overlapping
from distort.kernels.compiler.builder import Builder, lowers
from distort.kernels.compiler.ir import Tensor
from distort.kernels.compiler.lower.views import numbers

Result = list[Tensor | None] | None
#: longer frames have fewer operations as a fast Fourier transform
_MOST_SAMPLES = 2048


@lowers("STFT")
def _stft(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    signal, step, window, length = (*inputs, None, None)[:4]
    if signal is None or signal.dtype != np.float32 or len(signal.shape) not in (2, 3) or not signal.size:
        return None
    if len(signal.shape) == 3 and signal.shape[2] != 1:
        return None
    strides, given = numbers(step), None if length is None else numbers(length)
    if not strides or len(strides) != 1 or (length is not None and not given):
        return None
    if window is not None and (window.value is None or window.dtype != np.float32):
        return None
    samples = signal.shape[1]
    size = given[0] if given else samples if window is None else window.size
    if (
        strides[0] < 1
        or not 0 < size <= min(samples, _MOST_SAMPLES)
        or (window is not None and window.shape != (size,))
    ):
        return None
    signal = b.contiguous(signal).reshaped(signal.shape[:2])
    onesided = bool(node.attributes.get("onesided", 1))
    made = overlapping.spectra(b, signal, strides[0], None if window is None else window.value, size, onesided)
    return None if made is None else [made]
