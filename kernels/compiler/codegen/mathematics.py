"""Transcendental functions of float32 as LLVM IR: polynomials on vectors, to 4 ulp; float64 goes through libm.

Coefficients are minimax fits, from the lowest power up, unless a source is named. ``wide`` has the functions that are
computed in double precision because they are rare.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

from distort.kernels.compiler.codegen.elements import Emitter
from distort.kernels.compiler.codegen.text import Function, Value, element_of, lanes_of
from distort.kernels.compiler.expression import Expression, Instruction

#: (e^r - 1) / r and (2^r - 1) / r for |r| up to half a step of the exponent
_EXP = (0.9999997019767761, 0.49999144673347473, 0.16667641699314117, 0.04189849644899368, 0.00829020980745554)
_EXP2 = (0.6931470036506653, 0.24022240936756134, 0.0555073507130146, 0.009671619161963463, 0.0013264591107144952)
#: (e^r - 1 - r) / r²
_EXPM1 = (0.5, 0.16666541993618011, 0.04166628047823906, 0.008366659283638, 0.0013946581166237593)
#: (log(1 + r) - r + r² / 2) / r³ on [√½ - 1, √2 - 1]: Cephes, logf
_LOG = (
    *(3.3333331174e-1, -2.4999993993e-1, 2.0000714765e-1, -1.6668057665e-1, 1.4249322787e-1),
    *(-1.2420140846e-1, 1.1676998740e-1, -1.1514610310e-1, 7.0376836292e-2),
)
#: (tanh(x) - x) / x³ by x², up to 0.625: Cephes, tanhf
_TANH = (-3.33332819422e-1, 1.33314422036e-1, -5.37397155531e-2, 2.06390887954e-2, -5.70498872745e-3)
#: erf (N. Juffa): (erf(x) - x) / x by x² up to 475/512; above, log2(1 - erf(x)) / x by x
_ERF_SMALL = (*(1.28379166e-1, -3.76125336e-1, 1.12819925e-1, -2.67681349e-2, 4.99119423e-3, -5.96761703e-4),)
_ERF_LARGE = (
    *(-1.0 - 1.28717512e-1, -6.34846687e-1, -1.06777877e-1, 2.42546219e-2, -3.88396438e-3, 3.83197126e-4),
    -1.72853470e-5,
)
#: (arctan(x) - x) / x³ by x² up to √2 - 1, and (arcsin(x) - x) / x³ by x² up to ½: Cephes, atanf and asinf
_ATAN = (-3.33329491539e-1, 1.99777106478e-1, -1.38776856032e-1, 8.05374449538e-2)
_ASIN = (1.6666752422e-1, 7.4953002686e-2, 4.5470025998e-2, 2.4181311049e-2, 4.2163199048e-2)
_LN2_HIGH, _LN2_LOW = 0.693359375, -2.12194440e-4
#: added to a small number and taken off again, it leaves the nearest whole number
_ROUNDING = 1.5 * 2.0**23
_LOG2_E = math.log2(math.e)


def polynomial(f: Function, x: Value, coefficients: Sequence[float]) -> Value:
    """Horner's rule; ``coefficients`` from the lowest power up."""
    value = f.const(x.type, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        value = f.fma(value, x, f.const(x.type, coefficient))
    return value


def at_most(f: Function, x: Value, limit: float) -> Value:
    """min(x, limit); NaN stays."""
    bound = f.const(x.type, limit)
    return f.select(f.fcmp("olt", bound, x), bound, x)


def at_least(f: Function, x: Value, limit: float) -> Value:
    """max(x, limit); NaN stays."""
    bound = f.const(x.type, limit)
    return f.select(f.fcmp("ogt", bound, x), bound, x)


def whole_and_bits(f: Function, x: Value, scale: float) -> tuple[Value, Value]:
    """The whole number nearest to x · scale, and an integer with that number in its low bits."""
    wide = element_of(x.type) == "double"
    rounding = f.const(x.type, 1.5 * 2.0**52 if wide else _ROUNDING)
    shifted = f.fma(x, f.const(x.type, scale), rounding)
    return f.fsub(shifted, rounding), f.cast("bitcast", shifted, "i64" if wide else "i32")


def scaled(f: Function, x: Value, bits: Value) -> Value:
    """x · 2ⁿ where n is in the low bits of an integer, and the result is a normal number."""
    places = 52 if element_of(x.type) == "double" else 23
    exponent = f.binary("shl", bits, f.const(bits.type, places))
    integer = f.binary("add", f.cast("bitcast", x, element_of(bits.type)), exponent)
    return f.cast("bitcast", integer, element_of(x.type))


def _scaled_any(f: Function, x: Value, whole: Value, bits: Value) -> Value:
    """x · 2ⁿ for x near 1 and |n| up to 152: the result may be subnormal, or infinite. ``bits`` end in n."""
    if f.target is not None and f.target.vector_nbytes == 64 and lanes_of(x.type) == 16:
        name = "llvm.x86.avx512.mask.scalef.ps.512"
        f.declare(f"{x.type} @{name}({x.type}, {x.type}, {x.type}, i16, i32 immarg)")
        return f.op(x.type, f"call {x.type} @{name}({x}, {whole}, {x}, i16 -1, i32 4)")
    # by two factors that are normal numbers
    number = f.binary("ashr", f.binary("shl", bits, f.const(bits.type, 10)), f.const(bits.type, 10))
    half = f.binary("ashr", number, f.const(bits.type, 1))
    for part in (half, f.binary("sub", number, half)):
        biased = f.binary("add", part, f.const(bits.type, 127))
        x = f.fmul(x, f.cast("bitcast", f.binary("shl", biased, f.const(bits.type, 23)), "float"))
    return x


def exp(f: Function, x: Value) -> Value:
    """e^x"""
    if element_of(x.type) == "double":
        return f.unary("exp", x)
    x = at_most(f, at_least(f, x, -104.0), 89.0)
    whole, bits = whole_and_bits(f, x, _LOG2_E)
    rest = f.fma(whole, f.const(x.type, -_LN2_HIGH), x)
    rest = f.fma(whole, f.const(x.type, -_LN2_LOW), rest)
    power = f.fma(polynomial(f, rest, _EXP), rest, f.const(x.type, 1))
    return _scaled_any(f, power, whole, bits)


def exp_to_one(f: Function, x: Value) -> Value:
    """e^x for x of at most 0; what would be subnormal, which processors are slow with, is 0."""
    least = f.const(x.type, -708.0 if element_of(x.type) == "double" else -87.33)
    limited = f.select(f.fcmp("ogt", least, x), least, x)
    if element_of(x.type) == "double":
        result = exp(f, limited)
    else:
        whole, bits = whole_and_bits(f, limited, _LOG2_E)
        rest = f.fma(whole, f.const(x.type, -_LN2_HIGH), limited)
        rest = f.fma(whole, f.const(x.type, -_LN2_LOW), rest)
        power = f.fma(polynomial(f, rest, _EXP), rest, f.const(x.type, 1))
        # a product keeps NaN, an integer addition to the exponent would not
        biased = f.binary("add", bits, f.const(bits.type, 127))
        result = f.fmul(power, f.cast("bitcast", f.binary("shl", biased, f.const(bits.type, 23)), "float"))
    return f.select(f.fcmp("olt", x, least), f.const(x.type, 0), result)


def _exp2_normal(f: Function, x: Value) -> Value:
    """2^x for x from -126 to 0, not NaN."""
    whole, bits = whole_and_bits(f, x, 1.0)
    rest = f.fsub(x, whole)
    return scaled(f, f.fma(polynomial(f, rest, _EXP2), rest, f.const(x.type, 1)), bits)


def expm1(f: Function, x: Value) -> Value:
    """e^x - 1"""
    if element_of(x.type) == "double":
        return by_lanes(f, "expm1", x)
    limited = at_most(f, at_least(f, x, -25.0), 89.0)
    whole, bits = whole_and_bits(f, limited, _LOG2_E)
    rest = f.fma(whole, f.const(x.type, -_LN2_HIGH), limited)
    rest = f.fma(whole, f.const(x.type, -_LN2_LOW), rest)
    less_one = f.fma(f.fmul(rest, rest), polynomial(f, rest, _EXPM1), rest)
    # 2ⁿ e^r - 1 = 2 (2ⁿ⁻¹ (e^r - 1) + 2ⁿ⁻¹ - ½): n is 128 at most
    half = f.const(x.type, 0.5)
    power = scaled(f, half, bits)
    result = f.fma(power, less_one, f.fsub(power, half))
    return f.select(f.fcmp("oeq", x, f.const(x.type, 0)), x, f.fadd(result, result))


def log(f: Function, x: Value) -> Value:
    """The natural logarithm."""
    if element_of(x.type) == "double":
        return f.unary("log", x)
    number = partial(f.const, x.type)
    tiny = f.fcmp("olt", x, number(2.0**-126))
    normal = f.select(tiny, f.fmul(x, number(2.0**23)), x)
    bits = f.cast("bitcast", normal, "i32")
    root_half = f.const(bits.type, 0x3F3504F3)
    exponent = f.binary("ashr", f.binary("sub", bits, root_half), f.const(bits.type, 23))
    mantissa = f.binary("sub", bits, f.binary("shl", exponent, f.const(bits.type, 23)))
    r = f.fsub(f.cast("bitcast", mantissa, "float"), number(1))  # [√½ - 1, √2 - 1]
    whole = f.fsub(f.cast("sitofp", exponent, "float"), f.select(tiny, number(23), number(0)))
    square = f.fmul(r, r)
    tail = f.fma(f.fmul(square, r), polynomial(f, r, _LOG), f.fmul(whole, number(_LN2_LOW)))
    tail = f.fma(square, number(-0.5), tail)
    result = f.fma(whole, number(_LN2_HIGH), f.fadd(r, tail))
    infinity = number(math.inf)
    result = f.select(f.fcmp("olt", x, infinity), result, x)  # infinity and NaN stay
    result = f.select(f.fcmp("oeq", x, number(0)), number(-math.inf), result)
    return f.select(f.fcmp("olt", x, number(0)), number(math.nan), result)


def log1p(f: Function, x: Value) -> Value:
    """log(1 + x)"""
    if element_of(x.type) == "double":
        return by_lanes(f, "log1p", x)
    one = f.const(x.type, 1)
    total = f.fadd(x, one)
    lost = f.fsub(x, f.fsub(total, one))  # what the sum was rounded by
    result = log(f, total)
    exact = f.fcmp("ueq", lost, f.const(x.type, 0))
    corrected = f.select(exact, result, f.fadd(result, f.fdiv(lost, total)))
    return f.select(f.fcmp("oeq", x, f.const(x.type, 0)), x, corrected)


def tanh(f: Function, x: Value) -> Value:
    if element_of(x.type) == "double":
        return f.unary("tanh", x)
    one = f.const(x.type, 1)
    size = f.unary("fabs", x)
    power = _exp2_normal(f, f.fmul(at_most(f, size, 10.0), f.const(x.type, -2 * _LOG2_E)))  # e^(-2|x|)
    large = f.fdiv(f.fsub(one, power), f.fadd(one, power))
    square = f.fmul(x, x)
    small = f.fma(f.fmul(square, x), polynomial(f, square, _TANH), x)
    # NaN takes the series
    return f.intrinsic("copysign", f.select(f.fcmp("ult", size, f.const(x.type, 0.625)), small, large), x)


def erf(f: Function, x: Value) -> Value:
    if element_of(x.type) == "double":
        return by_lanes(f, "erf", x)
    size = f.unary("fabs", x)
    limited = at_most(f, size, 4.0)
    exponent = f.fmul(limited, polynomial(f, limited, [c * _LOG2_E for c in _ERF_LARGE]))
    large = f.fsub(f.const(x.type, 1), _exp2_normal(f, exponent))
    small = f.fma(polynomial(f, f.fmul(x, x), _ERF_SMALL), x, x)
    return f.intrinsic("copysign", f.select(f.fcmp("ult", size, f.const(x.type, 475 / 512)), small, large), x)


def _odd(f: Function, x: Value, square: Value, coefficients: Sequence[float]) -> Value:
    """x + x³ · polynomial(x²)"""
    return f.fma(f.fmul(square, polynomial(f, square, coefficients)), x, x)


def atan(f: Function, x: Value) -> Value:
    """By the arctangent of a fraction of at most √2 - 1 about 0, π/4 or π/2."""
    if element_of(x.type) == "double":
        return f.unary("atan", x)
    number = partial(f.const, x.type)
    size = f.unary("fabs", x)
    middle, large = (f.fcmp("ogt", size, number(math.tan(angle * math.pi / 8))) for angle in (1, 3))
    one = number(1)
    above = f.select(large, number(-1), f.select(middle, f.fsub(size, one), size))
    below = f.select(large, size, f.select(middle, f.fadd(size, one), one))
    part = f.fdiv(above, below)
    begin = f.select(large, number(math.pi / 2), f.select(middle, number(math.pi / 4), number(0)))
    angle = f.fadd(begin, _odd(f, part, f.fmul(part, part), _ATAN))
    return f.intrinsic("copysign", angle, x)


def _asin_part(f: Function, x: Value) -> tuple[Value, Value]:
    """Whether |x| is above ½, and the arcsine of |x|, or there of √((1 - |x|) / 2)."""
    size = f.unary("fabs", x)
    half = f.const(x.type, 0.5)
    large = f.fcmp("ogt", size, half)
    square = f.select(large, f.fmul(half, f.fsub(f.const(x.type, 1), size)), f.fmul(size, size))
    part = f.select(large, f.unary("sqrt", square), size)
    return large, _odd(f, part, square, _ASIN)


def asin(f: Function, x: Value) -> Value:
    if element_of(x.type) == "double":
        return f.unary("asin", x)
    large, part = _asin_part(f, x)
    rest = f.fma(part, f.const(x.type, -2), f.const(x.type, math.pi / 2))
    return f.intrinsic("copysign", f.select(large, rest, part), x)


def acos(f: Function, x: Value) -> Value:
    if element_of(x.type) == "double":
        return f.unary("acos", x)
    large, part = _asin_part(f, x)
    twice = f.fadd(part, part)
    is_negative = f.fcmp("olt", x, f.const(x.type, 0))
    outer = f.select(is_negative, f.fsub(f.const(x.type, math.pi), twice), twice)
    inner = f.fsub(f.const(x.type, math.pi / 2), f.intrinsic("copysign", part, x))
    return f.select(large, outer, inner)


def sigmoid(f: Function, x: Value) -> Value:
    """1 / (1 + e^-x)"""
    one = f.const(x.type, 1)
    power = exp(f, f.op(x.type, f"fneg {f.unary('fabs', x)}"))  # at most 1
    above = f.select(f.fcmp("olt", x, f.const(x.type, 0)), power, one)
    return f.fdiv(above, f.fadd(one, power))


def softplus(f: Function, x: Value) -> Value:
    """log(1 + e^x) = max(x, 0) + log1p(e^-|x|)"""
    power = exp(f, f.op(x.type, f"fneg {f.unary('fabs', x)}"))
    return f.fadd(at_least(f, x, 0.0), log1p(f, power))


def by_lanes(f: Function, name: str, *values: Value) -> Value:
    """A function of libm, lane by lane."""
    element, lanes = element_of(values[0].type), lanes_of(values[0].type)
    if lanes == 1:
        return f.call(element, name if element == "double" else f"{name}f", values)
    result = f.undef(values[0].type)
    for lane in range(lanes):
        arguments = [f.extract(value, lane) for value in values]
        result = f.insert(result, by_lanes(f, name, *arguments), lane)
    return result


def of_one(function: Callable[[Function, Value], Value]) -> Emitter:
    """A function of one number as an operator."""

    def emit(f: Function, expression: Expression, instruction: Instruction, operands: Sequence[Value]) -> Value:
        del expression, instruction
        return function(f, operands[0])

    return emit


OPERATORS: dict[str, Emitter] = {
    function.__name__: of_one(function)
    for function in (acos, asin, atan, erf, exp, exp_to_one, expm1, log, log1p, sigmoid, softplus, tanh)
}

__all__ = ["OPERATORS", "at_least", "at_most", "by_lanes", "exp", "of_one", "polynomial"]
