"""Sessions whose weights are read in the model's file: what they keep, and what happens to that file."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

import distort
from distort.engine import load_model
from distort.graph.tensors import file_of
from distort.kernels.compiler.ir import Place
from distort.kernels.compiler.program import CompiledProgram
from distort.kernels.errors import KernelError

from .comparing import model_of

X = np.random.default_rng(1).standard_normal((5, 256)).astype(np.float32)


def _model(seed: int) -> tuple[bytes, np.ndarray]:
    """A product with a weight that is packed, and one that is added as it is."""
    rng = np.random.default_rng(seed)
    w, bias = rng.standard_normal((256, 512)).astype(np.float32), rng.standard_normal((100, 5, 512)).astype(np.float32)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Add", ["h", "bias"], ["y"])]
    return model_of(nodes, {"x": X}, {"w": w, "bias": bias}, ["y"]), X @ w + bias


def _session(path: Path, **keys: str) -> distort.InferenceSession:
    options = distort.SessionOptions()
    for key, value in {"compile": "1", **keys}.items():
        options.add_session_config_entry(f"distort.{key}", value)
    return distort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def test_compiled_steps_have_copies(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    content, expected = _model(0)
    path.write_bytes(content)
    session = _session(path)
    program = session._sess._loaded.engine._program
    assert isinstance(program, CompiledProgram)
    weights = program._graph.initializers
    assert all(file_of(weights[name]) is not None for name in ("w", "bias"))
    np.testing.assert_allclose(session.run(None, {"x": X})[0], expected, rtol=1e-3, atol=1e-3)
    plan = program.prepare([(X.dtype, X.shape)])
    arrays = [t.buffer.array for op in plan.operations for t in op.inputs if t.buffer.place is Place.CONSTANT]
    assert arrays
    assert all(array is not None and file_of(array) is None for array in arrays)
    with open(path, "r+b") as file:  # what was compiled doesn't look at the file again
        file.truncate(0)
    np.testing.assert_allclose(session.run(None, {"x": X})[0], expected, rtol=1e-3, atol=1e-3)


def test_a_new_file_under_the_name_changes_nothing(tmp_path: Path) -> None:
    path, other = tmp_path / "m.onnx", tmp_path / "other.onnx"
    content, expected = _model(0)
    path.write_bytes(content)
    session = _session(path)
    other.write_bytes(_model(1)[0])
    os.replace(other, path)
    np.testing.assert_allclose(session.run(None, {"x": X})[0], expected, rtol=1e-3, atol=1e-3)


def test_a_file_that_was_written_over_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(_model(0)[0])
    program = CompiledProgram(load_model(str(path), map_weights=True).graph)
    path.write_bytes(_model(1)[0])
    os.utime(path, ns=(1, 1))
    with pytest.raises(KernelError, match="written over"):
        program.run({"x": X})


def test_weights_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    content, expected = _model(0)
    path.write_bytes(content)
    session = _session(path, map_weights="0")
    path.write_bytes(b"")
    np.testing.assert_allclose(session.run(None, {"x": X})[0], expected, rtol=1e-3, atol=1e-3)
