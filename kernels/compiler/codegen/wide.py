"""Functions of float32 that are computed in double precision, as vectors of half as many lanes: the rare ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from distort.kernels.compiler.codegen.elements import Emitter
from distort.kernels.compiler.codegen.mathematics import (
    at_least,
    at_most,
    by_lanes,
    of_one,
    polynomial,
    scaled,
    whole_and_bits,
)
from distort.kernels.compiler.codegen.text import Function, Value, element_of, lanes_of, with_element

#: Taylor's series are enough for the 10 digits that are wanted
_EXP = [1 / math.factorial(k) for k in range(11)]
_ATANH = [1 / (2 * k + 1) for k in range(8)]
_SIN = [(-1) ** k / math.factorial(2 * k + 1) for k in range(7)]
_COS = [(-1) ** k / math.factorial(2 * k) for k in range(8)]
#: π/2 in three parts, the first two of 33 bits: multiples of them are exact (fdlibm)
_HALF_PI = (1.57079632673412561417, 6.07710050630396597660e-11, 2.02226624879595063154e-21)
#: beyond this, angles are reduced by libm
_LARGEST_ANGLE = 1e6
#: below this, series are closer than differences of large numbers
_SMALL = 0.02


def _number(f: Function, like: Value, value: float) -> Value:
    return f.const(like.type, value)


def exp(f: Function, x: Value) -> Value:
    """e^x for |x| up to 700, of doubles, to 12 digits; beyond, as at the limit."""
    x = at_most(f, at_least(f, x, -700.0), 700.0)
    whole, bits = whole_and_bits(f, x, math.log2(math.e))
    rest = f.fma(whole, _number(f, x, -0.6931471803691238), x)
    rest = f.fma(whole, _number(f, x, -1.9082149292705877e-10), rest)
    return scaled(f, polynomial(f, rest, _EXP), bits)


def log(f: Function, x: Value) -> Value:
    """The natural logarithm of doubles that are not subnormal, to 12 digits."""
    bits = f.cast("bitcast", x, "i64")
    places = f.const(bits.type, 52)
    exponent = f.binary("ashr", f.binary("sub", bits, f.const(bits.type, 0x3FE6A09E667F3BCD)), places)
    mantissa = f.cast("bitcast", f.binary("sub", bits, f.binary("shl", exponent, places)), "double")
    one = _number(f, x, 1)
    s = f.fdiv(f.fsub(mantissa, one), f.fadd(mantissa, one))
    twice = f.fadd(s, s)
    short = f.cast("trunc", exponent, "i32")
    whole = f.cast("sitofp", short, "double")
    result = f.fma(whole, _number(f, x, math.log(2)), f.fmul(twice, polynomial(f, f.fmul(s, s), _ATANH)))
    result = f.select(f.fcmp("olt", x, _number(f, x, math.inf)), result, x)
    result = f.select(f.fcmp("oeq", x, _number(f, x, 0)), _number(f, x, -math.inf), result)
    return f.select(f.fcmp("olt", x, _number(f, x, 0)), _number(f, x, math.nan), result)


def _negative(f: Function, x: Value) -> Value:
    return f.op(x.type, f"fneg {x}")


def _unless_small(f: Function, x: Value, result: Value, series: Sequence[float]) -> Value:
    """x · series(x²) where |x| is small."""
    small = f.fmul(x, polynomial(f, f.fmul(x, x), series))
    return f.select(f.fcmp("olt", f.unary("fabs", x), _number(f, x, _SMALL)), small, result)


def _sinh(f: Function, x: Value) -> Value:
    difference = f.fsub(exp(f, x), exp(f, _negative(f, x)))
    return _unless_small(f, x, f.fmul(difference, _number(f, x, 0.5)), (1.0, 1 / 6, 1 / 120))


def _cosh(f: Function, x: Value) -> Value:
    return f.fmul(f.fadd(exp(f, x), exp(f, _negative(f, x))), _number(f, x, 0.5))


def _asinh(f: Function, x: Value) -> Value:
    size = f.unary("fabs", x)
    root = f.unary("sqrt", f.fma(x, x, _number(f, x, 1)))
    result = f.intrinsic("copysign", log(f, f.fadd(size, root)), x)
    return _unless_small(f, x, result, (1.0, -1 / 6, 3 / 40))


def _acosh(f: Function, x: Value) -> Value:
    one = _number(f, x, 1)
    root = f.unary("sqrt", f.fmul(f.fsub(x, one), f.fadd(x, one)))
    return f.select(f.fcmp("olt", x, one), _number(f, x, math.nan), log(f, f.fadd(x, root)))


def _atanh(f: Function, x: Value) -> Value:
    one = _number(f, x, 1)
    result = f.fmul(log(f, f.fdiv(f.fadd(one, x), f.fsub(one, x))), _number(f, x, 0.5))
    return _unless_small(f, x, result, (1.0, 1 / 3, 1 / 5, 1 / 7))


def _sin_and_cos(f: Function, x: Value) -> tuple[Value, Value, Value]:
    """Sine and cosine of what is left of an angle over a number of quarter turns, and an integer that ends in that."""
    whole, bits = whole_and_bits(f, x, 2 / math.pi)
    rest = x
    for part in _HALF_PI:
        rest = f.fsub(rest, f.fmul(whole, _number(f, x, part)))
    square = f.fmul(rest, rest)
    return f.fmul(rest, polynomial(f, square, _SIN)), polynomial(f, square, _COS), bits


def _is_set(f: Function, bits: Value, mask: int) -> Value:
    return f.icmp("ne", f.binary("and", bits, f.const(bits.type, mask)), f.const(bits.type, 0))


def _sin(f: Function, x: Value, quarters: int = 0) -> Value:
    """The sine of x and some quarter turns."""
    sine, cosine, bits = _sin_and_cos(f, x)
    bits = f.binary("add", bits, f.const(bits.type, quarters))
    value = f.select(_is_set(f, bits, 1), cosine, sine)
    return f.select(_is_set(f, bits, 2), _negative(f, value), value)


def _cos(f: Function, x: Value) -> Value:
    return _sin(f, x, 1)


def _tan(f: Function, x: Value) -> Value:
    sine, cosine, bits = _sin_and_cos(f, x)
    odd = _is_set(f, bits, 1)
    return f.fdiv(f.select(odd, _negative(f, cosine), sine), f.select(odd, sine, cosine))


def any_lane(f: Function, condition: Value) -> Value:
    """Whether a condition holds in one lane or more."""
    lanes = lanes_of(condition.type)
    if lanes == 1:
        return condition
    return f.call("i1", f"llvm.vector.reduce.or.v{lanes}i1", [condition])


def _by_double(name: str, function: Callable[[Function, Value], Value], angle: bool = False) -> Emitter:
    """``angle``: large operands are left to libm."""

    def emit(f: Function, x: Value) -> Value:
        if element_of(x.type) == "double":
            return by_lanes(f, name, x)

        def quick() -> list[Value]:
            return [f.cast("fptrunc", function(f, f.cast("fpext", x, "double")), "float")]

        if not angle:
            return quick()[0]
        large = f.fcmp("ogt", f.unary("fabs", x), f.const(x.type, _LARGEST_ANGLE))
        return f.choose(any_lane(f, large), [lambda: [by_lanes(f, name, x)], quick])[0]

    return of_one(emit)


def power(f: Function, x: Value, y: Value) -> Value:
    """x^y of doubles for a float32 result."""
    zero, one = _number(f, x, 0), _number(f, x, 1)
    size = f.unary("fabs", x)
    # subnormal doubles, which log doesn't take, are 0 as float32
    result = exp_of_product(f, log(f, size), y)
    is_whole = f.fcmp("oeq", f.unary("floor", y), y)
    half = f.fmul(y, _number(f, x, 0.5))
    is_odd = f.binary("and", is_whole, f.fcmp("one", f.unary("floor", half), half))
    sign = f.op(with_element(x.type, "i1"), f"icmp slt {f.cast('bitcast', x, 'i64')}, {zero_of(x)}")
    result = f.select(f.binary("and", sign, is_odd), _negative(f, result), result)
    finite_negative = f.binary("and", f.fcmp("olt", x, zero), f.fcmp("ogt", x, _number(f, x, -math.inf)))
    outside = f.binary("and", finite_negative, f.fcmp("one", f.unary("floor", y), y))
    result = f.select(outside, _number(f, x, math.nan), result)
    unit = f.binary(
        "and", f.fcmp("oeq", x, _number(f, x, -1)), f.fcmp("oeq", f.unary("fabs", y), _number(f, x, math.inf))
    )
    always_one = f.binary("or", unit, f.binary("or", f.fcmp("oeq", x, one), f.fcmp("oeq", y, zero)))
    return f.select(always_one, one, result)


def exp_of_product(f: Function, a: Value, b: Value) -> Value:
    """e^(a · b), as small or large as a float32 can tell."""
    return exp(f, at_most(f, at_least(f, f.fmul(a, b), -150.0), 150.0))


def zero_of(x: Value) -> str:
    return "zeroinitializer" if lanes_of(x.type) > 1 else "0"


OPERATORS: dict[str, Emitter] = {
    "sinh": _by_double("sinh", _sinh),
    "cosh": _by_double("cosh", _cosh),
    "asinh": _by_double("asinh", _asinh),
    "acosh": _by_double("acosh", _acosh),
    "atanh": _by_double("atanh", _atanh),
    "sin": _by_double("sin", _sin, angle=True),
    "cos": _by_double("cos", _cos, angle=True),
    "tan": _by_double("tan", _tan, angle=True),
}
