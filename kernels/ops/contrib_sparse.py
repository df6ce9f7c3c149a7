"""onnxruntime's product of a sparse matrix."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np

from distort.graph.ir import SparseInitializer
from distort.kernels.errors import InvalidInput
from distort.kernels.registry import kernel

Array = Any


@kernel("SparseToDenseMatMul", domain="com.microsoft")
def sparse_to_dense_matmul(
    xp: ModuleType, a: Any, b: Array, *, alpha: float = 1.0, transA: int = 0, transB: int = 0
) -> Array:
    """``alpha`` times a [M, K], sparse, times b [K, N]; either may come transposed. Nothing is made dense."""
    if not isinstance(a, SparseInitializer) or len(a.dims) != 2 or b.ndim != 2:
        raise InvalidInput("SparseToDenseMatMul multiplies a sparse matrix by a dense one.")
    places = a.indices.reshape(-1)
    rows, columns = a.indices.T if a.indices.ndim == 2 else np.divmod(places, a.dims[1])
    m, k = a.dims[::-1] if transA else a.dims
    if transA:
        rows, columns = columns, rows
    b = b.T if transB else b
    if b.shape[0] != k:
        raise InvalidInput(f"SparseToDenseMatMul: {list(a.dims)} and {list(b.shape)} do not multiply.")
    result = xp.zeros((m, b.shape[1]), b.dtype)
    if rows.size:
        order = np.argsort(rows, kind="stable")
        rows, columns = rows[order], columns[order]
        products = xp.asarray(a.values[order])[:, None] * b[columns]
        starts = np.flatnonzero(np.concatenate(([True], rows[1:] != rows[:-1])))
        result[rows[starts]] = xp.add.reduceat(products, starts, axis=0)
    return result if alpha == 1.0 else (result * alpha).astype(b.dtype, copy=False)
