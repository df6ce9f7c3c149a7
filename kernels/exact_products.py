"""Exact integer products through floating-point BLAS.

A float sum of products of integers is exact while no partial sum can exceed the mantissa. The bound is
max|a| times the largest sum of |b| along the contracted axis; it holds for every order of summation.
"""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any

Array = Any

_EXACT_FLOAT32 = float(1 << 24)
_LARGEST = 255  # of 8 bits less a zero point


def exact_pair(xp: ModuleType, a: Array, b: Array, contracted: int | tuple[int, ...]) -> tuple[Array, Array]:
    """a and b, integers in float32, in the dtype in which sums of their products are exact.

    ``contracted`` are the axes of b that are summed over. 8-bit operands stay exact in float64 up to 2**36 terms.
    """
    if xp.__name__ != "numpy":  # the operands' largest values are asked for on no GPU: that would wait for it
        axes = contracted if isinstance(contracted, tuple) else (contracted,)
        if _LARGEST**2 * math.prod(b.shape[axis] for axis in axes) < _EXACT_FLOAT32:
            return a, b
        return a.astype(xp.float64), b.astype(xp.float64)
    largest = float(xp.abs(a).max(initial=0.0)) * float(xp.abs(b).sum(axis=contracted).max(initial=0.0))
    if largest < _EXACT_FLOAT32:
        return a, b
    return a.astype(xp.float64), b.astype(xp.float64)


def to_int32(xp: ModuleType, exact: Array) -> Array:
    """Integers held in floats, as int32; beyond its range they wrap, as int32 sums would."""
    if exact.dtype.itemsize == 4:
        return exact.astype(xp.int32)
    return exact.astype(xp.int64).astype(xp.int32)


def centred(xp: ModuleType, x: Array, zero_point: Array | None) -> Array:
    """x - zero_point in float32; the zero point broadcasts as it is."""
    result = x.astype(xp.float32)
    if zero_point is not None:
        result -= zero_point.astype(xp.float32)
    return result
