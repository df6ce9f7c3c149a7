"""Annotations: read, carried through functions and passes, written."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from distort.engine import has_kernel, optimize
from distort.graph import annotations, reader, writer
from distort.graph.annotations import Annotation, Configuration, Sharding
from distort.graph.errors import ModelError
from distort.graph.functions import expand
from distort.graph.ir import Model, Node

from ...annotated_models import annotate

CHAIN = "g (float[2,3] x) => (float[2,3] y) { [a] b = Sqrt(x) [c] y = Exp(b) }"


def read(proto: Any) -> Model:
    return reader.load(proto.SerializeToString())


def stages(model: Model, name: str = "two") -> dict[str, int | None]:
    """By the first output, which passes keep."""
    found = {node.outputs[0]: annotations.annotation(node, name) for node in model.graph.nodes}
    return {output: None if told is None else told.stage for output, told in found.items()}


def test_what_onnx_writes_is_read() -> None:
    proto = annotate(CHAIN, {"a": 0, "c": 1}, on={"a": [0]})
    spec = proto.graph.node[1].device_configurations[0].sharding_spec.add(tensor_name="b", device=[-1, 1])
    spec.index_to_device_group_map.add(key=-1, value=[0, 1])
    dim = spec.sharded_dim.add(axis=1)
    dim.simple_sharding.add(dim_value=3, num_shards=3)
    spec.sharded_dim.add(axis=0).simple_sharding.add(dim_param="N", num_shards=1)
    model = read(proto)
    assert annotations.configurations(model) == (Configuration("two", 2, ("cpu:0", "cpu:1")),)
    first, second = (annotations.annotation(node, "two") for node in model.graph.nodes)
    assert first == Annotation("two", 0, (Sharding("b", (0,)),))
    assert second == Annotation("two", 1, (Sharding("b", (0, 1), ((1, 3),)),))
    assert annotations.annotation(model.graph.nodes[0], "other") is None


def test_no_stage_is_not_stage_0() -> None:
    model = read(annotate(CHAIN, {"a": None, "c": 0}))
    assert stages(model) == {"b": None, "y": 0}


@pytest.mark.parametrize(
    ("configurations", "text"),
    [
        ([("", 1, [])], "has no name"),
        ([("p", 1, []), ("p", 2, [])], "two device configurations named 'p'"),
        ([("p", 0, [])], "'p' has 0 devices"),
        ([("p", 2, ["cpu:0"])], "'p' has 2 devices and 1 names"),
    ],
)
def test_a_configuration_that_contradicts_itself(configurations: list[tuple[str, int, list[str]]], text: str) -> None:
    proto = onnx.parser.parse_model('<ir_version: 11, opset_import: ["" : 21]>' + CHAIN)
    for name, n_devices, devices in configurations:
        proto.configuration.add(name=name, num_devices=n_devices, device=devices)
    with pytest.raises(ModelError, match=text):
        annotations.configurations(read(proto))


def test_two_annotations_of_a_node_for_one_configuration() -> None:
    proto = annotate(CHAIN, {"a": 0})
    proto.graph.node[0].device_configurations.add(configuration_id="two", pipeline_stage=1)
    with pytest.raises(ModelError, match=r"Node 'a' has two annotations for device configuration 'two'"):
        annotations.annotation(read(proto).graph.nodes[0], "two")


# -- through passes


CONVOLUTION = """g (float[1,1,3,3] x) => (float[1,1,3,3] y)
<float[1,1,1,1] w = {2}, float[1] one = {1}, float[1] zero = {0}> {
    [conv] c = Conv(x, w)
    [norm] y = BatchNormalization(c, one, zero, zero, one)
}"""
BIAS = """g (float[2,3] x) => (float[2,2] y) <float[3,2] w = {1,2,3,4,5,6}, float[2] b = {1,2}> {
    [product] p = MatMul(x, w)
    [sum] y = Add(p, b)
}"""
TWICE = """g (float[2,3] x) => (float[2,3] y) {
    [once] a = Exp(x)
    [again] b = Exp(x)
    [sum] y = Add(a, b)
}"""


@pytest.mark.parametrize(
    ("text", "first", "second", "fused"),
    [(CONVOLUTION, "conv", "norm", ["Conv"]), (BIAS, "product", "sum", ["Gemm"])],
)
def test_fusion_never_crosses_stages(text: str, first: str, second: str, fused: list[str]) -> None:
    apart = read(annotate(text, {first: 0, second: 1}))
    optimize(apart, "all")
    assert len(apart.graph.nodes) == 2
    # each names its own tensor, which is no difference
    together = read(annotate(text, {first: 1, second: 1}, on={first: [1], second: [1]}))
    optimize(together, "all")
    assert [node.op_type for node in together.graph.nodes] == fused
    assert annotations.annotation(together.graph.nodes[0], "two") == Annotation("two", 1, (Sharding("y", (1,)),))


@pytest.mark.parametrize(("text", "told"), [(CONVOLUTION, "conv"), (BIAS, "product")])
def test_a_fused_node_keeps_what_just_one_of_them_said(text: str, told: str) -> None:
    model = read(annotate(text, {told: 1}))
    optimize(model, "all")
    assert stages(model) == {"y": 1}


def test_a_device_apart_is_enough() -> None:
    model = read(annotate(BIAS, {"product": 0, "sum": 0}, on={"product": [0], "sum": [1]}))
    optimize(model, "all")
    assert len(model.graph.nodes) == 2


@pytest.mark.parametrize(("second", "left"), [(1, ["Exp", "Exp", "Add"]), (0, ["Exp", "Add"])])
def test_a_repetition_in_another_stage_stays(second: int, left: list[str]) -> None:
    model = read(annotate(TWICE, {"once": 0, "again": second, "sum": 1}))
    optimize(model, "all")
    assert [node.op_type for node in model.graph.nodes] == left


def test_a_branch_that_is_taken_belongs_to_the_stage_of_its_if() -> None:
    text = """g (float[2] x) => (float[2] y, float[2] z) <bool c = {1}> {
        [if] y, z = If(c)<then_branch = t () => (float[2] p, float[2] x) { [in] p = Exp(x) },
                          else_branch = e () => (float[2] q, float[2] x) { q = Sqrt(x) }>
    }"""
    model = read(annotate(text, {"if": 1, "in": 0}))
    optimize(model, "basic")
    assert "If" not in [node.op_type for node in model.graph.nodes]
    assert stages(model) == {"y": 1, "z": 1}


CALL = """<ir_version: 11, opset_import: ["" : 21, "f" : 1]>
g (float[2] x) => (float[2] y, float[2] z) { [call] y, z = f.outer(x) }
<domain: "f", opset_import: ["" : 21, "f" : 1]> outer (a) => (b, a) { [first] m = Exp(a) [deep] b = f.inner(m) }
<domain: "f", opset_import: ["" : 21]> inner (c) => (d) { [only] d = Sqrt(c) }
"""


def test_what_a_call_says_holds_for_all_of_the_function() -> None:
    model = read(annotate(CALL, {"call": 1, "first": 0}, on={"call": [1]}))
    expand(model, has_kernel)
    assert [node.op_type for node in model.graph.nodes] == ["Exp", "Sqrt", "Identity"]
    for node in model.graph.nodes:
        assert annotations.annotation(node, "two") == Annotation("two", 1, (Sharding(node.outputs[0], (1,)),))


def test_a_function_s_own_annotations_hold_where_the_call_has_none() -> None:
    model = read(annotate(CALL, {"first": 0, "deep": 1}, on={"first": [0]}))
    expand(model, has_kernel)
    exp, sqrt, identity = model.graph.nodes
    assert annotations.annotation(exp, "two") == Annotation("two", 0, (Sharding(exp.outputs[0], (0,)),))
    assert annotations.annotation(sqrt, "two") == Annotation("two", 1)
    assert annotations.annotation(identity, "two") is None


# -- writing


def test_a_tensor_that_a_node_lost_is_not_written() -> None:
    node = Node("Add", "", ["a", "b"], ["y"])
    node.device_configurations = (annotations.stated("p", 1, [1], "gone"), annotations.stated("q", 0, [0], "a"))
    first, second = annotations.fitted(node)
    assert first == annotations.stated("p", 1, [1], "y")
    assert second == node.device_configurations[1]


def test_of_several_tensors_those_that_are_left_are_written() -> None:
    proto = annotate(CHAIN, {"a": 0}, on={"a": [0]})
    proto.graph.node[0].device_configurations[0].sharding_spec.add(tensor_name="gone", device=[1])
    written = writer.to_proto(read(proto)).graph.node[0].device_configurations[0]
    assert [spec.tensor_name for spec in written.sharding_spec] == ["b"]
    assert written.pipeline_stage == 0


def test_a_written_model_has_the_plan_and_what_others_said() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]> g (float[2] x, bool c) => (float[2] y) {
        [first] a = Exp(x)
        [if] y = If(c)<then_branch = t () => (float[2] p) { [in] p = Exp(a) },
                       else_branch = e () => (float[2] q) { q = Sqrt(a) }>
    }"""
    proto = annotate(text, {"first": 0, "in": 5}, name="mine")
    proto.configuration.add(name="theirs", num_devices=1)
    proto.graph.node[1].device_configurations.add(configuration_id="theirs", pipeline_stage=7)
    model = read(proto)
    before = writer.to_proto(model).SerializeToString(deterministic=True)
    configuration = Configuration("mine", 2, ("cpu:0", "cuda:0"))
    written = writer.to_proto(annotations.annotated(model, configuration, [(0, [0]), (1, [1])]))
    onnx.checker.check_model(written, full_check=True)
    assert written.ir_version == 11
    again = read(written)
    assert annotations.configurations(again) == (Configuration("theirs", 1), configuration)
    first, branch = again.graph.nodes
    assert annotations.annotation(first, "mine") == Annotation("mine", 0, (Sharding("a", (0,)),))
    assert annotations.annotation(branch, "mine") == Annotation("mine", 1, (Sharding("y", (1,)),))
    assert annotations.annotation(branch, "theirs") == Annotation("theirs", 7)
    (inner,) = branch.attributes["then_branch"].nodes
    assert inner.device_configurations == ()
    assert writer.to_proto(model).SerializeToString(deterministic=True) == before


def test_onnxruntime_loads_what_is_written() -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    written = writer.to_proto(
        annotations.annotated(read(annotate(CHAIN, {})), Configuration("p", 2), [(0, [0]), (1, [1])])
    )
    session = onnxruntime.InferenceSession(written.SerializeToString())
    x = np.ones((2, 3), np.float32)
    np.testing.assert_allclose(session.run(None, {"x": x})[0], np.exp(x), rtol=1e-6)
