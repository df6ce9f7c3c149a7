"""SessionOptions, the optimized model, and profiles."""

from __future__ import annotations

import gc
import json
import os
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

from .table import UNSTABLE, Env, Fails, Section, f32

S = Section("SessionOptions")
SESSION = "<InferenceSession>"
MISMATCH = "(): incompatible function arguments. The following argument types are supported:\n    1. "


def refuses(kind: str, value: str) -> Fails:
    return Fails(
        "TypeError",
        f"{MISMATCH}(arg0: C.SessionOptions, arg1: {kind}) -> None\n\nInvoked with: <C.SessionOptions object>, {value}",
    )


INT = "typing.SupportsInt | typing.SupportsIndex"
for _name, _given, _expected in (
    ("intra_op_num_threads", "'2'", refuses(INT, "'2'")),
    ("intra_op_num_threads", "2.0", refuses(INT, "2.0")),
    ("intra_op_num_threads", "-1", -1),
    ("graph_optimization_level", "99", refuses("C.GraphOptimizationLevel", "99")),
    ("graph_optimization_level", "'ORT_ENABLE_ALL'", refuses("C.GraphOptimizationLevel", "'ORT_ENABLE_ALL'")),
    ("execution_mode", "0", refuses("C.ExecutionMode", "0")),
    ("enable_profiling", "1", True),
    ("enable_profiling", "'yes'", refuses("bool", "'yes'")),
    ("logid", "5", refuses("str", "5")),
    ("log_severity_level", "7", 7),
    (
        "nosuch",
        "1",
        Fails("AttributeError", "'C.SessionOptions' object has no attribute 'nosuch'"),
    ),
    ("optimized_model_filepath", "PosixPath('a')", refuses("str", "PosixPath('a')")),
    ("profile_file_prefix", "3", refuses("str", "3")),
    ("log_verbosity_level", "-5", -5),
    ("enable_mem_reuse", "False", False),
):

    @S.probe(f"SessionOptions.{_name} = {_given} ; read back", _expected)
    def _(ort: Any, env: Env, name: str = _name, given: str = _given) -> object:
        options = ort.SessionOptions()
        setattr(options, name, eval(given, {"PosixPath": Path}))
        return getattr(options, name)


@S.probe(
    "SessionOptions.execution_order = <ExecutionOrder.PRIORITY_BASED: 1> ; read back",
    "<ExecutionOrder.PRIORITY_BASED: 1>",
)
def _(ort: Any, env: Env) -> object:
    options = ort.SessionOptions()
    options.execution_order = ort.ExecutionOrder.PRIORITY_BASED
    return options.execution_order


S.row(
    "session with intra_op_num_threads=-1",
    lambda ort, env: env.session(env.mul, env.session_options(intra_op_num_threads=-1)),
    SESSION,
)
S.row(
    "session with log_severity_level=7",
    lambda ort, env: env.session(env.mul, env.session_options(log_severity_level=7)),
    Fails(
        "RuntimeError",
        "…Invalid session log severity level. Not a valid onnxruntime::logging::Severity value: 7",
        cause="RuntimeError",
    ),
    stdout="*************** EP Error ***************\nEP Error …Invalid session log severity level. Not a valid "
    "onnxruntime::logging::Severity value: 7… when using None\nFalling back to ['CPUExecutionProvider'] and "
    "retrying.\n****************************************",
)


def entries(ort: Any, *pairs: tuple[Any, Any]) -> Any:
    options = ort.SessionOptions()
    for key, value in pairs:
        options.add_session_config_entry(key, value)
    return options


