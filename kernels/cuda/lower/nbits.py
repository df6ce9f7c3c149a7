"""com.microsoft MatMulNBits: weights stay packed. For a few rows they are decoded as they are read, for more before.

GatherBlockQuantized: rows are gathered as they lie, then decoded.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from distort.graph.ir import Node
from distort.kernels.compiler.builder import Builder
from distort.kernels.compiler.ir import Tensor
from distort.kernels.compiler.lower.quantization import real
from distort.kernels.cuda.codegen.nbits import MOST_ROWS
from distort.kernels.cuda.lower import lowering_of, lowers_cuda
from distort.kernels.cuda.lower.gathering import INDEX_TYPES
from distort.kernels.cuda.operations import CudaNBits, CudaUnpack


@lowers_cuda("MatMulNBits", domain="com.microsoft")
def _matmul_n_bits(b: Builder, node: Node, inputs: list[Tensor | None]) -> list[Tensor | None] | None:
    a, codes, scales, zeros, g_idx, bias = [*inputs, None, None, None][:6]
    get = node.attributes.get
    depth, columns, bits, block_size = get("K", 0), get("N", 0), get("bits", 4), get("block_size", 0)
    if a is None or codes is None or scales is None or g_idx is not None or not columns:
        return None
    if a.element not in ("float32", "float16", "bfloat16") or scales.dtype != a.dtype or codes.dtype != np.uint8:
        return None
    if bits not in (4, 8) or block_size < 16 or block_size & (block_size - 1) or not depth or depth % block_size:
        return None
    n_blocks = depth // block_size
    if not a.size or a.shape[-1] != depth or scales.size != columns * n_blocks:
        return None
    if codes.size != columns * n_blocks * (block_size * bits // 8):
        return None
    few = a.size <= MOST_ROWS * depth
    matmul = lowering_of("", "MatMul")
    if not few and matmul is None:
        return None
    given = [b.contiguous(a), b.contiguous(codes).reshaped((columns, n_blocks, -(-block_size * bits // 8)))]
    given.append(b.contiguous(scales).reshaped((columns, n_blocks)))
    if zeros is not None:
        packed = -(-n_blocks * bits // 8)
        expected = packed if zeros.dtype == np.uint8 else n_blocks
        if zeros.dtype not in (np.uint8, a.dtype) or zeros.size != columns * expected:
            return None
        given.append(b.contiguous(zeros).reshaped((columns, expected)))
    if bias is not None and (bias.shape != (columns,) or bias.dtype != a.dtype):
        return None
    if few:
        given += [] if bias is None else [b.contiguous(bias)]
        result = b.new(a.dtype, (*a.shape[:-1], columns))
        b.add(CudaNBits(given, [result], bits, block_size, zeros is not None, bias is not None))
        return [result]
    assert matmul is not None
    weights = b.new(a.dtype, (columns, depth))
    b.add(CudaUnpack(given[1:], [weights], bits, block_size, zeros is not None))
    product = replace(node, op_type="MatMul", domain="", attributes={})
    made = matmul(b, product, [a, weights.permuted((1, 0))])
    if made is None or made[0] is None or bias is None:
        return made
    return [b.map("add", [made[0], bias])]


@lowers_cuda("GatherBlockQuantized", domain="com.microsoft")
def _gather_block_quantized(b: Builder, node: Node, inputs: list[Tensor | None]) -> list[Tensor | None] | None:
    """Rows of a table. An index that is out of range refuses the run: the NumPy kernel makes zeros of it."""
    data, indices, scales, zeros = [*inputs, None][:4]
    get = node.attributes.get
    bits, block_size = get("bits", 4), get("block_size", 128)
    if data is None or indices is None or scales is None or len(data.shape) != 2 or len(scales.shape) != 2:
        return None
    if indices.element not in INDEX_TYPES or scales.element not in ("float32", "float16", "bfloat16"):
        return None
    if get("gather_axis", 0) not in (0, -2) or get("quantize_axis", 1) not in (1, -1) or bits not in (4, 8):
        return None
    per_byte = 8 // bits if data.dtype == np.uint8 else 1
    (n_rows, n_stored), n_blocks = data.shape, scales.shape[1]
    length = n_stored * per_byte
    if block_size < 16 or block_size & (block_size - 1) or length != n_blocks * block_size or scales.shape[0] != n_rows:
        return None
    if not indices.size or (data.dtype != np.uint8 and data.element not in ("int4", "uint4")):
        return None
    of_zeros = (n_rows, -(-n_blocks // per_byte))
    if zeros is not None and (zeros.dtype != data.dtype or zeros.shape != of_zeros):
        return None
    count = indices.size
    codes, factors, *points = [b.gathered(t, 0, indices) for t in (data, scales, zeros) if t is not None]
    if data.dtype == np.uint8:
        made = b.new(scales.dtype, (count, length))
        blocks = codes.reshaped((count, n_blocks, block_size // per_byte))
        b.add(CudaUnpack([blocks, factors, *points], [made], bits, block_size, bool(points)))
        return [made.reshaped((*indices.shape, length))]
    value = b.map("cast", [codes.reshaped((count, n_blocks, block_size))], np.float32)
    if points:
        value = b.map("sub", [value, b.map("cast", [points[0].reshaped((count, n_blocks, 1))], np.float32)])
    value = b.map("mul", [value, real(b, factors.reshaped((count, n_blocks, 1)))])
    value = value if scales.dtype == np.float32 else b.map("cast", [value], scales.dtype)
    return [value.reshaped((*indices.shape, length))]
