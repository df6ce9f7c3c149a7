"""Narrow floats are summed in 32 bits and rounded once; NaN, infinities, signed zeros, empty and 0-d tensors."""

from __future__ import annotations

import functools
import math
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import helper

import distort

Array = np.ndarray[Any, Any]
_NARROW = [np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)]
_narrow = st.sampled_from(_NARROW)
_seeds = st.integers(0, 2**32 - 1)
_few = settings(max_examples=25, deadline=None)
_shapes = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)


@functools.lru_cache(maxsize=512)
def _session(op_type: str, kinds: tuple[Any, ...], ranks: tuple[int, ...], attributes: str) -> Any:
    names = [f"x{i}" for i in range(len(kinds))]
    node = helper.make_node(op_type, names, ["y"], **eval(attributes))  # our own literals
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(kind), [f"{name}{i}" for i in range(rank)])
        for name, kind, rank in zip(names, kinds, ranks, strict=True)
    ]
    graph = helper.make_graph([node], "g", inputs, [helper.make_tensor_value_info("y", 0, None)])
    graph.output[0].ClearField("type")
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 24)], ir_version=11)
    return distort.InferenceSession(model.SerializeToString())


def _run(op_type: str, *inputs: Array, **attributes: Any) -> Array:
    session = _session(op_type, tuple(x.dtype for x in inputs), tuple(x.ndim for x in inputs), repr(attributes))
    return np.asarray(session.run(None, {f"x{i}": x for i, x in enumerate(inputs)})[0])


def _ulp(kind: Any, around: Array) -> Array:
    """The distance to the next number of this type."""
    info = ml_dtypes.finfo(kind)
    exponent = np.floor(np.log2(np.maximum(np.abs(around.astype(np.float64)), float(info.smallest_normal))))
    return np.exp2(exponent - info.nmant)


def _rounded_once(got: Array, exact: Array, kind: Any) -> None:
    """As far from the exact result as one rounding and 32-bit sums explain."""
    assert got.dtype == kind
    slack = 0.5 * _ulp(kind, exact) + 1e-4 * np.abs(exact) + 1e-6
    assert (np.abs(got.astype(np.float64) - exact) <= slack).all()


@_few
@given(_narrow, _seeds, st.integers(1, 4000))
def test_long_sums(kind: Any, seed: int, n: int) -> None:
    """In the type itself a sum of ones stops at 2048, or 256."""
    x = np.random.default_rng(seed).uniform(0.5, 1.5, (2, n)).astype(np.float32).astype(kind)
    wide = x.astype(np.float64)
    axes = np.array([1])
    _rounded_once(_run("ReduceSum", x, axes), wide.sum(1, keepdims=True), kind)
    _rounded_once(_run("ReduceMean", x, axes), wide.mean(1, keepdims=True), kind)
    _rounded_once(_run("ReduceL2", x, axes), np.sqrt((wide**2).sum(1, keepdims=True)), kind)
    _rounded_once(_run("MatMul", x, x.T.copy()), wide @ wide.T, kind)
    _rounded_once(_run("GlobalAveragePool", x[None]), wide.mean(1)[None, :, None], kind)


