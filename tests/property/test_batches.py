"""Random graphs: wherever the proof says that samples stay apart, parts of a batch give what the whole gives."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import event, given, settings
from hypothesis import strategies as st

from distort.graph.batch import BatchProof, prove
from distort.graph.ir import Graph, Node
from distort.kernels.errors import KernelError
from distort.kernels.program import Program, evaluate_node

N_SAMPLES = 4  # other dimensions have this size too, so that a wrong axis goes unnoticed by its size alone
OPSET = 18
UNARY = ("Relu", "Neg", "Identity", "Erf", "Abs")
BINARY = ("Add", "Sub", "Mul", "Max", "Min", "Greater")


class Sketch:
    """A graph that grows node by node, with what each value is on the feeds of the whole batch."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        random = np.random.default_rng(draw(st.integers(0, 3)))
        width = draw(st.sampled_from((1, 3, 4)))
        feeds = {
            "x": random.standard_normal((N_SAMPLES, 3, width)).astype(np.float32),
            "y": random.standard_normal((width, N_SAMPLES)).astype(np.float32),
            "i": random.integers(0, 3, (N_SAMPLES, 2)),
            "w": random.standard_normal((N_SAMPLES, 4)).astype(np.float32),
        }
        self.graph = Graph("random", list(feeds))
        self.values: dict[str, Any] = dict(feeds)

    def __repr__(self) -> str:
        shapes = {name: value.shape for name, value in self.values.items()}
        lines = [f"{n.outputs} = {n.op_type}({n.inputs}) {n.attributes}" for n in self.graph.nodes]
        constants = {name: value.tolist() for name, value in self.graph.initializers.items() if value.size < 10}
        return "\n".join([*lines, str(constants), str(shapes)])

    def constant(self, values: Any, dtype: Any = np.int64) -> str:
        name = f"c{len(self.graph.initializers)}"
        self.graph.initializers[name] = self.values[name] = np.asarray(values, dtype)
        return name

    def apply(self, op_type: str, inputs: list[str], n_outputs: int = 1, **attributes: Any) -> list[str]:
        """A node, unless it can't run: then nothing is added, and nothing returned."""
        outputs = [f"v{len(self.graph.nodes)}_{i}" for i in range(n_outputs)]
        node = Node(op_type, "", inputs, outputs, attributes, outputs[0], OPSET)
        try:
            results = evaluate_node(node, [self.values[name] for name in inputs])
        except KernelError:
            return []
        if any(np.asarray(result).size > 4096 for result in results):
            return []
        self.graph.nodes.append(node)
        self.values.update(zip(outputs, results, strict=True))
        return outputs

    def pick(self, kinds: str = "f", least_rank: int = 0) -> str:
        known = [n for n, v in self.values.items() if v.dtype.kind in kinds and v.ndim >= least_rank]
        # recent values lead to deeper graphs
        return known[-1 - self.draw(st.integers(0, min(len(known) - 1, 6)))] if known else "x"

    def axis(self, name: str) -> int:
        return self.draw(st.integers(0, max(0, self.values[name].ndim - 1)))

    def shape_of(self, name: str) -> list[str]:
        return self.apply("Shape", [name])


def unary(s: Sketch) -> None:
    s.apply(s.draw(st.sampled_from(UNARY)), [s.pick()])


def binary(s: Sketch) -> None:
    s.apply(s.draw(st.sampled_from(BINARY)), [s.pick(), s.pick()])


def choice(s: Sketch) -> None:
    s.apply("Where", [s.pick("b"), s.pick(), s.pick()])


def matmul(s: Sketch) -> None:
    s.apply("MatMul", [s.pick(least_rank=1), s.pick(least_rank=1)])


def weighted(s: Sketch) -> None:
    name = s.pick(least_rank=1)
    size = s.values[name].shape[-1]
    s.apply("MatMul", [name, s.constant(np.linspace(-1, 1, size * 3).reshape(size, 3), np.float32)])


def gemm(s: Sketch) -> None:
    flags = {"transA": s.draw(st.integers(0, 1)), "transB": s.draw(st.integers(0, 1))}
    s.apply("Gemm", [s.pick(least_rank=2), s.pick(least_rank=2), s.pick()], **flags)


def transpose(s: Sketch) -> None:
    name = s.pick(least_rank=2)
    s.apply("Transpose", [name], perm=s.draw(st.permutations(range(s.values[name].ndim))))


def _factors(s: Sketch, size: int) -> list[int]:
    dims = []
    while size > 1 and len(dims) < 3:
        dim = s.draw(st.sampled_from([d for d in range(1, size + 1) if size % d == 0]))
        dims.append(dim)
        size //= dim
    return [*dims, size]


