"""The product of a sparse matrix: against a dense one, and against onnxruntime where it is installed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import helper

import distort

M, K, N = 5, 7, 3


def _model(trans_a: int, trans_b: int, alpha: float) -> bytes:
    node = helper.make_node("SparseToDenseMatMul", ["A", "B"], ["Y"], domain="com.microsoft", name="product")
    for name, value in (("transA", trans_a), ("transB", trans_b), ("alpha", alpha)):
        node.attribute.append(helper.make_attribute(name, value))
    # without sizes: onnxruntime's shape inference takes no note of the transpositions
    a, b = helper.make_sparse_tensor_type_proto(1, ["a", "b"]), helper.make_tensor_type_proto(1, ["c", "d"])
    inputs = [helper.make_value_info("A", a), helper.make_value_info("B", b)]
    graph = helper.make_graph([node], "g", inputs, [helper.make_tensor_value_info("Y", 1, [M, N])])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()


def _forms(module: Any, dense: np.ndarray) -> list[Any]:
    """The matrix as coordinates and as compressed rows."""
    cpu = module.OrtDevice.make("cpu", 0)
    rows, columns = np.nonzero(dense)
    values = dense[rows, columns]
    places = np.stack((rows, columns), axis=1).astype(np.int64)
    starts = np.searchsorted(rows, np.arange(dense.shape[0] + 1)).astype(np.int64)
    made = (
        module.SparseTensor.sparse_coo_from_numpy(list(dense.shape), values, places, cpu),
        module.SparseTensor.sparse_csr_from_numpy(list(dense.shape), values, columns.astype(np.int64), starts, cpu),
    )
    return [module.OrtValue.ort_value_from_sparse_tensor(tensor) for tensor in made]


def _modules() -> list[Any]:
    try:
        import onnxruntime
    except ImportError:
        return [distort]
    return [distort, onnxruntime]


@pytest.mark.parametrize("module", _modules(), ids=lambda module: module.__name__)
@pytest.mark.parametrize(("trans_a", "trans_b", "alpha"), [(0, 0, 1.0), (0, 1, 0.5), (1, 0, 2.0), (1, 1, -1.0)])
def test_products(module: Any, trans_a: int, trans_b: int, alpha: float) -> None:
    rng = np.random.default_rng(3)
    dense = rng.normal(size=(K, M) if trans_a else (M, K)).astype(np.float32)
    dense[rng.random(dense.shape) < 0.6] = 0
    dense[1] = 0
    b = rng.normal(size=(N, K) if trans_b else (K, N)).astype(np.float32)
    want = alpha * (dense.T if trans_a else dense) @ (b.T if trans_b else b)
    session = module.InferenceSession(_model(trans_a, trans_b, alpha))
    for a in _forms(module, dense):
        (y,) = session.run(None, {"A": a, "B": b})
        np.testing.assert_allclose(y, want, rtol=1e-5, atol=1e-6)


def test_a_matrix_of_zeros_and_one_that_does_not_fit() -> None:
    session = distort.InferenceSession(_model(0, 0, 1.0))
    coordinates, _ = _forms(distort, np.zeros((M, K), np.float32))
    assert not session.run(None, {"A": coordinates, "B": np.ones((K, N), np.float32)})[0].any()
    with pytest.raises(distort.capi.onnxruntime_pybind11_state.InvalidArgument, match="received a tensor"):
        session.run(None, {"A": np.zeros((M, K), np.float32), "B": np.ones((K, N), np.float32)})
