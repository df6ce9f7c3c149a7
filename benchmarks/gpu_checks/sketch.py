"""Graphs written node by node, with random weights: the models that checks make for themselves."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from gpu_checks.arrays import Array


class Sketch:
    """``dtype``: of weights, inputs and outputs, which are floats."""

    def __init__(self, dtype: Any = np.float32, seed: int = 0, opset: int = 20) -> None:
        self.dtype = np.dtype(dtype)
        self._rng = np.random.default_rng(seed)
        self._opset = opset
        self._nodes: list[Any] = []
        self._weights: list[Any] = []
        self._inputs: list[Any] = []
        self._n = 0

    def input(self, name: str, *shape: int | str) -> str:
        element = helper.np_dtype_to_tensor_dtype(self.dtype)
        self._inputs.append(helper.make_tensor_value_info(name, element, list(shape)))
        return name

    def node(self, op_type: str, *inputs: str, **attributes: Any) -> str:
        self._n += 1
        name = f"{op_type.lower()}_{self._n}"
        self._nodes.append(helper.make_node(op_type, list(inputs), [name], name=f"n_{name}", **attributes))
        return name

    def constant(self, values: Any, dtype: Any = np.int64) -> str:
        self._n += 1
        name = f"c_{self._n}"
        self._weights.append(numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def weight(self, *shape: int, scale: float | None = None, around: float = 0.0) -> str:
        """Of a normal distribution: as wide as keeps sums of products near 1 where ``scale`` isn't given."""
        fan_in = math.prod(shape[1:]) if len(shape) > 2 else shape[0]
        values = self._rng.standard_normal(shape, np.float32) * (1 / math.sqrt(fan_in) if scale is None else scale)
        return self.constant(values + around, self.dtype)

    def reshape(self, x: str, *shape: int) -> str:
        return self.node("Reshape", x, self.constant(shape))

    def linear(self, x: str, n_in: int, n_out: int) -> str:
        return self.node("Add", self.node("MatMul", x, self.weight(n_in, n_out)), self.weight(n_out, scale=0.1))

    def norm(self, x: str, size: int) -> str:
        scale, bias = self.weight(size, scale=0.1, around=1.0), self.weight(size, scale=0.1)
        return self.node("LayerNormalization", x, scale, bias, axis=-1, epsilon=1e-5)

    def attention(self, x: str, size: int, heads: int, length: int) -> str:
        """x: [N, length, size], as exporters write it."""
        depth = size // heads

        def split(perm: list[int]) -> str:
            part = self.reshape(self.linear(x, size, size), -1, length, heads, depth)
            return self.node("Transpose", part, perm=perm)

        scores = self.node("MatMul", split([0, 2, 1, 3]), split([0, 2, 3, 1]))
        scaled = self.node("Mul", scores, self.constant(depth**-0.5, self.dtype))
        mixed = self.node("MatMul", self.node("Softmax", scaled, axis=-1), split([0, 2, 1, 3]))
        whole = self.reshape(self.node("Transpose", mixed, perm=[0, 2, 1, 3]), -1, length, size)
        return self.linear(whole, size, size)

    def layer(self, x: str, size: int, heads: int, length: int) -> str:
        """Of a transformer, normalized before."""
        x = self.node("Add", x, self.attention(self.norm(x, size), size, heads, length))
        wide = self.node("Gelu", self.linear(self.norm(x, size), size, 4 * size), approximate="none")
        return self.node("Add", x, self.linear(wide, 4 * size, size))

    def model(self, **outputs: tuple[str, tuple[int | str, ...]]) -> Any:
        """``outputs``: by their names, the values, and their shapes."""
        element = helper.np_dtype_to_tensor_dtype(self.dtype)
        for name, (value, _) in outputs.items():
            self._nodes.append(helper.make_node("Identity", [value], [name], name=f"n_{name}"))
        infos = [helper.make_tensor_value_info(name, element, list(shape)) for name, (_, shape) in outputs.items()]
        graph = helper.make_graph(self._nodes, "sketch", self._inputs, infos, self._weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self._opset)], ir_version=10)


def vit(*, size: int = 768, heads: int = 12, layers: int = 12, image: int = 224, patch: int = 16) -> onnx.ModelProto:
    """A vision transformer, as ViT-B/16 where nothing else is said: pixels [N, 3, image, image] -> logits [N, 1000]."""
    made = Sketch()
    length = (image // patch) ** 2 + 1
    pixels = made.input("pixels", "N", 3, image, image)
    patches = made.node(
        "Conv",
        pixels,
        made.weight(size, 3, patch, patch),
        made.weight(size, scale=0.1),
        kernel_shape=[patch, patch],
        strides=[patch, patch],
    )
    x = made.node("Transpose", made.node("Reshape", patches, made.constant([0, size, -1])), perm=[0, 2, 1])
    count = made.node("Shape", pixels, start=0, end=1)
    first = made.node("Concat", count, made.constant([1, size]), axis=0)
    x = made.node("Concat", made.node("Expand", made.weight(1, 1, size), first), x, axis=1)
    x = made.node("Add", x, made.weight(1, length, size, scale=0.02))
    for _ in range(layers):
        x = made.layer(x, size, heads, length)
    token = made.node("Gather", made.norm(x, size), made.constant(0), axis=1)
    return made.model(logits=(made.linear(token, size, 1000), ("N", 1000)))


def mixed(dtype: Any, *, batch: int = 2, channels: int = 64, side: int = 16, heads: int = 4) -> onnx.ModelProto:
    """A convolution, products, attention and kernels of our own: x [batch, channels, side, side] -> y alike."""
    made = Sketch(dtype)
    x = made.input("x", batch, channels, side, side)
    length = side * side
    weights = made.weight(channels, channels, 3, 3), made.weight(channels, scale=0.1)
    y = made.node("Relu", made.node("Conv", x, *weights, kernel_shape=[3, 3], pads=[1, 1, 1, 1]))
    tokens = made.node("Transpose", made.reshape(y, batch, channels, length), perm=[0, 2, 1])
    tokens = made.norm(made.layer(tokens, channels, heads, length), channels)
    back = made.reshape(made.node("Transpose", tokens, perm=[0, 2, 1]), batch, channels, side, side)
    return made.model(y=(made.node("Add", back, x), (batch, channels, side, side)))


def feed_of(model: onnx.ModelProto, seed: int = 0) -> dict[str, Array]:
    """Random floats for all inputs of fixed shape."""
    rng = np.random.default_rng(seed)
    found = {}
    for value in model.graph.input:
        told = value.type.tensor_type
        shape = tuple(dim.dim_value for dim in told.shape.dim)
        dtype = helper.tensor_dtype_to_np_dtype(told.elem_type)
        found[value.name] = rng.standard_normal(shape, np.float32).astype(dtype)
    return found
