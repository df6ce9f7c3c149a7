"""Weights quantized by blocks, and read again by the operators that they are for."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import distort
from distort.capi import onnxruntime_pybind11_state as C

K, N = 64, 6
WEIGHT = np.random.default_rng(0).normal(size=(K, N)).astype(np.float32)


def _product(op_type: str, weights: dict[str, np.ndarray], **attributes: int) -> np.ndarray:
    """The operator over an identity matrix: the weight [K, N] as it is read again."""
    node = helper.make_node(op_type, ["x", *weights], ["y"], domain="com.microsoft", K=K, N=N, **attributes)
    info = helper.make_tensor_value_info
    initializers = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph([node], "g", [info("x", 1, [K, K])], [info("y", 1, [K, N])], initializers)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    return distort.InferenceSession(model.SerializeToString()).run(None, {"x": np.eye(K, dtype=np.float32)})[0]


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_matmul_nbits_reads_them(bits: int, symmetric: bool) -> None:
    block_size = 16
    n_blocks = K // block_size
    codes = np.zeros((N, n_blocks, block_size * bits // 8), np.uint8)
    scales = np.zeros((N, n_blocks), np.float32)
    zeros = np.zeros((N, -(-n_blocks * bits // 8)), np.uint8)
    getattr(C, f"quantize_matmul_{bits}bits")(codes, WEIGHT, scales, zeros, block_size, N, K, symmetric)
    weights = {"b": codes, "scales": scales.reshape(-1)} | ({} if symmetric else {"zeros": zeros.reshape(-1)})
    read = _product("MatMulNBits", weights, bits=bits, block_size=block_size)
    # what lies beyond the last code of a symmetric block is a whole step away
    step = np.abs(np.repeat(scales.T, block_size, axis=0)) * (1.001 if symmetric else 0.501)
    assert (np.abs(read - WEIGHT) <= step).all()


@pytest.mark.parametrize("kind", [0, 1])
def test_matmul_bnb4_reads_them(kind: int) -> None:
    codes, magnitudes = np.zeros(K * N // 2, np.uint8), np.zeros(K * N // 16, np.float32)
    C.quantize_matmul_bnb4(codes, WEIGHT.T.copy(), magnitudes, 16, kind, N, K)
    read = _product("MatMulBnb4", {"b": codes, "absmax": magnitudes}, block_size=16, quant_type=kind)
    assert np.abs(read - WEIGHT).max() <= 0.17 * magnitudes.max()


@pytest.mark.parametrize("symmetric", [False, True])
def test_dequantize_linear_reads_them(symmetric: bool) -> None:
    codes = np.zeros(K * N // 2, np.uint8)
    scales = np.zeros((K // 16, N), np.float32)
    zeros = np.zeros(K // 16 * N // 2, np.uint8)
    assert C.quantize_qdq_matmul_4bits(codes, WEIGHT, scales, zeros, 16, N, K, symmetric) is symmetric
    element = TensorProto.INT4 if symmetric else TensorProto.UINT4
    initializers = [
        helper.make_tensor("w", element, [K, N], codes.tobytes(), raw=True),
        numpy_helper.from_array(scales, "s"),
        helper.make_tensor("z", element, [K // 16, N], zeros.tobytes(), raw=True),
    ]
    inputs = ["w", "s"] if symmetric else ["w", "s", "z"]
    node = helper.make_node("DequantizeLinear", inputs, ["y"], axis=0, block_size=16)
    graph = helper.make_graph([node], "g", [], [helper.make_tensor_value_info("y", 1, [K, N])], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    (read,) = distort.InferenceSession(model.SerializeToString()).run(None, {})
    step = np.abs(np.repeat(scales, 16, axis=0)) * (1.001 if symmetric else 0.501)
    assert (np.abs(read - WEIGHT) <= step).all()


def test_what_does_not_fit() -> None:
    codes, scales, zeros = np.zeros((N, 4, 8), np.uint8), np.zeros((N, 4), np.float32), np.zeros((N, 2), np.uint8)
    for arguments in (
        ("a", WEIGHT, scales, zeros, 16, N, K, False),
        (codes.astype(np.int8), WEIGHT, scales, zeros, 16, N, K, False),
        (codes, WEIGHT.astype(np.float64), scales, zeros, 16, N, K, False),
        (codes, WEIGHT, scales.astype(np.float16), zeros, 16, N, K, False),
        (codes, WEIGHT, scales, zeros, "16", N, K, False),
    ):
        with pytest.raises(TypeError, match="incompatible function arguments"):
            C.quantize_matmul_4bits(*arguments)
    frozen = codes.copy()
    frozen.flags.writeable = False
    for arguments, text in (
        ((codes[:, :3], WEIGHT, scales, zeros, 16, N, K, False), "contiguous"),
        ((frozen, WEIGHT, scales, zeros, 16, N, K, False), "writeable"),
        ((codes, WEIGHT, scales, zeros, 17, N, K, False), "block sizes 16, 32"),
        ((codes, WEIGHT, scales, zeros, 16, N, K + 1, False), r"shape \[64, 6\], and K 65"),
        ((codes, WEIGHT, scales[:3].copy(), zeros, 16, N, K, False), "scales has 12 elements, and 24"),
        ((codes, WEIGHT, scales, zeros[:1].copy(), 16, N, K, False), "zero points has 2 elements, and 12"),
    ):
        with pytest.raises(RuntimeError, match=text):
            C.quantize_matmul_4bits(*arguments)
    assert not codes.any()
    with pytest.raises(RuntimeError, match="0 \\(FP4\\) and 1 \\(NF4\\), not 2"):
        C.quantize_matmul_bnb4(codes, WEIGHT, scales, 16, 2, N, K)
    with pytest.raises(RuntimeError, match="both even"):
        C.pack_fp4_weights_for_cuda_moe_gemm(codes, 3, 8)
