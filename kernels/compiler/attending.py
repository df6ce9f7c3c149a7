"""Attention among operations: a product, softmax over its rows, and a product of these become one operation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from distort.kernels.compiler.attention import Attention, fits, viewed
from distort.kernels.compiler.codegen.gemm import COLUMNS, DOTS, ROWS
from distort.kernels.compiler.expression import Expression, Instruction
from distort.kernels.compiler.fuse import Uses, compose
from distort.kernels.compiler.ir import Buffer, Operation, Tensor
from distort.kernels.compiler.products import Product
from distort.kernels.compiler.rows import Rows


def attend(operations: Sequence[Operation]) -> list[Operation]:
    """Operations, fused, with attention where it is found."""
    if not any(isinstance(operation, Rows) for operation in operations):
        return list(operations)
    uses = Uses(operations)
    place = {operation: i for i, operation in enumerate(operations)}
    order: list[Operation | None] = list(operations)
    for position, last in enumerate(operations):
        if not isinstance(last, Product):
            continue
        weights = uses.only_maker(last.inputs[0], last)
        if not isinstance(weights, Rows):
            continue
        makers = [uses.only_maker(tensor, weights) for tensor in weights.inputs]
        found = next(((n, maker) for n, maker in enumerate(makers) if isinstance(maker, Product)), None)
        if found is None:
            continue
        scores, first = found
        if any(o.region != last.region or uses.changed_between(o, last, place) for o in (first, weights)):
            continue
        made = joined(first, weights, scores, last)
        if made is None:
            continue
        made.names, made.region = [*first.names, *weights.names, *last.names], last.region
        order[place[first]] = order[place[weights]] = None
        order[position] = made
    return [operation for operation in order if operation is not None]


def joined(first: Product, weights: Rows, scores: int, last: Product) -> Attention | None:
    """One operation for the three; None where they are not attention. ``scores``: which input of ``weights``."""
    before = before_softmax(weights)
    forms = (ROWS, COLUMNS, DOTS)
    if before is None or first.form not in forms or last.form not in forms or last.inputs[1].strides[3] != 1:
        return None
    if len(last.outputs) != 1:
        return None
    rows, keys, columns = first.sizes[2], first.sizes[3], last.sizes[3]
    if last.sizes[2] != rows or last.depth != keys or weights.shape[-1] != keys:
        return None
    for heads in dict.fromkeys((first.sizes[:2], last.sizes[:2])):
        made = _joined(first, weights, scores, last, before, (1, *heads), rows, keys, columns)
        if made is not None:
            return made
    return None


def _joined(
    first: Product,
    weights: Rows,
    scores: int,
    last: Product,
    before: Expression,
    heads: tuple[int, ...],
    rows: int,
    keys: int,
    columns: int,
) -> Attention | None:
    shape = (*heads, rows, keys)

    def matrix(tensor: Tensor, *size: int) -> Tensor | None:
        return viewed(tensor, (*heads, *size))

    q, turned = matrix(first.inputs[0], rows, first.depth), matrix(first.inputs[1], first.depth, keys)
    v = matrix(last.inputs[1], keys, columns)
    read = [
        matrix(t, rows, keys) for t in (first.outputs[0], weights.inputs[scores], weights.outputs[0], last.inputs[0])
    ]
    of_product = [matrix(t, rows, keys) for t in first.inputs[2:]]
    of_rows = [matrix(t, rows, keys) for t in weights.inputs]
    others = [matrix(t, rows, columns) for t in (*last.inputs[2:], *last.outputs)]
    if q is None or turned is None or v is None or None in (*read, *of_product, *of_rows, *others):
        return None
    made, taken, given, used = (t for t in read if t is not None)
    if not _same(made, taken) or not _same(given, used):
        return None
    k = turned.permuted([0, 1, 2, 4, 3])
    sums = Tensor(np.dtype(first.expression.inputs[0]), shape, made.strides, Buffer(0))
    inputs = [t for t in of_product if t is not None]
    composed = compose(first.expression, [sums, *inputs], before, [t for t in of_rows if t is not None], made.buffer)
    if composed is None:
        return None
    operands, expression = composed
    ends = [t for t in others if t is not None]
    if not fits(q, k, v, operands[1:]) or not all(t.strides[-1] in (0, 1) for t in ends):
        return None
    results = ends[len(last.inputs) - 2 :]
    if columns != 1 and any(t.strides[-1] != 1 for t in results):
        return None
    reads = [q, k, v, *operands[1:], *ends[: len(last.inputs) - 2]]
    return Attention(reads, results, expression, len(operands) - 1, False, last.expression)


def _same(a: Tensor, b: Tensor) -> bool:
    """Whether two views of one shape are of the same elements."""
    steps = (s == t for n, s, t in zip(a.shape, a.strides, b.strides, strict=True) if n != 1)
    return a.buffer is b.buffer and a.offset == b.offset and a.dtype == b.dtype and all(steps)


def before_softmax(rows: Rows) -> Expression | None:
    """What softmax over the last axis is done to, as an expression; None where the operation is something else."""
    expression = rows.expression
    n_inputs, body = len(expression.inputs), expression.body
    if rows.axes != (len(rows.shape) - 1,) or len(expression.results) != 1 or len(rows.outputs) != 1:
        return None

    def made_by(number: int, op: str) -> Instruction | None:
        place = number - n_inputs
        return body[place] if place >= 0 and body[place].op == op else None

    number, n_casts = expression.results[0], 0
    while (cast := made_by(number, "cast")) is not None:
        # weights of half precision stay as they are computed
        number, n_casts = cast.operands[0], n_casts + 1
    result = made_by(number, "mul")
    if result is None:
        return None
    for one, other in (result.operands, result.operands[::-1]):
        power, inverse = made_by(one, "exp_to_one"), made_by(other, "reciprocal")
        total = None if inverse is None else made_by(inverse.operands[0], "row_sum")
        moved = None if power is None else made_by(power.operands[0], "sub")
        if total is None or moved is None or total.operands != (one,):
            continue
        element, top = moved.operands
        largest = made_by(top, "row_max")
        if largest is None or largest.operands != (element,) or largest.attributes != ("numbers",):
            continue
        n_before = top - n_inputs
        if len(body) != n_before + 6 + n_casts or any(i.op.startswith("row_") for i in body[:n_before]):
            return None
        return Expression(expression.inputs, body[:n_before], (element,))
    return None


__all__ = ["attend", "before_softmax", "joined"]
