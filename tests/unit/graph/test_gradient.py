"""Gradient against central differences of the same graph, and what it refuses."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import distort
from distort.capi.onnxruntime_pybind11_state import InvalidGraph, NotImplemented

_HEADER = '<ir_version: 10, opset_import: ["": 21, "ai.onnx.preview.training": 1]>'


def _with_gradient(inputs: dict[str, np.ndarray], body: str, xs: list[str], opset: int = 21) -> bytes:
    """A model of ``body``, which computes y, and of dy/dx for each of xs; r weighs y's elements unevenly."""
    formal = ", ".join(f"double[{','.join(map(str, value.shape))}] {name}" for name, value in inputs.items())
    names = ", ".join(f'"{x}"' for x in xs)
    text = f"""{_HEADER.replace("21", str(opset), 1)}
        g ({formal}) => (double total, {", ".join(f"double d_{x}" for x in xs)}) {{
            {body}
            weight = Sin (y)
            product = Mul (weight, y)
            total = ReduceSum <keepdims = 0> (product)
            {", ".join(f"d_{x}" for x in xs)} =
                ai.onnx.preview.training.Gradient <xs = [{names}], y = "total"> ({", ".join(xs)})
        }}"""
    return onnx.parser.parse_model(text).SerializeToString()


_RNG = np.random.default_rng(7)
_X = _RNG.uniform(0.2, 0.8, (2, 3))
_Y = _RNG.uniform(0.3, 0.9, (2, 3))
_IMAGE = _RNG.standard_normal((2, 4, 7, 6))
_CASES: dict[str, tuple[dict[str, np.ndarray], str]] = {
    **{
        op_type: ({"x": _X}, f"y = {op_type} (x)")
        for op_type in (
            *("Abs", "Exp", "Log", "Sqrt", "Reciprocal", "Sin", "Cos", "Tan", "Asin", "Acos", "Atan", "Sinh", "Cosh"),
            *("Tanh", "Asinh", "Atanh", "Sigmoid", "Softplus", "Erf", "Softsign", "Identity", "Neg", "Softmax"),
            *("LogSoftmax", "Flatten", "Gelu", "Mish", "HardSwish", "Transpose"),
        )
    },
    "Acosh": ({"x": _X + 1}, "y = Acosh (x)"),
    **{op: ({"x": _X - 0.5}, f"y = {op} (x)") for op in ("Relu", "LeakyRelu", "Elu", "Selu", "HardSigmoid")},
    **{
        op: ({"a": _X, "b": _Y[:1], "c": np.array(0.7)}, f"z = {op} (a, b)\n y = {op} (z, c)")
        for op in ("Add", "Sub", "Mul", "Div", "Pow", "Max", "Min")
    },
    "Sum": ({"a": _X, "b": _Y[:, :1]}, "y = Sum (a, b, a)"),
    "Mean": ({"a": _X, "b": _Y[:, :1]}, "y = Mean (a, b, a)"),
    "Clip": ({"x": _X, "low": np.array(0.4), "high": np.array(0.6)}, "y = Clip (x, low, high)"),
    "Where": ({"a": _X, "b": _Y[:1]}, "c = Less (a, b)\n y = Where (c, a, b)"),
    "PRelu": ({"x": _X - 0.5, "s": _Y[0]}, "y = PRelu (x, s)"),
    **{
        op: ({"x": _X}, f"axes = Constant <value_ints = [-1]> ()\n z = {op} <keepdims = 0> (x, axes)\n y = Mul (z, z)")
        for op in (
            *("ReduceSum", "ReduceMean", "ReduceSumSquare", "ReduceL1", "ReduceL2", "ReduceLogSum"),
            *("ReduceLogSumExp", "ReduceMax", "ReduceMin"),
        )
    },
    "ReduceMean-all": ({"x": _X}, "y = ReduceMean <keepdims = 0> (x)"),
    "CumSum": ({"x": _X}, "axis = Constant <value_int = 1> ()\n y = CumSum <exclusive = 1> (x, axis)"),
    "Reshape": ({"x": _X}, "s = Constant <value_ints = [3, -1]> ()\n y = Reshape (x, s)"),
    "Transpose-3d": ({"x": _IMAGE[0]}, "y = Transpose <perm = [2, 0, 1]> (x)"),
    "Expand": ({"x": _X[:, :1]}, "s = Constant <value_ints = [4, 1, 3]> ()\n y = Expand (x, s)"),
    "Trilu": ({"x": _X}, "y = Trilu <upper = 0> (x)"),
    "Concat": ({"a": _X, "b": _Y[:1]}, "y = Concat <axis = 0> (a, b, a)"),
    "Split": ({"x": _X}, "s = Constant <value_ints = [1, 2]> ()\n p, y = Split <axis = 1> (x, s)"),
    "Slice": (
        {"x": _IMAGE[0]},
        "b = Constant <value_ints = [-1, 3]> ()\n e = Constant <value_ints = [-100, 1]> ()\n"
        "a = Constant <value_ints = [1, 2]> ()\n s = Constant <value_ints = [-2, -1]> ()\n y = Slice (x, b, e, a, s)",
    ),
    "Gather": ({"x": _X}, "i = Constant <value_ints = [2, 0, 2]> ()\n y = Gather <axis = 1> (x, i)"),
    "GatherElements": (
        {"x": _X},
        "i = Constant <value = int64[2, 2] {0, 1, 1, 1}> ()\n y = GatherElements <axis = 0> (x, i)",
    ),
    "GatherND": ({"x": _X}, "i = Constant <value = int64[2, 2] {0, 1, 1, 2}> ()\n y = GatherND (x, i)"),
    "Tile": ({"x": _X}, "r = Constant <value_ints = [2, 3]> ()\n y = Tile (x, r)"),
    "DepthToSpace": ({"x": _IMAGE}, "y = DepthToSpace <blocksize = 2> (x)"),
    "SpaceToDepth": ({"x": _IMAGE[:, :, :6]}, "y = SpaceToDepth <blocksize = 2> (x)"),
    "Pad": ({"x": _X, "v": np.array(0.3)}, "p = Constant <value_ints = [1, 0, 0, 2]> ()\n y = Pad (x, p, v)"),
    "Pad-reflect": ({"x": _X}, 'p = Constant <value_ints = [0, 2, 1, 0]> ()\n y = Pad <mode = "reflect"> (x, p)'),
    "MatMul": ({"a": _IMAGE[:, :, :3, :5], "b": _RNG.standard_normal((4, 5, 2))}, "y = MatMul (a, b)"),
    "MatMul-vector-right": ({"a": _IMAGE[0], "b": _IMAGE[0, 0, 0]}, "y = MatMul (a, b)"),
    "MatMul-vector-left": ({"a": _IMAGE[0, 0, :, 0], "b": _IMAGE[0]}, "y = MatMul (a, b)"),
    "MatMul-vectors": ({"a": _X[0], "b": _Y[0]}, "y = MatMul (a, b)"),
    **{
        f"Gemm-{a}{b}": (
            {"a": _X.T if a else _X, "b": _IMAGE[0, 0, :4, :3] if b else _IMAGE[0, 0, :3, :4], "c": _Y[0, :1]},
            f"y = Gemm <alpha = 0.5, beta = 2.0, transA = {a}, transB = {b}> (a, b, c)",
        )
        for a in (0, 1)
        for b in (0, 1)
    },
    "Einsum": ({"a": _X, "b": _Y}, 'y = Einsum <equation = "ij,kj->ik"> (a, b)'),
    "Einsum-batch": ({"a": _IMAGE[0], "b": _IMAGE[1, 0, :6, :2]}, 'y = Einsum <equation = "...ij,jk->...ik"> (a, b)'),
    "Conv": (
        {"x": _IMAGE, "w": _RNG.standard_normal((6, 2, 3, 2)), "b": _RNG.standard_normal(6)},
        "y = Conv <group = 2, strides = [2, 3], pads = [1, 0, 2, 1], dilations = [1, 2]> (x, w, b)",
    ),
    "Conv-1d": ({"x": _IMAGE[0], "w": _RNG.standard_normal((2, 7, 3))}, "y = Conv <strides = [2]> (x, w)"),
    "MaxPool": ({"x": _IMAGE}, "y = MaxPool <kernel_shape = [3, 2], strides = [2, 2], pads = [1, 0, 0, 1]> (x)"),
    "AveragePool": (
        {"x": _IMAGE},
        "y = AveragePool <kernel_shape = [3, 2], strides = [2, 1], pads = [1, 0, 0, 1]> (x)",
    ),
    "AveragePool-pad": (
        {"x": _IMAGE},
        "y = AveragePool <kernel_shape = [3, 2], pads = [1, 1, 0, 1], count_include_pad = 1> (x)",
    ),
    "GlobalAveragePool": ({"x": _IMAGE}, "y = GlobalAveragePool (x)"),
    "BatchNormalization": (
        {
            "x": _IMAGE,
            **{name: _RNG.uniform(0.5, 1.5, 4) for name in ("scale", "bias", "mean", "variance")},
        },
        "y = BatchNormalization (x, scale, bias, mean, variance)",
    ),
    "LayerNormalization": ({"x": _X, "s": _Y[0], "b": _Y[1]}, "y = LayerNormalization (x, s, b)"),
    "fan-out": ({"x": _X}, "a = Exp (x)\n b = Sin (a)\n c = Mul (a, b)\n y = Add (c, x)"),
}


