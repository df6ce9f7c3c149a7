"""Cast, CastLike, BitCast: every pair of element types, strings included."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

from distort.graph.types import DTYPE_OF
from distort.kernels.errors import InvalidInput
from distort.kernels.registry import kernel

_FLOAT8 = frozenset(
    np.dtype(kind)
    for kind in (
        *(ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e4m3fnuz),
        *(ml_dtypes.float8_e5m2, ml_dtypes.float8_e5m2fnuz),
    )
)
_FLOAT4 = np.dtype(ml_dtypes.float4_e2m1fn)
_SCALE8 = np.dtype(ml_dtypes.float8_e8m0fnu)
_SMALL_INTEGERS = {
    np.dtype(ml_dtypes.int4): (-8, 7),
    np.dtype(ml_dtypes.uint4): (0, 15),
    np.dtype(ml_dtypes.int2): (-2, 1),
    np.dtype(ml_dtypes.uint2): (0, 3),
}


def is_float(dtype: Any) -> bool:
    """Whether an element type is a floating-point one, ml_dtypes' included."""
    return bool(dtype.kind == "f" or dtype in _FLOAT8 or dtype in (_FLOAT4, _SCALE8) or dtype.name == "bfloat16")


def convert(xp: Any, x: Any, dtype: Any, saturate: bool = True, round_mode: str = "up") -> Any:
    """``x`` as another element type by ONNX's rules."""
    if x.dtype == dtype:
        return x
    if x.dtype.kind == "O":
        return _from_text(x, dtype)
    if dtype.kind == "O":
        return _to_text(x)
    if dtype in _FLOAT8:
        return _to_float8(xp, x, dtype, saturate)
    if dtype == _SCALE8:
        return _to_scale8(xp, x, saturate, round_mode)
    if dtype in _SMALL_INTEGERS:
        return _to_small_integer(xp, x, dtype)
    if x.dtype in _SMALL_INTEGERS or (x.dtype.kind == "V" and dtype.kind in "iub"):
        x = x.astype(np.int8 if x.dtype in _SMALL_INTEGERS else np.float32)
        if np.dtype(dtype).kind == "b":
            return x != 0
    if dtype.kind in "iu" and x.dtype.kind == "f" and dtype.itemsize < 8:
        # a value out of range wraps as the hardware's conversion through int64 does, on every platform alike
        return x.astype(np.int64).astype(dtype)
    if dtype.kind == "b" and x.dtype.name == "bfloat16":
        return x.astype(np.float32) != 0
    return x.astype(dtype)


def _from_text(x: Any, dtype: Any) -> Any:
    text = x.astype(str)
    try:
        if dtype.kind in "iu":
            return np.trunc(text.astype(np.float64)).astype(dtype) if _has_point(text) else text.astype(dtype)
        if dtype.kind == "b":
            return text.astype(np.int64).astype(bool)
        if dtype.kind == "f" and dtype.itemsize >= 4:
            return text.astype(dtype)
        return convert(np, text.astype(np.float32), dtype)
    except (ValueError, OverflowError) as error:
        raise InvalidInput(f"a string is no number of type {dtype}: {error}") from None


def _has_point(text: Any) -> bool:
    return bool((np.char.find(text, ".") >= 0).any() or (np.char.find(np.char.lower(text), "e") >= 0).any())


def _to_text(x: Any) -> Any:
    """Floats with 8 significant digits (doubles 17) and no trailing zeros, as C's %g prints them."""
    if x.dtype.kind == "b":
        values = ["1" if item else "0" for item in x.reshape(-1).tolist()]
    elif x.dtype.kind in "iu" or x.dtype in _SMALL_INTEGERS:
        values = [str(int(item)) for item in x.reshape(-1).tolist()]
    else:
        digits = 17 if x.dtype == np.float64 else 8
        names = {"nan": "NaN", "inf": "INF", "-inf": "-INF"}
        values = [f"{float(item):.{digits}g}" for item in x.reshape(-1).tolist()]
        values = [names.get(value, value) for value in values]
    result = np.empty(x.size, dtype=object)
    result[:] = values
    return result.reshape(x.shape)


