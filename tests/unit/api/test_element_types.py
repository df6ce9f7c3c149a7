"""All element types and kinds of values, in and out: arrays, OrtValues, bindings, sequences, optionals, maps."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper, parser

import distort

from ...element_types import ELEMENT_TYPES, assert_same, sample, tensor_type


def _identity(type_: onnx.TypeProto) -> bytes:
    node = helper.make_node("Identity", ["x"], ["y"])
    graph = helper.make_graph([node], "g", [helper.make_value_info("x", type_)], [helper.make_value_info("y", type_)])
    opsets = [helper.make_opsetid("", 25)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=13).SerializeToString()


@pytest.mark.parametrize("kind", ELEMENT_TYPES, ids=lambda kind: kind.name)
def test_tensors(kind: np.dtype[Any]) -> None:
    x = sample(kind)
    session = distort.InferenceSession(_identity(tensor_type(kind)))
    assert_same(session.run(None, {"x": x})[0], x)
    assert_same(session.run(None, {"x": x.T})[0], x.T)  # not contiguous
    if kind.kind == "O":  # strings live in arrays alone, as in onnxruntime
        with pytest.raises(RuntimeError, match="non-string numpy arrays"):
            distort.OrtValue.ortvalue_from_numpy(x)
        return
    value = distort.OrtValue.ortvalue_from_numpy(x)
    assert_same(value.numpy(), x)
    assert_same(session.run_with_ort_values(None, {"x": value})[0].numpy(), x)
    binding = session.io_binding()
    binding.bind_cpu_input("x", x)
    binding.bind_output("y")
    session.run_with_iobinding(binding)
    assert_same(binding.copy_outputs_to_cpu()[0], x)
    text = "string" if kind.kind == "O" else _tensor_name(kind)
    assert [item.type for item in (*session.get_inputs(), *session.get_outputs())] == [f"tensor({text})"] * 2


def _tensor_name(kind: np.dtype[Any]) -> str:
    names = {"float32": "float", "float64": "double", "float8_e8m0fnu": "float8e8m0", "float4_e2m1fn": "float4e2m1"}
    return names.get(kind.name, kind.name.replace("float8_", "float8"))


@pytest.mark.parametrize("kind", ELEMENT_TYPES, ids=lambda kind: kind.name)
def test_initializers(kind: np.dtype[Any]) -> None:
    x = sample(kind)
    node = helper.make_node("Identity", ["w"], ["y"])
    outputs = [helper.make_value_info("y", tensor_type(kind))]
    graph = helper.make_graph([node], "g", [], outputs, [numpy_helper.from_array(x, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 25)], ir_version=13)
    assert_same(distort.InferenceSession(model.SerializeToString()).run(None, {})[0], x)


@pytest.mark.parametrize("kind", ELEMENT_TYPES, ids=lambda kind: kind.name)
def test_sequences_and_optionals(kind: np.dtype[Any]) -> None:
    x = sample(kind)
    sequence = helper.make_sequence_type_proto(tensor_type(kind))
    if kind.isbuiltin == 2:
        with pytest.raises(distort.capi.onnxruntime_pybind11_state.InvalidGraph, match="Type Error"):
            distort.InferenceSession(_identity(sequence))  # the standard has none of them
        return
    got = distort.InferenceSession(_identity(sequence)).run(None, {"x": [x, x]})[0]
    assert isinstance(got, list)
    for item in got:
        assert_same(item, x)
    session = distort.InferenceSession(_identity(helper.make_optional_type_proto(tensor_type(kind))))
    assert_same(session.run(None, {"x": x})[0], x)
    assert session.run(None, {"x": None}) == [None]
    session = distort.InferenceSession(_identity(helper.make_optional_type_proto(sequence)))
    assert session.run(None, {"x": None}) == [None]
    assert_same(session.run(None, {"x": [x]})[0][0], x)


def test_sparse_initializers() -> None:
    values = numpy_helper.from_array(np.array([1.5, -2], np.float32), "w")
    indices = numpy_helper.from_array(np.array([1, 5]), "w_indices")
    sparse = helper.make_sparse_tensor(values, indices, [2, 3])
    node = helper.make_node("Add", ["x", "w"], ["y"])
    info = helper.make_tensor_value_info
    graph = helper.make_graph([node], "g", [info("x", 1, [2, 3])], [info("y", 1, [2, 3])], sparse_initializer=[sparse])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    want = np.array([[0, 1.5, 0], [0, 0, -2]], np.float32)
    assert_same(distort.InferenceSession(model.SerializeToString()).run(None, {"x": np.zeros((2, 3), "f")})[0], want)


def test_sparse_constants() -> None:
    values = numpy_helper.from_array(np.array([3.0], np.float32), "v")
    indices = numpy_helper.from_array(np.array([[1, 0]]), "i")
    node = helper.make_node("Constant", [], ["y"], sparse_value=helper.make_sparse_tensor(values, indices, [2, 2]))
    graph = helper.make_graph([node], "g", [], [helper.make_tensor_value_info("y", 1, [2, 2])])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    want = np.array([[0, 0], [3, 0]], np.float32)
    assert_same(distort.InferenceSession(model.SerializeToString()).run(None, {})[0], want)


def test_maps() -> None:
    model = parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17, "ai.onnx.ml" : 3]> g (float[N, 2] x) => (seq(map(string, float)) y)'
        '{ y = ai.onnx.ml.ZipMap <classlabels_strings = ["a", "b"]> (x) }'
    )
    got = distort.InferenceSession(model.SerializeToString()).run(None, {"x": np.array([[0.5, 1]], np.float32)})
    assert got == [[{"a": 0.5, "b": 1.0}]]


def test_a_sparse_tensor_that_contradicts_itself() -> None:
    values = numpy_helper.from_array(np.array([3.0], np.float32), "v")
    for indices in ([[2, 0]], [[-1, 0]], [4], [[1, 0], [0, 0]]):
        places = numpy_helper.from_array(np.array(indices), "i")
        sparse = helper.make_sparse_tensor(values, places, [2, 2])
        node = helper.make_node("Constant", [], ["y"], name="c", sparse_value=sparse)
        graph = helper.make_graph([node], "g", [], [helper.make_tensor_value_info("y", 1, [2, 2])])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        with pytest.raises(distort.capi.onnxruntime_pybind11_state.InvalidGraph, match="Sparse tensor 'v'"):
            distort.InferenceSession(model.SerializeToString())
