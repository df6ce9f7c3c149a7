"""MatMulNBits against onnxruntime."""

from __future__ import annotations

import numpy as np
import pytest

from .oracle import against_onnxruntime


@pytest.mark.parametrize("block_size", [16, 32])
def test_four_bits(block_size: int) -> None:
    rng = np.random.default_rng(0)
    n, k = 24, 64
    blocks = k // block_size
    a = rng.standard_normal((3, k)).astype(np.float32)
    b = rng.integers(0, 256, (n, blocks, block_size // 2), dtype=np.uint8)
    scales = rng.random((n, blocks)).astype(np.float32)
    against_onnxruntime("MatMulNBits", [a, b, scales], {"K": k, "N": n, "bits": 4, "block_size": block_size})
