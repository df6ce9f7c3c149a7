"""A model of single precision with its floats in half precision: weights, inputs, outputs, and what makes floats."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

#: operators whose inputs of these positions stay float32: the standard has no others there
_STAY = {"Resize": (1, 2), "Upsample": (1,), "QuantizeLinear": (), "DequantizeLinear": ()}
_LARGEST = float(np.finfo(np.float16).max)


def halved(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy. Numbers beyond float16's become its largest: those of masks are meant to be large, not infinite."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    _graph(made.graph)
    return made


def _graph(graph: onnx.GraphProto) -> None:
    stay = {node.input[i] for node in graph.node for i in _STAY.get(node.op_type, ()) if i < len(node.input)}
    for tensor in graph.initializer:
        if tensor.name not in stay:
            _tensor(tensor)
    for value in (*graph.input, *graph.output):
        told = value.type.tensor_type
        if value.type.HasField("tensor_type") and told.elem_type == TensorProto.FLOAT and value.name not in stay:
            told.elem_type = TensorProto.FLOAT16
    del graph.value_info[:]
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                _graph(attribute.g)
            elif attribute.type == onnx.AttributeProto.TENSOR and not stay & set(node.output):
                _tensor(attribute.t)
            elif attribute.name in ("to", "dtype") and attribute.i == TensorProto.FLOAT:
                attribute.i = TensorProto.FLOAT16
        if node.op_type == "Constant" and not stay & set(node.output):
            _constant(node)


def _tensor(tensor: onnx.TensorProto) -> None:
    if tensor.data_type != TensorProto.FLOAT:
        return
    values = np.clip(numpy_helper.to_array(tensor), -_LARGEST, _LARGEST)
    tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), tensor.name))


def _constant(node: onnx.NodeProto) -> None:
    """``value_float`` and ``value_floats`` are single precision by their kind: they become tensors."""
    for attribute in list(node.attribute):
        if attribute.name in ("value_float", "value_floats"):
            given = attribute.f if attribute.name == "value_float" else list(attribute.floats)
            values = np.clip(np.array(given, np.float32), -_LARGEST, _LARGEST).astype(np.float16)
            node.attribute.remove(attribute)
            node.attribute.append(helper.make_attribute("value", numpy_helper.from_array(values)))


__all__ = ["halved"]
