"""Settings of the process, enums, exceptions, and what programs do with all of it."""

from __future__ import annotations

import contextlib
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from onnx import helper

from .table import LEFT_OUT, SQUARES, Env, Fails, Section, f32

L = Section("logging, globals")
INT = "typing.SupportsInt | typing.SupportsIndex"
SEVERITY = Fails("RuntimeError", "…Invalid logging severity. 0:Verbose, 1:Info, 2:Warning, 3:Error, 4:Fatal…")


@contextlib.contextmanager
def default_severity(ort: Any, severity: int = 2) -> Iterator[None]:
    """The severity, and after the block what every process begins with."""
    try:
        ort.set_default_logger_severity(severity)
        yield
    finally:
        ort.set_default_logger_callback(None)
        ort.set_default_logger_severity(2)


@L.probe("set_default_logger_severity(3)", None)
def _(ort: Any, env: Env) -> None:
    with default_severity(ort, 3):
        pass


L.row("set_default_logger_severity(7)", lambda ort, env: ort.set_default_logger_severity(7), SEVERITY)
L.row(
    "set_default_logger_severity('a')",
    lambda ort, env: ort.set_default_logger_severity("a"),
    Fails(
        "TypeError",
        "set_default_logger_severity(): incompatible function arguments. The following argument types are "
        f"supported:\n    1. (arg0: {INT}) -> None\n\nInvoked with: 'a'",
    ),
)
L.row("set_default_logger_verbosity(1)", lambda ort, env: ort.set_default_logger_verbosity(1), None)
LEFT_OUT["set_seed(1)"] = "in the row of set_seed(5), which a process of its own runs"
L.row(
    "set_seed(5) twice + RandomNormal reproducible",
    lambda ort, env: env.python(
        "import onnx\n"
        "text = '<ir_version: 8, opset_import: [\"\" : 17]> g () => (float[2] y) { y = RandomNormal<shape = [2]>() }'\n"
        "model = onnx.parser.parse_model(text).SerializeToString()\n"
        "def draw():\n"
        "    ort.set_seed(5)\n"
        "    return ort.InferenceSession(model).run(None, {})[0].tolist()\n"
        "print(draw() == draw())\n"
    ),
    "exit 0 True",
)


@L.probe("RandomNormal with seed attr", (True, (2,)))
def _(ort: Any, env: Env) -> object:
    model = env.model("g () => (float[2] y) { y = RandomNormal<shape = [2], seed = 3.0>() }")
    first, second = (env.run(model, {})[0] for _ in range(2))
    return bool((first == second).all()), first.shape


L.row(
    "get_version_string()/get_build_info()",
    lambda ort, env: (ort.get_version_string(), ort.get_build_info()),
    ("1.…", "ORT Build Info: …"),
    ours=("0.…", "distort …, with the API of onnxruntime 1.32"),
    why="they are this package's own",
)
L.row("has_collective_ops()", lambda ort, env: ort.has_collective_ops(), False)
L.row(
    "disable/enable_telemetry_events()",
    lambda ort, env: (ort.disable_telemetry_events(), ort.enable_telemetry_events()),
    (None, None),
)


@L.probe(
    "get_ep_devices()",
    ("CPUExecutionProvider", "Microsoft", {"version": "1.…"}, {}, "<OrtHardwareDeviceType.CPU: 0>"),
    ours=("CPUExecutionProvider", "distort", {"version": "0.…"}, {}, "<OrtHardwareDeviceType.CPU: 0>"),
    why="the provider is this package's own",
)
def _(ort: Any, env: Env) -> object:
    (device,) = ort.get_ep_devices()
    return device.ep_name, device.ep_vendor, device.ep_metadata, device.ep_options, device.device.type


@L.probe("add_provider_for_devices(cpu device)", (None, ["CPUExecutionProvider"]))
def _(ort: Any, env: Env) -> object:
    options = env.session_options()
    return options.add_provider_for_devices(ort.get_ep_devices(), {}), env.session(env.mul, options).get_providers()


