"""What the elementwise families share: 0-d results, working precision, old broadcasting, registration of ufuncs."""

from __future__ import annotations

import functools
from collections.abc import Callable
from itertools import zip_longest
from typing import Any

import numpy as np

from distort.graph.types import DTYPE_OF
from distort.kernels.errors import Failed, InvalidInput
from distort.kernels.registry import kernel

#: elements that a chain of passes handles at once: its buffers stay in the second cache, calls cost little beside them
_BLOCK = 16384


def as_array(xp: Any, value: Any) -> Any:
    """A ufunc on 0-d arrays returns a scalar; kernels return arrays."""
    return value if value.ndim else xp.asarray(value)


def dtype_of(element: int) -> np.dtype[Any]:
    """The dtype of an attribute that is an ONNX element type. Raises InvalidInput for a number that is none."""
    found = DTYPE_OF.get(element)
    if found is None:
        raise InvalidInput(f"{element} is no element type")
    return found


def is_half(x: Any) -> bool:
    """Whether x is float16 or bfloat16 (which numpy sees as kind V, and loses to float32 beside a Python float)."""
    return x.dtype.itemsize == 2 and x.dtype.kind in "fV"


def working(xp: Any, x: Any) -> Any:
    """x in the precision that a formula of several steps is computed in: float32 for the 16-bit floats."""
    return x.astype(xp.float32) if is_half(x) else x


def rounded(xp: Any, value: Any, like: Any) -> Any:
    """A formula's result in its operator's dtype, as an array."""
    if value.dtype != like.dtype:
        value = value.astype(like.dtype)
    return value if value.ndim else xp.asarray(value)


def blockwise(xp: Any, x: Any, formula: Callable[[Any, Any, Any], None]) -> Any:
    """Apply ``formula(xp, block, out)``, which writes ``out`` and never ``block``; blocks have a dimension or more.

    A large tensor goes in blocks that stay in the caches: a chain of passes over the whole would go through memory.
    """
    wide = working(xp, x)
    if not x.ndim:
        wide = wide.reshape(1)
    if x.size <= 2 * _BLOCK or xp is not np:
        out = xp.empty(wide.shape, dtype=wide.dtype)
        formula(xp, wide, out)
    else:
        source = xp.ascontiguousarray(wide).reshape(-1)
        out = xp.empty(source.shape, dtype=source.dtype)
        for start in range(0, source.size, _BLOCK):
            formula(xp, source[start : start + _BLOCK], out[start : start + _BLOCK])
    return rounded(xp, out.reshape(x.shape), x)


@functools.cache
def _zeros(dtype: Any) -> Any:
    block = np.zeros(_BLOCK, dtype=dtype)
    block.flags.writeable = False
    return block


def positive_part(xp: Any, x: Any, out: Any) -> None:
    """max(x, 0). numpy has vector code for the maximum of two arrays, not of an array and a scalar."""
    if xp is np and x.ndim == 1 and x.size <= _BLOCK:
        xp.maximum(x, _zeros(x.dtype)[: x.size], out=out)
    else:
        xp.maximum(x, 0, out=out)


def aligned(a: Any, b: Any, broadcast: int, axis: int | None) -> Any:
    """b as binary operators before version 7 align it with a: to a's last dimensions, or from ``axis`` on."""
    if not broadcast:
        if a.shape != b.shape:
            raise InvalidInput(f"shapes {list(a.shape)} and {list(b.shape)} differ, and broadcast is 0")
        return b
    first = a.ndim - b.ndim if axis is None else axis + a.ndim if axis < 0 else axis
    if b.size == 1 and first < 0:
        return b.reshape(())
    inside = 0 <= first <= a.ndim - b.ndim
    if not inside or any(n not in (1, m) for n, m in zip(b.shape, a.shape[first:], strict=False)):
        raise InvalidInput(f"shape {list(b.shape)} does not fit {list(a.shape)} at axis {first}")
    return b.reshape(b.shape + (1,) * (a.ndim - first - b.ndim))


def before_7(op_type: str, body: Callable[[Any, Any, Any], Any], *versions: int) -> None:
    """Register a binary operator's versions that broadcast by attributes."""

    def old(
        xp: Any, a: Any, b: Any, *, axis: int | None = None, broadcast: int = 0, consumed_inputs: Any = None
    ) -> Any:
        return body(xp, a, aligned(a, b, broadcast, axis))

    kernel(op_type, versions)(old)


def binary_ufunc(op_type: str, ufunc: str, since: int = 7, old: tuple[int, ...] = ()) -> None:
    """Register a binary operator that is one ufunc of the array library."""

    def body(xp: Any, a: Any, b: Any) -> Any:
        try:
            result = getattr(xp, ufunc)(a, b)
        except ValueError as error:
            raise unbroadcastable(error, a, b) from error
        return result if result.ndim else xp.asarray(result)

    kernel(op_type, since)(body)
    if old:
        before_7(op_type, body, *old)


def unbroadcastable(error: ValueError, *arrays: Any) -> Exception:
    """What to raise for shapes that do not broadcast; any other error as it is."""
    if "broadcast" not in str(error):
        return error
    shapes = " and ".join(str(list(array.shape)) for array in arrays)
    return Failed(f"shapes {shapes} do not broadcast. {_unlike(arrays)}")


def _unlike(arrays: tuple[Any, ...]) -> str:
    """The first sizes from the end that are neither equal nor 1."""
    for sizes in zip_longest(*(reversed(array.shape) for array in arrays), fillvalue=1):
        unlike = [size for size in dict.fromkeys(sizes) if size != 1]
        if len(unlike) > 1:
            text = "Attempting to broadcast an axis by a dimension other than 1."
            return f"{text} {unlike[0]} by {unlike[1]}"
    return ""


def unary_ufunc(op_type: str, ufunc: str, since: int = 1) -> None:
    """Register a unary operator that is one ufunc of the array library."""

    def body(xp: Any, x: Any, *, consumed_inputs: Any = None) -> Any:
        if is_half(x):
            return rounded(xp, getattr(xp, ufunc)(x.astype(xp.float32)), x)
        result = getattr(xp, ufunc)(x)
        return result if result.ndim else xp.asarray(result)

    kernel(op_type, since)(body)
