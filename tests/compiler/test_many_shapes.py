"""Runs of ever new shapes: kernels and packed weights are those of shapes before, and results the same to the bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from distort.engine import load_model
from distort.kernels.compiler import tiles
from distort.kernels.compiler.keys import Key
from distort.kernels.compiler.library import shared
from distort.kernels.compiler.program import OWN_PLANS, CompiledProgram
from distort.kernels.program import Program

from .comparing import agree, model_of

Array = np.ndarray[Any, Any]
WIDTHS = [21, 8, 40, 5, 33, 17, 64, 90, 29, 13, 7, 51, 3, 77, 26, 11, 100, 19]


def weight(*shape: int) -> Array:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32) * 0.2


def images(width: int) -> dict[str, Array]:
    return {"x": np.random.default_rng(width).standard_normal((1, 32, 6, width)).astype(np.float32)}


def network() -> CompiledProgram:
    nodes = [
        helper.make_node("Conv", ["x", "w0"], ["a"], pads=[1, 1, 1, 1], kernel_shape=[3, 3], dilations=[1, 1]),
        helper.make_node("Conv", ["a", "w1"], ["b"], kernel_shape=[1, 1]),
        helper.make_node("Conv", ["b", "w2"], ["c"], pads=[1, 1, 1, 1], kernel_shape=[3, 3], group=64),
        helper.make_node("MaxPool", ["c"], ["d"], kernel_shape=[2, 3], strides=[2, 1], pads=[0, 1, 0, 1]),
        helper.make_node("Conv", ["d", "w3"], ["y"], pads=[0, 2, 0, 2], kernel_shape=[1, 5], strides=[1, 2]),
    ]
    weights = {"w0": weight(64, 32, 3, 3), "w1": weight(64, 64, 1, 1), "w2": weight(64, 1, 3, 3)}
    weights["w3"] = weight(48, 64, 1, 5)
    return CompiledProgram(load_model(model_of(nodes, images(9), weights, ["y"])).graph)


def keys_of(program: CompiledProgram, feeds: dict[str, Array]) -> set[Key]:
    plan = program.prepare([(value.dtype, value.shape) for value in feeds.values()])
    return {step.call.key for step in plan.steps if step.call is not None}


def test_convolutions_of_many_widths_share_weights_and_bits() -> None:
    program = network()
    for width in WIDTHS:
        alone = network()
        (mine,), (best,) = program.run(images(width)), alone.run(images(width))
        np.testing.assert_array_equal(mine.view(np.int32), best.view(np.int32), err_msg=f"width {width}")
    packings = {key: made for key, made in program._constants._made.items() if key[0] == "packings"}
    assert packings
    assert max(map(len, packings.values())) <= max(OWN_PLANS, tiles.MOST_PACKINGS)


def test_few_kernels_do_for_all_widths() -> None:
    program, alike, best = network(), set(), set()
    for width in range(2, 120):
        alike |= keys_of(program, images(width))
    for width in range(2, 120):
        best |= keys_of(network(), images(width))
    assert len(alike) < 0.75 * len(best)


@pytest.mark.parametrize("known", [set(), {1}, {2}, {1, 4}])
@pytest.mark.parametrize("width", [1, 2, 5, 9, 30, 77])
def test_tiles_stay_within_registers_and_rows(known: set[int], width: int) -> None:
    target = shared().target
    pixels, blocks = tiles._register_tile(4, width, target, known=known)
    assert 4 % blocks == 0
    assert 1 <= pixels <= width
    assert pixels * blocks < target.n_vector_registers


def looping(n: int) -> tuple[list[Any], dict[str, Array], dict[str, Array]]:
    """As many rounds as the feed has rows."""
    body = helper.make_graph(
        [
            helper.make_node("Add", ["sum", "step"], ["sum_out"]),
            helper.make_node("Identity", ["going"], ["going_out"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("round", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("sum", TensorProto.FLOAT, [4]),
        ],
        [
            helper.make_tensor_value_info("going_out", TensorProto.BOOL, []),
            helper.make_tensor_value_info("sum_out", TensorProto.FLOAT, [4]),
        ],
    )
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "zero"], ["n"]),
        helper.make_node("ReduceMax", ["x", "first"], ["step"], keepdims=0),
        helper.make_node("Loop", ["n", "", "start"], ["y"], body=body),
    ]
    feeds = {"x": np.random.default_rng(n).standard_normal((n, 4)).astype(np.float32)}
    return nodes, feeds, {"zero": np.array(0), "first": np.array([0]), "start": np.zeros(4, np.float32)}


def scaled(n: int) -> tuple[list[Any], dict[str, Array], dict[str, Array]]:
    """Divided by the square root of a length."""
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "zero"], ["n"]),
        helper.make_node("Cast", ["n"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("Sqrt", ["real"], ["root"]),
        helper.make_node("Div", ["x", "root"], ["scaled"]),
        helper.make_node("Softmax", ["scaled"], ["likely"], axis=1),
        helper.make_node("Mul", ["likely", "root"], ["y"]),
    ]
    feeds = {"x": np.random.default_rng(n).standard_normal((5, n)).astype(np.float32)}
    return nodes, feeds, {"zero": np.array(1)}


def loss_of(n: int) -> tuple[list[Any], dict[str, Array], dict[str, Array]]:
    """A mean over as many as there are."""
    nodes = [helper.make_node("NegativeLogLikelihoodLoss", ["x", "target"], ["y"])]
    rng = np.random.default_rng(n)
    feeds = {"x": rng.standard_normal((n, 4)).astype(np.float32), "target": rng.integers(0, 4, n)}
    return nodes, feeds, {}


def rows_that_end(n: int) -> tuple[list[Any], dict[str, Array], dict[str, Array]]:
    """A layer over ``n`` steps, of which the run says how many each row has."""
    nodes = [helper.make_node("RNN", ["x", "w", "r", "", "lengths"], ["y"], hidden_size=8)]
    rng = np.random.default_rng(n)
    feeds = {"x": rng.standard_normal((n, 2, 4)).astype(np.float32), "lengths": np.array([n, n - 3], np.int32)}
    return nodes, feeds, {"w": weight(1, 8, 4), "r": weight(1, 8, 8)}


@pytest.mark.parametrize("make", [looping, scaled, loss_of, rows_that_end])
def test_numbers_that_follow_from_lengths_are_no_part_of_kernels(make: Callable[..., Any]) -> None:
    nodes, feeds, weights = make(16)
    graph = load_model(model_of(nodes, feeds, weights, ["y"])).graph
    program, plain = CompiledProgram(graph), Program(graph)
    seen: set[Key] = set()
    for round_number, n in enumerate([16, 17, 32, 64, 48, 33, 100]):
        feeds = make(n)[1]
        agree(program.run(feeds), plain.run(feeds), rtol=1e-5, atol=1e-5)
        keys = keys_of(program, feeds)
        if round_number >= 3:  # the first shows a number, the second another one
            assert keys <= seen
        seen |= keys
