"""Nodes that CuPy can't run for their types or attributes run on the CPU, in sessions on a GPU."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx.parser
import pytest

import distort
from distort.kernels.cuda import libraries

from ..differential.test_contrib_generation import search

SCATTER = 'y = ScatterElements <reduction = "mul"> (x, i, x)'
LABELS = """labels = ai.onnx.ml.LabelEncoder <keys_int64s = [0, 1], values_strings = ["no", "yes"]> (i)
    back = ai.onnx.ml.LabelEncoder <keys_strings = ["no", "yes"], values_int64s = [7, 8]> (labels)
    y = Cast <to = 1> (back)"""


def _session(body: str, feeds: Mapping[str, Any], providers: list[str]) -> Any:
    kinds = {"float32": "float", "int64": "int64"}
    inputs = ", ".join(f"{kinds[a.dtype.name]}[{','.join(map(str, a.shape))}] {name}" for name, a in feeds.items())
    head = '<ir_version: 10, opset_import: ["": 21, "ai.onnx.ml": 2]>'
    model = onnx.parser.parse_model(f"{head} g ({inputs}) => (float[N] y) {{ {body} }}")
    return distort.InferenceSession(model.SerializeToString(), providers=providers)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param("e = Exp(x) s = Cast <to = 19> (e) y = Cast <to = 1> (s)", id="8-bit floats"),
        pytest.param("e = Exp(x) s = Cast <to = 8> (e) y = Cast <to = 1> (s)", id="text"),
        pytest.param(SCATTER, id="a reduction"),
        pytest.param(LABELS, id="labels"),
        pytest.param("a = Cast <to = 22> (i) b = Transpose (a) y = Cast <to = 1> (b)", id="4-bit integers"),
    ],
)
def test_as_on_the_cpu(body: str, fake_cuda: Any) -> None:
    feeds = {"x": np.array([0.5, -1.25, 3.0], np.float32), "i": np.array([0, 1, 1])}
    [want] = _session(body, feeds, ["CPUExecutionProvider"]).run(None, feeds)
    session = _session(body, feeds, ["CUDAExecutionProvider", "CPUExecutionProvider"])
    assert session.get_providers()[0] == "CUDAExecutionProvider"
    [got] = session.run(None, feeds)
    assert got.dtype == want.dtype
    np.testing.assert_allclose(got, want, rtol=1e-6)


@pytest.mark.parametrize("op_type", ["GreedySearch", "BeamSearch"])
def test_searches_and_their_decoders(op_type: str, fake_cuda: Any) -> None:
    """An operator with a body that is the CPU's: so is the body, and what it captures."""
    inputs = [np.array([[5, 3, 7], [0, 2, 9]], np.int32), np.array([10], np.int32), np.array([1], np.int32)]
    if op_type == "BeamSearch":
        inputs += [np.array([2], np.int32), np.array([1], np.int32)]
    model, feeds = search(op_type, inputs, 1, 0)
    [want] = distort.InferenceSession(model, providers=["CPUExecutionProvider"]).run(None, feeds)
    session = distort.InferenceSession(model, providers=["CUDAExecutionProvider"])
    assert session.get_providers()[0] == "CUDAExecutionProvider"
    for _ in range(3):
        [got] = session.run(None, feeds)
        np.testing.assert_array_equal(got, want)
    assert "words are chosen on the host" in session.explain()


SPECTRA = {
    # compiled where it is shorter
    "DFT": ("DFT <axis = 1> (x)", (1, 4096, 1), "cufft"),
    "Inverse": ("com.microsoft.Inverse (x)", (3, 3), "cusolver"),
    "Det": ("Det (x)", (3, 3), "cusolver"),
}


@pytest.mark.parametrize("is_there", [True, False])
@pytest.mark.parametrize("op_type", SPECTRA)
def test_what_cupy_lacks_a_library_for_is_the_cpus(
    op_type: str, is_there: bool, fake_cuda: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """cuFFT and cuSOLVER are larger than all else, and the extras bring neither."""
    call, shape, library = SPECTRA[op_type]
    head = '<ir_version: 10, opset_import: ["": 17, "com.microsoft": 1]>'
    sizes = ",".join(map(str, shape))
    model = onnx.parser.parse_model(f"{head} g (float[{sizes}] x) => (float y) {{ y = {call} }}")
    model.graph.output[0].type.tensor_type.ClearField("shape")
    if not is_there:
        monkeypatch.setattr(importlib.import_module("cuda.pathfinder"), "libraries", set())
        libraries.forget()
    feeds = {"x": np.random.default_rng(0).standard_normal(shape, np.float32)}
    session, plain = (
        distort.InferenceSession(model.SerializeToString(), providers=[f"{name}ExecutionProvider"])
        for name in ("CUDA", "CPU")
    )
    for _ in range(2):
        np.testing.assert_allclose(
            session.run(None, feeds)[0], plain.run(None, feeds)[0], rtol=1e-4, atol=1e-5, strict=True
        )
    told = f"lib{library}, which CuPy calls for it, isn't installed"
    assert (told in session.explain()) is not is_there
