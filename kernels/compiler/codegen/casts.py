"""Cast as LLVM IR, by the rules of the NumPy kernel (``kernels/ops/cast.py``)."""

from __future__ import annotations

from collections.abc import Sequence

from distort.kernels.compiler.codegen.elements import Emitter
from distort.kernels.compiler.codegen.operators import is_real, is_signed, zero
from distort.kernels.compiler.codegen.text import Function, Value, element_of
from distort.kernels.compiler.expression import COMPUTED, Expression, Instruction


def convert(f: Function, value: Value, source: str, to: str) -> Value:
    """A computed value of one dtype as another's. Floats are cut towards zero, integers keep their low bits."""
    if source == to:
        return value
    wanted = COMPUTED[to]
    if is_real(value):
        if to == "bool":
            return f.fcmp("une", value, zero(f, value))
        if wanted in ("float", "double"):
            has = element_of(value.type)
            return value if has == wanted else f.cast("fpext" if wanted == "double" else "fptrunc", value, wanted)
        return _whole(f, value, to)
    if to == "bool":
        return f.icmp("ne", value, zero(f, value))
    signed = is_signed(source)
    if wanted in ("float", "double"):
        return f.cast("sitofp" if signed else "uitofp", value, wanted)
    n_bits, n_wanted = (int(element[1:]) for element in (element_of(value.type), wanted))
    if n_bits == n_wanted:
        return value
    return f.cast("trunc" if n_bits > n_wanted else "sext" if signed else "zext", value, wanted)


def _whole(f: Function, value: Value, to: str) -> Value:
    """Integers of fewer than 32 bits are the low bits of longer ones."""
    wanted = COMPUTED[to]
    if to == "uint64":
        return f.cast("fptoui", value, wanted)
    if to in ("int32", "int64"):
        return f.cast("fptosi", value, wanted)
    short = wanted == "i8" and element_of(value.type) == "float"  # such floats from 2³¹ on have no low byte
    return f.cast("trunc", f.cast("fptosi", value, "i32" if short else "i64"), wanted)


def _cast(f: Function, expression: Expression, instruction: Instruction, operands: Sequence[Value]) -> Value:
    (operand,), (value,) = instruction.operands, operands
    return convert(f, value, expression.dtype(operand), instruction.dtype)


OPERATORS: dict[str, Emitter] = {"cast": _cast}
