"""Products and convolutions whose results are scaled, and perhaps quantized again: QLinearMatMul, QLinearConv, QGemm, …

A result is float32(sum) · factor, as in the NumPy kernels; where it is quantized: rounded half to even, plus the zero
point, saturated.
"""

from __future__ import annotations

import numpy as np

from distort.graph.ir import Node
from distort.kernels.compiler.builder import Builder, lowers
from distort.kernels.compiler.expression import Instruction
from distort.kernels.compiler.ir import Tensor
from distort.kernels.compiler.lower.quantization import divided, dynamic_range, real
from distort.kernels.compiler.lower.quantized import BYTES, convolved, product

Result = list[Tensor | None] | None
_MS = "com.microsoft"


def scalar(b: Builder, tensor: Tensor | None) -> Tensor | None:
    """One number as a tensor of rank 0; None where there are more, or none."""
    if tensor is None or tensor.size != 1:
        return None
    return b.contiguous(b.plain(tensor)).reshaped(())


def by_column(b: Builder, tensor: Tensor | None, columns: int) -> Tensor | None:
    """One number, or one for each column; None where it is neither."""
    found = scalar(b, tensor)
    if found is not None or tensor is None:
        return found
    return tensor if tensor.shape == (columns,) else None


def combined(b: Builder, op: str, x: Tensor, y: Tensor) -> Tensor:
    """float32 by a ufunc's name (``multiply``, ``divide``), at once where both are known."""
    if x.value is not None and y.value is not None:
        return b.constant(np.asarray(getattr(np, op)(x.value, y.value), np.float32))
    return b.map({"multiply": "mul", "divide": "div"}[op], [x, y])


def requantized(b: Builder, total: Tensor, factor: Tensor, zero: Tensor | None, dtype: np.dtype[np.generic]) -> Tensor:
    """float32(total) · factor, rounded, plus zero, saturated."""
    y = b.map("mul", [b.map("cast", [total], np.float32), factor])
    zero = b.constant(np.zeros((), np.float32)) if zero is None else real(b, zero)
    return b.map("", [y, zero], dtype, body=[Instruction("saturate", (0, 1), np.dtype(dtype).name)])


def _float32(*tensors: Tensor | None) -> bool:
    return all(t is None or t.dtype == np.float32 for t in tensors)


