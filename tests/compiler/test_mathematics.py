"""Transcendental functions of float32 against float64: 4 units in the last place over the whole range, with vectors
of every width."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import pytest

from distort.kernels.compiler.library import Library

from .calling import apply

MOST_ULP = 4
_SPECIAL = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45, -1e-45, 1e-39, 2.0**-126, 3.4e38, -3.4e38, 1, -1], "f4")


@functools.cache
def grid() -> np.ndarray[Any, Any]:
    """Every 40009th of all floats, and dense grids where functions bend."""
    every = np.arange(0, 1 << 32, 40009, dtype=np.uint64).astype(np.uint32).view(np.float32)
    near = [np.linspace(-n, n, 40001, dtype=np.float32) for n in (1, 12, 105)]
    return np.concatenate([_SPECIAL, every, *near])


_erf = np.vectorize(math.erf, otypes=[np.float64])


def _sigmoid(x: Any) -> Any:
    power = np.exp(-np.abs(x))
    return np.where(x < 0, power, 1) / (1 + power)


FUNCTIONS = {
    **{
        name: getattr(np, name)
        for name in ("exp", "expm1", "log", "log1p", "tanh", "sinh", "cosh", "sin", "cos", "tan")
    },
    **{name: getattr(np, f"arc{name[1:]}") for name in ("asin", "acos", "atan", "asinh", "acosh", "atanh")},
    "erf": _erf,
    "sigmoid": _sigmoid,
    "softplus": lambda x: np.logaddexp(0, x),
}


@functools.cache
def exactly(name: str) -> np.ndarray[Any, Any]:
    with np.errstate(all="ignore"):
        return np.asarray(FUNCTIONS[name](grid().astype(np.float64)))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_function(name: str, library: Library) -> None:
    x, exact = grid(), exactly(name)
    got = apply(name, [x], library=library)
    with np.errstate(all="ignore"):
        want = exact.astype(np.float32)
        finite = np.isfinite(want)
        wrong = np.abs(got[finite] - exact[finite]) / np.spacing(np.abs(want[finite]))
        # where the function is beyond what a float holds, or no number
        np.testing.assert_array_equal(got[~finite], want[~finite])
    assert not np.isnan(got[finite]).any()
    assert wrong.max() <= MOST_ULP, (x[finite][wrong.argmax()], wrong.max())


def test_powers(library: Library) -> None:
    generator = np.random.default_rng(0)
    x = generator.standard_normal(20000).astype(np.float32) * 4
    y = generator.standard_normal(20000).astype(np.float32) * 10
    y[::2] = np.round(y[::2])
    x[:169], y[:169] = (part.ravel() for part in np.meshgrid(_SPECIAL, _SPECIAL))
    got = apply("pow", [x, y], library=library)
    with np.errstate(all="ignore"):
        exact = np.power(x.astype(np.float64), y.astype(np.float64))
        want = exact.astype(np.float32)
        finite = np.isfinite(want)
        wrong = np.abs(got[finite] - exact[finite]) / np.spacing(np.abs(want[finite]))
    np.testing.assert_array_equal(got[~finite], want[~finite])
    assert wrong.max() <= MOST_ULP


@pytest.mark.parametrize("name", ["exp", "tanh", "erf", "log1p", "sigmoid", "sin", "asinh"])
def test_float64(name: str, library: Library) -> None:
    x = np.concatenate([_SPECIAL.astype(np.float64), np.linspace(-30, 30, 301)])
    with np.errstate(all="ignore"):
        np.testing.assert_allclose(apply(name, [x], library=library), FUNCTIONS[name](x), rtol=1e-14, atol=1e-15)
