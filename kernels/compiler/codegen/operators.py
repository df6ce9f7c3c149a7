"""Element-wise operators as LLVM IR. They do what the NumPy kernels do, NaN and integers included.

Names are ONNX's in lower case, words apart; ``ATTRIBUTES`` has what an instruction's attributes are. Integers that are
divided by zero give zero: who lowers a division of integers sees to it that ONNX's error is raised.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

from distort.kernels.compiler.codegen.elements import EMITTERS, Emitter, lanes_of, type_of
from distort.kernels.compiler.codegen.text import Function, Value, element_of, with_element
from distort.kernels.compiler.expression import Expression, Instruction

#: operator -> its instruction's attributes, where it has any
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "constant": ("number",),
    "mod": ("fmod",),
    "is_inf": ("detect_negative", "detect_positive"),
    "bit_shift": ("direction",),
    "leaky_relu": ("alpha",),
    "elu": ("alpha",),
    "celu": ("alpha",),
    "selu": ("alpha", "gamma"),
    "hard_sigmoid": ("alpha", "beta"),
    "thresholded_relu": ("alpha",),
    "shrink": ("bias", "lambd"),
    "swish": ("alpha",),
    "gelu": ("approximate",),
}


def is_real(value: Value) -> bool:
    return element_of(value.type) in ("float", "double")


def is_signed(dtype: str) -> bool:
    return not dtype.startswith(("uint", "bool"))


def zero(f: Function, value: Value) -> Value:
    return f.const(value.type, 0)


def constant_of(expression: Expression, operand: int) -> float | None:
    """The number that an operand always is."""
    place = operand - len(expression.inputs)
    if place < 0 or expression.body[place].op != "constant":
        return None
    return expression.body[place].attributes[0]  # type: ignore[no-any-return]


def _arithmetic(real: str, integer: str) -> Emitter:
    def emit(f: Function, expression: Expression, instruction: Instruction, operands: Sequence[Value]) -> Value:
        del expression, instruction
        a, b = operands
        if is_real(a):
            return f.binary(real, a, b)
        if element_of(a.type) == "i1":  # numpy: or, and
            return f.binary("and" if integer == "mul" else "or", a, b)
        return f.binary(integer, a, b)

    return emit


def _whole_division(f: Function, signed: bool, a: Value, b: Value, what: str) -> Value:
    """``div`` or ``rem``. The machine traps at a zero, and at the smallest integer over -1."""
    none = f.icmp("eq", b, zero(f, b))
    one = f.const(b.type, 1)
    if not signed:
        return f.select(none, zero(f, b), _divided(f, signed, a, f.select(none, one, b), what))
    minus = f.icmp("eq", b, f.const(b.type, -1))
    result = _divided(f, signed, a, f.select(f.binary("or", none, minus), one, b), what)
    by_minus = f.binary("sub", zero(f, a), a) if what == "div" else zero(f, a)
    return f.select(none, zero(f, b), f.select(minus, by_minus, result))


def _divided(f: Function, signed: bool, a: Value, b: Value, what: str) -> Value:
    """Vectors of up to 32 bits as floating point numbers, which hold quotients of them exactly enough to be cut."""
    letter, width = "s" if signed else "u", int(element_of(a.type)[1:])
    if width > 32 or lanes_of(a.type) == 1:
        return f.binary(f"{letter}{what}", a, b)
    real = "float" if width <= 16 else "double"
    x, y = (f.cast(f"{letter}itofp", value, real) for value in (a, b))
    quotient = f.cast(f"fpto{letter}i", f.fdiv(x, y), element_of(a.type))
    return quotient if what == "div" else f.binary("sub", a, f.binary("mul", quotient, b))


def _divide(f: Function, expression: Expression, instruction: Instruction, operands: Sequence[Value]) -> Value:
    a, b = operands
    if is_real(a):
        return f.fdiv(a, b)
    return _whole_division(f, is_signed(expression.dtype(instruction.operands[0])), a, b, "div")


def _remainder(f: Function, a: Value, b: Value) -> Value:
    """fmod, exactly. Of float32 in double precision, where a quotient of less than 26 bits, and the product of its
    whole part with b, lose nothing."""
    from distort.kernels.compiler.codegen.copying import any_lane
    from distort.kernels.compiler.codegen.mathematics import by_lanes

    if element_of(a.type) == "double":
        return by_lanes(f, "fmod", a, b)
    x, y = (f.cast("fpext", value, "double") for value in (a, b))
    whole = f.unary("trunc", f.fdiv(x, y))
    size, limit = f.unary("fabs", y), f.const(x.type, math.inf)
    other = f.binary("or", f.fcmp("uge", f.unary("fabs", whole), f.const(x.type, 1 << 26)), f.fcmp("oeq", size, limit))

    def quick() -> list[Value]:
        rest = f.fsub(x, f.fmul(whole, y))
        return [f.intrinsic("copysign", f.cast("fptrunc", rest, "float"), a)]

    return f.choose(any_lane(f, other), (lambda: [by_lanes(f, "fmod", a, b)], quick))[0]


def _modulo(f: Function, expression: Expression, instruction: Instruction, operands: Sequence[Value]) -> Value:
    """``fmod`` 0: the divisor's sign; 1: the dividend's."""
    a, b = operands
    fmod = bool(instruction.attributes and instruction.attributes[0])
    if is_real(a):
        rest = _remainder(f, a, b)
        if fmod:
            return rest
        none = f.fcmp("oeq", rest, zero(f, a))
        unlike = f.binary("xor", f.fcmp("olt", rest, zero(f, a)), f.fcmp("olt", b, zero(f, b)))
        moved = f.select(unlike, f.fadd(rest, b), rest)
        return f.select(none, f.intrinsic("copysign", zero(f, a), b), moved)
    signed = is_signed(expression.dtype(instruction.operands[0]))
    rest = _whole_division(f, signed, a, b, "rem")
    if fmod or not signed:
        return rest
    unlike = f.icmp("slt", f.binary("xor", rest, b), zero(f, a))
    moved = f.binary("and", unlike, f.icmp("ne", rest, zero(f, a)))
    return f.select(moved, f.binary("add", rest, b), rest)


def extreme(f: Function, largest: bool, signed: bool, a: Value, b: Value, b_is_number: bool = False) -> Value:
    """The larger or smaller of two; NaN where one is. ``b_is_number``: b is known not to be NaN."""
    if not is_real(a):
        return f.intrinsic(f"{'s' if signed else 'u'}{'max' if largest else 'min'}", a, b)
    # as the machines' instructions: the second operand where they do not compare
    result = f.select(f.fcmp("ogt" if largest else "olt", b, a), b, a)
    return result if b_is_number else f.select(f.fcmp("uno", b, b), b, result)


def _extreme(largest: bool) -> Emitter:
    def emit(f: Function, expression: Expression, instruction: Instruction, operands: Sequence[Value]) -> Value:
        (a, b), (first, second) = operands, instruction.operands
        signed = is_signed(expression.dtype(first))
        number = constant_of(expression, second)
        if number is None and constant_of(expression, first) is not None:
            a, b, number = b, a, constant_of(expression, first)
        return extreme(f, largest, signed, a, b, number is not None and not math.isnan(number))

    return emit


def _clip(f: Function, expression: Expression, instruction: Instruction, operands: Sequence[Value]) -> Value:
    """min(max(x, low), high)"""
    x, *bounds = operands
    signed = is_signed(expression.dtype(instruction.operands[0]))
    for largest, bound, number in zip((True, False), bounds, instruction.operands[1:], strict=True):
        known = constant_of(expression, number)
        x = extreme(f, largest, signed, x, bound, known is not None and not math.isnan(known))
    return x


def _constant(f: Function, expression: Expression, instruction: Instruction, operands: Sequence[Value]) -> Value:
    """The attribute's number, with as many lanes as the operand, which is not looked at otherwise."""
    del expression
    return f.const(type_of(instruction.dtype, lanes_of(operands[0].type)), instruction.attributes[0])


