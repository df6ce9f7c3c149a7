"""Adapters in runs: parameters in place of initializers that are inputs."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import onnx
import pytest

import distort
from distort.capi import onnxruntime_pybind11_state as C

MODEL = onnx.parser.parse_model(
    '<ir_version: 8, opset_import: ["" : 17]> g (float[2] x, float[2] w = {1, 2}) => (float[2] y) { y = Add (x, w) }'
).SerializeToString()
X = np.zeros(2, np.float32)


@pytest.fixture
def session() -> distort.InferenceSession:
    options = distort.SessionOptions()
    options.log_severity_level = 3
    return distort.InferenceSession(MODEL, options)


def _adapter(tmp_path: Path, **parameters: np.ndarray) -> distort.LoraAdapter:
    file = distort.AdapterFormat()
    file.set_parameters({name: distort.OrtValue.ortvalue_from_numpy(array) for name, array in parameters.items()})
    file.export_adapter(tmp_path / "a.onnx_adapter")
    adapter = distort.LoraAdapter()
    adapter.Load(str(tmp_path / "a.onnx_adapter"))
    return adapter


def _options(*adapters: distort.LoraAdapter) -> distort.RunOptions:
    options = distort.RunOptions()
    for adapter in adapters:
        options.add_active_adapter(adapter)
    return options


def test_every_kind_of_run(session: distort.InferenceSession, tmp_path: Path) -> None:
    options = _options(_adapter(tmp_path, w=np.array([10, 20], np.float32)), distort.LoraAdapter())
    assert session.run(None, {"x": X})[0].tolist() == [1, 2]
    assert session.run(None, {"x": X}, options)[0].tolist() == [10, 20]
    assert session.run(None, {"x": X, "w": X}, options)[0].tolist() == [10, 20]  # the adapter goes before a feed
    x = distort.OrtValue.ortvalue_from_numpy(X)
    assert session.run_with_ort_values(None, {"x": x}, options)[0].numpy().tolist() == [10, 20]
    binding = session.io_binding()
    binding.bind_cpu_input("x", X)
    binding.bind_output("y")
    session.run_with_iobinding(binding, options)
    assert binding.copy_outputs_to_cpu()[0].tolist() == [10, 20]
    done = threading.Event()
    got: list[object] = []

    def callback(results: list[np.ndarray], user_data: object, error: str) -> None:
        got.extend((results[0].tolist(), error))
        done.set()

    session.run_async(None, {"x": X}, callback, None, options)
    assert done.wait(10)
    assert got == [[10, 20], ""]


def test_the_first_of_several(session: distort.InferenceSession, tmp_path: Path) -> None:
    first = _adapter(tmp_path, w=np.array([3, 4], np.float32))
    second = _adapter(tmp_path, w=np.array([5, 6], np.float32))
    assert session.run(None, {"x": X}, _options(first, second))[0].tolist() == [3, 4]


def test_parameters_are_checked_as_feeds_are(session: distort.InferenceSession, tmp_path: Path) -> None:
    for parameters, text in (
        ({"k": X}, "Invalid input name: k"),
        ({"w": np.zeros(2)}, "Unexpected input data type"),
        ({"w": np.zeros(3, np.float32)}, "Got invalid dimensions for input: w"),
    ):
        with pytest.raises(C.InvalidArgument, match=text):
            session.run(None, {"x": X}, _options(_adapter(tmp_path, **parameters)))
    with pytest.raises(ValueError, match="Required inputs"):
        session.run(None, {}, _options(_adapter(tmp_path, x=X)))
    with pytest.raises(TypeError, match="incompatible function arguments"):
        distort.RunOptions().add_active_adapter({})  # type: ignore[arg-type]  # that is the point
