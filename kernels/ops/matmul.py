"""Matrix products: MatMul, Gemm."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np

from distort.kernels.errors import Failed, InvalidInput
from distort.kernels.registry import kernel

Array = Any
# below this many multiplications numpy's integer loop is as quick as looking at the values
_INTEGER_DETOUR = 1 << 15
_EXACT_FLOAT64 = 2**53


def is_narrow(dtype: Any) -> bool:
    """Whether products of this element type accumulate in float32: float16 and bfloat16."""
    return bool(dtype.itemsize == 2 and (dtype.kind == "f" or dtype.name == "bfloat16"))


def _blas_ready(xp: ModuleType, a: Array) -> Array:
    """The same matrices in a layout that numpy hands to BLAS; others it multiplies in a loop, many times slower."""
    if a.ndim < 2 or a.flags.c_contiguous:
        return a
    (rows, columns), item = a.strides[-2:], a.itemsize
    ready = rows >= a.shape[-1] * item if columns == item else rows == item and columns >= a.shape[-2] * item
    return a if ready else xp.ascontiguousarray(a)


def product(xp: ModuleType, a: Array, b: Array) -> Array:
    """``a @ b`` by numpy's rules of matmul; float16 and bfloat16 accumulate in float32, integers wrap around."""
    dtype = a.dtype
    if is_narrow(dtype):
        return xp.asarray(product(xp, a.astype(xp.float32), b.astype(xp.float32))).astype(dtype)
    if dtype.kind in "iu" and _fits_float64(a, b):
        exact = product(xp, a.astype(xp.float64), b.astype(xp.float64))
        return xp.asarray(exact).astype(dtype)
    a, b = _blas_ready(xp, a), _blas_ready(xp, b)
    if a.ndim > 2 and b.ndim <= 2 and b.size:
        # one GEMM instead of one a batch entry
        flat = xp.matmul(a.reshape(-1, a.shape[-1]), b)
        return flat.reshape(a.shape[:-1] + b.shape[1:])
    return xp.asarray(xp.matmul(a, b))


def _fits_float64(a: Array, b: Array) -> bool:
    """Whether an integer product, summed along the common axis, is exact in float64 (which has a BLAS)."""
    if a.size * b.shape[-1] < _INTEGER_DETOUR or not b.size:
        return False
    largest = [max(abs(int(side.min())), abs(int(side.max()))) for side in (a, b)]
    return bool(largest[0] * largest[1] * a.shape[-1] < _EXACT_FLOAT64)


@kernel("MatMul")
def matmul(xp: ModuleType, a: Array, b: Array) -> Array:
    """MatMul 1, 9, 13: numpy's matmul, batches broadcast."""
    if a.ndim == 2 == b.ndim and a.dtype == xp.float32 and a.shape[1] == b.shape[0]:  # the common case, kept short
        return xp.matmul(_blas_ready(xp, a), _blas_ready(xp, b))
    if not a.ndim or not b.ndim:
        raise InvalidInput(f"MatMul multiplies no scalars: shapes {list(a.shape)} and {list(b.shape)}")
    if a.dtype != b.dtype:
        raise InvalidInput(f"MatMul of {a.dtype} and {b.dtype}: one type is needed")
    if a.shape[-1] != b.shape[-2 if b.ndim > 1 else 0]:
        raise Failed(f"MatMul dimension mismatch: left {list(a.shape)}, right {list(b.shape)}")
    if a.ndim > 2 and b.ndim > 2:
        try:
            np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        except ValueError:
            raise InvalidInput(f"MatMul batches don't broadcast: left {list(a.shape)}, right {list(b.shape)}") from None
    return product(xp, a, b)


def gemm_body(
    xp: ModuleType, a: Array, b: Array, c: Array | None, alpha: float, beta: float, trans_a: int, trans_b: int
) -> Array:
    """alpha * a' @ b' + beta * c, where c broadcasts to the product. a, b: matrices. Result: [M, N]."""
    if a.ndim != 2 or b.ndim != 2:
        raise InvalidInput(f"Gemm needs matrices: A is {list(a.shape)}, B is {list(b.shape)}")
    a, b = a.T if trans_a else a, b.T if trans_b else b
    if a.shape[1] != b.shape[0]:
        raise InvalidInput(f"GEMM: Dimension mismatch, A' is {list(a.shape)}, B' is {list(b.shape)}")
    if a.dtype != b.dtype or (c is not None and c.dtype != a.dtype):
        raise InvalidInput(f"Gemm of {a.dtype}, {b.dtype} and {c.dtype if c is not None else 'nothing'}")
    dtype = a.dtype
    if c is not None and not _broadcasts_to(c.shape, (a.shape[0], b.shape[1])):
        raise InvalidInput(f"Gemm: Invalid bias shape for broadcast: {list(c.shape)} to {[a.shape[0], b.shape[1]]}")
    if is_narrow(dtype):  # one rounding, at the end
        a, b = a.astype(xp.float32), b.astype(xp.float32)
        c = c.astype(xp.float32) if c is not None else None
    y = product(xp, a, b)
    if alpha != 1.0:
        y = _scaled(y, alpha)
    if c is not None and beta != 0.0:
        y += c if beta == 1.0 else _scaled(c, beta)
    return y if y.dtype == dtype else y.astype(dtype)


def _scaled(a: Array, factor: float) -> Array:
    if a.dtype.kind not in "iu":
        return a * a.dtype.type(factor)
    return a * int(factor) if factor.is_integer() and factor >= 0 else (a * factor).astype(a.dtype)


def _broadcasts_to(shape: tuple[int, ...], target: tuple[int, int]) -> bool:
    if len(shape) > 2:
        return False
    return all(size in (1, goal) for size, goal in zip(reversed(shape), reversed(target), strict=False))


@kernel("Gemm", 7)
def gemm(
    xp: ModuleType,
    a: Array,
    b: Array,
    c: Array | None = None,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,
    transB: int = 0,
) -> Array:
    """Gemm 7, 9, 11, 13."""
    return gemm_body(xp, a, b, c, alpha, beta, transA, transB)


@kernel("Gemm", 1)
def gemm_1(
    xp: ModuleType,
    a: Array,
    b: Array,
    c: Array,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    broadcast: int = 0,
    transA: int = 0,
    transB: int = 0,
) -> Array:
    """Gemm 1, 6: C broadcasts only when told so."""
    if not broadcast:
        rows, columns = a.shape[1 if transA else 0], b.shape[0 if transB else -1]
        if c.shape != (rows, columns):
            raise InvalidInput(f"Gemm without broadcast: C is {list(c.shape)}, needed {[rows, columns]}")
    return gemm_body(xp, a, b, c, alpha, beta, transA, transB)