def _negative(f: Function, expression: Expression, instruction: Instruction, operands: Sequence[Value]) -> Value:
    del expression, instruction
    (a,) = operands
    return f.op(a.type, f"fneg {a}") if is_real(a) else f.binary("sub", zero(f, a), a)


def _absolute(f: Function, expression: Expression, instruction: Instruction, operands: Sequence[Value]) -> Value:
    (a,) = operands
    if is_real(a):
        return f.unary("fabs", a)
    if not is_signed(expression.dtype(instruction.operands[0])):
        return a
    return f.select(f.icmp("slt", a, zero(f, a)), f.binary("sub", zero(f, a), a), a)


def _sign(f: Function, expression: Expression, instruction: Instruction, operands: Sequence[Value]) -> Value:
    (a,) = operands
    none, one, minus = (f.const(a.type, number) for number in (0, 1, -1))
    if is_real(a):
        result = f.select(f.fcmp("olt", a, none), minus, f.select(f.fcmp("oeq", a, none), none, a))
        return f.select(f.fcmp("ogt", a, none), one, result)
    if not is_signed(expression.dtype(instruction.operands[0])):
        return f.select(f.icmp("ne", a, none), one, none)
    return f.select(f.icmp("sgt", a, none), one, f.select(f.icmp("slt", a, none), minus, none))