def _to_float8(xp: Any, x: Any, dtype: Any, saturate: bool) -> Any:
    wide = x.astype(np.float32) if x.dtype != np.float64 else x
    if saturate:
        largest = float(ml_dtypes.finfo(dtype).max)
        wide = xp.clip(wide, -largest, largest)  # keeps NaN
        return wide.astype(dtype)
    result = wide.astype(dtype)
    if dtype.name == "float8_e4m3fn":
        return result
    largest = float(ml_dtypes.finfo(dtype).max)
    if dtype.name.endswith("fnuz"):
        # there is no infinity: what lies beyond the range is NaN
        result = xp.where(xp.abs(wide) > _overflow(dtype, largest), xp.asarray(np.nan, dtype=dtype), result)
    return result


def _overflow(dtype: Any, largest: float) -> float:
    """The least magnitude that rounds beyond the largest finite value: half a step above it."""
    mantissa = ml_dtypes.finfo(dtype).nmant
    return largest + largest / (2 ** (mantissa + 1) - 1) / 2


def _to_scale8(xp: Any, x: Any, saturate: bool, round_mode: str) -> Any:
    """Powers of two from 2^-127 to 2^127 without a sign; 255 is NaN."""
    wide = xp.abs(x.astype(np.float32))
    mantissa, exponent = xp.frexp(wide)  # wide = mantissa * 2^exponent, mantissa in [0.5, 1)
    code = exponent.astype(np.int32) - 1 + 127
    if round_mode == "up":
        code = code + (mantissa > 0.5)
    elif round_mode == "nearest":
        code = code + (mantissa >= 0.75)
    elif round_mode != "down":
        raise InvalidInput(f"Cast has no round_mode {round_mode!r}")
    too_large = code > 254
    code = xp.where(too_large, 254 if saturate else 255, xp.maximum(code, 0))
    code = xp.where(wide == 0, 0, code)
    code = xp.where(xp.isinf(wide), 254 if saturate else 255, code)
    code = xp.where(xp.isnan(wide), 255, code)
    return code.astype(np.uint8).view(_SCALE8)


def _to_small_integer(xp: Any, x: Any, dtype: Any) -> Any:
    low, high = _SMALL_INTEGERS[dtype]
    if is_float(x.dtype):
        values = xp.clip(xp.rint(x.astype(np.float32)), low, high).astype(np.int8)
    else:
        span = high - low + 1
        whole = x.astype(np.int64) if x.dtype.kind in "iub" else x.astype(np.int8).astype(np.int64)
        values = ((whole - low) % span + low).astype(np.int8)
    return values.astype(dtype)


@kernel("Cast", 1)
def cast(xp: Any, x: Any, *, to: int | str, saturate: int = 1, round_mode: str = "up") -> Any:
    """``to`` is the element's number; version 1 named it."""
    dtype = DTYPE_OF.get(_element(to))
    if dtype is None:
        raise InvalidInput(f"Cast can't make element type {to}")
    return convert(xp, x, dtype, bool(saturate), round_mode)


_NUMBERS = {
    "FLOAT": 1,
    "UINT8": 2,
    "INT8": 3,
    "UINT16": 4,
    "INT16": 5,
    "INT32": 6,
    "INT64": 7,
    "STRING": 8,
    "BOOL": 9,
    "FLOAT16": 10,
    "DOUBLE": 11,
    "UINT32": 12,
    "UINT64": 13,
}


def _element(to: int | str) -> int:
    return to if isinstance(to, int) else _NUMBERS.get(to.upper(), 0)


@kernel("CastLike", 15)
def cast_like(xp: Any, x: Any, like: Any, *, saturate: int = 1, round_mode: str = "up") -> Any:
    return convert(xp, x, like.dtype, bool(saturate), round_mode)


@kernel("BitCast", 26)
def bit_cast(xp: Any, x: Any, *, to: int) -> Any:
    dtype = DTYPE_OF[to]
    if dtype.itemsize != x.dtype.itemsize:
        raise InvalidInput(f"BitCast from {x.dtype} to {dtype}: the element sizes differ")
    return xp.ascontiguousarray(x).view(dtype).reshape(x.shape)
