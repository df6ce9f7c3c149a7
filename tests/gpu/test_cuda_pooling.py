"""Pooling as CUDA C against the NumPy kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from .graphs import check
from .simulating import WAYS, Array

RANDOM = np.random.default_rng(11)


def array(*shape: int, dtype: Any = np.float32) -> Array:
    return (RANDOM.standard_normal(shape) * 50).astype(dtype)


def attributes_of(**given: Any) -> str:
    return ", ".join(
        f"{name} = {value if isinstance(value, (int, list)) else repr(value)}" for name, value in given.items()
    )


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_windows(data: st.DataObject) -> None:
    rank = data.draw(st.integers(1, 3))

    def some(*choices: int) -> list[int]:
        return data.draw(st.lists(st.sampled_from(choices), min_size=rank, max_size=rank))

    kernel, strides, dilations = some(1, 2, 3), some(1, 2, 3), some(1, 1, 2)
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    pads = [data.draw(st.integers(0, r - 1)) for r in (*reach, *reach)]
    sizes = some(5, 6, 9)
    assume(all(n + low + high >= r for n, low, high, r in zip(sizes, pads[:rank], pads[rank:], reach, strict=True)))
    ceil = data.draw(st.integers(0, 1))
    given_ = attributes_of(kernel_shape=kernel, strides=strides, dilations=dilations, pads=pads, ceil_mode=ceil)
    x, way = {"x": array(2, 3, *sizes)}, data.draw(st.sampled_from(WAYS))
    if data.draw(st.booleans()):
        order = data.draw(st.integers(0, 1))
        check(
            f"(float y, int64 i) {{ y, i = MaxPool <{given_}, storage_order = {order}> (x) }}", x, opset=12, ways=[way]
        )
    else:
        include = data.draw(st.integers(0, 1))
        check(f"(float y) {{ y = AveragePool <{given_}, count_include_pad = {include}> (x) }}", x, ways=[way])


@pytest.mark.parametrize("dtype", ["float16", "float64", "int8", "uint8"])
def test_other_types(dtype: str) -> None:
    name = {"float64": "double"}.get(dtype, dtype)
    x = {"x": array(2, 3, 8, 9, dtype=dtype)}
    check(f"({name} y) {{ y = MaxPool <kernel_shape = [3, 2], strides = [2, 2]> (x) }}", x)
    if dtype.startswith("float"):
        check(f"({name} y) {{ y = AveragePool <kernel_shape = [3, 2]> (x) }}", x, rtol=2e-3)


def test_largest_of_what_is_no_number() -> None:
    x = array(1, 2, 6, 6)
    x[0, 0, 2, 3] = np.nan
    x[0, 1] = -np.inf
    check("(float y, int64 i) { y, i = MaxPool <kernel_shape = [2, 2]> (x) }", {"x": x})


@pytest.mark.parametrize("op", ["GlobalAveragePool", "GlobalMaxPool"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_of_all_pixels(op: str, dtype: str) -> None:
    name = {"float32": "float"}.get(dtype, dtype)
    check(f"({name} y) {{ y = {op} (x) }}", {"x": array(2, 5, 7, 9, dtype=dtype)}, rtol=2e-3, atol=1e-3)
