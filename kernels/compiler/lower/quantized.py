"""Products of 8-bit matrices with exact sums: MatMulInteger and its kin."""

from __future__ import annotations

import numpy as np

from distort.graph.ir import Node
from distort.kernels.compiler.builder import Builder, lowers
from distort.kernels.compiler.codegen import byte_dots as dots
from distort.kernels.compiler.ir import Tensor
from distort.kernels.compiler.quantized import QuantizedProduct, prepare_weights
from distort.kernels.convolve import windows_of_convolution
from distort.kernels.errors import Failed, InvalidInput

Result = list[Tensor | None] | None
BYTES = (np.uint8, np.int8)


def product(b: Builder, a: Tensor, w: Tensor, a_zero: Tensor | None, w_zero: Tensor | None) -> Tensor | None:
    """int32 [..., columns] of ``a`` [..., depth] · known ``w`` [depth, columns]. None where there is no such kernel."""
    if b.multiplies_bytes is not None:
        return b.multiplies_bytes(b, a, w, a_zero, w_zero)
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


def convolved(
    b: Builder, node: Node, x: Tensor, w: Tensor, zero: Tensor | None, w_zero: Tensor | None
) -> Tensor | None:
    """int32 result of a convolution by the node's attributes; None where there is no such kernel."""
    if x.dtype not in BYTES or w.dtype not in BYTES or len(x.shape) < 3 or not x.size:
        return None
    if zero is not None and (zero.size != 1 or zero.dtype != x.dtype):
        return None
    if w_zero is not None:
        if w_zero.dtype != w.dtype or w_zero.size not in (1, *w.shape[:1]):
            return None
        w_zero = b.contiguous(w_zero).reshaped(() if w_zero.size == 1 else (w_zero.size,))
    get = node.attributes.get
    kernel, strides, dilations, pads = (get(name) for name in ("kernel_shape", "strides", "dilations", "pads"))
    groups, auto_pad = get("group", 1), get("auto_pad", "NOTSET")
    try:
        windows = windows_of_convolution(x.shape, w.shape, groups, kernel, strides, dilations, pads, auto_pad)
    except (Failed, InvalidInput):
        return None  # the NumPy kernel says so, when it runs
    if zero is not None and zero.value is not None and not zero.value.any():
        zero = None
    return b.convolved_bytes(x, w, zero, w_zero, windows, groups)


@lowers("ConvInteger")
def _conv_integer(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    x, w, zero, w_zero = [*inputs, None, None][:4]
    if x is None or w is None:
        return None
    result = convolved(b, node, x, w, zero, w_zero)
    return None if result is None else [result]
