"""TopK, CumSum and CumProd: along one axis, in order."""

from __future__ import annotations

import math

import numpy as np

from distort.graph.ir import Node
from distort.kernels.compiler.builder import Builder
from distort.kernels.compiler.ir import Tensor
from distort.kernels.compiler.loops import merged
from distort.kernels.compiler.lower.selection import cumulative_of, top_k_of
from distort.kernels.cuda.codegen.selection import MOST_KEPT, ORDERED
from distort.kernels.cuda.lower import lowers_cuda
from distort.kernels.cuda.operations import CudaScan, CudaTopK

Result = list[Tensor | None] | None
_SUMMED = ("float32", "float64", "float16", "bfloat16", "int32", "int64", "uint32", "uint64")


@lowers_cuda("TopK")
def _top_k(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    asked = top_k_of(b, node, inputs, ORDERED)
    if asked is None or asked[2] > MOST_KEPT:
        return None
    x, axis, k = asked
    rank = len(x.shape)
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
    asked = cumulative_of(inputs, _SUMMED)
    if asked is None:
        return None
    x, axis = asked
    result = b.new(x.dtype, x.shape)
    if x.size:
        shape = (math.prod(x.shape[:axis]), x.shape[axis], math.prod(x.shape[axis + 1 :]))
        source, target = b.contiguous(x).reshaped(shape), result.reshaped(shape)
        get = node.attributes.get
        is_product = node.op_type == "CumProd"
        b.add(CudaScan([source], [target], is_product, bool(get("exclusive", 0)), bool(get("reverse", 0))))
    return [result]
