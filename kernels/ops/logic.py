"""Comparisons, logic and bits: Equal, Less, Greater, And, Or, Xor, Not, Where, IsNaN, IsInf, Bitwise*, BitShift."""

from __future__ import annotations

from typing import Any

from distort.kernels.errors import InvalidInput
from distort.kernels.ops.elementwise import as_array, binary_ufunc, unary_ufunc, unbroadcastable
from distort.kernels.registry import kernel

for _op_type, _ufunc in (
    ("Equal", "equal"),
    ("Less", "less"),
    ("Greater", "greater"),
    ("And", "logical_and"),
    ("Or", "logical_or"),
    ("Xor", "logical_xor"),
):
    binary_ufunc(_op_type, _ufunc, old=(1,))

binary_ufunc("LessOrEqual", "less_equal", 12)
binary_ufunc("GreaterOrEqual", "greater_equal", 12)
binary_ufunc("BitwiseAnd", "bitwise_and", 18)
binary_ufunc("BitwiseOr", "bitwise_or", 18)
binary_ufunc("BitwiseXor", "bitwise_xor", 18)
unary_ufunc("BitwiseNot", "invert", 18)
unary_ufunc("Not", "logical_not")


@kernel("Where", 9)
def where(xp: Any, condition: Any, x: Any, y: Any) -> Any:
    try:
        return xp.where(condition, x, y).astype(x.dtype, copy=False)  # cupy's bfloat16 became float32
    except ValueError as error:
        raise unbroadcastable(error, condition, x, y) from error


@kernel("IsNaN", 9)
def is_nan(xp: Any, x: Any) -> Any:
    return as_array(xp, xp.isnan(x))


@kernel("IsInf", 10)
def is_inf(xp: Any, x: Any, *, detect_negative: int = 1, detect_positive: int = 1) -> Any:
    if not detect_negative and not detect_positive:
        return xp.zeros(x.shape, dtype=bool)
    infinite = xp.asarray(xp.isinf(x))
    if not (detect_negative and detect_positive):
        xp.logical_and(infinite, xp.signbit(x) != bool(detect_positive), out=infinite)
    return infinite


@kernel("BitShift", 11)
def bit_shift(xp: Any, x: Any, y: Any, *, direction: str) -> Any:
    """A signed x shifts arithmetically; shifts by the width or more, or below 0, leave sign bits (version 28)."""
    if direction not in ("LEFT", "RIGHT"):
        raise InvalidInput(f"direction is {direction!r}, expected LEFT or RIGHT")
    bits = 8 * x.dtype.itemsize
    if x.dtype.kind == "i":
        outside = xp.logical_or(y < 0, y >= bits)
        if direction == "RIGHT":
            return as_array(xp, xp.right_shift(x, xp.where(outside, bits - 1, y).astype(x.dtype)))
    else:
        outside = y >= bits
    if direction == "RIGHT":
        shifted = xp.right_shift(x, xp.where(outside, 0, y).astype(x.dtype))
    else:
        shifted = xp.left_shift(x, xp.where(outside, 0, y).astype(x.dtype))
    return xp.where(outside, x.dtype.type(0), shifted)
