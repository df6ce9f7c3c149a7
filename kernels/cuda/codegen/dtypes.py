"""Elements in CUDA C: how they are stored, what is computed with, and numbers as text."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from distort.kernels.cuda.codegen.narrow import NARROW, code_of

#: numpy's name -> the type of an element in memory; of narrow ones kernels have codes
STORED = {
    "float32": "float",
    "float64": "double",
    "float16": "unsigned short",
    "bfloat16": "unsigned short",
    "bool": "unsigned char",
    "int8": "signed char",
    "uint8": "unsigned char",
    "int16": "short",
    "uint16": "unsigned short",
    "int32": "int",
    "uint32": "unsigned",
    "int64": "long long",
    "uint64": "unsigned long long",
    **dict.fromkeys(sorted(NARROW), "unsigned char"),
}
COMPUTED = STORED | {"float16": "float", "bfloat16": "float", "bool": "bool"}
NBYTES = {name: 8 if name.endswith("64") else 4 if name.endswith("32") else 2 for name in STORED}
NBYTES |= {"bool": 1, "int8": 1, "uint8": 1, **dict.fromkeys(NARROW, 1)}
#: a type of as many bytes, whatever they mean
OF_NBYTES = {1: "unsigned char", 2: "unsigned short", 4: "unsigned", 8: "unsigned long long"}
_FROM = {"float16": "from_half({})", "bfloat16": "from_bfloat({})", "bool": "({} != 0)"}
_TO = {"float16": "to_half({})", "bfloat16": "to_bfloat({})", "bool": "(unsigned char)({})"}


def is_real(dtype: str) -> bool:
    return COMPUTED[dtype] in ("float", "double")


def is_signed(dtype: str) -> bool:
    return not dtype.startswith(("uint", "bool"))


def computed(text: str, dtype: str) -> str:
    """A stored element as it is computed with."""
    return _FROM.get(dtype, "{}").format(text)


def stored(text: str, dtype: str) -> str:
    """A computed element as it is stored."""
    return _TO.get(dtype, "{}").format(text)


def literal(value: Any, dtype: str) -> str:
    """A number in the type that is computed with."""
    if dtype == "bool":
        return "true" if value else "false"
    if dtype in NARROW:
        return f"((unsigned char){code_of(value, dtype)})"
    kind = COMPUTED[dtype]
    if not is_real(dtype):
        bits = 8 * NBYTES[dtype]
        number = int(value) & ((1 << bits) - 1)
        if is_signed(dtype) and number >> (bits - 1):
            number -= 1 << bits
        if number == -(1 << 63):
            return "(-9223372036854775807ll - 1)"
        suffix = {"long long": "ll", "unsigned long long": "ull", "unsigned": "u"}.get(kind, "")
        return f"(({kind})({number}{suffix}))"
    real = float(value)
    if kind == "double":
        if math.isfinite(real):
            return f"({real.hex()})"
        return f"wide_real_of({int(np.float64(real).view(np.uint64)):#x}ull)"
    with np.errstate(over="ignore"):
        single = np.float32(real)
    if np.isfinite(single):
        return f"({float(single).hex()}f)"
    return f"real_of({int(single.view(np.uint32)):#x}u)"


__all__ = ["COMPUTED", "NBYTES", "OF_NBYTES", "STORED", "computed", "is_real", "is_signed", "literal", "stored"]
