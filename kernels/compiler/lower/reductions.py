"""Reductions along axes: Reduce*, ArgMax, ArgMin."""

from __future__ import annotations

import math

import numpy as np

from distort.graph.ir import Node
from distort.kernels.compiler import half
from distort.kernels.compiler.builder import Builder, lowers
from distort.kernels.compiler.depths import flat
from distort.kernels.compiler.ir import Tensor
from distort.kernels.compiler.lower.rows import statistics_dtype
from distort.kernels.compiler.lower.views import reshape
from distort.kernels.compiler.rows import Body

Result = list[Tensor | None] | None
_OF_INTEGERS = ("ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceSumSquare", "ReduceL1")
_OPERATORS = (*_OF_INTEGERS, "ReduceMean", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp")


def _axes(node: Node, inputs: list[Tensor | None], rank: int) -> list[int] | None:
    """The axes that are reduced; None where they are not known or wrong."""
    given = inputs[1] if len(inputs) > 1 else None
    if given is not None and given.value is None:
        return None
    axes = [] if given is None or given.value is None else [int(a) for a in given.value.reshape(-1)]
    if not axes:
        axes = [] if node.attributes.get("noop_with_empty_axes", 0) else list(range(rank))
    if any(not -rank <= axis < rank for axis in axes) or len({axis % rank for axis in axes}) != len(axes):
        return None
    return sorted(axis % rank for axis in axes)


@lowers(*_OPERATORS, blocks=True)
def reduce(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    x = inputs[0]
    axes = None if x is None else _axes(node, inputs, len(x.shape))
    if x is not None and x.block:
        if node.op_type == "ReduceMean" and axes == list(range(2, len(x.shape))):
            from distort.kernels.compiler.codegen import pooling

            mean = half.narrowed(b, of_all_pixels(b, half.widened(b, x), pooling.MEAN), x.dtype)
            return [mean if node.attributes.get("keepdims", 1) else reshape(b, mean, x.shape[:2])]
        x = b.plain(x)
    if x is None or not axes or not x.size or x.dtype.kind == "b":
        return None
    real = x.dtype.kind not in "iu"
    if not real and node.op_type not in _OF_INTEGERS:
        return None
    keep = bool(node.attributes.get("keepdims", 1))
    shape = tuple(1 if axis in axes else size for axis, size in enumerate(x.shape))
    shape = shape if keep else tuple(size for axis, size in enumerate(x.shape) if axis not in axes)
    for source in (x, None):
        if source is None:
            # no kernel goes through so many loops: a copy has the reduced axes last
            order = [*(axis for axis in range(len(x.shape)) if axis not in axes), *axes]
            source = b.contiguous(x.permuted(order))
            axes = list(range(len(order) - len(axes), len(order)))
        body = Body(source.shape, statistics_dtype(source) if real else source.element)
        result = _value(body, body.input(source), node.op_type, source.element)
        made = body.add(b, axes, [(result, source.element, True)])
        if made is not None:
            return [made[0].reshaped(shape)]
    return None


def of_all_pixels(b: Builder, x: Tensor, mode: str) -> Tensor:
    """[N, C, …] in blocks to [N, C, 1, …]: the mean or the largest of each channel."""
    from distort.kernels.compiler.codegen import pooling
    from distort.kernels.compiler.windowed import global_pool  # where no value is in blocks, nothing of this is

    images = flat(x)
    if images is x or images is None:
        return global_pool(b, x, mode)
    n, c, d, _, _ = x.shape
    one = b.plain(global_pool(b, images, mode))
    of_depths = one.view((n, d, c), (d * one.strides[0], one.strides[0], 1))
    body = Body(of_depths.shape, "float32")
    result = body.op("row_max" if mode == pooling.MAX else "row_mean", body.input(of_depths))
    made = body.add(b, (1,), [(result, "float32", True)])
    assert made is not None
    return made[0].reshaped((n, c, 1, 1, 1))


def _value(body: Body, x: int, op_type: str, dtype: str) -> int:
    """What is one a row. The last instruction has the operand's dtype, others that of sums."""
    if op_type in ("ReduceMax", "ReduceMin"):
        return body.op(f"row_{op_type[6:].lower()}", x, dtype=dtype)
    if op_type in ("ReduceSum", "ReduceMean", "ReduceProd"):
        return body.op(f"row_{op_type[6:].lower()}", x, dtype=dtype)
    if op_type == "ReduceL1":
        return body.op("row_sum", body.op("abs", x), dtype=dtype)
    if op_type == "ReduceSumSquare":
        return body.op("row_sum", body.op("mul", x, x), dtype=dtype)
    if op_type == "ReduceL2":
        return body.op("sqrt", body.op("row_sum", body.op("mul", x, x)), dtype=dtype)
    if op_type == "ReduceLogSum":
        return body.op("log", body.op("row_sum", x), dtype=dtype)
    largest = body.op("row_max", x)
    finite = body.op("less", body.op("abs", largest), body.number(math.inf), dtype="bool")
    shift = body.op("where", finite, largest, body.number(0.0))  # ∞ - ∞ would be NaN
    total = body.op("row_sum", body.op("exp", body.op("sub", x, shift)))
    return body.op("add", body.op("log", total), shift, dtype=dtype)


@lowers("ArgMax", "ArgMin")
def _place(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    (x,) = inputs
    rank = 0 if x is None else len(x.shape)
    axis = node.attributes.get("axis", 0)
    if x is None or not x.size or x.dtype.kind == "b" or not -rank <= axis < rank:
        return None
    axis %= rank
    body = Body(x.shape, x.element)
    attributes = ("last",) if node.attributes.get("select_last_index", 0) else ()
    result = body.op(f"row_{node.op_type.lower()}", body.input(x), attributes=attributes, dtype="int64")
    made = body.add(b, (axis,), [(result, "int64", True)])
    if made is None:
        return None
    if node.attributes.get("keepdims", 1):
        return [made[0]]
    return [made[0].reshaped([size for i, size in enumerate(x.shape) if i != axis])]


@lowers("Hardmax")
def _hardmax(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    """1 at the first of the largest elements, 0 elsewhere."""
    (x,) = inputs
    rank = 0 if x is None else len(x.shape)
    axis = node.attributes.get("axis", -1 if node.opset >= 13 else 1)
    if x is None or not x.size or x.element not in ("float32", "float64") or not -rank <= axis < rank:
        return None
    axis, shape = axis % rank, x.shape
    if node.opset < 13 and axis != rank - 1:
        x = b.contiguous(x).reshaped((math.prod(shape[:axis]), math.prod(shape[axis:])))
        axis = 1
    body = Body(x.shape, x.element)
    made = body.add(b, (axis,), [(body.op("row_argmax", body.input(x), dtype="int64"), "int64", True)])
    if made is None:
        return None
    places = np.arange(x.shape[axis]).reshape([-1 if i == axis else 1 for i in range(len(x.shape))])
    hit = b.map("equal", [made[0], b.constant(places)], np.bool_)
    one, zero = (b.constant(np.asarray(number, x.dtype)) for number in (1, 0))
    return [b.map("where", [hit, one, zero], x.dtype).reshaped(shape)]
