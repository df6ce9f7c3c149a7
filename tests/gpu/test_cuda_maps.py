"""Element-wise operations as CUDA C against the CPU's kernels: operators, element types, views, packs, tiles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distort.kernels.compiler.codegen.elements import EMITTERS as OF_CPU
from distort.kernels.compiler.codegen.operators import register
from distort.kernels.compiler.expression import Expression, Instruction, name_of
from distort.kernels.compiler.ir import Map, Place
from distort.kernels.cuda.codegen import launches
from distort.kernels.cuda.codegen.expressions import EMITTERS
from distort.kernels.cuda.codegen.indexing import divisor

from .by_cpu import agree
from .simulating import WAYS, Array, Memory, run_all, view, views

RANDOM = np.random.default_rng(5)
_BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
_SPECIAL = [0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45, -1e-40, 1.5, 2.5, -0.5, 1.0, -1.0, 3.4e38, -3.4e38, 1e-8]
_INTEGERS = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")
_REALS = ("float32", "float64", "float16", "bfloat16")


def kind(dtype: str) -> np.dtype[Any]:
    return _BFLOAT16 if dtype == "bfloat16" else np.dtype(dtype)


def values(dtype: str, seed: int = 0, n: int = 331) -> Array:
    generator = np.random.default_rng(seed)
    if dtype == "bool":
        return generator.integers(0, 2, n).astype(bool)
    if kind(dtype).kind in "iu":
        limits = np.iinfo(kind(dtype))
        small = generator.integers(max(-9, limits.min), 10, n).astype(dtype)
        large = generator.integers(limits.min, limits.max, n, dtype=kind(dtype), endpoint=True)
        result = np.where(generator.random(n) < 0.5, small, large)
        result[:3] = limits.min, limits.max, 0
        return result
    with np.errstate(over="ignore"):
        result = (generator.standard_normal(n) * 3).astype(kind(dtype))
        result[: len(_SPECIAL)] = generator.permutation(np.array(_SPECIAL)).astype(kind(dtype))
    return result


def check(
    dtypes: Sequence[str],
    bodies: Sequence[tuple[str, tuple[int, ...], str, tuple[Any, ...]]],
    most_ulp: float = 0,
    numbers: Sequence[float] = (),
    inputs: Sequence[Array] = (),
    atol: float = 0,
) -> None:
    """Instructions (op, operands, dtype, attributes), whose results are all stored; ``numbers`` follow the inputs."""
    n = len(dtypes)
    arrays = list(inputs) or [values(dtype, seed) for seed, dtype in enumerate(dtypes)]
    body = [Instruction("constant", (0,), dtypes[0], (number,)) for number in numbers]
    body += [Instruction(*parts) for parts in bodies]
    results = range(n + len(numbers), n + len(body))
    expression = Expression(tuple(dtypes), tuple(body), tuple(results))
    made = [np.zeros(arrays[0].shape, kind(parts[2])) for parts in bodies]
    operation = Map([view(x) for x in arrays], [view(x) for x in made], expression)
    with np.errstate(all="ignore"):
        agree(operation, most_ulp, WAYS[:2], atol)


def test_every_operator_is_printed() -> None:
    register()
    assert set(OF_CPU) - {"constant"} == set(EMITTERS)


_ORDER = ("equal", "not_equal", "less", "greater", "less_or_equal", "greater_or_equal")


@pytest.mark.parametrize("dtype", _INTEGERS)
def test_integers(dtype: str) -> None:
    bodies: list[Any] = [(op, (0, 1), dtype, ()) for op in ("add", "sub", "mul", "div", "max", "min", "maximum")]
    bodies += [("mod", (0, 1), dtype, (fmod,)) for fmod in (0, 1)]
    bodies += [(op, (0, 1), "bool", ()) for op in _ORDER]
    bodies += [(op, (0, 1), dtype, ()) for op in ("and", "or", "xor", "bitwise_and", "bitwise_or", "bitwise_xor")]
    bodies += [(op, (0,), dtype, ()) for op in ("neg", "abs", "sign", "relu", "not", "bitwise_not", "floor")]
    bodies += [("bit_shift", (0, 1), dtype, (way,)) for way in ("LEFT", "RIGHT")]
    bodies += [("where", (2, 0, 1), dtype, ()), ("prelu", (0, 1), dtype, ()), ("pow", (0, 1), dtype, ())]
    check((dtype, dtype, "bool"), bodies)


@pytest.mark.parametrize("dtype", _REALS)
def test_exact_operators_of_reals(dtype: str) -> None:
    bodies: list[Any] = [(op, (0, 1), dtype, ()) for op in ("add", "sub", "mul", "div", "max", "min", "maximum")]
    bodies += [("mod", (0, 1), dtype, (fmod,)) for fmod in (0, 1)]
    bodies += [(op, (0, 1), "bool", ()) for op in _ORDER]
    bodies += [(op, (0,), dtype, ()) for op in ("neg", "abs", "sign", "relu", "floor", "ceil", "round", "sqrt")]
    bodies += [("reciprocal", (0,), dtype, ()), ("is_nan", (0,), "bool", ()), ("is_inf", (0,), "bool", (1, 0))]
    bodies += [("where", (2, 0, 1), dtype, ()), ("prelu", (0, 1), dtype, ()), ("leaky_relu", (0,), dtype, (0.1,))]
    bodies += [("max", (3, 0), dtype, ()), ("clip", (0, 3, 4), dtype, ()), ("clip", (0, 1, 4), dtype, ())]
    bodies += [("thresholded_relu", (0,), dtype, (0.5,)), ("shrink", (0,), dtype, (0.1, 0.3))]
    bodies += [("pow", (0, n), dtype, ()) for n in (3, 4)]
    check((dtype, dtype, "bool"), bodies, numbers=(-1, 2))


_SMOOTH = [
    "exp",
    "expm1",
    "log",
    "log1p",
    "tanh",
    "erf",
    "sin",
    "cos",
    "tan",
    "asin",
    "acos",
    "atan",
    "sinh",
    "cosh",
    "asinh",
    "acosh",
    "atanh",
    "sigmoid",
    "softplus",
    "softsign",
    "hard_swish",
    "mish",
    "gelu",
    "selu",
    "elu",
    "celu",
    "swish",
    "hard_sigmoid",
]


@pytest.mark.parametrize("dtype", _REALS)
def test_functions(dtype: str) -> None:
    bodies: list[Any] = [(op, (0,), dtype, ()) for op in _SMOOTH]
    bodies += [("gelu", (0,), dtype, ("tanh",)), ("swish", (0,), dtype, (1.7,)), ("elu", (0,), dtype, (0.3,))]
    bodies += [("pow", (0, 1), dtype, ()), ("pow", (0, 2), dtype, ())]
    smooth = (dtype, dtype)
    tiny = {"float32": 1e-6, "float64": 1e-14, "float16": 2e-7, "bfloat16": 1e-6}[dtype]
    check(smooth, bodies, 5 if dtype in ("float32", "float64") else 1, numbers=(1.7,), atol=tiny)


def test_powers_of_mixed_types() -> None:
    check(("float32", "int64", "int32"), [("pow", (0, 1), "float32", ()), ("pow", (0, 2), "float32", ())], 1)
    base = values("int32", 3) % 10
    exponent = RANDOM.uniform(0, 4, base.size).astype(np.float32)
    check(("int32", "float32"), [("pow", (0, 1), "int32", ())], inputs=[base, exponent])


@pytest.mark.parametrize("dtype", ["bool", *_INTEGERS, *_REALS])
def test_casts(dtype: str) -> None:
    array = values(dtype)
    if dtype in _REALS:  # what is beyond the integers is the machine's own
        array = np.where(np.abs(array.astype(np.float64)) < 100, array, np.ones((), array.dtype))
    targets = ["bool", *_INTEGERS, *_REALS]
    if dtype in _REALS:
        check((dtype,), [("cast", (0,), to, ()) for to in targets if to.startswith("u")], inputs=[np.abs(array)])
        targets = [to for to in targets if not to.startswith("u")]
    check((dtype,), [("cast", (0,), to, ()) for to in targets], inputs=[array])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_integers_do_not_hold_is_the_smallest(dtype: str) -> None:
    array = np.array([np.nan, np.inf, -np.inf, 3e9, -3e9, 1e19, -1e19, 2147483648, -2147483648, 2147483520], dtype)
    check((dtype,), [("cast", (0,), to, ()) for to in ("int32", "int64", "int16")], inputs=[array])


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16"])
def test_quantization(dtype: str) -> None:
    x = (RANDOM.standard_normal(999) * 1000).astype(np.float32)
    x[:6] = np.nan, np.inf, -np.inf, 0.5, 1.5, 2.5
    scale = np.full(999, 0.37, np.float32)
    bodies: list[Any] = [("quotient", (0, 1, 2), "float32", ()), ("saturate", (4, 3), dtype, ())]
    check(("float32",) * 4, bodies, inputs=[x, scale, 1 / scale, np.full(999, 7, np.float32)])


def add(dtype: str = "float32") -> Expression:
    return Expression((dtype, dtype), (Instruction("add", (0, 1), dtype),), (2,))


def test_half_precision_is_rounded_between_operators() -> None:
    x, y = values("float16", 1), values("float16", 2)
    check(("float16", "float16"), [("add", (0, 1), "float16", ()), ("mul", (2, 1), "float16", ())], inputs=[x, y])


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_views(data: st.DataObject) -> None:
    """Sums of views with permuted, repeated, cut, strided and reversed dimensions, to permuted and cut ones."""
    rank = data.draw(st.integers(1, 4))
    shape = tuple(data.draw(st.lists(st.sampled_from([1, 2, 3, 5, 16, 17, 33]), min_size=rank, max_size=rank)))
    dtype = data.draw(st.sampled_from(["float32", "int8", "float64", "float16"]))

    def some_view(is_input: bool) -> Array:
        axes = data.draw(st.permutations(range(rank)))
        gaps = data.draw(st.lists(st.sampled_from([1, 1, 2]), min_size=rank, max_size=rank))
        whole = (RANDOM.standard_normal([shape[a] * g + 1 for a, g in zip(axes, gaps, strict=True)]) * 50).astype(dtype)
        cut = whole[tuple(slice(1, 1 + shape[a] * g, g) for a, g in zip(axes, gaps, strict=True))]
        made = cut.transpose([axes.index(a) for a in range(rank)])
        if is_input:
            for axis in range(rank):
                how = data.draw(st.sampled_from(["as is", "as is", "repeated", "reversed"]))
                if how == "repeated":
                    made = np.broadcast_to(made[(slice(None),) * axis + (slice(0, 1),)], shape)
                elif how == "reversed":
                    made = np.flip(made, axis)
        return made

    a, b, out = some_view(True), some_view(True), some_view(False)
    agree(Map([view(a), view(b)], [view(out)], add(dtype)), ways=[data.draw(st.sampled_from(WAYS))])


@pytest.mark.parametrize("n", [1, 3, 4, 5, 31, 32, 33, 1023, 1024, 4097])
@pytest.mark.parametrize("dtype", ["float32", "float16", "int8", "float64"])
def test_packs_and_what_is_left_of_them(dtype: str, n: int) -> None:
    a, b = values(dtype, 1, max(n, 20))[:n], values(dtype, 2, max(n, 20))[:n]
    agree(Map([view(a), view(b)], [view(np.zeros_like(a))], add(dtype)))


@pytest.mark.parametrize("offset", [0, 1, 4])
def test_memory_of_the_caller_may_lie_anywhere(offset: int) -> None:
    owner, out = values("float32", 1, 200), np.zeros(100, np.float32)
    operation = Map(views(owner[offset : offset + 96], owner[100:196]), [view(out[offset : offset + 96])], add())
    for tensor in (*operation.inputs, *operation.outputs):
        tensor.buffer.place = Place.FEED
    agree(operation)
    (launch,) = launches(operation) or []
    assert "load_pack" in launch.kernel.source


def test_rows_of_packs_with_what_is_repeated() -> None:
    x, row, column = values("float16", 1, 21 * 64).reshape(21, 64), values("float16", 2, 64), values("float16", 3, 21)
    body = (Instruction("mul", (0, 1), "float16"), Instruction("add", (3, 2), "float16"))
    tensors = [view(x), view(row).broadcast(x.shape), view(column.reshape(21, 1)).broadcast(x.shape)]
    operation = Map(tensors, [view(np.zeros_like(x))], Expression(("float16",) * 3, body, (4,)))
    agree(operation)
    (launch,) = launches(operation) or []
    assert launch.n_threads == 21 * 64 // 8


@pytest.mark.parametrize("shape", [(40, 50), (3, 33, 64), (2, 3, 17, 70)])
@pytest.mark.parametrize("dtype", ["float32", "float16", "int8", "int64"])
def test_what_lies_across_goes_through_tiles(dtype: str, shape: tuple[int, ...]) -> None:
    x = values(dtype, 1, int(np.prod(shape))).reshape(shape)
    y = values(dtype, 2, x.size).reshape((*shape[:-2], shape[-1], shape[-2])).swapaxes(-1, -2)
    operation = Map([view(x), view(y)], [view(np.zeros_like(x))], add(dtype))
    agree(operation)
    (launch,) = launches(operation) or []
    assert launch.kernel.name.startswith("turned")


def test_several_results_of_one_pass() -> None:
    x = values("float32", 1, 300)
    expression = Expression(
        ("float32",), (Instruction("neg", (0,), "float32"), Instruction("less", (0, 1), "bool")), (1, 2, 0)
    )
    agree(Map([view(x)], [view(np.zeros_like(x)), view(np.zeros(300, bool)), view(np.zeros_like(x))], expression))


def test_a_copy_within_a_buffer() -> None:
    owner = np.arange(64, dtype=np.float32)
    source, target = views(owner[:32], owner[32:])
    operation = Map([source], [target], Expression(("float32",), (), (0,)))
    memory = Memory()
    (launch,) = run_all([operation], memory)
    np.testing.assert_array_equal(memory.view(target), np.arange(32))
    assert "__restrict__" not in launch.kernel.source


def test_nothing_is_launched_for_no_elements() -> None:
    x = np.zeros((0, 4), np.float32)
    assert launches(Map([view(x), view(x)], [view(x.copy())], add())) == []


def test_what_is_larger_than_32_bits_tell() -> None:
    x = view(np.zeros(8, np.float32))
    large = x.view((1 << 16, 1 << 15), (0, 0))
    result = view(np.zeros(1, np.float32))
    result.shape, result.strides = large.shape, (1 << 15, 1)
    (launch,) = launches(Map([large], [result], Expression(("float32",), (), (0,)))) or []
    assert "const long long first" in launch.kernel.source


def test_division_by_a_product() -> None:
    generator = np.random.default_rng(0)
    for size in [*range(1, 200), *generator.integers(200, 1 << 31, 300).tolist(), (1 << 31) - 1]:
        packed = divisor(size) & ((1 << 64) - 1)
        magic, shift = packed >> 32, packed & 63
        numbers = [0, 1, size - 1, size, size + 1, (1 << 31) - 1, *generator.integers(0, 1 << 31, 50).tolist()]
        for n in numbers:
            assert ((n * magic >> 32) + n) >> shift == n // size


def test_names_are_of_the_text() -> None:
    x, y = values("float32", 1, 64), values("float32", 1, 128)
    one, other = (launches(Map([view(a), view(a)], [view(a.copy())], add())) or [] for a in (x, y))
    assert one[0].kernel is other[0].kernel
    assert name_of(x.dtype) == "float32"
