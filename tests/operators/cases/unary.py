"""Functions of one number, at every version and for every element type."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..case import Case, case, since
from ..sweep import is_floating, samples, sweep

Numbers = np.ndarray[Any, Any]

_NAN, _INF = math.nan, math.inf
_erf = np.vectorize(math.erf, otypes=[np.float64])


def _sigmoid(x: Numbers) -> Numbers:
    return 1 / (1 + np.exp(-x))


def _softplus(x: Numbers) -> Numbers:
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def _gelu(x: Numbers) -> Numbers:
    return x * (1 + _erf(x / math.sqrt(2))) / 2


_LINE = [-3.0, -1.0, -0.25, 0.0, 0.5, 1.0, 2.5]
_UNIT = [-1.0, -0.5, 0.0, 0.25, 1.0]
_POSITIVE = [0.25, 1.0, 2.0, 9.0]
#: name -> (function of float64, arguments)
_FLOATING: dict[str, tuple[Callable[[Numbers], Numbers], list[float]]] = {
    "Acos": (np.arccos, [*_UNIT, 1.5]),
    "Acosh": (np.arccosh, [1.0, 1.5, 10.0, 0.5, _INF]),
    "Asin": (np.arcsin, [*_UNIT, -1.5]),
    "Asinh": (np.arcsinh, _LINE),
    "Atan": (np.arctan, [*_LINE, _INF, -_INF, _NAN]),
    "Atanh": (np.arctanh, [-0.75, 0.0, 0.5, 2.0]),
    "Ceil": (np.ceil, [*_LINE, 1.5, -1.5, _INF, _NAN]),
    "Cos": (np.cos, _LINE),
    "Cosh": (np.cosh, _LINE),
    "Erf": (_erf, [*_LINE, _INF, -_INF]),
    "Exp": (np.exp, [*_LINE, _INF, -_INF, _NAN]),
    "Floor": (np.floor, [*_LINE, 1.5, -1.5, -_INF]),
    "Gelu": (_gelu, _LINE),
    "HardSwish": (lambda x: x * np.clip(x / 6 + 0.5, 0, 1), [-4.0, *_LINE, 5.0]),
    "Log": (np.log, [*_POSITIVE, 0.0, -1.0, _INF]),
    "Mish": (lambda x: x * np.tanh(_softplus(x)), _LINE),
    "Reciprocal": (lambda x: 1 / x, [-2.0, 0.5, 4.0, 0.0, -0.0, _INF]),
    "Round": (np.rint, [-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 0.75, _INF, _NAN]),
    "Sigmoid": (_sigmoid, [*_LINE, _INF, -_INF, _NAN]),
    "Sin": (np.sin, _LINE),
    "Sinh": (np.sinh, _LINE),
    "Softplus": (_softplus, [*_LINE, 60.0]),
    "Softsign": (lambda x: x / (1 + np.abs(x)), _LINE),
    "Sqrt": (np.sqrt, [*_POSITIVE, 0.0, -1.0, _INF]),
    "Tan": (np.tan, _LINE),
    "Tanh": (np.tanh, [*_LINE, _INF, -_INF]),
}


def _of_floats(name: str) -> list[Case]:
    function, arguments = _FLOATING[name]

    def make(dtype: np.dtype[Any]) -> tuple[list[Numbers], list[Numbers]]:
        x = np.array(arguments if is_floating(dtype) else [0, 1, 2, 100], np.float32).astype(
            dtype
        )  # Erf takes integers
        return [x], [function(x.astype(np.float64)).astype(dtype)]

    return sweep(name, make, atol=1e-6)


def _integers_too(name: str, function: Callable[[Numbers], Numbers]) -> list[Case]:
    """Integers are computed as Python's, and wrap."""

    def make(dtype: np.dtype[Any]) -> tuple[list[Numbers], list[Numbers]]:
        x = samples(dtype)
        if is_floating(dtype):
            return [x], [function(x.astype(np.float64)).astype(dtype)]
        bits = dtype.itemsize * 8
        wide = [int(value) % (1 << bits) for value in function(x.astype(object))]
        return [x], [np.array(wide, object).astype(f"u{dtype.itemsize}").view(dtype)]

    return sweep(name, make)


def _sign(x: Numbers) -> Numbers:
    return np.array([(1 if value > 0 else -1 if value < 0 else 0) for value in x], x.dtype)


_X = np.array(_LINE, np.float32)

