"""Expressions as LLVM IR: on vectors of any number of lanes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from distort.kernels.compiler.codegen.text import NUMBER_OF_BITS, Function, Value, lanes_of, vector
from distort.kernels.compiler.expression import COMPUTED, STORED, Expression, Instruction

#: op -> how it is printed: (function, expression, instruction, operands) -> result
Emitter = Callable[[Function, Expression, Instruction, Sequence[Value]], Value]
EMITTERS: dict[str, Emitter] = {}


def evaluate(f: Function, expression: Expression, inputs: Sequence[Value]) -> list[Value]:
    """Print the expression's body. ``inputs`` and results are in the types that are computed with."""
    from distort.kernels.compiler.codegen import operators

    operators.register()
    values = list(inputs)
    for instruction in expression.body:
        operands = [values[number] for number in instruction.operands]
        values.append(EMITTERS[instruction.op](f, expression, instruction, operands))
    return [values[number] for number in expression.results]


def computed(f: Function, value: Value, dtype: str) -> Value:
    """A stored value as it is computed with."""
    if dtype == "bool":
        return f.icmp("ne", value, f.const(value.type, 0))
    if dtype in ("float16", "bfloat16"):
        return f.cast("fpext", value, "float")
    return value


def stored(f: Function, value: Value, dtype: str) -> Value:
    """A computed value as it is stored."""
    if dtype == "bool":
        return f.cast("zext", value, "i8")
    if dtype in ("float16", "bfloat16"):
        return f.cast("fptrunc", value, STORED[dtype])
    return value


def load(f: Function, address: Value, dtype: str, lanes: int) -> Value:
    """Elements next to each other, ready to be computed with."""
    return computed(f, f.load(vector(STORED[dtype], lanes), address), dtype)


def store(f: Function, value: Value, address: Value, dtype: str) -> None:
    f.store(stored(f, value, dtype), address)


def nbytes(dtype: str) -> int:
    """Of an element as it is stored."""
    bits = NUMBER_OF_BITS.get(STORED[dtype]) or int(STORED[dtype][1:])
    return bits // 8


def type_of(dtype: str, lanes: int) -> str:
    return vector(COMPUTED[dtype], lanes)


__all__ = ["EMITTERS", "Emitter", "computed", "evaluate", "lanes_of", "load", "nbytes", "store", "stored", "type_of"]
