"""Activations of recurrent cells as LLVM IR. All of them are built on one rational tanh: no exponents, one division."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from distort.kernels.compiler.codegen.text import Function, Value

#: tanh(x) / x = P(x²) / Q(x²) on [-7.9, 7.9]: Eigen, ptanh_float; from the highest power down
_NUMERATOR = (
    *(-2.76076847742355e-16, 2.00018790482477e-13, -8.60467152213735e-11, 5.12229709037114e-08),
    *(1.48572235717979e-05, 6.37261928875436e-04, 4.89352455891786e-03),
)
_DENOMINATOR = (1.19825839466702e-06, 1.18534705686654e-04, 2.26843463243900e-03, 4.89352518554385e-03)
_LIMIT = 7.90531110763549805


class Activation(NamedTuple):
    """By the name that ONNX gives it, in lower case."""

    name: str
    alpha: float = 0.0
    beta: float = 0.0


def _between(f: Function, x: Value, low: float, high: float) -> Value:
    """NaN stays."""
    least, most = f.const(x.type, low), f.const(x.type, high)
    x = f.select(f.fcmp("olt", x, least), least, x)
    return f.select(f.fcmp("ogt", x, most), most, x)


def clipped(f: Function, x: Value, limit: float) -> Value:
    """Between -limit and limit, where there is one."""
    return _between(f, x, -limit, limit) if limit else x


def _horner(f: Function, x: Value, coefficients: tuple[float, ...]) -> Value:
    value = f.const(x.type, coefficients[0])
    for coefficient in coefficients[1:]:
        value = f.fma(value, x, f.const(x.type, coefficient))
    return value


def tanh(f: Function, x: Value) -> Value:
    """To 5 ulp."""
    x = _between(f, x, -_LIMIT, _LIMIT)
    square = f.fmul(x, x)
    return f.fdiv(f.fmul(x, _horner(f, square, _NUMERATOR)), _horner(f, square, _DENOMINATOR))


def sigmoid(f: Function, x: Value) -> Value:
    """(1 + tanh(x / 2)) / 2, as the NumPy kernel has it: errors are small beside 1, not beside the result."""
    half = f.const(x.type, 0.5)
    return f.fma(tanh(f, f.fmul(x, half)), half, half)


def _affine(f: Function, x: Value, alpha: float, beta: float) -> Value:
    return f.fma(x, f.const(x.type, alpha), f.const(x.type, beta))


def _leaky_relu(f: Function, x: Value, alpha: float, beta: float) -> Value:
    del beta
    return f.select(f.fcmp("oge", x, f.const(x.type, 0)), x, f.fmul(x, f.const(x.type, alpha)))


def _scaled_tanh(f: Function, x: Value, alpha: float, beta: float) -> Value:
    return f.fmul(tanh(f, f.fmul(x, f.const(x.type, beta))), f.const(x.type, alpha))


def _softsign(f: Function, x: Value, alpha: float, beta: float) -> Value:
    del alpha, beta
    return f.fdiv(x, f.fadd(f.unary("fabs", x), f.const(x.type, 1)))


def _relu(f: Function, x: Value, alpha: float, beta: float) -> Value:
    del alpha, beta
    zero = f.const(x.type, 0)
    return f.select(f.fcmp("olt", x, zero), zero, x)


def _thresholded_relu(f: Function, x: Value, alpha: float, beta: float) -> Value:
    del beta
    return f.select(f.fcmp("oge", x, f.const(x.type, alpha)), x, f.const(x.type, 0))


ACTIVATIONS: dict[str, Callable[[Function, Value, float, float], Value]] = {
    "sigmoid": lambda f, x, alpha, beta: sigmoid(f, x),
    "tanh": lambda f, x, alpha, beta: tanh(f, x),
    "relu": _relu,
    "affine": _affine,
    "leakyrelu": _leaky_relu,
    "thresholdedrelu": _thresholded_relu,
    "scaledtanh": _scaled_tanh,
    "hardsigmoid": lambda f, x, alpha, beta: _between(f, _affine(f, x, alpha, beta), 0, 1),
    "softsign": _softsign,
}


def activate(f: Function, x: Value, activation: Activation) -> Value:
    name, alpha, beta = activation
    return ACTIVATIONS[name](f, x, alpha, beta)
