"""MatMulNBits against onnxruntime."""

from __future__ import annotations

import numpy as np
import pytest

from .oracle import against_onnxruntime


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize(("k", "block_size"), [(64, 16), (64, 32), (80, 32), (128, 128)])
@pytest.mark.parametrize("zeros", ["none", "packed", "float"])
@pytest.mark.parametrize("extra", ["", "bias"])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_against_onnxruntime(bits: int, k: int, block_size: int, zeros: str, extra: str, dtype: type) -> None:
    if bits == 8 and zeros == "float":
        pytest.skip("onnxruntime's CPU kernel refuses floating-point zero points of 8 bits")
    rng = np.random.default_rng(0)
    n = 24
    blocks = -(-k // block_size)
    a = rng.standard_normal((2, 3, k)).astype(dtype)
    b = rng.integers(0, 256, (n, blocks, block_size * bits // 8), dtype=np.uint8)
    scales = (rng.random((n, blocks)) / 8).astype(dtype)
    zero_points = None
    if zeros == "packed":
        zero_points = rng.integers(0, 256, (n, -(-blocks * bits // 8)), dtype=np.uint8)
    elif zeros == "float":
        zero_points = (rng.random((n, blocks)) * 4).astype(dtype)
    bias = rng.standard_normal(n).astype(dtype) if extra else None
    inputs = [a, b, scales, zero_points, None, bias]
    while inputs[-1] is None:
        inputs.pop()
    attributes = {"K": k, "N": n, "bits": bits, "block_size": block_size}
    tolerances = {"rtol": 2e-2, "atol": 1e-1} if dtype is np.float16 else {"rtol": 1e-4, "atol": 1e-4}
    against_onnxruntime("MatMulNBits", inputs, attributes, constant=[1, 2, 3, 5], **tolerances)


def test_columns_in_another_order() -> None:
    rng = np.random.default_rng(1)
    n, k, block_size = 8, 64, 16
    a = rng.standard_normal((3, k)).astype(np.float32)
    b = rng.integers(0, 256, (n, 4, 8), dtype=np.uint8)
    scales = rng.random((n, 4)).astype(np.float32)
    g_idx = rng.permutation(np.repeat(np.arange(4, dtype=np.int32), block_size))
    inputs = [a, b, scales, None, g_idx]
    attributes = {"K": k, "N": n, "bits": 4, "block_size": block_size}
    against_onnxruntime("MatMulNBits", inputs, attributes, constant=[1, 2, 4])
