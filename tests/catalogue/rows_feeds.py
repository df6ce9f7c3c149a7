"""Names, shapes, element types and memory of what a run is given."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

from .table import ADVICE, SQUARES, Env, Fails, Section, f32, i64

N = Section("run(): names and feeds", parallel=True)


def run_refuses(names: str, feeds: str, options: str = "None") -> Fails:
    return Fails(
        "TypeError",
        "run(): incompatible function arguments. The following argument types are supported:\n"
        "    1. (self: C.InferenceSession, arg0: collections.abc.Sequence[str], "
        "arg1: collections.abc.Mapping[str, object], arg2: C.RunOptions) -> list\n\n"
        f"Invoked with: <C.InferenceSession object>, {names}, {feeds}, {options}",
    )


FEEDS = "{'X': array([[1., 2.],\n       [3., 4.],\n       [5., 6.]], dtype=float32)}"
N.row("run(None,{'X':x})", lambda ort, env: env.run(env.mul, {"X": env.x}), [SQUARES])
N.row("run([],{'X':x})", lambda ort, env: env.run(env.mul, {"X": env.x}, []), [SQUARES])
N.row("run(['Y'],…)", lambda ort, env: env.run(env.mul, {"X": env.x}, ["Y"]), [SQUARES])
N.row("run(('Y',),…) tuple", lambda ort, env: env.run(env.mul, {"X": env.x}, ("Y",)), [SQUARES])
N.row("run('Y',…) a plain str", lambda ort, env: env.run(env.mul, {"X": env.x}, "Y"), run_refuses("'Y'", FEEDS))
N.row(
    "run(['Y','Y'],…) same output twice",
    lambda ort, env: env.run(env.mul, {"X": env.x}, ["Y", "Y"]),
    [SQUARES, SQUARES],
)
N.row(
    "run(['nope'],…)",
    lambda ort, env: env.run(env.mul, {"X": env.x}, ["nope"]),
    Fails("InvalidArgument", "Invalid output name:nope"),
)
N.row(
    "run(['X'],…) an input as output",
    lambda ort, env: env.run(env.mul, {"X": env.x}, ["X"]),
    Fails("InvalidArgument", "Invalid output name:X"),
)
N.row("run([1],…)", lambda ort, env: env.run(env.mul, {"X": env.x}, [1]), run_refuses("[1]", FEEDS))
N.row(
    "run(None,{})",
    lambda ort, env: env.run(env.mul, {}),
    Fails("ValueError", "Required inputs (['X']) are missing from input feed ([])."),
)
N.row(
    "run(None,{'bad':x})",
    lambda ort, env: env.run(env.mul, {"bad": env.x}),
    Fails("ValueError", "Required inputs (['X']) are missing from input feed (['bad'])."),
)
N.row(
    "run(None,{'X':x,'extra':x})",
    lambda ort, env: env.run(env.mul, {"X": env.x, "extra": env.x}),
    Fails("InvalidArgument", "Invalid input name: extra"),
)
N.row(
    "run(None,[x])",
    lambda ort, env: env.session(env.mul).run(None, [env.x]),
    Fails("AttributeError", "'list' object has no attribute 'keys'"),
)
N.row(
    "run(None,None)",
    lambda ort, env: env.session(env.mul).run(None, None),
    Fails("AttributeError", "'NoneType' object has no attribute 'keys'"),
)
N.row(
    "run(None)",
    lambda ort, env: env.session(env.mul).run(None),
    Fails("TypeError", "Session.run() missing 1 required positional argument: 'input_feed'"),
)
N.row(
    "run(None,{'X':None})",
    lambda ort, env: env.run(env.mul, {"X": None}),
    Fails(
        "Fail",
        "Non-zero status code returned while running Mul node. Name:'mul_1' Status Message: …Missing Input: X",
    ),
    stderr="Non-zero status code returned while running Mul node. Name:'mul_1' Status Message: …Missing Input: X",
)
N.row(
    "run(None,OrderedDict)",
    lambda ort, env: env.run(env.mul, OrderedDict(X=env.x))[0].shape,
    (3, 2),
)
N.row(
    "run(None,{0:x})",
    lambda ort, env: env.session(env.mul).run(None, {0: env.x}),
    Fails("ValueError", "Required inputs (['X']) are missing from input feed ([0])."),
)
N.row(
    "run(output_names=None,input_feed=…) kwargs",
    lambda ort, env: env.session(env.mul).run(output_names=None, input_feed={"X": env.x})[0].shape,
    (3, 2),
)


@N.probe("return type of run / element type / writeable / owndata", (list, np.ndarray, True, True))
def _(ort: Any, env: Env) -> object:
    results = env.run(env.mul, {"X": env.x})
    return type(results), type(results[0]), results[0].flags.writeable, results[0].flags.c_contiguous


ADD = "g (float[2] a, float[2] b) => (float[2] y) { y = Add(a, b) }"
N.row(
    "2 inputs, one missing",
    lambda ort, env: env.run(env.model(ADD), {"a": f32([1, 2])}),
    Fails("ValueError", "Required inputs (['b']) are missing from input feed (['a'])."),
)
N.row(
    "2 inputs, both missing",
    lambda ort, env: env.run(env.model(ADD), {}),
    Fails("ValueError", "Required inputs (['a', 'b']) are missing from input feed ([])."),
)

M = Section("run(): shape and dtype mismatches", parallel=True)


def dimensions(*wrong: tuple[int, int, int], name: str = "X") -> str:
    lines = "\n".join(f" index: {index} Got: {got} Expected: {want}" for index, got, want in wrong)
    return f"Got invalid dimensions for input: {name} for the following indices\n{lines}{ADVICE}"


def types(actual: str, wanted: str = "tensor(float)") -> Fails:
    return Fails("InvalidArgument", f"Unexpected input data type. Actual: ({actual}) , expected: ({wanted})")


def unhandled(name: str) -> Fails:
    return Fails("RuntimeError", f"Unable to handle object of type <class '{name}'>", cause="TypeError")


for _call, _feed, _expected in (
    ("wrong dim: (2,2) for [3,2]", np.zeros((2, 2), "f"), Fails("InvalidArgument", dimensions((0, 2, 3)))),
    (
        "two wrong dims: (4,5) for [3,2]",
        np.zeros((4, 5), "f"),
        Fails("InvalidArgument", dimensions((0, 4, 3), (1, 5, 2))),
    ),
    (
        "wrong rank: (3,2,1)",
        np.zeros((3, 2, 1), "f"),
        Fails("InvalidArgument", "Invalid rank for input: X Got: 3 Expected: 2" + ADVICE.strip("\n")),
    ),
    ("wrong rank: scalar", np.float32(1), unhandled("numpy.float32")),
    ("float64 for float", np.zeros((3, 2)), types("tensor(double)")),
    ("int64 for float", np.zeros((3, 2), np.int64), types("tensor(int64)")),
    ("int32", np.zeros((3, 2), np.int32), types("tensor(int32)")),
    ("bool for float", np.zeros((3, 2), bool), types("tensor(bool)")),
    ("str array for float", np.zeros((3, 2), str), types("tensor(string)")),
    ("object array of floats for float", np.zeros((3, 2), object), types("tensor(string)")),
    (
        "complex64 for float",
        np.zeros((3, 2), np.complex64),
        Fails("RuntimeError", "Numpy_type 14 can't be converted to MLDataType."),
    ),
    (
        "datetime64",
        np.zeros((3, 2), "datetime64[s]"),
        Fails("RuntimeError", "Numpy_type 21 can't be converted to MLDataType."),
    ),
    ("python list [[1.,2.],…] for float tensor", [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], [SQUARES]),
    ("python float for tensor", 1.0, unhandled("float")),
):
    M.row(_call, lambda ort, env, feed=_feed: env.run(env.mul, {"X": feed}), _expected)
M.row(
    "big-endian float32",
    lambda ort, env: env.run(env.mul, {"X": env.x.astype(">f4")})[0].tolist() == SQUARES.tolist(),
    False,
    ours=True,
    why="other byte orders are converted, not reinterpreted",
)
SUM_N = "g (float[N,2] a, float[N,2] b) => (float[N,2] y) { [addn] y = Add(a, b) }"
M.row(
    "symbolic N: N differs between two inputs (broadcast fails)",
    lambda ort, env: env.run(env.model(SUM_N), {"a": np.ones((3, 2), "f"), "b": np.ones((5, 2), "f")}),
    Fails(
        "Fail",
        "Non-zero status code returned while running Add node. Name:'addn' Status Message: …"
        "Attempting to broadcast an axis by a dimension other than 1. 3 by 5",
    ),
    stderr="Non-zero status code returned while running Add node. Name:'addn' Status Message: …",
)
M.row(
    "symbolic N: N differs but broadcasts (3 vs 1)",
    lambda ort, env: env.run(env.model(SUM_N), {"a": np.ones((3, 2), "f"), "b": np.ones((1, 2), "f")})[0].shape,
    (3, 2),
)


def unknown_rank(env: Env) -> bytes:
    proto = env.proto("g (float[2] x) => (y) { y = Relu(x) }")
    proto.graph.input[0].type.tensor_type.ClearField("shape")
    return proto.SerializeToString()


def scalar(env: Env) -> bytes:
    """y = x, for scalars."""
    proto = env.proto("g (float[2] x) => (float[2] y) { y = Relu(x) }")
    for info in (*proto.graph.input, *proto.graph.output):
        del info.type.tensor_type.shape.dim[:]
    return proto.SerializeToString()


M.row(
    "unknown-rank input accepts anything",
    lambda ort, env: env.run(unknown_rank(env), {"x": np.ones((2, 1, 2), "f")})[0].shape,
    (2, 1, 2),
)
M.row(
    "declared [] (scalar) input fed (1,)",
    lambda ort, env: env.run(scalar(env), {"x": f32([1])}),
    [f32([1])],
    stderr="Expected shape from model of {} does not match actual shape of {1} for output y",
)
M.row(
    "declared [] (scalar) input fed 0-d ndarray",
    lambda ort, env: env.run(scalar(env), {"x": np.array(0, np.float32)}),
    [np.array(0, np.float32)],
)
M.row(
    "declared [] input fed np.float32(…) (numpy scalar)",
    lambda ort, env: env.run(scalar(env), {"x": np.float32(1)}),
    unhandled("numpy.float32"),
)


@M.probe("0-d output type", (np.ndarray, (), "float32"))
def _(ort: Any, env: Env) -> object:
    (result,) = env.run(scalar(env), {"x": np.array(0, np.float32)})
    return type(result), result.shape, result.dtype.name


M.row(
    "runtime failure inside node (MatMul dyn dims)",
    lambda ort, env: env.run(
        env.model("g (float[A,B] a, float[C,D] b) => (float[A,D] y) { [mm] y = MatMul(a, b) }"),
        {"a": np.ones((2, 3), "f"), "b": np.ones((4, 5), "f")},
    ),
    Fails(
        "Fail",
        "Non-zero status code returned while running MatMul node. Name:'mm' Status Message: …"
        "MatMul dimension mismatch…",
    ),
    stderr="Non-zero status code returned while running MatMul node. Name:'mm' Status Message: …",
)
M.row(
    "runtime failure Reshape",
    lambda ort, env: env.run(
        env.model("g (float[N] x, int64[K] s) => (y) { [rs] y = Reshape(x, s) }"),
        {"x": np.ones(5, "f"), "s": i64([2, 3])},
    ),
    Fails(
        "Fail",
        "Non-zero status code returned while running Reshape node. Name:'rs' Status Message: …The input tensor cannot "
        "be reshaped to the requested shape. Input shape:{5}, requested shape:{2,3}",
    ),
    stderr="Non-zero status code returned while running Reshape node. Name:'rs' Status Message: …",
)
M.row(
    "Gather index out of range",
    lambda ort, env: env.run(
        env.model("g (float[N] x, int64[K] i) => (float[K] y) { [gn] y = Gather(x, i) }"),
        {"x": np.ones(5, "f"), "i": i64([9])},
    ),
    Fails(
        "InvalidArgument",
        "Non-zero status code returned while running Gather node. Name:'gn' Status Message: indices element out of "
        "data bounds, idx=9 must be within the inclusive range [-5,4]",
    ),
    stderr="Non-zero status code returned while running Gather node. Name:'gn' Status Message: …",
)
M.row(
    "declared output shape [2] but runtime gives 3 (dyn in)",
    lambda ort, env: env.run(env.model("g (float[N] x) => (float[2] y) { y = Relu(x) }"), {"x": f32([1, 2, 3])}),
    [f32([1, 2, 3])],
    stderr="Expected shape from model of {2} does not match actual shape of {3} for output y",
)

L = Section("run(): memory layout, zero-size", parallel=True)


def unaligned(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    buffer = np.zeros(x.nbytes + 1, np.uint8)
    array = buffer[1:].view(np.float32).reshape(x.shape)
    array[...] = x
    assert not array.flags.aligned
    return array


def read_only(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    x.flags.writeable = False
    return x


def mapped(env: Env) -> np.ndarray[Any, Any]:
    path = Path(env.save(env.x.tobytes(), "x.bin"))
    return np.memmap(path, np.float32, "r", shape=(3, 2))


L.row(
    "non-contiguous x[:, ::-1]",
    lambda ort, env: env.run(env.mul, {"X": env.x[:, ::-1]}),
    [f32([[2, 2], [12, 12], [30, 30]])],
)
L.row("Fortran order", lambda ort, env: env.run(env.mul, {"X": np.asfortranarray(env.x)}), [SQUARES])
L.row(
    "broadcast view (stride 0)",
    lambda ort, env: env.run(env.mul, {"X": np.broadcast_to(f32([1, 2]), (3, 2))}),
    [f32([[1, 4], [3, 8], [5, 12]])],
)
L.row("read-only array", lambda ort, env: env.run(env.mul, {"X": read_only(env.x)})[0].sum(), np.float32(91))
L.row("unaligned array", lambda ort, env: env.run(env.mul, {"X": unaligned(env.x)}), [SQUARES])
L.row(
    "ndarray subclass (np.matrix)",
    lambda ort, env: env.run(env.mul, {"X": np.matrix(env.x)}),
    [SQUARES],
    warns=("PendingDeprecationWarning: the matrix subclass is not the recommended way",),
)
L.row("masked array", lambda ort, env: env.run(env.mul, {"X": np.ma.array(env.x)}), [SQUARES])
L.row("memmap", lambda ort, env: env.run(env.mul, {"X": mapped(env)}), [SQUARES])
L.row(
    "zero-size (0,3)",
    lambda ort, env: env.run(
        env.model("g (float[N,3] x) => (float[N,3] y) { y = Relu(x) }"), {"x": np.zeros((0, 3), "f")}
    ),
    [np.zeros((0, 3), np.float32)],
)
L.row(
    "Identity output aliases the input array?",
    lambda ort, env: np.shares_memory(
        env.run(env.model("g (float[N,2] X) => (float[N,2] y) { y = Identity(X) }"), {"X": env.x})[0], env.x
    ),
    False,
)
L.row(
    "graph input directly as output aliases input?",
    lambda ort, env: np.shares_memory(
        env.run(env.model("g (float[N,2] X) => (float[N,2] X) { }"), {"X": env.x})[0], env.x
    ),
    False,
)


@L.probe("initializer as output: same buffer each run / writeable", (False, True, f32([1, 2])))
def _(ort: Any, env: Env) -> object:
    session = env.session(env.model("g () => (float[2] w) <float[2] w = {1, 2}> { }"))
    first, again = session.run(None, {})[0], session.run(None, {})[0]
    shared, writeable = np.shares_memory(first, again), first.flags.writeable
    first[...] = 9
    return shared, writeable, session.run(None, {})[0]