S.row(
    "add_session_config_entry/get",
    lambda ort, env: entries(ort, ("a.b", "1")).get_session_config_entry("a.b"),
    "1",
)
S.row(
    "get_session_config_entry missing",
    lambda ort, env: ort.SessionOptions().get_session_config_entry("missing.key"),
    Fails("RuntimeError", "SessionOptions does not have configuration with key: missing.key"),
)
S.row(
    "add_session_config_entry twice (overwrite)",
    lambda ort, env: entries(ort, ("a.b", "1"), ("a.b", "2")).get_session_config_entry("a.b"),
    "2",
    stderr="Config with key [a.b] already exists with value [1]. It will be overwritten",
)
S.row(
    "add_session_config_entry non-str value",
    lambda ort, env: entries(ort, ("a", 1)),
    Fails(
        "TypeError",
        "add_session_config_entry(): incompatible function arguments. The following argument types are supported:\n"
        "    1. (self: C.SessionOptions, arg0: str, arg1: str) -> None\n\n"
        "Invoked with: <C.SessionOptions object>, 'a', 1",
    ),
)
BAD_KEY = Fails("RuntimeError", "Config key is empty or longer than maximum length 1024")
S.row("add_session_config_entry empty key", lambda ort, env: entries(ort, ("", "1")), BAD_KEY)
S.row("config entry key > 128 chars", lambda ort, env: entries(ort, ("k" * 1025, "1")), BAD_KEY)


@S.probe("unknown config key is accepted by a session", "2")
def _(ort: Any, env: Env) -> object:
    session = env.session(env.mul, entries(ort, ("a.b", "2")))
    return session.get_session_options().get_session_config_entry("a.b")


S.row(
    "invalid value: session.intra_op.allow_spinning='x'",
    lambda ort, env: env.session(env.mul, entries(ort, ("session.intra_op.allow_spinning", "x"))),
    SESSION,
)
S.row(
    "invalid value: session.load_model_format='FOO'",
    lambda ort, env: env.session(env.mul, entries(ort, ("session.load_model_format", "FOO"))),
    SESSION,
)


@S.probe("session.disable_prepacking='1' etc accepted", (3, 2))
def _(ort: Any, env: Env) -> object:
    options = entries(ort, ("session.disable_prepacking", "1"), ("session.set_denormal_as_zero", "1"))
    return env.session(env.mul, options).run(None, {"X": env.x})[0].shape


RELU = "g (float[N,M] x) => (float[N,M] y) { y = Relu(x) }"


def with_dimension(env: Env, *override: Any, by: str = "name") -> Any:
    options = env.session_options()
    getattr(options, f"add_free_dimension_override_by_{by}")(*override)
    proto = env.proto(RELU)
    proto.graph.input[0].type.tensor_type.shape.dim[0].denotation = "DATA_BATCH"
    return env.session(proto.SerializeToString(), options)


def shapes(session: Any) -> tuple[object, object]:
    return session.get_inputs()[0].shape, session.get_outputs()[0].shape


S.row(
    "free_dimension_override_by_name('N',4): input/output shapes",
    lambda ort, env: shapes(with_dimension(env, "N", 4)),
    ([4, "M"], [4, "M"]),
    parallel=True,
)
S.row(
    "…run with N=5",
    lambda ort, env: with_dimension(env, "N", 4).run(None, {"x": np.zeros((5, 2), "f")}),
    Fails(
        "InvalidArgument",
        "Got invalid dimensions for input: x for the following indices\n index: 0 Got: 5 Expected: 4\n "
        "Please fix either the inputs/outputs or the model.",
    ),
    parallel=True,
)
S.row("by_name of unknown dim", lambda ort, env: shapes(with_dimension(env, "Q", 4))[0], ["N", "M"])
S.row(
    "by_name value 0 / -1",
    lambda ort, env: tuple(shapes(with_dimension(env, "N", size))[0] for size in (0, -1)),
    ([0, "M"], [-1, "M"]),
)
S.row(
    "by_denotation('DATA_BATCH',4)",
    lambda ort, env: shapes(with_dimension(env, "DATA_BATCH", 4, by="denotation")),
    ([4, "M"], [4, "M"]),
)
S.row(
    "by_name('N','4')",
    lambda ort, env: with_dimension(env, "N", "4"),
    Fails(
        "TypeError",
        "add_free_dimension_override_by_name(): incompatible function arguments. The following argument types are "
        "supported:\n    1. (self: C.SessionOptions, arg0: str, arg1: typing.SupportsInt | typing.SupportsIndex) -> "
        "None\n\nInvoked with: <C.SessionOptions object>, 'N', '4'",
    ),
)
ADD = "g (float[2] x) => (float[2] y) <float[2] w = {1, 1}> { y = Add(x, w) }"
X = f32([1, 2])


