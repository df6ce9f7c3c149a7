"""RNN, GRU and LSTM: one GEMM for the inputs of all time steps, then a loop over time.

T: time steps, B: batch, I: input size, H: hidden size, D: directions. float16 and bfloat16 compute in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

from distort.kernels.ops.recurrent_parts import Activation, Layer, activations_of, check_shape, layer_of
from distort.kernels.registry import kernel

Array = Any
#: (state [B, H], out [B, gates * H]) -> None: what the state adds to the gates
Recurrence = Callable[[Array, Array], None]


def _project(xp: ModuleType, x: Array, w: Array, bias: Array | None) -> Array:
    """x: [T, B, I], w: [G, I], bias: [G] -> [T, B, G]"""
    steps, batch, size = x.shape
    result = xp.matmul(x.reshape(steps * batch, size), w.T)
    if bias is not None:
        result += bias
    return result.reshape(steps, batch, len(w))


def _product_with(xp: ModuleType, r: Array, steps: int) -> Recurrence:
    """r: [G, H]"""
    # a transposed copy multiplies twice as fast, which pays from some steps on
    transposed = xp.ascontiguousarray(r.T) if steps > 8 else r.T

    def multiply(state: Array, out: Array) -> None:
        xp.matmul(state, transposed, out=out)

    return multiply


def _start(xp: ModuleType, layer: Layer, which: int, d: int) -> Array:
    state = layer.initial[which]
    if state is None:
        return xp.zeros((layer.batch, layer.hidden), layer.x.dtype)
    return xp.ascontiguousarray(state[d])


def _outputs(xp: ModuleType, layer: Layer, y: Array, *last: list[Array]) -> tuple[Array, ...]:
    return (layer.result(xp, y), *(layer.last(xp, states) for states in last))


def _empty_y(xp: ModuleType, layer: Layer) -> Array:
    return xp.zeros((layer.steps, len(layer.directions), layer.batch, layer.hidden), layer.x.dtype)


def _wide(layer: Layer, *values: Array | None) -> list[Array]:
    return [value if value is None else value.astype(layer.x.dtype, copy=False) for value in values]


def lstm_steps(
    xp: ModuleType,
    layer: Layer,
    backwards: bool,
    gates_of_x: Array,
    recur: Recurrence,
    h: Array,
    c: Array,
    peepholes: Array | None,
    activations: Sequence[Activation],
    clip: float,
    input_forget: int,
    y: Array,
) -> tuple[Array, Array]:
    """The loop over time of one direction.

    gates_of_x: [T, B, 4H] in the order i, o, f, c; h, c: [B, H]; peepholes: [3H] in the order i, o, f; clip: 0 for
    none. Fills y [T, B, H] and returns the last h and c.
    """
    size = layer.hidden
    f, g, last = activations
    gates = xp.empty(gates_of_x.shape[1:], gates_of_x.dtype)
    i_gate, o_gate, f_gate, c_gate = (gates[:, k * size : (k + 1) * size] for k in range(4))
    if peepholes is not None:
        p_i, p_o, p_f = (peepholes[k * size : (k + 1) * size] for k in range(3))
    for time, mask in layer.walk(xp, backwards):
        recur(h, gates)
        gates += gates_of_x[time]
        if peepholes is not None:
            i_gate += p_i * c
            f_gate += p_f * c
        if clip:
            for part in (gates,) if peepholes is None else (i_gate, f_gate, c_gate):  # the output gate isn't complete
                xp.clip(part, -clip, clip, out=part)
        if peepholes is None:
            f(xp, gates[:, : 3 * size])
        else:
            f(xp, i_gate)
            f(xp, f_gate)
        g(xp, c_gate)
        if input_forget:
            xp.subtract(1, i_gate, out=f_gate)
        new_c = f_gate * c
        c_gate *= i_gate
        new_c += c_gate
        if peepholes is not None:
            o_gate += p_o * new_c
            if clip:
                xp.clip(o_gate, -clip, clip, out=o_gate)
            f(xp, o_gate)
        new_h = y[time]
        new_h[...] = new_c  # onnxruntime doesn't clip the cell before h()
        last(xp, new_h)
        new_h *= o_gate
        if mask is None:
            h, c = new_h, new_c
        else:
            h, c = xp.where(mask, new_h, h), xp.where(mask, new_c, c)
            xp.copyto(new_h, 0, where=~mask)
    return h, c


@kernel("LSTM", host=(4,))
def lstm(
    xp: ModuleType,
    x: Array,
    w: Array,
    r: Array,
    b: Array | None = None,
    sequence_lens: Any = None,
    initial_h: Array | None = None,
    initial_c: Array | None = None,
    p: Array | None = None,
    *,
    activation_alpha: Sequence[float] | None = None,
    activation_beta: Sequence[float] | None = None,
    activations: Sequence[str] | None = None,
    clip: float = 0.0,
    direction: str = "forward",
    hidden_size: int | None = None,
    input_forget: int = 0,
    layout: int = 0,
    output_sequence: int = 0,
) -> tuple[Array, ...]:
    """LSTM 1, 7, 14, 22. Outputs Y, Y_h, Y_c."""
    layer = layer_of(xp, x, r.shape[-1], len(w), direction, layout, hidden_size, sequence_lens, initial_h, initial_c)
    n, size = len(layer.directions), layer.hidden
    check_shape("W", w, n, 4 * size, layer.x.shape[2])
    check_shape("R", r, n, 4 * size, size)
    check_shape("B", b, n, 8 * size)
    check_shape("P", p, n, 3 * size)
    w, r, b, p = _wide(layer, w, r, b, p)
    functions = activations_of(activations or ["Sigmoid", "Tanh", "Tanh"] * n, activation_alpha, activation_beta, 3 * n)
    y = _empty_y(xp, layer)
    last_h, last_c = [], []
    for d, backwards in enumerate(layer.directions):
        gates = _project(xp, layer.x, w[d], None if b is None else b[d, : 4 * size] + b[d, 4 * size :])
        h, c = lstm_steps(
            xp,
            layer,
            backwards,
            gates,
            _product_with(xp, r[d], layer.steps),
            _start(xp, layer, 0, d),
            _start(xp, layer, 1, d),
            None if p is None else p[d],
            functions[3 * d : 3 * d + 3],
            clip,
            input_forget,
            y[:, d],
        )
        last_h.append(h)
        last_c.append(c)
    return _outputs(xp, layer, y, last_h, last_c)


def _gru_steps(
    xp: ModuleType,
    layer: Layer,
    backwards: bool,
    gates_of_x: Array,
    r: Array,
    bias_h: Array | None,
    h: Array,
    activations: Sequence[Activation],
    clip: float,
    linear_before_reset: int,
    y: Array,
) -> Array:
    """The loop over time of one direction.

    gates_of_x: [T, B, 3H] in the order z, r, h; bias_h: [H], added within the reset when linear_before_reset.
    """
    size = layer.hidden
    f, g = activations
    columns = (3 if linear_before_reset else 2) * size
    recur, recur_h = (_product_with(xp, part, layer.steps) for part in (r[:columns], r[2 * size :]))
    products = xp.empty((layer.batch, columns), gates_of_x.dtype)
    gates, hidden = xp.empty((layer.batch, 2 * size), gates_of_x.dtype), xp.empty_like(h)
    z_gate, r_gate = gates[:, :size], gates[:, size:]
    for time, mask in layer.walk(xp, backwards):
        of_x = gates_of_x[time]
        recur(h, products)
        xp.add(products[:, : 2 * size], of_x[:, : 2 * size], out=gates)
        if clip:
            xp.clip(gates, -clip, clip, out=gates)
        f(xp, gates)
        if linear_before_reset:
            inner = products[:, 2 * size :]
            if bias_h is not None:
                inner += bias_h
            xp.multiply(inner, r_gate, out=hidden)
        else:
            r_gate *= h
            recur_h(r_gate, hidden)
        hidden += of_x[:, 2 * size :]
        if clip:
            xp.clip(hidden, -clip, clip, out=hidden)
        g(xp, hidden)
        new_h = xp.subtract(h, hidden, out=y[time])
        new_h *= z_gate
        new_h += hidden
        if mask is None:
            h = new_h
        else:
            h = xp.where(mask, new_h, h)
            xp.copyto(new_h, 0, where=~mask)
    return h


@kernel("GRU", host=(4,))
def gru(
    xp: ModuleType,
    x: Array,
    w: Array,
    r: Array,
    b: Array | None = None,
    sequence_lens: Any = None,
    initial_h: Array | None = None,
    *,
    activation_alpha: Sequence[float] | None = None,
    activation_beta: Sequence[float] | None = None,
    activations: Sequence[str] | None = None,
    clip: float = 0.0,
    direction: str = "forward",
    hidden_size: int | None = None,
    layout: int = 0,
    linear_before_reset: int = 0,
    output_sequence: int = 0,
) -> tuple[Array, ...]:
    """GRU 1, 3, 7, 14, 22. Outputs Y, Y_h."""
    if direction == "foward":  # so is the default of version 1 spelled
        direction = "forward"
    layer = layer_of(xp, x, r.shape[-1], len(w), direction, layout, hidden_size, sequence_lens, initial_h)
    n, size = len(layer.directions), layer.hidden
    check_shape("W", w, n, 3 * size, layer.x.shape[2])
    check_shape("R", r, n, 3 * size, size)
    check_shape("B", b, n, 6 * size)
    w, r, b = _wide(layer, w, r, b)
    functions = activations_of(activations or ["Sigmoid", "Tanh"] * n, activation_alpha, activation_beta, 2 * n)
    y = _empty_y(xp, layer)
    last_h = []
    for d, backwards in enumerate(layer.directions):
        bias = bias_h = None
        if b is not None:
            bias = b[d, : 3 * size].copy()
            inside = 2 if linear_before_reset else 3
            bias[: inside * size] += b[d, 3 * size : (3 + inside) * size]
            bias_h = b[d, 5 * size :]
        gates = _project(xp, layer.x, w[d], bias)
        start = _start(xp, layer, 0, d)
        pair = functions[2 * d : 2 * d + 2]
        last_h.append(
            _gru_steps(xp, layer, backwards, gates, r[d], bias_h, start, pair, clip, linear_before_reset, y[:, d])
        )
    return _outputs(xp, layer, y, last_h)


@kernel("RNN", host=(4,))
def rnn(
    xp: ModuleType,
    x: Array,
    w: Array,
    r: Array,
    b: Array | None = None,
    sequence_lens: Any = None,
    initial_h: Array | None = None,
    *,
    activation_alpha: Sequence[float] | None = None,
    activation_beta: Sequence[float] | None = None,
    activations: Sequence[str] = ("Tanh", "Tanh"),
    clip: float = 0.0,
    direction: str = "forward",
    hidden_size: int | None = None,
    layout: int = 0,
    output_sequence: int = 0,
) -> tuple[Array, ...]:
    """RNN 1, 7, 14, 22. Outputs Y, Y_h."""
    layer = layer_of(xp, x, r.shape[-1], len(w), direction, layout, hidden_size, sequence_lens, initial_h)
    n, size = len(layer.directions), layer.hidden
    check_shape("W", w, n, size, layer.x.shape[2])
    check_shape("R", r, n, size, size)
    check_shape("B", b, n, 2 * size)
    w, r, b = _wide(layer, w, r, b)
    functions = activations_of(activations, activation_alpha, activation_beta, n)
    y = _empty_y(xp, layer)
    last_h = []
    for d, backwards in enumerate(layer.directions):
        of_x = _project(xp, layer.x, w[d], None if b is None else b[d, :size] + b[d, size:])
        recur, h = _product_with(xp, r[d], layer.steps), _start(xp, layer, 0, d)
        for time, mask in layer.walk(xp, backwards):
            new_h = y[time, d]
            recur(h, new_h)
            new_h += of_x[time]
            if clip:
                xp.clip(new_h, -clip, clip, out=new_h)
            functions[d](xp, new_h)
            if mask is None:
                h = new_h
            else:
                h = xp.where(mask, new_h, h)
                xp.copyto(new_h, 0, where=~mask)
        last_h.append(h)
    return _outputs(xp, layer, y, last_h)
