"""Quantization and reductions in two steps as CUDA C against the NumPy kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from .graphs import check
from .simulating import WAYS, Array

RANDOM = np.random.default_rng(23)
_NAMES = {"float32": "float", "float64": "double"}


def array(*shape: int, dtype: Any = np.float32) -> Array:
    return (RANDOM.standard_normal(shape) * 9).astype(dtype)


#: shape of the scale, axis, block_size
_GRANULAR = [((), 1, 0), ((6,), 1, 0), ((4,), 0, 0), ((4, 3), 1, 2), ((2, 6), 0, 2)]


@pytest.mark.parametrize(
    ("narrow", "real"), [("int8", "float16"), ("uint8", "float32"), ("int16", "float32"), ("uint16", "float16")]
)
@pytest.mark.parametrize(("shape", "axis", "block"), _GRANULAR)
def test_quantize_and_dequantize(shape: tuple[int, ...], axis: int, block: int, narrow: str, real: str) -> None:
    limits, name = np.iinfo(narrow), _NAMES.get(real, real)
    scale = RANDOM.uniform(0.1, 0.4, shape).astype(real)
    zero = RANDOM.integers(max(limits.min, -20), 20, shape).astype(narrow)
    attributes = f"axis = {axis}, block_size = {block}"
    x = array(4, 6, dtype=real)
    x[0, :3] = 1e4, -1e4, 0.5
    feeds = {"x": x, "s": scale, "z": zero}
    check(f"({narrow} y) {{ y = QuantizeLinear <{attributes}> (x, s, z) }}", feeds, ways=WAYS[1:2])
    feeds["x"] = RANDOM.integers(limits.min, limits.max, (4, 6), endpoint=True).astype(narrow)
    check(f"({name} y) {{ y = DequantizeLinear <{attributes}> (x, s, z) }}", feeds, ways=WAYS[1:2])


@pytest.mark.parametrize("size", [7, 1 << 16])
@pytest.mark.parametrize("kind", ["mixed", "positive", "zero"])
def test_dynamic_quantization(kind: str, size: int) -> None:
    x = array(size)
    x = np.abs(x) if kind == "positive" else x * 0 if kind == "zero" else x
    text = "(uint8 y, float s, uint8 z) { y, s, z = DynamicQuantizeLinear (x) }"
    operations = check(text, {"x": x}, ways=WAYS[1:2])
    assert [operation.kind for operation in operations] == ["rows"] * (2 if size > 7 else 1) + ["map", "map"]


@pytest.mark.parametrize("op", ["Sum", "Mean", "Max", "Min", "Prod", "L1", "L2", "SumSquare", "LogSum"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "int64"])
def test_few_long_rows_are_reduced_in_two_steps(dtype: str, op: str) -> None:
    if dtype == "int64" and op in ("Mean", "L2", "LogSum"):
        return
    x = np.abs(array(3, 1 << 15)) if op == "LogSum" else RANDOM.uniform(-1, 1, (3, 1 << 15))
    x = (1 + x * 1e-5 if op == "Prod" else x / 32 if dtype == "float16" else x * 9).astype(dtype)
    name = _NAMES.get(dtype, dtype)
    text = f"({name} y) <int64[1] a = {{1}}> {{ y = Reduce{op} <keepdims = 0> (x, a) }}"
    tolerance = 1e-2 if dtype == "float16" else 1e-3
    check(text, {"x": x}, kinds=["rows", "rows"], ways=WAYS[1:2], rtol=tolerance, atol=tolerance * 10)
