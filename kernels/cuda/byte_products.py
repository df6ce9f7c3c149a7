"""Products of 8-bit matrices with exact sums, by cuBLASLt's products of int8.

(a - a_zero) · (w - w_zero) = a · w - w_zero · sums of a's rows - a_zero · sums of columns of (w - w_zero). Of bytes
without a sign 128 is subtracted first, and of their zero points.
"""

from __future__ import annotations

import numpy as np

from distort.kernels.compiler.builder import Builder
from distort.kernels.compiler.expression import Expression, Instruction, identity
from distort.kernels.compiler.ir import Array, Map, Tensor
from distort.kernels.compiler.rows import Body
from distort.kernels.cuda.products import multiply

_BYTES = (np.dtype(np.int8), np.dtype(np.uint8))
#: the library wants lines of whole words
_WORD = 4
_SIGNED = Expression(
    ("uint8",),
    (
        Instruction("cast", (0,), "int32"),
        Instruction("constant", (0,), "int32", (128,)),
        Instruction("sub", (1, 2), "int32"),
        Instruction("cast", (3,), "int8"),
    ),
    (4,),
)


def multiply_bytes(b: Builder, a: Tensor, w: Tensor, a_zero: Tensor | None, w_zero: Tensor | None) -> Tensor | None:
    """int32 [..., columns] of ``a`` [..., depth] · known ``w`` [depth, columns]. None where it is not done here.

    Zero points are one number, that of ``w`` perhaps one a column, and known.
    """
    if a.dtype not in _BYTES or w.dtype not in _BYTES or w.value is None or len(w.shape) != 2 or not a.shape:
        return None
    depth, columns = w.shape
    if a.shape[-1] != depth or not a.size or not w.size:
        return None
    if a_zero is not None and (a_zero.size != 1 or a_zero.dtype != a.dtype):
        return None
    zeros: Array = np.zeros((), np.int64)
    if w_zero is not None:
        if w_zero.value is None or w_zero.dtype != w.dtype or (w_zero.size != 1 and w_zero.shape != (columns,)):
            return None
        zeros = w_zero.value.reshape(() if w_zero.size == 1 else -1).astype(np.int64)
    zeros = zeros - _shift(w)
    signed = _lines(b, b.plain(a))
    made = multiply(b, signed if len(signed.shape) > 1 else signed.reshaped((1, signed.shape[0])), _turned(b, w))
    if made is None:
        return None
    shape = (*a.shape[:-1], columns)
    made = made.view(shape, made.strides[-len(shape) :])
    if zeros.any():
        inner = signed.view(a.shape, signed.strides)
        body = Body(inner.shape, "int32")
        total = body.op("row_sum", body.op("cast", body.input(inner), dtype="int32"))
        sums = body.add(b, (len(inner.shape) - 1,), [(total, "int32", True)])
        if sums is None:
            return None
        made = b.map("sub", [made, b.map("mul", [sums[0], b.constant(zeros.astype(np.int32))], np.int32)], np.int32)
    zero = _zero_of(b, a_zero, _shift(a))
    if zero is None:
        return made
    return b.map("sub", [made, b.map("mul", [_column_sums(b, w, zeros), zero], np.int32)], np.int32)


def _shift(tensor: Tensor) -> int:
    """What is subtracted of bytes so that they have a sign."""
    return 128 if tensor.dtype == np.uint8 else 0


def _lines(b: Builder, a: Tensor) -> Tensor:
    """int8, in lines of whole words; what lies beyond a line's end meets weights that are zero."""
    depth = a.shape[-1]
    whole = -(-depth // _WORD) * _WORD
    if a.dtype == np.int8 and whole == depth:
        return b.contiguous(a)
    made = b.new(np.int8, (*a.shape[:-1], whole))
    expression = identity("int8") if a.dtype == np.int8 else _SIGNED
    b.add(Map([a], [made.view(a.shape, made.strides)], expression))
    return made


def _turned(b: Builder, w: Tensor) -> Tensor:
    """Known weights as int8 [depth, columns], both filled up to whole words with zeros: the library reads columns."""
    value = w.value
    assert value is not None
    (depth, columns), shift = w.shape, _shift(w)

    def make() -> Array:
        whole = np.zeros((-(-columns // _WORD) * _WORD, -(-depth // _WORD) * _WORD), np.int8)
        whole[:columns, :depth] = (value.astype(np.int16) - shift).astype(np.int8).T
        return whole

    return b.packed(("int8 by columns", b.identity(value)), make).permuted([1, 0])


def _column_sums(b: Builder, w: Tensor, zeros: Array) -> Tensor:
    """int32 [columns], of weights without their zero points, both with a sign."""
    value = w.value
    assert value is not None
    depth, shift = w.shape[0], _shift(w)

    def make() -> Array:
        return np.asarray((value.astype(np.int64) - shift).sum(0) - depth * zeros, np.int32)

    return b.packed(("sums of columns", b.identity(value), b.identity(zeros)), make)


def _zero_of(b: Builder, zero: Tensor | None, shift: int) -> Tensor | None:
    """A zero point as int32, of bytes with a sign; None where it is known to be 0."""
    if zero is None or zero.value is not None:
        number = (0 if zero is None or zero.value is None else int(zero.value.item())) - shift
        return b.constant(np.array(number, np.int32)) if number else None
    wide = b.map("cast", [b.contiguous(b.plain(zero)).reshaped(())], np.int32)
    return b.map("sub", [wide, b.constant(np.array(shift, np.int32))], np.int32) if shift else wide


__all__ = ["multiply_bytes"]
