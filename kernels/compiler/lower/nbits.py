"""com.microsoft MatMulNBits for a few rows: weights of 4 and 8 bits, scaled by blocks.

More rows go through panels that are decoded once for all of them: ``matmul``.
"""

from __future__ import annotations

import numpy as np

from distort.graph.ir import Node
from distort.kernels.compiler.builder import Builder, lowers
from distort.kernels.compiler.ir import Tensor
from distort.kernels.compiler.lower.matmul import matmul_n_bits
from distort.kernels.compiler.nbits import can_be_bytes, multiply
from distort.kernels.ops.contrib_matmul import unpacked

#: rows, at most, by bits
_MOST_ROWS = {4: 4, 8: 2}
#: accuracy levels that are content with half precision, bfloat16 and int8
_ROUGH = (2, 3, 4)


@lowers("MatMulNBits", domain="com.microsoft")
def _matmul_nbits(b: Builder, node: Node, inputs: list[Tensor | None]) -> list[Tensor | None] | None:
    a = inputs[0]
    bits, depth = node.attributes.get("bits", 4), node.attributes.get("K", 0)
    if a is not None and depth and a.size <= _MOST_ROWS.get(bits, 0) * depth:
        made = _of_few_rows(b, node, inputs)
        if made is not None:
            return made
    return matmul_n_bits(b, node, inputs)


def _of_few_rows(b: Builder, node: Node, inputs: list[Tensor | None]) -> list[Tensor | None] | None:
    a, packed, scales, zeros, g_idx, bias = [*inputs, None, None, None][:6]
    get = node.attributes.get
    depth, columns, bits, block_size = get("K", 0), get("N", 0), get("bits", 4), get("block_size", 0)
    if a is None or packed is None or scales is None or g_idx is not None or a.dtype != np.float32:
        return None
    if bits not in (4, 8) or block_size < 16 or block_size & (block_size - 1) or depth % block_size:
        return None
    if packed.value is None or scales.value is None or scales.dtype != np.float32 or packed.dtype != np.uint8:
        return None
    n_blocks = depth // block_size
    if not a.size or a.shape[-1] != depth or not columns or scales.size != columns * n_blocks:
        return None
    if packed.size != columns * n_blocks * (block_size * bits // 8):
        return None
    if bias is not None and (bias.shape != (columns,) or bias.dtype != np.float32):
        return None
    middle = np.float32(1 << (bits - 1))
    known = None
    if zeros is not None:
        if zeros.value is None or zeros.dtype not in (np.uint8, np.float32):
            return None
        if zeros.dtype == np.uint8:
            if zeros.size % columns or zeros.size // columns * (8 // bits) < n_blocks:
                return None
            known = unpacked(np, zeros.value.reshape(columns, -1), bits)[:, :n_blocks].astype(np.float32)
        elif zeros.size == columns * n_blocks:
            known = zeros.value.reshape(columns, n_blocks)
        else:
            return None
        known = known - middle if (known != middle).any() else None
    a = b.contiguous(b.plain(a))
    made_of = tuple(b.source(t) for t in (packed, scales, zeros) if t is not None)
    rough = get("accuracy_level", 0) in _ROUGH and can_be_bytes(b.target, a.size // depth, bits, block_size)
    name = (bits, block_size, made_of)
    scaled = scales.value.reshape(columns, n_blocks)
    made = multiply(b, a, packed.value, scaled, known, bits, block_size, name, rough)
    if made is None or bias is None:
        return None if made is None else [made]
    return [b.map("add", [made, bias])]
