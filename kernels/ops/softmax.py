"""Softmax, LogSoftmax, Hardmax: over one axis since version 13, over all from an axis on before."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from distort.kernels.errors import InvalidInput
from distort.kernels.ops.elementwise import is_half
from distort.kernels.ops.shape import axis_of
from distort.kernels.registry import kernel

#: elements of rows normalized at once: the passes over them stay in the second cache
_BLOCK = 1 << 16


def _sum(xp: Any, x: Any, axis: int) -> Any:
    """Sums are made in float32 for the 16-bit floats, and are of x's dtype like every step of the standard's body."""
    if is_half(x):
        return xp.sum(x, axis=axis, keepdims=True, dtype=xp.float32).astype(x.dtype)
    return xp.sum(x, axis=axis, keepdims=True)


def _softmax(xp: Any, x: Any, axis: int, out: Any) -> None:
    xp.subtract(x, xp.max(x, axis=axis, keepdims=True), out=out)
    xp.exp(out, out=out)
    xp.divide(out, _sum(xp, out, axis), out=out)


def _log_softmax(xp: Any, x: Any, axis: int, out: Any) -> None:
    xp.subtract(x, xp.max(x, axis=axis, keepdims=True), out=out)
    xp.subtract(out, xp.log(_sum(xp, xp.exp(out), axis)), out=out)


def _hardmax(xp: Any, x: Any, axis: int, out: Any) -> None:
    """1 at the first largest element, 0 elsewhere."""
    places = xp.arange(x.shape[axis]).reshape((-1,) + (1,) * (x.ndim - 1 - axis))
    out[...] = places == xp.expand_dims(xp.argmax(x, axis=axis), axis)


def _along(xp: Any, x: Any, axis: int, formula: Callable[[Any, Any, int, Any], None]) -> Any:
    """The formula along one axis; large tensors a few rows at a time where the axis is the last."""
    out = xp.empty(x.shape, dtype=x.dtype)
    if x.size > _BLOCK and axis == x.ndim - 1 and xp is np and x.flags.c_contiguous:
        rows, results = (array.reshape(-1, x.shape[-1]) for array in (x, out))
        step = max(_BLOCK // x.shape[-1], 1)
        for start in range(0, len(rows), step):
            formula(xp, rows[start : start + step], 1, results[start : start + step])
    elif x.size:
        formula(xp, x, axis, out)
    return out


def _register(op_type: str, formula: Callable[[Any, Any, int, Any], None]) -> None:
    def body(xp: Any, x: Any, *, axis: int = -1) -> Any:
        if not x.ndim:
            return _along(xp, x.reshape(1), 0, formula).reshape(())
        return _along(xp, x, axis_of(axis, x.ndim), formula)

    def flattened(xp: Any, x: Any, *, axis: int = 1) -> Any:
        """Dimensions from ``axis`` on are one row."""
        rank = x.ndim
        if not -rank <= axis <= rank:
            raise InvalidInput(f"axis {axis} is out of range for rank {rank}")
        first = axis + rank if axis < 0 else axis
        rows = math.prod(x.shape[:first])
        return _along(xp, x.reshape(rows, math.prod(x.shape[first:])), 1, formula).reshape(x.shape)

    kernel(op_type, 13)(body)
    kernel(op_type, 1)(flattened)


_register("Softmax", _softmax)
_register("LogSoftmax", _log_softmax)
_register("Hardmax", _hardmax)