L.row(
    "register_execution_provider_library('x','/nope.so')",
    lambda ort, env: ort.register_execution_provider_library("x", "/nope.so"),
    Fails("Fail", "Failed to load library /nope.so with error: /nope.so: cannot open shared object file: No such…"),
)
L.row(
    "unregister_execution_provider_library('x')",
    lambda ort, env: ort.unregister_execution_provider_library("x"),
    Fails("Fail", "Execution provider library: x was not registered."),
)


@L.probe("create_and_register_allocator(arena)", None)
def _(ort: Any, env: Env) -> object:
    info = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    return ort.create_and_register_allocator(info, ort.OrtArenaCfg(0, -1, -1, -1))


@L.probe("OrtArenaCfg(0,-1,-1,-1)", (0, -1))
def _(ort: Any, env: Env) -> object:
    arena = ort.OrtArenaCfg(0, -1, -1, -1)
    return arena.max_mem, arena.arena_extend_strategy


L.row("OrtArenaCfg({'max_mem':100})", lambda ort, env: ort.OrtArenaCfg({"max_mem": 100}).max_mem, 100)
L.row(
    "OrtArenaCfg({'bogus':1})",
    lambda ort, env: ort.OrtArenaCfg({"bogus": 1}),
    Fails("RuntimeError", "…Invalid OrtArenaCfg option: bogus…"),
)
L.row("preload_dlls()", lambda ort, env: ort.preload_dlls(), None)
L.row("print_debug_info()", lambda ort, env: ort.print_debug_info(), None, stdout="… version: …LD_LIBRARY_PATH=…")
L.row("C.get_default_session_options()", lambda ort, env: env.c.get_default_session_options(), "<SessionOptions>")

E = Section("enums (pybind11 py::enum_)")
ALL = "<GraphOptimizationLevel.ORT_ENABLE_ALL: 99>"
PYTHONIC = "they are Python's enums, which compare by number, and have their members"


@E.probe("repr/str/int/value/name", (ALL, "GraphOptimizationLevel.ORT_ENABLE_ALL", 99, 99, "ORT_ENABLE_ALL"))
def _(ort: Any, env: Env) -> object:
    level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    return repr(level), str(level), int(level), level.value, level.name


E.row("G(99)", lambda ort, env: ort.GraphOptimizationLevel(99), ALL)
E.row(
    "G(1234) (not a member)",
    lambda ort, env: ort.GraphOptimizationLevel(1234),
    "<GraphOptimizationLevel.???: 1234>",
    ours=Fails("ValueError", "1234 is not a valid GraphOptimizationLevel"),
    why=PYTHONIC,
)
E.row(
    "G('ORT_ENABLE_ALL')",
    lambda ort, env: ort.GraphOptimizationLevel("ORT_ENABLE_ALL"),
    Fails("TypeError", "__init__(): incompatible constructor arguments…"),
    ours=Fails("ValueError", "'ORT_ENABLE_ALL' is not a valid GraphOptimizationLevel"),
    why=PYTHONIC,
)
E.row("G.ORT_ENABLE_ALL == 99", lambda ort, env: ort.GraphOptimizationLevel.ORT_ENABLE_ALL == 99, True)
E.row(
    "G.A < G.B",
    lambda ort, env: ort.GraphOptimizationLevel.ORT_DISABLE_ALL < ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
    Fails("TypeError", "'<' not supported between instances of…"),
    ours=True,
    why=PYTHONIC,
)
E.row(
    "G['ORT_ENABLE_ALL']",
    lambda ort, env: ort.GraphOptimizationLevel["ORT_ENABLE_ALL"],
    Fails("TypeError", "type '…GraphOptimizationLevel' is not subscriptable"),
    ours=ALL,
    why=PYTHONIC,
)
E.row(
    "iterate G",
    lambda ort, env: len(list(ort.GraphOptimizationLevel)),
    Fails("TypeError", "'pybind11_type' object is not iterable"),
    ours=5,
    why=PYTHONIC,
)
E.row(
    "G.__members__",
    lambda ort, env: {name: int(level) for name, level in ort.GraphOptimizationLevel.__members__.items()},
    {
        "ORT_DISABLE_ALL": 0,
        "ORT_ENABLE_BASIC": 1,
        "ORT_ENABLE_EXTENDED": 2,
        "ORT_ENABLE_LAYOUT": 3,
        "ORT_ENABLE_ALL": 99,
    },
)