def reshape(s: Sketch) -> None:
    name = s.pick()
    target = _factors(s, s.values[name].size)
    if s.draw(st.booleans()):
        target[s.draw(st.integers(0, len(target) - 1))] = -1
    for i, dim in enumerate(target):
        if i < s.values[name].ndim and dim == s.values[name].shape[i] and s.draw(st.booleans()):
            target[i] = 0
    s.apply("Reshape", [name, s.constant(target)])


def reshape_by_shape(s: Sketch) -> None:
    name = s.pick(least_rank=1)
    picked = s.draw(st.lists(st.integers(0, s.values[name].ndim - 1), min_size=1, max_size=3))
    for shape in s.shape_of(name):
        for dims in s.apply("Gather", [shape, s.constant(picked)]):
            for target in s.apply("Concat", [dims, s.constant([-1])], axis=0):
                s.apply("Reshape", [s.pick(), target])


def merged_dims(s: Sketch) -> None:
    """[a * b, ...] by arithmetic on a shape."""
    name = s.pick(least_rank=2)
    for shape in s.shape_of(name):
        for first in s.apply("Gather", [shape, s.constant([0])]):
            for second in s.apply("Gather", [shape, s.constant([1])]):
                for product in s.apply(s.draw(st.sampled_from(("Mul", "Add", "Div", "Max"))), [first, second]):
                    for target in s.apply("Concat", [product, s.constant([-1])], axis=0):
                        s.apply("Reshape", [name, target])


def expand(s: Sketch) -> None:
    for shape in s.shape_of(s.pick(least_rank=1)):
        s.apply("Expand", [s.pick(), shape])


def expand_to(s: Sketch) -> None:
    s.apply("Expand", [s.pick(), s.constant(s.draw(st.lists(st.sampled_from((1, 3, 4)), min_size=1, max_size=3)))])


def filled(s: Sketch) -> None:
    for shape in s.shape_of(s.pick(least_rank=1)):
        s.apply("ConstantOfShape", [shape], value=np.array([0.5], np.float32))


def concat(s: Sketch) -> None:
    name = s.pick(least_rank=1)
    s.apply("Concat", [name, s.pick(least_rank=1)], axis=s.axis(name))


def split(s: Sketch) -> None:
    name = s.pick(least_rank=1)
    s.apply("Split", [name], 2, axis=s.axis(name), num_outputs=2)


def slices(s: Sketch) -> None:
    name = s.pick(least_rank=1)
    start, end = s.draw(st.integers(-2, 2)), s.draw(st.sampled_from((1, 2, 4, -1, 2**40)))
    step = s.draw(st.sampled_from((1, 1, 2, -1)))
    s.apply("Slice", [name, *(s.constant([value]) for value in (start, end, s.axis(name), step))])


def softmax(s: Sketch) -> None:
    name = s.pick(least_rank=1)
    s.apply("Softmax", [name], axis=s.axis(name))


def reduction(s: Sketch) -> None:
    name = s.pick(least_rank=1)
    axes = s.draw(st.lists(st.integers(0, s.values[name].ndim - 1), min_size=1, max_size=2, unique=True))
    keeps = s.draw(st.integers(0, 1))
    s.apply(s.draw(st.sampled_from(("ReduceSum", "ReduceMax"))), [name, s.constant(axes)], keepdims=keeps)


def position(s: Sketch) -> None:
    name = s.pick(least_rank=1)
    s.apply("ArgMax", [name], axis=s.axis(name), keepdims=s.draw(st.integers(0, 1)))


def top(s: Sketch) -> None:
    name = s.pick(least_rank=1)
    s.apply("TopK", [name, s.constant([1])], 2, axis=s.axis(name))


def running(s: Sketch) -> None:
    name = s.pick(least_rank=1)
    s.apply("CumSum", [name, s.constant(s.axis(name))])


def gather(s: Sketch) -> None:
    name = s.pick(least_rank=1)
    s.apply("Gather", [name, s.pick("i")], axis=s.axis(name))


def gather_elements(s: Sketch) -> None:
    name = s.pick(least_rank=1)
    s.apply("GatherElements", [name, s.pick("i", least_rank=1)], axis=s.axis(name))


def gather_nd(s: Sketch) -> None:
    s.apply("GatherND", [s.pick(least_rank=1), s.pick("i", least_rank=1)], batch_dims=s.draw(st.integers(0, 1)))


def unsqueeze(s: Sketch) -> None:
    name = s.pick("fi")
    s.apply("Unsqueeze", [name, s.constant([s.draw(st.integers(0, s.values[name].ndim))])])


def squeeze(s: Sketch) -> None:
    name = s.pick("fi")
    s.apply("Squeeze", [name] if s.draw(st.booleans()) else [name, s.constant([s.axis(name)])])


def flatten(s: Sketch) -> None:
    name = s.pick()
    s.apply("Flatten", [name], axis=s.draw(st.integers(0, s.values[name].ndim)))


