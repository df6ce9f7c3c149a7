"""GreedySearch and BeamSearch over a small decoder, against onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import distort

_V, _H, _D = 11, 2, 4


def _decoder(seed: int) -> onnx.GraphProto:
    """Logits from the sum of all embeddings so far, which the past keeps."""
    random = np.random.default_rng(seed)
    weights = {
        "table": random.normal(size=(_V, _H * _D)).astype(np.float32),
        "places": random.normal(size=(64, _H * _D)).astype(np.float32),
        "head": (random.normal(size=(_H * _D, _V)) * 1.5).astype(np.float32),
        "split": np.array([0, 0, _H, _D], np.int64),
        "joined": np.array([0, 0, _H * _D], np.int64),
        "first": np.array([0], np.int64),
        "axis3": np.array([3], np.int64),
        "two": np.array([2], np.int64),
    }
    node = helper.make_node
    nodes = [
        node("Gather", ["table", "input_ids"], ["words"]),
        node("Gather", ["places", "position_ids"], ["at"]),
        node("Add", ["words", "at"], ["x"]),
        node("Reshape", ["x", "split"], ["heads"]),
        node("Transpose", ["heads"], ["kv"], perm=[0, 2, 1, 3]),
        node("Unsqueeze", ["kv", "first"], ["one"]),
        node("Concat", ["one", "one"], ["new"], axis=0),
        node("Concat", ["past_0", "new"], ["present_0"], axis=3),
        node("Gather", ["present_0", "zero"], ["all"], axis=0),
        node("Cast", ["attention_mask"], ["seen"], to=1),
        node("Unsqueeze", ["seen", "axes13"], ["seen4"]),
        node("Mul", ["all", "seen4"], ["shown"]),
        node("ReduceMean", ["shown", "two"], ["mean"], keepdims=0),
        node("Reshape", ["mean", "flat"], ["row"]),
        node("Add", ["x", "row"], ["mixed"]),
        node("MatMul", ["mixed", "head"], ["logits"]),
    ]
    weights |= {
        "zero": np.array(0, np.int64),
        "axes13": np.array([1, 3], np.int64),
        "flat": np.array([0, 1, -1], np.int64),
    }
    ints = [
        helper.make_tensor_value_info("input_ids", TensorProto.INT32, ["b", "s"]),
        helper.make_tensor_value_info("position_ids", TensorProto.INT32, ["b", "s"]),
        helper.make_tensor_value_info("attention_mask", TensorProto.INT32, ["b", "t"]),
        helper.make_tensor_value_info("past_0", TensorProto.FLOAT, [2, "b", _H, "p", _D]),
    ]
    outputs = [
        helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["b", "s", _V]),
        helper.make_tensor_value_info("present_0", TensorProto.FLOAT, [2, "b", _H, "t", _D]),
    ]
    initializers = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    return helper.make_graph(nodes, "decoder", ints, outputs, initializers)


def search(
    op_type: str, inputs: list[Any], n_outputs: int, seed: int, **attributes: Any
) -> tuple[bytes, dict[str, Any]]:
    """A model of one search, and what it is fed."""
    names = ["" if value is None else f"x{i}" for i, value in enumerate(inputs)]
    node = helper.make_node(
        op_type, names, [f"y{i}" for i in range(n_outputs)], "search", domain="com.microsoft",
        decoder=_decoder(seed), eos_token_id=1, pad_token_id=0, **attributes,
    )  # fmt: skip
    feeds = {f"x{i}": value for i, value in enumerate(inputs) if value is not None}
    values = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
        for name, value in feeds.items()
    ]
    kinds = [TensorProto.INT32, TensorProto.FLOAT, TensorProto.FLOAT]
    outputs = [helper.make_tensor_value_info(f"y{i}", kinds[i], None) for i in range(n_outputs)]
    graph = helper.make_graph([node], "g", values, outputs)
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString(), feeds


def _compared(op_type: str, inputs: list[Any], n_outputs: int, seed: int, **attributes: Any) -> list[Any]:
    model, feeds = search(op_type, inputs, n_outputs, seed, **attributes)
    got = list(distort.InferenceSession(model).run(None, feeds))
    rival = pytest.importorskip("onnxruntime")
    want = rival.InferenceSession(model, providers=["CPUExecutionProvider"]).run(None, feeds)
    for ours, theirs in zip(got, want, strict=True):
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
        if op_type == "GreedySearch":  # what comes after the end of all is not initialized in onnxruntime's
            used = int(np.flatnonzero(ours.any(axis=0)).max()) + 1
            assert not ours[:, used:].any()
            ours, theirs = ours[:, :used], theirs[:, :used]
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)
    return got


def _i(*values: int) -> Any:
    return np.array(values, np.int32)


_PROMPTS = np.array([[5, 3, 7], [0, 2, 9]], np.int32)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("rules", ["none", "penalty", "masks", "ngram", "least"])
def test_greedy_search(seed: int, rules: str) -> None:
    inputs: list[Any] = [_PROMPTS, _i(12)]
    attributes: dict[str, Any] = {}
    if rules == "penalty":
        inputs += [None, np.array([1.8], np.float32)]
    elif rules == "masks":
        allowed = np.ones(_V, np.int32)
        allowed[[4, 6]] = 0
        prefix = np.ones((2, _V), np.int32)
        prefix[:, ::2] = 0
        inputs += [None, None, allowed, prefix]
    elif rules == "ngram":
        attributes["no_repeat_ngram_size"] = 2
    elif rules == "least":
        inputs += [_i(9)]
    _compared("GreedySearch", inputs, 1, seed, **attributes)


def test_greedy_search_with_a_mask() -> None:
    mask = np.array([[1, 1, 1], [0, 1, 1]], np.int32)
    _compared("GreedySearch", [_PROMPTS, _i(10), None, None, None, None, mask], 1, 2)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("early", [0, 1])
def test_beam_search(seed: int, beams: int, early: int) -> None:
    inputs = [_PROMPTS, _i(10), _i(1), _i(beams), _i(beams), np.array([0.8], np.float32)]
    _compared("BeamSearch", inputs, 2, seed, early_stopping=early)


def test_scores_of_a_beam_search() -> None:
    inputs = [_PROMPTS, _i(7), _i(7), _i(2), _i(1), np.array([1.0], np.float32), np.array([1.3], np.float32)]
    _compared("BeamSearch", inputs, 3, 1, no_repeat_ngram_size=2)