@E.probe("OrtCompileApiFlags | & int", (3, True))
def _(ort: Any, env: Env) -> object:
    flags = ort.OrtCompileApiFlags
    both = flags.ERROR_IF_NO_NODES_COMPILED | flags.ERROR_IF_OUTPUT_FILE_EXISTS
    return int(both), bool(both & flags.ERROR_IF_NO_NODES_COMPILED)


E.row(
    "hash / dict key",
    lambda ort, env: {ort.GraphOptimizationLevel.ORT_ENABLE_BASIC: 1}[ort.GraphOptimizationLevel(1)],
    1,
)

X = Section("exceptions")
X.row(
    "exception classes' MRO",
    lambda ort, env: [cls.__name__ for cls in env.c.InvalidArgument.__mro__],
    ["InvalidArgument", "Exception", "BaseException", "object"],
)
X.row("C.Fail is a RuntimeError?", lambda ort, env: issubclass(env.c.Fail, RuntimeError), False)
X.row("onnxruntime.InvalidArgument exists?", lambda ort, env: hasattr(ort, "InvalidArgument"), False)


@X.probe(
    "e.args, vars(e), pickle roundtrip",
    (
        (
            "[ONNXRuntimeError] : 3 : NO_SUCHFILE : Load model from /nope/x.onnx failed:Load model /nope/x.onnx "
            "failed. File doesn't exist",
        ),
        {},
        "NoSuchFile",
    ),
)
def _(ort: Any, env: Env) -> object:
    try:
        env.session("/nope/x.onnx")
    except env.c.NoSuchFile as error:
        return error.args, vars(error), type(pickle.loads(pickle.dumps(error))).__name__


I = Section("downstream idioms", parallel=True)  # noqa: E741  # the sections are named by their initials


@I.probe("insightface PickableInferenceSession: subclass, pickle round trip, run", (3, 2))
def _(ort: Any, env: Env) -> object:
    path, options = env.save(env.mul), env.session_options

    class Pickable(ort.InferenceSession):  # type: ignore[misc, name-defined]  # ort is a module of the test's choice
        def __init__(self, model_path: str) -> None:
            super().__init__(model_path, options())
            self.model_path = model_path

        def __getstate__(self) -> dict[str, str]:
            return {"model_path": self.model_path}

        def __setstate__(self, values: dict[str, str]) -> None:
            self.__init__(values["model_path"])  # type: ignore[misc]  # it is how they do it

    session = Pickable(path)
    copied = Pickable.__new__(Pickable)
    copied.__setstate__(session.__getstate__())
    try:
        return copied.run(None, {"X": env.x})[0].shape
    finally:
        for one in (session, copied):
            if hasattr(one, "close"):
                one.close()


@I.probe(
    "insightface: session._providers, session._provider_options",
    (["CPUExecutionProvider"], {"CPUExecutionProvider": {}}),
)
def _(ort: Any, env: Env) -> object:
    session = env.session(env.mul)
    return session._providers, session._provider_options


I.row(
    "optimum: Path(session._model_path)",
    lambda ort, env: type(Path(env.session(env.save(env.mul))._model_path)).__name__,
    "PosixPath",
)


