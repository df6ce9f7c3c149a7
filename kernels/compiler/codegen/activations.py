"""Activation functions as LLVM IR, of floats."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

from distort.kernels.compiler.codegen import mathematics
from distort.kernels.compiler.codegen.elements import Emitter
from distort.kernels.compiler.codegen.mathematics import at_least, at_most
from distort.kernels.compiler.codegen.operators import is_real, is_signed, zero
from distort.kernels.compiler.codegen.text import Function, Value

#: where an instruction has no attributes: ONNX's defaults
_SELU = (1.6732631921768188, 1.0507010221481323)


def _negative(f: Function, x: Value) -> Value:
    return f.fcmp("olt", x, zero(f, x))


def _leaky_relu(f: Function, x: Value, alpha: float = 0.01) -> Value:
    return f.select(_negative(f, x), f.fmul(x, f.const(x.type, alpha)), x)


def _elu(f: Function, x: Value, alpha: float = 1.0) -> Value:
    below = f.fmul(mathematics.expm1(f, at_most(f, x, 0.0)), f.const(x.type, alpha))
    return f.select(f.fcmp("ogt", x, zero(f, x)), x, below)


def _selu(f: Function, x: Value, alpha: float = _SELU[0], gamma: float = _SELU[1]) -> Value:
    return f.fmul(_elu(f, x, alpha), f.const(x.type, gamma))


def _celu(f: Function, x: Value, alpha: float = 1.0) -> Value:
    """max(0, x) + min(0, α (e^(x/α) - 1))"""
    scale = f.const(x.type, alpha)
    other = f.fmul(mathematics.expm1(f, f.fdiv(x, scale)), scale)
    return f.fadd(at_least(f, x, 0.0), at_most(f, other, 0.0))


def _hard_sigmoid(f: Function, x: Value, alpha: float = 0.2, beta: float = 0.5) -> Value:
    return at_most(f, at_least(f, f.fma(x, f.const(x.type, alpha), f.const(x.type, beta)), 0.0), 1.0)


def _hard_swish(f: Function, x: Value) -> Value:
    return f.fmul(x, _hard_sigmoid(f, x, 1 / 6, 0.5))


def _softsign(f: Function, x: Value) -> Value:
    return f.fdiv(x, f.fadd(f.unary("fabs", x), f.const(x.type, 1)))


def _thresholded_relu(f: Function, x: Value, alpha: float = 1.0) -> Value:
    return f.select(f.fcmp("ogt", x, f.const(x.type, alpha)), x, zero(f, x))


def _swish(f: Function, x: Value, alpha: float = 1.0) -> Value:
    return f.fmul(x, mathematics.sigmoid(f, x if alpha == 1 else f.fmul(x, f.const(x.type, alpha))))


def _mish(f: Function, x: Value) -> Value:
    """x n / (n + 2) with n = e^x (e^x + 2); the fraction is 1 from x = 20 on."""
    two = f.const(x.type, 2)
    power = mathematics.exp(f, at_most(f, x, 20.0))
    n = f.fmul(power, f.fadd(power, two))
    return f.fmul(x, f.fdiv(n, f.fadd(n, two)))


def gelu(f: Function, x: Value, approximate: str = "none") -> Value:
    if approximate == "tanh":
        cubic = f.fmul(x, f.fma(f.fmul(x, x), f.const(x.type, 0.044715), f.const(x.type, 1)))
        part = mathematics.tanh(f, f.fmul(cubic, f.const(x.type, math.sqrt(2 / math.pi))))
    else:
        part = mathematics.erf(f, f.fmul(x, f.const(x.type, math.sqrt(0.5))))
    half = f.fmul(x, f.const(x.type, 0.5))
    return f.fma(half, part, half)


def _relu(f: Function, x: Value, signed: bool) -> Value:
    """max(x, 0); NaN stays."""
    if is_real(x):
        return at_least(f, x, 0.0)
    return f.intrinsic("smax", x, zero(f, x)) if signed else x


def _shrink(f: Function, x: Value, signed: bool, bias: float = 0.0, lambd: float = 0.5) -> Value:
    """Integers as doubles, then cut towards zero."""
    wide = x if is_real(x) else f.cast("sitofp" if signed else "uitofp", x, "double")
    number = partial(f.const, wide.type)
    below = f.select(f.fcmp("ogt", wide, number(lambd)), f.fsub(wide, number(bias)), number(0))
    result = f.select(f.fcmp("olt", wide, number(-lambd)), f.fadd(wide, number(bias)), below)
    return (
        result if is_real(x) else f.cast("fptosi" if signed else "fptoui", result, x.type.split(" x ")[-1].rstrip(">"))
    )


def _of_reals(function: Callable[..., Value]) -> Emitter:
    def emit(f: Function, expression: Any, instruction: Any, operands: Any) -> Value:
        del expression
        return function(f, *operands, *instruction.attributes)

    return emit


def _of_any(function: Callable[..., Value]) -> Emitter:
    def emit(f: Function, expression: Any, instruction: Any, operands: Any) -> Value:
        signed = is_signed(expression.dtype(instruction.operands[0]))
        return function(f, *operands, signed, *instruction.attributes)

    return emit


def _prelu(f: Function, x: Value, slope: Value, signed: bool) -> Value:
    if not signed:
        return x
    if not is_real(x):
        return f.select(f.icmp("sge", x, zero(f, x)), x, f.binary("mul", x, slope))
    return f.select(f.fcmp("oge", x, zero(f, x)), x, f.fmul(x, slope))


OPERATORS: dict[str, Emitter] = {
    "relu": _of_any(_relu),
    "shrink": _of_any(_shrink),
    "leaky_relu": _of_reals(_leaky_relu),
    "elu": _of_reals(_elu),
    "selu": _of_reals(_selu),
    "celu": _of_reals(_celu),
    "hard_sigmoid": _of_reals(_hard_sigmoid),
    "hard_swish": _of_reals(_hard_swish),
    "softsign": _of_reals(_softsign),
    "thresholded_relu": _of_reals(_thresholded_relu),
    "swish": _of_reals(_swish),
    "mish": _of_reals(_mish),
    "gelu": _of_reals(gelu),
    "prelu": _of_any(_prelu),
}
