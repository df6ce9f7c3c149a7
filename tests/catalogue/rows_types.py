"""Strings, element types, sequences, maps and optionals, and lists in place of arrays."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, helper

from .rows_feeds import types, unhandled
from .table import UNSTABLE, Env, Fails, Section, f32, i64, strings

T = Section("strings and objects", parallel=True)
NO_TYPE = "Numpy_type {} can't be converted to MLDataType."
NO_NUMPY = "No corresponding Numpy type for Tensor Type. {}"
NOT_LIST = "Input must be a list of dictionaries or a single numpy array for input 'x'."
NARROW = "numpy has these types through ml_dtypes"

for _call, _feed, _expected in (
    ("<U array in → out", np.array(["a", "üö"]), strings("a", "üö")),
    ("object array of str", strings("a", "bcd"), strings("a", "bcd")),
    ("object array of bytes", np.array([b"a\xff"], object), strings("b'a\\xff'")),
    ("object array with int/None/float", np.array(["a", 1, None, 2.5], object), strings("a", "1", "None", "2.5")),
    ("python list of str", ["a", "b"], strings("a", "b")),
    ("np.void array", np.array([b"ab", b"cd"], "V2"), strings("ab", "cd")),
    ("empty string array", np.array([], str), strings()),
    ("strings with trailing NUL ('a\\0')", np.array(["a\0"], object), strings("a\0")),
    ("non-contiguous <U", np.array(["a", "b", "c"])[::2], strings("a", "c")),
):
    T.row(
        _call,
        lambda ort, env, feed=_feed: env.run(env.identity(TensorProto.STRING), {"x": feed}),
        [_expected],
    )
T.row(
    "S (bytes) array",
    lambda ort, env: env.run(env.identity(TensorProto.STRING), {"x": np.array([b"a", b"bc"])}),
    UNSTABLE,
    ours=[strings("a", "bc")],
    why="nothing is read past an array's end",
)
for _call, _feed, _fails in (
    ("plain python str", "abc", Fails("RuntimeError", NOT_LIST)),
    ("float array for string input", f32([1]), types("tensor(float)", "tensor(string)")),
    (
        "np.dtypes.StringDType",
        np.array(["a"], np.dtypes.StringDType()),
        Fails("RuntimeError", NO_TYPE.format(2056)),
    ),
):
    T.row(_call, lambda ort, env, feed=_feed: env.run(env.identity(TensorProto.STRING), {"x": feed}), _fails)

E = Section("element types through run() (Identity, opset 21)", parallel=True)


def identical(env: Env, x: np.ndarray[Any, Any]) -> list[Any]:
    """What a session makes of an array that it hands through."""
    return env.run(env.identity(helper.np_dtype_to_tensor_dtype(x.astype(x.dtype.name).dtype)), {"x": x})


for _call, _dtype, _value in (
    ("bool", np.bool_, [True, False]),
    ("int8", np.int8, [-1]),
    ("uint8", np.uint8, [255]),
    ("int16", np.int16, [1]),
    ("uint16", np.uint16, [1]),
    ("int32", np.int32, [1]),
    ("uint32", np.uint32, [1]),
    ("int64", np.int64, [1]),
    ("uint64", np.uint64, [1]),
    ("float16", np.float16, [1.5]),
    ("double", np.float64, [1.5]),
    ("longlong", np.longlong, [1]),
    ("intc", np.intc, [1]),
    ("ulonglong", np.ulonglong, [1]),
):
    E.row(
        _call,
        lambda ort, env, value=_value, dtype=_dtype: identical(env, np.array(value, dtype)),
        [np.array(_value, np.dtype(_dtype).name)],
    )
for _call, _element, _feed, _fails, _ours in (
    (
        "bfloat16 via ml_dtypes",
        TensorProto.BFLOAT16,
        np.array([1.5], ml_dtypes.bfloat16),
        Fails("RuntimeError", NO_TYPE.format("…")),
        True,
    ),
    (
        "bfloat16 fed as uint16",
        TensorProto.BFLOAT16,
        np.ones(1, "H"),
        types("tensor(uint16)", "tensor(bfloat16)"),
        False,
    ),
    ("bfloat16 fed float32", TensorProto.BFLOAT16, f32([1]), types("tensor(float)", "tensor(bfloat16)"), False),
    (
        "float8e4m3fn via ml_dtypes",
        TensorProto.FLOAT8E4M3FN,
        np.array([1.5], ml_dtypes.float8_e4m3fn),
        Fails("RuntimeError", NO_TYPE.format("…")),
        True,
    ),
    (
        "float8e4m3fn as uint8",
        TensorProto.FLOAT8E4M3FN,
        np.ones(1, np.uint8),
        types("tensor(uint8)", "tensor(Float8E4M3FN)"),
        False,
    ),
):
    E.row(
        _call,
        lambda ort, env, element=_element, feed=_feed: env.run(env.identity(element), {"x": feed}),
        _fails,
        **({"ours": [_feed], "why": NARROW} if _ours else {}),
    )


def cast(env: Env, name: str, opset: int = 21, ir_version: int = 10, values: tuple[int, ...] = (1, -2, 3)) -> object:
    """The type that an output of Cast is told to have, and values of it."""
    to = TensorProto.DataType.Value(name)
    infos = [helper.make_tensor_value_info(*item) for item in (("x", TensorProto.FLOAT, [3]), ("y", to, [3]))]
    graph = helper.make_graph([helper.make_node("Cast", ["x"], ["y"], to=to)], "g", infos[:1], infos[1:])
    opsets = [helper.make_opsetid("", opset)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=ir_version)
    session = env.session(model.SerializeToString())
    return session.get_outputs()[0].type, session.run(None, {"x": f32(values)})


for _name, _expected, _text, _dtype in (
    ("BFLOAT16", Fails("RuntimeError", NO_NUMPY.format("bfloat16")), "bfloat16", ml_dtypes.bfloat16),
    (
        "FLOAT8E4M3FN",
        ("tensor(float8e4m3fn)", [np.array([56, 192, 68], np.uint8)]),
        "float8e4m3fn",
        ml_dtypes.float8_e4m3fn,
    ),
    (
        "FLOAT8E4M3FNUZ",
        Fails("RuntimeError", NO_NUMPY.format("Float8E4M3FNUZ")),
        "float8e4m3fnuz",
        ml_dtypes.float8_e4m3fnuz,
    ),
    ("FLOAT8E5M2", Fails("RuntimeError", NO_NUMPY.format("Float8E5M2")), "float8e5m2", ml_dtypes.float8_e5m2),
    (
        "FLOAT8E5M2FNUZ",
        Fails("RuntimeError", NO_NUMPY.format("Float8E5M2FNUZ")),
        "float8e5m2fnuz",
        ml_dtypes.float8_e5m2fnuz,
    ),
    ("INT4", Fails("RuntimeError", NO_NUMPY.format("Int4x2")), "int4", ml_dtypes.int4),
):
    E.row(
        f"Cast float→{_name} as output of run()",
        lambda ort, env, name=_name: cast(env, name),
        _expected,
        ours=(f"tensor({_text})", [f32([1, -2, 3]).astype(_dtype)]),
        why=NARROW,
    )
E.row(
    "Cast float→UINT4 as output of run()",
    lambda ort, env: cast(env, "UINT4"),
    Fails("RuntimeError", NO_NUMPY.format("UInt4x2")),
    ours=("tensor(uint4)", [np.array([1, 14, 3], ml_dtypes.uint4)]),
    why=NARROW,
)
for _name, _text, _expected in (
    ("FLOAT16", "float16", np.array([1, -2, 3], np.float16)),
    ("STRING", "string", strings("1", "-2", "3")),
    ("BOOL", "bool", np.array([True] * 3)),
):
    E.row(
        f"Cast float→{_name} as output of run()",
        lambda ort, env, name=_name: cast(env, name),
        (f"tensor({_text})", [_expected]),
    )
for _name, _expected, _text, _ours in (
    (
        "FLOAT4E2M1",
        Fails("NotImplemented", "Could not find an implementation for Cast(25) node with name ''"),
        "float4e2m1",
        f32([1, -2, 3]).astype(ml_dtypes.float4_e2m1fn),
    ),
    (
        "INT2",
        Fails("RuntimeError", NO_NUMPY.format("Int2x4")),
        "int2",
        np.array([1, -2, -1], ml_dtypes.int2),
    ),
    (
        "UINT2",
        Fails("RuntimeError", NO_NUMPY.format("UInt2x4")),
        "uint2",
        np.array([1, 2, 3], ml_dtypes.uint2),
    ),
):
    E.row(
        f"Cast float→{_name} (opset 25)",
        lambda ort, env, name=_name: cast(env, name, 25, 13),
        _expected,
        ours=(f"tensor({_text})", [_ours]),
        why=NARROW,
    )
E.row(
    "Cast float→FLOAT8E8M0 (opset 25)",
    lambda ort, env: cast(env, "FLOAT8E8M0", 25, 13, (1, 2, 3)),  # it has no negative numbers
    Fails("RuntimeError", NO_NUMPY.format("Float8E8M0")),
    ours=("tensor(float8e8m0)", [f32([1, 2, 4]).astype(ml_dtypes.float8_e8m0fnu)]),
    why=NARROW,
)
E.row(
    "int4 input: np.int8 array",
    lambda ort, env: env.run(
        env.model("g (int4[N] x) => (float[N] y) { y = Cast<to = 1>(x) }", 21, 10), {"x": np.ones(2, np.int8)}
    ),
    types("tensor(int8)", "tensor(Int4x2)"),
)
INT4 = "g (int4[N] x) => (float[N] y) { y = Cast<to = 1>(x) }"
E.row(
    "int4 input: ml_dtypes.int4",
    lambda ort, env: env.run(env.model(INT4, 21, 10), {"x": np.array([1, -2], ml_dtypes.int4)}),
    Fails("RuntimeError", NO_TYPE.format("…")),
    ours=[f32([1, -2])],
    why=NARROW,
)


@E.probe("int4 input via OrtValue", ("tensor(int4)", 22, 2, ["<OrtValue>"]))
def _(ort: Any, env: Env) -> object:
    value = ort.OrtValue.ortvalue_from_shape_and_type([4], TensorProto.INT4)
    results = env.session(env.model(INT4, 21, 10)).run_with_ort_values(None, {"x": value})
    return value.data_type(), value.element_type(), value.tensor_size_in_bytes(), results


BF16 = np.array([1.5, 2], ml_dtypes.bfloat16).view(np.uint16)


@E.probe("bfloat16 input through ortvalue_from_numpy_with_onnx_type in run()", ("tensor(bfloat16)", [f32([1.5, 2])]))
def _(ort: Any, env: Env) -> object:
    value = ort.OrtValue.ortvalue_from_numpy_with_onnx_type(BF16, TensorProto.BFLOAT16)
    model = env.model("g (bfloat16[N] x) => (float[N] y) { y = Cast<to = 1>(x) }", 21, 10)
    return value.data_type(), env.run(model, {"x": value})


E.row(
    "bfloat16 output via run_with_ort_values().numpy()",
    lambda ort, env: (
        env.session(env.model("g (float[N] x) => (bfloat16[N] y) { y = Cast<to = 16>(x) }"))
        .run_with_ort_values(None, {"x": env.value(f32([1.5]))})[0]
        .numpy()
    ),
    Fails("RuntimeError", NO_NUMPY.format("bfloat16")),
    ours=np.array([1.5], ml_dtypes.bfloat16),
    why=NARROW,
)

Q = Section("sequences, maps, optionals", parallel=True)
MAKE = """g (int64[1] a, int64[2] b) => (seq(int64[]) s) { s = SequenceConstruct(a, b) }"""
PAIR = {"a": i64([1]), "b": i64([2, 3])}


def names(arguments: Any) -> list[tuple[str, list[object]]]:
    return [(item.type, item.shape) for item in arguments]


def typed(env: Env, graph: str, inputs: dict[str, onnx.TypeProto], outputs: dict[str, onnx.TypeProto]) -> bytes:
    """A graph whose text can't tell the types of its inputs and outputs."""
    proto = env.proto(graph, ai_onnx_ml=3)
    for infos, given in ((proto.graph.input, inputs), (proto.graph.output, outputs)):
        del infos[:]
        infos.extend(helper.make_value_info(name, type_) for name, type_ in given.items())
    return proto.SerializeToString()


