"""TopK, CumSum and CumProd: along one axis, in order."""

from __future__ import annotations

import math
from collections.abc import Collection

import numpy as np

from distort.graph.ir import Node
from distort.kernels.compiler.builder import Builder, lowers
from distort.kernels.compiler.ir import Call, Native, Scratch, Tensor, Word
from distort.kernels.compiler.keys import Key
from distort.kernels.compiler.loops import merged
from distort.kernels.compiler.lower.expecting import length_of
from distort.kernels.compiler.lower.views import numbers

Result = list[Tensor | None] | None

#: what has its order in 32 bits
_ORDERED = frozenset(["float32", "float16", "int32", "uint32", "int16", "uint16", "int8", "uint8"])
_SUMMED = frozenset(["float32", "float64", "int32", "int64", "uint32", "uint64"])
_PART = 256


def top_k_of(
    b: Builder, node: Node, inputs: list[Tensor | None], ordered: Collection[str]
) -> tuple[Tensor, int, int] | None:
    """x, the axis and k of TopK; None where x's elements aren't among ``ordered``, or nobody knows k."""
    x, count = inputs[0], numbers(inputs[1])
    if x is None or x.element not in ordered or not x.shape:
        return None
    rank, axis = len(x.shape), node.attributes.get("axis", -1)
    k = count[0] if count else length_of(b, node, axis, inputs[1])
    if k is None or not -rank <= axis < rank or not 0 <= k <= x.shape[axis % rank] or x.shape[axis % rank] >= 1 << 31:
        return None
    return x, axis % rank, k


def cumulative_of(inputs: list[Tensor | None], summed: Collection[str]) -> tuple[Tensor, int] | None:
    """x and the axis of CumSum and CumProd; None where x's elements aren't among ``summed``, or nobody knows it."""
    x, found = inputs[0], numbers(inputs[1])
    if x is None or not found or len(found) != 1 or x.element not in summed:
        return None
    rank, axis = len(x.shape), found[0]
    if not -rank <= axis < rank:
        return None
    return x, axis % rank


@lowers("TopK")
def _top_k(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    asked = top_k_of(b, node, inputs, _ORDERED)
    if asked is None:
        return None
    x, axis, k = asked
    rank, x = len(x.shape), b.plain(x)
    others = [i for i in range(rank) if i != axis]
    outer = [x.shape[i] for i in others]
    values, places = b.new(x.dtype, [*outer, k]), b.new(np.int64, [*outer, k])
    if values.size:
        n, step = x.shape[axis], x.strides[axis]
        n_rows, (row_steps,) = merged(outer, [[x.strides[i] for i in others]])
        if len(n_rows) > 1:
            x = b.contiguous(x.permuted([*others, axis]))
            n_rows, row_steps, step = [math.prod(outer)], [n], 1
        words: list[Word] = [n_rows[0], n, k, x.address(), row_steps[0], step]
        words += [values.address(), places.address(), Scratch()]
        key = Key("top", (x.element, bool(node.attributes.get("largest", 1)), step == 1))
        work = n_rows[0] * (n * 0.5 + k * (math.log2(k) + 1) * (2 + math.log(n / k)) * 3)
        scratch = min(b.n_threads, n_rows[0]) * k * 8
        b.add(Native([x], [values, places], [Call(key, words, work, scratch, n_rows[0])]))
    back = [*range(axis), rank - 1, *range(axis, rank - 1)]
    return [values.permuted(back), places.permuted(back)]


@lowers("CumSum", "CumProd")
def _cumulative(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    asked = cumulative_of(inputs, _SUMMED)
    if asked is None:
        return None
    x, axis = asked
    result = b.new(x.dtype, x.shape)
    if not x.size:
        return [result]
    x = b.contiguous(b.plain(x))
    n_outer, n, count = math.prod(x.shape[:axis]), x.shape[axis], math.prod(x.shape[axis + 1 :])
    part = min(_PART, count)
    backwards = bool(node.attributes.get("reverse", 0))
    first, step = ((n - 1) * count, -count) if backwards else (0, count)
    words: list[Word] = [n_outer, n, count, part, x.address(first), n * count, step]
    words += [result.address(first), n * count, step]
    n_units = n_outer * -(-count // part)
    operation = "add" if node.op_type == "CumSum" else "mul"
    key = Key("running", (x.element, operation, bool(node.attributes.get("exclusive", 0)), count == 1))
    work = x.size * (1.5 if count == 1 else 0.3)
    b.add(Native([x], [result], [Call(key, words, work, most_threads=n_units)]))
    return [result]