def with_initializer(env: Env, name: str, array: np.ndarray[Any, Any], graph: str = ADD) -> object:
    options = env.session_options()
    value = env.value(array)
    options.add_initializer(name, value)
    return env.session(env.model(graph), options).run(None, {"x": X})


S.row(
    "add_initializer(name,OrtValue) replaces an initializer of the model",
    lambda ort, env: with_initializer(env, "w", f32([10, 20])),
    [f32([11, 22])],
    parallel=True,
)
S.row(
    "add_initializer wrong shape",
    lambda ort, env: with_initializer(env, "w", f32([1, 2, 3])),
    Fails(
        "Fail",
        "Non-zero status code returned while running Add node. Name:'' Status Message: …"
        "Attempting to broadcast an axis by a dimension other than 1. 2 by 3",
    ),
    ours=Fails("Fail", "…w…[2]…[3]…dimensions do not match."),
    why="a value that doesn't fit is refused when the session is made",
)
S.row(
    "add_initializer wrong dtype",
    lambda ort, env: with_initializer(env, "w", np.array([10.0, 20.0])),
    [f32([1, 4.5625])],
    ours=Fails("Fail", "…w…float…double…data type does not match."),
    why="a value that doesn't fit is refused when the session is made",
)
S.row(
    "add_initializer name not in model's initializers",
    lambda ort, env: with_initializer(env, "q", f32([10, 20])),
    [f32([2, 3])],
)
S.row(
    "add_initializer of a name with no initializer in graph",
    lambda ort, env: with_initializer(env, "w", f32([10, 20]), "g (float[2] x) => (float[2] y) { y = Add(x, w) }"),
    Fails(
        "InvalidArgument",
        "Invalid model. Node input 'w' is not a graph input, initializer, or output of a previous node.",
    ),
)


@S.probe("add_initializer twice", Fails("RuntimeError", "…An OrtValue for this name has already been added: w"))
def _(ort: Any, env: Env) -> object:
    options = ort.SessionOptions()
    value = env.value(X)
    options.add_initializer("w", value)
    return options.add_initializer("w", value)


S.row(
    "add_initializer(ndarray)",
    lambda ort, env: ort.SessionOptions().add_initializer("w", X),
    Fails("RuntimeError", "…The provided Python object must be an OrtValue"),
)


@S.probe(
    "add_initializer returned/lifetime: OrtValue garbage collected before session",
    UNSTABLE,
    ours=[f32([11, 22])],
    why="options keep the values that they are given",
)
def _(ort: Any, env: Env) -> object:
    options = env.session_options()
    options.add_initializer("w", env.value(f32([10, 20])))
    gc.collect()
    session = env.session(env.model(ADD), options)
    del options
    gc.collect()
    return session.run(None, {"x": X})


def external(env: Env, location: str) -> bytes:
    """y = x + w, where w [2] lies in a file."""
    proto = env.proto("g (float[2] x) => (float[2] y) { y = Add(x, w) }")
    w = proto.graph.initializer.add(name="w", data_type=TensorProto.FLOAT, dims=[2])
    w.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", "8")):
        w.external_data.add(key=key, value=value)
    (env.tmp / "weights.bin").write_bytes(f32([7, 8]).tobytes())
    return proto.SerializeToString()


def replaced(env: Env, names: list[str], arrays: list[np.ndarray[Any, Any]]) -> object:
    options = env.session_options()
    values = [env.value(array) for array in arrays]
    options.add_external_initializers(names, values)
    path = env.save(external(env, "weights.bin"))
    return env.session(path, options).run(None, {"x": X})


S.row(
    "add_external_initializers(['w'],[OrtValue])",
    lambda ort, env: replaced(env, ["w"], [f32([10, 20])]),
    [f32([11, 22])],
    parallel=True,
)
S.row(
    "add_external_initializers unknown name",
    lambda ort, env: replaced(env, ["q"], [f32([10, 20])]),
    Fails("Fail", "…Failed to find existing initializer with name q."),
)
S.row(
    "add_external_initializers wrong shape",
    lambda ort, env: replaced(env, ["w"], [f32([10, 20, 30])]),
    Fails("Fail", "…Replacement tensor's dimensions do not match."),
)
S.row(
    "add_external_initializers length mismatch",
    lambda ort, env: ort.SessionOptions().add_external_initializers(["w", "v"], [env.value(X)]),
    Fails("RuntimeError", "…Expecting names and ort_values lists to have equal length"),
)


