"""com.microsoft MatMulNBits: weights stay packed. For a few rows they are decoded as they are read, for more before."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from distort.graph.ir import Node
from distort.kernels.compiler.builder import Builder
from distort.kernels.compiler.ir import Tensor
from distort.kernels.cuda.codegen.nbits import MOST_ROWS
from distort.kernels.cuda.lower import lowering_of, lowers_cuda
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
