"""Convolutional operators compiled, against the NumPy kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distort.graph.ir import Graph, Node
from distort.kernels.compiler import tiles
from distort.kernels.compiler.blocked import Geometry
from distort.kernels.compiler.codegen.target import of_features
from distort.kernels.compiler.expression import identity
from distort.kernels.compiler.ir import Host
from distort.kernels.compiler.keys import Key
from distort.kernels.compiler.library import compile_text, module_text
from distort.kernels.compiler.program import CompiledProgram
from distort.kernels.program import Program

from .guarding import guarded

RNG = np.random.default_rng(7)


def node(op_type: str, inputs: str, outputs: str, **attributes: Any) -> Node:
    return Node(op_type, "", inputs.split(), outputs.split(), attributes=attributes, opset=17)


def check(nodes: list[Node], feeds: dict[str, Any], constants: dict[str, Any], n_threads: int = 2) -> None:
    """Same results from both programs, and no step for a NumPy kernel."""
    outputs = [nodes[-1].outputs[0]]
    graph = Graph(nodes=nodes, inputs=list(feeds), outputs=outputs, initializers=constants)
    (expected,) = Program(graph).run(feeds)
    program = CompiledProgram(graph, n_threads=n_threads)
    plan = program.prepare([(v.dtype, v.shape) for v in feeds.values()])
    hosted = [op.node.op_type for op in plan.operations if isinstance(op, Host)]
    assert not hosted
    with guarded() as room:
        (got,) = program.run(feeds, room=room)
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)
    (alone,) = CompiledProgram(graph, n_threads=1).run(feeds)
    assert np.array_equal(alone, got, equal_nan=True)


def normal(*shape: int) -> Any:
    return RNG.standard_normal(shape).astype(np.float32)


CONVOLUTIONS = {
    # x, w, attributes
    "pointwise": ((1, 32, 9, 11), (48, 32, 1, 1), {}),
    "pointwise of odd channels": ((2, 20, 7, 7), (40, 20, 1, 1), {}),
    "3 x 3": ((1, 32, 14, 13), (64, 32, 3, 3), {"pads": [1, 1, 1, 1]}),
    "strided": ((1, 16, 15, 17), (32, 16, 3, 3), {"pads": [1, 1, 1, 1], "strides": [2, 2]}),
    "first layer": ((2, 3, 30, 29), (24, 3, 7, 7), {"pads": [3, 3, 3, 3], "strides": [2, 2]}),
    "one channel, no padding": ((1, 1, 12, 12), (8, 1, 3, 3), {}),
    "dilated": ((1, 16, 20, 20), (16, 16, 3, 3), {"pads": [2, 2, 2, 2], "dilations": [2, 2]}),
    "uneven padding": ((1, 16, 8, 9), (16, 16, 2, 4), {"pads": [1, 2, 0, 3]}),
    "same upper": ((1, 16, 10, 9), (16, 16, 3, 2), {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    "to one": ((2, 24, 10, 32), (1, 24, 3, 3), {"pads": [1, 1, 1, 1]}),
    "to three, odd rows": ((1, 32, 9, 45), (3, 32, 5, 5), {"pads": [2, 2, 2, 2]}),
    "to two, strided, dilated": ((1, 5, 9, 90), (2, 5, 3, 5), {"strides": [1, 2], "dilations": [2, 3]}),
    "filter": ((1, 1, 1000), (1, 1, 64), {"strides": [2]}),
    "pointwise, strided": ((1, 32, 9, 12), (48, 32, 1, 1), {"strides": [2, 2]}),
    "pointwise, strided, padded for nothing": ((2, 16, 7), (16, 16, 1), {"strides": [2], "pads": [0, 1]}),
    "pointwise, strided, an image padded": ((2, 32, 8, 7), (16, 32, 1, 1), {"strides": [3, 2], "pads": [0, 0, 1, 1]}),
    "transformed": ((2, 64, 29, 31), (48, 64, 3, 3), {"pads": [1, 0, 1, 1]}),
    "transformed, large weights": ((1, 256, 6, 9), (256, 256, 3, 3), {"pads": [1, 1, 1, 1]}),
    "transformed, odd channels": ((1, 40, 20, 2), (24, 40, 3, 3), {"pads": [1, 1, 1, 1]}),
    "one row": ((1, 40, 50), (24, 40, 5), {"pads": [2, 2]}),
    "causal": ((2, 16, 40), (16, 16, 3), {"pads": [8, 0], "dilations": [4]}),
    "high": ((1, 16, 17, 13), (16, 16, 5, 1), {"pads": [2, 0, 1, 0], "dilations": [2, 1]}),
    "far apart": ((1, 16, 20, 21), (16, 16, 3, 3), {"pads": [9] * 4, "dilations": [9, 9]}),
    "tall": ((1, 16, 40, 1), (16, 16, 5, 1), {"pads": [2, 0, 2, 0]}),
    "tall depthwise": ((1, 32, 40, 1), (32, 1, 5, 1), {"group": 32, "pads": [2, 0, 2, 0], "strides": [2, 1]}),
    "one pixel": ((1, 64, 1, 1), (24, 64, 1, 1), {}),
    "whole groups": ((1, 64, 8, 8), (64, 32, 3, 3), {"group": 2, "pads": [1, 1, 1, 1]}),
    "small groups": ((1, 64, 8, 8), (64, 4, 3, 3), {"group": 16, "pads": [1, 1, 1, 1]}),
    "groups within blocks": ((1, 72, 9, 8), (72, 24, 3, 3), {"group": 3, "pads": [1, 1, 1, 1], "strides": [2, 1]}),
    "wide groups within blocks": ((2, 120, 7, 7), (60, 40, 1, 1), {"group": 3}),
    "groups that end within blocks": ((1, 100, 6, 20), (140, 20, 3, 3), {"group": 5, "pads": [1, 1, 1, 1]}),
    "odd groups": ((1, 12, 8, 8), (18, 4, 3, 3), {"group": 3, "pads": [1, 1, 1, 1]}),
    "depthwise": ((1, 32, 14, 15), (32, 1, 3, 3), {"group": 32, "pads": [1, 1, 1, 1]}),
    "depthwise of odd channels": ((2, 24, 23, 37), (24, 1, 5, 5), {"group": 24, "pads": [2, 2, 2, 2]}),
    "depthwise, strided": ((1, 32, 29, 30), (32, 1, 3, 3), {"group": 32, "pads": [1, 1, 1, 1], "strides": [2, 2]}),
    "depthwise, strided by row": ((1, 16, 12, 40), (16, 1, 5, 5), {"group": 16, "pads": [2] * 4, "strides": [2, 1]}),
    "depthwise, small": ((1, 16, 3, 2), (16, 1, 5, 5), {"group": 16, "pads": [2, 2, 2, 2]}),
    "depthwise, long": ((1, 32, 70), (32, 1, 31), {"group": 32, "pads": [15, 15]}),
    "depthwise, dilated": ((1, 16, 25, 25), (16, 1, 3, 3), {"group": 16, "pads": [6] * 4, "dilations": [6, 6]}),
    "depthwise, none padded": ((1, 16, 25, 25), (16, 1, 3, 3), {"group": 16}),
    "multiplied depthwise": ((1, 16, 9, 9), (32, 1, 3, 3), {"group": 16, "pads": [1, 1, 1, 1]}),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolution(name: str) -> None:
    shape, weights, attributes = CONVOLUTIONS[name]
    check(
        [node("Conv", "x w b", "t", **attributes), node("Relu", "t", "y")],
        {"x": normal(*shape)},
        {"w": normal(*weights), "b": normal(weights[0])},
    )


def test_few_channels_between() -> None:
    """What has one channel and is in no blocks is read as it is."""
    nodes = [
        node("Conv", "x w1 b1", "a", pads=[1] * 4),
        node("Sigmoid", "a", "b"),
        node("Mul", "b x2", "c"),
        node("Conv", "c w2", "d", pads=[3] * 4),
        node("Conv", "d w3", "e", pads=[1] * 4),
        node("Relu", "e", "f"),
        node("Conv", "f w4", "y", pads=[1] * 4),
    ]
    constants = {
        "w1": normal(1, 32, 3, 3),
        "b1": normal(1),
        "w2": normal(32, 1, 7, 7),
        "w3": normal(4, 32, 3, 3) * 0.1,
        "w4": normal(6, 4, 3, 3),
    }
    check(nodes, {"x": normal(1, 32, 17, 43), "x2": normal(1, 1, 17, 43)}, constants)


def test_halves() -> None:
    x, w, b = (normal(*shape).astype(np.float16) for shape in ((1, 24, 9, 9), (16, 24, 3, 3), (16,)))
    graph = Graph(nodes=[node("Conv", "x w b", "y")], inputs=["x"], outputs=["y"], initializers={"w": w, "b": b})
    (expected,) = Program(graph).run({"x": x})
    (got,) = CompiledProgram(graph).run({"x": x})
    assert got.dtype == np.float16
    np.testing.assert_allclose(got.astype(np.float32), expected.astype(np.float32), rtol=2e-3, atol=2e-2)


@pytest.mark.parametrize("keepdims", [0, 1])
def test_mean_of_pixels(keepdims: int) -> None:
    nodes = [node("Conv", "x w", "a"), node("ReduceMean", "a", "y", axes=[2, 3], keepdims=keepdims)]
    check(nodes, {"x": normal(2, 16, 7, 6)}, {"w": normal(24, 16, 1, 1)})


TRANSPOSED = {
    "2 x 2": ((1, 24, 7, 9), (24, 16, 2, 2), {"strides": [2, 2]}),
    "3 x 3": ((2, 16, 6, 5), (16, 20, 3, 3), {"strides": [2, 2], "pads": [1] * 4, "output_padding": [1, 1]}),
    "4 x 4": ((1, 16, 6, 5), (16, 16, 4, 4), {"strides": [2, 2], "pads": [1] * 4}),
    "not strided": ((1, 16, 6, 5), (16, 16, 3, 3), {"pads": [1] * 4}),
    "sparse": ((1, 16, 6, 5), (16, 16, 2, 2), {"strides": [3, 3], "output_padding": [1, 1]}),
    "one row": ((1, 16, 30), (16, 8, 16), {"strides": [8], "pads": [4, 4]}),
    "by channel": ((1, 16, 5, 5), (16, 1, 4, 4), {"strides": [2, 2], "pads": [1] * 4, "group": 16}),
    "to one": ((1, 24, 8, 8), (24, 1, 2, 2), {"strides": [2, 2]}),
    "cropped": ((1, 20, 5, 8), (20, 16, 2, 3), {"strides": [2, 3], "pads": [1] * 4}),
    "to two": ((2, 24, 5, 7), (24, 2, 2, 3), {"strides": [2, 3]}),
    "dilated": ((1, 16, 7, 9), (16, 20, 3, 3), {"dilations": [2, 2], "pads": [2] * 4}),
    "dilated as strided": ((1, 20, 6, 5), (20, 16, 3, 2), {"strides": [2, 2], "dilations": [2, 2], "pads": [1] * 4}),
    "dilated, strided": ((2, 16, 6, 5), (16, 16, 3, 4), {"strides": [2, 3], "dilations": [3, 2], "pads": [3, 4, 1, 2]}),
    "dilated row": ((1, 16, 20), (16, 4, 5), {"strides": [4], "dilations": [6], "output_padding": [2]}),
    "dilated, by channel": ((1, 32, 5, 5), (32, 1, 2, 2), {"strides": [2, 1], "dilations": [2, 3], "group": 32}),
}


@pytest.mark.parametrize("name", TRANSPOSED)
def test_transposed_convolution(name: str) -> None:
    shape, weights, attributes = TRANSPOSED[name]
    outputs = weights[1] * attributes.get("group", 1)
    check(
        [node("ConvTranspose", "x w b", "t", **attributes), node("Relu", "t", "y")],
        {"x": normal(*shape)},
        {"w": normal(*weights), "b": normal(outputs)},
    )


@given(st.data())
@settings(max_examples=30, deadline=None)
def test_any_transposed_convolution(data: st.DataObject) -> None:
    strides, kernel, dilations = ([data.draw(st.integers(1, 4)) for _ in range(2)] for _ in range(3))
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    size = [data.draw(st.integers(2, 9)) for _ in range(2)]
    pads = [data.draw(st.integers(0, (r - 1) // 2)) for r in reach * 2]
    extra = [data.draw(st.integers(0, max(s, d) - 1)) for s, d in zip(strides, dilations, strict=True)]
    attributes = {"strides": strides, "dilations": dilations, "pads": pads, "output_padding": extra}
    check(
        [node("ConvTranspose", "x w", "y", **attributes)],
        {"x": normal(1, 5, *size)},
        {"w": normal(5, data.draw(st.integers(1, 20)), *kernel)},
    )


POOLS = {
    "3 x 3": ((1, 16, 14, 15), {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
    "2 x 2": ((2, 20, 9, 8), {"kernel_shape": [2, 2], "strides": [2, 2]}),
    "ceiling": ((1, 16, 10, 12), {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}),
    "padded ceiling": (
        (1, 16, 11, 40),
        {"kernel_shape": [3, 4], "strides": [2, 3], "ceil_mode": 1, "pads": [1, 1, 1, 1]},
    ),
    "not strided": ((1, 16, 20, 30), {"kernel_shape": [5, 5], "pads": [2, 2, 2, 2]}),
    "one row": ((1, 32, 40), {"kernel_shape": [3], "strides": [2]}),
    "uneven": ((1, 16, 12, 13), {"kernel_shape": [2, 1], "strides": [2, 1], "pads": [0, 0, 1, 0]}),
}


@pytest.mark.parametrize("name", POOLS)
@pytest.mark.parametrize("mode", ["MaxPool", "AveragePool", "padded"])
def test_pooling(name: str, mode: str) -> None:
    shape, attributes = POOLS[name]
    extra = {"count_include_pad": 1} if mode == "padded" else {}
    check([node("AveragePool" if extra else mode, "x", "y", **attributes, **extra)], {"x": normal(*shape)}, {})


def test_wide_max_pool() -> None:
    check([node("MaxPool", "x", "y", kernel_shape=[13, 13], pads=[6] * 4)], {"x": normal(1, 16, 40, 40)}, {})


@pytest.mark.parametrize("op_type", ["GlobalAveragePool", "GlobalMaxPool"])
@pytest.mark.parametrize("shape", [(1, 32, 7, 7), (2, 20, 5, 6), (1, 16, 33)])
def test_global_pooling(op_type: str, shape: tuple[int, ...]) -> None:
    check([node(op_type, "x", "y")], {"x": normal(*shape)}, {})


def test_region_with_everything() -> None:
    """A residual block, batch normalization, squeeze and excitation, channels joined."""
    nodes = [
        node("Conv", "x w1", "a", pads=[1] * 4, strides=[2, 2]),
        node("BatchNormalization", "a s o m v", "b"),
        node("Relu", "b", "c"),
        node("Conv", "c w2 b2", "d", pads=[1] * 4),
        node("Add", "d c", "e"),
        node("Relu", "e", "f"),
        node("GlobalAveragePool", "f", "g"),
        node("Conv", "g w3 b3", "h"),
        node("Relu", "h", "i"),
        node("Conv", "i w4 b4", "j"),
        node("Relu", "j", "k"),
        node("Mul", "f k", "l"),
        node("Mul", "l scalar", "l2"),
        node("MaxPool", "l2", "m2", kernel_shape=[3, 3], pads=[1] * 4),
        node("Concat", "l2 m2 f", "n", axis=1),
        node("Conv", "n w5", "y"),
    ]
    constants = {
        "w1": normal(32, 3, 3, 3),
        "w2": normal(32, 32, 3, 3) * 0.1,
        "b2": normal(32),
        "w3": normal(8, 32, 1, 1),
        "b3": normal(8),
        "w4": normal(32, 8, 1, 1) * 0.3,
        "b4": normal(32),
        "w5": normal(20, 96, 1, 1) * 0.1,
        "scalar": np.array(0.5, np.float32),
        **{name: normal(32) for name in "som"},
        "v": np.abs(normal(32)) + 0.5,
    }
    check(nodes, {"x": normal(1, 3, 21, 25)}, constants)
    check(nodes, {"x": normal(2, 3, 16, 16)}, constants)


def test_odd_channels_stay_finite() -> None:
    """Lanes that hold no channel must not make NaN of what follows."""
    nodes = [
        node("Conv", "x w1 b1", "a", pads=[1] * 4),
        node("Div", "a d", "b"),
        node("Conv", "b w2", "y", pads=[1] * 4),
    ]
    constants = {
        "w1": normal(20, 3, 3, 3),
        "b1": normal(20),
        "d": np.abs(normal(20, 1, 1)) + 0.5,
        "w2": normal(7, 20, 3, 3),
    }
    check(nodes, {"x": normal(1, 3, 9, 9)}, constants)


def test_code_for_arm() -> None:
    """All families print code that LLVM takes for a processor with other vectors."""
    target = of_features("aarch64-unknown-linux-gnu", "neoverse-n1", {"neon": True, "fp-armv8": True})
    wide = Geometry(1, 32, 32, (14, 14), (3, 3), begins=(1, 1), ends=(1, 1))
    window = tuple(tiles.choose_window(wide, target))
    expression = identity("float32")
    square = tiles.choose_tiles(Geometry(1, 64, 64, (56, 56), (3, 3), begins=(1, 1), ends=(1, 1)), target)
    assert square is not None
    keys = [
        Key("conv", (tuple(tiles.choose_form(wide, target)), expression, ())),
        Key("conv", (tuple(tiles.choose_form(Geometry(1, 256, 64, (14, 14), (1, 1)), target)), expression, ())),
        Key("depthwise", (window, expression, ())),
        Key("pool", (window, "mean", 1, expression, ())),
        Key("global_pool", ("max", expression, ())),
        Key("winograd", (tuple(square), expression, ())),
        Key("reorder", (True, False)),
        Key("reorder", (False, True)),
    ]
    assert compile_text(module_text(keys, target), target)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.data())
def test_any_convolution(data: st.DataObject) -> None:
    pick = lambda least, most: data.draw(st.integers(least, most))  # noqa: E731
    kernel, strides, dilations = ([pick(1, most), pick(1, most)] for most in (5, 3, 2))
    pads = [pick(0, 3) for _ in range(4)]
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    size = [pick(max(1, r - pads[i] - pads[i + 2]), 24) for i, r in enumerate(reach)]
    groups = data.draw(st.sampled_from([1, 1, 1, 2, 8]))
    channels, outputs = groups * pick(1, 40 // groups), groups * pick(1, 40 // groups)
    x, w, b = normal(pick(1, 2), channels, *size), normal(outputs, channels // groups, *kernel), normal(outputs)
    attributes = {"pads": pads, "strides": strides, "dilations": dilations, "group": groups}
    check([node("Conv", "x w b", "t", **attributes), node("Relu", "t", "y")], {"x": x}, {"w": w, "b": b})


@pytest.mark.parametrize("channels", [(24, 24, 24, 24), (8, 3, 40), (16, 5, 7), (5, 1, 2, 30), (32, 16)])
@pytest.mark.parametrize("n_images", [1, 2])
def test_channels_joined_within_blocks(channels: tuple[int, ...], n_images: int) -> None:
    parts = [node("Conv", f"x w{i}", f"p{i}") for i in range(len(channels))]
    names = " ".join(f"p{i}" for i in range(len(channels)))
    nodes = [*parts, node("Concat", names, "t", axis=1), node("Conv", "t w", "y")]
    weights = {f"w{i}": normal(c, 16, 1, 1) for i, c in enumerate(channels)}
    check(nodes, {"x": normal(n_images, 16, 9, 11)}, {**weights, "w": normal(24, sum(channels), 1, 1)})


def test_sum_that_goes_elsewhere() -> None:
    """What a convolution's result is added to does not lie as the padded copy that the sum goes to."""
    nodes = [
        node("Conv", "x v", "c", pads=[0, 0]),
        node("Relu", "c", "t"),
        node("Conv", "t w", "y", pads=[0, 0]),
        node("Add", "t y", "s"),
        node("Pad", "s pads", "p"),
        node("Conv", "p w2", "z"),
    ]
    constants = {"v": normal(32, 16, 1), "w": normal(32, 32, 1), "w2": normal(16, 32, 2)}
    check(nodes, {"x": normal(1, 16, 50)}, constants | {"pads": np.array([0, 0, 2, 0, 0, 0])})
