"""Expressions as CUDA C, one element at a time. They do what the CPU's kernels do, NaN and integers included.

Half precision is computed with in float32 and rounded between operators, as if it had been stored. Functions are
CUDA's, to 2 ulp; products and sums may be contracted, as on the CPU.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from distort.kernels.compiler.expression import Expression, Instruction
from distort.kernels.cuda.codegen.activations import ACTIVATIONS
from distort.kernels.cuda.codegen.casts import cast, convert, saturate
from distort.kernels.cuda.codegen.dtypes import COMPUTED, NBYTES, computed, is_real, is_signed, literal, stored

#: op -> how it is printed: (expression, instruction, operands) -> C
Emitter = Callable[[Expression, Instruction, Sequence[str]], str]
NARROW = ("float16", "bfloat16")
#: instructions whose results need no rounding where their operands are rounded
_EXACT = frozenset(
    [
        "constant",
        "max",
        "min",
        "maximum",
        "minimum",
        "clip",
        "neg",
        "abs",
        "sign",
        "floor",
        "ceil",
        "round",
        "relu",
        "where",
        "row_max",
        "row_min",
    ]
)


class Body:
    """Statements of one element under construction."""

    def __init__(self, expression: Expression) -> None:
        self.expression = expression
        self.lines: list[str] = []

    def emit(self, number: int, operands: Sequence[str], name: str) -> str:
        """Declare ``name`` as what instruction ``number`` makes; how it is written: its name, or a literal."""
        expression = self.expression
        instruction = expression.body[number - len(expression.inputs)]
        if instruction.op == "constant":
            return literal(instruction.attributes[0], instruction.dtype)
        value = EMITTERS[instruction.op](expression, instruction, operands)
        self.lines.append(f"const {COMPUTED[instruction.dtype]} {name} = {rounded(expression, number, value)};")
        return name


def rounded(expression: Expression, number: int, value: str) -> str:
    """What an instruction makes, as others see it: half precision as if it had been stored between two operators."""
    instruction = expression.body[number - len(expression.inputs)]
    if instruction.dtype not in NARROW or instruction.op in _EXACT:
        return value
    if not any(number in other.operands for other in expression.body):
        return value  # it is only stored
    return computed(stored(value, instruction.dtype), instruction.dtype)


def evaluate(expression: Expression, inputs: Sequence[str], prefix: str = "v") -> tuple[list[str], list[str]]:
    """Statements, and what results are written as. ``inputs`` are in the types that are computed with."""
    body = Body(expression)
    values = list(inputs)
    for number, instruction in enumerate(expression.body, len(inputs)):
        operands = [values[operand] for operand in instruction.operands]
        values.append(body.emit(number, operands, f"{prefix}{number}"))
    return body.lines, [values[number] for number in expression.results]


def function(name: str, dtype: str) -> str:
    """One of the C library's by an element's dtype."""
    return name if COMPUTED[dtype] == "double" else f"{name}f"


def known_number(expression: Expression, operand: int) -> float | None:
    """The number that an operand always is."""
    place = operand - len(expression.inputs)
    if place < 0 or expression.body[place].op != "constant":
        return None
    return expression.body[place].attributes[0]  # type: ignore[no-any-return]


def whole(dtype: str, text: str) -> str:
    """Arithmetic of integers, which wraps."""
    return f"({COMPUTED[dtype]})({text})"


def unsigned(dtype: str) -> str:
    """The type that arithmetic of integers is done in."""
    return "unsigned long long" if NBYTES[dtype] == 8 else "unsigned"


def _arithmetic(sign: str, logic: str) -> Emitter:
    def emit(expression: Expression, instruction: Instruction, operands: Sequence[str]) -> str:
        a, b = operands
        dtype = expression.dtype(instruction.operands[0])
        if dtype == "bool":  # numpy: or, and
            return f"{a} {logic} {b}"
        if is_real(dtype):
            return f"{a} {sign} {b}"
        wide = unsigned(dtype)
        return whole(dtype, f"({wide}){a} {sign} ({wide}){b}")

    return emit


def _divide(expression: Expression, instruction: Instruction, operands: Sequence[str]) -> str:
    dtype = expression.dtype(instruction.operands[0])
    if is_real(dtype):
        return f"{operands[0]} / {operands[1]}"
    return f"whole_div<{COMPUTED[dtype]}>({', '.join(operands)})"


def _modulo(expression: Expression, instruction: Instruction, operands: Sequence[str]) -> str:
    """``fmod`` 0: the divisor's sign; 1: the dividend's."""
    dtype = expression.dtype(instruction.operands[0])
    fmod = bool(instruction.attributes and instruction.attributes[0])
    both = ", ".join(operands)
    if is_real(dtype):
        if fmod:
            return f"{function('fmod', dtype)}({both})"
        return f"{'wide_mod' if dtype == 'float64' else 'real_mod'}({both})"
    return f"{'whole_rem' if fmod else 'whole_mod'}<{COMPUTED[dtype]}>({both})"


def extreme(largest: bool, dtype: str, a: str, b: str, b_is_number: bool = False) -> str:
    """The larger or smaller of two; NaN where one is. ``b_is_number``: b is known not to be NaN."""
    if b_is_number:
        return f"{'at_least' if largest else 'at_most'}<{COMPUTED[dtype]}>({a}, {b})"
    return f"{'larger' if largest else 'smaller'}<{COMPUTED[dtype]}>({a}, {b})"


def _is_number(number: float | None) -> bool:
    return number is not None and not math.isnan(number)


def _extreme(largest: bool) -> Emitter:
    def emit(expression: Expression, instruction: Instruction, operands: Sequence[str]) -> str:
        (a, b), (first, second) = operands, instruction.operands
        number = known_number(expression, second)
        if number is None and known_number(expression, first) is not None:
            a, b, number = b, a, known_number(expression, first)
        return extreme(largest, expression.dtype(first), a, b, _is_number(number))

    return emit


def _clip(expression: Expression, instruction: Instruction, operands: Sequence[str]) -> str:
    """min(max(x, low), high)"""
    x, *bounds = operands
    dtype = expression.dtype(instruction.operands[0])
    for largest, bound, number in zip((True, False), bounds, instruction.operands[1:], strict=True):
        x = extreme(largest, dtype, x, bound, _is_number(known_number(expression, number)))
    return x


def _negative(expression: Expression, instruction: Instruction, operands: Sequence[str]) -> str:
    dtype = expression.dtype(instruction.operands[0])
    return f"-{operands[0]}" if is_real(dtype) else whole(dtype, f"0 - ({unsigned(dtype)}){operands[0]}")


def _absolute(expression: Expression, instruction: Instruction, operands: Sequence[str]) -> str:
    dtype, (a,) = expression.dtype(instruction.operands[0]), operands
    if is_real(dtype):
        return f"{function('fabs', dtype)}({a})"
    return f"{a} < 0 ? {whole(dtype, f'0 - ({unsigned(dtype)}){a}')} : {a}" if is_signed(dtype) else a


def _of_reals(name: str) -> Emitter:
    """A function of the C library; integers stay."""

    def emit(expression: Expression, instruction: Instruction, operands: Sequence[str]) -> str:
        dtype = expression.dtype(instruction.operands[0])
        return f"{function(name, dtype)}({operands[0]})" if is_real(dtype) else operands[0]

    return emit


def _comparison(sign: str) -> Emitter:
    return lambda expression, instruction, operands: f"{operands[0]} {sign} {operands[1]}"


def _bits(sign: str) -> Emitter:
    def emit(expression: Expression, instruction: Instruction, operands: Sequence[str]) -> str:
        return whole(expression.dtype(instruction.operands[0]), f"{operands[0]} {sign} {operands[1]}")

    return emit


def _not(expression: Expression, instruction: Instruction, operands: Sequence[str]) -> str:
    dtype = expression.dtype(instruction.operands[0])
    return f"!{operands[0]}" if dtype == "bool" else whole(dtype, f"~{operands[0]}")


def _shift(expression: Expression, instruction: Instruction, operands: Sequence[str]) -> str:
    name = "shifted_left" if instruction.attributes[0] == "LEFT" else "shifted_right"
    return f"{name}<{COMPUTED[expression.dtype(instruction.operands[0])]}>({', '.join(operands)})"


def _is_inf(expression: Expression, instruction: Instruction, operands: Sequence[str]) -> str:
    dtype = expression.dtype(instruction.operands[0])
    ends = zip(instruction.attributes or (1, 1), (-math.inf, math.inf), strict=True)
    found = [f"{operands[0]} == {literal(number, dtype)}" for wanted, number in ends if wanted]
    return " || ".join(found) or "false"


def _pow(expression: Expression, instruction: Instruction, operands: Sequence[str]) -> str:
    (a, b), (first, second) = operands, instruction.operands
    base, exponent = expression.dtype(first), expression.dtype(second)
    if is_real(base):
        easy = _easy_pow(a, base, known_number(expression, second))
        if easy is not None:
            return easy
    elif not is_real(exponent):
        return f"whole_pow<{COMPUTED[base]}>({a}, {convert(b, exponent, base)})"
    # float32 does not hold all exponents of 32 bits, whose parity counts
    if COMPUTED[base] == "float" and (COMPUTED[exponent] == "float" or NBYTES[exponent] <= 2):
        return f"powf({a}, {convert(b, exponent, 'float32')})"
    result = f"pow({convert(a, base, 'float64')}, {convert(b, exponent, 'float64')})"
    return convert(result, "float64", base)


def _easy_pow(x: str, dtype: str, exponent: float | None) -> str | None:
    """x to a power that is a product or two, or a root."""
    products = {2: f"{x} * {x}", 3: f"{x} * {x} * {x}", 4: f"({x} * {x}) * ({x} * {x})"}
    if exponent in products:
        return products[int(exponent)]
    one = literal(1, dtype)
    others = {0: one, 1: x, 0.5: f"{function('sqrt', dtype)}({x})", -1: f"{one} / {x}", -2: f"{one} / ({x} * {x})"}
    return None if exponent is None else others.get(exponent)


def _one(template: str) -> Emitter:
    """``{0}``, ``{1}``: operands; ``{one}``: 1."""

    def emit(expression: Expression, instruction: Instruction, operands: Sequence[str]) -> str:
        return template.format(*operands, one=literal(1, expression.dtype(instruction.operands[0])))

    return emit


def _activation(printed: Callable[..., str]) -> Emitter:
    def emit(expression: Expression, instruction: Instruction, operands: Sequence[str]) -> str:
        attributes: tuple[Any, ...] = instruction.attributes
        return printed(expression.dtype(instruction.operands[0]), *operands, *attributes)

    return emit


_FUNCTIONS = [
    "exp",
    "expm1",
    "log",
    "log1p",
    "tanh",
    "erf",
    "sin",
    "cos",
    "tan",
    "asin",
    "acos",
    "atan",
    "sinh",
    "cosh",
    "asinh",
    "acosh",
    "atanh",
]
EMITTERS: dict[str, Emitter] = {
    "add": _arithmetic("+", "||"),
    "sub": _arithmetic("-", "||"),
    "mul": _arithmetic("*", "&&"),
    "div": _divide,
    "mod": _modulo,
    **dict.fromkeys(("max", "maximum"), _extreme(True)),
    **dict.fromkeys(("min", "minimum"), _extreme(False)),
    "clip": _clip,
    "neg": _negative,
    "abs": _absolute,
    "sign": lambda expression, instruction, operands: (
        f"sign_of<{COMPUTED[expression.dtype(instruction.operands[0])]}>({operands[0]})"
    ),
    "floor": _of_reals("floor"),
    "ceil": _of_reals("ceil"),
    "round": _of_reals("rint"),
    "sqrt": _of_reals("sqrt"),
    **{name: _of_reals(name) for name in _FUNCTIONS},
    "exp_to_one": _of_reals("exp"),
    "reciprocal": _one("{one} / {0}"),
    **{f"{prefix}{name}": _bits(sign) for prefix in ("", "bitwise_") for name, sign in
       (("and", "&"), ("or", "|"), ("xor", "^"))},
    **dict.fromkeys(("not", "bitwise_not"), _not),
    "bit_shift": _shift,
    "equal": _comparison("=="),
    "not_equal": _comparison("!="),
    "less": _comparison("<"),
    "greater": _comparison(">"),
    "less_or_equal": _comparison("<="),
    "greater_or_equal": _comparison(">="),
    "where": _one("{0} ? {1} : {2}"),
    "is_nan": _one("{0} != {0}"),
    "is_inf": _is_inf,
    "cast": cast,
    "pow": _pow,
    "quotient": _one("{0} / {1}"),  # division is exact here
    "saturate": saturate,
    **{name: _activation(printed) for name, printed in ACTIVATIONS.items()},
}  # fmt: skip

__all__ = ["EMITTERS", "NARROW", "Body", "convert", "evaluate", "extreme", "function", "known_number", "rounded"]
