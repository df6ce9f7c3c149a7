"""What sessions tell of their models, and the example models."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from .table import Env, Fails, Section, f32

S = Section("Metadata")
RELU = "g (float[N] x) => (float[N] y) { y = Relu(x) }"
FIELDS = ("custom_metadata_map", "description", "domain", "graph_description", "graph_name", "producer_name", "version")
NO_VERSION = 2**63 - 1


def meta(session: Any) -> dict[str, object]:
    return {name: getattr(session.get_modelmeta(), name) for name in FIELDS}


def shown(arguments: Any) -> list[tuple[str, str, list[object]]]:
    return [(item.name, item.type, item.shape) for item in arguments]


def meta_of(**fields: object) -> dict[str, object]:
    empty = {"custom_metadata_map": {}, "version": NO_VERSION}
    return {name: fields.get(name, empty.get(name, "")) for name in FIELDS}


S.row(
    "modelmeta of mul_1",
    lambda ort, env: meta(env.session(env.example("mul_1.onnx"))),
    meta_of(graph_name="mul test", producer_name="chenta"),
    ours=meta_of(graph_name="mul test", producer_name="distort"),
    why="the example models are made here",
)


@S.probe(
    "modelmeta full",
    meta_of(
        custom_metadata_map={"k": "vé"},
        description="md",
        domain="d.x",
        graph_description="gd",
        graph_name="g",
        producer_name="p",
        version=7,
    ),
    parallel=True,
)
def _(ort: Any, env: Env) -> object:
    proto = env.proto(RELU)
    proto.producer_name, proto.domain, proto.doc_string, proto.model_version = "p", "d.x", "md", 7
    proto.graph.doc_string = "gd"
    helper.set_model_props(proto, {"k": "vé"})
    return meta(env.session(proto.SerializeToString()))


S.row("modelmeta defaults (helper model)", lambda ort, env: meta(env.session(env.model(RELU))), meta_of(graph_name="g"))


@S.probe("ModelMetadata is settable?", None)
def _(ort: Any, env: Env) -> object:
    env.session(env.mul).get_modelmeta().producer_name = "mine"


@S.probe("custom_metadata_map mutation visible?", {})
def _(ort: Any, env: Env) -> object:
    about = env.session(env.mul).get_modelmeta()
    about.custom_metadata_map["a"] = "b"
    return about.custom_metadata_map


@S.probe(
    "NodeArg dims: symbolic 'N', None, unknown rank",
    [
        ("x", "tensor(float)", ["N", None, 3], "NodeArg(name='x', type='tensor(float)', shape=['N', None, 3])"),
        ("z", "tensor(float)", [], "NodeArg(name='z', type='tensor(float)', shape=[])"),
        ("q", "tensor(float)", [], "NodeArg(name='q', type='tensor(float)', shape=[])"),
    ],
    parallel=True,
)
def _(ort: Any, env: Env) -> object:
    graph = env.model("g (float[N,?,3] x, float z, float[] q) => (float[N,?,3] y) { y = Relu(x) }")
    proto = onnx.ModelProto.FromString(graph)
    proto.graph.input[1].type.tensor_type.shape.SetInParent()  # z is a scalar, q's rank is unknown
    proto.graph.input[2].type.tensor_type.ClearField("shape")
    session = env.session(proto.SerializeToString())
    return [(*item, str(arg)) for item, arg in zip(shown(session.get_inputs()), session.get_inputs(), strict=True)]


S.row(
    "NodeArg of outputs: declared None shape but inferable",
    lambda ort, env: shown(env.session(env.model("g (float[N,3] x) => (y) { y = Relu(x) }")).get_outputs()),
    [("y", "tensor(float)", ["N", 3])],
)


@S.probe("NodeArg attribute set", Fails("AttributeError", "property …of 'NodeArg' object has no setter"))
def _(ort: Any, env: Env) -> object:
    session = env.session(env.mul)
    session.get_inputs()[0].name = "other"


S.row("NodeArg()", lambda ort, env: ort.NodeArg(), Fails("TypeError", "C.NodeArg: No constructor defined!"))


@S.probe("NodeArg hash/eq", True)
def _(ort: Any, env: Env) -> object:
    session = env.session(env.mul)
    (arg,) = session.get_inputs()
    return arg == session.get_inputs()[0] and len({arg, session.get_inputs()[0]}) == 1


NAMES = {
    "FLOAT": "float",
    "UINT8": "uint8",
    "INT8": "int8",
    "UINT16": "uint16",
    "INT16": "int16",
    "INT32": "int32",
    "INT64": "int64",
    "STRING": "string",
    "BOOL": "bool",
    "FLOAT16": "float16",
    "DOUBLE": "double",
    "UINT32": "uint32",
    "UINT64": "uint64",
    "BFLOAT16": "bfloat16",
    "FLOAT8E4M3FN": "float8e4m3fn",
    "FLOAT8E4M3FNUZ": "float8e4m3fnuz",
    "FLOAT8E5M2": "float8e5m2",
    "FLOAT8E5M2FNUZ": "float8e5m2fnuz",
}
LATER_NAMES = {
    "UINT4": "uint4",
    "INT4": "int4",
    "FLOAT4E2M1": "float4e2m1",
    "FLOAT8E8M0": "float8e8m0",
    "UINT2": "uint2",
    "INT2": "int2",
}


@S.probe(
    "NodeArg.type per element type (Identity opset 25)",
    {name: f"tensor({text})" for name, text in NAMES.items()} | dict.fromkeys(LATER_NAMES, "NotImplemented"),
    ours={name: f"tensor({text})" for name, text in (NAMES | LATER_NAMES).items()},
    why="Identity takes every element type of the standard",
)
def _(ort: Any, env: Env) -> object:
    found = {}
    for name in (*NAMES, *LATER_NAMES):
        try:
            session = env.session(env.identity(TensorProto.DataType.Value(name), opset=25, ir_version=13))
        except env.c.NotImplemented:
            found[name] = "NotImplemented"
        else:
            found[name] = session.get_inputs()[0].type
    return found


OVERRIDABLE = "g (float[2] x, float[2] w) => (float[2] y) <float[2] w = {10, 20}> { y = Add(x, w) }"


def with_input_w(env: Env, ir_version: int = 8) -> bytes:
    """y = x + w, with a w of [10, 20] that is an input too."""
    proto = env.proto("g (float[2] x, float[2] w) => (float[2] y) { y = Add(x, w) }", ir_version=ir_version)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(f32([10, 20]), "w"))
    return proto.SerializeToString()


@S.probe(
    "initializer also listed as input: get_inputs / overridable",
    (["x"], ["w"], [f32([11, 22])], [f32([1, 2])]),
    stderr="Initializer w appears in graph inputs and will not be treated as constant value/weight. This may prevent …",
    parallel=True,
)
def _(ort: Any, env: Env) -> object:
    session = env.session(with_input_w(env))
    x = f32([1, 2])
    return (
        [item.name for item in session.get_inputs()],
        [item.name for item in session.get_overridable_initializers()],
        session.run(None, {"x": x}),
        session.run(None, {"x": x, "w": np.zeros(2, np.float32)}),
    )


NOT_INPUT = "g (float[2] x) => (float[2] y) <float[2] w = {10, 20}> { y = Add(x, w) }"
S.row(
    "feeding a non-overridable initializer (ir>=4)",
    lambda ort, env: env.run(env.model(NOT_INPUT), {"x": f32([1, 2]), "w": f32([1, 2])}),
    Fails("InvalidArgument", "Invalid input name: w"),
    parallel=True,
)
S.row(
    "ir_version 3: initializer+input overridable?",
    lambda ort, env: env.run(with_input_w(env, ir_version=3), {"x": f32([1, 2]), "w": f32([1, 2])}),
    Fails("InvalidArgument", "Invalid input name: w"),
    parallel=True,
)

D = Section("datasets")
D.row(
    "get_example('mul_1.onnx')",
    lambda ort, env: env.example("mul_1.onnx"),
    "…/datasets/mul_1.onnx",
)
D.row(
    "get_example('nope.onnx')",
    lambda ort, env: env.example("nope.onnx"),
    Fails("FileNotFoundError", "Unable to find example 'nope.onnx'"),
)
for _name, _inputs, _outputs in (
    ("mul_1", [("X", "tensor(float)", [3, 2])], [("Y", "tensor(float)", [3, 2])]),
    ("sigmoid", [("x", "tensor(float)", [3, 4, 5])], [("y", "tensor(float)", [3, 4, 5])]),
    (
        "logreg_iris",
        [("float_input", "tensor(float)", [3, 2])],
        [("label", "tensor(int64)", [3]), ("probabilities", "seq(map(int64,tensor(float)))", [])],
    ),
):

    @D.probe(f"{_name}.onnx inputs/outputs", (_inputs, _outputs))
    def _(ort: Any, env: Env, name: str = _name) -> object:
        session = env.session(env.example(f"{name}.onnx"))
        return shown(session.get_inputs()), shown(session.get_outputs())
