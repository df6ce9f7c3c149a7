"""Any graph of operators that move elements, with element-wise ones between them, several readers and threads."""

from __future__ import annotations

from typing import Any
from unittest import mock

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from distort.graph.ir import Graph, Node
from distort.kernels.compiler import specialise
from distort.kernels.compiler.program import CompiledProgram


class Maker:
    """A graph that grows at random. All values are float32 of rank 3 with few elements."""

    def __init__(self, data: st.DataObject) -> None:
        self.data = data
        self.graph = Graph(inputs=["x", "i"])
        self.shapes: dict[str, tuple[int, ...]] = {}

    def pick(self, low: int, high: int) -> int:
        return self.data.draw(st.integers(low, high))

    def known(self, values: Any) -> str:
        name = f"k{len(self.graph.initializers)}"
        self.graph.initializers[name] = np.asarray(values)
        return name

    def add(self, op_type: str, inputs: list[str], shape: tuple[int, ...], **attributes: Any) -> None:
        name = f"v{len(self.graph.nodes)}"
        self.graph.nodes.append(Node(op_type, "", inputs, [name], attributes=attributes, opset=21))
        self.shapes[name] = shape

    def step(self) -> None:
        name = self.data.draw(st.sampled_from(list(self.shapes)))
        shape, axis = self.shapes[name], self.pick(0, 2)
        kind = self.data.draw(
            st.sampled_from(
                ["relu", "add", "concat", "pad", "slice", "transpose", "gather", "tile", "scatter", "resize"]
            )
        )
        changed = list(shape)
        if kind == "relu":
            self.add("Relu", [name], shape)
        elif kind == "add":
            others = [n for n, s in self.shapes.items() if s == shape]
            self.add("Add", [name, self.data.draw(st.sampled_from(others))], shape)
        elif kind == "concat":
            others = [n for n, s in self.shapes.items() if s[:axis] + s[axis + 1 :] == shape[:axis] + shape[axis + 1 :]]
            parts = [name, *self.data.draw(st.lists(st.sampled_from(others), min_size=1, max_size=2))]
            changed[axis] = sum(self.shapes[p][axis] for p in parts)
            if changed[axis] < 60:
                self.add("Concat", parts, tuple(changed), axis=axis)
        elif kind == "pad":
            pads = [0] * 6
            pads[axis], pads[axis + 3] = self.pick(0, 3), self.pick(0, 3)
            mode = self.data.draw(st.sampled_from(["constant", "edge"]))
            changed[axis] += pads[axis] + pads[axis + 3]
            self.add("Pad", [name, self.known(pads)], tuple(changed), mode=mode)
        elif kind == "slice" and shape[axis] > 1:
            step = self.data.draw(st.sampled_from([1, 2, -1]))
            bounds = (-1, -(1 << 40)) if step < 0 else (1, 1 << 40)
            changed[axis] = shape[axis] if step < 0 else len(range(1, shape[axis], step))
            self.add("Slice", [name, *(self.known([n]) for n in (*bounds, axis, step))], tuple(changed))
        elif kind == "transpose":
            order = self.data.draw(st.permutations(range(3)))
            self.add("Transpose", [name], tuple(shape[a] for a in order), perm=order)
        elif kind == "gather" and shape[axis] >= 3:
            changed[axis] = 5
            self.add("Gather", [name, "i"], tuple(changed), axis=axis)
        elif kind == "tile" and shape[axis] < 20:
            counts = [1, 1, 1]
            counts[axis], changed[axis] = 2, 2 * shape[axis]
            self.add("Tile", [name, self.known(counts)], tuple(changed))
        elif kind == "scatter" and shape[0] >= 3:
            rows = self.known(np.full((1, 1), self.pick(0, 2)))
            updates = self.known(np.full((1, *shape[1:]), 9, np.float32))
            self.add("ScatterND", [name, rows, updates], shape)
        elif kind == "resize" and max(shape) < 30:
            scales = np.ones(3, np.float32)
            scales[axis], changed[axis] = 2, 2 * shape[axis]
            self.add("Resize", [name, "", self.known(scales)], tuple(changed))


def graph_of_moves(data: st.DataObject) -> tuple[Graph, dict[str, np.ndarray[Any, Any]]]:
    """A graph with its feeds."""
    maker = Maker(data)
    shape = (maker.pick(1, 6), maker.pick(1, 6), maker.pick(1, 20))
    maker.shapes["x"] = shape
    for _ in range(maker.pick(2, 12)):
        maker.step()
    graph = maker.graph
    made = [n for n in maker.shapes if n != "x"]
    graph.outputs = data.draw(st.lists(st.sampled_from(made), min_size=1, max_size=3, unique=True)) if made else ["x"]
    return graph, {"x": np.random.default_rng(1).normal(size=shape).astype(np.float32), "i": np.array([2, 0, -1, 1, 1])}


@settings(max_examples=80, deadline=None, derandomize=True)
@given(st.data())
def test_any_graph_of_moves(data: st.DataObject) -> None:
    graph, feeds = graph_of_moves(data)
    for n_threads in (1, 2):
        program = CompiledProgram(graph, n_threads=n_threads)
        for _ in range(3):
            # all steps are shared out, however small
            with mock.patch.object(specialise, "LEAST_SHARED_NS", 0.0):
                found = program.run(feeds)
            for mine, wanted in zip(found, program.plain.run(feeds), strict=True):
                np.testing.assert_array_equal(mine, wanted)