@I.probe("optimum: IOBinding(session) kept; bind_output raw ptr each run; clear_binding_outputs", SQUARES)
def _(ort: Any, env: Env) -> object:
    session = env.session(env.mul)
    binding = ort.IOBinding(session)
    x = np.ascontiguousarray(env.x)
    result = np.zeros((3, 2), np.float32)
    for _ in range(2):
        binding.bind_input("X", "cpu", 0, np.float32, (3, 2), x.ctypes.data)
        binding.bind_output("Y", "cpu", 0, np.float32, (3, 2), result.ctypes.data)
        session.run_with_iobinding(binding)
        binding.clear_binding_inputs()
        binding.clear_binding_outputs()
    return result


@I.probe("optimum: set_providers([p],provider_options=[{}])", (None, ["CPUExecutionProvider"]))
def _(ort: Any, env: Env) -> object:
    session = env.session(env.mul)
    return session.set_providers(["CPUExecutionProvider"], provider_options=[{}]), session.get_providers()


@I.probe(
    "IOBinding created before set_providers, used after",
    Fails("ValueError", "IOBinding must be used with the session that created it."),
)
def _(ort: Any, env: Env) -> object:
    session = env.session(env.mul)
    binding = session.io_binding()
    session.set_providers(["CPUExecutionProvider"])
    return session.run_with_iobinding(binding)


TOOLS = "onnxruntime's tools are programs over the API, and no part of it"
LEFT_OUT["onnxruntime.transformers.io_binding_helper.TypeHelper importable without torch"] = TOOLS
LEFT_OUT["onnxruntime.quantization importable"] = TOOLS
LEFT_OUT["onnxruntime.tools importable"] = TOOLS
LEFT_OUT["sklearn pipeline via skl2onnx: run outputs"] = "tests/models/test_classical.py has many"
I.row(
    "`import onnxruntime as ort; ort.datasets` without importing it (subprocess)",
    lambda ort, env: env.python(
        "print(*(hasattr(ort, name) for name in ('datasets', 'backend', 'capi', 'quantization')))"
    ),
    "exit 0 False False True False",
    ours="exit 0 True True True False",
    why="submodules are imported when they are asked for",
    parallel=False,
)

M = Section("more", parallel=True)
TWO = "g (float[2] x) => (float[2] y, float[2] z) { t = Relu(x)\n y = Identity(t)\n z = Identity(x) }"
V = f32([1, -2])
M.row(
    "run(['z','y']) order follows the request",
    lambda ort, env: env.run(env.model(TWO), {"x": V}, ["z", "y"]),
    [V, f32([1, 0])],
)
M.row(
    "intermediate value as output name",
    lambda ort, env: env.run(env.model(TWO), {"x": V}, ["t"]),
    Fails("InvalidArgument", "Invalid output name:t"),
)


@M.probe("graph output listed twice", (["y", "y"], [f32([1, 2]), f32([1, 2])]))
def _(ort: Any, env: Env) -> object:
    proto = env.proto("g (float[2] x) => (float[2] y) { y = Relu(x) }")
    proto.graph.output.append(proto.graph.output[0])
    session = env.session(proto.SerializeToString())
    return [arg.name for arg in session.get_outputs()], session.run(None, {"x": f32([1, 2])})


UNUSED = "g (float[2] x, float[2] u) => (float[2] y) { y = Relu(x) }"
M.row(
    "unused graph input must still be fed",
    lambda ort, env: env.run(env.model(UNUSED), {"x": V}),
    Fails("ValueError", "Required inputs (['u']) are missing from input feed (['x'])."),
)
M.row(
    "unused graph input dtype is checked",
    lambda ort, env: env.run(env.model(UNUSED), {"x": V, "u": np.zeros(2, np.int64)}),
    Fails("InvalidArgument", "Unexpected input data type. Actual: (tensor(int64)) , expected: (tensor(float))"),
)
FUNCTION = """g (float[2] x) => (float[2] y) { y = local.f(x) }
<domain: "local", opset_import: ["" : 17]> f (a) => (b) { b = Relu(a) }"""
M.row(
    "custom function (model-local) call",
    lambda ort, env: env.run(env.model(FUNCTION, local=1), {"x": V}),
    [f32([1, 0])],
)
FUSED = "g (float[2,2] a, float[2,2] b) => (float[2,2] y) { y = com.microsoft.FusedMatMul<alpha = 2.0>(a, b) }"
M.row(
    "contrib op com.microsoft FusedMatMul",
    lambda ort, env: env.run(env.model(FUSED, com_microsoft=1), {"a": np.eye(2, dtype="f"), "b": np.eye(2, dtype="f")}),
    [f32([[2, 0], [0, 2]])],
)
M.row("contrib op used without the domain import", lambda ort, env: env.session(env.model(FUSED)), "<InferenceSession>")
M.row(
    "model > opset map: ai.onnx.ml opset 99",
    lambda ort, env: env.session(env.model("g (float[2] x) => (float[2] y) { y = Relu(x) }", ai_onnx_ml=99)),
    Fails(
        "Fail",
        "…ONNX Runtime only *guarantees* support for models stamped with official released onnx opset versions. Opset…",
    ),
)


