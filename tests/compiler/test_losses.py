"""Losses, Hardmax, embedding layers and fused convolutions, compiled: what the NumPy kernels make."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import NodeProto, helper

from distort.engine import load_model
from distort.kernels.compiler.program import CompiledProgram
from distort.kernels.errors import KernelError
from tests.compiler.comparing import agree, both, model_of

Array = np.ndarray[Any, Any]
_MS = "com.microsoft"
_RNG = np.random.default_rng(0)


def numbers(*shape: int) -> Array:
    return _RNG.standard_normal(shape).astype(np.float32)


def check(one: NodeProto, feeds: dict[str, Array], weights: dict[str, Array] | None = None, rtol: float = 1e-5) -> None:
    fetch = [name for name in one.output if name]
    results, expected, kinds = both([one], feeds, weights or {}, fetch, 2)
    assert not any(kind.startswith("host") for kind in kinds), kinds
    agree(results, expected, rtol, rtol)


def refused(one: NodeProto, feeds: dict[str, Array], weights: dict[str, Array] | None = None) -> None:
    graph = load_model(model_of([one], feeds, weights or {}, [name for name in one.output if name])).graph
    with pytest.raises(KernelError):
        CompiledProgram(graph).run(feeds)


@pytest.mark.parametrize("op_type", ["NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss"])
@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
@pytest.mark.parametrize("weighted", [False, True])
def test_losses(op_type: str, reduction: str, weighted: bool) -> None:
    inputs = ["x", "t", "w"] if weighted else ["x", "t"]
    for shape in ((9, 33), (3, 5, 4, 7)):
        for dtype in (np.int32, np.int64):
            for ignored in ({}, {"ignore_index": 2}, {"ignore_index": -100}):
                target = _RNG.integers(0, shape[1], (shape[0], *shape[2:])).astype(dtype)
                if ignored:
                    target.reshape(-1)[::3] = ignored["ignore_index"]
                feeds = {"x": numbers(*shape), "t": target}
                if weighted:
                    feeds["w"] = np.abs(numbers(shape[1])) + np.float32(0.1)
                outputs = ["y", "z"] if op_type.startswith("Softmax") and weighted else ["y"]
                node = helper.make_node(op_type, inputs, outputs, reduction=reduction, **ignored)
                check(node, feeds)


@pytest.mark.parametrize("bad", [-1, 33, -34, -(1 << 31)])
@pytest.mark.parametrize("op_type", ["NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss"])
def test_classes_that_there_are_not(op_type: str, bad: int) -> None:
    target = _RNG.integers(0, 33, 9)
    target[4] = bad
    for ignored in ({}, {"ignore_index": 40}):
        refused(helper.make_node(op_type, ["x", "t"], ["y"], **ignored), {"x": numbers(9, 33), "t": target})


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_hardmax(axis: int) -> None:
    node = helper.make_node("Hardmax", ["x"], ["y"], axis=axis)
    check(node, {"x": _RNG.integers(0, 4, (5, 7, 33)).astype(np.float32)})
    check(node, {"x": np.where(numbers(5, 3, 9) > 1, np.float32(np.nan), numbers(5, 3, 9))})


@pytest.mark.parametrize("segments", [False, True])
@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize("places", [0, 1, 3])
def test_embed_layer_normalization(segments: bool, mask: bool, places: int) -> None:
    batch, steps, width = 3, 7, 40
    weights = {"words": numbers(50, width), "at": numbers(20, width), "gamma": numbers(width), "beta": numbers(width)}
    feeds: dict[str, Array] = {"ids": _RNG.integers(0, 50, (batch, steps)).astype(np.int32)}
    if segments:
        weights["of"] = numbers(2, width)
        feeds["segments"] = _RNG.integers(0, 2, (batch, steps)).astype(np.int32)
    if mask:
        feeds["mask"] = _RNG.integers(0, 3, (batch, steps)).astype(np.int32)
    if places:
        feeds["places"] = _RNG.integers(0, 20, (places, steps)).astype(np.int32)
    names = ["ids", "segments", "words", "at", "of", "gamma", "beta", "mask", "places"]
    inputs = [name if name in feeds or name in weights else "" for name in names]
    for outputs in (["y", "n"], ["y", "n", "total"], ["y", "", "total"]):
        check(helper.make_node("EmbedLayerNormalization", inputs, outputs, domain=_MS), feeds, weights)
    node = helper.make_node("EmbedLayerNormalization", inputs, ["y", "n"], domain=_MS)
    for name in feeds.keys() - {"mask"}:
        wrong = {**feeds, name: feeds[name].copy()}
        wrong[name][0, 3] = 50
        refused(node, wrong, weights)


_ACTIVATIONS: list[tuple[str, list[float]]] = [
    ("", []),
    ("Relu", []),
    ("Tanh", []),
    ("Sigmoid", []),
    ("LeakyRelu", []),
    ("LeakyRelu", [0.2]),
    ("Clip", [-0.5, 1.5]),
    ("HardSigmoid", [0.3, 0.4]),
]


@pytest.mark.parametrize(("activation", "given"), _ACTIVATIONS)
def test_fused_convolutions(activation: str, given: list[float]) -> None:
    more: dict[str, Any] = {"activation": activation} if activation else {}
    if given:
        more["activation_params"] = given
    for channels in (3, 32):
        feeds = {"x": numbers(2, channels, 9, 10)}
        w, bias = numbers(32, channels, 3, 3) / np.float32(10), numbers(32)
        for inputs in (["x", "w"], ["x", "w", "b"], ["x", "w", "b", "z"], ["x", "w", "", "z"]):
            node = helper.make_node("FusedConv", inputs, ["y"], domain=_MS, pads=[1, 1, 1, 1], **more)
            weights = {name: value for name, value in (("w", w), ("b", bias)) if name in inputs}
            check(node, {**feeds, "z": numbers(2, 32, 9, 10)} if "z" in inputs else feeds, weights, 1e-4)
    refused(helper.make_node("FusedConv", ["x", "w", "", "z"], ["y"], domain=_MS), {**feeds, "z": numbers(3)}, {"w": w})


def test_operators_that_the_standard_has_too() -> None:
    x, grid = numbers(1, 3, 6, 7), _RNG.uniform(-1, 1, (1, 4, 5, 2)).astype(np.float32)
    for mode in ("bilinear", "nearest", "bicubic"):
        check(helper.make_node("GridSample", ["x", "g"], ["y"], domain=_MS, mode=mode), {"x": x, "g": grid})
    check(helper.make_node("Trilu", ["x"], ["y"], domain=_MS, upper=0), {"x": x})
    places = {"i": _RNG.integers(0, 3, (4, 2))}
    check(helper.make_node("GatherND", ["x", "i"], ["y"], domain=_MS), {"x": numbers(3, 3, 5), **places})