@S.probe("add_external_initializers_from_files_in_memory", [f32([6, 8])])
def _(ort: Any, env: Env) -> object:
    options = env.session_options()
    content = f32([5, 6]).tobytes()
    options.add_external_initializers_from_files_in_memory(["weights.bin"], [content], [len(content)])
    return env.session(external(env, "weights.bin"), options).run(None, {"x": X})


S.row(
    "model path + external data next to it",
    lambda ort, env: env.run(env.save(external(env, "weights.bin")), {"x": X}),
    [f32([8, 10])],
    parallel=True,
)


@S.probe(
    "model bytes + external data in cwd",
    Fails("Fail", "…model_path must not be empty. Ensure that a path is provided when the model is created or loaded."),
    ours=Fails("Fail", "…set session.model_external_initializers_file_folder_path."),
    why="the error says what helps",
)
def _(ort: Any, env: Env) -> object:
    before = os.getcwd()
    os.chdir(env.tmp)
    try:
        return env.run(external(env, "weights.bin"), {"x": X})
    finally:
        os.chdir(before)


S.row(
    "…bytes, cwd elsewhere + session.model_external_initializers_file_folder_path",
    lambda ort, env: env.session(
        external(env, "weights.bin"),
        entries(ort, ("session.model_external_initializers_file_folder_path", str(env.tmp))),
    ).run(None, {"x": X}),
    [f32([8, 10])],
)
S.row(
    "register_custom_ops_library missing file",
    lambda ort, env: ort.SessionOptions().register_custom_ops_library("/nope.so"),
    Fails(
        "Fail", "Failed to load library /nope.so with error: /nope.so: cannot open shared object file: No such file…"
    ),
)
S.row(
    "add_provider('NoSuch',{})",
    lambda ort, env: ort.SessionOptions().add_provider("NoSuch", {}),
    Fails("RuntimeError", "Unknown Provider Type: NoSuch"),
)


@S.probe("add_provider('CPUExecutionProvider',{}); has_providers()", (None, True))
def _(ort: Any, env: Env) -> object:
    options = ort.SessionOptions()
    return options.add_provider("CPUExecutionProvider", {}), options.has_providers()


@S.probe("set_provider_selection_policy(PREFER_CPU)", (None, ["CPUExecutionProvider"]))
def _(ort: Any, env: Env) -> object:
    options = env.session_options()
    done = options.set_provider_selection_policy(ort.OrtExecutionProviderDevicePolicy.PREFER_CPU)
    return done, env.session(env.save(env.mul), options).get_providers()


@S.probe(
    "set_load_cancellation_flag(True) then create",
    Fails("ModelLoadCanceled", "…Graph loading canceled due to user request."),
)
def _(ort: Any, env: Env) -> object:
    options = env.session_options()
    options.set_load_cancellation_flag(True)
    return env.session(env.save(env.mul), options)


NO_POOL = "When the session is not configured to use per session threadpools, the env must be created with the the "
S.row(
    "use_per_session_threads=False w/o global pool",
    lambda ort, env: env.session(env.mul, env.session_options(use_per_session_threads=False)),
    Fails("RuntimeError", f"…{NO_POOL}CreateEnvWithGlobalThreadPools API.", cause="RuntimeError"),
    stdout=f"*************** EP Error ***************\nEP Error …{NO_POOL}…****************************************",
)


@S.probe("execution_mode=ORT_PARALLEL", (3, 2), parallel=True)
def _(ort: Any, env: Env) -> object:
    options = env.session_options(execution_mode=ort.ExecutionMode.ORT_PARALLEL)
    return env.session(env.mul, options).run(None, {"X": env.x})[0].shape