@M.probe("domain 'ai.onnx' explicit instead of ''", [f32([0, 1])])
def _(ort: Any, env: Env) -> object:
    proto = env.proto("g (float[2] x) => (float[2] y) { y = Relu(x) }")
    proto.opset_import[0].domain = proto.graph.node[0].domain = "ai.onnx"
    return env.run(proto.SerializeToString(), {"x": f32([-1, 1])})


def shapes(env: Env, graph: str, undeclared: bool = False) -> list[Any]:
    """Of the outputs; their declared ones may be taken out of the model."""
    proto = env.proto(graph)
    for output in proto.graph.output if undeclared else ():
        output.type.tensor_type.ClearField("shape")
    return [arg.shape for arg in env.session(proto.SerializeToString()).get_outputs()]


M.row(
    "dim_param NodeArg of intermediate symbolic: output dims 'N' kept / new",
    lambda ort, env: shapes(env, "g (float[N,3] x) => (float y) { y = Concat<axis = 0>(x, x) }", undeclared=True),
    [[None, 3]],
)
M.row(
    "output dim_param as declared",
    lambda ort, env: shapes(env, "g (float[N,3] x) => (float[twoN,3] y) { y = Concat<axis = 0>(x, x) }"),
    [["twoN", 3]],
)
M.row(
    "NodeArg dims for Reshape-unknown output declared ['a','b']",
    lambda ort, env: shapes(env, "g (float[N,3] x, int64[2] s) => (float[a,b] y) { y = Reshape(x, s) }"),
    [["a", "b"]],
)


def sized(env: Env, size: int, *more: int) -> bytes:
    """y = relu(x), x with a size that no text can have."""
    infos = [helper.make_tensor_value_info("x", 1, [size, *more]), helper.make_tensor_value_info("y", 1, None)]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", infos[:1], infos[1:])
    opsets = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()


M.row(
    "negative dim_value -1 in model",
    lambda ort, env: [arg.shape for arg in env.session(sized(env, -1, 2)).get_inputs()],
    [[None, 2]],
)
M.row(
    "dim_value 0 declared, fed 3",
    lambda ort, env: env.run(sized(env, 0), {"x": f32([1, 2, 3])}),
    Fails(
        "InvalidArgument",
        "Got invalid dimensions for input: x for the following indices\n index: 0 Got: 3 Expected: 0…",
    ),
)
M.row("-1 declared, fed 3", lambda ort, env: env.run(sized(env, -1), {"x": f32([1, 2, 3])}), [f32([1, 2, 3])])
M.row(
    "NaN/Inf pass through, no warnings",
    lambda ort, env: env.run(env.model("g (float[2] x) => (float[2] y) { y = Relu(x) }"), {"x": f32([np.nan, np.inf])}),
    [f32([np.nan, np.inf])],
)
DIVIDE = "g (int64[2] a, int64[2] b) => (int64[2] y) { y = Div(a, b) }"
M.row(
    "int division by zero (Div int64)",
    lambda ort, env: env.run(env.model(DIVIDE), {"a": np.array([1, 2]), "b": np.array([0, 1])}),
    Fails(
        "Fail",
        "Non-zero status code returned while running Div node. Name:'' Status Message: …nteger division by zero…",
    ),
)
SCALAR = "g (float[N] x) => (float[2] c) { c = Relu(x) }"
M.row(
    "raw stderr line of a warning (ANSI)",
    lambda ort, env: env.run(env.model(SCALAR), {"x": f32([1])})[0].shape,
    (1,),
    stderr="Expected shape from model of {2} does not match actual shape of {1} for output c",
    parallel=False,
)


