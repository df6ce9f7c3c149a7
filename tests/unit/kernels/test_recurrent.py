"""RNN, GRU, LSTM and DynamicQuantizeLSTM against a scalar-minded reference: one sequence, one step, one equation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import distort.kernels.ops  # noqa: F401  # fills the registry
from distort.kernels.errors import InvalidInput
from distort.kernels.registry import find

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
DIRECTIONS = {"forward": [1], "reverse": [-1], "bidirectional": [1, -1]}
T, B, I, H = 5, 3, 4, 2  # noqa: E741  # the names of the standard


def call(op_type: str, *inputs: Any, opset: int = 14, domain: str = "", **attributes: Any) -> tuple[Any, ...]:
    entry = find(domain, op_type, opset)
    assert entry is not None
    return entry.function(np, *inputs, **attributes)  # type: ignore[no-any-return]


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def one_sequence(op_type: str, x: Any, w: Any, r: Any, b: Any, p: Any, h: Any, c: Any, options: dict[str, Any]) -> Any:
    """x: [T, I], float64. Returns h of all steps, the last h and the last c, by the standard's equations."""

    def clip(v: Any) -> Any:
        return np.clip(v, -options["clip"], options["clip"]) if "clip" in options else v

    n = GATES[op_type]
    ws, rs = np.split(w, n), np.split(r, n)
    wb, rb = np.split(b[: n * H], n), np.split(b[n * H :], n)
    f, g, last = options.get("functions", (sigmoid, np.tanh, np.tanh))
    states = []
    for row in x:
        of = [row @ wk.T + bk for wk, bk in zip(ws, wb, strict=True)]
        if op_type == "RNN":
            h = g(clip(of[0] + h @ rs[0].T + rb[0]))
        elif op_type == "GRU":
            z = f(clip(of[0] + h @ rs[0].T + rb[0]))
            reset = f(clip(of[1] + h @ rs[1].T + rb[1]))
            if options.get("linear_before_reset"):
                hidden = g(clip(of[2] + reset * (h @ rs[2].T + rb[2])))
            else:
                hidden = g(clip(of[2] + (reset * h) @ rs[2].T + rb[2]))
            h = (1 - z) * hidden + z * h
        else:
            i, o, forget, cell = (of[k] + h @ rs[k].T + rb[k] for k in range(4))
            p_i, p_o, p_f = np.split(p, 3)
            i = f(clip(i + p_i * c))
            forget = 1 - i if options.get("input_forget") else f(clip(forget + p_f * c))
            c = forget * c + i * g(clip(cell))
            h = f(clip(o + p_o * c)) * last(c)
        states.append(h)
    return np.array(states).reshape(len(x), H), h, c


def reference(op_type: str, inputs: dict[str, Any], direction: str, options: dict[str, Any]) -> list[Any]:
    steps = DIRECTIONS[direction]
    y = np.zeros((T, len(steps), B, H))
    h_n, c_n = np.zeros((len(steps), B, H)), np.zeros((len(steps), B, H))
    for d, step in enumerate(steps):
        for k in range(B):
            n = T if inputs["lens"] is None else inputs["lens"][k]
            states, h, c = one_sequence(
                op_type,
                inputs["x"][:n, k][::step],
                *(inputs[name][d] for name in ("w", "r", "b", "p")),
                inputs["h"][d, k],
                inputs["c"][d, k],
                options,
            )
            y[:n, d, k] = states[::step]
            h_n[d, k], c_n[d, k] = h, c
    return [y, h_n, c_n]


def random_inputs(op_type: str, directions: int, lens: Any = None) -> dict[str, Any]:
    rng = np.random.default_rng(11)
    n = GATES[op_type]
    shapes = {
        "x": (T, B, I),
        "w": (directions, n * H, I),
        "r": (directions, n * H, H),
        "b": (directions, 2 * n * H),
        "p": (directions, 3 * H),
        "h": (directions, B, H),
        "c": (directions, B, H),
    }
    inputs: dict[str, Any] = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    inputs["lens"] = None if lens is None else np.int32(lens)
    return inputs


def arguments(op_type: str, inputs: dict[str, Any], dtype: Any) -> list[Any]:
    names = ["x", "w", "r", "b", "lens", "h"] + (["c", "p"] if op_type == "LSTM" else [])
    return [v if v is None or v.dtype == np.int32 else v.astype(dtype) for v in (inputs[name] for name in names)]


OPTIONS: list[tuple[str, dict[str, Any]]] = [
    *((op_type, {}) for op_type in GATES),
    *((op_type, {"clip": 0.4}) for op_type in GATES),
    ("GRU", {"linear_before_reset": 1}),
    ("GRU", {"linear_before_reset": 1, "clip": 0.4}),
    ("LSTM", {"input_forget": 1}),
]


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("lens", [None, [5, 3, 1], [2, 4, 4]])
@pytest.mark.parametrize(("op_type", "options"), OPTIONS)
def test_against_the_equations(op_type: str, options: dict[str, Any], lens: Any, direction: str) -> None:
    inputs = random_inputs(op_type, len(DIRECTIONS[direction]), lens)
    got = call(op_type, *arguments(op_type, inputs, np.float64), direction=direction, hidden_size=H, **options)
    want = reference(op_type, inputs, direction, options)
    for one, other in zip(got, want, strict=False):
        np.testing.assert_allclose(one, other, atol=1e-12)


