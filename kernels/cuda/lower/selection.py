"""TopK, CumSum and CumProd: along one axis, in order."""

from __future__ import annotations

import math

import numpy as np

from distort.graph.ir import Node
from distort.kernels.compiler.builder import Builder
from distort.kernels.compiler.ir import Tensor
from distort.kernels.compiler.loops import merged
from distort.kernels.compiler.lower.expecting import length_of
from distort.kernels.compiler.lower.views import numbers
from distort.kernels.cuda.codegen.selection import MOST_KEPT, ORDERED
from distort.kernels.cuda.lower import lowers_cuda
from distort.kernels.cuda.operations import CudaScan, CudaTopK

Result = list[Tensor | None] | None
_SUMMED = ("float32", "float64", "float16", "bfloat16", "int32", "int64", "uint32", "uint64")


@lowers_cuda("TopK")
def _top_k(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    x, count = inputs[0], numbers(inputs[1])
    if x is None or x.element not in ORDERED or not x.shape:
        return None
    rank, axis = len(x.shape), node.attributes.get("axis", -1)
    k = count[0] if count else length_of(b, node, axis, inputs[1])
    if k is None or not -rank <= axis < rank or not 0 <= k <= x.shape[axis % rank] or x.shape[axis % rank] >= 1 << 31:
        return None
    if k > MOST_KEPT:
        return None
    axis %= rank
    others = [i for i in range(rank) if i != axis]
    outer = [x.shape[i] for i in others]
    values, places = b.new(x.dtype, [*outer, k]), b.new(np.int64, [*outer, k])
    if values.size:
        n = x.shape[axis]
        n_rows, (row_steps,) = merged(outer, [[x.strides[i] for i in others]])
        if len(n_rows) > 1:
            x = b.contiguous(x.permuted([*others, axis]))
            rows = x.view((math.prod(outer), n), (n, 1))
        else:
            rows = x.view((n_rows[0], n), (row_steps[0], x.strides[axis]))
        made = [t.view((rows.shape[0], k), (k, 1)) for t in (values, places)]
        b.add(CudaTopK([rows], made, bool(node.attributes.get("largest", 1))))
    back = [*range(axis), rank - 1, *range(axis, rank - 1)]
    return [values.permuted(back), places.permuted(back)]


@lowers_cuda("CumSum", "CumProd")
def _cumulative(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    x, found = inputs[0], numbers(inputs[1])
    if x is None or not found or len(found) != 1 or x.element not in _SUMMED:
        return None
    rank, axis = len(x.shape), found[0]
    if not -rank <= axis < rank:
        return None
    axis %= rank
    result = b.new(x.dtype, x.shape)
    if x.size:
        shape = (math.prod(x.shape[:axis]), x.shape[axis], math.prod(x.shape[axis + 1 :]))
        source, target = b.contiguous(x).reshaped(shape), result.reshaped(shape)
        get = node.attributes.get
        is_product = node.op_type == "CumProd"
        b.add(CudaScan([source], [target], is_product, bool(get("exclusive", 0)), bool(get("reverse", 0))))
    return [result]
