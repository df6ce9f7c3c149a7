"""Tensors scaled by their own norm or moments: LpNormalization, MeanVarianceNormalization."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from distort.kernels.errors import InvalidInput
from distort.kernels.ops.elementwise import rounded, working
from distort.kernels.ops.shape import axes_of, axis_of
from distort.kernels.registry import kernel

_EPSILON = 1e-9  # MeanVarianceNormalization's function body


@kernel("LpNormalization")
def lp_normalization(xp: Any, x: Any, *, axis: int = -1, p: int = 2) -> Any:
    """x / norm; 0 where the norm is 0."""
    if p not in (1, 2):
        raise InvalidInput(f"p is {p}, expected 1 or 2")
    axis = axis_of(axis, x.ndim)
    wide = working(xp, x)
    norm = xp.sum(xp.abs(wide) if p == 1 else wide * wide, axis=axis, keepdims=True)
    if p == 2:
        norm = xp.sqrt(norm)
    return rounded(xp, wide / xp.where(norm == 0, wide.dtype.type(1), norm), x)


@kernel("MeanVarianceNormalization", 9)
def mean_variance_normalization(xp: Any, x: Any, *, axes: Sequence[int] = (0, 2, 3)) -> Any:
    """(x - mean) / (standard deviation + 1e-9)."""
    over = axes_of(axes, x.ndim)
    wide = working(xp, x)
    centred = xp.asarray(wide - xp.mean(wide, axis=over, keepdims=True))
    deviation = xp.sqrt(xp.mean(centred * centred, axis=over, keepdims=True))
    centred /= deviation + wide.dtype.type(_EPSILON)
    return rounded(xp, centred, x)