@pytest.mark.parametrize("op_type", GATES)
def test_batch_first_layout(op_type: str) -> None:
    inputs = random_inputs(op_type, 2, [5, 3, 4])
    args = arguments(op_type, inputs, np.float32)
    want = call(op_type, *args, direction="bidirectional")
    for position in (0, 5, 6):
        if position < len(args):
            args[position] = args[position].swapaxes(0, 1)
    got = call(op_type, *args, direction="bidirectional", layout=1)
    np.testing.assert_array_equal(got[0], want[0].transpose(2, 0, 1, 3))
    for one, other in zip(got[1:], want[1:], strict=True):
        np.testing.assert_array_equal(one, other.swapaxes(0, 1))


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("op_type", GATES)
def test_half_precision_computes_in_float32(op_type: str, dtype: Any) -> None:
    args = arguments(op_type, random_inputs(op_type, 1), dtype)
    got = call(op_type, *args)
    wide = [v if v is None or v.dtype == np.int32 else v.astype(np.float32) for v in args]
    for one, other in zip(got, call(op_type, *wide), strict=True):
        assert one.dtype == dtype
        np.testing.assert_array_equal(one, other.astype(dtype))


def test_activations_take_their_parameters_in_turn() -> None:
    inputs = random_inputs("LSTM", 1)
    functions = (
        lambda v: np.clip(0.3 * v + 0.45, 0, 1),
        lambda v: np.where(v >= 0, v, 0.1 * v),
        lambda v: 0.7 * np.tanh(0.6 * v),
    )
    got = call(
        "LSTM",
        *arguments("LSTM", inputs, np.float64),
        activations=["HardSigmoid", "leakyrelu", "ScaledTanh"],
        activation_alpha=[0.3, 0.1, 0.7],
        activation_beta=[0.45, 0.6],
    )
    np.testing.assert_allclose(got[0], reference("LSTM", inputs, "forward", {"functions": functions})[0], atol=1e-12)


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("Relu", lambda v: np.maximum(v, 0)),
        ("Affine", lambda v: v),
        ("LeakyRelu", lambda v: np.where(v >= 0, v, 0.01 * v)),
        ("ThresholdedRelu", lambda v: np.where(v >= 1, v, 0)),
        ("HardSigmoid", lambda v: np.clip(0.2 * v + 0.5, 0, 1)),
        ("Elu", lambda v: np.where(v >= 0, v, np.exp(v) - 1)),
        ("Softsign", lambda v: v / (1 + np.abs(v))),
        ("Softplus", lambda v: np.log1p(np.exp(v))),
    ],
)
def test_default_parameters_of_activations(name: str, function: Callable[[Any], Any]) -> None:
    x = np.linspace(-3, 3, 7)[None, :, None]
    y, _ = call("RNN", x, np.ones((1, 1, 1)), np.zeros((1, 1, 1)), activations=[name])
    np.testing.assert_allclose(y.ravel(), function(x.ravel()), atol=1e-12)


def test_what_is_behind_a_sequence_does_not_matter() -> None:
    inputs = random_inputs("LSTM", 2, [2, 0, 5])
    inputs["x"][2:, 0] = np.nan
    y, h, c = call("LSTM", *arguments("LSTM", inputs, np.float32), direction="bidirectional")
    assert np.isfinite(y).all() and np.isfinite(h).all()
    assert not y[2:, :, 0].any() and not y[:, :, 1].any()
    assert not h[:, 1].any() and not c[:, 1].any()  # onnxruntime's state of an empty sequence


def test_no_steps_leave_the_state() -> None:
    x, h = np.zeros((0, B, I), np.float32), np.ones((1, B, H), np.float32)
    y, last = call("GRU", x, np.zeros((1, 3 * H, I), np.float32), np.zeros((1, 3 * H, H), np.float32), None, None, h)
    assert y.shape == (0, 1, B, H)
    np.testing.assert_array_equal(last, h)


@pytest.mark.parametrize(
    ("position", "shape"), [(0, (T, B, I + 1)), (0, (T, B)), (1, (1, 4 * H + 1, I)), (3, (1, H)), (5, (2, B, H))]
)
def test_wrong_shapes(position: int, shape: tuple[int, ...]) -> None:
    args = arguments("LSTM", random_inputs("LSTM", 1), np.float32)
    args[position] = np.zeros(shape, np.float32)
    with pytest.raises(InvalidInput):
        call("LSTM", *args)


@pytest.mark.parametrize(
    "wrong", [{"direction": "sideways"}, {"activations": ["Tanh"]}, {"activations": ["Wave"] * 3}, {"hidden_size": 9}]
)
def test_wrong_attributes(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        call("LSTM", *arguments("LSTM", random_inputs("LSTM", 1), np.float32), **wrong)


def test_lengths_beyond_the_steps_are_refused() -> None:
    args = arguments("RNN", random_inputs("RNN", 1, [5, 6, 1]), np.float32)
    with pytest.raises(InvalidInput, match="sequence_lens"):
        call("RNN", *args)
