"""Resize and Upsample: all axes in one kernel where that reads few elements, else one after another."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from distort.graph.ir import Node
from distort.kernels.compiler.builder import Builder
from distort.kernels.compiler.ir import Tensor
from distort.kernels.compiler.lower.resizing import of_node
from distort.kernels.cuda.lower import lowers_cuda
from distort.kernels.cuda.operations import CudaResize
from distort.kernels.errors import KernelError
from distort.kernels.ops.resize import nearest_indices, weights_of

Result = list[Tensor | None] | None
_REALS = ("float32", "float64", "float16", "bfloat16")
#: elements that one sum has, at most, where axes are done at once
_MOST_TAPS = 16
#: tables count elements in 32 bits
_MOST_PLACES = 1 << 31


@lowers_cuda("Resize", "Upsample")
def _resize(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    x = inputs[0]
    if x is None or any(t is not None and t.value is None for t in inputs[1:]):
        return None
    known: list[Any] = [None if t is None else t.value for t in inputs[1:]]
    try:
        plans, method = of_node(node, np.broadcast_to(np.zeros((), x.dtype), x.shape), known)
    except KernelError:
        return None
    active = [a for a, plan in enumerate(plans) if plan.scale != 1 or plan.roi not in (None, (0.0, 1.0))]
    if not active:
        return [x]
    if 0 in (plan.out for plan in plans):
        return [b.new(x.dtype, [plan.out for plan in plans])]
    weighs = method.mode != "nearest"
    if weighs and x.element not in _REALS:
        return None
    tables: dict[int, tuple[np.ndarray[Any, Any], np.ndarray[Any, Any] | None]] = {}
    for axis in active:
        if weighs:
            places, weights, outside = weights_of(plans[axis], method)
            tables[axis] = places, weights
        else:
            nearest, outside, _ = nearest_indices(plans[axis], method)
            tables[axis] = nearest[None], None
        if outside is not None:
            return None
    together = math.prod(len(places) for places, _ in tables.values()) <= _MOST_TAPS
    # axes that shrink first: less is left for the others
    order = sorted(active, key=lambda axis: plans[axis].out / plans[axis].size)
    for axes in [sorted(active)] if together else [[axis] for axis in order]:
        if sum(abs(s) * (n - 1) for n, s in zip(x.shape, x.strides, strict=True)) >= _MOST_PLACES:
            return None
        x = _resized(b, x, {axis: tables[axis] for axis in axes})
    return [x]


def _resized(b: Builder, x: Tensor, tables: dict[int, tuple[Any, Any]]) -> Tensor:
    inputs = [x]
    shape = list(x.shape)
    precise = np.float64 if x.element == "float64" else np.float32
    for axis, (places, weights) in tables.items():
        shape[axis] = places.shape[1]
        inputs.append(b.constant((places * x.strides[axis]).astype(np.int32)))
        if weights is not None:
            inputs.append(b.constant(weights.astype(precise)))
    result = b.new(x.dtype, shape)
    b.add(CudaResize(inputs, [result], tuple(tables), weights is not None))
    return result
