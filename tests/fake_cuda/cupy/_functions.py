"""The functions of CuPy's module that NumPy has too, held to CuPy's parameters."""

from __future__ import annotations

import functools
import importlib
from typing import Any

import numpy as np

from . import _call, _creation, _reduce, _state
from ._data import DATA, signature_of

#: of arrays: need not run on a device, and tell the host something
_HOST = set(
    "ndim shape size isscalar result_type can_cast promote_types min_scalar_type common_type iscomplexobj isrealobj "
    "isdtype issubdtype broadcast_shapes may_share_memory shares_memory base_repr binary_repr isfortran".split()
)
#: wait for the device, as their results' sizes or values depend on data
_SYNCHRONIZE = set(
    "flatnonzero argwhere unique unique_all unique_counts unique_inverse unique_values compress extract place delete "
    "bincount histogram digitize union1d intersect1d setdiff1d setxor1d trim_zeros".split()
)
#: go through cuBLAS, cuSOLVER or cuRAND, which CuPy refuses while a stream captures
_LIBRARIES = set("matmul dot tensordot einsum inner outer vdot kron linalg.inv linalg.det linalg.solve".split())
#: libraries that CuPy loads when a function of these is first called
_LOADED = {"fft.": "cufft", "linalg.": "cusolver"}
#: write into their first argument
_WRITE = set("copyto putmask place fill_diagonal".split())
_OWN = {
    **{name: getattr(_creation, name) for name in DATA["functions"] if hasattr(_creation, name)},
    "take": _reduce.take,
    "take_along_axis": _reduce.take_along_axis,
    "put_along_axis": _reduce.put_along_axis,
    "repeat": _reduce.repeat,
    "nonzero": _reduce.nonzero,
    "where": _reduce.where,
    "clip": _reduce.clip,
    "sort": _reduce.sort,
    "argsort": _reduce.argsort,
    "asanyarray": _creation.asarray,
    "copy": lambda a, order="K": a.copy(order),
    "copyto": lambda dst, src, casting="same_kind", where=None: _copyto(dst, src, casting, where),
    "astype": lambda x, dtype, copy=True: x.astype(dtype, copy=copy),
    "get_array_module": lambda *args: _module(args),
    "is_available": lambda: _state.n_devices() > 0,
    "partition": lambda a, kth, axis=-1: _partition(np.partition, a, kth, axis),
    "argpartition": lambda a, kth, axis=-1: _partition(np.argpartition, a, kth, axis),
    "array_equal": lambda a1, a2, equal_nan=False: _call.compute(
        lambda a, b: np.asarray(np.array_equal(a, b, equal_nan)), a1, a2
    ),
    "allclose": lambda a, b, rtol=1e-05, atol=1e-08, equal_nan=False: _call.compute(
        lambda a, b: np.asarray(np.allclose(a, b, rtol, atol, equal_nan)), a, b
    ),
    **{name: functools.partial(_reduce.reduction, name) for name in _reduce.REDUCTIONS},
}


def _load_for(path: str) -> None:
    name = next((name for prefix, name in _LOADED.items() if path.startswith(prefix)), "")
    if not name:
        return
    pathfinder = importlib.import_module("cuda.pathfinder")
    try:
        pathfinder.load_nvidia_dynamic_lib(name)
    except pathfinder.DynamicLibNotFoundError as error:
        raise ImportError(str(error)) from error


def _module(args: Any) -> Any:
    import cupy

    return cupy if any(isinstance(value, _call.Operand) for value in args) else np


def _copyto(dst: Any, src: Any, casting: str, where: Any) -> None:
    source = getattr(src, "dtype", None)
    if source is not None and not np.can_cast(source, dst.dtype, casting):
        raise TypeError(f"Cannot cast scalar from {source} to {dst.dtype} according to the rule {casting!r}")
    _call.write(
        dst,
        lambda target, value, mask: np.copyto(target, value, casting="unsafe", where=True if mask is None else mask),
        src,
        where,
    )


def _partition(function: Any, a: Any, kth: Any, axis: Any) -> Any:
    _reduce.sort_key(a, axis, None)
    return _call.compute(function, a, kth, axis=axis)


def _numpy_of(path: str) -> Any:
    there: Any = np
    for part in path.split("."):
        there = getattr(there, part, None) if part != "stride_tricks" else np.lib.stride_tricks
    return there


def _wrapped(path: str, parts: list[str]) -> Any:
    function = _OWN.get(path) or _numpy_of(path)
    if function is None:
        return None
    signature = signature_of(parts)
    own = path in _OWN

    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"cupy.{path}: {error}") from None
        if own:
            return function(**bound.arguments) if _by_name(signature) else function(*args, **kwargs)
        if path in _HOST:
            return function(*_views(args), **kwargs)
        if path in _LIBRARIES:
            _refuse_in_capture()
        _load_for(path)
        if path in _SYNCHRONIZE:
            _state.declare(path)
        _check(path, bound.arguments)
        if path in _WRITE:
            _call.write(args[0], lambda target, *rest: function(target, *rest, **kwargs), *args[1:])
            return None
        return _with_out(function, args, kwargs)

    call.__name__ = call.__qualname__ = path.rpartition(".")[2]
    call.__module__ = "cupy"
    call.__signature__ = signature  # type: ignore[attr-defined]
    return call


def _by_name(signature: Any) -> bool:
    kinds = {parameter.kind.name for parameter in signature.parameters.values()}
    return kinds.isdisjoint({"VAR_POSITIONAL", "VAR_KEYWORD", "POSITIONAL_ONLY"})


def _views(args: Any) -> list[Any]:
    """For functions that look at shapes and types alone."""
    found: list[Any] = []
    return [_call.operands(arg, found) for arg in args]


def _refuse_in_capture() -> None:
    if _state.capturing(_state.current_stream()) is not None:
        raise NotImplementedError("calling cuBLAS API during stream capture is currently unsupported")


def _check(path: str, arguments: dict[str, Any]) -> None:
    for name in ("axis", "axes", "shape", "newshape", "reps", "pad_width"):
        if isinstance(arguments.get(name), (np.ndarray, _call.Operand)):
            raise TypeError(f"cupy.{path}: {name} is integers of the host, not an array")


def _with_out(function: Any, args: Any, kwargs: Any) -> Any:
    out = kwargs.pop("out", None)
    if out is None:
        return _call.compute(function, *args, **kwargs)
    _call.write(out, lambda target, *rest: np.copyto(target, function(*rest, **kwargs), casting="unsafe"), *args)
    return out


def all_functions() -> dict[str, Any]:
    """By path: "sum", "fft.fft", "lib.stride_tricks.as_strided"."""
    made = {path: _wrapped(path, parts) for path, parts in DATA["functions"].items()}
    return {path: function for path, function in made.items() if function is not None}


FUNCTIONS = all_functions()


def add_methods(cls: Any) -> None:
    """Give arrays the operator of a product."""
    cls.__matmul__ = FUNCTIONS["matmul"]
    cls.__rmatmul__ = lambda self, other: FUNCTIONS["matmul"](other, self)
