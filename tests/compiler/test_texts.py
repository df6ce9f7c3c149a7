"""What is made of text that was fed has a known shape: the rest of the model is compiled before the first run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from distort.engine import load_model
from distort.kernels.compiler.ir import Host
from distort.kernels.compiler.program import CompiledProgram
from distort.kernels.errors import KernelError
from distort.kernels.program import Program

from .comparing import agree

KEYS = ["a", "b", "c"]
TENSOR = {
    "keys_tensor": helper.make_tensor("k", TensorProto.STRING, [3], KEYS),
    "values_tensor": numpy_helper.from_array(np.array([1.5, 2.5, 3.5], np.float64)),
    "default_tensor": numpy_helper.from_array(np.array([-1.0], np.float64)),
}


def graph_of(make: Any) -> Any:
    first = make()
    nodes = [first, helper.make_node("Mul", ["number", "number"], ["y"])]
    kind = TensorProto.FLOAT
    for attribute in first.attribute:
        if attribute.name in ("values_int64s", "classes_strings"):
            kind = TensorProto.INT64
        if attribute.name == "values_tensor":
            kind = TensorProto.DOUBLE
    inputs = [helper.make_tensor_value_info("x", TensorProto.STRING, ["N", 2])]
    outputs = [helper.make_tensor_value_info("y", kind, ["N", 2])]
    version = 1 if any(a.name == "classes_strings" for a in first.attribute) else 4
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", version)]
    model = helper.make_model(helper.make_graph(nodes, "texts", inputs, outputs), opset_imports=opsets, ir_version=8)
    return load_model(model.SerializeToString()).graph


def encoder(**attributes: Any) -> Any:
    return helper.make_node("LabelEncoder", ["x"], ["number"], domain="ai.onnx.ml", **attributes)


@pytest.mark.parametrize(
    "attributes",
    [
        {"keys_strings": KEYS, "values_int64s": [5, 6, 7]},
        {"keys_strings": KEYS, "values_floats": [0.5, 0.25, 8.0]},
        {"classes_strings": KEYS},
        TENSOR,
        None,
    ],
)
def test_numbers_of_text_are_expected(attributes: dict[str, Any] | None) -> None:
    def make() -> Any:
        if attributes is None:
            return helper.make_node("Cast", ["x"], ["number"], to=TensorProto.FLOAT)
        return encoder(**attributes)

    graph = graph_of(make)
    program, plain = CompiledProgram(graph), Program(graph)
    for n in (1, 4, 3):
        text = [["a", "z"], ["c", "b"]] if attributes is not None else [["1.5", "-2"], ["3e2", "7"]]
        feeds = {"x": np.array((text * n)[:n], object)}
        agree(program.run(feeds), plain.run(feeds), rtol=0, atol=0)
        _, plan = program.plans[-1]
        assert not plan.unknown
        assert [operation.node.op_type for operation in plan.operations if isinstance(operation, Host)] == [
            "Cast" if attributes is None else "LabelEncoder"
        ]
    assert len(program.plans) == 3


def test_text_that_is_no_number_is_an_error() -> None:
    graph = graph_of(lambda: helper.make_node("Cast", ["x"], ["number"], to=TensorProto.FLOAT))
    with pytest.raises(KernelError):
        CompiledProgram(graph).run({"x": np.array([["1", "one"]], object)})
