"""`distort.compute_precision`: sessions whose products round their operands, where the processor can."""

from __future__ import annotations

import numpy as np
import onnx.parser
import pytest
from onnx import numpy_helper

import distort as onnxruntime
from distort.capi.onnxruntime_pybind11_state import InvalidArgument
from distort.capi.onnxruntime_pybind11_state import NotImplemented as NotImplementedStatus
from distort.graph import reader
from distort.kernels.compiler.choice import VARIABLE
from distort.kernels.compiler.codegen import gemm_bf16
from distort.kernels.compiler.codegen.target import host
from distort.parallel import stage_payloads
from distort.planning import plan_model

_HAS_TILES = gemm_bf16.has_bf16_tiles(host())
_RANDOM = np.random.default_rng(3)
_X, _W = (_RANDOM.standard_normal(shape, dtype=np.float32) for shape in ((17, 96), (96, 40)))


def model() -> onnx.ModelProto:
    made = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 21]> g (float[N,96] x) => (float[N,40] y) { y = MatMul (x, w) }'
    )
    made.graph.initializer.append(numpy_helper.from_array(_W, "w"))
    return made


def session(precision: str, parallel: bool = False) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    if parallel:
        options.execution_mode = onnxruntime.ExecutionMode.ORT_PARALLEL
    options.add_session_config_entry("distort.compute_precision", precision)
    return onnxruntime.InferenceSession(model().SerializeToString(), options)


@pytest.mark.skipif(not _HAS_TILES, reason="needs a processor with AMX")
def test_operands_are_rounded_from_the_first_run_on() -> None:
    exact = _X.astype(np.float64) @ _W
    scale = np.abs(_X).astype(np.float64) @ np.abs(_W)
    rounded, single = (session(precision).run(None, {"x": _X})[0] for precision in ("bf16", "float32"))
    assert np.max(np.abs(single - exact) / scale) < 1e-6
    error = np.max(np.abs(rounded - exact) / scale)
    assert 1e-5 < error < 2.0**-7  # each of two operands is off by 2^-9 at most


@pytest.mark.parametrize("parallel", [False, True])
def test_a_processor_without_the_instructions_is_told_when_the_session_is_made(
    monkeypatch: pytest.MonkeyPatch, parallel: bool
) -> None:
    monkeypatch.setattr(gemm_bf16, "has_bf16_tiles", lambda target: False)
    with pytest.raises(NotImplementedStatus, match=r"compute_precision=bf16 needs a processor with AMX"):
        session("bf16", parallel)
    session("float32", parallel).close()


def test_it_needs_the_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "0")
    with pytest.raises(InvalidArgument, match=r"is for compiled stages"):
        session("bf16")


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(InvalidArgument, match=r"wants float32 or bf16, got 'bfloat16'"):
        session("bfloat16")


def test_actors_are_told() -> None:
    loaded = reader.read_model(model())
    plan, graph = plan_model(loaded, 1)
    (payload,), _ = stage_payloads(graph, plan, {"compute_precision": "bf16", "stages": "1"})
    assert (payload.compute_precision, payload.compile) == ("bf16", "1")
