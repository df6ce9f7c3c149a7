"""Weights quantized by blocks: as onnxruntime's functions do it, byte for byte from float32."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from distort.capi import onnxruntime_pybind11_state as ours

DTYPES = (np.float32, np.float16)


@pytest.fixture(scope="module")
def theirs() -> Any:
    pytest.importorskip("onnxruntime", reason="optional oracle")
    from onnxruntime.capi import onnxruntime_pybind11_state

    return onnxruntime_pybind11_state


def _check(mine: np.ndarray, other: np.ndarray, dtype: type, where: object) -> None:
    """Equal bytes. Of half floats many lie between two codes, and a fused product and sum may tip one over."""
    allowed = 1e-3 * mine.size + 1 if dtype is np.float16 and mine.dtype == np.uint8 else 0
    assert (mine.dtype, mine.shape) == (other.dtype, other.shape)
    assert (mine.view(np.uint8) != other.view(np.uint8)).sum() <= allowed, where


def _weight(k: int, n: int, dtype: type) -> np.ndarray:
    """Columns of both signs, of one sign, of zeros, and of a single value."""
    weight = np.random.default_rng(k * n).normal(size=(k, n))
    if n >= 4:
        weight[:, 0] = np.abs(weight[:, 0])
        weight[:, 1] = -np.abs(weight[:, 1])
        weight[:, 2] = 0
        weight[:, 3] = 0.25
    return weight.astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_for_matmul_nbits(theirs: Any, bits: int, symmetric: bool, dtype: type) -> None:
    name = f"quantize_matmul_{bits}bits"
    for block_size in (16, 32, 64, 128, 256):
        for k, n in ((block_size, 1), (4 * block_size, 5), (100, 7), (36, 8)):  # whole bytes: others hold junk
            weight = _weight(k, n, dtype)
            n_blocks = -(-k // block_size)
            padded = np.pad(weight, ((0, n_blocks * block_size - k), (0, 0)))
            results = []
            for module, source in ((ours, weight), (theirs, padded)):
                codes = np.zeros((n, n_blocks, block_size * bits // 8), np.uint8)
                scales = np.zeros((n, n_blocks), dtype)
                zeros = np.zeros((n, -(-n_blocks * bits // 8)), np.uint8)
                getattr(module, name)(codes, source, scales, zeros, block_size, n, k, symmetric)
                results.append((codes, scales, zeros))
            for mine, other in zip(*results, strict=True):
                _check(mine, other, dtype, (block_size, k, n))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("symmetric", [False, True])
def test_for_dequantize_linear(theirs: Any, symmetric: bool, dtype: type) -> None:
    for block_size, k, n in ((16, 64, 6), (32, 100, 4), (32, 33, 8), (16, 17, 4), (64, 64, 2)):
        weight = _weight(k, n, dtype)
        n_blocks = -(-k // block_size)
        results = []
        for module in (ours, theirs):
            codes = np.zeros(-(-k * n // 2), np.uint8)
            scales = np.zeros((n_blocks, n), dtype)
            zeros = np.zeros(-(-n_blocks * n // 2), np.uint8)
            signed = module.quantize_qdq_matmul_4bits(codes, weight, scales, zeros, block_size, n, k, symmetric)
            assert signed is symmetric
            results.append((codes, scales, zeros))
        for mine, other in zip(*results, strict=True):
            _check(mine, other, dtype, (block_size, k, n))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", [0, 1])
def test_for_matmul_bnb4(theirs: Any, kind: int, dtype: type) -> None:
    for n, k, block_size in ((3, 10, 16), (64, 64, 64), (7, 33, 32), (60, 100, 256), (1, 128, 128)):
        weight = np.random.default_rng(n).normal(size=(n, k)).astype(dtype)
        weight[0, : min(k, 16)] = 0
        results = []
        for module in (ours, theirs):
            codes, magnitudes = np.zeros(-(-n * k // 2), np.uint8), np.zeros(-(-n * k // block_size), dtype)
            module.quantize_matmul_bnb4(codes, weight, magnitudes, block_size, kind, n, k)
            results.append((codes, magnitudes))
        for mine, other in zip(*results, strict=True):
            _check(mine, other, dtype, (n, k, block_size))


def test_for_cuda(theirs: Any) -> None:
    weights = np.random.default_rng(0).integers(0, 256, (6, 4)).astype(np.uint8)
    mine = ours.pack_fp4_weights_for_cuda_moe_gemm(weights, 6, 8)
    other = theirs.pack_fp4_weights_for_cuda_moe_gemm(weights, 6, 8)
    assert (mine.shape, mine.tobytes()) == (other.shape, other.tobytes())