@_few
@given(_narrow, _seeds, st.integers(2, 600))
def test_normalizations(kind: Any, seed: int, n: int) -> None:
    random = np.random.default_rng(seed)
    x = (random.normal(size=(3, n)) * 50 + 200).astype(np.float32).astype(kind)  # squares beyond float16's range
    one = np.ones(n, np.float32).astype(kind)
    wide = x.astype(np.float64)
    centred = wide - wide.mean(1, keepdims=True)
    want = centred / np.sqrt((centred**2).mean(1, keepdims=True) + 1e-5)
    got = _run("LayerNormalization", x, one, one * 0)
    np.testing.assert_allclose(got.astype(np.float64), want, rtol=2e-2, atol=2e-2)
    rms = wide / np.sqrt((wide**2).mean(1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(_run("RMSNormalization", x, one).astype(np.float64), rms, rtol=2e-2)


@_few
@given(_narrow, _seeds)
def test_convolutions(kind: Any, seed: int) -> None:
    random = np.random.default_rng(seed)
    x = random.uniform(0.5, 1.5, (1, 300, 3, 3)).astype(np.float32).astype(kind)
    w = random.uniform(0.5, 1.5, (2, 300, 3, 3)).astype(np.float32).astype(kind)
    exact = np.einsum("ncij,ocij->no", x.astype(np.float64), w.astype(np.float64))
    _rounded_once(_run("Conv", x, w)[..., 0, 0], exact, kind)


_FLOATS = hnp.from_dtype(np.dtype(np.float32), allow_nan=True, allow_infinity=True, allow_subnormal=True)


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(np.float32, hnp.array_shapes(max_dims=2, max_side=20), elements=_FLOATS),
    st.sampled_from([np.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e5m2, ml_dtypes.float8_e4m3fn]),
)
def test_casts_round_to_the_nearest(x: Array, kind: Any) -> None:
    number = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    got = _run("Cast", x, to=number).astype(np.float64)
    limit = float(ml_dtypes.finfo(kind).max)
    eight = np.dtype(kind).itemsize == 1
    with np.errstate(invalid="ignore"):
        inside = np.abs(x) <= limit
        exact = x.astype(np.float64)
        assert (np.isnan(got) == np.isnan(x)).all()
        step = _ulp(kind, np.where(inside, exact, 1))
        step = np.maximum(step, float(ml_dtypes.finfo(kind).smallest_subnormal))
        assert (np.abs(got - exact)[inside] <= step[inside] / 2).all()
        beyond = ~inside & ~np.isnan(x)
        if eight:  # saturates
            assert (np.abs(got[beyond]) == limit).all()
        else:
            assert (np.abs(got[beyond]) >= limit).all()
        assert (np.signbit(got) == np.signbit(x))[~np.isnan(x)].all()


@settings(max_examples=60, deadline=None)
@given(_shapes, _shapes, _seeds, st.sampled_from(["Add", "Mul", "Sub", "Max", "Less", "Pow"]))
def test_broadcasting(left: tuple[int, ...], right: tuple[int, ...], seed: int, op_type: str) -> None:
    random = np.random.default_rng(seed)
    a, b = (np.asarray(random.uniform(0.5, 2, shape)).astype(np.float32) for shape in (left, right))
    functions = {
        "Add": np.add, "Mul": np.multiply, "Sub": np.subtract, "Max": np.maximum, "Less": np.less, "Pow": np.power,
    }  # fmt: skip
    try:
        want = functions[op_type](a, b)
    except ValueError:
        with pytest.raises(distort.capi.onnxruntime_pybind11_state.Fail, match=op_type):
            _run(op_type, a, b)
        return
    got = _run(op_type, a, b)
    assert (got.dtype, got.shape) == (want.dtype, want.shape)
    np.testing.assert_allclose(got, want, rtol=1e-5)


_UNARY = [
    "Abs", "Ceil", "Cos", "Erf", "Exp", "Floor", "Gelu", "HardSwish", "Identity", "Mish", "Neg", "Relu", "Round",
    "Sigmoid", "Sign", "Sin", "Softplus", "Softsign", "Sqrt", "Tanh", "Elu", "LeakyRelu", "Swish",
]  # fmt: skip


@pytest.mark.parametrize("op_type", _UNARY)
@pytest.mark.parametrize("kind", [np.dtype(np.float32), *_NARROW], ids=str)
def test_special_values(op_type: str, kind: Any) -> None:
    """NaN stays NaN, zeros keep their sign through what is odd, and shapes without elements or axes are kept."""
    x = np.array([math.nan, math.inf, -math.inf, 0.0, -0.0], np.float32).astype(kind)
    y = _run(op_type, x).astype(np.float64)
    if op_type != "Sign":  # whose NaN the standard leaves open
        assert np.isnan(y[0])
    if op_type in ("Ceil", "Erf", "Floor", "Identity", "Round", "Sin", "Softsign", "Sqrt", "Tanh", "LeakyRelu"):
        assert np.signbit(y[4])
        assert not np.signbit(y[3])
        assert (y[3:] == 0).all()
    if op_type == "Neg":
        assert np.signbit(y[3])
        assert not np.signbit(y[4])
    bounds = {
        "Exp": (math.inf, 0), "Sigmoid": (1, 0), "Tanh": (1, -1), "Erf": (1, -1), "Relu": (math.inf, 0),
        "Softplus": (math.inf, 0), "Elu": (math.inf, -1), "Abs": (math.inf, math.inf), "Neg": (-math.inf, math.inf),
    }  # fmt: skip
    if op_type in bounds:
        assert tuple(y[1:3]) == bounds[op_type]
    for shape in ((), (0,), (2, 0, 3)):
        part = np.ones(shape, np.float32).astype(kind)
        got = _run(op_type, part)
        assert (got.dtype, got.shape) == (kind, shape)


@_few
@given(hnp.arrays(np.float32, st.integers(1, 50), elements=_FLOATS))
def test_extremes_carry_nan(x: Array) -> None:
    for op_type, function in (("ReduceMax", np.max), ("ReduceMin", np.min)):
        np.testing.assert_array_equal(_run(op_type, x, np.array([0]), keepdims=0), function(x))


@_few
@given(
    hnp.arrays(np.float32, st.tuples(st.integers(1, 5), st.integers(1, 40)), elements=st.floats(-1e4, 1e4, width=32))
)
def test_softmax(x: Array) -> None:
    y = _run("Softmax", x).astype(np.float64)
    wide = np.exp(x.astype(np.float64) - x.max(1, keepdims=True))
    np.testing.assert_allclose(y, wide / wide.sum(1, keepdims=True), rtol=1e-4, atol=1e-7)


@_few
@given(
    hnp.arrays(np.float32, st.integers(0, 60), elements=st.floats(-300, 300, width=32)),
    st.sampled_from([0.5, 1.0, 2.0]),
    st.sampled_from([np.int8, np.uint8, np.int16]),
)
def test_quantization_rounds_halves_to_even(x: Array, scale: float, kind: Any) -> None:
    zero = np.array(3, kind)
    got = _run("QuantizeLinear", x, np.array(scale, np.float32), zero)
    info = np.iinfo(kind)
    want = [min(max(round(float(value) / scale) + 3, info.min), info.max) for value in x]
    assert got.tolist() == want
    assert got.dtype == kind
