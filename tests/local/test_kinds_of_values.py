"""Every element type and kind of value crosses from the driver to an actor, from actor to actor, and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import distort

from ..element_types import ELEMENT_TYPES, assert_same, sample, tensor_type


def _options() -> distort.SessionOptions:
    options = distort.SessionOptions()
    options.execution_mode = distort.ExecutionMode.ORT_PARALLEL
    options.add_session_config_entry("distort.start", "wait")
    options.inter_op_num_threads = 2
    options.intra_op_num_threads = 1
    options.graph_optimization_level = distort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_session_config_entry("distort.strict_placement", "1")
    return options


def _chains(types: dict[str, onnx.TypeProto]) -> bytes:
    """Each value goes through two Identity nodes."""
    nodes = [helper.make_node("Identity", [name], [f"{name}_mid"]) for name in types]
    nodes += [helper.make_node("Identity", [f"{name}_mid"], [f"{name}_out"]) for name in types]
    inputs = [helper.make_value_info(name, type_) for name, type_ in types.items()]
    outputs = [helper.make_value_info(f"{name}_out", type_) for name, type_ in types.items()]
    graph = helper.make_graph(nodes, "chains", inputs, outputs)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 25)], ir_version=13).SerializeToString()


def test_tensors_of_every_elementtensor_type() -> None:
    samples = {f"x{i}": sample(kind) for i, kind in enumerate(ELEMENT_TYPES)}
    model = _chains({f"x{i}": tensor_type(kind) for i, kind in enumerate(ELEMENT_TYPES)})
    with distort.InferenceSession(model, _options()) as session:
        assert len(session.plan.stages) == 2
        for fed in (samples, {name: x.T for name, x in samples.items()}):
            for got, want in zip(session.run(None, fed), fed.values(), strict=True):
                assert_same(got, want)
    values = {name: distort.OrtValue.ortvalue_from_numpy(x) for name, x in samples.items() if x.dtype != object}
    numeric = [kind for kind in ELEMENT_TYPES if kind.kind != "O"]
    with distort.InferenceSession(
        _chains({f"x{i}": tensor_type(k) for i, k in enumerate(numeric)}), _options()
    ) as session:
        for result, value in zip(session.run_with_ort_values(None, values), values.values(), strict=True):
            assert_same(result.numpy(), value.numpy())
        binding = session.io_binding()
        for name, value in values.items():
            binding.bind_ortvalue_input(name, value)
            binding.bind_output(f"{name}_out", "cpu")
        session.run_with_iobinding(binding)
        for got, value in zip(binding.copy_outputs_to_cpu(), values.values(), strict=True):
            assert_same(got, value.numpy())


def test_sequences_and_optionals() -> None:
    kinds = [kind for kind in ELEMENT_TYPES if kind.isbuiltin != 2]  # the standard has no sequences of the others
    sequences = {f"s{i}": helper.make_sequence_type_proto(tensor_type(kind)) for i, kind in enumerate(kinds)}
    optionals = {f"o{i}": helper.make_optional_type_proto(tensor_type(kind)) for i, kind in enumerate(kinds)}
    absent = {f"n{i}": helper.make_optional_type_proto(sequences[f"s{i}"]) for i in range(len(kinds))}
    feeds: dict[str, Any] = {f"s{i}": [sample(kind)] * i for i, kind in enumerate(kinds)}
    feeds |= {f"o{i}": sample(kind) for i, kind in enumerate(kinds)} | dict.fromkeys(absent)
    with distort.InferenceSession(_chains(sequences | optionals | absent), _options()) as session:
        assert len(session.plan.stages) == 2
        results = dict(zip(feeds, session.run(None, feeds), strict=True))
    for i, kind in enumerate(kinds):
        assert len(results[f"s{i}"]) == i
        for item in results[f"s{i}"]:
            assert_same(item, sample(kind))
        assert_same(results[f"o{i}"], sample(kind))
        assert results[f"n{i}"] is None


def test_maps_and_sparse_weights() -> None:
    info = helper.make_tensor_value_info
    keys, numbers = TensorProto.STRING, helper.make_tensor_type_proto(TensorProto.FLOAT, [])
    maps = helper.make_sequence_type_proto(helper.make_map_type_proto(keys, numbers))
    sparse = helper.make_sparse_tensor(
        numpy_helper.from_array(np.array([1.5, -2], np.float32), "w"),
        numpy_helper.from_array(np.array([1, 2]), "w_indices"),
        [2, 2],
    )
    nodes = [
        helper.make_node("Add", ["x", "w"], ["sum"]),
        helper.make_node("ZipMap", ["sum"], ["zipped"], domain="ai.onnx.ml", classlabels_strings=["a", "b"]),
        helper.make_node("Identity", ["zipped"], ["y"]),
    ]
    outputs = [helper.make_value_info("y", maps)]
    graph = helper.make_graph(nodes, "g", [info("x", 1, [2, 2])], outputs, sparse_initializer=[sparse])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()
    x = np.array([[1, 2], [3, 4]], np.float32)
    with distort.InferenceSession(model, _options()) as session:
        assert len(session.plan.stages) == 2
        assert session.run(None, {"x": x}) == [[{"a": 1.0, "b": 3.5}, {"a": 1.0, "b": 4.0}]]