@M.probe("set_default_logger_callback: one record", (True, "onnxruntime", "", True), parallel=False)
def _(ort: Any, env: Env) -> object:
    lines: list[Any] = []
    with default_severity(ort):
        ort.set_default_logger_callback(lambda *line: lines.append(line), 1)
        env.session(env.mul)
    severity, category, logid, place, message = lines[0]
    return severity <= 1, category, logid, all(isinstance(text, str) and text for text in (place, message))


M.row(
    "set_default_logger_callback(cb, severity=5)",
    lambda ort, env: ort.set_default_logger_callback(print, 5),
    SEVERITY,
    parallel=False,
)
M.row(
    "set_default_logger_callback('x')",
    lambda ort, env: ort.set_default_logger_callback("x"),
    Fails("RuntimeError", "…callback must be a callable…"),
    parallel=False,
)


@M.probe("run on a session whose file was deleted meanwhile", (3, 2))
def _(ort: Any, env: Env) -> object:
    path = env.save(env.mul)
    session = env.session(path)
    os.unlink(path)
    return session.run(None, {"X": env.x})[0].shape


M.row(
    "ORT_LOAD_CONFIG_FROM_MODEL / read_config_from_model with no config",
    lambda ort, env: env.session(env.mul, read_config_from_model=1).get_providers(),
    ["CPUExecutionProvider"],
)


@M.probe("SessionOptions shared by two sessions", [(3, 2), (3, 2)])
def _(ort: Any, env: Env) -> object:
    options = env.session_options()
    return [env.session(env.mul, options).run(None, {"X": env.x})[0].shape for _ in range(2)]


@M.probe("SessionOptions() == / hash / bool", (True, False), parallel=False)
def _(ort: Any, env: Env) -> object:
    return bool(ort.SessionOptions()), ort.SessionOptions() == ort.SessionOptions()


M.row(
    "sess_options=dict",
    lambda ort, env: ort.InferenceSession(env.save(env.mul), {"a": 1}),
    Fails(
        "TypeError", "__init__(): incompatible constructor arguments…Invoked with: {'a': 1}, …model.onnx', True, False"
    ),
    parallel=False,
)
M.row(
    "positional: InferenceSession(path, None, ['CPUExecutionProvider'], None)",
    lambda ort, env: ort.InferenceSession(env.save(env.mul), None, ["CPUExecutionProvider"], None).get_providers(),
    ["CPUExecutionProvider"],
    parallel=False,
)
LEFT_OUT["peak: 2000 run() calls µs each"] = "a speed, which benchmarks/latency.py measures"

G = Section("set_global_thread_pool_sizes (must be last: process wide)")
POOL = "ort.set_global_thread_pool_sizes(1, 1)\n"
G.row("set_global_thread_pool_sizes(1,1)", lambda ort, env: env.python(f"print({POOL.strip()})"), "exit 0 None")
G.row(
    "then an ordinary session",
    lambda ort, env: env.python(f"{POOL}ort.InferenceSession(mul, enable_fallback=0)"),
    "exit 1 …use_per_session_threads must be false when using a global thread pool…",
)
G.row(
    "then a session with use_per_session_threads=False",
    lambda ort, env: env.python(
        f"{POOL}options = ort.SessionOptions()\noptions.use_per_session_threads = False\n"
        "print(ort.InferenceSession(mul, options).run(None, {'X': x})[0].shape == (3, 2))"
    ),
    "exit 0 True",
)
