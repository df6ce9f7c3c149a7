"""cupy.ndarray over host memory that only this module may read."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from . import _call, _creation, _indexing, _reduce, _state
from ._ufunc import UFUNCS, ufunc
from .cuda import memory


class _Flags(NamedTuple):
    c_contiguous: bool
    f_contiguous: bool
    owndata: bool

    @property
    def fnc(self) -> bool:
        return self.f_contiguous and not self.c_contiguous

    @property
    def forc(self) -> bool:
        return self.f_contiguous or self.c_contiguous


class ndarray(_call.Operand):
    __array_priority__ = 100

    def __init__(
        self, shape: Any, dtype: Any = float, memptr: Any = None, strides: Any = None, order: str = "C"
    ) -> None:
        sizes, kind = _creation.shape_of(shape), _call.supported(dtype)
        steps = tuple(strides) if strides is not None else _call.contiguous(sizes, kind.itemsize, order)
        self.data = memory.alloc(math.prod(sizes) * kind.itemsize) if memptr is None else memptr
        self._np = _call.view_of(self.data, sizes, kind, steps)
        self.base: Any = None

    # -- what it is

    @property
    def shape(self) -> tuple[int, ...]:
        return self._np.shape

    @shape.setter
    def shape(self, shape: Any) -> None:
        self._np.shape = shape

    dtype = property(lambda self: self._np.dtype)
    ndim = property(lambda self: self._np.ndim)
    size = property(lambda self: self._np.size)
    nbytes = property(lambda self: self._np.size * self._np.itemsize)
    itemsize = property(lambda self: self._np.itemsize)
    strides = property(lambda self: self._np.strides)
    # whoever's memory it is, an array that is no view of another says that its data is its own
    flags = property(lambda self: _Flags(self._np.flags.c_contiguous, self._np.flags.f_contiguous, self.base is None))
    device = property(lambda self: self.data.device)
    T = property(lambda self: self.transpose())
    mT = property(lambda self: self.swapaxes(-1, -2))
    real = property(lambda self: _call.compute(np.real, self))
    imag = property(lambda self: _call.compute(np.imag, self))

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        if self.dtype == _call.BFLOAT16:
            raise AttributeError("bfloat16 has no type string")
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "descr": self.dtype.descr,
            "version": 3,
            "strides": None if self._np.flags.c_contiguous else self.strides,
            "data": (self.data.ptr if self.size else 0, False),
            "stream": _state.current_stream() or 1,
        }

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, self.data.device_id

    def __dlpack__(
        self, *, stream: Any = None, max_version: Any = None, dl_device: Any = None, copy: Any = None
    ) -> Any:
        """NumPy's capsule of the same memory: the address is what matters to whoever takes it."""
        if dl_device is not None and tuple(dl_device) == (1, 0):
            return self.get().__dlpack__()
        return self._np.__dlpack__()

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. Please use `.get()` to construct a NumPy array "
            "explicitly."
        )

    def __array_ufunc__(self, function: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        ours = UFUNCS.get(function.__name__)
        if ours is None or method not in ("__call__", "outer", "at", "reduce", "accumulate", "reduceat"):
            return NotImplemented
        if "out" in kwargs:
            kwargs["out"] = kwargs["out"][0]
        return (ours if method == "__call__" else getattr(ours, method))(*inputs, **kwargs)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        import cupy

        there: Any = cupy
        for part in function.__module__.split(".")[1:]:
            there = getattr(there, part, None)
        ours = getattr(there, function.__name__, None)
        if ours is None or ours is function:
            return NotImplemented
        return ours(*args, **kwargs)

    # -- to the host and back

    def get(self, stream: Any = None, order: str = "C", out: Any = None, blocking: bool = True) -> Any:
        handle = _state.current_stream() if stream is None else stream.ptr
        _state.forbid_in_capture(handle)
        if out is None:
            out = np.empty(self.shape, self.dtype, "F" if order == "F" else "C")
        elif (out.dtype, out.shape) != (self.dtype, self.shape):
            raise ValueError(f"Shape mismatch. Expected shape: {self.shape}, actual shape: {out.shape}")
        _state.counts["get"] += 1
        _state.counts["download bytes"] += self.nbytes
        source = self._np
        _state.enqueue(handle, lambda: np.copyto(out, source))
        if blocking or not _state.is_pinned(out.__array_interface__["data"][0]):
            _state.stream_of(handle).drain()
        return out

    def set(self, arr: Any, stream: Any = None) -> None:
        if not isinstance(arr, np.ndarray):
            raise TypeError("Only numpy.ndarray can be set to cupy.ndarray")
        if (arr.dtype, arr.shape) != (self.dtype, self.shape):
            raise ValueError(f"Shape mismatch. Old shape: {self.shape}, new shape: {arr.shape}")
        if not (self._np.flags.c_contiguous or self._np.flags.f_contiguous):
            raise RuntimeError("Cannot set to non-contiguous array")
        handle = _state.current_stream() if stream is None else stream.ptr
        _state.counts["upload"] += 1
        _state.counts["upload bytes"] += self.nbytes
        target = self._np
        kept = arr if _state.is_pinned(arr.__array_interface__["data"][0]) else arr.copy()
        _state.enqueue(handle, lambda: np.copyto(target, kept))

    def _scalar(self) -> Any:
        if self.size != 1:
            raise TypeError("only size-1 arrays can be converted to Python scalars")
        _state.declare("scalar")
        return self._np.item()

    def item(self) -> Any:
        return self._scalar()

    def tolist(self) -> Any:
        return self.get().tolist()

    def tobytes(self, order: str = "C") -> bytes:
        return bytes(self.get().tobytes(order))

    def __bool__(self) -> bool:
        if self.size != 1:
            raise ValueError("The truth value of an array with more than one element is ambiguous.")
        return bool(self._scalar())

    def __int__(self) -> int:
        return int(self._scalar())

    def __float__(self) -> float:
        return float(self._scalar())

    def __complex__(self) -> complex:
        return complex(self._scalar())

    def __index__(self) -> int:
        if self.dtype.kind not in "iu":
            raise TypeError("only integer arrays can be converted to an index")
        return int(self._scalar())

    def __len__(self) -> int:
        if not self.ndim:
            raise TypeError("len() of unsized object")
        return self.shape[0]

    def __iter__(self) -> Any:
        if not self.ndim:
            raise TypeError("iteration over a 0-d array")
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        return repr(self.get())

    __hash__ = None  # type: ignore[assignment]

    # -- elements

    def __getitem__(self, index: Any) -> Any:
        parts, _ = _indexing.prepare(index)
        return _call.compute(_indexing.get, self, *parts)

    def __setitem__(self, index: Any, value: Any) -> None:
        if isinstance(value, np.ndarray):
            if isinstance(index, slice) and index == slice(None) and value.shape == self.shape:
                self.set(value)
                return
            raise TypeError(f"Unsupported type {type(value)}")
        parts, _ = _indexing.prepare(index)
        _call.write(self, _indexing.put, value, *parts)

    def fill(self, value: Any) -> None:
        value = np.asarray(value).item() if isinstance(value, np.ndarray) and not value.ndim else value
        value = value.item() if isinstance(value, ndarray) else value
        if isinstance(value, np.ndarray):
            raise ValueError("non-scalar numpy.ndarray cannot be used for fill")
        _call.write(self, lambda target: target.fill(value))

    # -- copies and views

    def astype(self, dtype: Any, order: str = "K", casting: Any = None, subok: Any = None, copy: bool = True) -> Any:
        if casting is not None or subok is not None:
            raise TypeError("casting is not supported yet" if casting is not None else "subok is not supported yet")
        kind = _call.supported(dtype)
        if not copy and kind == self.dtype:
            return self
        return _call.compute(lambda a: _indexing.convert(a, kind) if kind != a.dtype else a.copy(order), self)

    def copy(self, order: str = "C") -> Any:
        return _call.compute(lambda a: a.copy(order), self)

    __copy__ = copy

    def __deepcopy__(self, memo: Any) -> Any:
        return self.copy()

    def __reduce__(self) -> Any:
        return _creation.array, (self.get(),)

    def view(self, dtype: Any = None, type: Any = None) -> Any:
        if dtype is None:
            return _call.compute(lambda a: a.view(), self)
        kind = _call.supported(dtype)
        return _call.compute(lambda a: a.view(kind), self)

    def reshape(self, *shape: Any, order: str = "C", copy: bool | None = None) -> Any:
        sizes = shape[0] if len(shape) == 1 and not np.isscalar(shape[0]) else shape
        if isinstance(sizes, (ndarray, np.ndarray)):
            raise TypeError("a shape is a tuple or a list")
        return _call.compute(lambda a: a.reshape(tuple(int(n) for n in sizes), order=order), self)

    def transpose(self, *axes: Any) -> Any:
        axes = axes[0] if len(axes) == 1 and (axes[0] is None or not np.isscalar(axes[0])) else axes or None
        return _call.compute(np.transpose, self, axes)

    def squeeze(self, axis: Any = None) -> Any:
        return _call.compute(np.squeeze, self, axis)

    def swapaxes(self, axis1: int, axis2: int) -> Any:
        return _call.compute(np.swapaxes, self, axis1, axis2)

    def ravel(self, order: str = "C") -> Any:
        return _call.compute(np.ravel, self, order)

    def flatten(self, order: str = "C") -> Any:
        return _call.compute(lambda a: a.flatten(order), self)

    def diagonal(self, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Any:
        return _call.compute(np.diagonal, self, offset, axis1, axis2)

    def __divmod__(self, other: Any) -> Any:
        return UFUNCS["divmod"](self, other)

    def __neg__(self) -> Any:
        return UFUNCS["negative"](self)

    def __pos__(self) -> Any:
        return self.copy()

    def __abs__(self) -> Any:
        return UFUNCS["absolute"](self)

    def __invert__(self) -> Any:
        return UFUNCS["invert"](self)


def _binary(function: ufunc, swapped: bool = False) -> Any:
    def method(self: Any, other: Any) -> Any:
        if type(other).__module__ == "builtins" and not isinstance(other, (bool, int, float, complex)):
            return NotImplemented
        return function(other, self) if swapped else function(self, other)

    return method


def _in_place(function: ufunc) -> Any:
    return lambda self, other: function(self, other, out=self)


_OPERATORS = {
    "add": "add",
    "sub": "subtract",
    "mul": "multiply",
    "truediv": "true_divide",
    "floordiv": "floor_divide",
    "mod": "remainder",
    "pow": "power",
    "lshift": "left_shift",
    "rshift": "right_shift",
    "and": "bitwise_and",
    "or": "bitwise_or",
    "xor": "bitwise_xor",
}
for _name, _function in _OPERATORS.items():
    setattr(ndarray, f"__{_name}__", _binary(UFUNCS[_function]))
    setattr(ndarray, f"__r{_name}__", _binary(UFUNCS[_function], swapped=True))
    setattr(ndarray, f"__i{_name}__", _in_place(UFUNCS[_function]))
for _name, _function in {
    "lt": "less",
    "le": "less_equal",
    "eq": "equal",
    "ne": "not_equal",
    "gt": "greater",
    "ge": "greater_equal",
}.items():
    setattr(ndarray, f"__{_name}__", _binary(UFUNCS[_function]))


def _made(values: np.ndarray[Any, Any], pointer: memory.MemoryPointer) -> ndarray:
    array = ndarray.__new__(ndarray)
    array._np, array.data, array.base = values, pointer, None
    return array


_call.make = _made
_reduce.add_methods(ndarray)
