"""DFT as a product, and AffineGrid, on a GPU against the NumPy kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx.parser
import pytest

from distort.graph.reader import read_model
from distort.kernels.cuda import plans
from distort.kernels.cuda.options import CudaOptions
from distort.kernels.cuda.program import CudaProgram
from distort.kernels.program import Program

from .graphs import check
from .simulating import WAYS

RANDOM = np.random.default_rng(59)


@pytest.mark.parametrize(
    ("shape", "constants", "operands", "attributes"),
    [
        ((2, 10, 1), "", "x", "onesided = 1"),
        ((2, 10, 2), "", "x", "inverse = 0"),
        ((2, 10, 2), "", "x", "inverse = 1"),
        ((2, 6, 2), "", "x", "inverse = 1, onesided = 1"),
        ((2, 6, 4, 1), "int64 n = {9}, int64 a = {1}", "x, n, a", "onesided = 1"),
        ((2, 6, 4, 2), "int64 n = {4}, int64 a = {-3}", "x, n, a", "inverse = 0"),
        ((2, 2, 6, 2), "int64 a = {0}", "x, , a", "inverse = 0"),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_transforms(
    fake_cuda_for_all: Any,
    monkeypatch: pytest.MonkeyPatch,
    shape: tuple[int, ...],
    constants: str,
    operands: str,
    attributes: str,
    dtype: str,
) -> None:
    monkeypatch.setattr(plans, "STRICT", True)
    kind = {"float32": "float", "float64": "double"}[dtype]
    head = f'<ir_version: 10, opset_import: ["": 20]> g ({kind}[{",".join(map(str, shape))}] x) => ({kind}[] y)'
    text = f"{head} {f'<{constants}>' if constants else ''} {{ y = DFT <{attributes}> ({operands}) }}"
    program = CudaProgram(read_model(onnx.parser.parse_model(text)).graph, CudaOptions(use_tf32=False))
    x = RANDOM.standard_normal(shape).astype(dtype)
    (y,) = program.run({"x": x})
    (want,) = Program(program.graph).run({"x": x})
    assert (y.shape, y.dtype) == (want.shape, want.dtype)
    np.testing.assert_allclose(y.get(), want, rtol=1e-4, atol=1e-5)
    kinds = [step.operation.kind for step in program.plans[-1][1].steps]
    assert "cuda product" in kinds and "host" not in kinds


@pytest.mark.parametrize("align", [0, 1])
@pytest.mark.parametrize("size", [(3, 4), (2, 3, 4), (1, 5, 2)])
def test_grids_of_two_and_three_axes(size: tuple[int, ...], align: int) -> None:
    rank = len(size)
    theta = RANDOM.standard_normal((2, rank, rank + 1)).astype(np.float32)
    shape = ", ".join(map(str, (2, 3, *size)))
    text = f"(float y) <int64[{rank + 2}] s = {{{shape}}}> {{ y = AffineGrid <align_corners = {align}> (t, s) }}"
    operations = check(text, {"t": theta}, opset=20, ways=WAYS[1:2], atol=1e-5)
    assert {operation.kind for operation in operations} == {"map"}
