"""Resize as CUDA C against the NumPy kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from .graphs import check
from .simulating import WAYS, Array

RANDOM = np.random.default_rng(19)
_NAMES = {"float32": "float", "float64": "double"}


def array(*shape: int, dtype: Any = np.float32) -> Array:
    return (RANDOM.standard_normal(shape) * 9).astype(dtype)


def resize(x: Array, sizes: tuple[int, ...], attributes: str, **given: Any) -> None:
    name = _NAMES.get(x.dtype.name, x.dtype.name)
    listed = ", ".join(map(str, sizes))
    text = f"({name} y) <int64[{len(sizes)}] s = {{{listed}}}> {{ y = Resize <{attributes}> (x, , , s) }}"
    check(text, {"x": x}, ways=WAYS[:2], **given)


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize("coordinates", ["half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel"])
@pytest.mark.parametrize("sizes", [(2, 3, 10, 14), (2, 3, 3, 20), (2, 3, 5, 3), (4, 3, 5, 7)])
def test_images(sizes: tuple[int, ...], coordinates: str, mode: str) -> None:
    attributes = f'mode = "{mode}", coordinate_transformation_mode = "{coordinates}"'
    resize(array(2, 3, 5, 7), sizes, attributes, atol=1e-4)


@pytest.mark.parametrize("shape", [(9,), (2, 9), (1, 2, 4, 5, 6)])
@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_other_ranks(mode: str, shape: tuple[int, ...]) -> None:
    sizes = (*shape[:-1], 13) if len(shape) < 5 else (1, 2, 8, 3, 12)
    resize(array(*shape), sizes, f'mode = "{mode}"', atol=1e-4)


@pytest.mark.parametrize("dtype", ["float16", "float64", "int8", "uint8", "int32"])
def test_other_types(dtype: str) -> None:
    resize(array(1, 2, 6, 6, dtype=dtype), (1, 2, 12, 9), 'mode = "nearest"')
    if dtype.startswith("float"):
        resize(array(1, 2, 6, 6, dtype=dtype), (1, 2, 12, 9), 'mode = "linear"', rtol=3e-3, atol=2e-2)


def test_many_taps_go_axis_by_axis() -> None:
    x = array(1, 2, 40, 40)
    text = '(float y) <int64[4] s = {1, 2, 6, 5}> { y = Resize <mode = "linear", antialias = 1> (x, , , s) }'
    check(text, {"x": x}, kinds=["cuda_resize", "cuda_resize"], ways=WAYS[:2], atol=1e-4)


def test_a_view_is_read_where_it_lies() -> None:
    text = (
        "(float y) <float[4] s = {1.0, 1.0, 2.0, 2.0}> "
        "{ t = Transpose <perm = [0, 3, 1, 2]> (x) \n y = Resize (t, , s) }"
    )
    check(text, {"x": array(2, 4, 5, 3)}, kinds=["cuda_resize"], ways=WAYS[:2])
