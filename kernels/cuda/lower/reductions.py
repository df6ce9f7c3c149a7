"""Reductions of few long rows, in two steps: a row has a block's threads at most, and a GPU has many blocks.

Others are as on the CPU.
"""

from __future__ import annotations

import math

from distort.graph.ir import Node
from distort.kernels.compiler.builder import Builder
from distort.kernels.compiler.ir import Tensor
from distort.kernels.compiler.lower.rows import statistics_dtype
from distort.kernels.compiler.rows import Body
from distort.kernels.cuda.lower import lowers_cuda

Result = list[Tensor | None] | None
#: rows that keep a GPU busy; elements of a row that are worth two steps; and parts of a row, at most
_ENOUGH_ROWS, _LONG, _MOST_PARTS = 128, 1 << 15, 1024
#: operator -> before the first reduction, the reduction, after the last one
_STEPS = {
    "ReduceSum": ("", "row_sum", ""),
    "ReduceMean": ("", "row_mean", ""),
    "ReduceMax": ("", "row_max", ""),
    "ReduceMin": ("", "row_min", ""),
    "ReduceProd": ("", "row_prod", ""),
    "ReduceL1": ("abs", "row_sum", ""),
    "ReduceL2": ("square", "row_sum", "sqrt"),
    "ReduceSumSquare": ("square", "row_sum", ""),
    "ReduceLogSum": ("", "row_sum", "log"),
}
_REAL_ONLY = ("ReduceMean", "ReduceL2", "ReduceLogSum")


def parts_of(n_rows: int, length: int) -> int:
    """In how many parts of equal length rows are reduced first; 1 where that doesn't pay."""
    if n_rows >= _ENOUGH_ROWS or length < _LONG:
        return 1
    return math.gcd(length, _MOST_PARTS)


@lowers_cuda(*_STEPS)
def _reduce(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    x, given = [*inputs, None][:2]
    if x is None or x.dtype.kind == "b" or (given is not None and given.value is None):
        return None
    rank = len(x.shape)
    axes = [] if given is None or given.value is None else [int(a) for a in given.value.reshape(-1)]
    if not axes and node.attributes.get("noop_with_empty_axes", 0):
        return None
    axes = axes or list(range(rank))
    if any(not -rank <= axis < rank for axis in axes):
        return None
    reduced = sorted({axis % rank for axis in axes})
    kept = [axis for axis in range(rank) if axis not in reduced]
    if len(reduced) != len(axes) or not x.contiguous or reduced != list(range(len(kept), rank)):
        return None
    n_rows, length = math.prod(x.shape[: len(kept)]), math.prod(x.shape[len(kept) :])
    parts = parts_of(n_rows, length)
    is_real = x.dtype.kind not in "iu"
    if parts == 1 or (node.op_type in _REAL_ONLY and not is_real):
        return None
    before, reduction, after = _STEPS[node.op_type]
    dtype = statistics_dtype(x) if is_real else x.element
    first = Body((n_rows, parts, length // parts), dtype)
    element = first.input(x.reshaped(first.shape))
    if before:
        element = first.op("mul", element, element) if before == "square" else first.op(before, element)
    some = first.add(b, (2,), [(first.op(reduction, element), dtype, True)])
    if some is None:
        return None
    second = Body((n_rows, parts), dtype)
    value = second.op(reduction, second.input(some[0].reshaped(second.shape)), dtype="" if after else x.element)
    if after:
        value = second.op(after, value, dtype=x.element)
    made = second.add(b, (1,), [(value, x.element, True)])
    if made is None:
        return None
    keep = bool(node.attributes.get("keepdims", 1))
    return [made[0].reshaped((*x.shape[: len(kept)], *((1,) * len(reduced) if keep else ())))]
