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
SIGNED = Expression(
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
    """int32 [..., columns] of ``a`` [..., depth] · ``w`` [..., depth, columns]. None where it is not done here.

    Zero points are one number, that of ``w`` perhaps one a column; they are known where ``w`` is, or nothing is.
    """
    if a.dtype not in _BYTES or w.dtype not in _BYTES or len(w.shape) < 2 or not a.shape:
        return None
    depth, columns = w.shape[-2:]
    if a.shape[-1] != depth or not a.size or not w.size:
        return None
    if a_zero is not None and (a_zero.size != 1 or a_zero.dtype != a.dtype):
        return None
    if w_zero is not None and (w_zero.dtype != w.dtype or (w_zero.size != 1 and w_zero.shape != (columns,))):
        return None
    signed = lines_of(b, b.plain(a))
    rows = signed if len(signed.shape) > 1 else signed.reshaped((1, signed.shape[0]))
    if w.value is not None and len(w.shape) == 2 and (w_zero is None or w_zero.value is not None):
        return _of_known(b, a, signed, rows, w, a_zero, w_zero)
    swapped = [*range(len(w.shape) - 2), len(w.shape) - 1, len(w.shape) - 2]
    # as many columns as the library wants: what they hold nobody reads
    turned = lines_of(b, b.plain(w).permuted(swapped), -(-columns // _WORD) * _WORD)
    if turned.shape[-1] != depth:  # beyond the lines of both there may be anything
        size = (*w.shape[:-2], columns, turned.shape[-1] - depth)
        nothing = b.constant(np.zeros((), np.int8)).broadcast(size)
        b.copy(nothing, turned.view(size, turned.strides, depth))
    made = multiply(b, rows, turned.permuted(swapped))
    if made is None:
        return None
    batch = made.shape[:-2]
    made = made.view((*made.shape[:-1], columns), made.strides)
    a_less, w_less = _zero_of(b, a_zero, shift_of(a)), _zero_of(b, w_zero, shift_of(w))
    if w_less is not None:
        sums = _row_sums(b, signed.view(a.shape, signed.strides))
        if sums is None:
            return None
        sums = sums if len(a.shape) > 1 else sums.reshaped((1, 1))
        made = b.map("sub", [made, b.map("mul", [sums, w_less], np.int32)], np.int32)
    if a_less is not None:
        sums = _row_sums(b, turned.view((*w.shape[:-2], columns, depth), turned.strides))
        if sums is None:
            return None
        by_column = sums.reshaped((*w.shape[:-2], 1, columns))
        if w_less is not None:
            less = b.map("mul", [w_less, b.constant(np.array(depth, np.int32))], np.int32)
            by_column = b.map("sub", [by_column, less], np.int32)
        made = b.map("sub", [made, b.map("mul", [by_column, a_less], np.int32)], np.int32)
    if len(a.shape) > 1:
        return made
    return made.view((*batch, columns), (*made.strides[:-2], made.strides[-1]))


def _of_known(
    b: Builder, a: Tensor, signed: Tensor, rows: Tensor, w: Tensor, a_zero: Tensor | None, w_zero: Tensor | None
) -> Tensor | None:
    """As :func:`multiply_bytes`, of weights [depth, columns] and zero points that are known."""
    columns = w.shape[1]
    zeros: Array = np.zeros((), np.int64)
    if w_zero is not None and w_zero.value is not None:
        zeros = w_zero.value.reshape(() if w_zero.size == 1 else -1).astype(np.int64)
    zeros = zeros - shift_of(w)
    made = multiply(b, rows, _turned(b, w))
    if made is None:
        return None
    shape = (*a.shape[:-1], columns)
    made = made.view(shape, made.strides[-len(shape) :])
    if zeros.any():
        sums = _row_sums(b, signed.view(a.shape, signed.strides))
        if sums is None:
            return None
        made = b.map("sub", [made, b.map("mul", [sums, b.constant(zeros.astype(np.int32))], np.int32)], np.int32)
    zero = _zero_of(b, a_zero, shift_of(a))
    if zero is None:
        return made
    return b.map("sub", [made, b.map("mul", [_column_sums(b, w, zeros), zero], np.int32)], np.int32)


def _row_sums(b: Builder, x: Tensor) -> Tensor | None:
    """int32 [..., 1] of int8 [..., depth]."""
    body = Body(x.shape, "int32")
    total = body.op("row_sum", body.op("cast", body.input(x), dtype="int32"))
    sums = body.add(b, (len(x.shape) - 1,), [(total, "int32", True)])
    return None if sums is None else sums[0]


def shift_of(tensor: Tensor) -> int:
    """What is subtracted of bytes so that they have a sign."""
    return 128 if tensor.dtype == np.uint8 else 0


def lines_of(b: Builder, a: Tensor, n_lines: int = 0) -> Tensor:
    """int8, in lines of whole words; what lies beyond a line's end meets weights that are zero.

    ``n_lines`` that there is room for, if more than there are.
    """
    depth = a.shape[-1]
    whole = -(-depth // _WORD) * _WORD
    n_lines = n_lines or (a.shape[-2] if len(a.shape) > 1 else 0)
    if a.dtype == np.int8 and whole == depth and n_lines == (a.shape[-2] if len(a.shape) > 1 else 0):
        return b.contiguous(a)
    made = b.new(np.int8, (*a.shape[:-2], n_lines, whole) if len(a.shape) > 1 else (whole,))
    expression = identity("int8") if a.dtype == np.int8 else SIGNED
    b.add(Map([a], [made.view(a.shape, made.strides)], expression))
    return made


def _turned(b: Builder, w: Tensor) -> Tensor:
    """Known weights as int8 [depth, columns], both filled up to whole words with zeros: the library reads columns."""
    value = w.value
    assert value is not None
    (depth, columns), shift = w.shape, shift_of(w)

    def make() -> Array:
        whole = np.zeros((-(-columns // _WORD) * _WORD, -(-depth // _WORD) * _WORD), np.int8)
        whole[:columns, :depth] = (value.astype(np.int16) - shift).astype(np.int8).T
        return whole

    return b.packed(("int8 by columns", b.identity(value)), make).permuted([1, 0])


def _column_sums(b: Builder, w: Tensor, zeros: Array) -> Tensor:
    """int32 [columns], of weights without their zero points, both with a sign."""
    value = w.value
    assert value is not None
    depth, shift = w.shape[0], shift_of(w)

    def make() -> Array:
        return np.asarray((value.astype(np.int64) - shift).sum(0) - depth * zeros, np.int32)

    return b.packed(("sums of columns", b.identity(value), b.identity(zeros)), make)


def _zero_of(b: Builder, zero: Tensor | None, shift: int) -> Tensor | None:
    """Zero points as int32, of bytes with a sign: one number, or one a column; None where all are known to be 0."""
    if zero is None:
        return b.constant(np.array(-shift, np.int32)) if shift else None
    zero = b.contiguous(b.plain(zero)).reshaped(() if zero.size == 1 else zero.shape)
    if zero.value is not None:
        numbers = zero.value.astype(np.int32) - shift
        return b.constant(numbers) if numbers.any() else None
    wide = b.map("cast", [zero], np.int32)
    return b.map("sub", [wide, b.constant(np.array(shift, np.int32))], np.int32) if shift else wide


__all__ = ["SIGNED", "lines_of", "multiply_bytes", "shift_of"]
