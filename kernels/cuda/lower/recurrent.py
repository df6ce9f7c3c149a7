"""LSTM, GRU and RNN: what all steps take from the inputs is one product, then each step is a launch.

For more than a few rows a library multiplies the state, and a launch does the cells. T: steps, B: batch, I: size of an
input, H: hidden units, D: directions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from distort.graph.ir import Node
from distort.kernels.compiler.activations import activations_by_direction
from distort.kernels.compiler.builder import Builder
from distort.kernels.compiler.codegen.gates import Activation
from distort.kernels.compiler.ir import Array, Tensor
from distort.kernels.cuda.codegen.gathering import INDEX
from distort.kernels.cuda.codegen.recurrent import N_GATES
from distort.kernels.cuda.lower import lowers_cuda
from distort.kernels.cuda.operations import CudaCells
from distort.kernels.cuda.products import multiply

Result = list[Tensor | None] | None
_BACKWARDS = {"forward": (False,), "foward": (False,), "reverse": (True,), "bidirectional": (False, True)}
#: of the batch: with more, products of the state are a library's
MOST_OWN_ROWS = 8


@dataclass(slots=True)
class _Layer:
    """A node that was found to be right; ``reads`` and ``makes`` are operands of :class:`CudaCells` by name."""

    kind: str
    n_steps: int
    batch: int
    hidden: int
    backwards: tuple[bool, ...]
    activations: tuple[tuple[Activation, ...], ...]
    clip: float
    flags: tuple[str, ...]
    reads: dict[str, Tensor] = field(default_factory=dict)
    makes: dict[str, Tensor] = field(default_factory=dict)

    def add(self, b: Builder, phases: Sequence[str], first: int, count: int, **others: Tensor) -> None:
        reads = {**self.reads, **others}
        if others:
            del reads["r"]
        b.add(
            CudaCells(
                list(reads.values()),
                list(self.makes.values()),
                (*reads, *self.makes),
                self.kind,
                tuple(phases),
                self.backwards,
                self.activations,
                self.n_steps,
                first,
                count,
                self.clip,
                self.flags,
            )
        )


@lowers_cuda("LSTM", "GRU", "RNN", wide=True)
def _recurrent(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    return layer(b, node, node.op_type, inputs)


def layer(
    b: Builder,
    node: Node,
    kind: str,
    inputs: list[Tensor | None],
    scale: Tensor | None = None,
    of_states: Tensor | None = None,
) -> Result:
    """``kind``: LSTM, GRU or RNN. ``scale``: what products of the inputs are to be multiplied with [D · gates · H].

    ``of_states``: likewise those of states, of an LSTM whose states are quantized at each step [D, 4 · H].
    """
    inputs = [*inputs, *[None] * (8 - len(inputs))]
    x, w, r, bias, lengths, h0, c0, peepholes = inputs
    if x is None or w is None or r is None or len(x.shape) != 3 or len(w.shape) != 3 or len(r.shape) != 3:
        return None
    get = node.attributes.get
    batch_first, hidden = bool(get("layout", 0)), r.shape[2]
    n_steps, batch, size = (x.shape[1], x.shape[0], x.shape[2]) if batch_first else x.shape
    backwards, n_gates = _BACKWARDS.get(str(get("direction", "forward")).lower(), ()), N_GATES[kind]
    d, gates = len(backwards), N_GATES[kind] * hidden
    state = (batch, d, hidden) if batch_first else (d, batch, hidden)
    shapes = (
        ((w, (d, gates, size)), (r, (d, gates, hidden)), (bias, (d, 2 * gates)), (h0, state), (c0, state)),
        ((lengths, (batch,)), (peepholes, (d, 3 * hidden))),
    )
    wrong = any(t is not None and t.shape != shape for group in shapes for t, shape in group)
    if wrong or get("hidden_size", hidden) != hidden:
        return None
    if any(t is not None and t.dtype != x.dtype for t in (w, r, bias, h0, c0, peepholes)):
        return None
    activations = activations_by_direction(kind, node, d)
    if x.element not in ("float32", "float64") or not math.prod((*x.shape, hidden)) or activations is None:
        return None
    if lengths is not None and (lengths.element not in INDEX or _all_same(lengths, n_steps)):
        if lengths.element not in INDEX:
            return None
        lengths = None
    resets_after = kind == "GRU" and bool(get("linear_before_reset", 0))
    flags = ("input_forget",) if kind == "LSTM" and get("input_forget", 0) else ()
    made = _Layer(kind, n_steps, batch, hidden, backwards, activations, float(get("clip", 0.0)), flags)
    of_x = _of_inputs(b, x, w, bias, n_gates, resets_after, scale)
    if of_x is None:
        return None
    by_step = (n_steps, batch, d, n_gates, hidden)
    row = d * gates
    made.reads = {
        "gates": of_x.view(by_step, (row, n_steps * row, gates, hidden, 1))
        if batch_first
        else of_x.view(by_step, (batch * row, row, gates, hidden, 1)),
        "r": b.contiguous(r),
        "h0": _initial(b, h0, made, x, batch_first),
    }
    if resets_after and bias is not None:
        made.reads["bias"] = _last_bias(b, bias, hidden)
    if peepholes is not None and kind == "LSTM":
        made.reads["peepholes"] = b.contiguous(peepholes).reshaped((d, 3, hidden))
    if of_states is not None:
        made.reads["scales"] = of_states
    if lengths is not None:
        made.reads["lengths"] = b.contiguous(lengths)
    results = _results(b, made, node, x, batch_first)
    if kind == "LSTM":
        made.reads["c0"] = _initial(b, c0, made, x, batch_first)
    is_done = _add_steps(b, made, x, () if resets_after else ("gates", "hidden"))
    return results if is_done else None


def _add_steps(b: Builder, layer: _Layer, x: Tensor, two_phases: Sequence[str]) -> bool:
    d, batch, hidden = len(layer.backwards), layer.batch, layer.hidden
    phases = list(two_phases) if layer.kind == "GRU" and two_phases else ["whole"]
    between = (2, d, batch, hidden)
    layer.makes["states"] = b.new(x.dtype, between)
    if phases != ["whole"]:
        layer.makes["inner"] = b.new(x.dtype, between)
    if batch <= MOST_OWN_ROWS or "scales" in layer.reads:
        layer.add(b, phases, 0, layer.n_steps)
        return True
    for name in ("states", "inner", "c"):
        if name in layer.makes:
            layer.makes[name].buffer.changes = True
    # r: [D, gates · H, H], of which a phase takes some gates, as the right side [D, H, gates · H]
    r = layer.reads["r"]
    parts = {"whole": (0, N_GATES[layer.kind]), "gates": (0, 2), "hidden": (2, 3)}
    for step in range(layer.n_steps):
        states = layer.makes["states"]
        before = layer.reads["h0"] if step == 0 else _half(states, (step - 1) % 2)
        for phase in phases:
            begin, end = parts[phase]
            right = r.view(
                (d, hidden, (end - begin) * hidden), (r.strides[0], 1, r.strides[1]), begin * hidden * r.strides[1]
            )
            left = _half(layer.makes["inner"], 1) if phase == "hidden" else before
            product = multiply(b, left, right)
            if product is None:
                return False
            layer.add(b, [phase], step, 1, products=product)
    return True


def _half(tensor: Tensor, number: int) -> Tensor:
    return tensor.view(tensor.shape[1:], tensor.strides[1:], number * tensor.strides[0])


def _all_same(lengths: Tensor, n_steps: int) -> bool:
    return lengths.value is not None and bool((lengths.value == n_steps).all())


def _of_inputs(
    b: Builder, x: Tensor, w: Tensor, bias: Tensor | None, n_gates: int, resets_after: bool, scale: Tensor | None
) -> Tensor | None:
    """What gates take from the inputs of all steps: [rows of x, D · gates · H]."""
    n_directions, gates, size = w.shape
    rows = b.contiguous(x).reshaped((x.shape[0] * x.shape[1], size))
    product = multiply(b, rows, b.contiguous(w).reshaped((n_directions * gates, size)).permuted([1, 0]))
    if product is not None and scale is not None:
        product = b.map("mul", [product, scale])
    if product is None or bias is None:
        return product
    hidden = gates // n_gates
    # the state's bias of a GRU's last gate goes into its reset
    n_whole = 2 * hidden if resets_after else gates

    def total(value: Array) -> Array:
        made = value[:, :gates].copy()
        made[:, :n_whole] += value[:, gates : gates + n_whole]
        return made.reshape(-1)

    if bias.value is not None:
        own = bias.value
        added = b.packed(("bias of gates", gates, n_whole, b.identity(own)), lambda: total(own))
    else:
        ours, states = (bias.view((n_directions, gates), bias.strides, n * gates * bias.strides[1]) for n in (0, 1))
        if resets_after:
            counts = np.array([1, 1, 0], bias.dtype).repeat(hidden)
            states = b.map("mul", [states, b.constant(counts)])
        added = b.map("add", [ours, states]).reshaped((n_directions * gates,))
    return b.contiguous(b.map("add", [product, added]))


def _last_bias(b: Builder, bias: Tensor, hidden: int) -> Tensor:
    """That of the state of the last gate: [D, H]."""
    n_directions, count = bias.shape
    value = bias.value
    if value is None:
        return b.contiguous(bias.view((n_directions, hidden), bias.strides, (count - hidden) * bias.strides[1]))
    return b.packed(("state's bias", hidden, b.identity(value)), lambda: np.ascontiguousarray(value[:, -hidden:]))


def _initial(b: Builder, state: Tensor | None, layer: _Layer, x: Tensor, batch_first: bool) -> Tensor:
    """As [D, B, H], elements along H next to each other."""
    shape = (len(layer.backwards), layer.batch, layer.hidden)
    if state is None:
        none = b.packed(("no state", layer.hidden, x.element), lambda: np.zeros(layer.hidden, x.dtype))
        return none.broadcast(shape)
    state = b.contiguous(state)
    return state.permuted([1, 0, 2]) if batch_first else state


def _results(b: Builder, layer: _Layer, node: Node, x: Tensor, batch_first: bool) -> list[Tensor | None]:
    """Room for Y, Y_h and Y_c, which are set as what the layer makes, in its own order of axes."""
    t, d, n, h = layer.n_steps, len(layer.backwards), layer.batch, layer.hidden
    y: Tensor | None = None
    if node.outputs and node.outputs[0]:
        y = b.new(x.dtype, (n, t, d, h) if batch_first else (t, d, n, h))
        layer.makes["y"] = y.permuted([1, 2, 0, 3]) if batch_first else y
    made = [y]
    for name in ("h", "c") if layer.kind == "LSTM" else ("h",):
        last = b.new(x.dtype, (n, d, h) if batch_first else (d, n, h))
        layer.makes[name] = last.permuted([1, 0, 2]) if batch_first else last
        made.append(last)
    return made


__all__ = ["MOST_OWN_ROWS", "layer"]
