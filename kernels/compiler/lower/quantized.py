"""Products of 8-bit matrices with exact sums: MatMulInteger and its kin."""

from __future__ import annotations

import numpy as np

from distort.graph.ir import Node
from distort.kernels.compiler.builder import Builder, lowers
from distort.kernels.compiler.codegen import byte_dots as dots
from distort.kernels.compiler.ir import Tensor
from distort.kernels.compiler.quantized import QuantizedProduct, prepare_weights

Result = list[Tensor | None] | None
BYTES = (np.uint8, np.int8)


def product(b: Builder, a: Tensor, w: Tensor, a_zero: Tensor | None, w_zero: Tensor | None) -> Tensor | None:
    """int32 [..., columns] of ``a`` [..., depth] · known ``w`` [depth, columns]. None where there is no such kernel."""
    if a.dtype not in BYTES or w.dtype not in BYTES or w.value is None or len(w.shape) != 2 or not a.shape:
        return None
    depth, columns = w.shape
    if a.shape[-1] != depth or depth < dots.group_of(dots.mode_of(b.target)) or not a.size or not w.size:
        return None
    if a_zero is not None and (a_zero.size != 1 or a_zero.dtype != a.dtype):
        return None
    if w_zero is not None and (w_zero.value is None or w_zero.dtype != w.dtype):
        return None
    if w_zero is not None and w_zero.size != 1 and w_zero.shape != (columns,):
        return None
    if w_zero is not None and w_zero.size == 1:
        w_zero = b.constant(w_zero.value.reshape(()))  # type: ignore[union-attr]  # it has one
    a = b.plain(a)
    if depth != 1 and a.strides[-1] != 1:
        a = b.contiguous(a)
    weights = prepare_weights(b, w, w_zero)
    if a_zero is not None and a_zero.value is not None and not a_zero.value.any():
        a_zero = None
    shape = (*a.shape[:-1], columns)
    rows = a.view(shape, (*a.strides[:-1], 0))
    if len(shape) > 4:
        return None
    result = b.new(np.int32, shape)
    inputs = [a] if a_zero is None else [a, a_zero]
    b.add(QuantizedProduct(inputs, [result], weights, rows, a_zero))
    return result


@lowers("MatMulInteger")
def _matmul_integer(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    a, w, a_zero, w_zero = [*inputs, None, None][:4]
    if a is None or w is None:
        return None
    result = product(b, a, w, a_zero, w_zero)
    return None if result is None else [result]
