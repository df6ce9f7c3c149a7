"""Pow as LLVM IR: of floats, integers and both, by the rules of the NumPy kernel."""

from __future__ import annotations

from collections.abc import Sequence

from distort.kernels.compiler.codegen import wide
from distort.kernels.compiler.codegen.casts import convert
from distort.kernels.compiler.codegen.elements import Emitter
from distort.kernels.compiler.codegen.operators import constant_of, is_real, is_signed, zero
from distort.kernels.compiler.codegen.text import Function, Value, element_of
from distort.kernels.compiler.expression import Expression, Instruction


def _pow(f: Function, expression: Expression, instruction: Instruction, operands: Sequence[Value]) -> Value:
    (a, b), (first, second) = operands, instruction.operands
    base, exponent = expression.dtype(first), expression.dtype(second)
    if is_real(a):
        easy = _easy(f, a, constant_of(expression, second))
        if easy is not None:
            return easy
    elif not is_real(b):
        return _whole(f, a, convert(f, b, exponent, base) if exponent != base else b, is_signed(base))
    x, y = (convert(f, value, dtype, "float64") for value, dtype in ((a, base), (b, exponent)))
    precise = "float64" in (base, exponent) or not is_real(a)
    result = f.intrinsic("pow", x, y) if precise else wide.power(f, x, y)
    return convert(f, result, "float64", base)


def _easy(f: Function, x: Value, exponent: float | None) -> Value | None:
    """x to a power that is a product or two, or a root."""
    one = f.const(x.type, 1)
    if exponent == 0:
        return one
    if exponent == 1:
        return x
    if exponent == 0.5:
        return f.unary("sqrt", x)  # of -0 and -∞ too, as in numpy
    if exponent == -1:
        return f.fdiv(one, x)
    if exponent not in (2, 3, 4, -2):
        return None
    square = f.fmul(x, x)
    if exponent == -2:
        return f.fdiv(one, square)
    return square if exponent == 2 else f.fmul(square, x if exponent == 3 else square)


def _whole(f: Function, a: Value, b: Value, signed: bool) -> Value:
    """By squaring. Below 0: 0 but for bases 1 and -1; of 0, the smallest integer."""
    width = int(element_of(a.type)[1:])
    one = f.const(a.type, 1)
    with f.loop(0, width - signed, carried=[one, a, b]) as steps:
        result, square, rest = steps.carried
        is_odd = f.icmp("ne", f.binary("and", rest, one), zero(f, rest))
        steps.carry(
            [
                f.select(is_odd, f.binary("mul", result, square), result),
                f.binary("mul", square, square),
                f.binary("lshr", rest, one),
            ]
        )
    result = steps.carried[0]
    if not signed:
        return result
    minus = f.const(a.type, -1)
    is_odd = f.icmp("ne", f.binary("and", b, one), zero(f, b))
    unit = f.select(f.binary("and", is_odd, f.icmp("eq", a, minus)), minus, one)
    is_unit = f.binary("or", f.icmp("eq", a, minus), f.icmp("eq", a, one))
    smallest = f.const(a.type, -(1 << (width - 1)))
    fraction = f.select(f.icmp("eq", a, zero(f, a)), smallest, zero(f, a))
    return f.select(f.icmp("slt", b, zero(f, b)), f.select(is_unit, unit, fraction), result)


OPERATORS: dict[str, Emitter] = {"pow": _pow}
