"""Elements of fewer than 8 bits, and floating point numbers of 8: a byte each, as NumPy's arrays have them.

Kernels move their codes; a cast makes numbers of them and the other way round. It rounds to the nearest code, half to
even, in integers, so that subnormal numbers don't matter.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from distort.graph.types import DTYPE_OF, ELEMENT_OF_NAME


class Layout(NamedTuple):
    """Bits of a floating point number behind its sign, and what its highest codes are."""

    n_exponent: int
    n_mantissa: int
    bias: int
    #: the code of the largest number, without sign
    largest: int
    #: beyond that, where casts don't saturate; NaN likewise
    overflow: int
    nan: int
    #: whether there is no negative zero, whose code is NaN
    one_zero: bool = False


FLOATS = {
    "float8_e4m3fn": Layout(4, 3, 7, 0x7E, 0x7F, 0x7F),
    "float8_e5m2": Layout(5, 2, 15, 0x7B, 0x7C, 0x7E),
    "float8_e4m3fnuz": Layout(4, 3, 8, 0x7F, 0x80, 0x80, one_zero=True),
    "float8_e5m2fnuz": Layout(5, 2, 16, 0x7F, 0x80, 0x80, one_zero=True),
}
#: bits of integers
INTEGERS = {"int4": 4, "uint4": 4, "int2": 2, "uint2": 2}
NARROW = frozenset([*FLOATS, *INTEGERS])
DTYPES = {name: DTYPE_OF[ELEMENT_OF_NAME[name.replace("_", "")]] for name in NARROW}


def limits(dtype: str) -> tuple[int, int]:
    """Of an integer's values."""
    bits = INTEGERS[dtype]
    return (0, (1 << bits) - 1) if dtype.startswith("u") else (-(1 << (bits - 1)), (1 << (bits - 1)) - 1)


def plain(dtype: str) -> str:
    """What all its numbers are computed with as."""
    if dtype in FLOATS:
        return "float32"
    return "uint8" if dtype.startswith("u") else "int8"


def decoded(text: str, dtype: str) -> str:
    """A code's number, in C."""
    if dtype in INTEGERS:
        bits = INTEGERS[dtype]
        if dtype.startswith("u"):
            return f"(unsigned char)({text} & {(1 << bits) - 1})"
        return f"(signed char)((signed char)({text} << {8 - bits}) >> {8 - bits})"
    return f"from_small<{_of_template(dtype)}>({text})"


def encoded(text: str, dtype: str, *, saturates: bool = True) -> str:
    """The code of a float, or of an integer, whose low bits count."""
    if dtype in INTEGERS:
        return f"(unsigned char)({text} & {(1 << INTEGERS[dtype]) - 1})"
    return f"to_small<{_of_template(dtype)}, {'true' if saturates else 'false'}>({text})"


def code_of(value: Any, dtype: str) -> int:
    """Of a number that is known."""
    return int(np.asarray(value).astype(DTYPES[dtype]).reshape(1).view(np.uint8)[0])


def _of_template(dtype: str) -> str:
    found = FLOATS[dtype]
    numbers = (found.n_exponent, found.n_mantissa, found.bias, found.largest, found.overflow, found.nan)
    return f"{', '.join(map(str, numbers))}, {'true' if found.one_zero else 'false'}"


__all__ = ["DTYPES", "FLOATS", "INTEGERS", "NARROW", "code_of", "decoded", "encoded", "limits", "plain"]
