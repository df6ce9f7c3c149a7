"""Element-wise operators as LLVM IR."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

from distort.kernels.compiler.codegen.elements import EMITTERS
from distort.kernels.compiler.codegen.text import Function, Value, element_of
from distort.kernels.compiler.expression import Expression, Instruction


def _is_real(value: Value) -> bool:
    return element_of(value.type) in ("float", "double")


def _signed(expression: Expression, operand: int) -> bool:
    return not expression.dtype(operand).startswith(("uint", "bool"))


def _arithmetic(real: str, integer: str) -> Callable[..., Value]:
    def emit(f: Function, expression: Expression, instruction: Instruction, operands: Sequence[Value]) -> Value:
        del expression, instruction
        a, b = operands
        return f.binary(real if _is_real(a) else integer, a, b)

    return emit


def _divide(f: Function, expression: Expression, instruction: Instruction, operands: Sequence[Value]) -> Value:
    a, b = operands
    if _is_real(a):
        return f.fdiv(a, b)
    # numpy divides by zero to zero; the hardware traps
    zero = f.icmp("eq", b, f.const(b.type, 0))
    divisor = f.select(zero, f.const(b.type, 1), b)
    signed = _signed(expression, instruction.operands[0])
    return f.select(zero, f.const(b.type, 0), f.binary("sdiv" if signed else "udiv", a, divisor))


def _extreme(real: str, integer: str) -> Callable[..., Value]:
    def emit(f: Function, expression: Expression, instruction: Instruction, operands: Sequence[Value]) -> Value:
        a, b = operands
        if _is_real(a):
            return f.intrinsic(real, a, b)
        signed = _signed(expression, instruction.operands[0])
        return f.intrinsic(f"{'s' if signed else 'u'}{integer}", a, b)

    return emit


def _constant(f: Function, expression: Expression, instruction: Instruction, operands: Sequence[Value]) -> Value:
    """The attribute's number, with as many lanes as the operand, which is not looked at otherwise."""
    from distort.kernels.compiler.codegen.elements import lanes_of, type_of

    del expression
    return f.const(type_of(instruction.dtype, lanes_of(operands[0].type)), float(instruction.attributes[0]))


def _negative(f: Function, expression: Expression, instruction: Instruction, operands: Sequence[Value]) -> Value:
    del expression, instruction
    (a,) = operands
    return f.op(a.type, f"fneg {a}") if _is_real(a) else f.binary("sub", f.const(a.type, 0), a)


def _relu(f: Function, expression: Expression, instruction: Instruction, operands: Sequence[Value]) -> Value:
    """max(x, 0); NaN stays."""
    del expression, instruction
    (a,) = operands
    zero = f.const(a.type, 0)
    if not _is_real(a):
        return f.intrinsic("smax", a, zero)
    return f.select(f.fcmp("olt", a, zero), zero, a)


@functools.cache
def register() -> None:
    """Enter all operators into the table."""
    from distort.kernels.compiler.codegen import mathematics

    EMITTERS.update(
        {
            "add": _arithmetic("fadd", "add"),
            "sub": _arithmetic("fsub", "sub"),
            "mul": _arithmetic("fmul", "mul"),
            "div": _divide,
            "maximum": _extreme("maximum", "max"),
            "minimum": _extreme("minimum", "min"),
            "neg": _negative,
            "relu": _relu,
            "constant": _constant,
        }
    )
    EMITTERS.update(mathematics.OPERATORS)
