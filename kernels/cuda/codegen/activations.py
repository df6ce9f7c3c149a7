"""Activation functions as CUDA C: (dtype, operands, attributes) -> text. Operands are names or literals."""

from __future__ import annotations

import math
from collections.abc import Callable

from distort.kernels.cuda.codegen.dtypes import COMPUTED, is_real, is_signed, literal

#: where an instruction has no attributes: ONNX's defaults
_SELU = (1.6732631921768188, 1.0507010221481323)


def _call(name: str, dtype: str, *arguments: str) -> str:
    return f"{name if dtype == 'float64' else name + 'f'}({', '.join(arguments)})"


def _bounded(name: str, dtype: str, x: str, bound: float) -> str:
    return f"{name}<{COMPUTED[dtype]}>({x}, {literal(bound, dtype)})"


def _relu(dtype: str, x: str) -> str:
    """max(x, 0); NaN stays."""
    return _bounded("at_least", dtype, x, 0) if is_signed(dtype) else x


def _leaky_relu(dtype: str, x: str, alpha: float = 0.01) -> str:
    return f"{x} < 0 ? {x} * {literal(alpha, dtype)} : {x}"


def _elu(dtype: str, x: str, alpha: float = 1.0) -> str:
    below = _call("expm1", dtype, _bounded("at_most", dtype, x, 0))
    return f"({x} > 0 ? {x} : {below} * {literal(alpha, dtype)})"


def _selu(dtype: str, x: str, alpha: float = _SELU[0], gamma: float = _SELU[1]) -> str:
    return f"{_elu(dtype, x, alpha)} * {literal(gamma, dtype)}"


def _celu(dtype: str, x: str, alpha: float = 1.0) -> str:
    """max(0, x) + min(0, α (e^(x/α) - 1))"""
    scale = literal(alpha, dtype)
    other = f"{_call('expm1', dtype, f'{x} / {scale}')} * {scale}"
    return f"{_bounded('at_least', dtype, x, 0)} + {_bounded('at_most', dtype, other, 0)}"


def _hard_sigmoid(dtype: str, x: str, alpha: float = 0.2, beta: float = 0.5) -> str:
    line = f"{x} * {literal(alpha, dtype)} + {literal(beta, dtype)}"
    return _bounded("at_most", dtype, _bounded("at_least", dtype, line, 0), 1)


def _hard_swish(dtype: str, x: str) -> str:
    return f"{x} * {_hard_sigmoid(dtype, x, 1 / 6, 0.5)}"


def _softsign(dtype: str, x: str) -> str:
    return f"{x} / ({_call('fabs', dtype, x)} + {literal(1, dtype)})"


def _softplus(dtype: str, x: str) -> str:
    """log(1 + e^x) = max(x, 0) + log1p(e^-|x|)"""
    power = _call("exp", dtype, f"-{_call('fabs', dtype, x)}")
    return f"{_bounded('at_least', dtype, x, 0)} + {_call('log1p', dtype, power)}"


def _thresholded_relu(dtype: str, x: str, alpha: float = 1.0) -> str:
    return f"{x} > {literal(alpha, dtype)} ? {x} : {literal(0, dtype)}"


def _sigmoid(dtype: str, x: str) -> str:
    """1 / (1 + e^-x)"""
    one = literal(1, dtype)
    return f"{one} / ({one} + {_call('exp', dtype, f'-({x})')})"


def _swish(dtype: str, x: str, alpha: float = 1.0) -> str:
    return f"{x} * ({_sigmoid(dtype, x if alpha == 1 else f'{x} * {literal(alpha, dtype)}')})"


def _mish(dtype: str, x: str) -> str:
    """x tanh(log(1 + e^x))"""
    return f"{x} * {_call('tanh', dtype, _softplus(dtype, x))}"


def _gelu(dtype: str, x: str, approximate: str = "none") -> str:
    def number(value: float) -> str:
        return literal(value, dtype)

    if approximate == "tanh":
        cubic = f"{x} * ({x} * {x} * {number(0.044715)} + {number(1)})"
        part = _call("tanh", dtype, f"({cubic}) * {number(math.sqrt(2 / math.pi))}")
    else:
        part = _call("erf", dtype, f"{x} * {number(math.sqrt(0.5))}")
    return f"{x} * {number(0.5)} * ({number(1)} + {part})"


def _prelu(dtype: str, x: str, slope: str) -> str:
    if not is_signed(dtype):
        return x
    if is_real(dtype):
        return f"{x} >= 0 ? {x} : {x} * {slope}"
    wide = "unsigned long long" if dtype == "int64" else "unsigned"
    return f"{x} >= 0 ? {x} : ({COMPUTED[dtype]})(({wide}){x} * ({wide}){slope})"


def _shrink(dtype: str, x: str, bias: float = 0.0, lambd: float = 0.5) -> str:
    """Integers as doubles, then cut towards zero."""
    wide = dtype if is_real(dtype) else "float64"
    y = x if wide == dtype else f"(double){x}"
    low, high, none = (literal(number, wide) for number in (-lambd, lambd, 0))
    shift = literal(bias, wide)
    text = f"{y} < {low} ? {y} + {shift} : {y} > {high} ? {y} - {shift} : {none}"
    return text if wide == dtype else f"({COMPUTED[dtype]})({text})"


ACTIVATIONS: dict[str, Callable[..., str]] = {
    "relu": _relu,
    "leaky_relu": _leaky_relu,
    "elu": _elu,
    "selu": _selu,
    "celu": _celu,
    "hard_sigmoid": _hard_sigmoid,
    "hard_swish": _hard_swish,
    "softsign": _softsign,
    "softplus": _softplus,
    "thresholded_relu": _thresholded_relu,
    "sigmoid": _sigmoid,
    "swish": _swish,
    "mish": _mish,
    "gelu": _gelu,
    "prelu": _prelu,
    "shrink": _shrink,
}

__all__ = ["ACTIVATIONS"]
