"""Cast, CastLike, BitCast: every pair of element types, strings included."""

from __future__ import annotations

from typing import Any

import numpy as np

from distort.graph.types import DTYPE_OF, ELEMENT_OF_NAME, SUB_BYTE_BITS, element_of
from distort.kernels.errors import InvalidInput
from distort.kernels.registry import kernel

#: ONNX's numbers of element types
_FLOAT8 = frozenset({17, 18, 19, 20})
_SCALE8 = 24
_SUB_BYTE_INTEGERS = frozenset({21, 22, 25, 26})
_USER_DEFINED = 2  # what numpy says of dtypes that another package brings


def _is_one_of(dtype: Any, elements: frozenset[int]) -> bool:
    """Whether a dtype of ml_dtypes is one of these."""
    return dtype.isbuiltin == _USER_DEFINED and any(dtype == DTYPE_OF[element] for element in elements)


def is_float(dtype: Any) -> bool:
    """Whether an element type is a floating-point one, ml_dtypes' included (numpy sees most of them as kind V)."""
    return bool(dtype.kind == "f" or (dtype.kind == "V" and not _is_one_of(dtype, _SUB_BYTE_INTEGERS)))


def _plain(x: Any) -> Any:
    """x in one of numpy's own types that holds all its values."""
    if _is_one_of(x.dtype, _SUB_BYTE_INTEGERS):
        return x.astype(np.int8)
    if x.dtype.kind == "V" or (x.dtype.itemsize == 1 and x.dtype.kind == "f"):
        return x.astype(np.float32)
    return x


def convert(xp: Any, x: Any, dtype: Any, saturate: bool = True, round_mode: str = "up") -> Any:
    """``x`` as another element type by ONNX's rules; x itself where it has that type.

    Floats are cut towards zero for integers; a value out of range keeps its low bits, as in an int64 cut down.
    ``saturate`` concerns the float8 types, ``round_mode`` float8e8m0.
    """
    if x.dtype == dtype:
        return x
    if x.dtype.kind == "O":
        return _from_text(xp, x, dtype)
    x = _plain(x)
    if dtype.kind == "O":
        return _to_text(x)
    if _is_one_of(dtype, _FLOAT8):
        if saturate:
            import ml_dtypes

            largest = float(ml_dtypes.finfo(dtype).max)
            wide = x if x.dtype == np.float64 else x.astype(np.float32)
            x = xp.clip(wide, -largest, largest)  # keeps NaN
        return x.astype(dtype)
    if _is_one_of(dtype, frozenset({_SCALE8})):
        return _to_scale8(xp, x, saturate, round_mode)
    if _is_one_of(dtype, _SUB_BYTE_INTEGERS) or (dtype.kind in "iu" and x.dtype.kind == "f" and dtype.itemsize < 4):
        return x.astype(np.int64).astype(dtype)
    return x.astype(dtype)


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        return int(float(text))


def _from_text(xp: Any, x: Any, dtype: Any) -> Any:
    """Numbers as Python writes them, "inf" and "nan" in any case; integers out of range keep their low bits."""
    texts = x.reshape(-1).tolist()
    try:
        if is_float(dtype):
            numbers = np.array([float(text) for text in texts], dtype=np.float64)
        else:
            numbers = np.array([_whole(text) & 0xFFFFFFFFFFFFFFFF for text in texts], dtype=np.uint64).astype(np.int64)
    except (ValueError, OverflowError) as error:
        raise InvalidInput(f"a string is no {dtype}: {error}") from None
    return convert(np, numbers.reshape(x.shape), dtype)


def _to_text(x: Any) -> Any:
    """Integers in full, truth values as 1 and 0, floats with 8 significant digits as C's %g prints them."""
    if x.dtype.kind == "b":
        x = x.astype(np.int8)
    values = x.reshape(-1).tolist()
    if x.dtype.kind == "f":
        names = {"nan": "NaN", "inf": "INF", "-inf": "-INF"}
        texts = [f"{value:.8g}" for value in values]
        texts = [names.get(text, text) for text in texts]
    else:
        texts = [str(value) for value in values]
    result = np.empty(x.size, dtype=object)
    result[:] = texts
    return result.reshape(x.shape)


def _to_scale8(xp: Any, x: Any, saturate: bool, round_mode: str) -> Any:
    """Powers of two from 2^-127 to 2^127 without a sign; code 255 is NaN. Beyond the range: its end, or NaN."""
    if round_mode not in ("up", "down", "nearest"):
        raise InvalidInput(f"round_mode is {round_mode!r}, expected up, down or nearest")
    wide = xp.abs(x.astype(np.float32))
    mantissa, exponent = xp.frexp(wide)  # wide = mantissa * 2^exponent, mantissa in [0.5, 1)
    code = exponent.astype(np.int32) + 126
    if round_mode == "up":
        code = code + (mantissa > 0.5)
    elif round_mode == "nearest":
        code = code + (mantissa >= 0.75)
    code = xp.where(xp.isinf(wide), 255, xp.where(wide == 0, -1, code))
    outside = xp.logical_or(code < 0, code > 254)
    code = xp.clip(code, 0, 254) if saturate else xp.where(outside, 255, code)
    code = xp.where(xp.isnan(wide), 255, code)
    return code.astype(np.uint8).view(DTYPE_OF[_SCALE8])


def _target(to: int | str) -> Any:
    element = ELEMENT_OF_NAME.get(to.lower(), 0) if isinstance(to, str) else to
    dtype = DTYPE_OF.get(element)
    if dtype is None:
        raise InvalidInput(f"element type {to} is not supported")
    return dtype


@kernel("Cast")
def cast(xp: Any, x: Any, *, to: int | str, saturate: int = 1, round_mode: str = "up") -> Any:
    """``to`` is the element type's number; version 1 named it."""
    return convert(xp, x, _target(to), bool(saturate), round_mode)


@kernel("CastLike", 15)
def cast_like(xp: Any, x: Any, like: Any, *, saturate: int = 1, round_mode: str = "up") -> Any:
    return convert(xp, x, like.dtype, bool(saturate), round_mode)


def _bits(dtype: Any) -> int:
    return SUB_BYTE_BITS.get(element_of(dtype), 8 * dtype.itemsize)


@kernel("BitCast", 26)
def bit_cast(xp: Any, x: Any, *, to: int) -> Any:
    dtype = _target(to)
    if x.dtype.kind == "O" or dtype.kind == "O":
        raise InvalidInput("strings have no bits to cast")
    if _bits(dtype) != _bits(x.dtype):
        raise InvalidInput(f"{x.dtype} has {_bits(x.dtype)} bits, {dtype} {_bits(dtype)}")
    if _bits(dtype) < 8:
        # a byte holds the element and, in its upper bits, what its own type put there
        raw = x.view(np.uint8) & ((1 << _bits(dtype)) - 1)
        return xp.asarray(raw, dtype=np.uint8).view(dtype)
    return x.view(dtype)
