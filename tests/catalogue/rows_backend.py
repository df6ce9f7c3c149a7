"""ONNX's backend interface, the compiler, adapters, and what outlives a session."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from .rows_metadata import with_input_w
from .table import SQUARES, Env, Fails, Section, f32

B = Section("onnxruntime.backend")
RELU = "g (float[N] x) => (float[N] y) { y = Relu(x) }"


def backend(env: Env) -> Any:
    return env.module("backend")


def prepare(env: Env, *arguments: Any, **options: Any) -> Any:
    return backend(env).prepare(env.save(env.mul), *arguments, **options)


for _device, _expected in (
    ("CPU", True),
    ("GPU", False),
    ("CUDA", False),
    ("CPU:0", False),
    ("cpu", False),
    ("TPU", False),
    ("DML", False),
    ("", False),
):
    B.row(
        f"supports_device('{_device}')",
        lambda ort, env, device=_device: backend(env).supports_device(device),
        _expected,
    )
B.row(
    "supports_device(None)",
    lambda ort, env: backend(env).supports_device(None),
    Fails("TypeError", 'can only concatenate str (not "NoneType") to str'),
    ours=Fails("TypeError", "a device is a str, not NoneType"),
    why="the error says what was wrong",
)
B.row("is_compatible(model)", lambda ort, env: backend(env).is_compatible(env.proto(RELU)), True)
B.row("is_compatible(model,'CUDA')", lambda ort, env: backend(env).is_compatible(env.proto(RELU), "CUDA"), False)
B.row("is_compatible(None,'CPU')", lambda ort, env: backend(env).is_compatible(None, "CPU"), True)
B.row("prepare(path) type", lambda ort, env: prepare(env), "<OnnxRuntimeBackendRep>")


def unlisted(env: Env) -> onnx.ModelProto:
    """mul in a version in which initializers had to be inputs."""
    proto = onnx.ModelProto.FromString(env.mul)
    proto.ir_version = 3
    return proto


UNLISTED = Fails("ValidationError", "W in initializer but not in graph input…")
B.row(
    "prepare(bytes)/(ModelProto)/(InferenceSession)/(rep)",
    lambda ort, env: backend(env).prepare(unlisted(env)),
    UNLISTED,
)
B.row(
    "run(ModelProto,[x],'CPU')",
    lambda ort, env: backend(env).run(unlisted(env), [env.x], "CPU"),
    UNLISTED,
)


@B.probe("prepare(path,'CPU').run(x)", [SQUARES])
def _(ort: Any, env: Env) -> object:
    return prepare(env, "CPU").run(env.x)


B.row("prepare(path).run([x])", lambda ort, env: prepare(env).run([env.x]), [SQUARES])
B.row(
    "prepare(path).run((x,)) tuple",
    lambda ort, env: prepare(env).run((env.x,)),
    Fails("RuntimeError", "Iterable of <class 'numpy.ndarray'> should be given as array for input 'X'."),
)
B.row(
    "prepare(path).run(x.tolist())",
    lambda ort, env: prepare(env).run(env.x.tolist()),
    Fails(
        "InvalidArgument",
        "Invalid rank for input: X Got: 1 Expected: 2 Please fix either the inputs/outputs or the model.",
    ),
)
B.row(
    "prepare(path).run([])",
    lambda ort, env: prepare(env).run([]),
    Fails("IndexError", "list index out of range"),
)
B.row(
    "prepare(path,'GPU')",
    lambda ort, env: prepare(env, "GPU"),
    Fails("RuntimeError", "Incompatible device expected 'GPU', got 'CPU'"),
)
B.row(
    "prepare(path,'CPU',intra_op_num_threads=1)",
    lambda ort, env: prepare(env, "CPU", intra_op_num_threads=1)._session.get_session_options().intra_op_num_threads,
    1,
)
B.row(
    "prepare(path,enable_profiling=True)",
    lambda ort, env: prepare(env, enable_profiling=True),
    Fails(
        "RuntimeError",
        "SessionOptions attribute 'enable_profiling' is not permitted via the backend API. Allowed attributes: "
        "enable_cpu_mem_arena, enable_mem_pattern, enable_mem_reuse, execution_mode, execution_order, "
        "graph_optimization_level, inter_op_num_threads, intra_op_num_threads, log_severity_level, "
        "log_verbosity_level, logid, use_deterministic_compute, use_per_session_threads",
    ),
)
B.row("prepare(path,bogus=1)", lambda ort, env: prepare(env, bogus=1), "<OnnxRuntimeBackendRep>")
B.row(
    "rep.run(x,terminate=True)",
    lambda ort, env: prepare(env).run(env.x, terminate=True),
    Fails(
        "RuntimeError",
        "RunOptions attribute 'terminate' is not permitted via the backend API. Allowed attributes: "
        "log_severity_level, log_verbosity_level, logid, only_execute_path_to_fetches",
    ),
)
B.row("rep.run(x,log_severity_level=4)", lambda ort, env: type(prepare(env).run(env.x, log_severity_level=4)), list)
B.row("run(path,x)", lambda ort, env: backend(env).run(env.save(env.mul), env.x), [SQUARES])
B.row(
    "rep on a 2-input model given one array",
    lambda ort, env: (
        backend(env).prepare(env.model("g (float[2] a, float[2] b) => (float[2] y) { y = Add(a, b) }")).run(f32([1, 2]))
    ),
    Fails("RuntimeError", "Model expect 2 inputs"),
)


@B.probe("rep with np.float32 scalar input", [np.array(0, np.float32)])
def _(ort: Any, env: Env) -> object:
    proto = env.proto("g (float[1] x) => (float[1] y) { y = Relu(x) }")
    for info in (*proto.graph.input, *proto.graph.output):
        del info.type.tensor_type.shape.dim[:]
    return backend(env).prepare(proto).run(np.float32(-1))


B.row(
    "OnnxRuntimeBackend.run_node",
    lambda ort, env: env.module("backend.backend").OnnxRuntimeBackend.run_node(None, None),
    Fails("NotImplementedError", "It is much more efficient to run a whole model than every node independently."),
)
UNRELEASED = (
    "Skipping this test as only released onnx opsets are supported.To run this test set env variable "
    "ALLOW_RELEASED_ONNX_OPSET_ONLY to 0. Got Domain 'ai.onnx' version '99'."
)
B.row(
    "is_opset_supported(opset 99)",
    lambda ort, env: env.module("backend.backend").OnnxRuntimeBackend.is_opset_supported(env.proto(RELU, opset=99)),
    (False, UNRELEASED),
)
B.row(
    "prepare(ModelProto opset 99)",
    lambda ort, env: backend(env).prepare(env.proto(RELU, opset=99)),
    Fails("SkipTest", UNRELEASED),
)
B.row(
    "prepare(invalid ModelProto)",
    lambda ort, env: backend(env).prepare(env.proto("g (float[N] x) => (float[N] y) { y = Relu(x, x) }")),
    Fails("ValidationError", "Node with schema(::Relu:14) has input size 2 not in range [min=1, max=1].…"),
)
B.row(
    "prepare(garbage bytes)",
    lambda ort, env: backend(env).prepare(b"garbage bytes"),
    Fails("InvalidProtobuf", "Failed to load model because protobuf parsing failed."),
)
B.row(
    "prepare(None)",
    lambda ort, env: backend(env).prepare(None),
    Fails("AttributeError", "'NoneType' object has no attribute 'SerializeToString'"),
)


@B.probe("MRO", (["OnnxRuntimeBackend", "Backend", "object"], ["OnnxRuntimeBackendRep", "BackendRep", "object"]))
def _(ort: Any, env: Env) -> object:
    classes = (
        env.module("backend.backend").OnnxRuntimeBackend,
        env.module("backend.backend_rep").OnnxRuntimeBackendRep,
    )
    return tuple([cls.__name__ for cls in class_.__mro__] for class_ in classes)


C = Section("ModelCompiler, LoraAdapter, AdapterFormat, ModelPackage")


@C.probe("ModelCompiler(so,path).compile_to_file(out) on CPU", (None, True, ["Mul"]))
def _(ort: Any, env: Env) -> object:
    out = env.tmp / "out.onnx"
    returned = ort.ModelCompiler(ort.SessionOptions(), env.save(env.mul)).compile_to_file(str(out))
    return returned, out.is_file(), [node.op_type for node in onnx.load(out).graph.node]


@C.probe("ModelCompiler(...).compile_to_bytes()", ["Mul"])
def _(ort: Any, env: Env) -> object:
    compiled = ort.ModelCompiler(ort.SessionOptions(), env.mul).compile_to_bytes()
    return [node.op_type for node in onnx.load_from_string(compiled).graph.node]


@C.probe("compile_to_stream", (None, True))
def _(ort: Any, env: Env) -> object:
    stream = io.BytesIO()
    returned = ort.ModelCompiler(ort.SessionOptions(), env.mul).compile_to_stream(stream.write)
    return returned, len(onnx.load_from_string(stream.getvalue()).graph.node) == 1


C.row(
    "flags=ERROR_IF_NO_NODES_COMPILED",
    lambda ort, env: ort.ModelCompiler(
        ort.SessionOptions(), env.save(env.mul), flags=ort.OrtCompileApiFlags.ERROR_IF_NO_NODES_COMPILED
    ).compile_to_bytes(),
    Fails(
        "Fail",
        "Unable to compile any nodes. Check that the session EPs support compilation and can execute at least one …",
    ),
)
for _call, _source, _fails in (
    ("ModelCompiler(so,'')", "", Fails("ValueError", "Input model path is empty")),
    ("ModelCompiler(so,b'')", b"", Fails("ValueError", "Input model bytes array is empty")),
    ("ModelCompiler(so,None)", None, Fails("TypeError", "Unable to load from type '<class 'NoneType'>'")),
    (
        "ModelCompiler(so,missing path)",
        "/nope.onnx",
        Fails("InvalidArgument", 'Input model path does not exist: "/nope.onnx"'),
    ),
):
    C.row(
        _call,
        lambda ort, env, source=_source: ort.ModelCompiler(ort.SessionOptions(), source).compile_to_bytes(),
        _fails,
    )
C.row(
    "LoraAdapter().Load('/nope')",
    lambda ort, env: ort.LoraAdapter().Load("/nope"),
    Fails("RuntimeError", "…INVALID_ARGUMENT : Invalid fd was supplied: -1"),
    ours=Fails("RuntimeError", "…/nope…"),
    why="the error names the file",
)


def adapter(ort: Any, env: Env, name: str = "w") -> Path:
    """A file with one parameter, w [2]."""
    made = ort.AdapterFormat()
    made.set_adapter_version(1)
    made.set_model_version(2)
    made.set_parameters({name: env.value(f32([9, 8]))})
    made.export_adapter(str(env.tmp / "adapter.onnx_adapter"))
    return env.tmp / "adapter.onnx_adapter"


@C.probe("AdapterFormat write/read round trip", (1, 2, 1, {"w": f32([9, 8])}))
def _(ort: Any, env: Env) -> object:
    read = ort.AdapterFormat.read_adapter(str(adapter(ort, env)))
    parameters = {name: value.numpy().copy() for name, value in read.get_parameters().items()}
    return read.get_adapter_version(), read.get_model_version(), read.get_format_version(), parameters


def adapted(ort: Any, env: Env, model: bytes) -> tuple[object, object]:
    """What a model answers to [1, 2] with an adapter and without it."""
    loaded = ort.LoraAdapter()
    loaded.Load(str(adapter(ort, env)))
    options = ort.RunOptions()
    options.add_active_adapter(loaded)
    session = env.session(model)
    feeds = {session.get_inputs()[0].name: f32([1, 2])}
    return session.run(None, feeds, options), session.run(None, feeds)


C.row(
    "RunOptions.add_active_adapter overrides the initializer-input 'w'",
    lambda ort, env: adapted(ort, env, with_input_w(env)),
    ([f32([10, 10])], [f32([11, 22])]),
)
C.row(
    "add_active_adapter with parameter unknown to the model",
    lambda ort, env: adapted(ort, env, env.model(RELU)),
    Fails("InvalidArgument", "Invalid input name: w"),
)
C.row(
    "ModelPackageOptions()",
    lambda ort, env: env.c.ModelPackageOptions(),
    Fails(
        "TypeError",
        "__init__(): incompatible constructor arguments. The following argument types are supported:\n"
        "    1. C.ModelPackageOptions(sess_options: C.SessionOptions)\n\nInvoked with:",
    ),
)


@C.probe("get_all_operator_schema() count / first", (True, "OpSchema"))
def _(ort: Any, env: Env) -> object:
    schemas = env.module("capi.onnxruntime_pybind11_state").get_all_operator_schema()
    return len(schemas) > 100, type(schemas[0]).__name__


M = Section("misc")


@M.probe("lifetimes: output array survives del session", None, parallel=True)
def _(ort: Any, env: Env) -> object:
    result = env.run(env.mul, {"X": env.x})
    del result


M.row("…value", lambda ort, env: env.run(env.mul, {"X": env.x})[0], SQUARES, parallel=True)
M.row("NodeArg survives del session", lambda ort, env: env.session(env.mul).get_inputs()[0].name, "X")
