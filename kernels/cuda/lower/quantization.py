"""QuantizeLinear and DequantizeLinear, also by blocks and with scales in half precision, and DynamicQuantizeLinear.

All is element-wise work and row operations. Computed in float32, whatever the scale's type.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from distort.graph.ir import Node
from distort.kernels.compiler.builder import Builder
from distort.kernels.compiler.ir import Tensor
from distort.kernels.compiler.lower.quantization import NARROW, along, divided, real
from distort.kernels.compiler.rows import Body
from distort.kernels.cuda.codegen.narrow import FLOATS
from distort.kernels.cuda.codegen.narrow import NARROW as SMALL
from distort.kernels.cuda.lower import lowers_cuda
from distort.kernels.cuda.lower.reductions import parts_of
from distort.kernels.cuda.packed_weights import unpacked
from distort.kernels.ops.elementwise import dtype_of
from distort.kernels.ops.quantization import dequantize_linear

Result = list[Tensor | None] | None
_MS = "com.microsoft"
_REALS = ("float32", "float16", "bfloat16")


def _holds(dtype: np.dtype[Any]) -> bool:
    """Whether numbers are quantized to a dtype here."""
    return dtype in NARROW or dtype.name in SMALL


def _by_blocks(
    b: Builder, node: Node, x: Tensor, parameters: list[Tensor | None]
) -> tuple[Tensor, list[Tensor | None]] | None:
    """x and what broadcasts to it: x with an axis as [blocks, block], if there are any. None where they don't fit."""
    axis, size = node.attributes.get("axis", 1), node.attributes.get("block_size", 0)
    rank = len(x.shape)
    if not size:
        made = [None if t is None else along(b, t, x, axis) for t in parameters]
        return None if any(t is not None and m is None for t, m in zip(parameters, made, strict=True)) else (x, made)
    if not -rank <= axis < rank or size < 1 or x.shape[axis] % size:
        return None
    axis %= rank
    n_blocks = x.shape[axis] // size
    if any(t is not None and t.shape != (*x.shape[:axis], n_blocks, *x.shape[axis + 1 :]) for t in parameters):
        return None
    apart = (*x.shape[:axis], n_blocks, size, *x.shape[axis + 1 :])
    one = (*x.shape[:axis], n_blocks, 1, *x.shape[axis + 1 :])
    return b.contiguous(x).reshaped(apart), [None if t is None else b.contiguous(t).reshaped(one) for t in parameters]


def _is_zero(known: Tensor) -> bool:
    return known.value is not None and not known.value.astype(np.float32).any()


def _fits(zero: Tensor | None, scale: Tensor) -> bool:
    return zero is None or zero.shape == scale.shape or (zero.size, scale.size) == (1, 1)


@lowers_cuda("QuantizeLinear")
@lowers_cuda("QuantizeLinear", domain=_MS)
def _quantize(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    x, scale, zero = [*inputs, None][:3]
    get = node.attributes.get
    if x is None or scale is None or x.element not in _REALS or scale.element not in _REALS or not _fits(zero, scale):
        return None
    wanted = get("output_dtype", 0)
    dtype = zero.dtype if zero is not None else dtype_of(wanted or 2)
    if not _holds(dtype) or (wanted and dtype != dtype_of(wanted)) or get("precision", 0) not in (0, 1):
        return None
    found = _by_blocks(b, node, x, [scale, zero])
    if found is None:
        return None
    seen, (by, plus) = found
    assert by is not None
    if dtype.name in FLOATS:
        value = b.map("div", [real(b, seen), real(b, by)])
        value = value if plus is None or _is_zero(plus) else b.map("add", [value, real(b, plus)])
        return [b.map("cast", [value], dtype, (bool(get("saturate", 1)),)).reshaped(x.shape)]
    plus = b.constant(np.zeros((), np.float32)) if plus is None else real(b, plus)
    return [divided(b, real(b, seen), real(b, by), None, plus, dtype).reshaped(x.shape)]


@lowers_cuda("DequantizeLinear")
@lowers_cuda("DequantizeLinear", domain=_MS)
def _dequantize(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    x, scale, zero = [*inputs, None][:3]
    get = node.attributes.get
    if x is None or scale is None or scale.element not in _REALS or not _fits(zero, scale):
        return None
    if not (_holds(x.dtype) or x.dtype == np.int32) or (zero is not None and zero.dtype != x.dtype):
        return None
    dtype = dtype_of(get("output_dtype", 0)) if get("output_dtype", 0) else scale.dtype
    if dtype.name not in _REALS:
        return None
    known = [None if t is None else t.value for t in (x, scale, zero)]
    if known[0] is not None and known[1] is not None and (zero is None or known[2] is not None):
        if get("block_size", 0) and dtype == scale.dtype:
            kept = unpacked(b, node, x, scale, zero, get("axis", 1), get("block_size", 0))
            if kept is not None:
                return [kept]
        # weights: made once
        given = {name: get(name, default) for name, default in (("axis", 1), ("block_size", 0), ("output_dtype", 0))}
        name = tuple(b.source(t) for t in (x, scale, zero) if t is not None)
        key = ("dequantized for a GPU", tuple(given.items()), name)
        return [b.packed(key, lambda: dequantize_linear(np, *known, **given))]
    zero = None if zero is not None and _is_zero(zero) else zero
    if zero is not None and x.dtype == np.int32:
        return None  # float32 does not hold every difference
    found = _by_blocks(b, node, x, [scale, zero])
    if found is None:
        return None
    seen, (by, minus) = found
    assert by is not None
    value = b.map("cast", [seen], np.float32)
    if minus is not None:
        value = b.map("sub", [value, real(b, minus)])
    value = b.map("mul", [value, real(b, by)])
    if dtype != np.float32:
        value = b.map("cast", [value], dtype)
    return [value.reshaped(x.shape)]


@lowers_cuda("DynamicQuantizeLinear")
def _dynamic_quantize(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    (x,) = inputs
    return None if x is None else dynamically_quantized(b, x)


def dynamically_quantized(b: Builder, x: Tensor) -> Result:
    """float32 x in uint8, its scale and its zero point: over all of it, as DynamicQuantizeLinear does."""
    if x.dtype != np.float32 or not x.size:
        return None
    low = high = flat = b.contiguous(x).reshaped((1, x.size))
    parts = parts_of(1, x.size)
    if parts > 1:
        body = Body((parts, x.size // parts), "float32")
        element = body.input(flat.reshaped(body.shape))
        ends = [(body.op(op, element), "float32", True) for op in ("row_min", "row_max")]
        some = body.add(b, (1,), ends)
        if some is None:
            return None
        low, high = (t.reshaped((1, parts)) for t in some)
    body = Body(low.shape, "float32")
    places = [body.input(low), body.input(high) if high is not low else 0]
    none, most, one = (body.number(number) for number in (0.0, 255.0, 1.0))
    least = body.op("min", body.op("row_min", places[0]), none)
    largest = body.op("max", body.op("row_max", places[1]), none)
    level = body.op("equal", largest, least, dtype="bool")
    scale = body.op("where", level, one, body.op("div", body.op("sub", largest, least), most))
    zero = body.op("saturate", body.op("div", body.op("neg", least), scale), none, dtype="uint8")
    made = body.add(b, (1,), [(scale, "float32", True), (zero, "uint8", True)])
    if made is None:
        return None
    of_all = [t.reshaped(()) for t in made]
    y = divided(b, x, of_all[0], None, real(b, of_all[1]), np.dtype(np.uint8))
    return [y, *of_all]
