"""Any graph of small layers gives what NumPy kernels give, compiled: the same bits each run and with any threads.

``DISTORT_EXAMPLES=2000`` tries as many graphs, others each time.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distort.graph.ir import Graph, Node
from distort.kernels.compiler import program, specialise
from distort.kernels.compiler.program import CompiledProgram
from distort.kernels.errors import KernelError
from distort.kernels.program import Program

from ..compiler.guarding import guarded

Array = np.ndarray[Any, Any]
#: values between stay small, so that the tolerance means something
MOST_ELEMENTS, LARGEST = 6000, 50.0
TOLERANCE = 2e-5
_EXAMPLES = os.environ.get("DISTORT_EXAMPLES", "")

_UNARY: dict[str, dict[str, Any]] = {
    **{key: {} for key in ("Relu", "Tanh", "Sigmoid", "Erf", "Abs", "Neg", "HardSwish", "Softplus", "Sin", "Gelu")},
    "LeakyRelu": {"alpha": 0.1},
    "Elu": {"alpha": 0.5},
}
_BINARY = ("Add", "Sub", "Mul", "Max", "Min")
_REDUCTIONS = ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL2", "ReduceLogSumExp")


class Maker:
    """A graph that grows at random. What its nodes make is known: a NumPy kernel says so at once."""

    def __init__(self, data: st.DataObject) -> None:
        self.data = data
        self.graph = Graph()
        self.values: dict[str, Array] = {}
        self.random = np.random.default_rng(data.draw(st.integers(0, 99)))

    def pick(self, low: int, high: int) -> int:
        return self.data.draw(st.integers(low, high))

    def one_of(self, choices: Sequence[Any]) -> Any:
        return self.data.draw(st.sampled_from(choices))

    def feed(self, name: str, value: Array) -> str:
        self.graph.inputs.append(name)
        self.values[name] = value
        return name

    def weight(self, *shape: int, scale: float = 0.5) -> str:
        return self.known((self.random.standard_normal(shape) * scale).astype(np.float32))

    def known(self, value: Any) -> str:
        name = f"k{len(self.graph.initializers)}"
        self.graph.initializers[name] = np.asarray(value)
        return name

    def value(self, *ranks: int) -> str | None:
        """The name of a value of one of these ranks, likely of one that was made lately."""
        fit = [n for n, v in self.values.items() if v.dtype == np.float32 and (not ranks or v.ndim in ranks)]
        return self.one_of(fit[::-1]) if fit else None

    def add(self, op_type: str, *inputs: str, **attributes: Any) -> None:
        """A node, where there is something to make, and not too much of it."""
        name = f"v{len(self.graph.nodes)}"
        node = Node(op_type, "", list(inputs), [name], attributes=attributes, opset=21)
        outer = [i for i in (*inputs, *node.captured()) if i and i not in self.graph.initializers]
        one = Graph(inputs=outer, outputs=[name], nodes=[node], initializers=self.graph.initializers)
        try:
            (made,) = Program(one).run({i: self.values[i] for i in outer})
        except KernelError:
            return
        if 0 < made.size <= MOST_ELEMENTS and np.abs(made).max() <= LARGEST:
            self.graph.nodes.append(node)
            self.values[name] = made


def unary(maker: Maker, name: str) -> None:
    op_type = maker.one_of(list(_UNARY))
    maker.add(op_type, name, **_UNARY[op_type])


def binary(maker: Maker, name: str) -> None:
    shape = maker.values[name].shape
    kind = maker.one_of(["same", "row", "thin", "scalar", "value", "itself"])
    if kind == "value":
        other = maker.value()
    elif kind == "itself":
        other = name
    else:
        drawn = [n if maker.pick(0, 1) else 1 for n in shape]
        other = maker.weight(*{"same": shape, "row": shape[-1:], "thin": drawn, "scalar": ()}[kind])
    pair = [name, other or name]
    maker.add(maker.one_of(_BINARY), *(pair if maker.pick(0, 1) else pair[::-1]))


def where(maker: Maker, name: str) -> None:
    shape = maker.values[name].shape
    mask = maker.known(maker.random.random([n if maker.pick(0, 2) else 1 for n in shape]) < 0.5)
    maker.add("Where", mask, name, maker.weight())


def matmul(maker: Maker, name: str) -> None:
    value = maker.values[name]
    if value.ndim < 2:
        return
    if maker.pick(0, 2):
        maker.add("MatMul", name, maker.weight(value.shape[-1], maker.one_of([1, 3, 8, 17, 33]), scale=0.3))
        return
    fit = [n for n, v in maker.values.items() if v.ndim >= 2 and v.shape[-2] == value.shape[-1]]
    if fit:
        maker.add("MatMul", name, maker.one_of(fit))


def gemm(maker: Maker, name: str) -> None:
    value = maker.values[name]
    if value.ndim != 2:
        return
    left, right, n = maker.pick(0, 1), maker.pick(0, 1), maker.pick(1, 20)
    m, k = value.shape[::-1] if left else value.shape
    bias = maker.weight(*maker.one_of([(n,), (m, n), (m, 1), ()]))
    inputs = [name, maker.weight(*((n, k) if right else (k, n)), scale=0.3), bias][: maker.pick(2, 3)]
    maker.add("Gemm", *inputs, transA=left, transB=right, alpha=maker.one_of([1.0, 0.5]), beta=maker.one_of([1.0, 2.0]))


def convolution(maker: Maker, name: str) -> None:
    value = maker.values[name]
    if value.ndim not in (3, 4):
        return
    n_axes, channels = value.ndim - 2, value.shape[1]
    group = maker.one_of([n for n in (1, 2, channels) if channels % n == 0])
    filters = group * maker.pick(1, 4)
    kernel = [maker.pick(1, 3) for _ in range(n_axes)]
    inputs = [name, maker.weight(filters, channels // group, *kernel, scale=0.3), maker.weight(filters)]
    attributes = {
        "group": group,
        "strides": [maker.pick(1, 2) for _ in range(n_axes)],
        "dilations": [maker.one_of([1, 1, 2]) for _ in range(n_axes)],
        "pads": [maker.pick(0, 1) for _ in range(2 * n_axes)],
    }
    maker.add("Conv", *inputs[: maker.pick(2, 3)], **attributes)


def pool(maker: Maker, name: str) -> None:
    value = maker.values[name]
    if value.ndim not in (3, 4):
        return
    n_axes = value.ndim - 2
    op_type = maker.one_of(["MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"])
    if op_type.startswith("Global"):
        maker.add(op_type, name)
        return
    kernel = [maker.pick(2, 3) for _ in range(n_axes)]
    strides, pads = ([maker.pick(low, low + 1) for _ in range(n)] for low, n in ((1, n_axes), (0, 2 * n_axes)))
    more = {"count_include_pad": maker.pick(0, 1)} if op_type == "AveragePool" else {}
    maker.add(op_type, name, kernel_shape=kernel, strides=strides, pads=pads, ceil_mode=maker.pick(0, 1), **more)


def softmax(maker: Maker, name: str) -> None:
    rank = maker.values[name].ndim
    if rank:
        maker.add(maker.one_of(["Softmax", "LogSoftmax"]), name, axis=maker.pick(-rank, rank - 1))


def normalization(maker: Maker, name: str) -> None:
    value = maker.values[name]
    if value.ndim >= 3 and maker.pick(0, 1):
        weights = [maker.weight(value.shape[1]) for _ in range(2)]
        if maker.pick(0, 1):
            maker.add("InstanceNormalization", name, *weights, epsilon=0.1)
            return
        spread = maker.known(np.abs(maker.random.standard_normal(value.shape[1])).astype(np.float32) + np.float32(0.5))
        maker.add("BatchNormalization", name, *weights, maker.weight(value.shape[1]), spread)
    elif value.ndim:
        axis = maker.pick(-value.ndim, -1)
        weights = [maker.weight(*value.shape[axis:]) for _ in range(2)]
        maker.add("LayerNormalization", name, *weights[: maker.pick(1, 2)], axis=axis, epsilon=0.1)


def reduction(maker: Maker, name: str) -> None:
    rank = maker.values[name].ndim
    axes = maker.data.draw(st.lists(st.integers(0, rank - 1), min_size=1, unique=True)) if rank else []
    maker.add(maker.one_of(_REDUCTIONS), name, maker.known(np.array(axes, np.int64)), keepdims=maker.pick(0, 1))


def transpose(maker: Maker, name: str) -> None:
    maker.add("Transpose", name, perm=list(maker.data.draw(st.permutations(range(maker.values[name].ndim)))))


def reshape(maker: Maker, name: str) -> None:
    shape = list(maker.values[name].shape)
    if len(shape) >= 2 and maker.pick(0, 1):
        at = maker.pick(0, len(shape) - 2)
        shape[at : at + 2] = [shape[at] * shape[at + 1]]
    elif shape and len(shape) < 4:
        at = maker.pick(0, len(shape) - 1)
        part = maker.one_of([n for n in (1, 2, 3, 4) if shape[at] % n == 0])
        shape[at : at + 1] = [shape[at] // part, part]
    maker.add("Reshape", name, maker.known(np.array(shape, np.int64)))


def concat(maker: Maker, name: str) -> None:
    value = maker.values[name]
    if not value.ndim:
        return
    axis = maker.pick(0, value.ndim - 1)
    rest = value.shape[:axis] + value.shape[axis + 1 :]
    fit = [n for n, v in maker.values.items() if v.ndim == value.ndim and v.shape[:axis] + v.shape[axis + 1 :] == rest]
    maker.add("Concat", name, *(maker.one_of(fit) for _ in range(maker.pick(1, 2))), axis=axis)


def part(maker: Maker, name: str) -> None:
    value = maker.values[name]
    if not value.ndim:
        return
    axis = maker.pick(0, value.ndim - 1)
    size = value.shape[axis]
    if maker.pick(0, 1):
        indices = maker.random.integers(-size, size, maker.one_of([(), (3,), (2, 2)]))
        maker.add("Gather", name, maker.known(np.asarray(indices, np.int64)), axis=axis)
        return
    begin, end = sorted((maker.pick(0, size), maker.pick(0, size)))
    step = maker.one_of([1, 1, 2, -1])
    bounds = (end - 1, begin - 1 - size if not begin else begin - 1) if step < 0 else (begin, end)
    maker.add("Slice", name, *(maker.known(np.array([n])) for n in (*bounds, axis, step)))


def spread(maker: Maker, name: str) -> None:
    value = maker.values[name]
    kind = maker.one_of(["Expand", "Pad", "Tile", "Unsqueeze"])
    if kind == "Expand":
        shape = [maker.pick(1, 4) if n == 1 else n for n in value.shape]
        maker.add("Expand", name, maker.known(np.array(shape, np.int64)))
    elif kind == "Pad":
        pads = [maker.pick(0, 2) for _ in range(2 * value.ndim)]
        maker.add("Pad", name, maker.known(np.array(pads, np.int64)), mode=maker.one_of(["constant", "edge"]))
    elif kind == "Tile":
        maker.add("Tile", name, maker.known(np.array([maker.pick(1, 2) for _ in value.shape], np.int64)))
    elif value.ndim < 4:
        maker.add("Unsqueeze", name, maker.known(np.array([maker.pick(0, value.ndim)])))


def branches(maker: Maker, name: str) -> None:
    """Branches that read what is around them; a feed says which one is taken."""
    condition = maker.one_of(["yes", "no"])
    bodies = []
    for n in range(2):
        op_type = maker.one_of(["Relu", "Tanh", "Mul"])
        inputs = [name, maker.weight(*maker.values[name].shape[-1:])] if op_type == "Mul" else [name]
        made = f"b{len(maker.graph.nodes)}_{n}"
        nodes = [Node(op_type, "", inputs, [made + "a"], opset=21), Node("Neg", "", [made + "a"], [made], opset=21)]
        bodies.append(Graph(outputs=[made], nodes=nodes))
    maker.add("If", condition, then_branch=bodies[0], else_branch=bodies[1])


STEPS = [
    *(unary, unary, binary, binary, where, matmul, matmul, gemm, convolution, convolution, pool, softmax),
    *(normalization, reduction, transpose, reshape, concat, part, spread, branches),
]


def grow(data: st.DataObject) -> Maker:
    maker = Maker(data)
    shape = maker.one_of(
        [(2, 9), (5, 16), (1, 33), (1, 3, 20), (2, 16, 7), (1, 3, 9, 11), (1, 16, 6, 6), (2, 8, 5, 17)]
    )
    for name in "xz":
        maker.feed(name, maker.random.standard_normal(shape).astype(np.float32))
    maker.feed("yes", np.array(True))
    maker.feed("no", np.array(False))
    for _ in range(maker.pick(1, 10)):
        name = maker.value()
        assert name is not None
        maker.one_of(STEPS)(maker, name)
    made = list(maker.values)[4:]
    if made:
        maker.graph.outputs = data.draw(st.lists(st.sampled_from(made), min_size=1, max_size=3, unique=True))
        if made[-1] not in maker.graph.outputs:
            maker.graph.outputs.append(made[-1])
    return maker


@pytest.mark.filterwarnings("default")
@settings(
    max_examples=int(_EXAMPLES or 100),
    deadline=None,
    derandomize=not _EXAMPLES,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
@given(st.data())
def test_any_graph_of_layers(data: st.DataObject) -> None:
    maker = grow(data)
    graph = maker.graph
    if not graph.outputs:
        return
    feeds = {name: maker.values[name] for name in graph.inputs}
    runs = []
    # all steps are shared out, however small; an error of the compiler is one
    with mock.patch.object(specialise, "LEAST_SHARED_NS", 0.0), mock.patch.object(program, "STRICT", True):
        for n_threads in (1, 2):
            compiled = CompiledProgram(graph, n_threads=n_threads)
            with guarded() as room:
                runs += [compiled.run(feeds, room=room) for _ in range(3)]
            compiled.team.close()
    for name, result in zip(graph.outputs, runs[0], strict=True):
        wanted = maker.values[name]
        assert (result.dtype, result.shape) == (wanted.dtype, wanted.shape)
        np.testing.assert_allclose(result, wanted, TOLERANCE, TOLERANCE * max(1.0, np.abs(wanted).max()), err_msg=name)
    for results in runs[1:]:
        for first, other in zip(runs[0], results, strict=True):
            assert first.tobytes() == other.tobytes()
