"""ONNX's backend interface, and the example models."""

from __future__ import annotations

import re
import unittest
from pathlib import Path

import numpy as np
import onnx
import pytest

import distort
import distort.backend as backend
from distort.backend.backend import OnnxRuntimeBackend

X = np.arange(1, 7, dtype=np.float32).reshape(3, 2)
WANTED = [[1, 4], [9, 16], [25, 36]]


def test_devices() -> None:
    assert backend.supports_device("CPU")
    assert not any(backend.supports_device(name) for name in ("cpu", "CPU:0", "TPU", ""))
    assert backend.is_compatible(None)
    with pytest.raises(TypeError):
        backend.supports_device(None)


def test_models_of_many_kinds(tmp_path: Path, mul: bytes) -> None:
    path = tmp_path / "mul.onnx"
    path.write_bytes(mul)
    session = distort.InferenceSession(mul)
    for source in (str(path), mul, onnx.load_from_string(mul), session, backend.prepare(mul)):
        prepared = backend.prepare(source, "CPU", intra_op_num_threads=0)
        for inputs in (X, [X]):
            assert prepared.run(inputs)[0].tolist() == WANTED
    assert backend.run(mul, X)[0].tolist() == WANTED


def test_options_that_the_backend_refuses(mul: bytes) -> None:
    with pytest.raises(RuntimeError, match="SessionOptions attribute 'enable_profiling' is not permitted"):
        backend.prepare(mul, enable_profiling=True)
    backend.prepare(mul, bogus=1)
    with pytest.raises(RuntimeError, match="RunOptions attribute 'terminate' is not permitted"):
        backend.prepare(mul).run(X, terminate=True)
    with pytest.raises(RuntimeError, match="Incompatible device expected 'TPU', got 'CPU'"):
        backend.prepare(mul, "TPU")


def test_inputs_that_do_not_fit(mul: bytes, model: object) -> None:
    with pytest.raises(IndexError):
        backend.prepare(mul).run([])
    two = model("add (float[2] a, float[2] b) => (float[2] y) { y = Add(a, b) }")  # type: ignore[operator]
    with pytest.raises(RuntimeError, match="Model expect 2 inputs"):
        backend.prepare(two).run(X)
    with pytest.raises(NotImplementedError, match="more efficient to run a whole model"):
        OnnxRuntimeBackend.run_node(None, None)


def test_unreleased_opsets_are_skipped(mul: bytes) -> None:
    proto = onnx.load_from_string(mul)
    assert OnnxRuntimeBackend.is_opset_supported(proto) == (True, "")
    proto.opset_import[0].version = 99
    with pytest.raises((unittest.SkipTest, onnx.checker.ValidationError), match=re.escape("99")):
        backend.prepare(proto)
    assert "Got Domain 'ai.onnx' version '99'." in OnnxRuntimeBackend.is_opset_supported(proto)[1]


def test_examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    from distort.datasets import get_example

    for name in ("mul_1.onnx", "sigmoid.onnx", "logreg_iris.onnx"):
        path = get_example(name)
        assert get_example(name) == path
        onnx.checker.check_model(path)
    assert distort.InferenceSession(get_example("mul_1.onnx")).run(None, {"X": X})[0].tolist() == WANTED
    x = np.linspace(-3, 3, 60, dtype=np.float32).reshape(3, 4, 5)
    np.testing.assert_allclose(
        distort.InferenceSession(get_example("sigmoid.onnx")).run(None, {"x": x})[0], 1 / (1 + np.exp(-x)), rtol=1e-6
    )
    with pytest.raises(FileNotFoundError, match=re.escape("Unable to find example 'nope.onnx'")):
        get_example("nope.onnx")


def test_the_flower_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    session = distort.InferenceSession(distort.datasets.get_example("logreg_iris.onnx"))
    assert [(arg.name, arg.type, arg.shape) for arg in session.get_outputs()] == [
        ("label", "tensor(int64)", [3]),
        ("probabilities", "seq(map(int64,tensor(float)))", []),
    ]
    flowers = np.array([[5.1, 3.5], [6.0, 2.7], [6.9, 3.1]], np.float32)
    label, probabilities = session.run(None, {"float_input": flowers})
    assert label.tolist() == [0, 1, 2]
    for row, wanted in zip(probabilities, label, strict=True):
        assert max(row, key=row.get) == wanted
        assert sum(row.values()) == pytest.approx(1)
        assert {type(key) for key in row} == {int} and {type(value) for value in row.values()} == {float}
