"""LSTM, GRU and RNN, compiled, against the NumPy kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from distort.engine import load_model
from distort.kernels.compiler.codegen.target import of_features
from distort.kernels.compiler.ir import Host
from distort.kernels.compiler.keys import Key
from distort.kernels.compiler.library import compile_text, module_text
from distort.kernels.compiler.lower import recurrent
from distort.kernels.compiler.program import CompiledProgram
from distort.kernels.errors import KernelError
from distort.kernels.program import Program

N_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def model_of(
    op: str, steps: int, batch: int, size: int, hidden: int, n: int = 1, **attributes: Any
) -> tuple[bytes, dict[str, np.ndarray[Any, Any]]]:
    """One recurrent node. ``bias``, ``initial``, ``peepholes``: whether it has them."""
    rng = np.random.default_rng(steps * 1000 + hidden)
    has = {name: attributes.pop(name, name != "peepholes") for name in ("bias", "initial", "peepholes")}
    gates, scale = N_GATES[op], hidden**-0.5
    shapes = {"W": (n, gates * hidden, size), "R": (n, gates * hidden, hidden)}
    if has["bias"]:
        shapes["B"] = (n, 2 * gates * hidden)
    if has["peepholes"]:
        shapes["P"] = (n, 3 * hidden)
    weights = {name: rng.uniform(-scale, scale, shape).astype(np.float32) for name, shape in shapes.items()}
    first = bool(attributes.get("layout"))
    feeds = {"X": rng.standard_normal((batch, steps, size) if first else (steps, batch, size)).astype(np.float32)}
    names = ["X", "W", "R", "B" if has["bias"] else "", ""]
    for state in ("h0", "c0")[: 2 if op == "LSTM" else 1]:
        names.append(state if has["initial"] else "")
        if has["initial"]:
            shape = (batch, n, hidden) if first else (n, batch, hidden)
            feeds[state] = (rng.standard_normal(shape) / 2).astype(np.float32)
    if has["peepholes"]:
        names.append("P")
    outputs = ["Y", "Y_h", "Y_c"][: 3 if op == "LSTM" else 2]
    attributes.setdefault("direction", "bidirectional" if n == 2 else "forward")
    graph = helper.make_graph(
        [helper.make_node(op, names, outputs, hidden_size=hidden, **attributes)],
        "recurrent",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, value.shape) for name, value in feeds.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString(), feeds


def check(model: bytes, feeds: dict[str, np.ndarray[Any, Any]], n_threads: int = 1) -> list[Any]:
    graph = load_model(model).graph
    program = CompiledProgram(graph, n_threads=n_threads)
    made = program.run(feeds)
    plan = program.prepare([(feeds[name].dtype, feeds[name].shape) for name in program.inputs])
    assert not any(isinstance(operation, Host) for operation in plan.operations)
    for ours, plain in zip(made, Program(graph).run(feeds), strict=True):
        np.testing.assert_allclose(ours, plain, rtol=1e-4, atol=2e-6)
    return made


@pytest.mark.parametrize("op", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize(
    ("shape", "attributes"),
    [
        ((1, 1, 16, 32), {}),
        ((5, 3, 7, 20, 2), {}),
        ((4, 9, 10, 17), {"bias": False, "initial": False}),
        ((6, 2, 5, 33), {"direction": "reverse", "clip": 0.3}),
        ((3, 4, 8, 48, 2), {"layout": 1}),
        ((1, 11, 3, 1), {}),
    ],
)
def test_cells(op: str, shape: tuple[int, ...], attributes: dict[str, Any]) -> None:
    check(*model_of(op, *shape, **attributes))


@pytest.mark.parametrize(
    ("op", "attributes"),
    [
        ("GRU", {"linear_before_reset": 1}),
        ("GRU", {"linear_before_reset": 1, "bias": False}),
        ("LSTM", {"peepholes": True, "clip": 0.4}),
        ("LSTM", {"input_forget": 1}),
        ("LSTM", {"activations": ["HardSigmoid", "Relu", "Softsign"], "activation_alpha": [0.3]}),
        ("GRU", {"activations": ["Sigmoid", "ScaledTanh"], "activation_alpha": [0.9], "activation_beta": [0.5]}),
        ("RNN", {"activations": ["LeakyRelu"], "activation_alpha": [0.2]}),
        ("RNN", {"activations": ["ThresholdedRelu"]}),
        ("RNN", {"activations": ["Affine"], "activation_alpha": [0.5], "activation_beta": [0.1]}),
    ],
)
def test_variants(op: str, attributes: dict[str, Any]) -> None:
    check(*model_of(op, 4, 2, 6, 19, **attributes))


@pytest.mark.parametrize("op", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize(
    "attributes",
    [{}, {"n": 2}, {"direction": "reverse"}, {"n": 2, "layout": 1}, {"initial": False}, {"peepholes": True}],
)
@pytest.mark.parametrize("n_threads", [1, 2])
def test_rows_that_end_earlier(op: str, attributes: dict[str, Any], n_threads: int) -> None:
    if op != "LSTM" and "peepholes" in attributes:
        attributes = {"linear_before_reset": 1} if op == "GRU" else {}
    model, feeds = model_of(op, 6, 5, 7, 19, **attributes)
    proto = onnx.load_from_string(model)
    proto.graph.node[0].input[4] = "lengths"
    proto.graph.input.append(helper.make_tensor_value_info("lengths", TensorProto.INT32, [5]))
    model = proto.SerializeToString()
    for lengths in ([6, 1, 4, 0, 3], [6] * 5, [0] * 5):
        check(model, {**feeds, "lengths": np.array(lengths, np.int32)}, n_threads)
    for wrong in (7, -1):
        with pytest.raises(KernelError):
            CompiledProgram(load_model(model).graph).run({**feeds, "lengths": np.array([6, 1, wrong, 0, 3], np.int32)})


@pytest.mark.parametrize("op", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("batch", [1, 3, 9])
def test_threads_change_nothing(op: str, directions: int, batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither where they take directions or rows, nor where they share the blocks of a step and meet after it."""
    monkeypatch.setattr(recurrent, "LEAST_MEETING_NS", 0.0)
    monkeypatch.setattr("distort.kernels.compiler.specialise.LEAST_SHARED_NS", 0.0)
    model, feeds = model_of(op, 6, batch, 12, 72, directions)
    one, three = (check(model, feeds, n_threads) for n_threads in (1, 3))
    for a, b in zip(one, three, strict=True):
        np.testing.assert_array_equal(a, b)


def test_nan_and_infinity_spread_as_they_do_in_numpy() -> None:
    model, feeds = model_of("LSTM", 3, 3, 4, 16)
    feeds["X"][1, 0, 0] = np.nan
    feeds["X"][1, 1, 0] = np.inf
    check(model, feeds)


CELL = ("LSTM", (3, 2), 2, (("sigmoid", 0.0, 0.0), ("tanh", 0.0, 0.0), ("tanh", 0.0, 0.0)), 0.5, True, True, ())


@pytest.mark.parametrize(
    ("triple", "cpu", "features"),
    [
        ("aarch64-unknown-linux-gnu", "generic", {"neon": True}),
        ("x86_64-unknown-linux-gnu", "x86-64-v3", {"avx2": True, "fma": True}),
        ("x86_64-unknown-linux-gnu", "x86-64-v2", {"sse4.2": True}),
    ],
)
def test_other_processors(triple: str, cpu: str, features: dict[str, bool]) -> None:
    target = of_features(triple, cpu, features)
    keys = [Key("recurrent_cell", CELL), Key("recurrent_inputs", (4, 2))]
    assert compile_text(module_text(keys, target), target)
