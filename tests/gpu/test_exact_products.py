"""Products that are none to the user are not rounded, though ``use_tf32`` lets those of MatMul be."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx.helper as make
import pytest

import distort

N_FEATURES, N_VECTORS = 5, 7
RNG = np.random.default_rng(3)


def _floats(*shape: int) -> list[float]:
    return [float(value) for value in RNG.standard_normal(shape).reshape(-1)]


NODES = {
    "MatMul": make.make_node("MatMul", ["x", "w"], ["y"]),
    "DFT": make.make_node("DFT", ["x3"], ["y"], axis=1),
    "LinearRegressor": make.make_node(
        "LinearRegressor", ["x"], ["y"], domain="ai.onnx.ml", coefficients=_floats(N_FEATURES), intercepts=[0.25]
    ),
    "SVMRegressor": make.make_node(
        "SVMRegressor",
        ["x"],
        ["y"],
        domain="ai.onnx.ml",
        kernel_type="RBF",
        kernel_params=[0.3, 0.0, 0.0],
        n_supports=N_VECTORS,
        support_vectors=_floats(N_VECTORS, N_FEATURES),
        coefficients=_floats(N_VECTORS),
        rho=[0.5],
    ),
}


@pytest.mark.parametrize("name", NODES)
def test_only_products_of_the_users_are_rounded(name: str, fake_cuda: Any) -> None:
    node = NODES[name]
    nodes, shape = [node], [4, N_FEATURES]
    if name == "DFT":
        shape3 = make.make_node("Unsqueeze", ["x", "last"], ["x3"])
        nodes = [shape3, node]
    weights = [
        onnx.numpy_helper.from_array(RNG.standard_normal((N_FEATURES, 3)).astype(np.float32), "w"),
        onnx.numpy_helper.from_array(np.array([-1]), "last"),
    ]
    used = {value for each in nodes for value in each.input}
    graph = make.make_graph(
        nodes,
        "g",
        [make.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)],
        [make.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
        [weight for weight in weights if weight.name in used],
    )
    opsets = [make.make_opsetid("", 17), make.make_opsetid("ai.onnx.ml", 3)]
    model = make.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString()
    x = np.random.default_rng(4).standard_normal(shape, np.float32)
    on_gpu, on_cpu = (
        distort.InferenceSession(model, providers=[f"{provider}ExecutionProvider"]).run(None, {"x": x})[0]
        for provider in ("CUDA", "CPU")
    )
    assert np.allclose(on_gpu, on_cpu, rtol=1e-5, atol=1e-5) is (name != "MatMul")