F = Section("optimized_model_filepath")
FOLDS = """g (float[2] x) => (float[2] y) <float[2] c1 = {1, 2}, float[2] c2 = {3, 4}> {
    [n1] r = Relu(x)
    [n2] i = Identity(r)
    [n3] c = Add(c1, c2)
    [n4] y = Add(i, c)
}"""


def optimized(ort: Any, env: Env, level: str, path: str = "optimized.onnx", **arguments: Any) -> Any:
    options = ort.SessionOptions()
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
    options.optimized_model_filepath = str(env.tmp / path)
    return ort.InferenceSession(env.model(FOLDS), options, **arguments)


LEVELS = ("ORT_ENABLE_BASIC", "ORT_ENABLE_EXTENDED", "ORT_ENABLE_LAYOUT", "ORT_ENABLE_ALL")
HARDWARE = "Serializing optimized model with Graph Optimization level greater than ORT_ENABLE_EXTENDED"


def nodes_of(ort: Any, env: Env, level: str) -> object:
    """The operators, how many initializers, the version, and whether the standard's opset is kept."""
    optimized(ort, env, level)
    proto = onnx.load(env.tmp / "optimized.onnx")
    opsets = {item.domain: item.version for item in proto.opset_import}
    return [n.op_type for n in proto.graph.node], len(proto.graph.initializer), proto.ir_version, opsets[""]


F.row(
    "optimized model, ORT_DISABLE_ALL",
    lambda ort, env: nodes_of(ort, env, "ORT_DISABLE_ALL"),
    (["Relu", "Identity", "Add", "Add"], 2, 8, 17),
)
for _level in LEVELS:
    F.row(
        f"optimized model, {_level}",
        lambda ort, env, level=_level: nodes_of(ort, env, level),
        (["Relu", "Add"], 1, 8, 17),
        stderr=HARDWARE if _level in LEVELS[2:] else "",
    )
F.row(
    "optimized_model_filepath in missing dir",
    lambda ort, env: optimized(ort, env, "ORT_ENABLE_BASIC", "missing/m.onnx"),
    Fails("InvalidArgument", "…SystemError : 2"),
)


NO_ORT_FORMAT = "onnxruntime's own format is neither read nor written"


@F.probe(
    "optimized_model_filepath='m.ort' → flatbuffer id; reload by path",
    (b"ORTM", [f32([5, 8])]),
    ours=Fails("NotImplemented", "…m.ort: models are written as ONNX…"),
    why=NO_ORT_FORMAT,
)
def _(ort: Any, env: Env) -> object:
    optimized(ort, env, "ORT_ENABLE_BASIC", "m.ort")
    path = env.tmp / "m.ort"
    return path.read_bytes()[4:8], env.run(str(path), {"x": X})


@F.probe(
    "ORT-format bytes reload",
    [f32([5, 8])],
    ours=Fails("NotImplemented", "…m.ort: models are written as ONNX…"),
    why=NO_ORT_FORMAT,
)
def _(ort: Any, env: Env) -> object:
    optimized(ort, env, "ORT_ENABLE_BASIC", "m.ort")
    return env.run((env.tmp / "m.ort").read_bytes(), {"x": X})


F.row(
    "disabled_optimizers kwarg",
    lambda ort, env: env.session(env.model(FOLDS), disabled_optimizers=["ConstantFolding"]).run(None, {"x": X}),
    [f32([5, 8])],
)

P = Section("profiling")


def profiled(ort: Any, env: Env, prefix: str = "pp") -> tuple[Any, str]:
    """A session that has run once, and its profile's file."""
    options = env.session_options(enable_profiling=True, profile_file_prefix=str(env.tmp / prefix))
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    session = env.session(env.model(FOLDS), options)
    session.run(None, {"x": X})
    return session, session.end_profiling()


def events(ort: Any, env: Env) -> list[dict[str, Any]]:
    return json.loads(Path(profiled(ort, env)[1]).read_text())


