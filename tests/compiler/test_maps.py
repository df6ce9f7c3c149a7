"""Loops over elements: strides, broadcast, transposes, few and many loops, types of all widths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distort.kernels.compiler.codegen.target import host
from distort.kernels.compiler.expression import Expression, Instruction, name_of
from distort.kernels.compiler.ir import Buffer, Call, Map, Place, Tensor
from distort.kernels.compiler.loops import map_call

from .calling import invoke_call

Array = np.ndarray[Any, Any]
RANDOM = np.random.default_rng(5)


def view(array: Array) -> Tensor:
    """A tensor that is a view of an array's memory."""
    owner = array
    while isinstance(owner.base, np.ndarray):
        owner = owner.base
    size = array.dtype.itemsize
    offset = (array.__array_interface__["data"][0] - owner.__array_interface__["data"][0]) // size
    strides = tuple(0 if n == 1 else step // size for n, step in zip(array.shape, array.strides, strict=True))
    return Tensor(array.dtype, array.shape, strides, Buffer(owner.nbytes, Place.CONSTANT, owner), offset)


def run(expression: Expression, inputs: Sequence[Array], outputs: Sequence[Array], n_threads: int = 3) -> list[Call]:
    calls = map_call(Map([view(x) for x in inputs], [view(o) for o in outputs], expression), host(), n_threads)
    for call in calls:
        invoke_call(call, n_threads)
    return calls


def add(dtype: str = "float32") -> Expression:
    return Expression((dtype, dtype), (Instruction("add", (0, 1), dtype),), (2,))


def numbers(*shape: int, dtype: Any = np.float32) -> Array:
    return np.asarray(RANDOM.standard_normal(shape) * 50).astype(dtype)


@settings(max_examples=120, deadline=None)
@given(data=st.data())
def test_any_views(data: st.DataObject) -> None:
    """Sums of views with permuted, repeated, cut and strided dimensions, written to permuted and cut ones."""
    rank = data.draw(st.integers(1, 4))
    shape = tuple(data.draw(st.lists(st.sampled_from([1, 2, 3, 5, 16, 17, 33]), min_size=rank, max_size=rank)))
    dtype = data.draw(st.sampled_from(["float32", "int8", "float64", "float16", "int64"]))

    def some_view(repeats: bool) -> Array:
        axes = data.draw(st.permutations(range(rank)))
        gaps = data.draw(st.lists(st.integers(1, 2), min_size=rank, max_size=rank))
        sizes = [shape[a] * g + 1 for a, g in zip(axes, gaps, strict=True)]
        whole = numbers(*sizes, dtype=dtype)
        cut = whole[tuple(slice(1, 1 + shape[a] * g, g) for a, g in zip(axes, gaps, strict=True))]
        made = cut.transpose([axes.index(a) for a in range(rank)])
        if repeats:
            for axis in range(rank):
                if data.draw(st.booleans()) and data.draw(st.booleans()):
                    made = np.broadcast_to(made[(slice(None),) * axis + (slice(0, 1),)], shape)
        return made

    a, b, out = some_view(True), some_view(True), some_view(False)
    with np.errstate(over="ignore"):
        want = a + b
    owner = out.base if out.base is not None else out
    outside = owner.copy()
    run(add(dtype), [a, b], [out])
    np.testing.assert_array_equal(out, want)
    # what lies between stays
    out[...] = 0
    untouched = owner.copy()
    owner[...] = outside
    out[...] = 0
    np.testing.assert_array_equal(owner, untouched)


@pytest.mark.parametrize("shape", [(64, 64), (49, 100), (3, 1000), (1000, 3), (2, 40, 50), (1, 1), (16, 7), (5, 17)])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "uint8", "bool"])
def test_transpose(dtype: str, shape: tuple[int, ...]) -> None:
    x = (numbers(*shape) > 0) if dtype == "bool" else numbers(*shape).astype(np.int32).astype(dtype)
    turned = np.swapaxes(x, -1, -2)
    out = np.zeros(turned.shape, dtype)
    run(Expression((dtype,), (), (0,)), [turned], [out])
    np.testing.assert_array_equal(out, turned)


def test_transpose_with_work_on_the_way() -> None:
    x, y, row = numbers(50, 70), numbers(70, 50), numbers(50)
    out = np.zeros((70, 50), np.float32)
    body = (Instruction("add", (0, 1), "float32"), Instruction("mul", (3, 2), "float32"))
    expression = Expression(("float32",) * 3, body, (4,))
    calls = run(expression, [x.T, y, np.broadcast_to(row, (70, 50))], [out])
    assert [call.key.family for call in calls] == ["turned"]
    np.testing.assert_allclose(out, (x.T + y) * row, rtol=1e-6)


def test_channels_from_last_to_first_and_back() -> None:
    image = numbers(40, 50, 3)
    planes = np.zeros((3, 40, 50), np.float32)
    run(Expression(("float32",), (), (0,)), [image.transpose(2, 0, 1)], [planes])
    np.testing.assert_array_equal(planes, image.transpose(2, 0, 1))
    back = np.zeros((40, 50, 3), np.float32)
    run(Expression(("float32",), (), (0,)), [planes.transpose(1, 2, 0)], [back])
    np.testing.assert_array_equal(back, image)


def test_several_results() -> None:
    x = numbers(33, 9)
    one, two = np.zeros_like(x), np.zeros((33, 9), np.int32)
    body = (Instruction("exp", (0,), "float32"), Instruction("cast", (0,), "int32"))
    run(Expression(("float32",), body, (1, 2)), [x / 50], [one, two])
    np.testing.assert_allclose(one, np.exp(x / 50), rtol=1e-6)
    np.testing.assert_array_equal(two, (x / 50).astype(np.int32))
    assert name_of(two.dtype) == "int32"
