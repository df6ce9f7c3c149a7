"""Execution providers, and what a session tells of itself."""

from __future__ import annotations

import copy
import pickle
from typing import Any

from .table import Env, Fails, Section

S = Section("Providers")
SESSION = "<InferenceSession>"
CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
OWN = "each package has its own providers"


def box(text: str, providers: object) -> str:
    """What a session prints before it tries again with the CPU."""
    return (
        f"*************** EP Error ***************\nEP Error {text} when using {providers}\n"
        f"Falling back to ['{CPU}'] and retrying.\n****************************************"
    )


def absent(name: str) -> str:
    return f"UserWarning: Specified provider '{name}' is not in available provider names.Available providers: '"


S.row(
    "get_available_providers()",
    lambda ort, env: ort.get_available_providers(),
    ["AzureExecutionProvider", CPU],
    ours=[CPU],
    why=OWN,
)
S.row(
    "get_all_providers()",
    lambda ort, env: {CUDA, CPU, "QNNExecutionProvider"} <= set(ort.get_all_providers()),
    True,
)
S.row("get_device()", lambda ort, env: ort.get_device(), "CPU")
for _call, _providers, _warns in (
    ("providers=None → get_providers()", None, ()),
    ("providers=[] → get_providers()", [], ()),
    ("providers=['CUDAExecutionProvider'] (known, absent)", [CUDA], (absent(CUDA),)),
    ("providers=['CUDAExecutionProvider','CPUExecutionProvider']", [CUDA, CPU], (absent(CUDA),)),
    (
        "duplicate provider",
        [CPU, CPU],
        (f"UserWarning: Duplicate provider '{CPU}' encountered, ignoring.",),
    ),
):
    S.row(
        _call,
        lambda ort, env, p=_providers: env.session(env.mul, providers=p).get_providers(),
        [CPU],
        warns=_warns,
    )
for _call, _providers, _options, _text, _warns in (
    (
        "providers=['NoSuchProvider']",
        ["NoSuchProvider"],
        None,
        "Unknown Provider Type: NoSuchProvider",
        (absent("NoSuchProvider"),),
    ),
    ("providers=['CPU']", ["CPU"], None, "Unknown Provider Type: CPU", (absent("CPU"),)),
    (
        "providers='CPUExecutionProvider' (a str)",
        CPU,
        None,
        "Unknown Provider Type: C",
        tuple(absent(letter) for letter in dict.fromkeys(CPU)),
    ),
    ("providers=set", {CPU}, None, "'providers' should be a sequence.", ()),
    ("providers=[1]", [1], None, "'providers' values must be either strings or (string, dict) tuples.", ()),
    (
        "providers+provider_options of other length",
        [CPU],
        [{}, {}],
        "'providers' and 'provider_options' should be the same length if both are given.",
        (),
    ),
    ("provider_options not dicts", [CPU], [1], "'provider_options' values must be dicts.", ()),
    (
        "tuple providers + provider_options",
        [(CPU, {})],
        [{}],
        "Only string values for 'providers' are supported if 'provider_options' is given.",
        (),
    ),
):
    S.row(
        _call,
        lambda ort, env, p=_providers, o=_options: env.session(
            env.mul, providers=p, provider_options=o
        ).get_providers(),
        [CPU],
        stdout=box(_text, _providers),
        warns=_warns,
    )
S.row(
    "providers=[('CPUExecutionProvider',{'foo':1})]",
    lambda ort, env: env.session(env.mul, providers=[(CPU, {"foo": 1})]).get_provider_options(),
    {CPU: {}},
)
S.row(
    "provider error with enable_fallback=0",
    lambda ort, env: env.session(env.mul, providers=[1], enable_fallback=0),
    Fails("ValueError", "'providers' values must be either strings or (string, dict) tuples."),
)
S.row("get_provider_options()", lambda ort, env: env.session(env.mul).get_provider_options(), {CPU: {}})
S.row("set_providers(['CPUExecutionProvider'])", lambda ort, env: env.session(env.mul).set_providers([CPU]), None)


@S.probe("set_providers() ; get_providers()", (None, [CPU]), parallel=True)
def _(ort: Any, env: Env) -> object:
    session = env.session(env.mul)
    return session.set_providers(), session.get_providers()


S.row(
    "set_providers(['NoSuch'])",
    lambda ort, env: env.session(env.mul).set_providers(["NoSuch"]),
    Fails("RuntimeError", "Unknown Provider Type: NoSuch"),
    warns=(absent("NoSuch"),),
)


@S.probe(
    "session after failed set_providers: get_inputs()",
    None,
    ours=["<NodeArg>"],
    why="a refused change leaves the session as it was",
)
def _(ort: Any, env: Env) -> object:
    session = env.session(env.mul)
    try:
        session.set_providers(["NoSuch"])
    except RuntimeError:
        return session.get_inputs()
    return "no error"


@S.probe("disable_fallback(); enable_fallback()", (None, False, None, True))
def _(ort: Any, env: Env) -> object:
    session = env.session(env.mul)
    return (
        session.disable_fallback(),
        session._enable_fallback,
        session.enable_fallback(),
        session._enable_fallback,
    )


@S.probe("get_session_options() is the passed one?", False)
def _(ort: Any, env: Env) -> object:
    options = env.session_options()
    return env.session(env.mul, options).get_session_options() is options


S.row(
    "get_session_options() type",
    lambda ort, env: type(env.session(env.mul).get_session_options()) is ort.SessionOptions,
    True,
)


