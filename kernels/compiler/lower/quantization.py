"""QuantizeLinear, DequantizeLinear and DynamicQuantizeLinear as element-wise work."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from distort.graph.ir import Node
from distort.kernels.compiler.builder import Builder, lowers
from distort.kernels.compiler.expression import Instruction
from distort.kernels.compiler.ir import Call, Native, Tensor
from distort.kernels.compiler.keys import Key
from distort.kernels.ops.elementwise import dtype_of
from distort.kernels.ops.quantization import dequantize_linear

Result = list[Tensor | None] | None
#: dtypes that float32 holds, and that values are saturated to
NARROW = (np.dtype(np.uint8), np.dtype(np.int8), np.dtype(np.uint16), np.dtype(np.int16))
#: elements that one thread looks through at once
_PART = 1 << 14
_MS = "com.microsoft"


def along(b: Builder, parameter: Tensor, x: Tensor, axis: int) -> Tensor | None:
    """A scale or zero point in a shape that broadcasts to x: one for all, or one for each entry of an axis."""
    if parameter.size == 1 and len(parameter.shape) <= 1:
        return b.plain(parameter).reshaped(())
    rank = len(x.shape)
    if not -rank <= axis < rank or parameter.shape != (x.shape[axis],):
        return None
    parameter = b.contiguous(parameter)
    return parameter.reshaped((parameter.size, *(1,) * (rank - 1 - axis % rank)))


def real(b: Builder, tensor: Tensor) -> Tensor:
    """As float32."""
    if tensor.dtype == np.float32:
        return tensor
    if tensor.value is not None:
        return b.constant(tensor.value.astype(np.float32))
    return b.map("cast", [tensor], np.float32)


def quantized(b: Builder, x: Tensor, scale: Tensor, zero: Tensor | None, dtype: np.dtype[np.generic]) -> Tensor:
    """float32 x by scales and zero points (float32, or of a narrow dtype) that broadcast to it."""
    inverse = None
    if scale.value is not None and bool(np.all((scale.value > 2.0**-100) & (scale.value < 2.0**100))):
        inverse = b.constant(np.float32(1) / scale.value)
    zero = b.constant(np.zeros((), np.float32)) if zero is None else real(b, zero)
    return divided(b, x, scale, inverse, zero, dtype)


def divided(
    b: Builder, x: Tensor, scale: Tensor, inverse: Tensor | None, zero: Tensor, dtype: np.dtype[np.generic]
) -> Tensor:
    """x / scale, rounded, plus zero, saturated; all float32. ``inverse``: 1 / scale, where it is known to be exact."""
    name = np.dtype(dtype).name
    if inverse is None:
        body = [Instruction("div", (0, 1), "float32"), Instruction("saturate", (3, 2), name)]
        return b.map("", [x, scale, zero], dtype, body=body)
    body = [Instruction("quotient", (0, 1, 2), "float32"), Instruction("saturate", (4, 3), name)]
    return b.map("", [x, scale, inverse, zero], dtype, body=body)


def _same_size(zero: Tensor | None, scale: Tensor) -> bool:
    return zero is None or zero.shape == scale.shape or (zero.size, scale.size) == (1, 1)


@lowers("QuantizeLinear")
@lowers("QuantizeLinear", domain=_MS)
def _quantize(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    x, scale, zero = [*inputs, None][:3]
    attributes = node.attributes
    if x is None or scale is None or x.dtype != np.float32 or scale.dtype != np.float32 or not _same_size(zero, scale):
        return None
    if attributes.get("block_size", 0) or attributes.get("precision", 0) not in (0, 1):
        return None
    wanted = attributes.get("output_dtype", 0)
    dtype = zero.dtype if zero is not None else dtype_of(wanted or 2)
    if dtype not in NARROW or (wanted and dtype != dtype_of(wanted)):
        return None
    axis = attributes.get("axis", 1)
    scale = along(b, scale, x, axis)
    zero = None if zero is None else along(b, zero, x, axis)
    return None if scale is None else [quantized(b, x, scale, zero, dtype)]


@lowers("DequantizeLinear")
@lowers("DequantizeLinear", domain=_MS)
def _dequantize(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    x, scale, zero = [*inputs, None][:3]
    attributes = node.attributes
    if x is None or scale is None or scale.dtype != np.float32 or not _same_size(zero, scale):
        return None
    if attributes.get("block_size", 0) or attributes.get("output_dtype", 0) not in (0, 1):
        return None
    if x.dtype not in (*NARROW, np.dtype(np.int32)) or (zero is not None and zero.dtype != x.dtype):
        return None
    axis = attributes.get("axis", 1)
    known = [None if t is None else t.value for t in (x, scale, zero)]
    small = along(b, scale, x, axis)
    if small is None:
        return None
    if known[0] is not None and known[1] is not None and (zero is None or known[2] is not None):
        # weights: made once
        name = tuple(b.source(t) for t in (x, scale, zero) if t is not None)
        return [b.packed(("dequantized", axis, *name), lambda: dequantize_linear(np, *known, axis=axis))]
    if zero is not None and zero.value is not None and not zero.value.any():
        zero = None
    if zero is not None:
        zero = along(b, zero, x, axis)
        if zero is None or x.dtype == np.int32:
            return None  # float32 does not hold every difference
    wide = b.map("cast", [x], np.float32)
    if zero is not None:
        wide = b.map("sub", [wide, real(b, zero)])
    return [b.map("mul", [wide, small])]


@lowers("DynamicQuantizeLinear")
def _dynamic_quantize(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    (x,) = inputs
    if x is None or x.dtype != np.float32 or not x.size:
        return None
    x = b.contiguous(b.plain(x))
    scale, inverse, zero, narrow_zero = dynamic_range(b, x)
    return [divided(b, x, scale, inverse, zero, np.dtype(np.uint8)), scale, narrow_zero]


def dynamic_range(b: Builder, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Scale, its reciprocal and the zero point (float32, and uint8) of contiguous float32 x, made as it runs."""
    made = tuple(b.new(dtype, ()) for dtype in (np.float32, np.float32, np.float32, np.uint8))
    n_parts = math.ceil(x.size / _PART)
    targets = [t.address() for t in made]
    parts = b.new(np.float32, (n_parts, 2))
    words: list[Any] = [n_parts, _PART, x.size, x.address(), parts.address()]
    if n_parts == 1:
        b.add(Native([x], list(made), [Call(Key("range", (True,)), [*words, *targets], x.size * 0.06, most_threads=1)]))
    else:
        b.add(Native([x], [parts], [Call(Key("range", (False,)), words, x.size * 0.06, most_threads=n_parts)]))
        b.add(
            Native(
                [parts], list(made), [Call(Key("range_end", ()), [n_parts, parts.address(), *targets], n_parts * 2.0)]
            )
        )
    return made  # type: ignore[return-value]  # of four