@pytest.mark.parametrize("name", _CASES)
def test_central_differences(name: str) -> None:
    inputs, body = _CASES[name]
    session = distort.InferenceSession(_with_gradient(inputs, body, list(inputs)))
    _, *gradients = session.run(None, inputs)
    step = 1e-5
    for (key, value), gradient in zip(inputs.items(), gradients, strict=True):
        assert gradient.shape == value.shape
        expected = np.zeros(value.shape)
        for index in np.ndindex(value.shape):
            sides = []
            for sign in (1, -1):
                moved = value.copy()
                moved[index] += sign * step
                sides.append(session.run(["total"], {**inputs, key: moved})[0])
            expected[index] = (sides[0] - sides[1]) / (2 * step)
        np.testing.assert_allclose(gradient, expected, rtol=2e-4, atol=2e-5, err_msg=key)


def test_second_order() -> None:
    """d/dx (d/dx x^3) = 6 x."""
    text = f"""{_HEADER} g (double x) => (double d, double dd) {{
        square = Mul (x, x)
        y = Mul (square, x)
        d = ai.onnx.preview.training.Gradient <xs = ["x"], y = "y"> (x)
        dd = ai.onnx.preview.training.Gradient <xs = ["x"], y = "d"> (x)
    }}"""
    session = distort.InferenceSession(onnx.parser.parse_model(text).SerializeToString())
    d, dd = session.run(None, {"x": np.array(1.5)})
    assert (d, dd) == (3 * 1.5**2, 6 * 1.5)