@S.probe("mutate SessionOptions after creation", (None, ""))
def _(ort: Any, env: Env) -> object:
    options = env.session_options()
    session = env.session(env.mul, options)
    options.logid = "changed"
    return None, session.get_session_options().logid


@S.probe("get_inputs() same list object each time?", True)
def _(ort: Any, env: Env) -> object:
    session = env.session(env.mul)
    return session.get_inputs() is session.get_inputs()


S.row("get_overridable_initializers()", lambda ort, env: env.session(env.mul).get_overridable_initializers(), [])


@S.probe(
    "get_input_memory_infos()[0] repr/name/…",
    (
        "Cpu",
        0,
        "<OrtMemType.DEFAULT: 0>",
        "<OrtAllocatorType.ORT_ARENA_ALLOCATOR: 1>",
        "<OrtDeviceMemoryType.DEFAULT: 0>",
        0,
    ),
    parallel=True,
)
def _(ort: Any, env: Env) -> object:
    session = env.session(env.mul)
    info = session.get_input_memory_infos()[0]
    return (
        info.name,
        info.device_id,
        info.mem_type,
        info.allocator_type,
        info.device_mem_type,
        info.device_vendor_id,
    )


S.row("get_input_epdevices()", lambda ort, env: env.session(env.mul).get_input_epdevices(), ["<OrtEpDevice>"])
S.row(
    "get_provider_graph_assignment_info()",
    lambda ort, env: env.session(env.mul).get_provider_graph_assignment_info(),
    Fails("Fail", "…Session configuration entry 'session.record_ep_graph_assignment_info' must be set to \"1\" to …"),
)


@S.probe("… with session.record_ep_graph_assignment_info=1", [(CPU, [("mul_1", "", "Mul")])])
def _(ort: Any, env: Env) -> object:
    options = env.session_options()
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    return [
        (part.ep_name, [(node.name, node.domain, node.op_type) for node in part.get_nodes()])
        for part in env.session(env.mul, options).get_provider_graph_assignment_info()
    ]


S.row("get_tuning_results()", lambda ort, env: env.session(env.mul).get_tuning_results(), [])
S.row("set_tuning_results([])", lambda ort, env: env.session(env.mul).set_tuning_results([]), None)
S.row(
    "set_ep_dynamic_options({})",
    lambda ort, env: env.session(env.mul).set_ep_dynamic_options({}),
    Fails("RuntimeError", "…No options were provided"),
)
S.row(
    "set_ep_dynamic_options({'a':'b'})", lambda ort, env: env.session(env.mul).set_ep_dynamic_options({"a": "b"}), None
)


def _again(session: Any, env: Env) -> object:
    """The shape of what a copy of a session answers."""
    return session.run(None, {"X": env.x})[0].shape


S.row(
    "pickle.dumps(session)",
    lambda ort, env: _again(pickle.loads(pickle.dumps(env.session(env.mul))), env),
    Fails("TypeError", "cannot pickle 'C.InferenceSession' object"),
    ours=(3, 2),
    why="a session is made again from its model and options",
)
S.row(
    "copy.deepcopy(session)",
    lambda ort, env: _again(copy.deepcopy(env.session(env.mul)), env),
    Fails("TypeError", "cannot pickle 'C.InferenceSession' object"),
    ours=(3, 2),
    why="a session is made again from its model and options",
)
S.row("copy.copy(session).run", lambda ort, env: _again(copy.copy(env.session(env.mul)), env), (3, 2), parallel=True)
S.row(
    "pickle.dumps(SessionOptions())",
    lambda ort, env: type(pickle.dumps(ort.SessionOptions())).__name__,
    Fails("TypeError", "cannot pickle 'C.SessionOptions' object"),
    ours="bytes",
    why="options pickle, as sessions do",
)
S.row(
    "copy.deepcopy(SessionOptions())",
    lambda ort, env: type(copy.deepcopy(ort.SessionOptions())).__name__,
    Fails("TypeError", "cannot pickle 'C.SessionOptions' object"),
    ours="SessionOptions",
    why="options pickle, as sessions do",
)
S.row(
    "pickle GraphOptimizationLevel",
    lambda ort, env: pickle.loads(pickle.dumps(ort.GraphOptimizationLevel.ORT_ENABLE_ALL)),
    "<GraphOptimizationLevel.ORT_ENABLE_ALL: 99>",
)
S.row(
    "isinstance(InferenceSession, onnxruntime…Session); mro",
    lambda ort, env: [cls.__name__ for cls in ort.InferenceSession.__mro__],
    ["InferenceSession", "Session", "object"],
)
#: what programs read though it is private
READ_BY_PROGRAMS = {
    "_model_path",
    "_model_bytes",
    "_providers",
    "_provider_options",
    "_sess_options",
    "_enable_fallback",
}
S.row(
    "sorted(vars(session))",
    lambda ort, env: sorted(name for name in READ_BY_PROGRAMS if hasattr(env.session(env.mul), name)),
    sorted(READ_BY_PROGRAMS),
)


@S.probe("_model_path / _model_bytes", ("<tmp>/model.onnx", None))
def _(ort: Any, env: Env) -> object:
    session = env.session(env.save(env.mul))
    return session._model_path, session._model_bytes


S.row("session repr", lambda ort, env: repr(env.session(env.mul)), "<ort.InferenceSession object>")
