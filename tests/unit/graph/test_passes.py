"""Optimization passes, on graphs as text. Each result is compared with the graph before by onnx's reference."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from distort.graph import passes, writer
from distort.graph.ir import Graph, Model, Node
from distort.graph.types import TensorType, element_of

Read = Callable[[str], Model]
Optimize = Callable[..., list[str]]


def run(model: Model, feeds: Mapping[str, Any]) -> list[Any]:
    reference = pytest.importorskip("onnx.reference")
    results: list[Any] = reference.ReferenceEvaluator(writer.to_proto(model)).run(None, dict(feeds))
    return results


def evaluate(node: Node, inputs: Sequence[Any]) -> tuple[Any, ...] | None:
    graph = Graph("one", [n for n in node.inputs if n], [o for o in node.outputs if o], [copy.copy(node)])
    feeds = {name: value for name, value in zip(node.inputs, inputs, strict=True) if name}
    graph.types = {name: TensorType(element_of(value.dtype), value.shape) for name, value in feeds.items()}
    return tuple(run(Model(graph, {node.domain: node.opset}, ir_version=8), feeds))


def optimized(model: Model, feeds: Mapping[str, Any], level: str = "basic") -> list[str]:
    """Optimize, and check that results and interface stay; twice, since a settled graph must not change."""
    before, inputs, outputs = run(model, feeds), list(model.graph.inputs), list(model.graph.outputs)
    changes = passes.optimize(model, level, evaluate)
    assert (model.graph.inputs, model.graph.outputs) == (inputs, outputs)
    for wanted, result in zip(before, run(model, feeds), strict=True):
        np.testing.assert_allclose(result, wanted, rtol=1e-5, atol=1e-6)
    assert passes.optimize(model, level, evaluate) == []
    return changes


def op_types(graph: Graph) -> list[str]:
    return [node.op_type for node in graph.nodes]


X = np.array([[1.0, -2.0, 3.0], [4.0, 5.0, -6.0]], np.float32)


def test_disabled_changes_nothing(read: Read) -> None:
    model = read("g (float[2, 3] x) => (float[2, 3] y) { a = Identity(x) y = Relu(a) }")
    assert passes.optimize(model, "disable", evaluate) == []
    assert op_types(model.graph) == ["Identity", "Relu"]


def test_an_unknown_level_lists_the_known(read: Read) -> None:
    model = read("g (float[2, 3] x) => (float[2, 3] y) { y = Relu(x) }")
    with pytest.raises(ValueError, match="disable, basic, extended, layout, all"):
        passes.optimize(model, "99", evaluate)


@pytest.mark.parametrize(
    ("body", "left"),
    [
        ("a = Identity(x) y = Relu(a)", ["Relu"]),
        ("a = Relu(x) y = Identity(a)", ["Relu"]),
        ("a = Relu(x) b = Identity(a) y = Identity(b)", ["Relu"]),
        ("y = Identity(x)", ["Identity"]),
        ("a = Dropout(x) y = Relu(a)", ["Relu"]),
        (
            "off = Constant<value = bool {0}>() r = Constant<value = float {0.5}>() a = Dropout(x, r, off) y = Abs(a)",
            ["Abs"],
        ),
        ("a = Cast<to = 1>(x) y = Relu(a)", ["Relu"]),
        ("h = Cast<to = 10>(x) a = Cast<to = 1>(h) y = Relu(a)", ["Cast", "Cast", "Relu"]),
        ("a = Transpose<perm = [0, 1]>(x) y = Relu(a)", ["Relu"]),
        ("a = Transpose<perm = [1, 0]>(x) b = Transpose<perm = [1, 0]>(a) y = Relu(b)", ["Relu"]),
        ("a = Transpose(x) b = Transpose(a) y = Relu(b)", ["Relu"]),
        ("s = Constant<value = int64[2] {2, 3}>() a = Reshape(x, s) y = Relu(a)", ["Relu"]),
        ("s = Constant<value = int64[2] {-1, 3}>() a = Reshape(x, s) y = Relu(a)", ["Relu"]),
        (
            "s = Constant<value = int64[1] {-1}>() t = Constant<value = int64[2] {2, 3}>()"
            "a = Reshape(x, s) b = Reshape(a, t) y = Relu(b)",
            ["Relu"],
        ),
        (
            "s = Constant<value = int64[2] {3, 2}>() t = Constant<value = int64[2] {0, -1}>()"
            "a = Reshape(x, s) b = Reshape(a, t) c = Transpose(b) y = Relu(c)",
            ["Reshape", "Transpose", "Relu"],
        ),
        ("k = Constant<value = float {1.0}>() a = Mul(x, k) y = Relu(a)", ["Relu"]),
        ("k = Constant<value = float {0.0}>() a = Sub(x, k) y = Relu(a)", ["Relu"]),
        ("k = Constant<value = float {0.0}>() a = Add(x, k) y = Relu(a)", ["Add", "Relu"]),
        ("k = Constant<value = float[1, 1, 1] {1.0}>() a = Mul(x, k) y = Relu(a)", ["Mul", "Relu"]),
        ("a = Concat<axis = 0>(x) y = Relu(a)", ["Relu"]),
        ("s = Constant<value = int64[2] {1, 3}>() a = Expand(x, s) y = Relu(a)", ["Relu"]),
        ("a = Flatten(x) y = Relu(a)", ["Relu"]),
        ("p = Constant<value = int64[4] {0, 0, 0, 0}>() a = Pad(x, p) y = Relu(a)", ["Relu"]),
        ("a = Relu(x) b = Relu(x) y = Add(a, b)", ["Relu", "Add"]),
        (
            "a = LeakyRelu<alpha = 0.1>(x) b = LeakyRelu<alpha = 0.2>(x) y = Add(a, b)",
            ["LeakyRelu", "LeakyRelu", "Add"],
        ),
        ("dead = Exp(x) y = Relu(x)", ["Relu"]),
        ("s = Shape(x) c = ConstantOfShape(s) y = Add(x, c)", ["Add"]),
        ("a = Constant<value_floats = [1.0, 2.0, 3.0]>() b = Neg(a) y = Mul(x, b)", ["Mul"]),
    ],
)
def test_basic(read: Read, body: str, left: list[str]) -> None:
    # the rank of y is not declared, since some bodies change it
    model = read(f"g (float[2, 3] x) => (float[] y) {{ {body} }}".replace("float[] y", "float y"))
    model.graph.types["y"] = TensorType(1)
    optimized(model, {"x": X})
    assert op_types(model.graph) == left


def test_columns_are_read_where_they_come_from(read: Read) -> None:
    text = """<ir_version: 10, opset_import: ["": 21, "ai.onnx.ml": 3]>
    g (float[N,1] a, float[N,2] b, float[N,1] c) => (float[N,K] w, float[N,K] x, float[N,K] y, float[N,K] z)
    <int64[1] first = {0}, int64[1] second = {1}, int64[1] last = {3}, int64[2] both = {0, 3}>
    {
        joined = Concat<axis=1>(a, b, c)
        w = ai.onnx.ml.ArrayFeatureExtractor(joined, second)
        u = ai.onnx.ml.ArrayFeatureExtractor(joined, first)
        v = ai.onnx.ml.ArrayFeatureExtractor(joined, last)
        z = ai.onnx.ml.ArrayFeatureExtractor(joined, both)
        x = Neg(u)
        y = Neg(v)
    }"""
    model = read(text)
    feeds = {"a": X[:, :1], "b": X[:, 1:], "c": -X[:, :1]}
    changes = optimized(model, feeds)
    assert "2 columns read where they come from" in changes
    assert [node.inputs[0] for node in model.graph.nodes if node.op_type == "Neg"] == ["a", "c"]


@pytest.mark.parametrize(
    ("constants", "body", "left"),
    [
        ("int64[2] s = {1, 2}, int64 i = {1}", "q = SplitToSequence<axis = 1>(x, s) y = SequenceAt(q, i)", ["Split"]),
        ("int64 s = {2}, int64 i = {-1}", "q = SplitToSequence<axis = 1>(x, s) y = SequenceAt(q, i)", ["Split"]),
        ("int64 i = {0}", "q = SplitToSequence(x) y = SequenceAt(q, i)", ["Split"]),
        (
            "int64 i = {0}",
            "q = SplitToSequence<keepdims = 0>(x) y = SequenceAt(q, i)",
            ["SplitToSequence", "SequenceAt"],
        ),
        ("int64 i = {1}", "a = Neg(x) q = SequenceConstruct(x, a) y = SequenceAt(q, i)", ["Neg"]),
        ("int64 i = {2}", "q = SequenceConstruct(x, x) y = ConcatFromSequence<axis = 1>(q)", ["Concat"]),
        (
            "int64 i = {2}",
            "q = SequenceConstruct(x, x) y = ConcatFromSequence<axis = 0, new_axis = 1>(q)",
            ["SequenceConstruct", "ConcatFromSequence"],
        ),
        (
            "int64 i = {2}",
            "q = SequenceConstruct(x, x) n = SequenceLength(q) m = Cast<to = 1>(n) y = Mul(x, m)",
            ["Mul"],
        ),
        (  # the last item's place is known a round later than the first's
            "int64 i = {0}, int64 one = {1}",
            "q = SplitToSequence(x) n = SequenceLength(q) j = Sub(n, one) a = SequenceAt(q, i) z = SequenceAt(q, j) "
            "y = Sub(a, z)",
            ["Split", "Sub"],
        ),
    ],
)
def test_items_of_sequences_are_read_where_they_come_from(
    read: Read, constants: str, body: str, left: list[str]
) -> None:
    model = read(f"g (float[2, 3] x) => (float y) <{constants}> {{ {body} }}")
    model.graph.types["y"] = TensorType(1)
    optimized(model, {"x": X})
    assert op_types(model.graph) == left


@pytest.mark.parametrize("shape", ["{-1}", "{1, -1}"])
def test_labels_of_classes_are_gathered(read: Read, shape: str) -> None:
    rank = shape.count(",") + 1
    model = read(
        f"""<ir_version: 10, opset_import: ["": 21, "ai.onnx.ml": 3]>
    g (float[N,3] x) => (string[{"N" if rank == 1 else "1,N"}] y)
    <int64[{rank}] shape = {shape}, string[3] labels = {{"one", "two", "three"}}> {{
        best = ArgMax<axis=1, keepdims=0>(x)
        label = ai.onnx.ml.ArrayFeatureExtractor(labels, best)
        y = Reshape(label, shape)
    }}"""
    )
    before = run(model, {"x": X})[0].tolist()
    passes.optimize(model, "basic", evaluate)
    assert run(model, {"x": X})[0].tolist() == before
    assert op_types(model.graph)[-1] == ("Gather" if rank == 1 else "Reshape")


def test_both_outputs_of_one_value_stay(read: Read) -> None:
    model = read(
        "g (float[2, 3] x) => (float[2, 3] y, float[2, 3] z) {"
        "a = Relu(x) b = Identity(a) y = Identity(a) z = Identity(b) }"
    )
    optimized(model, {"x": X})
    assert sorted(op_types(model.graph)) == ["Identity", "Relu"]


def test_an_output_that_is_constant_stays_an_output(read: Read) -> None:
    model = read("g (float[2, 3] x) => (float[2, 3] y, int64[2] s) { y = Relu(x) s = Shape(x) }")
    optimized(model, {"x": X})
    assert model.graph.initializers["s"].tolist() == [2, 3]


def test_the_default_of_an_input_is_no_constant(read: Read) -> None:
    model = read(
        "g (float[2, 3] x, float[3] w) => (float[2, 3] y) <float[3] w = {1, 1, 1}> { n = Neg(w) y = Mul(x, n) }"
    )
    passes.optimize(model, "all", evaluate)
    assert op_types(model.graph) == ["Neg", "Mul"]
    np.testing.assert_array_equal(run(model, {"x": X, "w": np.full(3, 2, np.float32)})[0], -2 * X)


def test_shapes_that_are_known_in_part(read: Read) -> None:
    model = read(
        """g (float[N, 3, 4] x) => (float[M, 12] y)
        <int64 one = {1}, int64[1] two = {2}, int64[1] zero = {0}, int64[1] big = {9}> {
            s = Shape(x) c = Gather(s, one) axis = Constant<value = int64[1] {0}>()
            d = Slice(s, two, big) e = Mul(c, d) m = Slice(s, zero, one1) t = Concat<axis = 0>(m, e) y = Reshape(x, t)
        }"""
    )
    model.graph.initializers["one1"] = np.array([1])
    optimized(model, {"x": np.zeros((2, 3, 4), np.float32)})
    assert op_types(model.graph) == ["Shape", "Slice", "Concat", "Reshape"]


def test_a_wrong_declaration_of_a_value_folds_nothing_wrong(read: Read) -> None:
    model = read("g (float[2, 3] x) => (int64[2] y) <float[7, 7] a> { a = Neg(x) y = Shape(a) }")
    passes.optimize(model, "all", evaluate)
    assert model.graph.initializers["y"].tolist() == [2, 3]


@pytest.mark.parametrize(
    "body",
    [
        "s = Constant<value_ints = [1024, 1024]>() c = ConstantOfShape(s) y = Add(x, c)",
        "a = Constant<value = float {1.0}>() s = Constant<value_ints = [1024, 1024]>() c = Expand(a, s) y = Add(x, c)",
        "a = Constant<value_floats = [1.0]>() s = Constant<value_ints = [999999]>() c = Tile(a, s) y = Add(x, c)",
    ],
)
def test_large_results_are_not_kept(read: Read, body: str) -> None:
    model = read(f"g (float[1] x) => (float y) {{ {body} }}")
    model.graph.types["y"] = TensorType(1)
    evaluated: list[str] = []

    def watch(node: Node, inputs: Sequence[Any]) -> tuple[Any, ...] | None:
        evaluated.append(node.op_type)
        return evaluate(node, inputs)

    passes.optimize(model, "all", watch)
    assert len(model.graph.nodes) == 2
    assert set(evaluated) <= {"Constant"}


def test_random_numbers_are_neither_folded_nor_shared(read: Read) -> None:
    model = read(
        "g (float[2] x) => (float[2] y) {"
        "a = RandomNormal<shape = [2]>() b = RandomNormal<shape = [2]>() c = Add(a, b) y = Add(c, x) }"
    )
    passes.optimize(model, "all", evaluate)
    assert op_types(model.graph) == ["RandomNormal", "RandomNormal", "Add", "Add"]


def test_what_can_not_be_evaluated_is_left_and_tried_once(read: Read) -> None:
    model = read(
        "g (float[2] x) => (float[2] y) {"
        "k = Constant<value_floats = [1.0, 2.0]>() a = Neg(k) y = Add(x, a) b = Neg(y) }"
    )
    tried: list[str] = []

    def refuse(node: Node, inputs: Sequence[Any]) -> None:
        tried.append(node.op_type)

    model.graph.nodes[0].attributes = {"value": np.ones(2, np.float32)}
    passes.optimize(model, "all", refuse)
    assert op_types(model.graph) == ["Neg", "Add"]
    assert tried == ["Neg"]


def test_unread_optional_outputs_are_not_made_and_others_keep_their_names(read: Read) -> None:
    model = read("g (float[2, 3] x) => (float[2, 1] y) <int64[1] k = {1}> { v, i = TopK(x, k) y = Cast<to = 1>(i) }")
    optimized(model, {"x": X})
    assert model.graph.nodes[0].outputs[0] == "v"
    assert op_types(model.graph) == ["TopK", "Cast"]
    pool = read("g (float[1, 1, 4] x) => (float[1, 1, 3] y) { y, i = MaxPool<kernel_shape = [2]>(x) }")
    optimized(pool, {"x": np.ones((1, 1, 4), np.float32)})
    assert pool.graph.nodes[0].outputs == ["y"]


def test_bodies_are_optimized_and_captured_values_respected(read: Read) -> None:
    model = read(
        """g (float[2, 3] x, bool c) => (float[2, 3] y) <float[3] k = {1, 2, 3}> {
            a = Relu(x) b = Identity(a)
            y = If(c)<then_branch = t () => (float[2, 3] p) { n = Neg(k) m = Mul(b, n) p = Identity(m) },
                      else_branch = e () => (float[2, 3] q) { q = Identity(b) }>
        }"""
    )
    optimized(model, {"x": X, "c": np.array(True)})
    branch = model.graph.nodes[1].attributes["then_branch"]
    assert op_types(model.graph) == ["Relu", "If"]
    assert op_types(branch) == ["Mul"]
    np.testing.assert_array_equal(run(model, {"x": X, "c": np.array(False)})[0], np.maximum(X, 0))


@pytest.mark.parametrize(("taken", "expected"), [(1, ["Add", "Abs"]), (0, ["Abs", "Identity"])])
def test_a_decided_branch_moves_out(read: Read, taken: int, expected: list[str]) -> None:
    model = read(
        f"""g (float[2, 3] x) => (float[2, 3] y, float[2, 3] z) {{
            c = Constant<value = bool {{{taken}}}>()
            y, z = If(c)<
                then_branch = t () => (float[2, 3] p, float[2, 3] r) <float[3] k = {{1, 2, 3}}> {{
                    p = Add(x, k) r = Abs(p)
                }},
                else_branch = e () => (float[2, 3] q, float[2, 3] x2) {{ q = Abs(x) x2 = Identity(x) }}>
        }}"""
    )
    changes = optimized(model, {"x": X})
    assert "1 branches inlined" in changes
    assert op_types(model.graph) == expected


CONV = """g (float[1, 2, 5, 5] x) => (float[1, 3, 4, 4] y) <
    float[3] scale = {1.5, 2, 0.5}, float[3] shift = {1, 2, 3},
    float[3] mean = {0.1, 0.2, 0.3}, float[3] var = {1, 4, 0.5}