FLOATS = helper.make_tensor_type_proto(TensorProto.FLOAT, [2])
ANY_FLOATS = helper.make_tensor_type_proto(TensorProto.FLOAT, None)
BOOL = helper.make_tensor_type_proto(TensorProto.BOOL, [])


def sequence_at(env: Env) -> bytes:
    """y = s[0]"""
    return typed(
        env,
        "g (s) => (y) { zero = Constant<value_int = 0>() y = SequenceAt(s, zero) }",
        {"s": helper.make_sequence_type_proto(ANY_FLOATS)},
        {"y": ANY_FLOATS},
    )


def construct(env: Env) -> bytes:
    integers = [helper.make_tensor_type_proto(TensorProto.INT64, shape) for shape in ([1], [2], None)]
    return typed(
        env,
        "g (a, b) => (s) { s = SequenceConstruct(a, b) }",
        {"a": integers[0], "b": integers[1]},
        {"s": helper.make_sequence_type_proto(integers[2])},
    )


Q.row("sequence out", lambda ort, env: env.run(construct(env), PAIR), [[i64([1]), i64([2, 3])]])
Q.row(
    "sequence output NodeArg",
    lambda ort, env: names(env.session(construct(env)).get_outputs()),
    [("seq(tensor(int64))", [])],
)
for _call, _feed, _expected in (
    ("sequence in: list of arrays", [f32([3]), f32([4, 5])], [f32([3])]),
    (
        "sequence in: tuple",
        (f32([3]),),
        Fails("RuntimeError", "Iterable of <class 'numpy.ndarray'> should be given as array for input 's'."),
    ),
    (
        "sequence in: empty list",
        [],
        Fails(
            "InvalidArgument",
            "Non-zero status code returned while running SequenceAt node. Name:'' Status Message: Invalid sequence "
            "index (0) specified for sequence of size (0)",
        ),
    ),
    (
        "sequence in: single ndarray",
        f32([3]),
        Fails("InvalidArgument", "input with name: 's' expected to be of type: 3 but received a tensor"),
    ),
    (
        "sequence in: wrong dtype elements",
        [np.ones(2)],
        Fails("RuntimeError", "…TensorSeq: tensor to be added has a different data type."),
    ),
    (
        "sequence in: list of python floats",
        [1.0],
        Fails("RuntimeError", "CreateSequenceOfTensors: Input is not a tensor"),
    ),
):
    Q.row(_call, lambda ort, env, feed=_feed: env.run(sequence_at(env), {"s": feed}), _expected)