@P.probe(
    "profile file",
    {
        "file": "pp_NNNN-NN-NN_NN-NN-NN_NNN.json",
        "cats": ["Node", "Session"],
        "keys": [["args", "cat", "dur", "name", "ph", "pid", "tid", "ts"]],
        "names": [
            "model_loading_array",
            "model_run",
            "n1_kernel_time",
            "n4_kernel_time",
            "session_initialization",
        ],
        "ph": ["X"],
    },
    plain=True,
)
def _(ort: Any, env: Env) -> object:
    _session, file = profiled(ort, env)
    found = json.loads(Path(file).read_text())
    names = {event["name"] for event in found} - {"SequentialExecutor::Execute"}
    return {
        "file": re.sub(r"\d", "N", re.sub(r"_\d+\.json", lambda m: f"_{'N' * 3}.json", Path(file).name)),
        "cats": sorted({event["cat"] for event in found}),
        "keys": sorted({tuple(sorted(event)) for event in found}) and [sorted(found[0])],
        "names": sorted(names),
        "ph": sorted({event["ph"] for event in found}),
    }


@P.probe("sample Session event", [("model_loading_array", "X", True, {}), ("session_initialization", "X", True, {})])
def _(ort: Any, env: Env) -> object:
    return [
        (
            event["name"],
            event["ph"],
            event["pid"] == os.getpid() and event["dur"] >= 0 and event["ts"] >= 0,
            event["args"],
        )
        for event in events(ort, env)
        if event["name"] in ("model_loading_array", "session_initialization")
    ]


@P.probe(
    "sample Node kernel_time event",
    {
        "op_name": "Relu",
        "provider": "CPUExecutionProvider",
        "node_index": "0",
        "activation_size": "8",
        "parameter_size": "0",
        "output_size": "8",
        "input_type_shape": [{"float": [2]}],
        "output_type_shape": [{"float": [2]}],
    },
    plain=True,
)
def _(ort: Any, env: Env) -> object:
    (event,) = [event for event in events(ort, env) if event["name"] == "n1_kernel_time"]
    wanted = "op_name provider node_index activation_size parameter_size output_size input_type_shape output_type_shape"
    return {name: event["args"].get(name) for name in wanted.split()}


@P.probe(
    "first 300 bytes of raw file", '[\n{"cat" : "Session","pid" :…,"ts" :…,"ph" : "X","name" :"model_loading_array",…'
)
def _(ort: Any, env: Env) -> object:
    return Path(profiled(ort, env)[1]).read_text()


@P.probe("tail of raw file", '…"ph" : "X","name" :"model_run","args" : {}}\n]\n')
def _(ort: Any, env: Env) -> object:
    return Path(profiled(ort, env)[1]).read_text()


@P.probe("start_time_ns is on time.monotonic_ns() / time.time_ns() clock?", (False, True))
def _(ort: Any, env: Env) -> object:
    start = profiled(ort, env)[0].get_profiling_start_time_ns()
    return tuple(abs(clock() - start) < 60e9 for clock in (time.monotonic_ns, time.time_ns))


@P.probe("end_profiling() twice", (True, ""))
def _(ort: Any, env: Env) -> object:
    session, file = profiled(ort, env)
    return bool(file), session.end_profiling()


P.row("end_profiling() when profiling is off", lambda ort, env: env.session(env.mul).end_profiling(), "")
P.row("get_profiling_start_time_ns() when off", lambda ort, env: env.session(env.mul).get_profiling_start_time_ns(), 0)


@P.probe("profiling without end_profiling: file written when session dies", (1, True))
def _(ort: Any, env: Env) -> object:
    options = env.session_options(enable_profiling=True, profile_file_prefix=str(env.tmp / "pp"))
    session = env.session(env.model(FOLDS), options)
    session.run(None, {"x": X})
    del session
    gc.collect()
    files = list(env.tmp.glob("pp_*.json"))
    return len(files), all(path.read_text().rstrip().endswith("]") for path in files)


@P.probe("default prefix file name", "onnxruntime_profile__NNNN-NN-NN_NN-NN-NN_NNN.json")
def _(ort: Any, env: Env) -> object:
    before = os.getcwd()
    os.chdir(env.tmp)
    try:
        session = env.session(env.mul, env.session_options(enable_profiling=True))
        session.run(None, {"X": env.x})
        name = Path(session.end_profiling()).name
    finally:
        os.chdir(before)
    return re.sub(r"\d", "N", re.sub(r"_\d+\.json", "_NNN.json", name))