@lowers("QLinearMatMul")
def _qlinear_matmul(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    a, a_scale, a_zero, w, w_scale, w_zero, y_scale, y_zero = inputs
    if a is None or w is None or y_zero is None or y_zero.dtype not in BYTES or len(w.shape) < 2:
        return None
    if any(t is None or t.element not in ("float32", "float16", "bfloat16") for t in (a_scale, w_scale, y_scale)):
        return None
    scales = scalar(b, a_scale), by_column(b, w_scale, w.shape[-1]), scalar(b, y_scale)
    zero = scalar(b, y_zero)
    if any(s is None for s in scales) or zero is None:
        return None
    of_a, of_w, of_y = scales
    assert of_a is not None and of_w is not None and of_y is not None
    of_a, of_w, of_y = real(b, of_a), real(b, of_w), real(b, of_y)
    total = product(b, a, w, a_zero, w_zero)
    if total is None:
        return None
    factor = combined(b, "divide", combined(b, "multiply", of_a, of_w), of_y)
    return [requantized(b, total, factor, zero, y_zero.dtype)]


@lowers("QLinearConv")
@lowers("QLinearConv", domain=_MS)
def _qlinear_conv(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero, bias = [*inputs, None][:9]
    if x is None or w is None or y_zero is None or y_zero.dtype not in BYTES or not w.shape:
        return None
    if not _float32(x_scale, w_scale, y_scale) or (bias is not None and bias.dtype != np.int32):
        return None
    filters = w.shape[0]
    of_x, of_w, of_y = scalar(b, x_scale), by_column(b, w_scale, filters), scalar(b, y_scale)
    zero = scalar(b, y_zero)
    if of_x is None or of_w is None or of_y is None or zero is None:
        return None
    if bias is not None and bias.shape != (filters,):
        return None
    last = bool(node.attributes.get("channels_last", 0))
    rank = len(x.shape)
    if last:
        x = b.plain(x).permuted([0, rank - 1, *range(1, rank - 1)])
    total = convolved(b, node, x, w, x_zero, w_zero)
    if total is None:
        return None
    factor = combined(b, "divide", combined(b, "multiply", of_x, of_w), of_y)
    shape = (-1, *(1,) * (rank - 2))
    if factor.size == filters and factor.shape:
        factor = b.contiguous(factor).reshaped((filters, *shape[1:]))
    if bias is not None:
        total = b.map("add", [total, b.contiguous(bias).reshaped((filters, *shape[1:]))])
    y = requantized(b, total, factor, zero, y_zero.dtype)
    return [y.permuted([0, *range(2, rank), 1]) if last else y]


def scaled(
    b: Builder,
    a: Tensor,
    w: Tensor,
    scales: tuple[Tensor | None, Tensor | None],
    zeros: tuple[Tensor | None, Tensor | None],
    bias: Tensor | None,
) -> Tensor | None:
    """float32(sum) · (scale of a · scale of w) + bias. None where there is no such kernel."""
    if len(w.shape) != 2 or not _float32(*scales, bias):
        return None
    of_a, of_w = scalar(b, scales[0]), by_column(b, scales[1], w.shape[1])
    if of_a is None or of_w is None or (bias is not None and bias.shape != (w.shape[1],)):
        return None
    total = product(b, a, w, *zeros)
    if total is None:
        return None
    y = b.map("mul", [b.map("cast", [total], np.float32), combined(b, "multiply", of_a, of_w)])
    return y if bias is None else b.map("add", [y, bias])


@lowers("MatMulIntegerToFloat", domain=_MS)
def _matmul_integer_to_float(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    a, w, a_scale, w_scale, a_zero, w_zero, bias = [*inputs, None, None, None][:7]
    if a is None or w is None:
        return None
    y = scaled(b, a, w, (a_scale, w_scale), (a_zero, w_zero), bias)
    return None if y is None else [y]


@lowers("DynamicQuantizeMatMul", domain=_MS)
def _dynamic_quantize_matmul(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    a, w, w_scale, w_zero, bias = [*inputs, None, None][:5]
    if a is None or w is None or a.dtype != np.float32 or not a.size:
        return None
    a = b.contiguous(b.plain(a))
    scale, inverse, zero, narrow_zero = dynamic_range(b, a)
    narrow = divided(b, a, scale, inverse, zero, np.dtype(np.uint8))
    y = scaled(b, narrow, w, (scale, w_scale), (narrow_zero, w_zero), bias)
    return None if y is None else [y]


@lowers("QGemm", domain=_MS)
def _qgemm(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    a, a_scale, a_zero, w, w_scale, w_zero, c, y_scale, y_zero = [*inputs, None, None, None][:9]
    if a is None or w is None or len(a.shape) != 2 or len(w.shape) != 2 or not _float32(a_scale, w_scale, y_scale):
        return None
    if y_zero is not None and (y_zero.dtype not in BYTES or y_zero.size != 1):
        return None
    a = b.plain(a).permuted([1, 0]) if node.attributes.get("transA", 0) else a
    w = w.permuted([1, 0]) if node.attributes.get("transB", 0) else w
    columns = w.shape[1]
    of_a, of_w = scalar(b, a_scale), by_column(b, w_scale, columns)
    of_y = None if y_scale is None else scalar(b, y_scale)
    if of_a is None or of_w is None or (y_scale is not None and of_y is None):
        return None
    if c is not None and (c.dtype != np.int32 or len(c.shape) > 2):
        return None
    shape = (a.shape[0], columns)
    if c is not None and any(n not in (1, m) for n, m in zip(c.shape[::-1], shape[::-1], strict=False)):
        return None
    total = product(b, a, w, a_zero, w_zero)
    if total is None:
        return None
    if c is not None:
        total = b.map("add", [total, c])
    alpha = b.constant(np.asarray(node.attributes.get("alpha", 1.0), np.float32))
    factor = combined(b, "multiply", combined(b, "multiply", alpha, of_a), of_w)
    if of_y is None:
        return [b.map("mul", [b.map("cast", [total], np.float32), factor])]
    dtype = a.dtype if y_zero is None else y_zero.dtype
    return [requantized(b, total, combined(b, "divide", factor, of_y), scalar(b, y_zero), dtype)]
