"""Strides of reshapes, against numpy's."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from distort.kernels.compiler.ir import Buffer, Tensor
from distort.kernels.compiler.lower.views import strides_after


@st.composite
def _views(draw: st.DrawFn) -> tuple[np.ndarray, tuple[int, ...]]:
    """A view of an array, and a shape of as many elements."""
    sizes = draw(st.lists(st.integers(1, 4), max_size=4))
    array = np.arange(math.prod(sizes) * 2).reshape(*sizes, 2)
    view = array[..., 0] if draw(st.booleans()) else array
    view = view.transpose(draw(st.permutations(range(view.ndim))))
    if view.ndim and draw(st.booleans()):
        view = view[: draw(st.integers(0, view.shape[0]))]
    if draw(st.booleans()):
        view = np.broadcast_to(view, (3, *view.shape))
    factors = [p for size in view.shape for p in ([2, 2] if size == 4 else [size])]
    if 0 in factors:
        return view, (0, 3)
    shape: list[int] = draw(st.lists(st.just(1), max_size=2))
    for factor in factors:
        if shape and draw(st.booleans()):
            shape[-1] *= factor
        else:
            shape.append(factor)
        shape += draw(st.lists(st.just(1), max_size=1))
    return view, tuple(shape)


@given(_views())
def test_strides_after_are_those_of_numpy(case: tuple[np.ndarray, tuple[int, ...]]) -> None:
    view, shape = case
    strides = tuple(step // view.itemsize for step in view.strides)
    tensor = Tensor(view.dtype, view.shape, strides, Buffer(0))
    found = strides_after(tensor, shape)
    expected = view.reshape(shape)
    if found is None:
        assert not np.may_share_memory(view, expected)
        return
    seen = np.lib.stride_tricks.as_strided(view, shape, [step * view.itemsize for step in found])
    np.testing.assert_array_equal(seen, expected)


def test_no_strides_for_another_number_of_elements() -> None:
    tensor = Tensor(np.dtype(np.float32), (2, 3), (1, 2), Buffer(0))
    assert strides_after(tensor, (7,)) is None
