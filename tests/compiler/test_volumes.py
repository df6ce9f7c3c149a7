"""Convolutions and pools of three dimensions compiled, against the NumPy kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distort.graph.ir import Graph, Node
from distort.kernels.compiler.ir import Host
from distort.kernels.compiler.program import CompiledProgram
from distort.kernels.program import Program

RNG = np.random.default_rng(5)


def node(op_type: str, inputs: str, outputs: str, **attributes: Any) -> Node:
    return Node(op_type, "", inputs.split(), outputs.split(), attributes=attributes, opset=17)


def normal(*shape: int) -> Any:
    return RNG.standard_normal(shape).astype(np.float32)


def check(
    nodes: list[Node], feeds: dict[str, Any], constants: dict[str, Any], n_threads: int = 2, compiles: bool = True
) -> None:
    graph = Graph(nodes=nodes, inputs=list(feeds), outputs=[nodes[-1].outputs[0]], initializers=constants)
    (expected,) = Program(graph).run(feeds)
    program = CompiledProgram(graph, n_threads=n_threads)
    plan = program.prepare([(v.dtype, v.shape) for v in feeds.values()])
    assert not compiles or not [op.node.op_type for op in plan.operations if isinstance(op, Host)]
    (got,) = program.run(feeds)
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


CONVOLUTIONS = {
    # x, w, attributes
    "3 x 3 x 3": ((1, 16, 5, 9, 10), (32, 16, 3, 3, 3), {"pads": [1] * 6}),
    "small, large kernel": ((1, 32, 5, 4, 4), (16, 32, 3, 3, 3), {"pads": [2, 1, 1, 2, 1, 1]}),
    "odd channels, two volumes": ((2, 20, 6, 7, 9), (24, 20, 3, 3, 3), {"pads": [1, 1, 1, 0, 1, 1]}),
    "few channels": ((2, 3, 7, 12, 11), (16, 3, 3, 5, 5), {"pads": [1, 2, 2, 1, 2, 2], "strides": [2, 2, 2]}),
    "no depth": ((2, 16, 4, 9, 9), (16, 16, 1, 3, 3), {"pads": [0, 1, 1, 0, 1, 1], "strides": [2, 2, 2]}),
    "depth only": ((1, 40, 6, 7, 7), (24, 40, 3, 1, 1), {"pads": [1, 0, 0, 1, 0, 0], "strides": [2, 1, 1]}),
    "pointwise, strided": ((1, 16, 5, 7, 8), (32, 16, 1, 1, 1), {"strides": [2, 2, 2]}),
    "groups without depth": ((1, 32, 3, 7, 8), (32, 8, 1, 3, 3), {"group": 4, "pads": [0, 1, 1, 0, 1, 1]}),
    "depthwise": ((2, 24, 6, 9, 20), (24, 1, 3, 3, 3), {"group": 24, "pads": [1] * 6}),
    "depthwise, strided, dilated": (
        (1, 32, 9, 9, 11),
        (32, 1, 3, 3, 3),
        {"group": 32, "pads": [2, 1, 1, 2, 1, 1], "strides": [2, 2, 1], "dilations": [2, 1, 1]},
    ),
    "depthwise in depth": ((1, 16, 8, 5, 5), (16, 1, 5, 1, 1), {"group": 16, "pads": [2, 0, 0, 2, 0, 0]}),
    "groups": ((1, 64, 5, 7, 8), (96, 16, 3, 3, 3), {"group": 4, "pads": [1] * 6, "strides": [2, 1, 2]}),
    "small groups": ((1, 24, 6, 7, 8), (40, 3, 3, 3, 2), {"group": 8, "pads": [0, 1, 1, 2, 1, 1]}),
    "few channels in groups": ((1, 6, 4, 7, 8), (4, 3, 2, 3, 3), {"group": 2}),
    "dilated": ((1, 20, 9, 7, 8), (16, 20, 3, 3, 3), {"pads": [2, 1, 1, 3, 1, 1], "dilations": [2, 1, 2]}),
    "to two": ((1, 16, 4, 8, 40), (2, 16, 1, 1, 1), {}),
    "a stack of ones": ((1, 64, 1, 1, 1), (32, 64, 1, 1, 1), {}),
}


@pytest.mark.parametrize("name", list(CONVOLUTIONS))
def test_convolution(name: str) -> None:
    x, w, attributes = CONVOLUTIONS[name]
    nodes = [node("Relu", "x", "r"), node("Conv", "r w b", "c", **attributes), node("Relu", "c", "y")]
    check(nodes, {"x": normal(*x)}, {"w": normal(*w), "b": normal(w[0])})


TRANSPOSED = {
    "twice as large": ((1, 24, 3, 4, 5), (24, 16, 2, 2, 2), {"strides": [2, 2, 2]}),
    "overlapping": ((2, 16, 3, 5, 4), (16, 20, 4, 4, 4), {"strides": [2, 2, 2], "pads": [1] * 6}),
    "extra": (
        (1, 16, 3, 4, 4),
        (16, 16, 3, 3, 3),
        {"strides": [2, 2, 2], "pads": [1] * 6, "output_padding": [1, 1, 1]},
    ),
    "in depth": ((1, 16, 4, 5, 6), (16, 8, 3, 1, 1), {"strides": [1, 1, 1]}),
}


@pytest.mark.parametrize("name", list(TRANSPOSED))
def test_transposed_convolution(name: str) -> None:
    x, w, attributes = TRANSPOSED[name]
    nodes = [node("ConvTranspose", "x w b", "c", **attributes), node("Relu", "c", "y")]
    check(nodes, {"x": normal(*x)}, {"w": normal(*w), "b": normal(w[1])})


POOLS = {
    "halved": ((1, 16, 4, 8, 9), {"kernel_shape": [2, 2, 2], "strides": [2, 2, 2]}),
    "padded": ((2, 20, 5, 7, 12), {"kernel_shape": [3, 3, 3], "strides": [2, 1, 2], "pads": [1] * 6}),
    "no depth": ((1, 8, 3, 9, 9), {"kernel_shape": [1, 2, 2], "strides": [1, 2, 2]}),
    "up": ((1, 16, 5, 7, 7), {"kernel_shape": [2, 2, 2], "strides": [2, 2, 2], "ceil_mode": 1}),
    "nearly all": ((1, 16, 4, 5, 5), {"kernel_shape": [4, 4, 4]}),
}


@pytest.mark.parametrize("name", list(POOLS))
@pytest.mark.parametrize("mode", ["MaxPool", "AveragePool", "AveragePool with padding"])
def test_pool(name: str, mode: str) -> None:
    shape, attributes = POOLS[name]
    if mode.endswith("padding"):
        if "ceil_mode" in attributes:
            return
        attributes = attributes | {"count_include_pad": 1}
    nodes = [node(mode.split()[0], "x", "p", **attributes), node("Relu", "p", "y")]
    check(nodes, {"x": normal(*shape)}, {})


@pytest.mark.parametrize("n_images", [1, 2])
@pytest.mark.parametrize("channels", [32, 20])
def test_network(n_images: int, channels: int) -> None:
    """Gates, sums, joined channels, means of all pixels, normalization: all about the same volumes."""
    c = channels
    nodes = [
        node("Conv", "x w", "a", pads=[1] * 6),
        node("BatchNormalization", "a s t m v", "n"),
        node("Sigmoid", "n", "g"),
        node("Mul", "n g", "h"),
        node("GlobalAveragePool", "h", "p"),
        node("Conv", "p wp", "q"),
        node("Sigmoid", "q", "gate"),
        node("Mul", "h gate", "i"),
        node("Conv", "i w2", "j", pads=[1] * 6, strides=[2, 2, 2]),
        node("MaxPool", "i", "k", kernel_shape=[2, 2, 2], strides=[2, 2, 2], ceil_mode=1),
        node("Concat", "j k", "l", axis=1),
        node("Conv", "l w3", "o"),
        node("Add", "o k", "sum"),
        node("Transpose", "sum", "z", perm=[0, 2, 3, 4, 1]),
    ]
    constants = {"w": normal(c, 3, 3, 3, 3), "wp": normal(c, c, 1, 1, 1), "w2": normal(c, c, 3, 3, 3) * 0.1}
    constants |= {"w3": normal(c, 2 * c, 1, 1, 1), "s": normal(c), "t": normal(c), "m": normal(c)}
    constants |= {"v": np.abs(normal(c)) + 0.5}
    check(nodes, {"x": normal(n_images, 3, 5, 9, 8)}, constants)


def test_one_depth_squeezed() -> None:
    nodes = [
        node("Conv", "x w", "a"),
        node("Squeeze", "a two", "s"),
        node("Conv", "s v", "b", pads=[1] * 4),
        node("Unsqueeze", "b two", "u"),
        node("Relu", "u", "r"),
        node("Pad", "r pads", "y"),
    ]
    constants = {"w": normal(16, 3, 4, 3, 3), "v": normal(16, 16, 3, 3), "two": np.array([2])}
    check(nodes, {"x": normal(2, 3, 4, 8, 8)}, constants | {"pads": np.array([0, 0, 1, 0, 0, 0, 0, 0, 2, 1])})


@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_any_convolution(data: st.DataObject) -> None:
    def pick(low: int, high: int) -> int:
        return data.draw(st.integers(low, high))

    kernel = [pick(1, 3) for _ in range(3)]
    pads = [pick(0, k - 1) for k in kernel] * 2
    strides = [pick(1, 2) for _ in range(3)]
    size = [pick(3, 7) for _ in range(3)]
    c, k = pick(1, 20), pick(1, 20)
    w = normal(k, c, *kernel)
    nodes = [node("Conv", "x w", "y", pads=pads, strides=strides)]
    # which sizes have code is told by the other tests
    check(nodes, {"x": normal(pick(1, 2), c, *size)}, {"w": w}, compiles=False)