CASES = [
    *(item for name in _FLOATING for item in _of_floats(name)),
    *_integers_too("Abs", np.abs),
    *_integers_too("Neg", np.negative),
    *_integers_too("Sign", _sign),
    *_integers_too("Relu", lambda x: np.maximum(x, 0)),
    *(
        case(name, inputs=[value], expected=[function(value.astype(np.float64)).astype(np.float32)], label=label)
        for name, (function, _) in _FLOATING.items()
        for label, value in (("0d", np.array(1.0, np.float32)), ("empty", np.ones((2, 0, 3), np.float32)))
    ),
    # functions with parameters: defaults, then others
    case("Elu", inputs=[_X], expected=[np.where(_X > 0, _X, np.expm1(_X))]),
    case("Elu", inputs=[_X], expected=[np.where(_X > 0, _X, 2 * np.expm1(_X))], attributes={"alpha": 2.0}, label="2"),
    case("Celu", inputs=[_X], expected=[np.where(_X > 0, _X, np.expm1(_X))]),
    case(
        "Celu",
        inputs=[_X],
        expected=[np.where(_X > 0, _X, 2 * np.expm1(_X / 2)).astype(np.float32)],
        attributes={"alpha": 2.0},
        label="2",
    ),
    # the constants of Selu are shorter in its first version
    *(
        case("Selu", *versions, inputs=[_X], expected=[np.where(_X > 0, g * _X, g * a * np.expm1(_X)).astype("f")])
        for versions, a, g in (
            ((1,), 1.6732, 1.0507),
            (since("Selu", 6), 1.67326319217681884765625, 1.05070102214813232421875),
        )
    ),
    case(
        "Selu",
        inputs=[_X],
        expected=[np.where(_X > 0, 3 * _X, 3 * 2 * np.expm1(_X))],
        attributes={"alpha": 2.0, "gamma": 3.0},
        label="set",
    ),
    case("LeakyRelu", inputs=[_X], expected=[np.where(_X >= 0, _X, 0.01 * _X).astype(np.float32)]),
    case(
        "LeakyRelu",
        inputs=[_X],
        expected=[np.where(_X >= 0, _X, 0.5 * _X)],
        attributes={"alpha": 0.5},
        label="half",
    ),
    case("HardSigmoid", inputs=[_X], expected=[np.clip(0.2 * _X + 0.5, 0, 1).astype(np.float32)]),
    case(
        "HardSigmoid",
        inputs=[_X],
        expected=[np.clip(0.5 * _X + 0.25, 0, 1)],
        attributes={"alpha": 0.5, "beta": 0.25},
        label="set",
    ),
    case("ThresholdedRelu", inputs=[_X], expected=[np.where(_X > 1, _X, 0)]),
    case("ThresholdedRelu", inputs=[_X], expected=[np.where(_X > 0.25, _X, 0)], attributes={"alpha": 0.25}, label="q"),
    case("Shrink", inputs=[_X], expected=[np.where(_X < -0.5, _X, np.where(_X > 0.5, _X, 0))]),
    case(
        "Gelu",
        inputs=[_X],
        expected=[(0.5 * _X * (1 + np.tanh(math.sqrt(2 / math.pi) * (_X + 0.044715 * _X**3)))).astype(np.float32)],
        attributes={"approximate": "tanh"},
        label="tanh",
    ),
    case(
        "IsNaN",
        inputs=[np.array([1, _NAN, _INF, -0.0], np.float32)],
        expected=[np.array([False, True, False, False])],
    ),
    *sweep(
        "IsNaN",
        lambda dtype: ([np.array([1, _NAN], np.float32).astype(dtype)], [np.array([False, True])]),
        "T1",
    ),
    case("IsInf", inputs=[np.array([1, _NAN, _INF, -_INF], "f")], expected=[np.array([False, False, True, True])]),
    *(
        case(
            "IsInf",
            inputs=[np.array([1, _NAN, _INF, -_INF], np.float32)],
            expected=[np.array([False, False, bool(positive), bool(negative)])],
            attributes={"detect_positive": positive, "detect_negative": negative},
            label=f"{positive}{negative}",
        )
        for positive, negative in ((0, 1), (1, 0), (0, 0))
    ),
    *sweep(
        "IsInf",
        lambda dtype: (
            [np.array([1, _INF], np.float32).astype(dtype)],
            [np.array([False, bool(np.isinf(np.array(_INF, np.float32).astype(dtype).astype(np.float32)))])],
        ),
        "T1",
    ),
    case("Not", inputs=[np.array([True, False])], expected=[np.array([False, True])]),
    *sweep(
        "BitwiseNot",
        lambda dtype: (
            [samples(dtype)],
            [(~samples(dtype).view(f"u{dtype.itemsize}")).view(dtype)],
        ),
    ),
]
