"""MatMulNBits, compiled, against the NumPy kernel."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import helper

from distort.kernels.compiler.library import Library
from tests.compiler.comparing import agree, both, object_for

K, N = 256, 70


def weights_of(bits: int, block: int) -> dict[str, np.ndarray[Any, Any]]:
    rng = np.random.default_rng(bits * block)
    blocks = K // block
    return {
        "b": rng.integers(0, 256, (N, blocks, block * bits // 8)).astype(np.uint8),
        "s": rng.uniform(0.01, 0.05, N * blocks).astype(np.float32),
        "z": rng.integers(0, 256, N * -(-blocks * bits // 8)).astype(np.uint8),
        "bias": rng.standard_normal(N).astype(np.float32),
    }


def node_of(bits: int, block: int, zero: str, bias: str = "bias", accuracy_level: int = 0) -> Any:
    inputs = ["a", "b", "s", zero, "", bias]
    sizes = {"K": K, "N": N, "bits": bits, "block_size": block, "accuracy_level": accuracy_level}
    return helper.make_node("MatMulNBits", inputs, ["y"], domain="com.microsoft", **sizes)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("block", [16, 32, 128])
@pytest.mark.parametrize("zero", ["", "z"])
def test_products(library: Library, bits: int, block: int, zero: str) -> None:
    weights = weights_of(bits, block)
    for shape in ((1,), (2,), (4,), (2, 2), (23,)):
        a = np.random.default_rng(0).standard_normal((*shape, K)).astype(np.float32)
        results, expected, kinds = both([node_of(bits, block, zero)], {"a": a}, weights, library=library)
        n_rows = int(np.prod(shape))
        assert kinds == (["nbits"] if n_rows <= (4 if bits == 4 else 2) else ["product"])
        agree(results, expected, 1e-4, 5e-4)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("block", [16, 128])
@pytest.mark.parametrize("zero", ["", "z"])
@pytest.mark.parametrize("level", [2, 4])
def test_a_row_in_bytes(library: Library, bits: int, block: int, zero: str, level: int) -> None:
    node, weights = node_of(bits, block, zero, accuracy_level=level), weights_of(bits, block)
    a = np.random.default_rng(1).standard_normal((1, K)).astype(np.float32)
    a[0, :block] = 0
    results, expected, _ = both([node], {"a": a}, weights, library=library)
    np.testing.assert_allclose(results[0], expected[0], 0, 3e-4 * float(np.std(expected[0])))
    again, _, _ = both([node], {"a": a}, weights, library=library, n_threads=2)
    np.testing.assert_array_equal(again[0], results[0])


@pytest.mark.parametrize("number", [np.nan, np.inf, 3e38, 1e-38])
def test_a_row_of_odd_numbers(number: float) -> None:
    a = np.ones((1, K), np.float32)
    a[0, 5] = number
    results, expected, _ = both([node_of(4, 32, "", accuracy_level=4)], {"a": a}, weights_of(4, 32))
    assert not np.isfinite(results[0][~np.isfinite(expected[0])]).any()
    finite = np.isfinite(expected[0])
    size = float(np.abs(expected[0][finite]).max(initial=0))  # what is small beside a block's largest is lost
    np.testing.assert_allclose(results[0][finite], expected[0][finite], 0, 1e-4 * size)


def test_kernels_for_arm() -> None:
    a = {"a": np.zeros((3, K), np.float32)}
    code, families = object_for(
        "aarch64-unknown-linux-gnu", {"neon": True}, [node_of(4, 32, "z")], a, weights_of(4, 32)
    )
    assert code and "nbits" in families
    one = {"a": np.zeros((1, K), np.float32)}
    features = {"neon": True, "dotprod": True}
    node = node_of(4, 32, "z", accuracy_level=4)
    code, families = object_for("aarch64-unknown-linux-gnu", features, [node], one, weights_of(4, 32))
    assert code and "nbits_bytes" in families
