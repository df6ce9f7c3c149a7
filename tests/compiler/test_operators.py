"""Element-wise operators as native code against the NumPy kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from distort.kernels.ops import activations, arithmetic, cast, logic, mathematics
from distort.kernels.registry import find

from .calling import apply

_SPECIAL = [0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45, -1e-40, 1.5, 2.5, -0.5, 1.0, -1.0, 3.4e38, -3.4e38, 1e-8]
_INTEGERS = ("int8", "uint8", "int16", "int32", "uint32", "int64", "uint64")
_FLOATS = ("float32", "float64", "float16")


def values(dtype: str, seed: int = 0, n: int = 331) -> np.ndarray[Any, Any]:
    generator = np.random.default_rng(seed)
    kind = np.dtype(dtype)
    if dtype == "bool":
        return generator.integers(0, 2, n).astype(bool)
    if kind.kind in "iu":
        limits = np.iinfo(kind)
        small = generator.integers(max(-9, limits.min), 10, n).astype(kind)
        large = generator.integers(limits.min, limits.max, n, dtype=kind, endpoint=True)
        result = np.where(generator.random(n) < 0.5, small, large)
        result[:3] = limits.min, limits.max, 0
        return result
    with np.errstate(over="ignore"):
        result = (generator.standard_normal(n) * 3).astype(kind)
        result[: len(_SPECIAL)] = generator.permutation(np.array(_SPECIAL)).astype(kind)
    return result


def same(got: np.ndarray[Any, Any], want: np.ndarray[Any, Any], ulp: int = 0) -> None:
    assert got.dtype == want.dtype
    if not ulp or want.dtype.kind not in "f":
        np.testing.assert_array_equal(got, want)
        return
    got_nan, want_nan = np.isnan(got), np.isnan(want)
    np.testing.assert_array_equal(got_nan, want_nan)
    with np.errstate(invalid="ignore", over="ignore"):
        wide = [x[~want_nan].astype(np.float64) for x in (got, want)]
        close = np.abs(wide[0] - wide[1]) <= ulp * np.spacing(np.abs(want[~want_nan])).astype(np.float64)
    bad = ~(close | (wide[0] == wide[1]))
    assert not bad.any(), (got[~want_nan][bad][:5], want[~want_nan][bad][:5])


@pytest.fixture(autouse=True)
def _quiet() -> Any:
    with np.errstate(all="ignore"):
        yield


_BINARY = {"add": np.add, "sub": np.subtract, "mul": np.multiply, "maximum": np.maximum, "minimum": np.minimum}


@pytest.mark.parametrize("dtype", [*_INTEGERS, "float32", "float64"])
@pytest.mark.parametrize("op", _BINARY)
def test_binary(op: str, dtype: str) -> None:
    a, b = values(dtype, 1), values(dtype, 2)
    same(apply(op, [a, b]), _BINARY[op](a, b))


@pytest.mark.parametrize("dtype", [*_INTEGERS, "float32", "float64"])
def test_division_and_rest(dtype: str) -> None:
    a, b = values(dtype, 1), values(dtype, 2)
    if np.dtype(dtype).kind in "iu":
        b[b == 0] = 3
        same(apply("mod", [a, b], attributes=(0,)), arithmetic.modulo(np, a, b))
        # what numpy does at the smallest integer over -1 is not what is asked for
        fine = ~((a == np.iinfo(dtype).min) & (b == np.array(-1).astype(dtype)))
        a, b = a[fine], b[fine]
        same(apply("div", [a, b]), arithmetic.divide(np, a, b))
    else:
        same(apply("div", [a, b]), arithmetic.divide(np, a, b))
        same(apply("mod", [a, b], attributes=(0,)), arithmetic.modulo(np, a, b))
    same(apply("mod", [a, b], attributes=(1,)), arithmetic.modulo(np, a, b, fmod=1))


def test_rest_is_exact() -> None:
    rng = np.random.default_rng(0)
    numbers = rng.standard_normal((2, 40_000)) * 2.0 ** rng.integers(-30, 30, (2, 40_000))
    a, b = numbers.astype(np.float32)
    a[::3] = b[::3] * rng.integers(-70_000_000, 70_000_000, len(b[::3])).astype(np.float32)
    a[::6] = np.nextafter(a[::6], np.float32(0))
    for part in (np.arange(40_000), np.abs(a) < np.abs(b) * 1000):  # with large quotients among them, and without
        rest = apply("mod", [a[part], b[part]], attributes=(1,))
        np.testing.assert_array_equal(rest.view(np.int32), np.fmod(a[part], b[part]).view(np.int32))


def test_division_by_zero_gives_zero() -> None:
    a = np.arange(-5, 5, dtype=np.int32)
    assert not apply("div", [a, np.zeros_like(a)]).any()


@pytest.mark.parametrize(
    ("base", "exponent"),
    [
        *(("float32", "float32"), ("float64", "float64"), ("float32", "int64"), ("int32", "int32"), ("int64", "int64")),
        *(("int32", "float32"), ("float16", "float16"), ("float32", "float64")),
    ],
)
def test_power(base: str, exponent: str) -> None:
    a, b = values(base, 3), values(exponent, 4)
    if base.startswith("int") and exponent.startswith("float"):
        a, b = a % 10, np.abs(b) % 4
        b[~np.isfinite(b)] = 1
    same(apply("pow", [a, b]), arithmetic.power(np, a, b), 2)


@pytest.mark.parametrize("exponent", [0, 1, 2, 3, 0.5, -1, -2, 4, 1.7])
def test_power_of_a_constant(exponent: float) -> None:
    a = values("float32", 3)
    same(apply("pow", [a], numbers=[exponent]), arithmetic.power(np, a, np.float32(exponent).reshape(())), 3)


_COMPARISONS = {
    "equal": np.equal,
    "not_equal": np.not_equal,
    "less": np.less,
    "greater": np.greater,
    "less_or_equal": np.less_equal,
    "greater_or_equal": np.greater_equal,
}


@pytest.mark.parametrize("dtype", [*_INTEGERS, *_FLOATS])
@pytest.mark.parametrize("op", _COMPARISONS)
def test_comparison(op: str, dtype: str) -> None:
    a, b = values(dtype, 1), values(dtype, 2)
    b[::3] = a[::3]
    same(apply(op, [a, b], bool), _COMPARISONS[op](a, b))


def test_logic() -> None:
    a, b = values("bool", 1), values("bool", 2)
    same(apply("and", [a, b]), a & b)
    same(apply("or", [a, b]), a | b)
    same(apply("xor", [a, b]), a ^ b)
    same(apply("not", [a]), ~a)
    same(apply("equal", [a, b], bool), a == b)
    x, y = values("float32", 1), values("float32", 2)
    same(apply("where", [a, x, y], np.float32), np.where(a, x, y))
    i, j = values("int64", 1), values("int64", 2)
    same(apply("where", [a, i, j], np.int64), np.where(a, i, j))


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "uint64", "int64"])
def test_bits(dtype: str) -> None:
    a, b = values(dtype, 1), values(dtype, 2)
    same(apply("bitwise_and", [a, b]), a & b)
    same(apply("bitwise_or", [a, b]), a | b)
    same(apply("bitwise_xor", [a, b]), a ^ b)
    same(apply("bitwise_not", [a]), ~a)
    for direction in ("LEFT", "RIGHT"):
        want = logic.bit_shift(np, a, b, direction=direction)
        same(apply("bit_shift", [a, b], attributes=(direction,)), want)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_kinds_of_numbers(dtype: str) -> None:
    a = values(dtype)
    same(apply("is_nan", [a], bool), np.isnan(a))
    for low, high in ((1, 1), (0, 1), (1, 0), (0, 0)):
        want = logic.is_inf(np, a, detect_negative=low, detect_positive=high)
        same(apply("is_inf", [a], bool, (low, high)), want)


_EXACT = ("Abs", "Neg", "Sign", "Floor", "Ceil", "Round", "Sqrt", "Reciprocal", "Relu")


@pytest.mark.parametrize("dtype", _FLOATS)
@pytest.mark.parametrize("op", _EXACT)
def test_exact_functions(op: str, dtype: str) -> None:
    a = values(dtype)
    same(apply(op.lower(), [a]), find("", op, 22).function(np, a))


@pytest.mark.parametrize("dtype", _INTEGERS)
@pytest.mark.parametrize("op", ["Abs", "Sign", "Relu"])
def test_functions_of_integers(op: str, dtype: str) -> None:
    a = values(dtype)
    same(apply(op.lower(), [a]), find("", op, 22).function(np, a))


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_clip(dtype: str) -> None:
    a = values(dtype)
    low, high = np.array(-1, dtype), np.array(2, dtype)
    same(apply("clip", [a], numbers=[-1, 2]), mathematics.clip(np, a, low, high))
    same(apply("clip", [a, np.full_like(a, -1), np.full_like(a, 2)]), mathematics.clip(np, a, low, high))


_ACTIVATIONS = {
    "leaky_relu": (activations.leaky_relu, {"alpha": 0.1}),
    "elu": (activations.elu, {"alpha": 0.7}),
    "celu": (activations.celu, {"alpha": 0.7}),
    "selu": (activations.selu, {}),
    "hard_sigmoid": (activations.hard_sigmoid, {"alpha": 0.25, "beta": 0.4}),
    "hard_swish": (activations.hard_swish, {}),
    "softsign": (activations.softsign, {}),
    "softplus": (activations.softplus, {}),
    "sigmoid": (activations.sigmoid, {}),
    "thresholded_relu": (activations.thresholded_relu, {"alpha": 0.7}),
    "shrink": (activations.shrink, {"bias": 0.3, "lambd": 0.6}),
    "swish": (activations.swish, {"alpha": 1.3}),
    "mish": (activations.mish, {}),
    "gelu": (activations.gelu, {}),
}


@pytest.mark.parametrize("dtype", _FLOATS)
@pytest.mark.parametrize("op", _ACTIVATIONS)
def test_activations(op: str, dtype: str) -> None:
    function, attributes = _ACTIVATIONS[op]
    a = values(dtype)
    if op in ("mish", "celu"):
        a[np.isinf(a)] = 1  # the formulas of the NumPy kernels make NaN of some
    a[np.abs(a) > 1e38] = 1  # and these overflow
    got, want = apply(op, [a], attributes=tuple(attributes.values())), function(np, a, **attributes)
    tolerance = {"float64": 1e-13, "float32": 2e-6, "float16": 2e-3}[dtype]
    np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance)


def test_gelu_by_tanh_and_prelu() -> None:
    a, b = values("float32"), values("float32", 5)
    a[np.abs(a) > 1e38] = 1
    got, want = apply("gelu", [a], attributes=("tanh",)), activations.gelu(np, a, approximate="tanh")
    np.testing.assert_allclose(got, want, rtol=2e-6, atol=2e-6)
    same(apply("prelu", [a, b]), activations.prelu(np, a, b))


_DTYPES = ("bool", *_INTEGERS, "uint16", *_FLOATS)


@pytest.mark.parametrize("to", _DTYPES)
@pytest.mark.parametrize("source", _DTYPES)
def test_cast(source: str, to: str) -> None:
    a = values(source)
    if np.dtype(source).kind == "f" and np.dtype(to).kind in "iu":
        # out of range, what numpy gives differs by version and machine
        limits = np.iinfo(to)
        a = a[np.isfinite(a) & (a > limits.min - 0.99) & (a < limits.max)]
    same(apply("cast", [a], to), cast.convert(np, a, np.dtype(to)))


def test_cast_of_bfloat16() -> None:
    from ml_dtypes import bfloat16

    a = values("float32")
    got = apply("cast", [a], bfloat16)
    np.testing.assert_array_equal(got.astype(np.float32), a.astype(bfloat16).astype(np.float32))
    np.testing.assert_array_equal(apply("cast", [got], np.float32), got.astype(np.float32))