> { CONVOLUTION y = BatchNormalization<epsilon = 0.01>(c, scale, shift, mean, var) OTHER }"""


@pytest.mark.parametrize("convolution", ["c = Conv(x, w)", "c = Conv(x, w, mean)"])
def test_batch_normalization_folds_into_a_convolution(read: Read, convolution: str) -> None:
    def model() -> Model:
        made = read(CONV.replace("CONVOLUTION", convolution).replace("OTHER", ""))
        made.graph.initializers["w"] = np.random.default_rng(0).standard_normal((3, 2, 2, 2)).astype(np.float32)
        return made

    feeds = {"x": np.random.default_rng(1).standard_normal((1, 2, 5, 5)).astype(np.float32)}
    basic, extended = model(), model()
    optimized(basic, feeds, "basic")
    optimized(extended, feeds, "extended")
    assert op_types(basic.graph) == ["Conv", "BatchNormalization"]
    assert op_types(extended.graph) == ["Conv"]


def test_a_convolution_that_others_read_keeps_its_weights(read: Read) -> None:
    model = read(CONV.replace("CONVOLUTION", "c = Conv(x, w)").replace("OTHER", "z = Relu(c)"))
    model.graph.outputs.append("z")
    model.graph.types["z"] = TensorType(1)
    model.graph.initializers["w"] = np.ones((3, 2, 2, 2), np.float32)
    optimized(model, {"x": np.ones((1, 2, 5, 5), np.float32)}, "all")
    assert sorted(op_types(model.graph)) == ["BatchNormalization", "Conv", "Relu"]


@pytest.mark.parametrize(
    ("text", "merged"),
    [
        ("g (float[2, 3] x) => (float[2, 2] y) <float[3, 2] w = {1, 2, 3, 4, 5, 6}, float[2] b = {1, 2}>", True),
        ("g (float[2, 3] x) => (float[2, 2] y) <float[3, 2] w = {1, 2, 3, 4, 5, 6}, float[1, 2] b = {1, 2}>", True),
        ("g (float[2, 3] x) => (float[2, 2] y) <float[3, 2] w = {1, 2, 3, 4, 5, 6}, float b = {1}>", True),
        (
            "g (float[2, 3] x) => (float[1, 2, 2] y) <float[3, 2] w = {1, 2, 3, 4, 5, 6}, float[1, 1, 2] b = {1, 2}>",
            False,
        ),
        ("g (float[2, 3] x) => (float[2, 2] y) <float[3, 1] w = {1, 2, 3}, float[2] b = {1, 2}>", False),
        ("g (float[1, 2, 3] x) => (float[1, 2, 2] y) <float[3, 2] w = {1, 2, 3, 4, 5, 6}, float[2] b = {1, 2}>", False),
        ("g (float[2, 3] x, float[2, 2] b) => (float[2, 2] y) <float[3, 2] w = {1, 2, 3, 4, 5, 6}>", False),
    ],
)
@pytest.mark.parametrize("order", ["m, b", "b, m"])
def test_bias_merges_into_gemm_only_where_exact(read: Read, text: str, merged: bool, order: str) -> None:
    model = read(f"{text} {{ m = MatMul(x, w) y = Add({order}) }}")
    feeds = {"x": X.reshape(model.graph.types["x"].shape)}  # type: ignore[union-attr]  # sizes, as declared above
    if "b" in model.graph.inputs:
        feeds["b"] = np.ones((2, 2), np.float32)
    optimized(model, feeds, "extended")
    assert op_types(model.graph) == (["Gemm"] if merged else ["MatMul", "Add"])
