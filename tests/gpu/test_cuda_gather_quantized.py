"""Rows of packed tables as CUDA C against the NumPy kernels."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from .graphs import check
from .simulating import WAYS

RANDOM = np.random.default_rng(53)


@pytest.mark.parametrize("has_zeros", [False, True])
@pytest.mark.parametrize("real", ["float32", "float16"])
@pytest.mark.parametrize(("dtype", "bits"), [("uint8", 4), ("uint8", 8), ("int4", 4), ("uint4", 4)])
def test_rows_of_packed_tables(dtype: str, bits: int, real: str, has_zeros: bool) -> None:
    n_rows, length, block = 7, 96, 32
    per_byte = 8 // bits if dtype == "uint8" else 1

    def codes(width: int) -> np.ndarray:
        if dtype == "uint8":
            return RANDOM.integers(0, 256, (n_rows, -(-width // per_byte)), np.uint8)
        return RANDOM.integers(0, 8, (n_rows, width)).astype(getattr(ml_dtypes, dtype))

    feeds = {"d": codes(length), "i": np.array([[3, 0], [-1, 6]])}
    feeds["s"] = RANDOM.uniform(0.1, 0.4, (n_rows, length // block)).astype(real)
    if has_zeros:
        feeds["z"] = codes(length // block)
    name = {"float32": "float"}.get(real, real)
    attributes = f"bits = {bits}, block_size = {block}, gather_axis = 0, quantize_axis = 1"
    op = f"com.microsoft.GatherBlockQuantized <{attributes}> (d, i, s{', z' if has_zeros else ''})"
    operations = check(f"({name} y) {{ y = {op} }}", feeds, ways=WAYS[1:2], rtol=1e-3)
    assert "cuda_gather" in [operation.kind for operation in operations]
