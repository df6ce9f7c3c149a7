"""Operations of every kind that CUDA C is printed for, small, to be compiled."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np

from distort.kernels.compiler.expression import Expression, Instruction
from distort.kernels.compiler.ir import Call, Map, Native, Operation
from distort.kernels.compiler.keys import Key
from distort.kernels.cuda.codegen.narrow import DTYPES, FLOATS, INTEGERS
from distort.kernels.cuda.operations import (
    Activation,
    CudaByteConv,
    CudaCells,
    CudaExpect,
    CudaPatches,
    CudaPlaces,
    CudaSelected,
    CudaSuppress,
    CudaUnpack,
)
from distort.kernels.windows import windows_of

from .graphs import graph_of, operations_of
from .simulating import view

_OF_REALS = [
    "exp",
    "log1p",
    "erf",
    "tanh",
    "sin",
    "pow",
    "mod",
    "gelu",
    "softplus",
    "selu",
    "max",
    "sign",
    "round",
    "is_nan",
    "celu",
    "mish",
    "quotient",
]
_OF_INTEGERS = ["add", "div", "mod", "pow", "max", "sign", "bitwise_xor", "bit_shift", "abs"]
_N_OPERANDS = dict.fromkeys(["pow", "mod", "max", "add", "div", "bitwise_xor", "bit_shift", "quotient"], 2)
_ATTRIBUTES: dict[str, tuple[Any, ...]] = {"bit_shift": ("RIGHT",), "mod": (0,)}


def kind(dtype: str) -> np.dtype[Any]:
    return np.dtype(ml_dtypes.bfloat16) if dtype == "bfloat16" else DTYPES.get(dtype) or np.dtype(dtype)


def _of_operators(dtype: str, ops: list[str], casts: list[str]) -> Map:
    body = [
        Instruction(op, (0, 1)[: _N_OPERANDS.get(op, 1)], "bool" if op == "is_nan" else dtype, _ATTRIBUTES.get(op, ()))
        for op in ops
    ]
    body += [Instruction("cast", (0,), to) for to in casts]
    inputs = [np.zeros(64, kind(dtype)) for _ in range(2)]
    outputs = [np.zeros(64, kind(i.dtype)) for i in body]
    expression = Expression((dtype, dtype), tuple(body), tuple(range(2, 2 + len(body))))
    return Map([view(x) for x in inputs], [view(x) for x in outputs], expression)


def of_casts(source: str, to: str, saturate: int, x: Any = None) -> list[Operation]:
    """Of numbers of one dtype as another's; a copy where they are the same."""
    x = np.zeros(64, kind(source)) if x is None else x
    body = (Instruction("cast", (0,), to, (bool(saturate),) if to in FLOATS else ()),) if source != to else ()
    return [Map([view(x)], [view(np.zeros(x.shape, kind(to)))], Expression((source,), body, (len(body),)))]


def maps() -> Iterator[Operation]:
    for narrow in sorted([*FLOATS, *INTEGERS]):
        for other in ("float32", "float16", "int64", "bool", narrow):
            yield from of_casts(narrow, other, 1)
            yield from of_casts(other, narrow, 0)
    integers = ["int8", "uint8", "uint32", "int32", "int64", "uint64"]
    for dtype in ("float32", "float16", "bfloat16", "float64"):
        yield _of_operators(dtype, _OF_REALS, integers if dtype in ("float32", "float64") else ["float32"])
    for dtype in ("int8", "uint8", "int32", "int64", "uint64"):
        yield _of_operators(dtype, _OF_INTEGERS, ["float32", "bool", "float16", "bfloat16"])
    for dtype in ("float32", "float16", "int8"):
        x = np.zeros((3, 40, 50), kind(dtype))
        expression = Expression((dtype, dtype), (Instruction("add", (0, 1), dtype),), (2,))
        turned = np.zeros((3, 50, 40), kind(dtype)).swapaxes(1, 2)
        for other in (turned, np.broadcast_to(x[:, :1], x.shape), x[:, :, ::-1]):
            yield Map([view(x), view(other)], [view(np.zeros_like(x))], expression)


