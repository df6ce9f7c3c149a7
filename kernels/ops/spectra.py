"""Spectra: DFT, STFT, MelWeightMatrix, and the windows of Hann, Hamming and Blackman."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from distort.kernels.errors import InvalidInput
from distort.kernels.ops.elementwise import dtype_of, working
from distort.kernels.registry import kernel


def _whole(value: Any, name: str) -> int:
    if value.size != 1:
        raise InvalidInput(f"{name} should be a scalar, got shape {list(value.shape)}")
    return int(value.reshape(()).item())


def _complex(xp: Any, x: Any) -> Any:
    """[..., 1] to its real numbers, [..., 2] to complex ones."""
    if x.shape[-1] == 1:
        return x[..., 0]
    return xp.ascontiguousarray(x).view(xp.complex64 if x.dtype == xp.float32 else xp.complex128)[..., 0]


def _parts(xp: Any, spectrum: Any, like: Any) -> Any:
    """Complex numbers to a last dimension of real and imaginary parts."""
    return xp.stack((spectrum.real, spectrum.imag), axis=-1).astype(like.dtype, copy=False)


def transform(xp: Any, x: Any, length: Any, axis: int, inverse: bool, onesided: bool) -> Any:
    rank = x.ndim
    if rank < 2 or x.shape[-1] not in (1, 2):
        raise InvalidInput(f"input of shape {list(x.shape)} does not end in a dimension of 1 or 2")
    position = axis + rank if axis < 0 else axis
    if not 0 <= position < rank - 1:
        raise InvalidInput(f"axis {axis} is out of range for rank {rank}, whose last dimension holds the parts")
    n = x.shape[position]
    if length is not None:
        n = _whole(length, "dft_length")
    elif onesided and inverse:
        n = 2 * (n - 1)
    if n < 1:
        raise InvalidInput(f"dft_length is {n}, expected 1 or more")
    signal = _complex(xp, working(xp, x))
    if onesided and inverse:
        if x.shape[-1] != 2:
            raise InvalidInput("a one-sided inverse transform needs complex input")
        return xp.fft.irfft(signal, n, axis=position)[..., None].astype(x.dtype, copy=False)
    if onesided:
        if x.shape[-1] != 1:
            raise InvalidInput("a one-sided transform needs real input")
        return _parts(xp, xp.fft.rfft(signal, n, axis=position), x)
    return _parts(xp, (xp.fft.ifft if inverse else xp.fft.fft)(signal, n, axis=position), x)


@kernel("DFT", 17, host=(1,))
def dft_17(xp: Any, x: Any, length: Any = None, *, axis: int = 1, inverse: int = 0, onesided: int = 0) -> Any:
    return transform(xp, x, length, axis, bool(inverse), bool(onesided))


@kernel("DFT", 20, host=(1, 2))
def dft(xp: Any, x: Any, length: Any = None, axis: Any = None, *, inverse: int = 0, onesided: int = 0) -> Any:
    position = -2 if axis is None else _whole(axis, "axis")
    return transform(xp, x, length, position, bool(inverse), bool(onesided))


@kernel("STFT", 17, host=(1, 3))
def stft(xp: Any, signal: Any, step: Any, window: Any = None, length: Any = None, *, onesided: int = 1) -> Any:
    """signal: [batch, samples, 1 or 2] or, as onnxruntime takes it, [batch, samples] -> [batch, frames, bins, 2]."""
    if signal.ndim == 2:
        signal = signal[..., None]
    if signal.ndim != 3 or signal.shape[2] not in (1, 2):
        raise InvalidInput(f"signal has shape {list(signal.shape)}, expected [batch, samples, 1 or 2]")
    if onesided and signal.shape[2] == 2:
        raise InvalidInput("a one-sided transform needs a real signal")
    samples = signal.shape[1]
    if length is not None:
        size = _whole(length, "frame_length")
    else:
        size = samples if window is None else window.size
    if window is not None and window.shape != (size,):
        raise InvalidInput(f"window has shape {list(window.shape)}, frame_length is {size}")
    stride = _whole(step, "frame_step")
    if stride < 1 or not 0 < size <= samples:
        raise InvalidInput(f"frame_step {stride} and frame_length {size} do not fit {samples} samples")
    values = _complex(xp, working(xp, signal))
    frames = xp.lib.stride_tricks.sliding_window_view(values, size, axis=1)[:, ::stride]
    if window is not None:
        frames = frames * working(xp, window).astype(frames.real.dtype, copy=False)
    spectrum = xp.fft.rfft(frames, axis=-1) if onesided else xp.fft.fft(frames, axis=-1)
    return _parts(xp, spectrum, signal)


def _window(op_type: str, coefficients: tuple[float, ...]) -> None:
    """A window that is a sum of cosines: sum over k of coefficient k times cos(2 pi k n / N)."""

    def body(xp: Any, size: Any, *, periodic: int = 1, output_datatype: int = 1) -> Any:
        n = _whole(size, "size")
        if n < 0:
            raise InvalidInput(f"size is {n}, expected 0 or more")
        span = n if periodic else n - 1
        turn = 2 * math.pi / max(span, 1) * xp.arange(n, dtype=xp.float64)
        values = sum(factor * xp.cos(k * turn) for k, factor in enumerate(coefficients))
        if n == 1 and not periodic:
            values = xp.ones(1)  # the peak, as in every longer window of odd size
        return xp.asarray(values).astype(dtype_of(output_datatype))

    kernel(op_type, 17, host=(0,))(body)


_window("HannWindow", (0.5, -0.5))
_window("HammingWindow", (25 / 46, -21 / 46))
_window("BlackmanWindow", (0.42, -0.5, 0.08))


@kernel("MelWeightMatrix", 17, host=(0, 1, 2, 3, 4))
def mel_weight_matrix(
    xp: Any, bins: Any, length: Any, rate: Any, lower: Any, upper: Any, *, output_datatype: int = 1
) -> Any:
    """Triangles on the mel scale: [dft_length / 2 + 1, num_mel_bins]."""
    n_bins, n_dft, hertz = (
        _whole(v, name) for v, name in ((bins, "num_mel_bins"), (length, "dft_length"), (rate, "sample_rate"))
    )
    if n_bins < 0 or n_dft < 0 or hertz <= 0:
        raise InvalidInput(f"num_mel_bins {n_bins}, dft_length {n_dft} and sample_rate {hertz} should be positive")
    low, high = (2595 * math.log10(1 + float(edge.reshape(()).item()) / 700) for edge in (lower, upper))
    mels = low + np.arange(n_bins + 2) * ((high - low) / (n_bins + 2))
    corners = ((n_dft + 1) * (700 * (10 ** (mels / 2595) - 1)) // hertz).astype(np.int64)
    spectrum = np.arange(n_dft // 2 + 1)[:, None]
    if corners.size and (corners[0] < 0 or corners[-1] > len(spectrum)):
        raise InvalidInput("the edges lie outside the frequencies of the transform")
    left, centre, right = corners[:-2], corners[1:-1], corners[2:]
    with np.errstate(divide="ignore", invalid="ignore"):
        rising = np.where(left == centre, 1.0, (spectrum - left) / (centre - left))
        falling = (right - spectrum) / (right - centre)
    weights = np.where((spectrum >= left) & (spectrum <= centre), rising, 0.0)
    weights = np.where((spectrum > centre) & (spectrum < right), falling, weights)
    return xp.asarray(weights.astype(dtype_of(output_datatype)))
