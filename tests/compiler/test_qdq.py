"""Models between QuantizeLinear and DequantizeLinear: products are done on bytes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import NodeProto, helper

import distort as onnxruntime
from distort.engine import load_model, optimize
from distort.kernels.compiler.ir import Host
from distort.kernels.compiler.program import CompiledProgram
from distort.kernels.program import Program
from tests.compiler.comparing import model_of

Array = np.ndarray[Any, Any]
_SHAPES = {
    "Conv": ((1, 10, 17, 17), (20, 10, 3, 3), 0, {"pads": [1, 1, 1, 1]}),
    "MatMul": ((2, 9, 70), (70, 33), 1, {}),
    "Gemm": ((9, 70), (33, 70), 0, {"transB": 1}),
}


def model(kind: str, by_filter: bool) -> tuple[list[NodeProto], dict[str, Array], dict[str, Array]]:
    rng = np.random.default_rng(0)
    x_shape, w_shape, axis, attributes = _SHAPES[kind]
    n = w_shape[axis]
    w_scale = rng.uniform(0.001, 0.01, n).astype(np.float32) if by_filter else np.array(0.005, np.float32)
    x_scale = np.array(0.02, np.float32)
    weights = {
        "w": rng.integers(-127, 128, w_shape).astype(np.int8),
        "ws": w_scale,
        "wz": np.zeros(w_scale.shape, np.int8),
        "xs": x_scale,
        "xz": np.array(120, np.uint8),
        "b": rng.integers(-3000, 3000, n).astype(np.int32),
        "bs": (x_scale * w_scale).astype(np.float32),
        "ys": np.array(0.3, np.float32),
        "yz": np.array(100, np.uint8),
    }
    inputs = ["real", "weights"] if kind == "MatMul" else ["real", "weights", "bias"]
    nodes = [
        helper.make_node("DequantizeLinear", ["x", "xs", "xz"], ["real"]),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["weights"], axis=axis),
        helper.make_node("DequantizeLinear", ["b", "bs"], ["bias"], axis=0),
        helper.make_node(kind, inputs, ["sums"], **attributes),
        helper.make_node("Relu", ["sums"], ["positive"]),
        helper.make_node("QuantizeLinear", ["positive", "ys", "yz"], ["y"]),
    ]
    if kind == "MatMul":
        del nodes[2]
    return nodes, {"x": rng.integers(0, 256, x_shape).astype(np.uint8)}, weights


@pytest.mark.parametrize("kind", list(_SHAPES))
@pytest.mark.parametrize("by_filter", [False, True])
@pytest.mark.parametrize("fetch", ["y", "positive", "real"])
def test_products_of_bytes(kind: str, by_filter: bool, fetch: str) -> None:
    nodes, feeds, weights = model(kind, by_filter)
    wanted = tuple({"y": None, fetch: None})
    loaded = load_model(model_of(nodes, feeds, weights, wanted))
    optimize(loaded, "all")
    program = CompiledProgram(loaded.graph)
    plan = program.prepare([(feeds["x"].dtype, feeds["x"].shape)])
    kinds = [operation.kind for operation in plan.operations]
    assert not any(isinstance(operation, Host) for operation in plan.operations)
    assert sum(kind.startswith("quantized") for kind in kinds) == 1
    for result, expected in zip(program.run(feeds), Program(loaded.graph).run(feeds), strict=True):
        if expected.dtype == np.uint8:  # a tie may be rounded the other way
            difference = np.abs(result.astype(int) - expected.astype(int))
            assert difference.max() <= 1 and difference.mean() < 1e-2
        else:
            np.testing.assert_allclose(result, expected, 1e-5, 1e-4)


def test_what_bytes_do_not_do_is_done_in_float32() -> None:
    nodes, feeds, weights = model("Gemm", by_filter=True)
    nodes[3] = helper.make_node("Gemm", ["real", "weights", "bias"], ["sums"], transB=1, alpha=0.5)
    graph = load_model(model_of(nodes, feeds, weights, ("y",))).graph
    program = CompiledProgram(graph)
    plan = program.prepare([(feeds["x"].dtype, feeds["x"].shape)])
    assert "product" in [operation.kind for operation in plan.operations]
    (result,), (expected,) = program.run(feeds), Program(graph).run(feeds)
    assert np.abs(result.astype(int) - expected.astype(int)).max() <= 1


@pytest.mark.parametrize("kind", list(_SHAPES))
def test_sessions_may_keep_to_floating_point(kind: str) -> None:
    nodes, feeds, weights = model(kind, by_filter=True)
    content = model_of(nodes, feeds, weights, ("y",))
    results = {}
    for keeps in ("0", "1"):
        options = onnxruntime.SessionOptions()
        options.add_session_config_entry("session.disable_quant_qdq", keeps)
        opened = onnxruntime.InferenceSession(content, options)
        (results[keeps],) = opened.run(None, feeds)
        ((_, plan),) = opened._sess._loaded.engine.compiled.plans
        on_bytes = any(operation.kind.startswith("quantized") for operation in plan.operations)
        assert on_bytes == (keeps == "0")
    assert np.abs(results["0"].astype(int) - results["1"].astype(int)).max() <= 1