def of_graph(text: str, feeds: dict[str, tuple[tuple[int, ...], str]], opset: int = 21) -> list[Operation]:
    """What a graph is lowered to. ``feeds``: shapes and dtypes."""
    arrays = {name: np.zeros(shape, kind(dtype)) for name, (shape, dtype) in feeds.items()}
    return operations_of(graph_of(text, arrays, opset), arrays)[0]


def rows() -> Iterator[Operation]:
    for dtype, name in (("float32", "float"), ("float16", "float16"), ("bfloat16", "bfloat16"), ("float64", "double")):
        x = {"x": ((6, 64), dtype)}
        for axis in (0, 1):
            yield from of_graph(f"({name} y) {{ g = Gelu (x) \n y = Softmax <axis = {axis}> (g) }}", x)
            for op in ("ReduceMax", "ReduceProd", "ReduceLogSumExp"):
                text = f"({name} y) <int64[1] a = {{{axis}}}> {{ y = {op} (x, a) }}"
                yield from of_graph(text, x)
        text = f"({name} y) {{ y = LayerNormalization (x, g, b) }}"
        yield from of_graph(text, {**x, "g": ((64,), dtype), "b": ((64,), dtype)})
    for dtype in ("float32", "int8", "int32", "int64", "uint64"):
        name = {"float32": "float"}.get(dtype, dtype)
        for axis in (0, 1):
            yield from of_graph(f"(int64 y) {{ y = ArgMax <axis = {axis}> (x) }}", {"x": ((6, 64), dtype)})
        yield from of_graph(f"({name} y) {{ y = ReduceMin (x) }}", {"x": ((6, 64), dtype)})


def natives() -> Iterator[Operation]:
    """Kernels that have the words of the CPU's."""
    for element in ("i8", "i16", "i32", "i64"):
        yield native("reversed", (element, "i32"))
    for real in ("float", "double"):
        yield native("labels", (real,))
    for dtype in ("float32", "float64"):
        yield native("fold", (dtype, True))
    for family in ("expect_ones", "find", "lookup", "max_roi_pool", "scores_softmax"):
        yield native(family, ())
    for largest, aligned in itertools.product((True, False), repeat=2):
        yield native("roi_align", (largest, aligned))
    for votes, wide in itertools.product(("one", "all", "pair", "some"), (True, False)):
        for condition, combined in (("ole", "add"), ("mixed", "minimum"), ("une", "maximum")):
            yield native("trees", (condition, True, votes, wide, combined, votes != "one", wide, "float"))


def native(family: str, parameters: tuple[Any, ...]) -> Native:
    """A call with no words: only its kernel is of interest."""
    return Native([], [], [Call(Key(family, parameters), _Ones(), 0.0)])


class _Ones(list[Any]):
    """Any word is 1."""

    def __getitem__(self, place: Any) -> Any:
        return 1


