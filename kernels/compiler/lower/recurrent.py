"""LSTM, GRU and RNN: all steps of time in one step of the program. T, B, I, H, D as in the NumPy kernels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from distort.graph.ir import Node
from distort.kernels.compiler import row_lengths
from distort.kernels.compiler.activations import activations_by_direction
from distort.kernels.compiler.builder import Builder, lowers
from distort.kernels.compiler.codegen.gates import ACTIVATIONS, Activation
from distort.kernels.compiler.codegen.recurrent import CELL_WORDS, INPUT_WORDS, N_GATES, Cell, most_rows
from distort.kernels.compiler.ir import Array, Call, Native, Scratch, Tensor, Word
from distort.kernels.compiler.keys import Key
from distort.kernels.compiler.team import yield_address

Result = list[Tensor | None] | None
#: about what a multiplication and addition costs in vectors, and a number that comes from the second cache
_MAC_NS, _WEIGHT_NS = 0.012, 0.026
#: threads meet after each time step only where one of them alone takes longer than this for it
LEAST_MEETING_NS = 10_000.0
_ORDER = {"forward": (0, 1), "foward": (0, 1), "reverse": (1, 1), "bidirectional": (0, 2)}


@dataclass(slots=True)
class Layer:
    """A recurrent node with shapes: whether it can be compiled was asked already."""

    kind: str
    n_steps: int
    batch: int
    size: int  # of an input
    hidden: int
    n_directions: int
    reverse: int  # 1 where the first direction goes backwards
    batch_first: bool
    activations: tuple[Activation, ...]
    initial: list[Tensor | None]
    clip: float
    flags: tuple[str, ...]
    #: int64 [batch], where the batch's rows have fewer steps
    lengths: Tensor | None = None

    def blocks(self, lanes: int) -> int:
        return -(-self.hidden // lanes)


def layer_of(
    b: Builder,
    node: Node,
    x: Tensor,
    hidden: int,
    n_directions: int,
    lengths: Tensor | None,
    *initial: Tensor | None,
    takes_lengths: bool = False,
) -> Layer | None:
    """What the node says, checked; None where the NumPy kernel runs, or says what is wrong."""
    kind = node.op_type.removeprefix("DynamicQuantize")
    attributes = node.attributes
    reverse, count = _ORDER.get(attributes.get("direction", "forward").lower(), (0, 0))
    if count != n_directions or attributes.get("hidden_size", hidden) != hidden or x.dtype != np.float32:
        return None
    if len(x.shape) != 3 or 0 in x.shape or hidden == 0:
        return None
    batch_first = bool(attributes.get("layout", 0))
    n_steps, batch, size = (x.shape[1], x.shape[0], x.shape[2]) if batch_first else x.shape
    wanted = (batch, n_directions, hidden) if batch_first else (n_directions, batch, hidden)
    if any(state is not None and (state.shape != wanted or state.dtype != np.float32) for state in initial):
        return None
    if lengths is not None and lengths.value is not None and (lengths.value == n_steps).all():
        lengths = None if lengths.shape == (batch,) else lengths
    if lengths is not None:
        if not takes_lengths or lengths.shape != (batch,) or lengths.dtype.kind != "i":
            return None
        lengths = row_lengths.checked(b, lengths, n_steps)
    activations = _activations(kind, node, n_directions)
    if activations is None:
        return None
    flags = tuple(name for name in ("input_forget", "linear_before_reset") if attributes.get(name, 0))
    clip = float(attributes.get("clip", 0.0))
    return Layer(
        *(kind, n_steps, batch, size, hidden, n_directions, reverse, batch_first, activations, list(initial)),
        clip=clip,
        flags=flags if lengths is None else (*flags, "lengths"),
        lengths=lengths,
    )


def _activations(kind: str, node: Node, n_directions: int) -> tuple[Activation, ...] | None:
    """Those of one direction, where all directions have the same."""
    found = activations_by_direction(kind, node, n_directions)
    if found is None:
        return None
    first = found[0]
    if any(a.name not in ACTIVATIONS for a in first) or any(other != first for other in found):
        return None
    return first


def panels(w: Array, n_gates: int, lanes: int) -> Array:
    """[D, gates · H, size] -> [D, blocks, size, gates, lanes]; columns that are nobody's are zeros."""
    n_directions, rows, size = w.shape
    by_block = in_blocks(w.reshape(n_directions, n_gates, rows // n_gates, size), lanes)  # [D, blocks, gates, lanes, I]
    return np.ascontiguousarray(by_block.transpose(0, 1, 4, 2, 3))


def in_blocks(w: Array, lanes: int) -> Array:
    """[D, gates, H, ...] -> [D, blocks, gates, lanes, ...]"""
    n_directions, n_gates, hidden, *rest = w.shape
    n_blocks = -(-hidden // lanes)
    padded = np.zeros((n_directions, n_gates, n_blocks * lanes, *rest), w.dtype)
    padded[:, :, :hidden] = w
    return np.ascontiguousarray(padded.reshape(n_directions, n_gates, n_blocks, lanes, *rest).swapaxes(1, 2))


def in_two_phases(r: Array, lanes: int) -> Array:
    """Of a GRU [D, 3 · H, size] -> [D, blocks, size · 3 · lanes]: z and r [size, 2, lanes], then h [size, lanes]."""
    whole = panels(r, 3, lanes)
    n_directions, n_blocks = whole.shape[:2]
    parts = [part.reshape(n_directions, n_blocks, -1) for part in (whole[:, :, :, :2], whole[:, :, :, 2:])]
    return np.concatenate(parts, axis=2)


def packed(b: Builder, how: tuple[Any, ...], of: Tensor, make: Callable[[Array], Array]) -> Tensor:
    """Made of a known tensor, once for all shapes of runs."""
    value = of.value
    assert value is not None
    return b.packed((*how, b.identity(value)), lambda: make(value))


def zeros(b: Builder, count: int) -> Tensor:
    return b.packed(("zeros", count), lambda: np.zeros(count, np.float32))


@lowers("LSTM", "GRU", "RNN", wide=True)
def _recurrent(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    inputs = [*inputs, *[None] * (8 - len(inputs))]
    x, w, r, bias, lengths, h0, c0, peepholes = (t if t is None else b.plain(t) for t in inputs)
    assert x is not None and w is not None and r is not None
    kind, n_gates = node.op_type, N_GATES[node.op_type]
    if len(r.shape) != 3 or len(w.shape) != 3:
        return None
    n_directions, hidden = w.shape[0], r.shape[2]
    initial = [h0, c0] if kind == "LSTM" else [h0]
    layer = layer_of(b, node, x, hidden, n_directions, lengths, *initial, takes_lengths=True)
    if layer is None:
        return None
    weights = {
        w: (n_directions, n_gates * hidden, layer.size),
        r: (n_directions, n_gates * hidden, hidden),
        bias: (n_directions, 2 * n_gates * hidden),
        peepholes: (n_directions, 3 * hidden),
    }
    for weight, shape in weights.items():
        if weight is not None and (weight.value is None or weight.shape != shape or weight.dtype != np.float32):
            return None
    if peepholes is not None:
        layer.flags += ("peepholes",)
    lanes = b.target.lanes("float")
    two_phases = kind == "GRU" and "linear_before_reset" not in layer.flags
    of_inputs, of_state = biases(b, layer, bias, lanes)
    gates = _project(
        b, layer, x, packed(b, ("panels", n_gates, lanes), w, lambda v: panels(v, n_gates, lanes)), of_inputs
    )
    if two_phases:
        of_r = packed(b, ("two phases", lanes), r, lambda v: in_two_phases(v, lanes))
    else:
        of_r = packed(b, ("panels", n_gates, lanes), r, lambda v: panels(v, n_gates, lanes))
    if peepholes is not None:
        peepholes = packed(
            b, ("peepholes", lanes), peepholes, lambda v: in_blocks(v.reshape(n_directions, 3, hidden), lanes)
        )
    made = run_cells(b, layer, gates, of_r, of_state, peepholes)
    if layer.lengths is None:
        return made
    wanted = [t if i < len(node.outputs) and node.outputs[i] else None for i, t in enumerate(made)]
    return row_lengths.ended(b, wanted, layer.lengths, layer.n_steps, layer.batch_first)


def biases(b: Builder, layer: Layer, bias: Tensor | None, lanes: int) -> tuple[Tensor, Tensor]:
    """What is added for the inputs [D, blocks, gates, lanes], and to the state's product [D, blocks, lanes]."""
    n_gates, n_directions, hidden = N_GATES[layer.kind], layer.n_directions, layer.hidden
    n_blocks = layer.blocks(lanes)
    if bias is None:
        return zeros(b, n_directions * n_blocks * n_gates * lanes), zeros(b, n_directions * n_blocks * lanes)
    apart = "linear_before_reset" in layer.flags

    def of_inputs(value: Array) -> Array:
        parts = value.reshape(n_directions, 2, n_gates, hidden)
        total = parts[:, 0] + parts[:, 1]
        if apart:
            total[:, 2] = parts[:, 0, 2]
        return in_blocks(total, lanes)

    def of_state(value: Array) -> Array:
        return in_blocks(value.reshape(n_directions, 2 * n_gates, hidden)[:, -1:], lanes)

    key = (n_gates, apart, lanes)
    first = packed(b, ("bias of inputs", *key), bias, of_inputs)
    return first, packed(b, ("bias of state", *key), bias, of_state) if apart else first


def _project(b: Builder, layer: Layer, x: Tensor, w: Tensor, bias: Tensor) -> Tensor:
    """What the gates take from the inputs: [D, rows of X, blocks, gates, lanes]."""
    x = b.contiguous(x)
    lanes, n_gates = b.target.lanes("float"), N_GATES[layer.kind]
    n_blocks, rows = layer.blocks(lanes), layer.n_steps * layer.batch
    gates = b.new(np.float32, (layer.n_directions, rows, n_blocks, n_gates, lanes))
    values: dict[str, Word] = {
        "rows": rows,
        "size": layer.size,
        "n_directions": layer.n_directions,
        "n_blocks": n_blocks,
        "x": x.address(),
        "x_row": layer.size,
        "w": w.address(),
        "bias": bias.address(),
        "gates": gates.address(),
    }
    most = most_rows(b.target, n_gates)
    key = Key("recurrent_inputs", (n_gates, most))
    work = gates.size * layer.size * _MAC_NS
    n_units = layer.n_directions * n_blocks * -(-rows // most)
    call = Call(key, [values[name] for name in INPUT_WORDS], work, most_threads=n_units)
    b.add(Native([x, w, bias], [gates], [call]))
    return gates


def tiles_of(batch: int, most: int, wanted: int) -> tuple[tuple[int, ...], int, int]:
    """Rows of a tile (one number, or two neighbours), how many tiles, and how many of the longer ones.

    ``wanted``: as many tiles, where each still has two rows.
    """
    n_tiles = max(-(-batch // most), min(wanted, batch // 2))
    shorter, n_long = divmod(batch, n_tiles)
    return ((shorter + 1, shorter), n_tiles, n_long) if n_long else ((shorter,), n_tiles, n_tiles)


def run_cells(
    b: Builder, layer: Layer, gates: Tensor, r: Tensor, bias: Tensor, peepholes: Tensor | None, *quantized: Tensor
) -> list[Tensor | None]:
    """The loop over time. Returns Y, Y_h and Y_c. ``quantized``: sums and scales of columns of 8-bit weights."""
    lanes, n_gates = b.target.lanes("float"), N_GATES[layer.kind]
    n_blocks, n_directions, hidden, batch = layer.blocks(lanes), layer.n_directions, layer.hidden, layer.batch
    wanted = 1 if quantized else -(-b.n_threads // n_directions)
    tiles, n_tiles, n_long = tiles_of(batch, most_rows(b.target, n_gates), wanted)
    padded = n_blocks * lanes
    step_ns = padded * n_gates * hidden * max(_MAC_NS * batch, _WEIGHT_NS * n_tiles) / (4 if quantized else 1)
    work = step_ns * layer.n_steps * n_directions
    n_units = n_directions * (1 if quantized else n_tiles)
    together = n_units == 1 and b.n_threads > 1 and step_ns > LEAST_MEETING_NS
    row = n_gates * padded
    time_of_gates, row_of_gates = (row, layer.n_steps * row) if layer.batch_first else (batch * row, row)
    states = _states(b, layer)
    peepholes = peepholes or bias
    counter = b.new(np.int64, (8,))
    sums, factors = quantized or (bias, bias)
    reads = [gates, r, bias, peepholes, counter, *quantized]
    values: dict[str, Any] = {
        "n_steps": layer.n_steps,
        "n_rows": batch,
        "hidden": hidden,
        "n_directions": n_directions,
        "n_blocks": n_blocks,
        "n_tiles": n_tiles,
        "n_long": n_long,
        "reverse": layer.reverse,
        "gates": gates.address(),
        "gates_direction": layer.n_steps * batch * row,
        "gates_time": time_of_gates,
        "gates_row": row_of_gates,
        "r": r.address(),
        "r_sums": sums.address(),
        "r_scales": factors.address(),
        "bias": bias.address(),
        "peepholes": peepholes.address(),
        "counter": counter.address(),
        "give": yield_address(),
        "scratch": Scratch(),
        "scratch_direction": 2 * padded * batch,
    }
    for name, (tensor, strides) in states.items():
        values[name] = tensor.address()
        values |= {f"{name}_{axis}": stride for axis, stride in strides.items()}
    values["lengths"] = 0 if layer.lengths is None else layer.lengths.address()
    if layer.lengths is not None:
        reads.append(layer.lengths)
    if together:
        b.copy(b.constant(np.zeros(8, np.int64)), counter)
    else:
        reads.remove(counter)
        values["counter"] = 0
    cell = Cell(
        layer.kind,
        tiles,
        next(n for n in (4, 2, 1) if hidden % n == 0),
        layer.activations,
        layer.clip,
        hidden % lanes != 0,
        together,
        layer.flags,
    )
    parameters = (*cell[:3], tuple(tuple(a) for a in cell.activations), *cell[4:])
    two_phases = layer.kind == "GRU" and "linear_before_reset" not in layer.flags
    call = Call(
        Key("recurrent_cell", parameters),
        [values[name] for name in CELL_WORDS],
        work,
        scratch_nbytes=max(
            64, two_phases * 2 * padded * batch * 4 * n_directions, len(quantized) * padded * batch * b.n_threads
        ),
        most_threads=n_blocks if together else n_units,
        meets=together,
    )
    made = [states[name][0] for name in ("y", "h", "c")]
    b.add(Native([*reads, states["h0"][0], states["c0"][0]], made, [call]))
    return [*made]


def _states(b: Builder, layer: Layer) -> dict[str, tuple[Tensor, dict[str, int]]]:
    """Initial states, all states and the last ones: where each is, and its strides."""
    n_steps, batch, n, hidden = layer.n_steps, layer.batch, layer.n_directions, layer.hidden
    all_steps = (batch, n_steps, n, hidden) if layer.batch_first else (n_steps, n, batch, hidden)
    one = (batch, n, hidden) if layer.batch_first else (n, batch, hidden)
    direction, row = (hidden, n * hidden) if layer.batch_first else (batch * hidden, hidden)
    found: dict[str, tuple[Tensor, dict[str, int]]] = {}
    for name, state in zip(("h0", "c0"), (*layer.initial, None), strict=False):
        tensor = zeros(b, n * batch * hidden) if state is None else b.contiguous(state)
        found[name] = (tensor, {"direction": direction, "row": row})
    of_time = n * hidden if layer.batch_first else n * batch * hidden
    of_row = n_steps * n * hidden if layer.batch_first else hidden
    found["y"] = (b.new(np.float32, all_steps), {"direction": direction, "time": of_time, "row": of_row})
    found["h"] = (b.new(np.float32, one), {"direction": direction, "row": row})
    found["c"] = (b.new(np.float32, one), {"direction": direction, "row": row})
    return found
