"""onnxruntime's fused products and activations: FusedMatMul, FusedGemm, MatMulNBits, Gelu and its kin."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from distort.kernels.errors import InvalidInput
from distort.kernels.ops.activations import gelu
from distort.kernels.ops.matmul import gemm_body, is_narrow, matmul, product
from distort.kernels.ops.recurrent_parts import activations_of
from distort.kernels.registry import kernel

Array = Any
_MS = "com.microsoft"
# weights that MatMulNBits unpacks at a time
_UNPACKED = 1 << 22


def _turned(xp: ModuleType, a: Array, trans: int, trans_batch: int) -> Array:
    if trans_batch and a.ndim > 2:
        a = xp.moveaxis(a, 0, -2)
    return a.swapaxes(-1, -2) if trans and a.ndim > 1 else a


@kernel("FusedMatMul", domain=_MS)
@kernel("TransposeMatMul", domain=_MS)
def fused_matmul(
    xp: ModuleType,
    a: Array,
    b: Array,
    *,
    alpha: float = 1.0,
    transA: int = 0,
    transB: int = 0,
    transBatchA: int = 0,
    transBatchB: int = 0,
) -> Array:
    """com.microsoft FusedMatMul: alpha * a' @ b'. transBatch moves the first axis before the last one."""
    a, b = _turned(xp, a, transA, transBatchA), _turned(xp, b, transB, transBatchB)
    if alpha == 1.0:
        return matmul(xp, a, b)
    if is_narrow(a.dtype):
        return (matmul(xp, a.astype(xp.float32), b.astype(xp.float32)) * xp.float32(alpha)).astype(a.dtype)
    return xp.asarray(matmul(xp, a, b) * a.dtype.type(alpha))


@kernel("FusedGemm", domain=_MS)
def fused_gemm(
    xp: ModuleType,
    a: Array,
    b: Array,
    c: Array | None = None,
    *,
    activation: str = "",
    activation_alpha: float | None = None,
    activation_beta: float | None = None,
    activation_gamma: float | None = None,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,
    transB: int = 0,
) -> Array:
    """com.microsoft FusedGemm: Gemm with an activation."""
    y = gemm_body(xp, a, b, c, alpha, beta, transA, transB)
    if activation:
        alphas, betas = ([] if value is None else [value] for value in (activation_alpha, activation_beta))
        activations_of([activation], alphas, betas, 1)[0](xp, y)
    return y


def unpacked(xp: ModuleType, packed: Array, bits: int) -> Array:
    """uint8 [..., bytes] -> uint8 [..., bytes * 8 / bits], the lowest bits first."""
    if bits == 8:
        return packed
    shifts = xp.arange(0, 8, bits, dtype=xp.uint8)
    values = (packed[..., None] >> shifts) & xp.uint8((1 << bits) - 1)
    return values.reshape(*packed.shape[:-1], packed.shape[-1] * len(shifts))


@kernel("MatMulNBits", domain=_MS)
def matmul_n_bits(
    xp: ModuleType,
    a: Array,
    b: Array,
    scales: Array,
    zero_points: Array | None = None,
    g_idx: Array | None = None,
    bias: Array | None = None,
    *,
    K: int,
    N: int,
    accuracy_level: int = 0,
    bits: int = 4,
    block_size: int,
) -> Array:
    """com.microsoft MatMulNBits: a [..., K] @ w.T, where w [N, K] is quantized in blocks along K.

    b: uint8 [N, blocks, bytes of a block]; scales: [N * blocks]; zero_points: packed like b, or as floats, default is
    the middle of the range; g_idx: [K], the block whose scale a column has.
    """
    if bits not in (2, 4, 8) or block_size < 16 or block_size & (block_size - 1):
        raise InvalidInput(f"MatMulNBits with {bits} bits in blocks of {block_size}")
    blocks = -(-K // block_size)
    if a.shape[-1] != K or b.size != N * blocks * (block_size * bits // 8) or scales.size != N * blocks:
        raise InvalidInput(
            f"MatMulNBits of {list(a.shape)} with weights of {b.size} bytes and {scales.size} scales for "
            f"K {K}, N {N}, {bits} bits, blocks of {block_size}"
        )
    if bias is not None and bias.shape != (N,):
        raise InvalidInput(f"bias of shape {list(bias.shape)} for {N} columns")
    compute = xp.float32 if is_narrow(a.dtype) else a.dtype
    scales = scales.reshape(N, blocks).astype(compute, copy=False)
    if zero_points is None:
        zeros = xp.full((1, 1), 1 << (bits - 1), compute)
    elif zero_points.dtype == xp.uint8:
        zeros = unpacked(xp, zero_points.reshape(N, -1), bits)[:, :blocks].astype(compute)
    else:
        zeros = zero_points.reshape(N, blocks).astype(compute, copy=False)
    if g_idx is not None:
        g_idx = g_idx[:K]
        if K and (int(g_idx.min()) < 0 or int(g_idx.max()) >= blocks):
            raise InvalidInput(f"g_idx names blocks beyond {blocks}")
    packed = b.reshape(N, -1)
    wide = a.astype(compute, copy=False)
    y = xp.empty((*a.shape[:-1], N), compute)
    rows = max(1, _UNPACKED // max(1, K))
    for start in range(0, N, rows):
        part = slice(start, start + rows)
        w = unpacked(xp, packed[part], bits).astype(compute)  # [rows, blocks * block_size]
        zero = zeros[part] if len(zeros) > 1 else zeros
        if g_idx is None:
            w = w.reshape(len(w), blocks, block_size)
            w -= zero[:, :, None]
            w *= scales[part, :, None]
            w = w.reshape(len(w), blocks * block_size)[:, :K]
        else:
            w = w[:, :K] - (zero[:, g_idx] if zero.shape[1] > 1 else zero)
            w *= scales[part][:, g_idx]
        y[..., part] = product(xp, wide, w.T)
    if bias is not None:
        y += bias
    return y.astype(a.dtype, copy=False)


@kernel("Gelu", domain=_MS)
def gelu_ms(xp: ModuleType, x: Array) -> Array:
    """com.microsoft Gelu: the exact form."""
    return gelu(xp, x)


def _biased(xp: ModuleType, x: Array, bias: Array | None) -> Array:
    if bias is None:
        return x
    if bias.shape != x.shape[-1:]:
        raise InvalidInput(f"bias of shape {list(bias.shape)} for an input of shape {list(x.shape)}")
    return x + bias


@kernel("BiasGelu", domain=_MS)
def bias_gelu(xp: ModuleType, x: Array, bias: Array) -> Array:
    """com.microsoft BiasGelu: Gelu of x + bias. bias: [C], the last axis of x."""
    return gelu(xp, _biased(xp, x, bias))


@kernel("FastGelu", domain=_MS)
def fast_gelu(xp: ModuleType, x: Array, bias: Array | None = None) -> Array:
    """com.microsoft FastGelu: the tanh form, of x + bias."""
    return gelu(xp, _biased(xp, x, bias), approximate="tanh")


@kernel("QuickGelu", domain=_MS)
def quick_gelu(xp: ModuleType, x: Array, *, alpha: float = 1.702) -> Array:
    """com.microsoft QuickGelu: x * sigmoid(alpha * x)."""
    wide = x.astype(xp.float32) if is_narrow(x.dtype) else x
    half = xp.tanh(wide * wide.dtype.type(alpha / 2))
    return (wide * (half + 1) * wide.dtype.type(0.5)).astype(x.dtype, copy=False)
