"""A decoder over two actors: its KV cache, bound by IOBinding, stays where it is; the loop is one for onnxruntime."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import distort

from . import real

pytestmark = pytest.mark.models
N_TOKENS = 64


@pytest.fixture(scope="module")
def decoder(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return real.materialize("llama_kv", tmp_path_factory.mktemp("decoder"))


def decode(runtime: ModuleType, session: Any, feeds: dict[str, np.ndarray], n_tokens: int) -> list[int]:
    """Greedily, every state bound to where it was made."""
    outputs = [output.name for output in session.get_outputs()]
    state = {name: runtime.OrtValue.ortvalue_from_numpy(feeds[name]) for name in feeds if name.startswith("past.")}
    ids, mask, position = feeds["input_ids"], feeds["attention_mask"], feeds["position_ids"]
    tokens: list[int] = []
    for _ in range(n_tokens):
        binding = session.io_binding()
        for name, value in (("input_ids", ids), ("attention_mask", mask), ("position_ids", position)):
            binding.bind_cpu_input(name, value)
        for name, value in state.items():
            binding.bind_ortvalue_input(name, value)
        for name in outputs:
            binding.bind_output(name, "cpu")
        session.run_with_iobinding(binding)
        found = dict(zip(outputs, binding.get_outputs(), strict=True))
        state = {name: found[name.replace("past.", "present.")] for name in state}
        tokens.append(int(found["logits"].numpy()[0, -1].argmax()))
        ids = np.array([[tokens[-1]]], ids.dtype)
        mask = np.concatenate([mask, np.ones((1, 1), mask.dtype)], axis=1)
        position = position[:, -1:] + 1
    return tokens


def crossed(session: distort.InferenceSession) -> dict[tuple[str, int, int], int]:
    return {(row["value"], row["producer"], row["consumer"]): row["nbytes"] for row in session.get_transfer_stats()}


def test_only_the_hidden_state_crosses(decoder: Path) -> None:
    feeds = real.load_arrays(decoder / "inputs.npz")
    path = str(decoder / "model.onnx")
    wanted = decode(distort, distort.InferenceSession(path), feeds, N_TOKENS)
    options = distort.SessionOptions()
    options.execution_mode = distort.ExecutionMode.ORT_PARALLEL
    options.inter_op_num_threads = 2
    options.intra_op_num_threads = 1
    options.add_session_config_entry("distort.start", "wait")
    with distort.InferenceSession(path, options) as session:
        assert decode(distort, session, feeds, N_TOKENS) == wanted
        total = crossed(session)
        plan = session.plan
    assert len(plan.stages) == 2
    cache = [name for stage in plan.stages for name in stage.inputs if name.startswith("past.")]
    assert cache, "the model has a cache"
    state_nbytes = sum(feeds[name].nbytes for name in cache)
    # the cache went out once, as it was fed first, and never came back
    assert sum(n for edge, n in total.items() if edge[0].startswith("past.") and edge[1] == -1) == state_nbytes
    assert not [edge for edge, n in total.items() if edge[0].startswith("present.") and n]
    # a token's hidden state, ids, masks and what is computed of them: far less than the cache. The caller fetches the
    # logits, which stay where they were made until then
    moved = sum(n for edge, n in total.items() if edge[0] not in ("logits", "(resident)", *cache))
    a_token = moved / N_TOKENS
    assert 0 < a_token < 16_384 < state_nbytes / 8


def test_the_same_loop_runs_on_onnxruntime(decoder: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    feeds = real.load_arrays(decoder / "inputs.npz")
    path = str(decoder / "model.onnx")
    rival = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert decode(onnxruntime, rival, feeds, 16) == decode(distort, distort.InferenceSession(path), feeds, 16)
