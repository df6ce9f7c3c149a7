"""Numbers of one type as another's, in CUDA C: casts and saturation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from distort.kernels.compiler.expression import Expression, Instruction
from distort.kernels.cuda.codegen import narrow
from distort.kernels.cuda.codegen.dtypes import COMPUTED, is_real, literal


def convert(text: str, source: str, to: str) -> str:
    """A computed value of one dtype as another's."""
    if source == to:
        return text
    if source in narrow.NARROW:
        return convert(narrow.decoded(text, source), narrow.plain(source), to)
    if to in narrow.NARROW:
        return narrow.encoded(convert(text, source, "int64" if to in narrow.INTEGERS else "float32"), to)
    if COMPUTED[source] == COMPUTED[to]:
        return text
    if to == "bool":
        return f"({text} != 0)"
    if not is_real(source) or is_real(to):
        return f"({COMPUTED[to]}){text}"
    if to in ("int32", "int64", "uint64"):
        return f"to_{to}<{COMPUTED[source]}>({text})"
    if to == "uint32":
        return f"(unsigned)to_int64<{COMPUTED[source]}>({text})"
    return f"to_short_int<{COMPUTED[to]}, {COMPUTED[source]}>({text})"


def cast(expression: Expression, instruction: Instruction, operands: Sequence[str]) -> str:
    """Its attribute, of a narrow floating point result: whether what is beyond the largest number becomes that."""
    source, to = expression.dtype(instruction.operands[0]), instruction.dtype
    if to in narrow.FLOATS and instruction.attributes and not instruction.attributes[0]:
        return narrow.encoded(convert(operands[0], source, "float32"), to, saturates=False)
    return convert(operands[0], source, to)


def saturate(expression: Expression, instruction: Instruction, operands: Sequence[str]) -> str:
    dtype = instruction.dtype
    limits = np.iinfo(dtype) if dtype not in narrow.INTEGERS else None
    low, high = (limits.min, limits.max) if limits is not None else narrow.limits(dtype)
    ends = ", ".join([literal(float(limit), "float32") for limit in (low, high)])
    of = COMPUTED[dtype if limits is not None else narrow.plain(dtype)]
    value = f"saturated<{of}>({', '.join(operands)}, {ends})"
    return value if limits is not None else narrow.encoded(value, dtype)


__all__ = ["cast", "convert", "saturate"]
