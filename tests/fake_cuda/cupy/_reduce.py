"""Reductions, sorts and selections: functions, and the methods of arrays that do the same."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import _call, _creation, _indexing, _state
from ._data import DATA, signature_of
from ._ufunc import CLIP, WHERE


def host_axis(axis: Any) -> Any:
    if isinstance(axis, (_call.Operand, np.ndarray, list)):
        raise TypeError(f"an axis is an integer or a tuple of them, not {type(axis)}")
    return axis


def _as_found(name: str) -> Any:
    """NumPy's reduction, its types as CuPy's: bfloat16 has no loop of its own in sums, maxima and the like."""
    function = getattr(np, name)

    def call(a: Any, **keywords: Any) -> Any:
        if a.dtype == _call.BFLOAT16 and name not in _BFLOAT16_TOO and keywords.get("dtype") is None:
            a = a.astype(np.float32)
        if name in ("sum", "prod", "cumsum", "cumprod", "mean", "var", "std") and a.dtype.kind == "V":
            wide = function(a.astype(np.float32), **{k: v for k, v in keywords.items() if k != "dtype"})
            return np.asarray(wide).astype(keywords.get("dtype") or a.dtype)
        return function(a, **keywords)

    return call


#: reductions with a loop for bfloat16 (``bf16_loop()`` in CuPy's source)
_BFLOAT16_TOO = set("max min amax amin sum prod cumsum cumprod mean nansum nanprod nanmax nanmin argmax argmin".split())
REDUCTIONS = (
    "sum prod max min amax amin mean var std all any argmax argmin ptp cumsum cumprod "
    "nansum nanprod nanmax nanmin nanmean nanstd nanvar nanargmax nanargmin median nanmedian count_nonzero"
).split()


def reduction(name: str, a: Any, **keywords: Any) -> Any:
    if not isinstance(a, _call.Operand):
        raise TypeError(f"Unsupported type {type(a)}")
    out = keywords.pop("out", None)
    host_axis(keywords.get("axis"))
    keywords = {key: value for key, value in keywords.items() if value is not None}
    if keywords.get("dtype") is not None:
        keywords["dtype"] = _call.supported(keywords["dtype"])
    call = _as_found(name)
    if out is None:
        return _call.compute(call, a, **keywords)
    _call.write(out, lambda target, a: np.copyto(target, call(a, **keywords), casting="unsafe"), a)
    return out


def sort_key(a: Any, axis: Any, kind: Any) -> None:
    if not isinstance(a, _call.Operand):
        raise TypeError(f"Unsupported type {type(a)}")
    if kind not in (None, "stable"):
        raise ValueError("kind can only be None or 'stable'")
    if not a._np.ndim and axis is not None:
        raise np.exceptions.AxisError("Sorting arrays with the rank of zero is not supported")
    if a._np.dtype == _call.BFLOAT16:
        raise NotImplementedError("Sorting arrays with dtype 'bfloat16' is not supported")


def sort(a: Any, axis: Any = -1, kind: Any = None) -> Any:
    sort_key(a, axis, kind)
    return _call.compute(np.sort, a, axis=axis, kind="stable")


def argsort(a: Any, axis: Any = -1, kind: Any = None) -> Any:
    sort_key(a, axis, kind)
    return _call.compute(np.argsort, a, axis=axis, kind="stable")


def take(a: Any, indices: Any, axis: Any = None, out: Any = None) -> Any:
    if not isinstance(indices, _call.Operand) and not np.isscalar(indices):
        indices = _creation.array(indices, dtype=int)

    def call(a: Any, indices: Any) -> Any:
        a = a.reshape(-1) if axis is None else a
        n = a.shape[0 if axis is None else axis]
        return np.take(a, _indexing.wrap(np.asarray(indices), n), axis=0 if axis is None else axis)

    if out is None:
        return _call.compute(call, a, indices)
    _call.write(out, lambda target, a, indices: np.copyto(target, call(a, indices)), a, indices)
    return out


def take_along_axis(a: Any, indices: Any, axis: Any) -> Any:
    if indices.dtype.kind not in "iu":
        raise IndexError("`indices` must be an integer array")

    def call(a: Any, indices: Any) -> Any:
        a, along = (a.reshape(-1), 0) if axis is None else (a, axis)
        return np.take_along_axis(a, _indexing.wrap(indices, a.shape[along]), along)

    return _call.compute(call, a, indices)


def put_along_axis(arr: Any, indices: Any, values: Any, axis: Any) -> None:
    def call(target: Any, indices: Any, values: Any) -> None:
        wrapped = _indexing.wrap(indices, target.shape[axis])
        backwards = np.flip(np.broadcast_to(values, wrapped.shape), axis)
        np.put_along_axis(target, np.flip(wrapped, axis), backwards, axis)

    if axis is None:
        raise NotImplementedError("put_along_axis of a flat array")
    _call.write(arr, call, indices, values)


def repeat(a: Any, repeats: Any, axis: Any = None) -> Any:
    if isinstance(repeats, _call.Operand):
        _state.declare("repeat")  # the size of the result is on the device
    elif isinstance(repeats, np.ndarray):
        raise TypeError("'repeats' does not accept numpy.ndarray; convert with cupy.array() first")
    elif not np.isscalar(repeats):
        repeats = _creation.array(repeats, dtype=np.intp)
        _state.declare("repeat")
    return _call.compute(np.repeat, a, repeats, axis=axis)


def nonzero(a: Any) -> Any:
    if not a.ndim:
        raise ValueError("Calling nonzero on 0d arrays is not allowed.")
    _state.declare("nonzero")
    return _call.compute(np.nonzero, a)


def where(condition: Any, x: Any = None, y: Any = None) -> Any:
    if (x is None) != (y is None):
        raise ValueError("Must provide both 'x' and 'y' or neither.")
    if x is None:
        return nonzero(condition)
    if not isinstance(condition, _call.Operand):
        raise TypeError(f"Unsupported type {type(condition)}")
    ins, outs = WHERE.find([condition.astype(bool), x, y])  # type: ignore[attr-defined]
    return _call.compute(
        lambda c, x, y: np.where(c, np.asarray(x).astype(ins[1]), np.asarray(y).astype(ins[2])).astype(outs[0]),
        condition,
        x,
        y,
    )


def clip(a: Any, a_min: Any, a_max: Any, out: Any = None) -> Any:
    if not isinstance(a, _call.Operand):
        raise TypeError(f"Unsupported type {type(a)}")
    dtype = a._np.dtype
    low, high = _limits(dtype)
    a_min, a_max = low if a_min is None else a_min, high if a_max is None else a_max
    if a_min is None or a_max is None:
        raise TypeError(f"Unsupported type {type(None)}")
    ins, outs = CLIP.find([a, a_min, a_max])

    def call(a: Any, low: Any, high: Any) -> Any:
        a, low, high = (np.asarray(v).astype(kind) for v, kind in zip((a, low, high), ins, strict=True))
        chosen = np.where(low > high, high, np.where(a < low, low, np.where(a > high, high, a)))
        return chosen.astype(outs[0])

    if out is None:
        return _call.compute(call, a, a_min, a_max)
    _call.write(out, lambda target, *v: np.copyto(target, call(*v), casting="unsafe"), a, a_min, a_max)
    return out


def _limits(dtype: np.dtype[Any]) -> tuple[Any, Any]:
    if dtype.kind == "f":
        return dtype.type("-inf"), dtype.type("inf")
    if dtype.kind in "iu":
        return np.iinfo(dtype).min, np.iinfo(dtype).max
    return None, None


_METHODS = "sum prod max min mean var std all any argmax argmin ptp cumsum cumprod".split()


def _bound(name: str) -> Any:
    parts = DATA["classes"]["ndarray"][name]
    signature = signature_of(parts)

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        return reduction(name, self, **signature.bind(*args, **kwargs).arguments)

    return method


def add_methods(cls: Any) -> None:
    """Give arrays the methods that are these functions."""
    for name in _METHODS:
        setattr(cls, name, _bound(name))
    cls.take = take
    cls.repeat = repeat
    cls.nonzero = nonzero
    cls.argsort = argsort
    cls.clip = lambda self, min=None, max=None, out=None: clip(self, min, max, out)
    cls.round = lambda self, decimals=0, out=None: _call.compute(np.round, self, decimals)
    cls.dot = lambda self, b, out=None: _call.compute(np.dot, self, b)
    cls.conj = cls.conjugate = lambda self: _call.compute(np.conjugate, self)
    cls.sort = _sort_in_place


def _sort_in_place(self: Any, axis: int = -1, kind: Any = None) -> None:
    sort_key(self, axis, kind)
    _call.write(self, lambda target: target.sort(axis=axis, kind="stable"))
