"""Products of 8-bit matrices with exact sums, by cuBLASLt's products of int8."""

from __future__ import annotations

import numpy as np

from distort.graph.ir import Node
from distort.kernels.compiler.builder import Builder
from distort.kernels.compiler.expression import Instruction
from distort.kernels.compiler.ir import Array, Tensor
from distort.kernels.compiler.rows import Body
from distort.kernels.cuda.lower import lowers_cuda
from distort.kernels.cuda.products import multiply

Result = list[Tensor | None] | None
_BYTES = (np.dtype(np.int8), np.dtype(np.uint8))


@lowers_cuda("MatMulInteger")
def _matmul_integer(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    """(a - a_zero) · (w - w_zero) with weights that are known and have one zero point.

    Of bytes without a sign 128 is subtracted, here as there. a · w is cuBLASLt's; zero points are multiplied
    with sums of columns, which are known, and of rows.
    """
    a, w, a_zero, w_zero = [*inputs, None, None][:4]
    if a is None or w is None or w.value is None or len(w.shape) != 2 or not a.shape or not a.size or not w.size:
        return None
    depth, columns = w.shape
    # the library wants lines that are whole words
    if a.dtype not in _BYTES or w.dtype not in _BYTES or a.shape[-1] != depth or depth % 4 or columns % 4:
        return None
    if a_zero is not None and (a_zero.size != 1 or a_zero.dtype != a.dtype):
        return None
    if w_zero is not None and (w_zero.value is None or w_zero.size != 1 or w_zero.dtype != w.dtype):
        return None
    value = w.value
    zero = (0 if w_zero is None or w_zero.value is None else int(w_zero.value.item())) - _shift(w)

    def turned() -> Array:
        """[columns, depth]: the library reads columns as lines."""
        return np.ascontiguousarray((value.astype(np.int16) - _shift(w)).astype(np.int8).T)

    weights = b.packed(("int8 by columns", b.identity(value)), turned)
    signed = _signed(b, b.plain(a))
    made = multiply(b, signed, weights.permuted([1, 0]))
    if made is None:
        return None

    def sums() -> Array:
        """[columns]: of w - w_zero."""
        whole = value.astype(np.int64).sum(0) - depth * (zero + _shift(w))
        return np.asarray(whole, np.int32)

    if zero:
        # minus w_zero · sum of each row
        body = Body(signed.shape, "int32")
        total = body.op("row_sum", body.op("cast", body.input(signed), dtype="int32"))
        rows = body.add(b, (len(signed.shape) - 1,), [(total, "int32", True)])
        if rows is None:
            return None
        scaled = b.map("mul", [rows[0], b.constant(np.array(-zero, np.int32))], np.int32)
        made = b.map("add", [made, scaled], np.int32)
    if a_zero is None and not _shift(a):
        return [made]
    of_columns = b.packed(("column sums", b.identity(value), zero), sums)
    if a_zero is not None and a_zero.value is None:
        number = _zero_of(b, a_zero, _shift(a))
    else:
        known = 0 if a_zero is None or a_zero.value is None else int(a_zero.value.item())
        if known == _shift(a):
            return [made]
        number = b.constant(np.array(known - _shift(a), np.int32))
    return [b.map("sub", [made, b.map("mul", [of_columns, number], np.int32)], np.int32)]


def _shift(tensor: Tensor) -> int:
    """What is subtracted of bytes so that they have a sign."""
    return 128 if tensor.dtype == np.uint8 else 0


def _signed(b: Builder, a: Tensor) -> Tensor:
    if a.dtype == np.int8:
        return a
    body = [
        Instruction("cast", (0,), "int32"),
        Instruction("constant", (0,), "int32", (128,)),
        Instruction("sub", (1, 2), "int32"),
        Instruction("cast", (3,), "int8"),
    ]
    return b.map("", [a], np.int8, body=body)


def _zero_of(b: Builder, zero: Tensor, shift: int) -> Tensor:
    """A zero point that only the run knows, as int32, of bytes with a sign."""
    wide = b.map("cast", [b.contiguous(b.plain(zero)).reshaped(())], np.int32)
    return wide if not shift else b.map("sub", [wide, b.constant(np.array(shift, np.int32))], np.int32)
