"""Weights of 4 and 8 bits by blocks, between DequantizeLinear and a product."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest

from distort.graph.reader import read_model
from distort.kernels.cuda import packed_weights, plans
from distort.kernels.cuda.options import CudaOptions
from distort.kernels.cuda.program import CudaProgram
from distort.kernels.program import Program

from .simulating import Array

RANDOM = np.random.default_rng(47)
_DEPTH, _COLUMNS, _BLOCK = 512, 160, 32


@pytest.fixture(autouse=True)
def errors_of_ours_are_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plans, "STRICT", True)


def _weights(dtype: str, axis: int, real: str, has_zeros: bool) -> dict[str, Array]:
    kind = np.dtype(getattr(ml_dtypes, dtype, None) or dtype)
    low = 0 if dtype.startswith("u") else -8
    shape, of_scales = [_DEPTH, _COLUMNS], [_DEPTH // _BLOCK, _COLUMNS]
    if axis == 1:
        shape.reverse()
        of_scales.reverse()
    made = {"w": RANDOM.integers(low, low + 16, shape).astype(np.int8).astype(kind)}
    made["s"] = RANDOM.uniform(0.05, 0.2, of_scales).astype(real)
    if has_zeros:
        made["z"] = RANDOM.integers(low, low + 16, of_scales).astype(np.int8).astype(kind)
    return made


def _program(text: str, real: str, weights: dict[str, Array]) -> CudaProgram:
    name = {"float32": "float"}.get(real, real)
    head = f'<ir_version: 10, opset_import: ["": 21]> g ({name}[B, {_DEPTH}] x) => ({name}[B, {_COLUMNS}] y)'
    model = onnx.parser.parse_model(f"{head} {{ {text} }}")
    model.graph.initializer.extend(onnx.numpy_helper.from_array(value, name) for name, value in weights.items())
    return CudaProgram(read_model(model).graph, CudaOptions(use_tf32=False))


def _check(program: CudaProgram, x: Array) -> list[str]:
    (y,) = program.run({"x": x})
    (want,) = Program(program.graph).run({"x": x})
    tolerance = 2e-2 if x.itemsize < 4 else 1e-4
    np.testing.assert_allclose(y.get().astype(np.float32), want.astype(np.float32), rtol=tolerance, atol=20 * tolerance)
    return [step.operation.kind for step in program.plans[-1][1].steps]


@pytest.mark.parametrize("has_zeros", [False, True])
@pytest.mark.parametrize("dtype", ["int4", "uint4", "int8", "uint8"])
@pytest.mark.parametrize("real", ["float32", "float16"])
@pytest.mark.parametrize("way", ["plain", "turned", "gemm"])
def test_products(fake_cuda_for_all: Any, way: str, real: str, dtype: str, has_zeros: bool) -> None:
    axis = 0 if way == "plain" else 1
    weights = _weights(dtype, axis, real, has_zeros)
    text = f"d = DequantizeLinear <axis = {axis}, block_size = {_BLOCK}> (w, s{', z' if has_zeros else ''})\n"
    text += {
        "plain": "y = MatMul (x, d)",
        "turned": "t = Transpose (d) \n y = MatMul (x, t)",
        "gemm": "y = Gemm <transB = 1> (x, d)",
    }[way]
    program = _program(text, real, weights)
    for n_rows, kinds in ((3, ["cuda_n_bits"]), (40, ["cuda_unpack", "cuda product"])):
        assert _check(program, RANDOM.standard_normal((n_rows, _DEPTH)).astype(real)) == kinds


def test_what_is_read_otherwise_too_is_dequantized_once(fake_cuda_for_all: Any) -> None:
    text = f"d = DequantizeLinear <axis = 0, block_size = {_BLOCK}> (w, s)\n"
    text += "m = MatMul (x, d) \n i = ReduceMean (d) \n y = Add (m, i)"
    kinds = _check(_program(text, "float32", _weights("int4", 0, "float32", False)), np.ones((2, _DEPTH), np.float32))
    assert "cuda_unpack" not in kinds and "cuda_n_bits" not in kinds


def test_small_weights_are_dequantized_once(fake_cuda_for_all: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed_weights, "LEAST_SIZE", 1 << 20)
    text = f"d = DequantizeLinear <axis = 0, block_size = {_BLOCK}> (w, s)\n y = MatMul (x, d)"
    kinds = _check(_program(text, "float32", _weights("int4", 0, "float32", False)), np.ones((2, _DEPTH), np.float32))
    assert kinds == ["cuda product"]
