"""DynamicQuantizeLSTM: weights in 8 bits; inputs of all time steps are quantized together, states at each step."""

from __future__ import annotations

import numpy as np

from distort.graph.ir import Node
from distort.kernels.compiler.builder import Builder, lowers
from distort.kernels.compiler.codegen.quantized_states import GROUP, INPUT_WORDS, QUANTIZE_WORDS
from distort.kernels.compiler.codegen.recurrent import N_GATES, most_rows
from distort.kernels.compiler.ir import Array, Call, Native, Tensor, Word
from distort.kernels.compiler.keys import Key
from distort.kernels.compiler.lower.recurrent import Layer, Result, biases, in_blocks, layer_of, packed, run_cells

#: about what a multiplication and addition of bytes costs, and a number that is quantized
_MAC_NS, _NUMBER_NS = 0.006, 0.3


@lowers("DynamicQuantizeLSTM", domain="com.microsoft")
def _dynamic_quantize_lstm(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    x, w, r, bias, lengths, h0, c0, peepholes, *of_weights = (t if t is None else b.plain(t) for t in inputs)
    if x is None or w is None or r is None or len(w.shape) != 3 or len(r.shape) != 3:
        return None
    n_directions, hidden = w.shape[0], r.shape[1]
    layer = layer_of(b, node, x, hidden, n_directions, lengths, h0, c0)
    if layer is None or layer.batch_first or peepholes is not None:
        return None
    columns = 4 * hidden
    if w.shape != (n_directions, layer.size, columns) or r.shape != (n_directions, hidden, columns):
        return None
    if bias is not None and (bias.value is None or bias.shape != (n_directions, 2 * columns)):
        return None
    made = [_Weights.of(b, matrix, *of_weights[i : i + 2]) for matrix, i in ((w, 0), (r, 2))]
    if made[0] is None or made[1] is None:
        return None
    lanes = b.target.lanes("float")
    gates = _project(b, layer, x, made[0], biases(b, layer, bias, lanes)[0])
    layer.flags += ("bytes",)
    return run_cells(b, layer, gates, made[1].panels, gates, None, made[1].sums, made[1].scales)


class _Weights:
    """Packed: [D, blocks, size / 4, gates, lanes, 4], with sums and scales of columns [D, blocks, gates, lanes]."""

    def __init__(self, panels: Tensor, sums: Tensor, scales: Tensor) -> None:
        self.panels, self.sums, self.scales = panels, sums, scales

    @classmethod
    def of(cls, b: Builder, w: Tensor, scale: Tensor | None, zero: Tensor | None) -> _Weights | None:
        """w: [D, size, 4H], scale and zero: [D] or [D, 4H]. None where they are not known, or not symmetric enough."""
        if w.value is None or scale is None or scale.value is None or zero is None or zero.value is None:
            return None
        n_directions, _, columns = w.shape
        if any(t.size != n_directions and t.shape != (n_directions, columns) for t in (scale, zero)):
            return None
        lanes = b.target.lanes("float")
        of_zero = zero.value.astype(np.int32).reshape(n_directions, -1)
        low, high = (int(bound) for bound in (w.value.min(), w.value.max()))
        if low - of_zero.max() < -128 or high - of_zero.min() > 127:
            return None
        key = ("byte panels", lanes, of_zero.tobytes())
        by_column = np.broadcast_to(scale.value.reshape(n_directions, -1), (n_directions, columns))
        return cls(
            packed(b, key, w, lambda v: _panels(_whole(v, of_zero), lanes)),
            packed(
                b,
                ("byte sums", *key[1:]),
                w,
                lambda v: _by_block(_whole(v, of_zero).sum(axis=1, dtype=np.int32), lanes),
            ),
            packed(b, ("byte scales", lanes, columns), scale, lambda v: _by_block(by_column.astype(np.float32), lanes)),
        )


def _whole(w: Array, zero: Array) -> Array:
    return (w.astype(np.int32) - zero[:, None]).astype(np.int8)


def _by_block(values: Array, lanes: int) -> Array:
    """[D, 4H] -> [D, blocks, gates, lanes]"""
    return in_blocks(values.reshape(len(values), 4, -1), lanes)


def _panels(w: Array, lanes: int) -> Array:
    """[D, size, 4H] -> [D, blocks, size / 4, gates, lanes, 4]"""
    n_directions, size, columns = w.shape
    groups = -(-size // GROUP)
    padded = np.zeros((n_directions, groups * GROUP, columns), w.dtype)
    padded[:, :size] = w
    by_column = padded.reshape(n_directions, groups, GROUP, 4, -1).transpose(0, 3, 4, 1, 2)
    return np.ascontiguousarray(in_blocks(by_column, lanes).transpose(0, 1, 4, 2, 3, 5))


def _project(b: Builder, layer: Layer, x: Tensor, w: _Weights, bias: Tensor) -> Tensor:
    """What the gates take from the inputs: [D, rows of X, blocks, gates, lanes]."""
    x = b.contiguous(x)
    lanes, n_gates = b.target.lanes("float"), N_GATES[layer.kind]
    n_blocks, rows = layer.blocks(lanes), layer.n_steps * layer.batch
    row_nbytes = -(-layer.size // GROUP) * GROUP
    numbers = b.new(np.int8, (rows, row_nbytes))
    found = b.new(np.int32, (2,))
    gates = b.new(np.float32, (layer.n_directions, rows, n_blocks, n_gates, lanes))
    values: dict[str, Word] = {
        "rows": rows,
        "size": layer.size,
        "row_nbytes": row_nbytes,
        "n_directions": layer.n_directions,
        "n_blocks": n_blocks,
        "x": x.address(),
        "bytes": numbers.address(),
        "found": found.address(),
        "w": w.panels.address(),
        "sums": w.sums.address(),
        "scales": w.scales.address(),
        "bias": bias.address(),
        "gates": gates.address(),
    }
    quantize = Call(
        Key("recurrent_bytes", ()), [values[name] for name in QUANTIZE_WORDS], rows * layer.size * _NUMBER_NS
    )
    b.add(Native([x], [numbers, found], [quantize]))
    most = most_rows(b.target, n_gates)
    n_units = layer.n_directions * n_blocks * -(-rows // most)
    multiply = Call(
        Key("recurrent_byte_inputs", (n_gates, most)),
        [values[name] for name in INPUT_WORDS],
        gates.size * layer.size * _MAC_NS,
        most_threads=n_units,
    )
    b.add(Native([numbers, found, w.panels, w.sums, w.scales, bias], [gates], [multiply]))
    return gates