def moves() -> Iterator[Operation]:
    """Gather, scatter, pooling, resizing, selection, packed weights."""
    for rank in (1, 2, 3):
        windows = windows_of([5] * rank, [2] * rank, None, None, [1] * 2 * rank, "NOTSET")
        around = view(np.zeros((), np.int8))
        for line in (4, 16):
            x = view(np.zeros((2, *[5] * rank, line), np.int8))
            patches = view(np.zeros((2, *windows.out, 2**rank * line), np.int8))
            yield CudaPatches([x], [patches], windows, line - 1)
            yield CudaPatches([x, around], [patches], windows, line)
        y = view(np.zeros((2, 6, *windows.out), np.int32))
        images, weights = np.zeros((2, 6, *[5] * rank), np.uint8), np.zeros((6, 3, *[2] * rank), np.int8)
        given = [images, weights, np.zeros((), np.uint8), np.zeros(6, np.int8)]
        yield CudaByteConv([view(array) for array in given], [y], windows, 2, True, True)
        yield CudaByteConv([view(array) for array in given[:2]], [y], windows, 2, False, False)
    yield from natives()
    for padding in ("zeros", "reflection"):
        text = f'(float y) {{ y = GridSample <padding_mode = "{padding}"> (x, g) }}'
        yield from of_graph(text, {"x": ((1, 2, 6, 6), "float32"), "g": ((1, 3, 3, 2), "float32")}, 20)
    for mode in ("nearest", "linear"):
        text = f'(float y) <int64[4] s = {{1, 2, 9, 9}}> {{ y = Resize <mode = "{mode}"> (x, , , s) }}'
        yield from of_graph(text, {"x": ((1, 2, 6, 6), "float32")})
    for dtype, name in (("float16", "float16"), ("int8", "int8"), ("int64", "int64")):
        x = {"x": ((6, 64), dtype), "i": ((5,), "int64")}
        yield from of_graph(f"({name} y) {{ y = Gather (x, i) }}", x)
        yield from of_graph(f"({name} y) {{ y = Gather <axis = 1> (x, i) }}", x)
        updates = {"x": ((6, 64), dtype), "i": ((3, 2), "int32"), "u": ((3,), dtype)}
        for reduction in ("none", "add", "max"):
            yield from of_graph(f'({name} y) {{ y = ScatterND <reduction = "{reduction}"> (x, i, u) }}', updates)
    for dtype, name in (("float32", "float"), ("float64", "double"), ("uint32", "uint32")):
        updates = {"x": ((6, 64), dtype), "i": ((3, 2), "int32"), "u": ((3,), dtype)}
        yield from of_graph(f'({name} y) {{ y = ScatterND <reduction = "add"> (x, i, u) }}', updates)
    for dtype, name in (("float32", "float"), ("float16", "float16"), ("float64", "double")):
        image = {"x": ((2, 3, 8, 9), dtype)}
        yield from of_graph(f"({name} y, int64 i) {{ y, i = MaxPool <kernel_shape = [3, 2]> (x) }}", image)
        yield from of_graph(f"({name} y) {{ y = MaxPool <kernel_shape = [3, 2]> (x) }}", image)
        yield from of_graph(f"({name} y) {{ y = AveragePool <kernel_shape = [3, 2]> (x) }}", image)
        turned = "t = Transpose <perm = [0, 3, 1, 2]> (x)"
        for pool in ("MaxPool", "AveragePool"):
            yield from of_graph(f"({name} y) {{ {turned} y = {pool} <kernel_shape = [3, 2]> (t) }}", image)
    for dtype, name in (("float32", "float"), ("float16", "float16"), ("int16", "int16")):
        text = f"({name} v, int64 i) <int64[1] k = {{5}}> {{ v, i = TopK (x, k) }}"
        yield from of_graph(text, {"x": ((6, 64), dtype)})
    for dtype, name in (("float32", "float"), ("int64", "int64")):
        for axis in (0, 1):
            for exclusive in (0, 1):
                text = f"({name} y) <int64 a = {{{axis}}}> {{ y = CumSum <exclusive = {exclusive}> (x, a) }}"
                yield from of_graph(text, {"x": ((6, 64), dtype)})
    for dtype, name in (("float32", "float"), ("float16", "float16"), ("bfloat16", "bfloat16")):
        for bits in (4, 8):
            weights = {"a": ((2, 64), dtype), "w": ((8, 2, 4 * bits), "uint8"), "s": ((16,), dtype)}
            weights["z"] = ((8 * bits // 4,), "uint8")
            for names in ("a, w, s", "a, w, s, z"):
                attributes = f"K = 64, N = 8, bits = {bits}, block_size = 32"
                yield from of_graph(f"({name} y) {{ y = com.microsoft.MatMulNBits <{attributes}> ({names}) }}", weights)
            parts = [np.zeros(shape, kind(d)) for shape, d in (((8, 2, 4 * bits), "uint8"), ((8, 2), dtype))]
            yield CudaUnpack([view(x) for x in parts], [view(np.zeros((8, 64), kind(dtype)))], bits, 32, False)


#: gates, activations and phases of each kind of cell
_CELLS = (
    ("LSTM", 4, ("sigmoid", "tanh", "scaledtanh"), ("whole",)),
    ("GRU", 3, ("hardsigmoid", "softplus"), ("gates", "hidden")),
    ("GRU", 3, ("sigmoid", "elu"), ("whole",)),
    ("RNN", 1, ("softsign",), ("whole",)),
)


def steps() -> Iterator[Operation]:
    """Steps of recurrent layers, what is expected of a run, images between pixels, and boxes."""
    n_steps, batch, n_directions, hidden = 2, 3, 2, 8
    for dtype in ("float32", "float64"):
        for name, n_gates, activations, phases in _CELLS:
            for multiplies in (True, False):
                phase_gates = {"whole": n_gates, "gates": 2, "hidden": 1}
                for given in [phases] if multiplies else [(phase,) for phase in phases]:
                    state = (n_directions, batch, hidden)
                    reads = {"gates": (n_steps, batch, n_directions, n_gates, hidden), "h0": state, "lengths": (batch,)}
                    makes = {"h": state, "states": (2, *state), "y": (n_steps, *state)}
                    if multiplies:
                        reads["r"] = (n_directions, n_gates * hidden, hidden)
                    else:
                        reads["products"] = (n_directions, batch, phase_gates[given[0]] * hidden)
                    if name == "LSTM":
                        reads |= {"c0": state, "peepholes": (n_directions, 3, hidden)}
                        makes["c"] = state
                    elif phases == ("whole",) and name == "GRU":
                        reads["bias"] = (n_directions, hidden)
                    elif name == "GRU":
                        makes["inner"] = (2, *state)
                    views = {
                        operand: view(np.zeros(shape, np.int64 if operand == "lengths" else dtype))
                        for operand, shape in (reads | makes).items()
                    }
                    yield CudaCells(
                        [views[operand] for operand in reads],
                        [views[operand] for operand in makes],
                        tuple(views),
                        name,
                        given,
                        (False, True),
                        (tuple([Activation(text, 0.2, 0.5) for text in activations]),) * n_directions,
                        n_steps,
                        0,
                        n_steps,
                        1.5,
                    )
    state = [view(np.zeros(shape, np.float32)) for shape in ((1, 2, 8), (1, 2, 8), (1, 2, 8), (2, 1, 2, 8), (1, 2, 8))]
    reads = [view(np.zeros(shape, np.float32)) for shape in ((4, 2, 1, 4, 8), (1, 32, 8), (1, 32))]
    names = ("gates", "r", "scales", "h0", "c0", "h", "states", "c")
    usual = (tuple([Activation(text, 0.0, 0.0) for text in ("sigmoid", "tanh", "tanh")]),)
    yield CudaCells([*reads, *state[:2]], state[2:], names, "LSTM", ("whole",), (True,), usual, 4, 0, 4)
    for mode in ("nearest", "linear", "cubic"):
        for padding in ("zeros", "border", "reflection"):
            attributes = f'mode = "{mode}", padding_mode = "{padding}"'
            image = {"x": ((1, 2, 6, 7), "float32"), "g": ((1, 3, 5, 2), "float32")}
            yield from of_graph(f"(float y) {{ y = GridSample <{attributes}> (x, g) }}", image)
    boxes = [view(np.zeros(shape, np.float32)) for shape in ((2, 9, 4), (2, 3, 9))]
    limits = [view(np.zeros(1, np.int64)), *(view(np.zeros(1, np.float32)) for _ in range(2))]
    kept, counts = view(np.zeros((6, 4), np.int32)), view(np.zeros(6, np.int32))
    for centred in (False, True):
        for given in (limits, limits[:2]):
            yield CudaSuppress([*boxes, *given], [kept, counts, view(np.zeros((6, 9), np.uint8))], centred)
    yield CudaSelected([kept, counts], [view(np.zeros((24, 3), np.int64)), view(np.zeros(1, np.int64))], 3)
    numbers = [view(np.zeros(3, np.int64)) for _ in range(3)]
    yield CudaExpect(numbers, [], "same")
    for kind_of_number in ("int16", "int32", "int64"):
        parts = [view(np.zeros((), kind_of_number)) for _ in range(3)]
        yield CudaExpect(parts, [view(np.zeros(4, kind_of_number))], "counting")
    for kind_of_number in ("bool", "float32", "uint8", "float64"):
        places = [np.zeros((3, 4), kind_of_number), np.zeros((2, 5), np.int64), np.zeros(1, np.int32)]
        yield CudaPlaces([view(places[0])], [view(array) for array in places[1:]], 4096)