def test_at_values_given_anew() -> None:
    """The graph from x to y is differentiated at another value than x's own."""
    text = f"""{_HEADER} g (double x, double at) => (double y, double d) {{
        y = Exp (x)
        d = ai.onnx.preview.training.Gradient <xs = ["x"], y = "y"> (at)
    }}"""
    session = distort.InferenceSession(onnx.parser.parse_model(text).SerializeToString())
    y, d = session.run(None, {"x": np.array(0.0), "at": np.array(1.0)})
    assert y == 1
    assert d == pytest.approx(np.e)


def test_intermediate_values_and_independent_ones() -> None:
    """dy/dh for an h on the way; and 0 for a value that y does not follow from."""
    text = f"""{_HEADER} g (double[3] x, double[2] other) => (double d_h, double d_other) {{
        h = Exp (x)
        squares = Mul (h, h)
        y = ReduceSum <keepdims = 0> (squares)
        d_h, d_other = ai.onnx.preview.training.Gradient <xs = ["h", "other"], y = "y"> (h, other)
    }}"""
    session = distort.InferenceSession(onnx.parser.parse_model(text).SerializeToString())
    x = np.array([0.0, 1.0, 2.0])
    d_h, d_other = session.run(None, {"x": x, "other": np.ones(2)})
    np.testing.assert_allclose(d_h, 2 * np.exp(x))
    np.testing.assert_array_equal(d_other, np.zeros(2))


def test_dropout_passes_gradients_where_it_passed_values() -> None:
    text = f"""{_HEADER} g (float[100] x) => (float y, float d) {{
        ratio = Constant <value = float {{0.25}}> ()
        train = Constant <value = bool {{1}}> ()
        y = Dropout <seed = 3> (x, ratio, train)
        total = ReduceSum <keepdims = 0> (y)
        d = ai.onnx.preview.training.Gradient <xs = ["x"], y = "total"> (x)
    }}"""
    session = distort.InferenceSession(onnx.parser.parse_model(text).SerializeToString())
    y, d = session.run(None, {"x": np.ones(100, np.float32)})
    assert 0 < (y == 0).sum() < 60
    np.testing.assert_allclose(d, y)


@pytest.mark.parametrize(
    ("body", "error", "text"),
    [
        ("y = Det (x)", NotImplemented, r"no derivative of Det\(21\)"),
        ('y = Einsum <equation = "ii->i"> (x)', NotImplemented, "no derivative of Einsum with equation 'ii->i'"),
    ],
)
def test_operators_without_a_derivative(body: str, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        distort.InferenceSession(_with_gradient({"x": np.ones((3, 3))}, body, ["x"]))


def test_a_y_that_nothing_computes() -> None:
    text = f"""{_HEADER} g (double x) => (double d) {{
        d = ai.onnx.preview.training.Gradient <xs = ["x"], y = "nowhere"> (x)
    }}"""
    with pytest.raises(InvalidGraph, match="'nowhere', is computed by no node"):
        distort.InferenceSession(onnx.parser.parse_model(text).SerializeToString())