def pad(s: Sketch) -> None:
    name = s.pick(least_rank=1)
    rank = s.values[name].ndim
    s.apply("Pad", [name, s.constant(s.draw(st.lists(st.integers(0, 1), min_size=2 * rank, max_size=2 * rank)))])


def tile(s: Sketch) -> None:
    name = s.pick(least_rank=1)
    rank = s.values[name].ndim
    s.apply("Tile", [name, s.constant(s.draw(st.lists(st.integers(1, 2), min_size=rank, max_size=rank)))])


def normalization(s: Sketch) -> None:
    name = s.pick(least_rank=1)
    axis = s.axis(name)
    scale = s.constant(np.ones(s.values[name].shape[axis:]), np.float32)
    s.apply("LayerNormalization", [name, scale], axis=axis)


def convolution(s: Sketch) -> None:
    name = s.pick(least_rank=3)
    channels = s.values[name].shape[1] if s.values[name].ndim > 1 else 1
    s.apply("Conv", [name, s.constant(np.linspace(-1, 1, 2 * channels).reshape(2, channels, 1), np.float32)])


def numbers(s: Sketch) -> None:
    """Each sample's own row, by its number, of whatever value."""
    name = s.pick(least_rank=1)
    for shape in s.shape_of(name):
        for count in s.apply("Gather", [shape, s.constant(0)]):
            for found in s.apply("Range", [s.constant(0), count, s.constant(1)]):
                for column in s.apply("Unsqueeze", [found, s.constant([1])]):
                    for index in s.apply("Concat", [column, s.pick("i", least_rank=2)], axis=1):
                        s.apply("GatherND", [s.pick(least_rank=1), s.draw(st.sampled_from((index, column)))])


def einsum(s: Sketch) -> None:
    equation = s.draw(st.sampled_from(("ij,jk->ik", "bij,bjk->bik", "ij,ij->ij", "ij,jk->k", "bij,jk->bik", "ij->ji")))
    s.apply("Einsum", [s.pick(least_rank=2) for _ in range(1 + equation.count(","))], equation=equation)


STEPS: tuple[Callable[[Sketch], None], ...] = (
    *(unary, binary, binary, choice, matmul, weighted, gemm, transpose, transpose, reshape, reshape, reshape_by_shape),
    *(merged_dims, expand, expand_to, filled, concat, split, slices, softmax, reduction, position, top, running),
    *(gather, gather_elements, gather_nd, unsqueeze, squeeze, flatten, pad, tile, normalization, convolution),
    *(numbers, einsum),
)
#: where samples may lie in the feeds
WAYS = ({"x": 0}, {"x": 0, "y": 1}, {"x": 0, "y": 1, "i": 0}, {"x": 0, "i": 0, "w": 0}, {"y": 1, "w": 0}, {"i": 0})


@st.composite
def sketches(draw: st.DrawFn) -> Sketch:
    sketch = Sketch(draw)
    for _ in range(draw(st.integers(2, 12))):
        draw(st.sampled_from(STEPS))(sketch)
    return sketch


def evaluated(node: Node, inputs: Any) -> Any:
    try:
        return evaluate_node(node, inputs)
    except KernelError:
        return None


@given(sketches(), st.sampled_from(WAYS), st.booleans())
@settings(max_examples=150, deadline=None)
def test_parts_give_what_the_whole_gives(sketch: Sketch, way: dict[str, int], evaluates: bool) -> None:
    graph = sketch.graph
    feeds = {name: sketch.values[name] for name in graph.inputs}
    shapes = {name: value.shape for name, value in feeds.items()}
    made = [name for node in graph.nodes for name in node.outputs]
    proofs: dict[str, BatchProof] = {}
    for name in made:
        proof = prove(graph, way, shapes, [name], evaluated if evaluates else None)
        if isinstance(proof, BatchProof):
            proofs[name] = proof
    event(f"proved {len(proofs) * 4 // max(1, len(made))} quarters")
    graph.outputs = list(proofs)
    program = Program(graph.extract(graph.needed(proofs))) if proofs else None
    for cut in (1, 2) if program is not None else ():
        pieces = []
        for part in (slice(0, cut), slice(cut, N_SAMPLES)):
            given_part = {n: v if n not in way else v[(slice(None),) * way[n] + (part,)] for n, v in feeds.items()}
            pieces.append(dict(zip(program.outputs, program.run(given_part), strict=True)))
        for name, proof in proofs.items():
            axis = proof.outputs[name]
            assert axis is not None
            joined = np.concatenate([piece[name] for piece in pieces], axis)
            want = sketch.values[name]
            assert joined.shape == want.shape, name
            np.testing.assert_allclose(joined.astype(np.float64), want, rtol=1e-4, atol=1e-5, err_msg=name)
            known = proof.layouts[name].of(N_SAMPLES)
            assert all(dim in (None, real) for dim, real in itertools.zip_longest(known, want.shape)), name
