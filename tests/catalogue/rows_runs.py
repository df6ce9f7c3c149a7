"""Options of a run, values in place of arrays, callbacks, threads, and the example models' answers."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
from onnx import TensorProto, helper

from .rows_feeds import FEEDS, dimensions, run_refuses, types, unhandled
from .table import SQUARES, Env, Fails, Section, f32

R = Section("RunOptions", parallel=True)
MATMUL_FAILS = (
    "Non-zero status code returned while running MatMul node. Name:'mm' Status Message: …MatMul dimension mismatch…"
)
TERMINATED = "Exiting due to terminate flag being set to true."


@R.probe("terminate=True before run", Fails("Fail", TERMINATED))
def _(ort: Any, env: Env) -> object:
    options = ort.RunOptions()
    options.terminate = True
    return env.session(env.mul).run(None, {"X": env.x}, options)


LOOP = """g (int64 n, float[2] x) => (float[2] y) {
    again = Constant<value = bool {1}>()
    [lp] y = Loop(n, again, x) <body = b (int64 i, bool c, float[2] a) => (bool d, float[2] z) {
        d = Identity(c)
        z = Abs(a)
    }>
}"""


@R.probe(
    "terminate set from another thread mid-run (Loop)",
    Fails(
        "Fail",
        f"Non-zero status code returned while running Loop node. Name:'lp' Status Message: {TERMINATED}",
    ),
    on_actors=(Fails("Fail", TERMINATED), "the caller doesn't wait to hear which node was interrupted"),
    plain=True,
)
def _(ort: Any, env: Env) -> object:
    session = env.session(env.model(LOOP))
    options = ort.RunOptions()

    def stop() -> None:
        options.terminate = True

    timer = threading.Timer(0.1, stop)
    timer.start()
    try:
        return session.run(None, {"n": np.array(10**9), "x": f32([1, 2])}, options)
    finally:
        timer.join()


BRANCHES = """g (float[2] x, float[A,B] z) => (float[2] y, float[A,C] w) {
    y = Relu(x)
    [mm] w = MatMul(z, z)
}"""


def fetch_y(ort: Any, env: Env, feeds: dict[str, Any], only: bool) -> object:
    options = ort.RunOptions()
    options.only_execute_path_to_fetches = only
    return env.session(env.model(BRANCHES)).run(["y"], feeds, options)


BAD_BRANCH = {"x": f32([1, 2]), "z": np.ones((2, 3), np.float32)}
R.row(
    "fetch ['y'] only, other branch would fail, only_execute_path_to_fetches=False",
    lambda ort, env: fetch_y(ort, env, BAD_BRANCH, False),
    Fails("Fail", MATMUL_FAILS),
)
R.row(
    "… =True",
    lambda ort, env: fetch_y(ort, env, BAD_BRANCH, True),
    Fails("Fail", MATMUL_FAILS),
    ours=[f32([1, 2])],
    why="the option does what its name says",
)
R.row(
    "… =True and z left out of the feed",
    lambda ort, env: fetch_y(ort, env, {"x": f32([1, 2])}, True),
    Fails("ValueError", "Required inputs (['z']) are missing from input feed (['x'])."),
)
R.row(
    "run_options positional dict",
    lambda ort, env: env.session(env.mul).run(["Y"], {"X": env.x}, {"a": 1}),
    run_refuses("['Y']", FEEDS, "{'a': 1}"),
)


def assign(ort: Any, name: str, value: object) -> object:
    options = ort.RunOptions()
    setattr(options, name, value)
    return getattr(options, name)


R.row(
    "RunOptions.log_severity_level='a'",
    lambda ort, env: assign(ort, "log_severity_level", "a"),
    Fails(
        "TypeError",
        "(): incompatible function arguments. The following argument types are supported:\n"
        "    1. (self: C.RunOptions, arg0: typing.SupportsInt | typing.SupportsIndex) -> None\n\n"
        "Invoked with: <C.RunOptions object>, 'a'",
    ),
    parallel=False,
)
R.row("RunOptions.log_severity_level=9", lambda ort, env: assign(ort, "log_severity_level", 9), 9, parallel=False)


@R.probe(
    "run with log_severity_level=9",
    Fails("Fail", "…Invalid run log severity level. Not a valid onnxruntime::logging::Severity value: 9"),
)
def _(ort: Any, env: Env) -> object:
    options = ort.RunOptions()
    options.log_severity_level = 9
    return env.session(env.mul).run(None, {"X": env.x}, options)


R.row("RunOptions.terminate=1 (int)", lambda ort, env: assign(ort, "terminate", 1), True, parallel=False)
R.row(
    "RunOptions.nosuch=1",
    lambda ort, env: assign(ort, "nosuch", 1),
    Fails("AttributeError", "'C.RunOptions' object has no attribute 'nosuch'"),
    parallel=False,
)


@R.probe("RunOptions.add_run_config_entry / get", (None, "v"), parallel=False)
def _(ort: Any, env: Env) -> object:
    options = ort.RunOptions()
    return options.add_run_config_entry("k", "v"), options.get_run_config_entry("k")


R.row(
    "RunOptions.get_run_config_entry missing",
    lambda ort, env: ort.RunOptions().get_run_config_entry("nope"),
    Fails("RuntimeError", "RunOptions does not have configuration with key: nope"),
    parallel=False,
)


def shrink(ort: Any, env: Env, arena: str) -> object:
    options = ort.RunOptions()
    options.add_run_config_entry("memory.enable_memory_arena_shrinkage", arena)
    return env.session(env.mul).run(None, {"X": env.x}, options)[0].shape


R.row(
    "RunOptions.get 'memory.enable_memory_arena_shrinkage'='cpu:0' run",
    lambda ort, env: shrink(ort, env, "cpu:0"),
    (3, 2),
)
R.row(
    "… shrinkage='gpu:0' on CPU",
    lambda ort, env: shrink(ort, env, "gpu:0"),
    Fails(
        "InvalidArgument",
        "Did not find an arena based allocator registered for device-id combination in the memory arena shrink list: "
        "gpu:0",
    ),
)

V = Section("run with OrtValue, run_with_ort_values, run_async", parallel=True)
WRONG_TYPE = types("tensor(double)")


@V.probe("run(None,{'X':OrtValue}) → element type", ("ndarray", (3, 2)))
def _(ort: Any, env: Env) -> object:
    (result,) = env.run(env.mul, {"X": env.value(env.x)})
    return type(result).__name__, result.shape


V.row(
    "run(None,{'X': C.OrtValue})",
    lambda ort, env: env.run(env.mul, {"X": env.value(env.x)._get_c_value()}),
    unhandled("C.OrtValue"),
    ours=[SQUARES],
    why="a native value is as good as one that holds it",
)
V.row(
    "run with OrtValue wrong dtype",
    lambda ort, env: env.run(env.mul, {"X": env.value(env.x.astype(float))}),
    WRONG_TYPE,
)
V.row(
    "run with OrtValue wrong shape",
    lambda ort, env: env.run(env.mul, {"X": env.value(env.x[:2])}),
    Fails("InvalidArgument", dimensions((0, 2, 3))),
)
V.row(
    "run mixing ndarray and OrtValue",
    lambda ort, env: (
        env.run(
            env.model("g (float[3,2] a, float[3,2] b) => (float[3,2] y) { y = Add(a, b) }"),
            {"a": env.x, "b": env.value(env.x)},
        )[0].shape
    ),
    (3, 2),
)


def run_values(env: Env, array: np.ndarray[Any, Any], names: Any = None) -> Any:
    return env.session(env.mul).run_with_ort_values(names, {"X": env.value(array)})


@V.probe("run_with_ort_values(None,{'X':ov})", ("<OrtValue>", "tensor(float)", [3, 2], SQUARES))
def _(ort: Any, env: Env) -> object:
    (value,) = run_values(env, env.x)
    return value, value.data_type(), value.shape(), value.numpy()


V.row(
    "run_with_ort_values(['Y'],{'X':ndarray})",
    lambda ort, env: env.session(env.mul).run_with_ort_values(["Y"], {"X": env.x}),
    Fails("AttributeError", "'numpy.ndarray' object has no attribute '_get_c_value'"),
)
V.row(
    "run_with_ort_values missing input",
    lambda ort, env: env.session(env.mul).run_with_ort_values(None, {}),
    Fails("ValueError", "Required inputs (['X']) are missing from input feed ([])."),
)
V.row(
    "run_with_ort_values bad output",
    lambda ort, env: run_values(env, env.x, ["nope"]),
    Fails("InvalidArgument", "Invalid output name:nope"),
)
V.row("run_with_ort_values bad dtype", lambda ort, env: run_values(env, env.x.astype(float)), WRONG_TYPE)
V.row("result[0].device_name()", lambda ort, env: run_values(env, env.x)[0].device_name(), "cpu")


def asynchronous(session: Any, names: Any, feeds: dict[str, Any]) -> object:
    """What run_async returns, and what its callback is given."""
    answered = threading.Event()
    answers: list[object] = []

    def callback(results: object, user_data: object, error: object) -> None:
        answers.append((results, user_data, error, threading.current_thread() is threading.main_thread()))
        answered.set()

    returned = session.run_async(names, feeds, callback, "ud")
    assert answered.wait(20)
    return returned, answers[0]


def threaded(env: Env, model: bytes) -> Any:
    """A session with the threads that run_async asks for."""
    return env.session(model, env.session_options(intra_op_num_threads=2))


V.row(
    "run_async(['Y'],feed,cb,'ud') → callback args (results,user_data,err,main thread?)",
    lambda ort, env: asynchronous(threaded(env, env.mul), ["Y"], {"X": env.x}),
    (None, ([SQUARES], "ud", "", False)),
)
V.row(
    "run_async(None,…)",
    lambda ort, env: asynchronous(threaded(env, env.mul), None, {"X": env.x}),
    (None, ([SQUARES], "ud", "", False)),
)
V.row(
    "run_async missing input",
    lambda ort, env: asynchronous(threaded(env, env.mul), ["Y"], {}),
    Fails("ValueError", "Required inputs (['X']) are missing from input feed ([])."),
)
V.row(
    "run_async bad dtype",
    lambda ort, env: asynchronous(threaded(env, env.mul), ["Y"], {"X": env.x.astype(float)}),
    (None, ([], "ud", WRONG_TYPE.text, False)),
)
V.row(
    "run_async wrong dim",
    lambda ort, env: asynchronous(threaded(env, env.mul), ["Y"], {"X": env.x[:1]}),
    (None, ([], "ud", dimensions((0, 1, 3)), False)),
)
V.row(
    "run_async node failure",
    lambda ort, env: asynchronous(threaded(env, env.model(BRANCHES)), ["y"], BAD_BRANCH),
    (None, ([], "ud", MATMUL_FAILS, False)),
)
V.row(
    "run_async OrtValue feed",
    lambda ort, env: asynchronous(threaded(env, env.mul), ["Y"], {"X": env.value(env.x)}),
    (None, ([SQUARES], "ud", "", False)),
)
V.row(
    "run_async with intra_op_num_threads=1",
    lambda ort, env: asynchronous(
        env.session(env.mul, env.session_options(intra_op_num_threads=1)), ["Y"], {"X": env.x}
    ),
    Fails("InvalidArgument", "intra op thread pool must have at least one thread for RunAsync"),
    ours=(None, ([SQUARES], "ud", "", False)),
    why="asynchronous runs need no pool of threads",
)


@V.probe("run_with_ortvaluevector", (None, 1, SQUARES))
def _(ort: Any, env: Env) -> object:
    session = env.session(env.mul)
    feeds, fetches = env.c.OrtValueVector(), env.c.OrtValueVector()
    feeds.push_back(env.value(env.x)._get_c_value())
    cpu = env.c.OrtDevice(env.c.OrtDevice.cpu(), env.c.OrtDevice.default_memory(), 0)
    returned = session.run_with_ortvaluevector(ort.RunOptions(), ["X"], feeds, ["Y"], fetches, [cpu])
    return returned, len(fetches), fetches[0].numpy()


H = Section("thread safety", parallel=True)


@H.probe("8 threads × 200 run() on one session", (160, True))
def _(ort: Any, env: Env) -> object:
    session = env.session(env.relu)
    right: list[bool] = []

    def ask(rows: int) -> None:
        x = np.full((rows, 2), rows, np.float32)
        right.extend(bool((session.run(None, {"x": x})[0] == x).all()) for _ in range(20))

    threads = [threading.Thread(target=ask, args=(rows,)) for rows in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(right), all(right)


@H.probe("GIL released during run()", True, parallel=False)
def _(ort: Any, env: Env) -> object:
    session = env.session(env.model("g (float[N,N] x) => (float[N,N] y) { t = MatMul(x, x) y = MatMul(t, x) }"))
    x = np.full((512, 512), 1e-3, np.float32)
    runner = threading.Thread(target=session.run, args=(None, {"x": x}))
    ticks = 0
    runner.start()
    while runner.is_alive():
        ticks += 1
        time.sleep(0)
    return ticks > 1


G = Section("logreg_iris, sigmoid", parallel=True)


@G.probe("logreg_iris run on (3,2)", (np.ndarray, "int64", (3,), [[0, 1, 2]] * 3, True))
def _(ort: Any, env: Env) -> object:
    feeds = {"float_input": f32([[1, 2], [3, 4], [5, 6]])}
    label, probabilities = env.run(env.example("logreg_iris.onnx"), feeds)
    whole = all(abs(sum(row.values()) - 1) < 1e-5 for row in probabilities)
    return type(label), label.dtype.name, label.shape, [sorted(row) for row in probabilities], whole


G.row(
    "logreg_iris run on (1,2)",
    lambda ort, env: env.run(env.example("logreg_iris.onnx"), {"float_input": np.zeros((1, 2), "f")}),
    Fails("InvalidArgument", dimensions((0, 1, 3), name="float_input")),
)


def zip_map(env: Env, **keys: Any) -> Any:
    node = helper.make_node("ZipMap", ["x"], ["y"], domain="ai.onnx.ml", **keys)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 2])
    key = TensorProto.STRING if "classlabels_strings" in keys else TensorProto.INT64
    y = helper.make_empty_tensor_value_info("y")
    y.type.sequence_type.elem_type.map_type.key_type = key
    y.type.sequence_type.elem_type.map_type.value_type.tensor_type.elem_type = TensorProto.FLOAT
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    model = helper.make_model(helper.make_graph([node], "g", [x], [y]), opset_imports=opsets, ir_version=8)
    return env.session(model.SerializeToString())


@G.probe(
    "ZipMap string keys",
    ("seq(map(string,tensor(float)))", [[{"a": 0.25, "b": 0.75}, {"a": 0.5, "b": 0.5}]]),
)
def _(ort: Any, env: Env) -> object:
    session = zip_map(env, classlabels_strings=["a", "b"])
    return session.get_outputs()[0].type, session.run(None, {"x": f32([[0.25, 0.75], [0.5, 0.5]])})


@G.probe("ZipMap int keys; types of key/value", ([[{10: 0.25, 20: 0.75}]], int, float))
def _(ort: Any, env: Env) -> object:
    results = zip_map(env, classlabels_int64s=[10, 20]).run(None, {"x": f32([[0.25, 0.75]])})
    ((key, value), *_) = results[0][0].items()
    return results, type(key), type(value)
