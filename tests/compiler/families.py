"""Small graphs that take a kernel of every family, with their feeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx.parser

from distort.engine import load_model
from distort.graph.ir import Graph, Node

from .comparing import model_of
from .test_trees import classifier, rows

Array = np.ndarray[Any, Any]
Example = tuple[Graph, dict[str, Array]]


def reals(*shape: int, scale: float = 1.0) -> Array:
    return (np.random.default_rng(sum(shape)).standard_normal(shape) * scale).astype(np.float32)


def whole(dtype: Any, low: int, high: int, *shape: int) -> Array:
    return np.random.default_rng(sum(shape)).integers(low, high, shape).astype(dtype)


def graph_of(nodes: Sequence[Node], feeds: Mapping[str, Array], weights: Mapping[str, Any], *outputs: str) -> Example:
    known = {name: np.asarray(value) for name, value in weights.items()}
    return Graph(nodes=list(nodes), inputs=list(feeds), outputs=list(outputs or ["y"]), initializers=known), dict(feeds)


def node(op_type: str, inputs: str, outputs: str = "y", domain: str = "", **attributes: Any) -> Node:
    """``inputs`` and ``outputs`` by name; ``-`` for one that is left out."""
    names = ["" if name == "-" else name for name in inputs.split()]
    opset = {"": 21, "ai.onnx.ml": 3}.get(domain, 1)
    return Node(op_type, domain, names, outputs.split(), attributes=attributes, opset=opset)


def of_text(text: str, feeds: dict[str, Array]) -> Example:
    model = load_model(onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]>\n{text}').SerializeToString())
    return model.graph, feeds


def _images() -> Example:
    """Convolutions of all kinds, with what happens to channels in blocks between them."""
    weights = {
        "first": reals(22, 3, 3, 3, scale=0.2),
        "square": reals(40, 44, 3, 3, scale=0.05),
        "apart": reals(40, 1, 3, 3, scale=0.3),
        "last": reals(8, 40, 1, 1, scale=0.2),
        "sizes": np.array([1.0, 1.0, 2.0, 2.0], np.float32),
    }
    nodes = [
        node("Conv", "x first", "a", pads=[1, 1, 1, 1]),
        node("Relu", "a", "b"),
        node("MaxPool", "b", "c", kernel_shape=[3, 3], strides=[2, 2]),
        node("Concat", "c c", "d", axis=1),
        node("Conv", "d square", "e", pads=[1, 1, 1, 1]),
        node("Resize", "e - sizes", "f", mode="linear"),
        node("Conv", "f apart", "g", group=40),
        node("GlobalAveragePool", "g", "h"),
        node("Mul", "g h", "i"),
        node("Conv", "i last", "y"),
    ]
    return graph_of(nodes, {"x": reals(1, 3, 37, 37)}, weights)


def _resizes() -> Example:
    nodes = [
        node("Resize", "x - by", "y", mode="nearest"),
        node("Resize", "x - by", "z", mode="linear"),
        node("Resize", "x - by", "w", mode="cubic"),
        node("Resize", "x - across", "v", mode="linear"),
        node("GridSample", "x grid", "s"),
    ]
    grid = np.clip(reals(1, 4, 9, 2), -1.2, 1.2)
    factors = {"by": np.array([1, 1, 1.7, 2.3], np.float32), "across": np.array([1, 1.5, 1, 1], np.float32)}
    return graph_of(nodes, {"x": reals(1, 3, 9, 21), "grid": grid}, factors, *"yzwvs")


def _moves() -> Example:
    nodes = [
        node("Transpose", "x", "a", perm=[1, 0]),
        node("Transpose", "three", "c", perm=[1, 0]),
        node("Transpose", "x", "d", perm=[1, 0]),
        node("Exp", "d", "e"),
        node("Gather", "x rows", "f"),
        node("GatherElements", "x places", "g", axis=1),
        node("ReverseSequence", "x lengths", "h", batch_axis=0, time_axis=1),
        node("TopK", "x k", "i j", axis=1),
        node("CumSum", "x axis", "l"),
        node("CumSum", "x first", "m"),
        node("ScatterND", "x at new", "n"),
        node("ScatterElements", "x places x", "o", axis=1),
        node("ReduceMean", "x first_axis", "q"),
    ]
    feeds = {
        "x": reals(40, 51),
        "three": reals(3, 280),
        "rows": whole(np.int64, -40, 40, 9),
        "places": np.argsort(reals(40, 51), axis=1),
        "lengths": whole(np.int64, 1, 51, 40),
        "new": reals(3, 51),
    }
    weights = {
        "k": np.array([5]),
        "axis": np.array(1),
        "first": np.array(0),
        "at": np.array([[3], [7], [1]]),
        "first_axis": np.array([0]),
    }
    return graph_of(nodes, feeds, weights, *"acefghijlmnoq")


def _halves() -> Example:
    """Element-wise work and sums in half precision."""
    nodes = [
        node("MatMul", "x w", "a"),
        node("Gelu", "a", "b"),
        node("Softmax", "b", "c"),
        node("LayerNormalization", "c scale", "y"),
    ]
    weights = {"w": reals(33, 20, scale=0.3).astype(np.float16), "scale": reals(20).astype(np.float16)}
    return graph_of(nodes, {"x": reals(7, 33).astype(np.float16)}, weights)


def _dense() -> Example:
    nodes = [node("MatMul", "x w", "a"), node("Add", "a b", "c"), node("Relu", "c")]
    return graph_of(nodes, {"x": reals(37, 70)}, {"w": reals(70, 33, scale=0.2), "b": reals(33)})


def _attention() -> Example:
    nodes = [
        node("MatMul", "q k", "a"),
        node("Mul", "a factor", "b"),
        node("Add", "b mask", "c"),
        node("Softmax", "c", "d"),
        node("MatMul", "d v", "y"),
    ]
    feeds = {"q": reals(2, 3, 19, 16), "k": reals(2, 3, 16, 23), "v": reals(2, 3, 23, 16), "mask": reals(2, 1, 19, 23)}
    return graph_of(nodes, feeds, {"factor": np.float32(0.25)})


def _recurrent() -> Example:
    nodes = [
        node("LSTM", "x w r", "a", hidden_size=20),
        node("GRU", "x u s", "c", hidden_size=20, linear_before_reset=1),
    ]
    weights = {
        "w": reals(1, 80, 12, scale=0.3),
        "r": reals(1, 80, 20, scale=0.3),
        "u": reals(1, 60, 12, scale=0.3),
        "s": reals(1, 60, 20, scale=0.3),
    }
    return graph_of(nodes, {"x": reals(5, 3, 12)}, weights, "a", "c")


def _of_bytes(signed: bool) -> Example:
    """Dynamic quantization, products and convolutions of bytes, tables of functions."""
    nodes = [
        node("DynamicQuantizeLinear", "x", "a s z"),
        node("DynamicQuantizeLinear", "many", "many_bytes many_s many_z"),
        node("MatMulInteger", "a w z", "b"),
        node("Cast", "b", "c", to=1),
        node("Mul", "c s", "y"),
        node("QLinearConv", "image is iz filters fs fz os oz", "d", pads=[1, 1, 1, 1]),
        node("QLinearConv", "d os oz apart fs fz os oz", "e", group=16),
        node("QLinearSigmoid", "d os oz os2 oz", "g", domain="com.microsoft"),
    ]
    weights: dict[str, Any] = {
        "w": whole(np.int8, -128, 128, 70, 33),
        "is": np.float32(0.02),
        "iz": np.uint8(120),
        "filters": whole(np.int8, -128, 128, 16, 6, 3, 3),
        "apart": whole(np.int8, -128, 128, 16, 1, 3, 3),
        "fs": np.float32(0.01),
        "fz": np.int8(0),
        "os": np.float32(0.1),
        "os2": np.float32(1 / 256),
        "oz": np.uint8(128),
    }
    feeds = {"x": reals(9, 70), "many": reals(200, 150), "image": whole(np.uint8, 0, 256, 1, 6, 11, 19)}
    if signed:
        weights |= {"iz": np.int8(3), "oz": np.int8(-5)}
        feeds["image"] = whole(np.int8, -128, 128, 1, 6, 11, 19)
    return graph_of(nodes, feeds, weights, "y", "many_bytes", "d", "e", "g")


def _few_bits() -> Example:
    weights = {"b": whole(np.uint8, 0, 256, 70, 8, 16), "s": np.abs(reals(560, scale=0.02)) + np.float32(0.01)}
    attributes = {"K": 256, "N": 70, "bits": 4, "block_size": 32}
    nodes = [node(*("MatMulNBits", f"{x} b s", y, "com.microsoft"), **attributes) for x, y in ("ay", "cz")]
    return graph_of(nodes, {"a": reals(2, 256), "c": reals(9, 256)}, weights, "y", "z")


def _regions() -> Example:
    nodes = [
        node("MaxPool", "x", "p places", kernel_shape=[2, 2], strides=[2, 2]),
        node("RoiAlign", "p regions images", "y", output_height=3, output_width=2, sampling_ratio=2),
        node("MaxRoiPool", "p numbered", "z", pooled_shape=[2, 3]),
        node("Col2Im", "columns size block", "image", pads=[1, 1, 1, 1]),
    ]
    regions = np.array([[0, 1, 4, 5], [-2, 0, 9, 3], [2, 2, 2, 2]], np.float32)
    feeds = {"x": reals(2, 20, 11, 12), "regions": regions, "images": np.array([1, 0, 1])}
    feeds |= {"numbered": np.pad(regions, ((0, 0), (1, 0))), "columns": reals(1, 45, 99)}
    weights = {"size": np.array([9, 11]), "block": np.array([3, 3])}
    return graph_of(nodes, feeds, weights, "places", "y", "z", "image")


def _rotary() -> Example:
    attributes = {"num_heads": 3, "rotary_embedding_dim": 22}
    nodes = [
        node("RotaryEmbedding", "x at cos sin", y, "com.microsoft", interleaved=way, **attributes)
        for way, y in ((0, "y"), (1, "z"))
    ]
    angles = np.abs(reals(9, 11))
    feeds = {"x": reals(2, 5, 3 * 26), "at": whole(np.int64, 0, 9, 2, 5)}
    return graph_of(nodes, feeds, {"cos": np.cos(angles), "sin": np.sin(angles)}, "y", "z")


def _trees() -> Example:
    model = model_of([classifier([3, 5, 9], post_transform="SOFTMAX")], {"x": rows(50)}, {}, ("label", "y"))
    return load_model(model).graph, {"x": rows(50)}


def _branches() -> Example:
    """A branch that refuses its input, where the other one is taken."""
    text = """g (bool c, float[N] x) => (float[M] y) {
        y = If(c) <
            then_branch = then () => (float[M] a) { a = Add(x, x) },
            else_branch = other () => (float[M] a) { shape = Constant<value = int64[1] {4}>()  a = Reshape(x, shape) }
        >
    }"""
    return of_text(text, {"c": np.array(True), "x": reals(6)})


def _rounds() -> Example:
    """A loop whose results are stacked, and that might end sooner."""
    text = """g (float[N] x, float limit) => (float[N] y, float[R, N] all) {
        n = Constant<value = int64 {4}>()
        go = Constant<value = bool {1}>()
        y, all = Loop(n, go, x) <
            body = round (int64 i, bool c, float[N] p) => (bool d, float[N] q, float[N] t) {
                q = Tanh(p)
                t = Neg(q)
                top = ReduceMax<keepdims = 0>(q)
                d = Less(top, limit)
            }
        >
    }"""
    return of_text(text, {"x": reals(9), "limit": np.array(1e9, np.float32)})


EXAMPLES = {
    "images": _images(),
    "resizes": _resizes(),
    "regions": _regions(),
    "rotary": _rotary(),
    "moves": _moves(),
    "halves": _halves(),
    "dense": _dense(),
    "attention": _attention(),
    "recurrent": _recurrent(),
    "bytes": _of_bytes(False),
    "signed bytes": _of_bytes(True),
    "few bits": _few_bits(),
    "trees": _trees(),
    "branches": _branches(),
    "rounds": _rounds(),
}
