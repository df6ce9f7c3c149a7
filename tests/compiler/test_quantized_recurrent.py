"""DynamicQuantizeLSTM, compiled, against the NumPy kernel."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from distort.engine import load_model
from distort.kernels.compiler.codegen.target import of_features
from distort.kernels.compiler.ir import Host
from distort.kernels.compiler.keys import Key
from distort.kernels.compiler.library import compile_text, module_text
from distort.kernels.compiler.lower import recurrent
from distort.kernels.compiler.program import CompiledProgram
from distort.kernels.program import Program


def model_of(
    steps: int, batch: int, size: int, hidden: int, n: int, by_column: bool, zero: int, bias: bool = True
) -> tuple[bytes, dict[str, np.ndarray[Any, Any]]]:
    """``zero``: the weights' zero point; uint8 where it is not 0."""
    rng = np.random.default_rng(steps * 100 + hidden)
    dtype = np.uint8 if zero else np.int8
    columns = 4 * hidden
    shape = (n, columns) if by_column else (n,)
    weights: dict[str, np.ndarray[Any, Any]] = {
        name: (rng.integers(-100, 100, (n, rows, columns)) + zero).astype(dtype)
        for name, rows in (("W", size), ("R", hidden))
    }
    if bias:
        weights["B"] = rng.uniform(-0.1, 0.1, (n, 2 * columns)).astype(np.float32)
    for name in ("W", "R"):
        weights[f"{name}_scale"] = (rng.uniform(0.5, 1.5, shape) * 0.01 * hidden**-0.5).astype(np.float32)
        weights[f"{name}_zero"] = np.full(shape, zero, dtype)
    feeds = {
        "X": rng.standard_normal((steps, batch, size)).astype(np.float32),
        "h0": (rng.standard_normal((n, batch, hidden)) / 2).astype(np.float32),
        "c0": (rng.standard_normal((n, batch, hidden)) / 2).astype(np.float32),
    }
    node = helper.make_node(
        "DynamicQuantizeLSTM",
        ["X", "W", "R", "B" if bias else "", "", "h0", "c0", "", "W_scale", "W_zero", "R_scale", "R_zero"],
        ["Y", "Y_h", "Y_c"],
        domain="com.microsoft",
        hidden_size=hidden,
        direction="bidirectional" if n == 2 else "forward",
    )
    graph = helper.make_graph(
        [node],
        "recurrent",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, value.shape) for name, value in feeds.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("Y", "Y_h", "Y_c")],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets).SerializeToString(), feeds


def check(model: bytes, feeds: dict[str, np.ndarray[Any, Any]], n_threads: int = 1) -> list[Any]:
    graph = load_model(model).graph
    program = CompiledProgram(graph, n_threads=n_threads)
    made = program.run(feeds)
    plan = program.prepare([(feeds[name].dtype, feeds[name].shape) for name in program.inputs])
    assert not any(isinstance(operation, Host) for operation in plan.operations)
    for ours, plain in zip(made, Program(graph).run(feeds), strict=True):
        np.testing.assert_allclose(ours, plain, rtol=1e-4, atol=2e-6)
    return made


@pytest.mark.parametrize(
    ("shape", "by_column", "zero"),
    [
        ((1, 1, 16, 32, 1), False, 0),
        ((4, 3, 11, 17, 2), True, 0),
        ((5, 7, 13, 33, 2), False, 128),
        ((3, 2, 4, 1, 1), True, 128),
    ],
)
def test_cells(shape: tuple[int, ...], by_column: bool, zero: int) -> None:
    check(*model_of(*shape, by_column, zero))


def test_without_bias() -> None:
    check(*model_of(3, 2, 8, 20, 2, False, 0, bias=False))


def test_constant_inputs_have_scale_one() -> None:
    model, feeds = model_of(2, 2, 8, 16, 1, False, 0)
    check(model, {name: np.zeros_like(value) for name, value in feeds.items()})


@pytest.mark.parametrize("directions", [1, 2])
def test_threads_change_nothing(directions: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recurrent, "LEAST_MEETING_NS", 0.0)
    monkeypatch.setattr("distort.kernels.compiler.specialise.LEAST_SHARED_NS", 0.0)
    model, feeds = model_of(10, 3, 12, 70, directions, False, 0)
    for a, b in zip(*(check(model, feeds, n_threads) for n_threads in (1, 3)), strict=True):
        np.testing.assert_array_equal(a, b)


CELL = ("LSTM", (2,), 2, (("sigmoid", 0.0, 0.0), ("tanh", 0.0, 0.0), ("tanh", 0.0, 0.0)), 0.0, True, True, ("bytes",))


@pytest.mark.parametrize(
    ("triple", "cpu", "features"),
    [
        ("aarch64-unknown-linux-gnu", "generic", {"neon": True, "dotprod": True}),
        ("aarch64-unknown-linux-gnu", "generic", {"neon": True}),
        ("x86_64-unknown-linux-gnu", "x86-64-v3", {"avx2": True, "fma": True, "avxvnni": True}),
        ("x86_64-unknown-linux-gnu", "x86-64-v3", {"avx2": True, "fma": True}),
        ("x86_64-unknown-linux-gnu", "x86-64-v2", {"sse4.2": True}),
    ],
)
def test_other_processors(triple: str, cpu: str, features: dict[str, bool]) -> None:
    target = of_features(triple, cpu, features)
    keys = [Key("recurrent_cell", CELL)]
    assert compile_text(module_text(keys, target), target)
