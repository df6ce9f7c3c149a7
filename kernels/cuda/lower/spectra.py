"""DFT as a product with its own matrix; longer ones are left to a fast transform over CuPy."""

from __future__ import annotations

import math

import numpy as np

from distort.graph.ir import Node
from distort.kernels.compiler.builder import Builder
from distort.kernels.compiler.ir import Array, Tensor
from distort.kernels.compiler.lower.views import numbers
from distort.kernels.cuda.lower import lowers_cuda
from distort.kernels.cuda.products import multiply
from distort.kernels.errors import InvalidInput
from distort.kernels.ops.spectra import transform

Result = list[Tensor | None] | None
#: numbers of a signal, real and imaginary ones
_MOST_NUMBERS = 2048


@lowers_cuda("DFT", wide=True)
def _dft(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    x, length, given = [*inputs, None, None][:3]
    get = node.attributes.get
    if x is None or x.element not in ("float32", "float64") or not x.size or len(x.shape) < 2:
        return None
    size, place = numbers(length), numbers(given)
    if (length is not None and (size is None or len(size) != 1)) or (
        given is not None and (place is None or not place)
    ):
        return None
    axis = place[0] if place else -2 if node.opset >= 20 else get("axis", 1)
    rank, parts = len(x.shape), x.shape[-1]
    if not -rank <= axis < rank or axis % rank == rank - 1 or parts not in (1, 2):
        return None
    axis %= rank
    n = x.shape[axis]
    if n * parts > _MOST_NUMBERS or (size is not None and size[0] * 2 > 2 * _MOST_NUMBERS):
        return None
    wanted = None if size is None else np.array(size[0])
    flags = (bool(get("inverse", 0)), bool(get("onesided", 0)))

    def matrix() -> Array:
        """What becomes of each number alone."""
        basis = np.eye(n * parts).reshape(n * parts, n, parts)
        return np.asarray(transform(np, basis, wanted, 1, *flags), x.dtype)

    try:
        columns = b.packed(("dft", n, parts, size and size[0], flags, x.element), matrix)
    except InvalidInput:
        return None
    _, bins, made_parts = columns.shape
    others = [i for i in range(rank - 1) if i != axis]
    outer = [x.shape[i] for i in others]
    rows = b.contiguous(b.plain(x).permuted([*others, axis, rank - 1])).reshaped((math.prod(outer), n * parts))
    made = multiply(b, rows, columns.reshaped((n * parts, bins * made_parts)), exact=True)
    if made is None:
        return None
    made = b.contiguous(made).reshaped((*outer, bins, made_parts))
    return [made.permuted([*range(axis), rank - 2, *range(axis, rank - 2), rank - 1])]
