"""onnxruntime's DynamicQuantizeLSTM: an LSTM with 8-bit weights whose inputs are quantized as they come."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np

from distort.kernels.errors import InvalidInput
from distort.kernels.ops.recurrent import lstm_steps
from distort.kernels.ops.recurrent_parts import activations_of, check_shape, layer_of
from distort.kernels.registry import kernel

Array = Any
_EXACT_FLOAT32 = 1 << 24


def quantized(xp: ModuleType, a: Array) -> tuple[Array, Any]:
    """(a as whole numbers, less the zero point, in float32; their scale), quantized to uint8 over all of ``a``."""
    low = min(float(a.min()), 0.0) if a.size else 0.0
    high = max(float(a.max()), 0.0) if a.size else 0.0
    scale = np.float32(1.0) if low == high else np.float32(np.float32(high) - np.float32(low)) / np.float32(255)
    zero = np.rint(np.clip(-np.float32(low) / scale, 0, 255))
    whole = a / scale
    xp.rint(whole, out=whole)
    xp.minimum(whole, 255 - zero, out=whole)  # the lowest is -zero by construction; a tie may round up the highest
    return whole, scale


class _Weights:
    """One direction's weights [K, 4H] as whole numbers less their zero points, and their scale, [] or [4H]."""

    def __init__(self, xp: ModuleType, w: Array, scale: Array, zero: Array) -> None:
        reach = 255 * max(abs(int(w.min()) - int(zero.max())), abs(int(w.max()) - int(zero.min()))) if w.size else 0
        # whole numbers multiply exactly in float32 as long as no sum can leave its 24 bits
        self._dtype = xp.float32 if reach * w.shape[0] < _EXACT_FLOAT32 else xp.float64
        self._whole = w.astype(self._dtype)
        if zero.any():
            self._whole -= zero.astype(self._dtype)
        self._scale = scale

    def product(self, xp: ModuleType, a: Array, out: Array) -> None:
        """Fill ``out`` (float32 [M, 4H]) with a (float32 [M, K], quantized on the way) times the weights."""
        whole, scale = quantized(xp, a)
        if self._dtype == xp.float32:
            xp.matmul(whole, self._whole, out=out)
        else:
            out[...] = xp.matmul(whole.astype(self._dtype), self._whole)
        out *= self._scale * scale


def _per_direction(name: str, value: Array, n: int, columns: int) -> Array:
    """[D] or [D, columns] with a row a direction, scalars allowed for one direction."""
    if value.size == n:
        return value.reshape(n)
    if value.shape == (n, columns):
        return value
    raise InvalidInput(f"{name} must have shape {[n]} or {[n, columns]}. Actual: {list(value.shape)}")


@kernel("DynamicQuantizeLSTM", domain="com.microsoft", host=(4,))
def dynamic_quantize_lstm(
    xp: ModuleType,
    x: Array,
    w: Array,
    r: Array,
    b: Array | None,
    sequence_lens: Any | None,
    initial_h: Array | None,
    initial_c: Array | None,
    p: Array | None,
    w_scale: Array,
    w_zero_point: Array,
    r_scale: Array,
    r_zero_point: Array,
    *,
    activation_alpha: Sequence[float] | None = None,
    activation_beta: Sequence[float] | None = None,
    activations: Sequence[str] | None = None,
    clip: float = 0.0,
    direction: str = "forward",
    hidden_size: int | None = None,
    input_forget: int = 0,
) -> tuple[Array, ...]:
    """com.microsoft DynamicQuantizeLSTM 1. Outputs Y, Y_h, Y_c.

    w: [D, I, 4H], r: [D, H, 4H] in int8 or uint8, with a scale and zero point a direction or a column. The inputs
    of all time steps are quantized together, the state of the batch at each step.
    """
    layer = layer_of(xp, x, r.shape[1], len(w), direction, 0, hidden_size, sequence_lens, initial_h, initial_c)
    n, size = len(layer.directions), layer.hidden
    check_shape("W", w, n, layer.x.shape[2], 4 * size)
    check_shape("R", r, n, size, 4 * size)
    check_shape("B", b, n, 8 * size)
    check_shape("P", p, n, 3 * size)
    w_scale, w_zero_point, r_scale, r_zero_point = (
        _per_direction(name, value, n, 4 * size)
        for name, value in (
            ("W_scale", w_scale),
            ("W_zero_point", w_zero_point),
            ("R_scale", r_scale),
            ("R_zero_point", r_zero_point),
        )
    )
    functions = activations_of(activations or ["Sigmoid", "Tanh", "Tanh"] * n, activation_alpha, activation_beta, 3 * n)
    y = xp.zeros((layer.steps, n, layer.batch, size), layer.x.dtype)
    rows = layer.x[: layer.used].reshape(layer.used * layer.batch, layer.x.shape[2])
    last_h, last_c = [], []
    for d, backwards in enumerate(layer.directions):
        of_x = xp.empty((len(rows), 4 * size), xp.float32)
        _Weights(xp, w[d], w_scale[d], w_zero_point[d]).product(xp, rows, of_x)
        if b is not None:
            of_x += b[d, : 4 * size] + b[d, 4 * size :]
        of_h = _Weights(xp, r[d], r_scale[d], r_zero_point[d])

        def recur(state: Array, out: Array, of_h: _Weights = of_h) -> None:
            of_h.product(xp, state, out)

        h, c = (xp.zeros((layer.batch, size), layer.x.dtype) if state is None else state[d] for state in layer.initial)
        h, c = lstm_steps(
            xp,
            layer,
            backwards,
            of_x.reshape(layer.used, layer.batch, 4 * size),
            recur,
            h,
            c,
            None if p is None else p[d],
            functions[3 * d : 3 * d + 3],
            clip,
            input_forget,
            y[:, d],
        )
        last_h.append(h)
        last_c.append(c)
    return layer.result(xp, y), layer.last(xp, last_h), layer.last(xp, last_c)