def as_values(env: Env, session: Any, feeds: dict[str, np.ndarray[Any, Any]]) -> Any:
    return session.run_with_ort_values(None, {name: env.value(array) for name, array in feeds.items()})


@Q.probe("sequence out via run_with_ort_values", (True, False, "seq(tensor(int64))"))
def _(ort: Any, env: Env) -> object:
    (value,) = as_values(env, env.session(construct(env)), PAIR)
    return value.is_tensor_sequence(), value.is_tensor(), value.data_type()


Q.row(
    "…numpy() of a sequence OrtValue",
    lambda ort, env: as_values(env, env.session(construct(env)), PAIR)[0].numpy(),
    Fails("RuntimeError", "…Only OrtValues that are Tensors are convertible to Numpy objects"),
)
Q.row(
    "logreg_iris: outputs types",
    lambda ort, env: [
        (item.name, item.type, item.shape) for item in env.session(env.example("logreg_iris.onnx")).get_outputs()
    ],
    [("label", "tensor(int64)", [3]), ("probabilities", "seq(map(int64,tensor(float)))", [])],
)
Q.row(
    "logreg_iris run (seq(map(int64,float)))",
    lambda ort, env: env.run(env.example("logreg_iris.onnx"), {"float_input": np.zeros((3, 4), "f")}),
    Fails(
        "InvalidArgument",
        "Got invalid dimensions for input: float_input for the following indices\n index: 1 Got: 4 Expected: 2\n "
        "Please fix either the inputs/outputs or the model.",
    ),
)


