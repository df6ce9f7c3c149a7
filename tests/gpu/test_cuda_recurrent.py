"""LSTM, GRU and RNN on a GPU of the fake, against the NumPy kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import helper

from distort.engine import load_model
from distort.kernels.compiler.codegen.gates import Activation
from distort.kernels.cuda.operations import CudaCells
from distort.kernels.cuda.options import CudaOptions
from distort.kernels.cuda.program import CudaProgram
from distort.kernels.errors import KernelError
from distort.kernels.program import Program

from .lowered import model_of
from .simulating import WAYS, Memory, run_all, view

Array = np.ndarray[Any, Any]
_N_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
_OUTPUTS = {"LSTM": ["y", "h", "c"], "GRU": ["y", "h"], "RNN": ["y", "h"]}


def case(
    kind: str,
    *,
    steps: int = 3,
    batch: int = 2,
    size: int = 5,
    hidden: int = 6,
    dtype: Any = np.float32,
    given: str = "bias",
    as_weights: bool = True,
    **attributes: Any,
) -> tuple[bytes, dict[str, Array]]:
    """A model of one node with its feeds. ``given``: which optional inputs there are."""
    rng, n = np.random.default_rng(0), _N_GATES[kind]
    d, first = 2 if attributes.get("direction") == "bidirectional" else 1, attributes.get("layout", 0)

    def some(*shape: int) -> Array:
        return rng.normal(size=shape).astype(dtype) * np.asarray(0.7, dtype)

    state = (batch, d, hidden) if first else (d, batch, hidden)
    makers: dict[str, Any] = {
        "x": lambda: some(*((batch, steps) if first else (steps, batch)), size),
        "w": lambda: some(d, n * hidden, size),
        "r": lambda: some(d, n * hidden, hidden),
        "bias": lambda: some(d, 2 * n * hidden),
        "lengths": lambda: np.resize(np.array([steps - 1, steps, 0], np.int32), batch),
        "h0": lambda: some(*state),
        "c0": lambda: some(*state),
        "peepholes": lambda: some(d, 3 * hidden),
    }
    names = {"x", "w", "r", *given.split()}
    values = {name: make() for name, make in makers.items() if name in names}
    order = [*makers][: 8 if kind == "LSTM" else 6]
    node = helper.make_node(
        kind, [n if n in values else "" for n in order], _OUTPUTS[kind], hidden_size=hidden, **attributes
    )
    weights = ("w", "r", "bias", "peepholes") if as_weights else ()
    feeds = {name: value for name, value in values.items() if name not in weights}
    return model_of([node], feeds, {n: v for n, v in values.items() if n in weights}, _OUTPUTS[kind]), feeds


_UNLIKE = ["HardSigmoid", "Softsign", "ScaledTanh", "Sigmoid", "Elu", "Softplus"]
CASES: list[tuple[str, dict[str, Any]]] = [
    ("LSTM", {}),
    ("LSTM", {"direction": "bidirectional", "given": "bias h0 c0", "hidden": 8}),
    ("LSTM", {"direction": "reverse", "given": "bias lengths", "batch": 3}),
    ("LSTM", {"direction": "bidirectional", "given": "bias lengths h0 c0 peepholes", "batch": 3, "clip": 0.4}),
    ("LSTM", {"given": "peepholes", "input_forget": 1, "layout": 1, "batch": 5}),
    ("LSTM", {"given": "bias c0", "dtype": np.float64, "steps": 1}),
    ("LSTM", {"given": "bias h0", "dtype": np.float16}),
    ("LSTM", {"given": "bias", "as_weights": False}),
    ("LSTM", {"batch": 10, "given": "bias h0 c0 lengths", "direction": "bidirectional", "layout": 1}),
    ("LSTM", {"direction": "bidirectional", "activations": _UNLIKE}),
    ("GRU", {}),
    ("GRU", {"linear_before_reset": 1, "direction": "bidirectional", "given": "bias h0"}),
    ("GRU", {"given": "bias lengths h0", "batch": 3, "clip": 0.3}),
    ("GRU", {"linear_before_reset": 1, "as_weights": False, "layout": 1}),
    ("GRU", {"batch": 9, "given": "bias h0 lengths", "direction": "reverse"}),
    ("GRU", {"batch": 9, "linear_before_reset": 1}),
    ("GRU", {"activations": ["Affine", "ThresholdedRelu"], "activation_alpha": [0.3, 0.1], "activation_beta": [0.2]}),
    ("RNN", {}),
    ("RNN", {"direction": "bidirectional", "activations": ["Relu", "LeakyRelu"], "given": "bias h0", "layout": 1}),
    ("RNN", {"batch": 9, "given": "lengths", "clip": 0.5}),
]


@pytest.mark.parametrize(("kind", "options"), CASES, ids=[f"{i}-{kind}" for i, (kind, _) in enumerate(CASES)])
def test_as_the_plain_kernels(fake_cuda: Any, kind: str, options: dict[str, Any]) -> None:
    model, feeds = case(kind, **options)
    graph = load_model(model).graph
    program = CudaProgram(graph, CudaOptions(use_tf32=False))
    expected = Program(graph).run(feeds)
    tolerance = 3e-3 if options.get("dtype") is np.float16 else 1e-5
    for _ in range(4):  # then as a graph
        for got, want in zip(program.run(feeds), expected, strict=True):
            assert (got.dtype, got.shape) == (want.dtype, want.shape)
            np.testing.assert_allclose(got.get(), want, tolerance, tolerance)
    ((_, plan),) = program.plans
    assert plan.is_capturable and not program.refused
    assert program.n_graph_runs > 0


@pytest.mark.parametrize("per_column", [False, True])
@pytest.mark.parametrize(("direction", "batch"), [("bidirectional", 3), ("reverse", 10)])
def test_weights_of_8_bits(fake_cuda: Any, per_column: bool, direction: str, batch: int) -> None:
    rng, n, steps, size, hidden = np.random.default_rng(3), 2 if direction == "bidirectional" else 1, 4, 6, 8
    shape = (n, 4 * hidden) if per_column else (n,)
    feeds = {
        "x": rng.normal(size=(steps, batch, size)).astype(np.float32),
        "h0": rng.normal(size=(n, batch, hidden)).astype(np.float32),
    }
    weights: dict[str, Array] = {"b": rng.normal(size=(n, 8 * hidden)).astype(np.float32)}
    for name, length in (("w", size), ("r", hidden)):
        weights[name] = rng.integers(-128, 128, (n, length, 4 * hidden)).astype(np.int8)
        weights[f"{name}_scale"] = rng.uniform(0.001, 0.004, shape).astype(np.float32)
        weights[f"{name}_zero"] = rng.integers(-9, 9, shape).astype(np.int8)
    names = ["x", "w", "r", "b", "", "h0", "", "", "w_scale", "w_zero", "r_scale", "r_zero"]
    node = helper.make_node(
        "DynamicQuantizeLSTM",
        names,
        _OUTPUTS["LSTM"],
        domain="com.microsoft",
        direction=direction,
        hidden_size=hidden,
    )
    graph = load_model(model_of([node], feeds, weights, _OUTPUTS["LSTM"])).graph
    program = CudaProgram(graph)
    expected = Program(graph).run(feeds)
    for _ in range(4):
        for got, want in zip(program.run(feeds), expected, strict=True):
            assert (got.dtype, got.shape) == (want.dtype, want.shape)
            np.testing.assert_allclose(got.get(), want, 1e-4, 1e-4)
    assert program.n_graph_runs


def test_lengths_that_cannot_be_are_refused(fake_cuda: Any) -> None:
    model, feeds = case("LSTM", given="lengths")
    program = CudaProgram(load_model(model).graph)
    program.run(feeds)
    with pytest.raises(KernelError, match=r"sequence_lens must lie in 0\.\.3"):
        program.run(feeds | {"lengths": np.array([4, 0], np.int32)})


def test_a_layer_of_few_rows_is_a_launch_a_step(fake_cuda: Any) -> None:
    model, feeds = case("GRU", steps=7, linear_before_reset=1, direction="bidirectional")
    program = CudaProgram(load_model(model).graph)
    program.run(feeds)
    ((_, plan),) = program.plans
    kinds = {step.operation.kind: len(step.launches) for step in plan.steps}
    assert kinds == {"cuda product": 0, "cuda_cells": 7}  # the bias is the product's


@pytest.mark.parametrize(("kind", "batch"), [("LSTM", 3), ("GRU", 6), ("RNN", 1)])
@pytest.mark.parametrize("hidden", [8, 5])
def test_kernels_whatever_the_grid(kind: str, batch: int, hidden: int) -> None:
    n_steps, size = 3, 4
    n = _N_GATES[kind]
    model, feeds = case(
        kind, batch=batch, hidden=hidden, steps=n_steps, size=size, direction="bidirectional", given="h0 lengths"
    )
    graph = load_model(model).graph
    w, r, x = graph.initializers["w"], graph.initializers["r"], feeds["x"]
    expected = Program(graph).run(feeds)
    gates = np.einsum("tbi,dgi->tbdg", x, w).reshape(n_steps, batch, 2, n, hidden)
    state = np.full((2, batch, hidden), np.nan, np.float32)
    arrays = {
        "gates": np.ascontiguousarray(gates, np.float32),
        "r": np.asarray(r),
        "h0": feeds["h0"],
        "lengths": feeds["lengths"],
    }
    if kind == "LSTM":
        arrays["c0"] = np.zeros_like(state)
    reads = list(arrays)
    arrays |= {"h": state, "states": np.stack([state, state]), "y": np.full((n_steps, *state.shape), np.nan, "f")}
    arrays["y"] = np.full((n_steps, 2, batch, hidden), np.nan, np.float32)
    if kind == "LSTM":
        arrays["c"] = state.copy()
    if kind == "GRU":
        arrays["inner"] = np.stack([state, state])
    tensors = {name: view(array) for name, array in arrays.items()}
    names = {"LSTM": "sigmoid tanh tanh", "GRU": "sigmoid tanh", "RNN": "tanh"}[kind].split()
    operation = CudaCells(
        [tensors[name] for name in reads],
        [tensor for name, tensor in tensors.items() if name not in reads],
        tuple(tensors),
        kind,
        ("gates", "hidden") if kind == "GRU" else ("whole",),
        (False, True),
        (tuple([Activation(name, 0.0, 0.0) for name in names]),) * 2,
        *(n_steps, 0, n_steps),
    )
    for way in WAYS:
        memory = Memory()
        run_all([operation], memory, way)
        assert not memory.error.any()
        for name, want in zip(("y", "h", "c"), expected, strict=False):
            np.testing.assert_allclose(memory.view(tensors[name]), want, 1e-5, 1e-5)
