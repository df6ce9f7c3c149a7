"""A trained network of ``layers`` as an ONNX model, written with ``onnx.helper``."""

from __future__ import annotations

import numpy as np
import onnx
from layers import Array, Chain, Conv, Dense, Flatten, Layer, MaxPool, Relu, Residual
from onnx import TensorProto, helper, numpy_helper

OPSET = 18
IR_VERSION = 10


class _Writer:
    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.counts: dict[str, int] = {}

    def weight(self, name: str, value: Array) -> str:
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def node(self, op_type: str, inputs: list[str], output: str = "", **attributes: object) -> str:
        count = self.counts[op_type] = self.counts.get(op_type, 0) + 1
        name = f"{op_type.lower()}_{count}"
        self.nodes.append(helper.make_node(op_type, inputs, [output or name], name=name, **attributes))
        return output or name

    def layer(self, layer: Layer, x: str) -> str:
        count = len(self.weights)
        if isinstance(layer, Conv):
            weights = [self.weight(f"w{count}", layer.weight.value), self.weight(f"b{count}", layer.bias.value)]
            pad = layer.size // 2
            return self.node("Conv", [x, *weights], kernel_shape=[layer.size] * 2, pads=[pad] * 4)
        if isinstance(layer, Dense):
            weights = [self.weight(f"w{count}", layer.weight.value), self.weight(f"b{count}", layer.bias.value)]
            return self.node("Gemm", [x, *weights])
        if isinstance(layer, Relu):
            return self.node("Relu", [x])
        if isinstance(layer, MaxPool):
            return self.node("MaxPool", [x], kernel_shape=[2, 2], strides=[2, 2])
        if isinstance(layer, Flatten):
            return self.node("Flatten", [x], axis=1)
        if isinstance(layer, Residual):
            return self.node("Add", [self.chain(layer.inner, x), x])
        raise TypeError(f"no ONNX form of {type(layer).__name__}")

    def chain(self, chain: Chain, x: str) -> str:
        for layer in chain.layers:
            x = self.layer(layer, x)
        return x


def to_onnx(model: Chain, pixel_maximum: float, metadata: dict[str, str]) -> onnx.ModelProto:
    """``image`` [batch, 1, 8, 8] float, 0 to ``pixel_maximum`` -> ``probabilities`` [batch, 10] float."""
    writer = _Writer()
    scale = writer.weight("scale", np.array(1 / pixel_maximum, np.float32))
    logits = writer.chain(model, writer.node("Mul", ["image", scale]))
    writer.node("Softmax", [logits], "probabilities", axis=-1)
    graph = helper.make_graph(
        writer.nodes,
        "digits",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, 8, 8])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 10])],
        writer.weights,
    )
    made = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="distort examples/train_digits",
    )
    helper.set_model_props(made, metadata)
    onnx.checker.check_model(made, full_check=True)
    return made