def vectorizer(env: Env) -> bytes:
    type_ = onnx.TypeProto()
    type_.map_type.key_type = TensorProto.STRING
    type_.map_type.value_type.tensor_type.elem_type = TensorProto.FLOAT
    return typed(
        env,
        'g (m) => (y) { y = ai.onnx.ml.DictVectorizer<string_vocabulary = ["a", "b", "c"]>(m) }',
        {"m": type_},
        {"y": helper.make_tensor_type_proto(TensorProto.FLOAT, [1, 3])},
    )


Q.row(
    "map(string,float) input NodeArg",
    lambda ort, env: [(item.name, item.type, item.shape) for item in env.session(vectorizer(env)).get_inputs()],
    [("m", "map(string,tensor(float))", [])],
)
for _call, _feed, _expected in (
    ("map input {'b':2.,'a':1.}", {"b": 2.0, "a": 1.0}, [f32([[1, 2, 0]])]),
    ("map input with unknown key", {"z": 2.0}, [f32([[0, 0, 0]])]),
    (
        "map input wrong value type {'a':'x'}",
        {"a": "x"},
        Fails(
            "RuntimeError", "Unexpected value type  <class 'str'>, it cannot be linked to C type string for input 'm'."
        ),
    ),
    (
        "map input wrong key type {1:1.}",
        {1: 1.0},
        types("(map(int64,tensor(float)))", "(map(string,tensor(float)))"),
    ),
    (
        "map input list of dicts",
        [{"a": 1.0}],
        Fails("RuntimeError", "…The graph is missing type information needed to construct the ORT tensor"),
    ),
):
    Q.row(_call, lambda ort, env, feed=_feed: env.run(vectorizer(env), {"m": feed}), _expected)
