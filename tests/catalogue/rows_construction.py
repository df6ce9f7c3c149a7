"""Making sessions: from which sources, and which models are refused."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto

from .table import Env, Fails, Section, f32

LATER = "shapes are inferred when somebody asks for them"

S = Section("Session construction")
SESSION = "<InferenceSession>"
RELU = "g (float[N] x) => (float[N] y) { y = Relu(x) }"
NOT_LOADED = "Unable to load from type '<class '{}'>'"
X = f32([1, 2])

S.row(
    "InferenceSession('/nope/missing.onnx')",
    lambda ort, env: ort.InferenceSession("/nope/missing.onnx"),
    Fails(
        "NoSuchFile",
        "Load model from /nope/missing.onnx failed:Load model /nope/missing.onnx failed. File doesn't exist",
    ),
)
S.row(
    "InferenceSession('')",
    lambda ort, env: ort.InferenceSession(""),
    Fails(
        "TypeError",
        "__init__(): incompatible constructor arguments. The following argument types are supported:\n"
        "    1. C.InferenceSession(arg0: C.SessionOptions, arg1: str, arg2: bool, arg3: bool)\n\n"
        "Invoked with: <C.SessionOptions object>, None, False, False",
    ),
)
S.row(
    "InferenceSession('<tmp>') (a directory)",
    lambda ort, env: ort.InferenceSession(str(env.tmp)),
    Fails("InvalidProtobuf", "Load model from <tmp> failed:Protobuf parsing failed."),
)
S.row(
    "InferenceSession(b'garbage bytes')",
    lambda ort, env: ort.InferenceSession(b"garbage bytes"),
    Fails("InvalidProtobuf", "Failed to load model because protobuf parsing failed."),
)
S.row(
    "InferenceSession(b'')",
    lambda ort, env: ort.InferenceSession(b""),
    Fails("InvalidArgument", "No graph was found in the protobuf."),
)
S.row(
    "InferenceSession(path of garbage file)",
    lambda ort, env: ort.InferenceSession(env.save(b"garbage bytes", "bad.onnx")),
    Fails("InvalidProtobuf", "Load model from <tmp>/bad.onnx failed:Protobuf parsing failed."),
)
S.row(
    "InferenceSession(path of empty file)",
    lambda ort, env: ort.InferenceSession(env.save(b"", "empty.onnx")),
    Fails("InvalidArgument", "Load model from <tmp>/empty.onnx failed:No graph was found in the protobuf."),
)
S.row(
    "InferenceSession(None)",
    lambda ort, env: ort.InferenceSession(None),
    Fails("TypeError", NOT_LOADED.format("NoneType")),
)
S.row("InferenceSession(123)", lambda ort, env: ort.InferenceSession(123), Fails("TypeError", NOT_LOADED.format("int")))
S.row(
    "InferenceSession(onnx.ModelProto)",
    lambda ort, env: ort.InferenceSession(onnx.ModelProto()),
    Fails("TypeError", NOT_LOADED.format("onnx.onnx_ml_pb2.ModelProto")),
)
S.row(
    "InferenceSession(bytearray(model))",
    lambda ort, env: ort.InferenceSession(bytearray(env.mul)),
    Fails("TypeError", NOT_LOADED.format("bytearray")),
)
S.row(
    "InferenceSession(memoryview(model))",
    lambda ort, env: ort.InferenceSession(memoryview(env.mul)),
    Fails("TypeError", NOT_LOADED.format("memoryview")),
)
S.row("InferenceSession(pathlib.Path)", lambda ort, env: env.session(Path(env.save(env.mul))), SESSION, parallel=True)
S.row(
    "InferenceSession(bytes path b'/…/mul_1.onnx')",
    lambda ort, env: ort.InferenceSession(os.fsencode(env.save(env.mul))),
    Fails("InvalidProtobuf", "Failed to load model because protobuf parsing failed."),
)
S.row(
    "InferenceSession() no args",
    lambda ort, env: ort.InferenceSession(),
    Fails("TypeError", "InferenceSession.__init__() missing 1 required positional argument: 'path_or_bytes'"),
)
S.row(
    "InferenceSession(path, unknown_kw=1) (**kwargs swallowed)",
    lambda ort, env: env.session(env.save(env.mul), unknown_kw=1),
    SESSION,
)
S.row(
    "opset 99 (unreleased), default domain",
    lambda ort, env: env.session(env.model(RELU, opset=99)),
    Fails("Fail", "…Opset 99 is under development…Current official support for domain ai.onnx is till opset 28."),
)
S.row(
    "opset 28 (newest of onnx 1.23.2 defs?)", lambda ort, env: env.session(env.model(RELU, 28, ir_version=13)), SESSION
)
for _opset in (24, 25, 26, 27, 28):
    S.row(f"opset {_opset}", lambda ort, env, o=_opset: env.session(env.model(RELU, o, ir_version=13)), SESSION)
OLD = "ONNX Runtime only *guarantees* support for models stamped with opset version 7 or above…"
S.row(
    "opset 1",
    lambda ort, env: env.run(env.model(RELU, opset=1), {"x": f32([-1, 2])}),
    Fails("NotImplemented", "Could not find an implementation for Relu(1) node with name ''"),
    ours=[f32([0, 2])],
    why="kernels hold for old versions of an operator too",
    stderr=OLD,
    quiet="kernels hold for all versions",
)
S.row(
    "opset 6",
    lambda ort, env: env.run(env.model(RELU, opset=6), {"x": f32([-1, 2])}),
    [f32([0, 2])],
    stderr=OLD,
    quiet="kernels hold for all versions",
)
INVALID = (
    'This is an invalid model. In Node, ("", {0}, "{1}", -1) : ("x": tensor(float),) -> ("y": tensor(float),) , Error '
)
S.row(
    "opset 0",
    lambda ort, env: env.session(env.model(RELU, opset=0)),
    Fails("InvalidGraph", INVALID.format("Relu", "") + "No Op registered for Relu with domain_version of 0"),
)


@S.probe("no opset_import", Fails("Fail", "…Missing opset in the model. All ModelProtos MUST have at least one entry…"))
def _(ort: Any, env: Env) -> object:
    proto = env.proto(RELU)
    del proto.opset_import[:]
    return env.session(proto.SerializeToString())


for _version in (3, 10, 11, 12, 13, 14):
    S.row(f"ir_version {_version}", lambda ort, env, v=_version: env.session(env.model(RELU, ir_version=v)), SESSION)
S.row(
    "ir_version 15",
    lambda ort, env: env.session(env.model(RELU, ir_version=15)),
    Fails("Fail", "…Unsupported model IR version: 15, max supported IR version: 14"),
)


@S.probe("ir_version missing(0)", Fails("Fail", "…Missing model IR version."))
def _(ort: Any, env: Env) -> object:
    proto = env.proto(RELU)
    proto.ClearField("ir_version")
    return env.session(proto.SerializeToString())


S.row(
    "unknown op in default domain",
    lambda ort, env: env.session(env.model("g (float[N] x) => (float[N] y) { y = FooBarOp(x) }")),
    Fails("InvalidGraph", INVALID.format("FooBarOp", "") + "No Op registered for FooBarOp with domain_version of 17"),
)
FOO = "g (float[N] x) => (float[N] y) { y = my.dom.Foo(x) }"
S.row(
    "unknown op in unknown domain, domain imported",
    lambda ort, env: env.session(env.model(FOO, my_dom=1)),
    Fails("Fail", "Fatal error: my.dom:Foo(-1) is not a registered function/op"),
)
S.row(
    "unknown domain, NOT imported",
    lambda ort, env: env.session(env.model(FOO)),
    Fails("InvalidGraph", INVALID.format("Foo", "my.dom") + "No opset import for domain 'my.dom'"),
)
S.row(
    "known op, type without CPU kernel (Relu int16)",
    lambda ort, env: env.run(env.model("g (int16[N] x) => (int16[N] y) { y = Relu(x) }"), {"x": X.astype("int16")}),
    Fails("NotImplemented", "Could not find an implementation for Relu(14) node with name ''"),
    ours=[X.astype("int16")],
    why="kernels hold for every type that the operator's standard lists",
)
S.row(
    "Relu bfloat16 (no CPU kernel)",
    lambda ort, env: env.session(env.model("g (bfloat16[N] x) => (bfloat16[N] y) { [r] y = Relu(x) }")),
    Fails("NotImplemented", "Could not find an implementation for Relu(14) node with name 'r'"),
    ours=SESSION,
    why="kernels hold for every type that the operator's standard lists",
)
S.row(
    "declared output type != inferred",
    lambda ort, env: env.session(env.model("g (float[N] x) => (int64[N] y) { y = Relu(x) }")),
    Fails(
        "Fail",
        "Type Error: Type (tensor(int64)) of output arg (y) of node () does not match expected type (tensor(float)).",
    ),
)
S.row(
    "declared output shape != inferred (rank)",
    lambda ort, env: env.session(env.model("g (float[2] x) => (float[2,3] y) { y = Relu(x) }")),
    SESSION,
    stderr="Error merging shape info for output. 'y' source:{2} target:{2,3}. Falling back to lenient merge.",
    quiet=LATER,
)


@S.probe(
    "declared output shape != inferred (dim)",
    ([None], [f32([1, 2])]),
    stderr="Error merging shape info for output. 'y' source:{2} target:{3}. Falling back to lenient merge.",
    quiet=LATER,
    parallel=True,
)
def _(ort: Any, env: Env) -> object:
    session = env.session(env.model("g (float[2] x) => (float[3] y) { y = Relu(x) }"))
    return session.get_outputs()[0].shape, session.run(None, {"x": X})


S.row(
    "node input undefined",
    lambda ort, env: env.session(env.model("g (float[N] x) => (float[N] y) { y = Add(x, zzz) }")),
    Fails(
        "InvalidArgument",
        "Invalid model. Node input 'zzz' is not a graph input, initializer, or output of a previous node.",
    ),
)
S.row(
    "output not produced",
    lambda ort, env: env.session(env.model("g (float[N] x) => (float[N] y, float[N] q) { y = Relu(x) }")),
    Fails("Fail", "…This is an invalid model. Graph output (q) does not exist in the graph."),
)
S.row(
    "duplicate output name (SSA violation)",
    lambda ort, env: env.session(env.model("g (float[N] x) => (float[N] y) { y = Relu(x) y = Abs(x) }")),
    Fails("Fail", "This is an invalid model. Error: Duplicate definition of name (y)."),
)
S.row(
    "cycle / nodes out of order",
    lambda ort, env: env.run(env.model("g (float[N] x) => (float[N] y) { y = Abs(t) t = Relu(x) }"), {"x": X}),
    [X],
    parallel=True,
)
S.row(
    "true cycle",
    lambda ort, env: env.session(env.model("g (float[N] x) => (float[N] y) { y = Add(x, t) t = Relu(y) }")),
    Fails("Fail", "This is an invalid model. Error: the graph is not acyclic."),
)
S.row(
    "missing required attribute (Cast without to)",
    lambda ort, env: env.session(env.model("g (float[N] x) => (float[N] y) { y = Cast(x) }")),
    Fails("InvalidGraph", INVALID.format("Cast", "") + "Required attribute 'to' is missing."),
)
S.row(
    "unknown attribute on op",
    lambda ort, env: env.session(env.model("g (float[N] x) => (float[N] y) { y = Relu<bogus = 1>(x) }")),
    Fails("InvalidGraph", INVALID.format("Relu", "") + "Unrecognized attribute: bogus for operator Relu"),
)
S.row(
    "too many inputs",
    lambda ort, env: env.session(env.model("g (float[N] x) => (float[N] y) { y = Relu(x, x) }")),
    Fails(
        "InvalidGraph",
        'This is an invalid model. In Node, ("", Relu, "", -1) : ("x": tensor(float),"x": tensor(float),) -> '
        '("y": tensor(float),) , Error Node with schema(::Relu:14) has input size 2 not in range [min=1, max=1].',
    ),
)
S.row(
    "type mismatch Add(float,int64)",
    lambda ort, env: env.session(env.model("g (float[N] x, int64[N] i) => (float[N] y) { [add] y = Add(x, i) }")),
    Fails(
        "Fail",
        "Type Error: Type parameter (T) of Optype (Add) bound to different types (tensor(float) and tensor(int64) "
        "in node (add).",
    ),
)
S.row(
    "static shape mismatch MatMul [2,3]x[4,5]",
    lambda ort, env: env.session(
        env.model("g (float[2,3] a, float[4,5] b) => (float[2,5] y) { [mm] y = MatMul(a, b) }")
    ),
    Fails("Fail", "Node (mm) Op (MatMul) [ShapeInferenceError] Incompatible dimensions for matrix multiplication"),
    ours="<InferenceSession>",
    why=f"{LATER}; the run refuses, and session.strict_shape_type_inference=1",
)
S.row(
    "graph without nodes (input passthrough)",
    lambda ort, env: env.run(env.model("g (float[N] x) => (float[N] x) { }"), {"x": X}),
    [X],
    parallel=True,
)
S.row(
    "graph with no outputs",
    lambda ort, env: env.session(env.model("g (float[N] x) => () { y = Relu(x) }")),
    SESSION,
    parallel=True,
)
S.row(
    "graph with no inputs",
    lambda ort, env: env.run(env.model("g () => (float[2] y) <float[2] w = {1, 2}> { y = Relu(w) }"), {}),
    [X],
    parallel=True,
)


@S.probe(
    "external data file missing",
    Fails(
        "Fail", "External data path validation failed for initializer: w. Error: …External data path does not exist: …"
    ),
)
def _(ort: Any, env: Env) -> object:
    proto = env.proto("g (float[2] x) => (float[2] y) { y = Add(x, w) }")
    w = proto.graph.initializer.add(name="w", data_type=TensorProto.FLOAT, dims=[2])
    w.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "nofile.bin"), ("length", "8")):
        w.external_data.add(key=key, value=value)
    return env.session(proto.SerializeToString())
