"""cupy.ufunc: NumPy's of the same name, with the loops over element types that CuPy has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from . import _call
from ._creation import asarray
from ._data import DATA
from ._indexing import convert

#: take numbers of Python that their operands' type doesn't hold
_COMPARISONS = set("equal not_equal less less_equal greater greater_equal".split())
_KINDS = {"b": 0, "u": 1, "i": 1, "f": 2, "V": 2, "c": 3}
_WEAK = {bool: 0, int: 1, float: 2, complex: 3}


def type_of(char: str) -> np.dtype[Any]:
    return _call.BFLOAT16 if char == "E" else np.dtype(char)


def _kind(dtype: np.dtype[Any]) -> int:
    return _KINDS.get(dtype.kind, 3)


class Loops:
    """What types CuPy computes in: the first loop that all arguments can be cast to safely."""

    def __init__(self, name: str, types: list[str]) -> None:
        self.name = name
        self.types = types
        self.loops = [
            tuple(tuple(type_of(char) for char in side) for side in text.split("->"))
            for text in types
            if "V" not in text
        ]
        self.nin, self.nout = len(self.loops[0][0]), len(self.loops[0][1])

    def find(self, args: list[Any], dtype: Any = None) -> tuple[tuple[np.dtype[Any], ...], tuple[np.dtype[Any], ...]]:
        """(types to compute in, types of results); TypeError as CuPy's."""
        if dtype is not None:
            for ins, outs in self.loops:
                if all(out == np.dtype(dtype) for out in outs):
                    return ins, outs
            raise TypeError(f"Wrong type ({dtype}) of arguments for {self.name}")
        known = [getattr(arg, "dtype", None) for arg in args]
        weak = [_weak(arg) if dt is None else None for arg, dt in zip(args, known, strict=True)]
        types = [np.dtype(w) if dt is None else np.dtype(dt) for dt, w in zip(known, weak, strict=True)]  # type: ignore[arg-type]
        strongest = max((_kind(t) for t, w in zip(types, weak, strict=True) if w is None), default=-1)
        weakest = max((_WEAK[w] for w in weak if w is not None), default=-1)
        obey = -1 not in (strongest, weakest) and strongest >= weakest
        for ins, outs in self.loops:
            if all(_fits(t, w if obey else None, to) for t, w, to in zip(types, weak, ins, strict=True)):
                return ins, outs
        raise TypeError(f"Wrong type ({tuple(types)}) of arguments for {self.name}")


def _weak(arg: Any) -> type:
    if type(arg) in _WEAK:
        return type(arg)
    raise TypeError(f"Unsupported type {type(arg)}")


def _fits(dtype: np.dtype[Any], weak: type | None, to: np.dtype[Any]) -> bool:
    if np.can_cast(dtype, to):
        return True
    if weak is None:
        return False
    try:
        return bool(np.result_type(weak(0), to) == to)
    except TypeError:
        return False


