"""Matrix products: MatMul, Gemm, and their fused forms."""

from __future__ import annotations

import numpy as np

from distort.graph.ir import Node
from distort.kernels.compiler.builder import Builder, lowers
from distort.kernels.compiler.codegen.gemm import CODES
from distort.kernels.compiler.expression import name_of
from distort.kernels.compiler.ir import Array, Tensor
from distort.kernels.compiler.products import DTYPES, multiply, multiply_codes

Result = list[Tensor | None] | None
_MICROSOFT = "com.microsoft"


def _product(b: Builder, left: Tensor, right: Tensor) -> Tensor | None:
    """By numpy's rules of matmul."""
    if not left.shape or not right.shape:
        return None
    left, right = b.plain(left), b.plain(right)
    rows, columns = len(left.shape) > 1, len(right.shape) > 1
    if not rows:
        left = _inserted(left, 0)
    if not columns:
        right = _inserted(right, 1)
    made = multiply(b, left, right)
    if made is None or (rows and columns):
        return made
    shape = list(made.shape)
    if not columns:
        del shape[-1]
    if not rows:
        del shape[-1 if not columns else -2]
    return made.reshaped(shape)


def _inserted(x: Tensor, place: int) -> Tensor:
    shape, strides = list(x.shape), list(x.strides)
    shape.insert(place, 1)
    strides.insert(place, 0)
    made = x.view(shape, strides)
    made.value = None if x.value is None else x.value.reshape(shape)
    return made


def _scaled(b: Builder, x: Tensor, factor: float) -> Tensor:
    if factor == 1.0:
        return x
    if x.value is not None:
        return b.constant(x.value * x.dtype.type(factor))
    return b.map("mul", [x, b.constant(np.array(factor, x.dtype))])


def _turned(x: Tensor, trans: int, trans_batch: int = 0) -> Tensor:
    """Transposed, and before that with the first axis moved before the last one."""
    axes = list(range(len(x.shape)))
    if trans_batch and len(axes) > 2:
        axes = [*axes[1:-1], 0, axes[-1]]
    if trans and len(axes) > 1:
        axes = [*axes[:-2], axes[-1], axes[-2]]
    return x.permuted(axes)


@lowers("MatMul")
def _matmul(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    left, right = inputs
    assert left is not None and right is not None
    made = _product(b, left, right)
    return None if made is None else [made]


@lowers("FusedMatMul", "TransposeMatMul", domain=_MICROSOFT)
def _fused_matmul(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    left, right = inputs
    assert left is not None and right is not None
    get = node.attributes.get
    left = _turned(b.plain(left), get("transA", 0), get("transBatchA", 0))
    right = _turned(b.plain(right), get("transB", 0), get("transBatchB", 0))
    made = _product(b, left, right)
    return None if made is None else [_scaled(b, made, get("alpha", 1.0))]


@lowers("Gemm")
def _gemm(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    left, right, *rest = inputs
    bias = rest[0] if rest else None
    assert left is not None and right is not None
    if len(left.shape) != 2 or len(right.shape) != 2:
        return None
    get = node.attributes.get
    made = multiply(b, _turned(b.plain(left), get("transA", 0)), _turned(b.plain(right), get("transB", 0)))
    if made is None:
        return None
    made = _scaled(b, made, get("alpha", 1.0))
    beta = get("beta", 1.0)
    if bias is not None and beta != 0.0:
        fits = len(bias.shape) <= 2 and all(
            n in (1, m) for n, m in zip(reversed(bias.shape), reversed(made.shape), strict=False)
        )
        if bias.dtype != made.dtype or not fits:
            return None
        made = b.map("add", [made, _scaled(b, bias, beta)])
    return [made]


@lowers("FusedGemm", domain=_MICROSOFT)
def _fused_gemm(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    activation = node.attributes.get("activation", "")
    if activation not in ("", "Relu"):
        return None
    made = _gemm(b, node, inputs)
    return made if made is None or not activation or made[0] is None else [b.map("relu", [made[0]])]


def matmul_n_bits(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    """com.microsoft MatMulNBits, through panels of codes."""
    from distort.kernels.compiler.codegen.codes import pack_codes
    from distort.kernels.ops.contrib_matmul import unpacked

    given: list[Tensor | None] = [*inputs, None, None, None]
    left, packed, scales, zeros, order, bias = given[:6]
    assert left is not None and packed is not None and scales is not None
    depth, columns, block = (int(node.attributes[name]) for name in ("K", "N", "block_size"))
    bits = int(node.attributes.get("bits", 4))
    known = [packed, scales] if zeros is None else [packed, scales, zeros]
    if order is not None or bits not in CODES or any(t.value is None for t in known):
        return None
    n_blocks = -(-depth // block)
    fits = packed.size == columns * n_blocks * (block * bits // 8) and scales.size == columns * n_blocks
    if left.shape[-1:] != (depth,) or not fits or block % 2 or name_of(left.dtype) not in DTYPES:
        return None
    if bias is not None and (bias.shape != (columns,) or bias.dtype != left.dtype):
        return None

    def make(width: int) -> Array:
        codes = unpacked(np, _value(packed).reshape(columns, -1), bits).reshape(columns, n_blocks, block)
        if zeros is None:
            zero = np.full((1, 1), 1 << (bits - 1), np.float32)
        elif zeros.dtype == np.uint8:
            zero = unpacked(np, _value(zeros).reshape(columns, -1), bits)[:, :n_blocks].astype(np.float32)
        else:
            zero = _value(zeros).reshape(columns, n_blocks).astype(np.float32)
        return pack_codes(codes, _value(scales).reshape(columns, n_blocks).astype(np.float32), zero, width, bits)

    key = (bits, block, *(b.source(t) for t in known))
    made = multiply_codes(b, left, columns, block, bits, key, make)
    if made is None:
        return None
    return [made if bias is None else b.map("add", [made, bias])]


def _value(tensor: Tensor) -> Array:
    assert tensor.value is not None
    return tensor.value