OPTIONAL = helper.make_optional_type_proto(FLOATS)


def has_element(env: Env) -> bytes:
    return typed(env, "g (o) => (y) { y = OptionalHasElement(o) }", {"o": OPTIONAL}, {"y": BOOL})


Q.row(
    "optional input NodeArg",
    lambda ort, env: [(item.name, item.type, item.shape) for item in env.session(has_element(env)).get_inputs()],
    [("o", "optional(tensor(float))", [2])],
)
for _call, _feeds, _expected in (
    ("optional(tensor) input fed array", {"o": f32([1, 2])}, True),
    ("optional input fed None", {"o": None}, False),
    ("optional input left out of the feed", {}, False),
):
    Q.row(_call, lambda ort, env, feeds=_feeds: env.run(has_element(env), feeds), [np.array(_expected)])


def empty_optional(env: Env) -> bytes:
    proto = env.proto("g () => (y) { y = Optional() }")
    proto.graph.node[0].attribute.append(helper.make_attribute("type", FLOATS))
    proto.graph.output[0].type.CopyFrom(OPTIONAL)
    return proto.SerializeToString()


Q.row(
    "optional output with value",
    lambda ort, env: env.run(
        typed(env, "g (x) => (y) { y = Optional(x) }", {"x": FLOATS}, {"y": OPTIONAL}), {"x": f32([1, 2])}
    ),
    [f32([1, 2])],
)
Q.row("optional output empty", lambda ort, env: env.run(empty_optional(env), {}), [None])
Q.row(
    "optional output empty via ort values: has_value",
    lambda ort, env: env.session(empty_optional(env)).run_with_ort_values(None, {})[0].has_value(),
    False,
)

