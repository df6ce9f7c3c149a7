"""onnxruntime's fused products: FusedMatMul, FusedGemm, MatMulNBits and the Gelu family."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import distort.kernels.ops  # noqa: F401  # fills the registry
from distort.kernels.errors import InvalidInput
from distort.kernels.registry import find

RNG = np.random.default_rng(9)


def call(op_type: str, *inputs: Any, **attributes: Any) -> Any:
    entry = find("com.microsoft", op_type, 1)
    assert entry is not None
    return entry.function(np, *inputs, **attributes)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_fused_matmul(dtype: Any) -> None:
    a, b = RNG.normal(size=(2, 3, 4)).astype(dtype), RNG.normal(size=(2, 4, 5)).astype(dtype)
    want = 0.5 * (a.astype(np.float64) @ b.astype(np.float64))
    turned = a.swapaxes(1, 2), b.swapaxes(1, 2)
    batch_inside = a.swapaxes(0, 1), b.swapaxes(0, 1)
    for got in (
        call("FusedMatMul", a, b, alpha=0.5),
        call("FusedMatMul", *turned, alpha=0.5, transA=1, transB=1),
        call("FusedMatMul", *batch_inside, alpha=0.5, transBatchA=1, transBatchB=1),
        call("FusedMatMul", a.transpose(2, 0, 1), b, alpha=0.5, transBatchA=1, transA=1),
    ):
        assert got.dtype == dtype
        np.testing.assert_allclose(got, want, rtol=2e-3 if dtype == np.float16 else 1e-5, atol=1e-3)


def test_fused_gemm() -> None:
    a, b, c = RNG.normal(size=(2, 3)), RNG.normal(size=(3, 4)), RNG.normal(size=4)
    y = a @ b * 2 + c
    np.testing.assert_allclose(call("FusedGemm", a, b, c, alpha=2.0, activation="Relu"), np.maximum(y, 0), rtol=1e-12)
    leaky = call("FusedGemm", a, b, c, alpha=2.0, activation="LeakyRelu", activation_alpha=0.3)
    np.testing.assert_allclose(leaky, np.where(y > 0, y, 0.3 * y), rtol=1e-12)
    np.testing.assert_allclose(call("FusedGemm", a, b, c, alpha=2.0), y, rtol=1e-12)
    with pytest.raises(InvalidInput, match="unknown activation"):
        call("FusedGemm", a, b, c, activation="Blur")


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("zero", [None, "packed", "float"])
@pytest.mark.parametrize("indexed", [False, True])
@pytest.mark.parametrize("chunk", [None, 100])
def test_matmul_n_bits(
    bits: int, zero: str | None, indexed: bool, chunk: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if chunk:
        monkeypatch.setattr("distort.kernels.ops.contrib_matmul._UNPACKED", chunk)
    k, n, block = 40, 5, 16
    blocks, each = 3, 8 // bits
    q = RNG.integers(0, 1 << bits, (n, blocks * block), np.uint8)
    packed = sum(q[:, i::each].astype(np.uint16) << (bits * i) for i in range(each)).astype(np.uint8)
    scales = RNG.uniform(0.1, 1, (n, blocks)).astype(np.float32)
    index = RNG.integers(0, blocks, k, np.int32) if indexed else np.arange(k) // block
    zeros = np.full((n, blocks), 1 << (bits - 1), np.float32)
    given = None
    if zero == "packed":
        points = RNG.integers(0, 1 << bits, (n, -(-blocks // each) * each), np.uint8)
        zeros = points[:, :blocks].astype(np.float32)
        given = sum(points[:, i::each].astype(np.uint16) << (bits * i) for i in range(each)).astype(np.uint8)
    elif zero == "float":
        zeros = given = RNG.uniform(0, 3, (n, blocks)).astype(np.float32)
    w = (q[:, :k] - zeros[:, index]) * scales[:, index]
    a, bias = RNG.normal(size=(2, 3, k)).astype(np.float32), RNG.normal(size=n).astype(np.float32)
    y = call(
        "MatMulNBits",
        *(a, packed.reshape(n, blocks, -1), scales.reshape(-1), None if given is None else given.reshape(-1)),
        *(index if indexed else None, bias),
        K=k,
        N=n,
        bits=bits,
        block_size=block,
    )
    np.testing.assert_allclose(y, a @ w.T + bias, rtol=1e-4, atol=1e-3)


def test_matmul_n_bits_of_the_wrong_size() -> None:
    a, b, scales = np.zeros((1, 32), np.float32), np.zeros((2, 2, 8), np.uint8), np.ones(4, np.float32)
    with pytest.raises(InvalidInput, match="MatMulNBits of"):
        call("MatMulNBits", a, b, scales, K=32, N=3, block_size=16)
    with pytest.raises(InvalidInput, match="bits"):
        call("MatMulNBits", a, b, scales, K=32, N=2, block_size=16, bits=3)


def test_gelu_family() -> None:
    x, bias = RNG.normal(size=(3, 4)), RNG.normal(size=4)
    exact = np.vectorize(lambda v: 0.5 * v * (1 + math.erf(v / math.sqrt(2))))
    by_tanh = np.vectorize(lambda v: 0.5 * v * (1 + math.tanh(math.sqrt(2 / math.pi) * (v + 0.044715 * v**3))))
    np.testing.assert_allclose(call("Gelu", x), exact(x), atol=1e-12)
    np.testing.assert_allclose(call("BiasGelu", x, bias), exact(x + bias), atol=1e-12)
    np.testing.assert_allclose(call("FastGelu", x), by_tanh(x), atol=1e-12)
    np.testing.assert_allclose(call("FastGelu", x, bias), by_tanh(x + bias), atol=1e-12)
    np.testing.assert_allclose(call("QuickGelu", x, alpha=1.5), x / (1 + np.exp(-1.5 * x)), atol=1e-12)
    with pytest.raises(InvalidInput, match="bias"):
        call("BiasGelu", x, bias[:3])
