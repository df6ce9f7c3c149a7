"""Operators on float16 and bfloat16, compiled, against the NumPy kernels on the same numbers in float32."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from distort.graph.ir import Graph, Node
from distort.kernels.compiler.ir import Host
from distort.kernels.compiler.program import CompiledProgram
from distort.kernels.program import Program

Array = np.ndarray[Any, Any]
RNG = np.random.default_rng(11)
#: of a rounding
ROUNDING = {"float16": 2.0**-10, "bfloat16": 2.0**-7}


def node(op_type: str, inputs: str, outputs: str, **attributes: Any) -> Node:
    names = ["" if name == "-" else name for name in inputs.split()]
    return Node(op_type, "", names, outputs.split(), attributes=attributes, opset=22)


def normal(*shape: int, scale: float = 1.0) -> Array:
    return (RNG.standard_normal(shape) * scale).astype(np.float32)


def _cast(values: dict[str, Array], dtype: Any) -> dict[str, Array]:
    return {name: value.astype(dtype) if value.dtype.kind == "f" else value for name, value in values.items()}


def check(
    nodes: list[Node], feeds: dict[str, Array], constants: dict[str, Array], dtype: Any, n_roundings: int
) -> None:
    """No step for a NumPy kernel; results of ``dtype``, as far from those of float32 as roundings may bring them."""
    feeds, constants = _cast(feeds, dtype), _cast(constants, dtype)
    outputs = list(nodes[-1].outputs)
    wide = Graph(nodes=nodes, inputs=list(feeds), outputs=outputs, initializers=_cast(constants, np.float32))
    expected = Program(wide).run(_cast(feeds, np.float32))
    graph = Graph(nodes=nodes, inputs=list(feeds), outputs=outputs, initializers=constants)
    program = CompiledProgram(graph, n_threads=2)
    plan = program.prepare([(v.dtype, v.shape) for v in feeds.values()])
    assert [op.node.op_type for op in plan.operations if isinstance(op, Host)] == []
    for one, other in zip(program.run(feeds), expected, strict=True):
        assert one.dtype == dtype and one.shape == other.shape
        tolerance = ROUNDING[np.dtype(dtype).name] * n_roundings
        np.testing.assert_allclose(one.astype(np.float32), other, rtol=tolerance, atol=tolerance)


CASES: dict[str, tuple[list[Node], dict[str, Array], dict[str, Array]]] = {
    "convolution": (
        [node("Conv", "x w b", "y", pads=[1, 1, 1, 1])],
        {"x": normal(2, 5, 9, 8)},
        {"w": normal(20, 5, 3, 3, scale=0.2), "b": normal(20)},
    ),
    "transposed convolution": (
        [node("ConvTranspose", "x w", "y", strides=[2, 2])],
        {"x": normal(1, 24, 5, 6)},
        {"w": normal(24, 18, 3, 3, scale=0.2)},
    ),
    "depthwise convolution": (
        [node("Conv", "x w", "y", group=32, pads=[2, 2])],
        {"x": normal(1, 32, 30)},
        {"w": normal(32, 1, 5, scale=0.3)},
    ),
    "pools": (
        [
            node("MaxPool", "x", "a", kernel_shape=[3, 3], strides=[2, 2]),
            node("AveragePool", "a", "c", kernel_shape=[2, 2]),
            node("GlobalAveragePool", "c", "y"),
        ],
        {"x": normal(1, 20, 11, 12)},
        {},
    ),
    "batch normalization": (
        [node("BatchNormalization", "x s b m v", "y")],
        {"x": normal(2, 20, 5, 3)},
        {"s": normal(20), "b": normal(20), "m": normal(20), "v": normal(20) ** 2 + 0.5},
    ),
    "resize": (
        [node("Resize", "x - - s", "y", mode="linear")],
        {"x": normal(1, 3, 7, 5)},
        {"s": np.array([1, 3, 14, 10])},
    ),
    "recurrent": (
        [node("LSTM", "x w r b", "y h c", hidden_size=20)],
        {"x": normal(6, 2, 9)},
        {"w": normal(1, 80, 9, scale=0.2), "r": normal(1, 80, 20, scale=0.2), "b": normal(1, 160, scale=0.2)},
    ),
    "gated recurrent": (
        [node("GRU", "x w r", "y h", hidden_size=20)],
        {"x": normal(6, 1, 9)},
        {"w": normal(1, 60, 9, scale=0.2), "r": normal(1, 60, 20, scale=0.2)},
    ),
    "product of a few rows": (
        [node("Gemm", "x w b", "y")],
        {"x": normal(3, 40, scale=0.3)},
        {"w": normal(40, 50, scale=0.3), "b": normal(50)},
    ),
    "product": (
        [node("MatMul", "x w", "a"), node("Add", "a b", "c"), node("Gelu", "c", "y")],
        {"x": normal(2, 30, 40, scale=0.3)},
        {"w": normal(40, 50, scale=0.3), "b": normal(50)},
    ),
    "product of feeds": (
        [node("MatMul", "x w", "a"), node("Softmax", "a", "y")],
        {"x": normal(2, 30, 40, scale=0.3), "w": normal(2, 40, 25, scale=0.3)},
        {},
    ),
    "normalization": (
        [node("LayerNormalization", "x s b", "y")],
        {"x": normal(2, 30, 40)},
        {"s": normal(40), "b": normal(40)},
    ),
    "convolutions in a row": (
        [
            node("Conv", "x w", "a", pads=[0, 1, 0, 1]),
            node("Squeeze", "a axis", "c"),
            node("Add", "c b", "d"),
            node("Relu", "d", "e"),
            node("Unsqueeze", "e axis", "g"),
            node("Conv", "g v", "y"),
        ],
        {"x": normal(2, 16, 1, 21)},
        {
            "w": normal(24, 16, 1, 3, scale=0.2),
            "v": normal(7, 24, 1, 1, scale=0.2),
            "b": normal(1, 24, 1),
            "axis": np.array([2]),
        },
    ),
}


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("case", CASES)
def test_operators(case: str, dtype: Any) -> None:
    nodes, feeds, constants = CASES[case]
    check(nodes, feeds, constants, dtype, 3 * len(nodes))


def test_blocks_stay_where_dimensions_of_one_come_and_go() -> None:
    nodes, feeds, constants = CASES["convolutions in a row"]
    graph = Graph(nodes=nodes, inputs=list(feeds), outputs=["y"], initializers=_cast(constants, np.float16))
    plan = CompiledProgram(graph).prepare([(np.dtype(np.float16), v.shape) for v in feeds.values()])
    # the input in blocks, both convolutions with what comes between, and the result out of blocks
    assert [op.kind for op in plan.operations].count("blockwise") == 2
    assert len(plan.operations) <= 6
