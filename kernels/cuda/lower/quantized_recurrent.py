"""DynamicQuantizeLSTM: products are of whole numbers, which float32 (and TF32) has exactly.

The inputs of all time steps are quantized together, the state of the batch at each step, by the kernel of that.
"""

from __future__ import annotations

import numpy as np

from distort.graph.ir import Node
from distort.kernels.compiler.builder import Builder
from distort.kernels.compiler.ir import Array, Tensor
from distort.kernels.cuda.lower import lowers_cuda
from distort.kernels.cuda.lower.quantization import dynamically_quantized
from distort.kernels.cuda.lower.recurrent import layer

Result = list[Tensor | None] | None


@lowers_cuda("DynamicQuantizeLSTM", domain="com.microsoft")
def _dynamic_quantize_lstm(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    x, w, r, *others = inputs[:8]
    if x is None or w is None or r is None or len(inputs) != 12 or len(x.shape) != 3 or x.dtype != np.float32:
        return None
    of_w, of_r = (_weights(b, matrix, *inputs[i : i + 2]) for matrix, i in ((w, 8), (r, 10)))
    found = dynamically_quantized(b, x)
    if of_w is None or of_r is None or found is None:
        return None
    number, scale, zero = (t for t in found if t is not None)
    body = [b.map("cast", [t], np.float32) for t in (number, zero)]
    whole = b.map("sub", body)
    scales = b.map("mul", [of_w[1].reshaped((of_w[1].size,)), scale])
    return layer(b, node, "LSTM", [whole, of_w[0], of_r[0], *others], scales, of_r[1])


def _weights(b: Builder, w: Tensor, scale: Tensor | None, zero: Tensor | None) -> tuple[Tensor, Tensor] | None:
    """Known weights [D, size, 4H] as [D, 4H, size], whole numbers less their zero points; their scales [D, 4H]."""
    if len(w.shape) != 3 or w.value is None or scale is None or zero is None:
        return None
    value, of_scale, of_zero = w.value, scale.value, zero.value
    if of_scale is None or of_zero is None:
        return None
    n, _, columns = value.shape
    if any(v.size != n and v.shape != (n, columns) for v in (of_scale, of_zero)):
        return None

    def whole() -> Array:
        lessened = value.astype(np.float32) - of_zero.reshape(n, 1, -1).astype(np.float32)
        return np.ascontiguousarray(lessened.transpose(0, 2, 1))

    def scales() -> Array:
        return np.ascontiguousarray(np.broadcast_to(of_scale.reshape(n, -1), (n, columns)), np.float32)

    matrix = b.packed(("whole weights", b.identity(value), b.identity(of_zero)), whole)
    return matrix, b.packed(("scales of columns", columns, b.identity(of_scale)), scales)
