"""Functions of one number: roots, exponentials, trigonometry, rounding, the error function, Clip."""

from __future__ import annotations

from typing import Any

import numpy as np

from distort.graph.types import limits_of
from distort.kernels.errors import InvalidInput
from distort.kernels.ops.elementwise import blockwise, unary_ufunc
from distort.kernels.registry import kernel

for _op_type, _ufunc in (
    ("Abs", "abs"),
    ("Neg", "negative"),
    ("Sign", "sign"),
    ("Exp", "exp"),
    ("Log", "log"),
    ("Sqrt", "sqrt"),
    ("Reciprocal", "reciprocal"),
    ("Floor", "floor"),
    ("Ceil", "ceil"),
    ("Round", "rint"),  # halves to even
    ("Sin", "sin"),
    ("Cos", "cos"),
    ("Tan", "tan"),
    ("Asin", "arcsin"),
    ("Acos", "arccos"),
    ("Atan", "arctan"),
    ("Sinh", "sinh"),
    ("Cosh", "cosh"),
    ("Tanh", "tanh"),
    ("Asinh", "arcsinh"),
    ("Acosh", "arccosh"),
    ("Atanh", "arctanh"),
):
    unary_ufunc(_op_type, _ufunc)

# erf(x) = tanh(x * P(x^2) / Q(x^2)), Q monic: minimax fits of atanh(erf(x)) / x on (0, limit), made in 60-digit
# arithmetic and weighted by what tanh lets through of an error. From x^2 = limit on, tanh is 1 in the dtype.
# (limit, P, Q: from the highest power down). At most 2.4 units in the last place off for float32, 3.3 for float64.
_ERF = {
    np.dtype(np.float32): (
        15.6025,
        (6.7039175, 131.24902, 861.1295, 3472.6704),
        (72.908195, 482.85147, 3077.574),
    ),
    np.dtype(np.float64): (
        36.0,
        (
            *(16.288004309790534, 2244.197420203236, 79683.86989487687, 1599478.5566141175, 21866424.910849202),
            *(210618627.12874252, 1454638819.3382156, 7053074123.507631, 22277115316.436462, 39658860886.53038),
        ),
        (
            *(480.80997492515377, 28009.60910224732, 664714.1001142926, 10568391.224255744, 114218109.49829178),
            *(877908519.1475375, 4750550282.0119095, 16541418726.618258, 35146750350.42846),
        ),
    ),
}


# numpy turns a Python number into an array at each call, for as long as it then computes with a thousand elements
_ERF_ARRAYS = {
    dtype: (np.array(limit, dtype), *(tuple(np.array(c, dtype) for c in part) for part in (p, q)))
    for dtype, (limit, p, q) in _ERF.items()
}


def erf_into(xp: Any, x: Any, out: Any) -> None:
    """erf of float32 or float64 of at least one dimension; ``out`` may be x."""
    limit, p, q = (_ERF_ARRAYS if xp is np else _ERF)[x.dtype]
    t = xp.multiply(x, x)
    xp.minimum(t, limit, out=t)
    numerator = xp.multiply(t, p[0])
    for coefficient in p[1:-1]:
        numerator += coefficient
        numerator *= t
    numerator += p[-1]
    numerator *= x
    denominator = xp.add(t, q[0])
    for coefficient in q[1:]:
        denominator *= t
        denominator += coefficient
    numerator /= denominator
    xp.tanh(numerator, out=out)


@kernel("Erf", 9)
def erf(xp: Any, x: Any) -> Any:
    if x.dtype.kind in "iu":
        return blockwise(xp, x.astype(xp.float64), erf_into).astype(x.dtype)
    return blockwise(xp, x, erf_into)


def _bound(xp: Any, x: Any, value: Any, name: str) -> Any:
    if value.size != 1:
        raise InvalidInput(f"{name} should be a scalar, got shape {list(value.shape)}")
    return xp.asarray(value.reshape(()), dtype=x.dtype)


@kernel("Clip")
def clip(xp: Any, x: Any, low: Any = None, high: Any = None, *, consumed_inputs: Any = None, opset: int = 13) -> Any:
    """Where low is above high the result is high; a bound left out is the last finite number, from version 6 on."""
    if opset >= 6 and (low is None or high is None):
        dtype = np.dtype(np.float32 if opset < 11 else x.dtype)
        if dtype.kind in "fV":  # integers have nothing beyond
            limits = limits_of(dtype)
            low = np.asarray(limits.min, dtype) if low is None else low
            high = np.asarray(limits.max, dtype) if high is None else high
    # cupy's clip loses NaN where the bounds are crossed, and widens bfloat16
    if low is not None and high is not None and x.dtype.kind != "V" and xp is np:
        return xp.asarray(xp.clip(x, _bound(xp, x, low, "min"), _bound(xp, x, high, "max")))
    result = x
    if low is not None:
        result = xp.asarray(xp.maximum(x, _bound(xp, x, low, "min")))
    if high is not None:
        bound = _bound(xp, x, high, "max")
        result = xp.asarray(xp.minimum(x, bound)) if result is x else xp.minimum(result, bound, out=result)
    return result
