"""Reductions along axes: Reduce*, ArgMax, ArgMin, CumSum, CumProd."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from distort.kernels.ops.elementwise import is_half, rounded, working
from distort.kernels.ops.shape import axes_of, axis_of
from distort.kernels.registry import kernel

#: (xp, x, axes, keepdims) -> reduced; x is no 16-bit float
_Formula = Callable[[Any, Any, tuple[int, ...], bool], Any]


def _register(op_type: str, formula: _Formula, *, widen: bool = True) -> None:
    """``widen``: 16-bit floats accumulate in float32. Axes are inputs since 18 (ReduceSum: 13); adapters move them."""

    def body(xp: Any, x: Any, axes: Any = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0) -> Any:
        if axes is not None and axes.size:
            over = axes_of(axes, x.ndim)
        else:
            # noop: each element is a reduction of its own, so that what the operator does to elements is still done
            over = () if noop_with_empty_axes else tuple(range(x.ndim))
        return rounded(xp, formula(xp, working(xp, x) if widen else x, over, bool(keepdims)), x)

    kernel(op_type, host=(1,))(body)


def _sum(xp: Any, x: Any, axes: tuple[int, ...], keep: bool) -> Any:
    return xp.sum(x, axis=axes, dtype=x.dtype, keepdims=keep)


def _mean(xp: Any, x: Any, axes: tuple[int, ...], keep: bool) -> Any:
    """Integers are cut towards zero."""
    if x.dtype.kind in "iu":
        return xp.trunc(xp.mean(x, axis=axes, keepdims=keep))
    return xp.mean(x, axis=axes, keepdims=keep)


def _product(xp: Any, x: Any, axes: tuple[int, ...], keep: bool) -> Any:
    return xp.prod(x, axis=axes, dtype=x.dtype, keepdims=keep)


def _sum_square(xp: Any, x: Any, axes: tuple[int, ...], keep: bool) -> Any:
    return _sum(xp, xp.asarray(xp.multiply(x, x)), axes, keep)


def _l1(xp: Any, x: Any, axes: tuple[int, ...], keep: bool) -> Any:
    return _sum(xp, xp.asarray(xp.abs(x)), axes, keep)


def _as_float(xp: Any, x: Any) -> Any:
    """Integers in float64, where roots and logarithms are taken before they are cut towards zero."""
    return x.astype(xp.float64) if x.dtype.kind in "iu" else x


def _l2(xp: Any, x: Any, axes: tuple[int, ...], keep: bool) -> Any:
    return xp.sqrt(_sum_square(xp, _as_float(xp, x), axes, keep))


def _log_sum(xp: Any, x: Any, axes: tuple[int, ...], keep: bool) -> Any:
    return xp.log(_sum(xp, _as_float(xp, x), axes, keep))


def _log_sum_exp(xp: Any, x: Any, axes: tuple[int, ...], keep: bool) -> Any:
    """log(sum(exp(x))), shifted by the largest element so that it neither overflows nor loses all."""
    x = _as_float(xp, x)
    largest = _maximum(xp, x, axes, True)
    shift = xp.where(xp.isfinite(largest), largest, x.dtype.type(0))  # inf - inf would be NaN
    powers = xp.asarray(xp.subtract(x, shift))
    xp.exp(powers, out=powers)
    result = xp.log(xp.sum(powers, axis=axes, dtype=x.dtype, keepdims=True))
    result = xp.asarray(result + shift)
    return result if keep else xp.squeeze(result, axis=axes)


def _extreme(xp: Any, dtype: Any, largest: bool) -> Any:
    """The value of a maximum (largest False) or minimum over nothing."""
    if dtype.kind == "b":
        return largest
    if dtype.kind in "iu":
        return xp.iinfo(dtype).max if largest else xp.iinfo(dtype).min
    return xp.inf if largest else -xp.inf


def _over_nothing(xp: Any, x: Any, axes: tuple[int, ...], keep: bool, value: Any) -> Any:
    """What a reduction of an array without elements is (cupy's have no ``initial``)."""
    reduced = {axis % x.ndim for axis in (axes if axes is not None else range(x.ndim))}
    shape = [1 if axis in reduced else n for axis, n in enumerate(x.shape) if keep or axis not in reduced]
    return xp.full(tuple(shape), value, dtype=x.dtype)


def _maximum(xp: Any, x: Any, axes: tuple[int, ...], keep: bool) -> Any:
    if not x.size:
        return _over_nothing(xp, x, axes, keep, _extreme(xp, x.dtype, False))
    return xp.max(x, axis=axes, keepdims=keep)


def _minimum(xp: Any, x: Any, axes: tuple[int, ...], keep: bool) -> Any:
    if not x.size:
        return _over_nothing(xp, x, axes, keep, _extreme(xp, x.dtype, True))
    return xp.min(x, axis=axes, keepdims=keep)


_register("ReduceSum", _sum)
_register("ReduceMean", _mean)
_register("ReduceProd", _product)
_register("ReduceSumSquare", _sum_square)
_register("ReduceL1", _l1)
_register("ReduceL2", _l2)
_register("ReduceLogSum", _log_sum)
_register("ReduceLogSumExp", _log_sum_exp)
_register("ReduceMax", _maximum, widen=False)
_register("ReduceMin", _minimum, widen=False)


def _arg(op_type: str, function: str) -> None:
    def body(xp: Any, x: Any, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Any:
        axis = axis_of(axis, x.ndim)
        if select_last_index:
            found = getattr(xp, function)(xp.flip(x, axis), axis=axis)
            found = x.shape[axis] - 1 - found
        else:
            found = getattr(xp, function)(x, axis=axis)
        found = xp.asarray(found, dtype=xp.int64)
        return xp.expand_dims(found, axis) if keepdims else found

    kernel(op_type)(body)


_arg("ArgMax", "argmax")
_arg("ArgMin", "argmin")


def _cumulative(op_type: str, function: str, neutral: int, since: int) -> None:
    def body(xp: Any, x: Any, axis: Any, *, exclusive: int = 0, reverse: int = 0) -> Any:
        position = axis_of(int(axis.reshape(()).item()), x.ndim)
        source = xp.moveaxis(working(xp, x), position, 0)
        if reverse:
            source = source[::-1]
        result = xp.empty(source.shape, dtype=source.dtype)
        if exclusive:
            result[:1] = neutral
            getattr(xp, function)(source[:-1], axis=0, dtype=source.dtype, out=result[1:])
        else:
            getattr(xp, function)(source, axis=0, dtype=source.dtype, out=result)
        if reverse:
            result = result[::-1]
        result = xp.moveaxis(result, 0, position)
        return result.astype(x.dtype) if is_half(x) else result

    kernel(op_type, since, host=(1,))(body)


_cumulative("CumSum", "cumsum", 0, 11)
_cumulative("CumProd", "cumprod", 1, 26)