P = Section("Python lists and scalars as feeds (converted with the dtype the model wants)", parallel=True)


class Convertible:
    """What numpy would take for an array."""

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        return f32([1, 2])


for _call, _name, _feed, _expected in (
    ("[1,2] for int64", "INT64", [1, 2], i64([1, 2])),
    ("[1,2] for int32", "INT32", [1, 2], np.array([1, 2], np.int32)),
    ("[1,2] for float", "FLOAT", [1, 2], f32([1, 2])),
    ("[1,2] for float16", "FLOAT16", [1, 2], np.array([1, 2], np.float16)),
    ("[1,2] for bool", "BOOL", [1, 2], np.array([True, True])),
    ("[1,2] for double", "DOUBLE", [1, 2], np.array([1.0, 2.0])),
    ("[1,2] for uint8", "UINT8", [1, 2], np.array([1, 2], np.uint8)),
    ("[[1,2],[3,4]] for int32 (magika style)", "INT32", [[1, 2], [3, 4]], np.array([[1, 2], [3, 4]], np.int32)),
    ("[1.7,2.2] for int64", "INT64", [1.7, 2.2], i64([1, 2])),
    ("[] for float", "FLOAT", [], f32([])),
    ("[ndarray,ndarray] for a tensor input", "FLOAT", [f32([1, 2]), f32([3, 4])], f32([[1, 2], [3, 4]])),
    ("[True,False] for float", "FLOAT", [True, False], f32([1, 0])),
):
    _type = helper.make_tensor_type_proto(TensorProto.DataType.Value(_name), [None] * _expected.ndim)
    P.row(_call, lambda ort, env, t=_type, feed=_feed: env.run(env.identity(t), {"x": feed}), [_expected])
NOT_MADE = "Could not create tensor from given input list"
for _call, _name, _feed, _fails in (
    ("[300] for uint8", "UINT8", [300], Fails("RuntimeError", NOT_MADE, cause="OverflowError")),
    ("['a'] for float", "FLOAT", ["a"], Fails("RuntimeError", NOT_MADE, cause="ValueError")),
    ("ragged [[1],[2,3]] for float", "FLOAT", [[1], [2, 3]], Fails("RuntimeError", NOT_MADE, cause="ValueError")),
    ("tuple (1.,2.) for float", "FLOAT", (1.0, 2.0), Fails("RuntimeError", NOT_LIST)),
    ("range(3) for int64", "INT64", range(3), Fails("RuntimeError", NOT_LIST)),
    ("int 5 for int64", "INT64", 5, unhandled("int")),
    ("bytes for uint8", "UINT8", b"ab", Fails("RuntimeError", NOT_LIST)),
    ("dict for tensor", "FLOAT", {"a": 1.0}, types("(map(string,tensor(float)))", "(tensor(float))")),
    ("object with __array__", "FLOAT", Convertible(), unhandled("…Convertible")),
    ("np.int64(3) scalar for int64 scalar", "INT64", np.int64(3), unhandled("numpy.int64")),
):
    P.row(
        _call,
        lambda ort, env, name=_name, feed=_feed: env.run(env.identity(TensorProto.DataType.Value(name)), {"x": feed}),
        _fails,
    )
P.row(
    "generator for int64",
    lambda ort, env: env.run(env.identity(TensorProto.INT64), {"x": (i for i in range(3))}),
    Fails("RuntimeError", NOT_LIST),
)
