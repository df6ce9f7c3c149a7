"""DynamicQuantizeLSTM: weights in 8 bits; inputs of all time steps are quantized together, states at each step."""

from __future__ import annotations

import numpy as np

from distort.graph.ir import Node
from distort.kernels.compiler.builder import Builder, lowers
from distort.kernels.compiler.codegen.quantized_states import GROUP
from distort.kernels.compiler.codegen.recurrent import N_GATES
from distort.kernels.compiler.ir import Array, Tensor
from distort.kernels.compiler.lower.quantization import divided, dynamic_range
from distort.kernels.compiler.lower.quantized_linear import scaled
from distort.kernels.compiler.lower.recurrent import Layer, Result, biases, in_blocks, layer_of, run_cells


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
    of_inputs, of_states = (_Weights.of(b, matrix, *of_weights[i : i + 2]) for matrix, i in ((w, 0), (r, 2)))
    if of_inputs is None or of_states is None:
        return None
    lanes = b.target.lanes("float")
    gates = _project(b, layer, x, of_inputs, biases(b, layer, bias, lanes)[0])
    if gates is None:
        return None
    layer.flags += ("bytes",)
    return run_cells(b, layer, gates, of_states.panels(b), gates, None, of_states.sums(b), of_states.scales)


class _Weights:
    """8-bit weights [D, size, 4H], known, 8 bits also less their zero points; ``scales`` [D, blocks, gates, lanes]."""

    def __init__(self, b: Builder, w: Array, zero: Array, scale: Array) -> None:
        lanes, columns = b.target.lanes("float"), w.shape[2]
        by_column = np.broadcast_to(scale.reshape(len(w), -1), (len(w), columns))
        self._w, self._zero = w, zero
        self.name = (lanes, b.identity(w), b.identity(zero))
        self.scales = b.packed(("byte scales", lanes, b.identity(scale), columns), lambda: _by_block(by_column, lanes))

    @classmethod
    def of(cls, b: Builder, w: Tensor, scale: Tensor | None, zero: Tensor | None) -> _Weights | None:
        """scale and zero: [D] or [D, 4H]. None where they are not known, or zero points are far from the middle."""
        if w.value is None or scale is None or scale.value is None or zero is None or zero.value is None:
            return None
        n_directions, _, columns = w.shape
        if any(t.size != n_directions and t.shape != (n_directions, columns) for t in (scale, zero)):
            return None
        of_zero = zero.value.astype(np.int32).reshape(n_directions, -1)
        low, high = (int(bound) for bound in (w.value.min(), w.value.max()))
        if low - of_zero.max() < -128 or high - of_zero.min() > 127:
            return None
        return cls(b, w.value, of_zero, scale.value)

    def whole(self) -> Array:
        """Less their zero points."""
        return (self._w.astype(np.int32) - self._zero[:, None]).astype(np.int8)

    def panels(self, b: Builder) -> Tensor:
        """[D, blocks, size / 4, gates, lanes, 4]"""
        return b.packed(("byte panels", *self.name), lambda: _panels(self.whole(), self.name[0]))

    def sums(self, b: Builder) -> Tensor:
        """Of columns: [D, blocks, gates, lanes]"""
        return b.packed(
            ("byte sums", *self.name), lambda: _by_block(self.whole().sum(axis=1, dtype=np.int32), self.name[0])
        )


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


def _project(b: Builder, layer: Layer, x: Tensor, w: _Weights, bias: Tensor) -> Tensor | None:
    """What the gates take from the inputs: [D, rows of X, blocks, gates, lanes]. None where there is no such kernel."""
    lanes, n_gates = b.target.lanes("float"), N_GATES[layer.kind]
    n_blocks, rows = layer.blocks(lanes), layer.n_steps * layer.batch
    columns = n_blocks * n_gates * lanes
    x = b.contiguous(x).reshaped((rows, layer.size))
    scale, inverse, zero, narrow_zero = dynamic_range(b, x)
    narrow = divided(b, x, scale, inverse, zero, np.dtype(np.uint8))
    gates = b.new(np.float32, (layer.n_directions, rows, n_blocks, n_gates, lanes))
    for direction in range(layer.n_directions):
        matrix = b.packed(("gate columns", direction, *w.name), lambda d=direction: _columns(w.whole()[d], lanes))  # type: ignore[misc]
        of_columns = [_of_direction(b, tensor, layer.n_directions, direction) for tensor in (w.scales, bias)]
        found = scaled(b, narrow, matrix, (scale, of_columns[0]), (narrow_zero, None), of_columns[1])
        if found is None:
            return None
        b.copy(found, gates.view((rows, columns), (columns, 1), direction * rows * columns))
    return gates


def _columns(w: Array, lanes: int) -> Array:
    """[size, 4H] -> [size, blocks · gates · lanes]"""
    return _by_block(w, lanes).reshape(len(w), -1)


def _of_direction(b: Builder, tensor: Tensor, n_directions: int, direction: int) -> Tensor:
    """Of what is known of all directions, what belongs to one, as a row."""
    assert tensor.value is not None
    return b.constant(tensor.value.reshape(n_directions, -1)[direction])
