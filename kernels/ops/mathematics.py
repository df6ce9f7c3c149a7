"""Functions of one number: roots, exponentials, trigonometry, rounding, the error function."""

from __future__ import annotations

from typing import Any

import numpy as np

from distort.kernels.ops.arithmetic import as_array
from distort.kernels.registry import kernel

#: elements worked on at a time where several passes go over the data, so that they stay in the cache
BLOCK = 1 << 14


def is_narrow(dtype: Any) -> bool:
    """Whether functions of this element type are computed in float32: all floats of two bytes or fewer."""
    return dtype.itemsize <= 2 and dtype.kind not in "iub"


def _unary(op_type: str, name: str, *, versions: int = 1) -> None:
    @kernel(op_type, versions)
    def function(xp: Any, x: Any, *, consumed_inputs: Any = None) -> Any:
        call = getattr(xp, name)
        if is_narrow(x.dtype):
            return as_array(xp, call(x.astype(np.float32)).astype(x.dtype))
        return as_array(xp, call(x))


for _op_type, _name in {
    "Abs": "abs",
    "Acos": "arccos",
    "Acosh": "arccosh",
    "Asin": "arcsin",
    "Asinh": "arcsinh",
    "Atan": "arctan",
    "Atanh": "arctanh",
    "Ceil": "ceil",
    "Cos": "cos",
    "Cosh": "cosh",
    "Exp": "exp",
    "Floor": "floor",
    "Log": "log",
    "Neg": "negative",
    "Sign": "sign",
    "Sin": "sin",
    "Sinh": "sinh",
    "Sqrt": "sqrt",
    "Tan": "tan",
    "Tanh": "tanh",
}.items():
    _unary(_op_type, _name)
_unary("Round", "rint", versions=11)


@kernel("Reciprocal")
def reciprocal(xp: Any, x: Any, *, consumed_inputs: Any = None) -> Any:
    if is_narrow(x.dtype):
        return as_array(xp, (1 / x.astype(np.float32)).astype(x.dtype))
    return as_array(xp, xp.reciprocal(x))


# erf(x) = x P(x^2) / Q(x^2) on [-4, 4]: minimax coefficients in wide use for single precision
_P = (
    *(-2.72614225801306e-10, 2.77068142495902e-08, -2.10102402082508e-06, -5.69250639462346e-05),
    *(-7.34990630326855e-04, -2.95459980854025e-03, -1.60960333262415e-02),
)
_Q = (
    *(-1.45660718464996e-05, -2.13374055278905e-04, -1.68282697438203e-03, -7.37332916720468e-03),
    -1.42647390514189e-02,
)


def erf_float32(xp: Any, x: Any) -> Any:
    """erf of a float32 array, to about two units in the last place."""
    result = xp.empty(x.size, dtype=np.float32)
    flat = x.reshape(-1)
    step = BLOCK if xp is np else max(x.size, 1)
    for start in range(0, x.size, step):
        part = xp.clip(flat[start : start + step], -4.0, 4.0)
        square = part * part
        top = square * np.float32(_P[0])
        top += np.float32(_P[1])
        for coefficient in _P[2:]:
            top *= square
            top += np.float32(coefficient)
        bottom = square * np.float32(_Q[0])
        bottom += np.float32(_Q[1])
        for coefficient in _Q[2:]:
            bottom *= square
            bottom += np.float32(coefficient)
        top *= part
        xp.divide(top, bottom, out=result[start : start + step])
    return result.reshape(x.shape)


# Chebyshev coefficients of log(erfc(x) exp(x^2)) / t with t = 2 / (2 + x)
_CHEBYSHEV = (
    *(-1.3026537197817094, 6.4196979235649026e-1, 1.9476473204185836e-2, -9.561514786808631e-3),
    *(-9.46595344482036e-4, 3.66839497852761e-4, 4.2523324806907e-5, -2.0278578112534e-5),
    *(-1.624290004647e-6, 1.303655835580e-6, 1.5626441722e-8, -8.5238095915e-8),
    *(6.529054439e-9, 5.059343495e-9, -9.91364156e-10, -2.27365122e-10),
    *(9.6467911e-11, 2.394038e-12, -6.886027e-12, 8.94487e-13),
    *(3.13092e-13, -1.12708e-13, 3.81e-16, 7.106e-15),
    *(-1.523e-15, -9.4e-17, 1.21e-16, -2.8e-17),
)
_SERIES_TERMS = 24


def erf_float64(xp: Any, x: Any) -> Any:
    """erf of a float64 array: the power series near 0, else by the complement."""
    size = xp.abs(x)
    t = 2.0 / (2.0 + size)
    step = 4.0 * t - 2.0
    d = xp.zeros_like(x)
    previous = xp.zeros_like(x)
    for coefficient in _CHEBYSHEV[:0:-1]:
        d, previous = step * d - previous + coefficient, d
    complement = t * xp.exp(-size * size + 0.5 * (_CHEBYSHEV[0] + step * d) - previous)
    near = xp.minimum(size, 1.0)
    square = near * near
    term = near * (2.0 / np.sqrt(np.pi))
    series = xp.zeros_like(x)
    for n in range(_SERIES_TERMS):
        series = series + term / (2 * n + 1)
        term = -term * square / (n + 1)
    return xp.copysign(xp.where(size < 1.0, series, 1.0 - complement), x)


def erf(xp: Any, x: Any) -> Any:
    if x.dtype == np.float64:
        return erf_float64(xp, x)
    if x.dtype == np.float32:
        return erf_float32(xp, x)
    return erf_float32(xp, x.astype(np.float32)).astype(x.dtype)


@kernel("Erf", 9)
def _erf(xp: Any, x: Any) -> Any:
    return as_array(xp, erf(xp, x))
