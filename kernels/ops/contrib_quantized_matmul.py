"""onnxruntime's products of quantized matrices: QGemm, DynamicQuantizeMatMul, MatMulIntegerToFloat, MatMulBnb4, ...

Integer products are exact (``exact_products``).
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np

from distort.kernels.errors import InvalidInput
from distort.kernels.exact_products import centred, exact_pair
from distort.kernels.ops.contrib_matmul import unpacked
from distort.kernels.ops.matmul import is_narrow, product
from distort.kernels.ops.quantization import dequantize_linear, dynamic_quantize_linear, quantize_linear, saturated
from distort.kernels.ops.shape import axis_of
from distort.kernels.registry import kernel

Array = Any
_MS = "com.microsoft"


def _exact_matmul(xp: ModuleType, a: Array, b: Array) -> Array:
    """Integers in float32, multiplied without a rounding, as float32."""
    if a.ndim == 0 or b.ndim == 0 or a.shape[-1] != b.shape[-2 if b.ndim > 1 else 0]:
        raise InvalidInput(f"matmul dimensions don't match: {list(a.shape)} and {list(b.shape)}")
    return xp.asarray(xp.matmul(*exact_pair(xp, a, b, -2 if b.ndim > 1 else 0)))


def _by_column(value: Array | None, columns: int, name: str) -> Array | None:
    """A scale or zero point of the whole matrix, or of each column (leading axes of size 1 or batches stay)."""
    if value is None:
        return None
    if value.size == 1:
        return value.reshape(())
    if value.shape[-1] != columns:
        raise InvalidInput(f"{name} of shape {list(value.shape)} for {columns} columns")
    return value


@kernel("QGemm", domain=_MS)
def q_gemm(
    xp: ModuleType,
    a: Array,
    a_scale: Array,
    a_zero_point: Array,
    b: Array,
    b_scale: Array,
    b_zero_point: Array,
    c: Array | None = None,
    y_scale: Array | None = None,
    y_zero_point: Array | None = None,
    *,
    alpha: float = 1.0,
    transA: int = 0,
    transB: int = 0,
) -> Array:
    """float32 where no scale of the result is given. c: int32, in the scale of the product."""
    if a.ndim != 2 or b.ndim != 2:
        raise InvalidInput(f"QGemm takes matrices, not {list(a.shape)} and {list(b.shape)}")
    left, right = (a.T if transA else a), (b.T if transB else b)
    columns = right.shape[1]
    left = centred(xp, left, a_zero_point.reshape(()) if a_zero_point.size == 1 else a_zero_point)
    right = centred(xp, right, _by_column(b_zero_point, columns, "b_zero_point"))
    total = _exact_matmul(xp, left, right).astype(xp.float64)
    if c is not None:
        try:
            total = total + xp.broadcast_to(c, total.shape)
        except ValueError:
            raise InvalidInput(f"C of shape {list(c.shape)} for a product of shape {list(total.shape)}") from None
    factor = xp.float32(alpha) * a_scale.reshape(()) * _by_column(b_scale, columns, "b_scale")
    if y_scale is None:
        return (total.astype(xp.float32) * factor).astype(a_scale.dtype, copy=False)
    dtype = a.dtype if y_zero_point is None else y_zero_point.dtype
    y = xp.rint(total.astype(xp.float32) * (factor / y_scale.reshape(())))
    if y_zero_point is not None:
        y = y + y_zero_point.reshape(()).astype(xp.float32)
    return xp.asarray(saturated(xp, y.astype(xp.float32, copy=False), np.dtype(dtype)))


@kernel("MatMulIntegerToFloat", domain=_MS)
def matmul_integer_to_float(
    xp: ModuleType,
    a: Array,
    b: Array,
    a_scale: Array,
    b_scale: Array,
    a_zero_point: Array | None = None,
    b_zero_point: Array | None = None,
    bias: Array | None = None,
) -> Array:
    columns = b.shape[-1] if b.ndim else 0
    left = centred(xp, a, None if a_zero_point is None else a_zero_point.reshape(()))
    right = centred(xp, b, _by_column(b_zero_point, columns, "b_zero_point"))
    y = _exact_matmul(xp, left, right).astype(xp.float32, copy=False)
    y = y * (a_scale.reshape(()) * _by_column(b_scale, columns, "b_scale"))
    if bias is not None:
        if bias.shape != (columns,):
            raise InvalidInput(f"bias of shape {list(bias.shape)} for {columns} columns")
        y = y + bias
    return xp.asarray(y).astype(a_scale.dtype, copy=False)


@kernel("DynamicQuantizeMatMul", domain=_MS)
def dynamic_quantize_matmul(
    xp: ModuleType,
    a: Array,
    b: Array,
    b_scale: Array,
    b_zero_point: Array | None = None,
    bias: Array | None = None,
) -> Array:
    """a is quantized to uint8 by its range on the way in."""
    quantized, scale, zero_point = dynamic_quantize_linear(xp, a)
    return matmul_integer_to_float(xp, quantized, b, scale, b_scale, zero_point, b_zero_point, bias)


@kernel("MatMulInteger16", domain=_MS)
def matmul_integer_16(xp: ModuleType, a: Array, b: Array) -> Array:
    """int16 or uint16; sums wrap as those of int32 do."""
    left, right = a.astype(xp.float64), b.astype(xp.float64)  # exact for 2**21 terms
    if a.ndim == 0 or b.ndim == 0 or a.shape[-1] != b.shape[-2 if b.ndim > 1 else 0]:
        raise InvalidInput(f"matmul dimensions don't match: {list(a.shape)} and {list(b.shape)}")
    wrapped = xp.asarray(xp.matmul(left, right)).astype(xp.int64)
    return wrapped.astype(xp.uint32 if a.dtype.kind == b.dtype.kind == "u" else xp.int32)


@kernel("QuantizeLinear", domain=_MS)
def quantize_linear_ms(
    xp: ModuleType, x: Array, y_scale: Array, y_zero_point: Array | None = None, *, axis: int = 1
) -> Array:
    return quantize_linear(xp, x, y_scale, y_zero_point, axis=axis)


@kernel("DequantizeLinear", domain=_MS)
def dequantize_linear_ms(
    xp: ModuleType, x: Array, x_scale: Array, x_zero_point: Array | None = None, *, axis: int = 1
) -> Array:
    return dequantize_linear(xp, x, x_scale, x_zero_point, axis=axis)


@kernel("GatherBlockQuantized", domain=_MS)
def gather_block_quantized(
    xp: ModuleType,
    data: Array,
    indices: Array,
    scales: Array,
    zero_points: Array | None = None,
    *,
    bits: int = 4,
    block_size: int = 128,
    gather_axis: int = 0,
    quantize_axis: int = 1,
) -> Array:
    """Gather, then dequantize what was gathered. An index out of range gives zeros."""
    is_float = data.dtype.name.startswith("float")
    if not is_float and (block_size < 16 or block_size & (block_size - 1)):
        raise InvalidInput(f"block_size is {block_size}, expected a power of 2 from 16 on")
    if is_float and zero_points is not None:
        raise InvalidInput(f"zero_points are not for data of {data.dtype}")
    gather, quantized = axis_of(gather_axis, data.ndim), axis_of(quantize_axis, data.ndim)
    is_packed = data.dtype == xp.uint8 and bits < 8
    if data.dtype == xp.uint8 and (bits not in (2, 4, 8) or gather != 0):
        raise InvalidInput(f"uint8 data with {bits} bits gathered along axis {gather_axis}: expected 2, 4 or 8 and 0")
    if gather == quantized and (is_packed or not is_float):
        raise InvalidInput(f"gather_axis and quantize_axis are both {gather_axis}")
    size = data.shape[gather]
    inside = (indices >= -size) & (indices < size)
    safe = xp.where(inside, indices, 0)

    def gathered(values: Array) -> Array:
        return values if values.shape[gather] == 1 != size else xp.take(values, safe, axis=gather)

    wide = gathered(data)
    if is_packed:
        wide = unpacked(xp, xp.ascontiguousarray(wide), bits)
    # the quantized axis, counted from the back, is the same before and after
    back = quantized - data.ndim if quantized > gather else quantized
    wide = wide.astype(xp.float32)
    length = wide.shape[back]
    block = block_size or length
    picked = gathered(scales).astype(xp.float32)
    if scales.ndim != data.ndim or picked.shape[back] not in (1, -(-length // block)):
        raise InvalidInput(
            f"scales of shape {list(scales.shape)} for data of shape {list(data.shape)} in blocks of {block}"
        )

    def spread(values: Array) -> Array:
        if values.shape[back] == 1:
            return values
        repeated = xp.repeat(values, block, axis=back)
        return xp.moveaxis(xp.moveaxis(repeated, back, 0)[:length], 0, back)

    if scales.shape[gather] == 1 != size:  # one scale for every row: it stands where the indices' axes do
        picked = xp.expand_dims(xp.squeeze(picked, gather), tuple(range(gather, gather + indices.ndim)))
    if zero_points is not None:
        zeros = gathered(zero_points)
        if is_packed:
            zeros = unpacked(xp, xp.ascontiguousarray(zeros), bits)
            zeros = xp.moveaxis(xp.moveaxis(zeros, back, 0)[: picked.shape[back]], 0, back)
        wide -= spread(zeros.astype(xp.float32))
    elif data.dtype == xp.uint8:
        wide -= xp.float32(1 << (bits - 1))
    wide *= spread(picked)
    outside = xp.expand_dims(~inside, tuple(range(-(data.ndim - 1 - gather), 0))) if gather < data.ndim - 1 else ~inside
    if not bool(inside.all()):
        wide = xp.where(outside, xp.float32(0), wide)
    return wide.astype(scales.dtype, copy=False)


#: 4-bit codes of bitsandbytes: FP4 by its own order of codes, NF4 by quantiles of the normal distribution
_FP4 = (0.0, 0.005208333, 0.6666667, 1.0, 0.33333334, 0.5, 0.16666667, 0.25)
_NF4 = (
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
    *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
    *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
    *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
)
BNB4_CODES = {0: (*_FP4, *(-value for value in _FP4)), 1: _NF4}


@kernel("MatMulBnb4", domain=_MS)
def matmul_bnb4(
    xp: ModuleType,
    a: Array,
    b: Array,
    absmax: Array,
    *,
    K: int,
    N: int,
    block_size: int,
    quant_type: int,
    training_mode: int = 0,
    transB: int = 1,
) -> Array:
    """b: uint8 [ceil(N * K / 2)], codes of the weights [N, K], the first in the high bits; absmax: one a block."""
    if quant_type not in BNB4_CODES or block_size < 16 or block_size & (block_size - 1):
        raise InvalidInput(f"MatMulBnb4 of quant_type {quant_type} in blocks of {block_size}")
    n_weights = N * K
    if b.size != (n_weights + 1) // 2 or absmax.size != -(-n_weights // block_size):
        raise InvalidInput(f"MatMulBnb4 of {b.size} bytes and {absmax.size} scales for K {K}, N {N}")
    if a.shape[-1] != (K if transB else N):
        raise InvalidInput(f"MatMulBnb4 of {list(a.shape)} with weights [{N}, {K}]")
    codes = xp.stack([b >> 4, b & 15], axis=-1).reshape(-1)[:n_weights]
    table = xp.asarray(BNB4_CODES[quant_type], dtype=xp.float32)
    scales = xp.repeat(absmax.reshape(-1).astype(xp.float32), block_size)[:n_weights]
    weights = (table[codes] * scales).reshape(N, K)
    wide = a.astype(xp.float32) if is_narrow(a.dtype) else a
    return product(xp, wide, weights.T if transB else weights).astype(a.dtype, copy=False)