class ufunc:
    def __init__(self, name: str, types: list[str], function: Callable[..., Any]) -> None:
        self._loops = Loops(name, types)
        self._function = function
        self.name = name
        self.types = types
        self.nin, self.nout = self._loops.nin, self._loops.nout
        self.nargs = self.nin + self.nout
        self.__name__ = name.removeprefix("cupy_")

    def __repr__(self) -> str:
        return f"<ufunc '{self.name}'>"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        out = kwargs.pop("out", None)
        dtype = kwargs.pop("dtype", None)
        casting = kwargs.pop("casting", "same_kind")
        if kwargs:
            raise TypeError(f"Wrong arguments {kwargs}")
        if not self.nin <= len(args) <= self.nargs:
            raise TypeError(f"Wrong number of arguments for {self.name!r}")
        if len(args) > self.nin:
            if out is not None:
                raise ValueError("Cannot specify 'out' as both a positional and keyword argument")
            args, out = args[: self.nin], args[self.nin :]
        outs = out if isinstance(out, tuple) else (out,)
        found: list[Any] = []
        plain = [_call.operands(arg, found) for arg in args]
        if self.nin > 1 and not found and not any(o is not None for o in outs):
            args = tuple(asarray(arg) for arg in args)
        ins, types = self._loops.find(list(args), dtype)
        del plain

        def call(*values: Any) -> Any:
            values = tuple(self._packed(value, kind) for value, kind in zip(values, ins, strict=True))
            made = self._function(*values)
            made = made if isinstance(made, tuple) else (made,)
            made = tuple(convert(np.asarray(part), kind) for part, kind in zip(made, types, strict=True))
            return made if self.nout > 1 else made[0]

        if outs[0] is None:
            return _call.compute(call, *args)
        for target, kind in zip(outs, types, strict=True):
            if not isinstance(target, _call.Operand):
                raise TypeError("return arrays must be of ArrayType")
            if not np.can_cast(kind, target._np.dtype, casting):
                raise TypeError(f"output (typecode '{kind.char}') could not be coerced to provided output parameter")
        if len(outs) == 1:
            _call.write(outs[0], lambda target, *values: np.copyto(target, _as(call(*values), target)), *args)
            return outs[0]
        for i, target in enumerate(outs):
            _call.write(target, lambda into, *values, i=i: np.copyto(into, _as(call(*values)[i], into)), *args)  # type: ignore[misc]
        return outs

    def _packed(self, value: Any, kind: np.dtype[Any]) -> Any:
        """An operand as the loop reads it. Numbers of Python that don't fit raise OverflowError, but in comparisons."""
        if type(value) is int and kind.kind in "iu" and self.name.removeprefix("cupy_") not in _COMPARISONS:
            return np.array(value, kind)
        return np.asarray(value).astype(kind)

    def outer(self, A: Any, B: Any, **kwargs: Any) -> Any:
        A, B = asarray(A), asarray(B)
        return self(A.reshape(A.shape + (1,) * B.ndim), B.reshape((1,) * A.ndim + B.shape), **kwargs)

    def at(self, a: Any, indices: Any, b: Any = None) -> None:
        if self.name not in _SCATTERS:
            raise NotImplementedError(f"`{self.name}.at` is not supported yet")
        from . import _indexing

        if a.dtype.char not in _SCATTERS[self.name] or a.dtype == _call.BFLOAT16:
            raise TypeError(f"cupy.{self.__name__}.at does not support {a.dtype}")
        b = b.astype(a.dtype, copy=False) if isinstance(b, _call.Operand) else b  # type: ignore[attr-defined]
        parts, _ = _indexing.prepare(indices)
        function: Any = self._function

        def work(target: Any, value: Any, *parts: Any) -> None:
            function.at(target, _indexing.wrapped(target.shape, list(parts)), value)

        _call.write(a, work, b, *parts)

    def reduce(self, array: Any, axis: Any = 0, dtype: Any = None, out: Any = None, keepdims: bool = False) -> Any:
        if self.name not in ("cupy_add", "cupy_multiply"):
            raise NotImplementedError(f"`{self.name}.reduce` is not supported yet")
        method = array.sum if self.name == "cupy_add" else array.prod
        return method(axis, dtype, out, keepdims)

    def accumulate(self, array: Any, axis: Any = 0, dtype: Any = None, out: Any = None) -> Any:
        if self.name not in ("cupy_add", "cupy_multiply"):
            raise NotImplementedError(f"`{self.name}.accumulate` is not supported yet")
        method = array.cumsum if self.name == "cupy_add" else array.cumprod
        return method(axis, dtype, out)

    def reduceat(self, array: Any, indices: Any, axis: int = 0, dtype: Any = None, out: Any = None) -> Any:
        if self.name != "cupy_add":
            raise NotImplementedError(f"`{self.name}.reduceat` is not supported yet")
        return _call.compute(np.add.reduceat, array, asarray(indices), axis, dtype)


#: the types of elements that each has atomic operations for
_SCATTERS = {
    "cupy_add": "ilqILQefd",
    "cupy_subtract": "iI",
    "cupy_maximum": "ilqILQfd",
    "cupy_minimum": "ilqILQfd",
    "cupy_bitwise_and": "ilqILQ",
    "cupy_bitwise_or": "ilqILQ",
    "cupy_bitwise_xor": "ilqILQ",
}


def _as(values: Any, target: Any) -> Any:
    return convert(np.asarray(values), target.dtype)


def _reciprocal(x: Any) -> Any:
    return np.reciprocal(x) if x.dtype.kind != "i" else np.where(x == 0, 0, np.reciprocal(np.where(x == 0, 1, x)))


def _power(x: Any, y: Any) -> Any:
    """Integers to negative powers: 0, or ±1 of ±1, where NumPy raises."""
    if y.dtype.kind not in "i" or not (y < 0).any():
        return np.power(x, y)
    negative = np.where(x == 1, 1, np.where(x == -1, np.where(y % 2 == 0, 1, -1), 0))
    return np.where(y < 0, negative, np.power(x, np.maximum(y, 0)))


def _bool_negative(x: Any) -> Any:
    return np.logical_not(x) if x.dtype.kind == "b" else np.negative(x)


def _bool_subtract(x: Any, y: Any) -> Any:
    return np.logical_xor(x, y) if x.dtype.kind == "b" else np.subtract(x, y)


def _sinc(x: Any) -> Any:
    return np.sinc(x).astype(x.dtype)


_OWN = {
    "reciprocal": _reciprocal,
    "power": _power,
    "pow": _power,
    "negative": _bool_negative,
    "subtract": _bool_subtract,
    "sinc": _sinc,
    "fix": np.fix,
    "i0": np.i0,
}


def all_ufuncs() -> dict[str, ufunc]:
    """Those that both CuPy and NumPy have, by name."""
    found = {}
    for name, entry in DATA["ufuncs"].items():
        if name.startswith("_") or "." in name or not (hasattr(np, name) or name in _OWN):
            continue
        function = _OWN.get(name) or getattr(np, name)
        found[name] = ufunc(entry["name"], entry["types"], function)
        found[name].__name__ = name
    return found


UFUNCS = all_ufuncs()
CLIP = Loops("cupy_clip", DATA["ufuncs"]["_clip"]["types"])
WHERE = Loops("cupy_where", DATA["ufuncs"]["_where"]["types"])