def _unary(name: str) -> Emitter:
    """An intrinsic of reals; integers stay."""

    def emit(f: Function, expression: Expression, instruction: Instruction, operands: Sequence[Value]) -> Value:
        del expression, instruction
        return f.unary(name, operands[0]) if is_real(operands[0]) else operands[0]

    return emit


def _reciprocal(f: Function, expression: Expression, instruction: Instruction, operands: Sequence[Value]) -> Value:
    del expression, instruction
    return f.fdiv(f.const(operands[0].type, 1), operands[0])


def _comparison(condition: str) -> Emitter:
    """``lt``, ``ge``, ``eq`` and so on."""

    def emit(f: Function, expression: Expression, instruction: Instruction, operands: Sequence[Value]) -> Value:
        a, b = operands
        if is_real(a):
            return f.fcmp("une" if condition == "ne" else f"o{condition}", a, b)
        if condition in ("eq", "ne"):
            return f.icmp(condition, a, b)
        return f.icmp(("s" if is_signed(expression.dtype(instruction.operands[0])) else "u") + condition, a, b)

    return emit


def _bits(name: str) -> Emitter:
    def emit(f: Function, expression: Expression, instruction: Instruction, operands: Sequence[Value]) -> Value:
        del expression, instruction
        return f.binary(name, operands[0], operands[1])

    return emit


def _not(f: Function, expression: Expression, instruction: Instruction, operands: Sequence[Value]) -> Value:
    del expression, instruction
    (a,) = operands
    return f.binary("xor", a, f.const(a.type, 1 if element_of(a.type) == "i1" else -1))


def _where(f: Function, expression: Expression, instruction: Instruction, operands: Sequence[Value]) -> Value:
    del expression, instruction
    return f.select(*operands)


def _is_nan(f: Function, expression: Expression, instruction: Instruction, operands: Sequence[Value]) -> Value:
    del expression, instruction
    return f.fcmp("uno", operands[0], operands[0])


def _is_inf(f: Function, expression: Expression, instruction: Instruction, operands: Sequence[Value]) -> Value:
    del expression
    (a,) = operands
    result = f.const(with_element(a.type, "i1"), 0)
    for wanted, number in zip(instruction.attributes or (1, 1), (-math.inf, math.inf), strict=True):
        if wanted:
            result = f.binary("or", result, f.fcmp("oeq", a, f.const(a.type, number)))
    return result


def _shift(f: Function, expression: Expression, instruction: Instruction, operands: Sequence[Value]) -> Value:
    """By the width or more, or below 0: sign bits to the right, zeros else."""
    a, b = operands
    left = instruction.attributes[0] == "LEFT"
    signed = is_signed(expression.dtype(instruction.operands[0]))
    width = int(element_of(a.type)[1:])
    inside = f.icmp("ult", b, f.const(b.type, width))
    if signed and not left:
        return f.binary("ashr", a, f.select(inside, b, f.const(b.type, width - 1)))
    shifted = f.binary("shl" if left else "lshr", a, f.select(inside, b, zero(f, b)))
    return f.select(inside, shifted, zero(f, a))


@functools.cache
def register() -> None:
    """Enter all operators into the table."""
    from distort.kernels.compiler.codegen import activations, casts, mathematics, powers, quantized_elements, wide

    EMITTERS.update(
        {
            "constant": _constant,
            "add": _arithmetic("fadd", "add"),
            "sub": _arithmetic("fsub", "sub"),
            "mul": _arithmetic("fmul", "mul"),
            "div": _divide,
            "mod": _modulo,
            "max": _extreme(True),
            "min": _extreme(False),
            "maximum": _extreme(True),
            "minimum": _extreme(False),
            "clip": _clip,
            "neg": _negative,
            "abs": _absolute,
            "sign": _sign,
            "floor": _unary("floor"),
            "ceil": _unary("ceil"),
            "round": _unary("roundeven"),
            "sqrt": _unary("sqrt"),
            "reciprocal": _reciprocal,
            **{name: _bits(name) for name in ("and", "or", "xor")},
            **{f"bitwise_{name}": _bits(name) for name in ("and", "or", "xor")},
            "not": _not,
            "bitwise_not": _not,
            "bit_shift": _shift,
            "equal": _comparison("eq"),
            "not_equal": _comparison("ne"),
            "less": _comparison("lt"),
            "greater": _comparison("gt"),
            "less_or_equal": _comparison("le"),
            "greater_or_equal": _comparison("ge"),
            "where": _where,
            "is_nan": _is_nan,
            "is_inf": _is_inf,
        }
    )
    for module in (activations, casts, mathematics, powers, quantized_elements, wide):
        operators: dict[str, Emitter] = module.OPERATORS
        EMITTERS.update(operators)


__all__ = ["ATTRIBUTES", "Callable", "constant_of", "extreme", "is_real", "is_signed", "register", "zero"]
