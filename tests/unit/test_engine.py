"""The engine: threads of sessions that differ, operators that nothing runs."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from threadpoolctl import threadpool_info

import distort as onnxruntime
from distort.capi.onnxruntime_pybind11_state import NotImplemented as NotImplementedStatus
from distort.engine import RunControl
from distort.kernels import registry

MODEL = (
    '<ir_version: 9, opset_import: ["" : 17]> product (float[2,2] x) => (float[2,2] y) { [lonely] y = MatMul (x, x) }'
)


def session(threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("distort.compile", "0")  # NumPy kernels are what the BLAS works for
    return onnxruntime.InferenceSession(onnx.parser.parse_model(MODEL).SerializeToString(), options)


def blas_threads() -> set[int]:
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}


def test_each_session_runs_with_its_own_threads() -> None:
    before = blas_threads()
    x = np.eye(2, dtype=np.float32)
    one, three, default = session(1), session(3), session(0)
    for opened, expected in ((one, {1}), (three, {3}), (default, before), (one, {1}), (default, before)):
        opened.run(None, {"x": x})
        assert blas_threads() == expected


@pytest.mark.parametrize("only_path", [False, True])
def test_a_run_that_began_here_ends_here(only_path: bool) -> None:
    """Actors may come between the two."""
    engine = session(0)._sess._loaded.engine
    x = np.eye(2, dtype=np.float32)
    control = RunControl(only_path_to_fetches=only_path)
    (wanted,) = engine.run(["y"], {"x": x}, control=control)
    finish = engine.begin(["y"], {"x": x}, control=control)
    engine._leave()
    np.testing.assert_array_equal(finish()[0], wanted)


@pytest.mark.parametrize("mode", ["ORT_SEQUENTIAL", "ORT_PARALLEL"])
def test_an_operator_without_a_kernel_is_named(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    find = registry.find
    monkeypatch.setattr(registry, "find", lambda domain, op, *rest: None if op == "MatMul" else find(domain, op, *rest))
    options = onnxruntime.SessionOptions()
    options.execution_mode = getattr(onnxruntime.ExecutionMode, mode)
    with pytest.raises(
        NotImplementedStatus, match=r": 9 : NOT_IMPLEMENTED : .*implementation for MatMul\(13\) node with name 'lonely'"
    ):
        onnxruntime.InferenceSession(onnx.parser.parse_model(MODEL).SerializeToString(), options)
