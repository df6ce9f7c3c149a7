"""Operators whose results depend on shapes and known numbers: ConstantOfShape, Range, EyeLike; Trilu and OneHot."""

from __future__ import annotations

import math

import numpy as np

from distort.graph.ir import Node
from distort.graph.types import DTYPE_OF
from distort.kernels.compiler.builder import Builder, lowers
from distort.kernels.compiler.expression import STORED, Instruction, name_of
from distort.kernels.compiler.ir import Tensor
from distort.kernels.compiler.lower.expecting import counted, length_of, shape_of
from distort.kernels.compiler.lower.views import numbers
from distort.kernels.program import evaluate

Result = list[Tensor | None] | None

#: what is made before the run, at most, in bytes
_MADE_NBYTES = 1 << 24


@lowers("ConstantOfShape")
def _constant_of_shape(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    shape, value = numbers(inputs[0]), node.attributes.get("value")
    value = np.zeros(1, np.float32) if value is None else np.asarray(value)
    if value.size != 1 or name_of(value.dtype) not in STORED:
        return None
    if shape is None:
        seen = shape_of(b, node, inputs[0])
        return None if seen is None else [b.constant(value.reshape(())).broadcast(seen)]
    if any(n < 0 for n in shape):
        return None
    return [b.constant(value.reshape(())).broadcast(shape)]


@lowers("Range")
def _range(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    start, limit, delta = (None if t is None or t.value is None else t.value.reshape(-1) for t in inputs)
    if start is None or limit is None or delta is None:
        return counted(b, node, inputs)
    if not delta[0]:
        return None
    if (float(limit[0]) - float(start[0])) / float(delta[0]) * start.dtype.itemsize > _MADE_NBYTES:
        return None
    made = evaluate(node, [start, limit, delta])
    return None if made is None else [b.constant(made[0])]


@lowers("EyeLike")
def _eye_like(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    (x,) = inputs
    assert x is not None
    number = node.attributes.get("dtype")
    dtype = x.dtype if number is None else DTYPE_OF.get(number)
    if dtype is None or len(x.shape) != 2 or name_of(np.dtype(dtype)) not in STORED:
        return None
    if x.size * np.dtype(dtype).itemsize > _MADE_NBYTES:
        return None
    return [b.constant(np.eye(*x.shape, k=node.attributes.get("k", 0), dtype=dtype))]


@lowers("Trilu")
@lowers("Trilu", domain="com.microsoft")
def _trilu(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    x, diagonal = inputs[0], [0]
    assert x is not None
    if len(inputs) > 1 and inputs[1] is not None:
        found = numbers(inputs[1])
        if not found:
            return None
        diagonal = found
    if len(x.shape) < 2 or math.prod(x.shape[-2:]) > _MADE_NBYTES:
        return None
    upper, k = bool(node.attributes.get("upper", 1)), diagonal[0]

    def mask() -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
        ones = np.ones(x.shape[-2:], np.bool_)
        return np.triu(ones, k) if upper else np.tril(ones, k)

    kept = b.packed(("trilu", x.shape[-2:], upper, k), mask)
    return [b.map("where", [kept, b.plain(x), b.constant(np.zeros((), x.dtype))], x.dtype)]


@lowers("OneHot")
def _one_hot(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    indices, depth, values = inputs[0], numbers(inputs[1]), inputs[2]
    if indices is None or values is None or values.shape != (2,) or indices.dtype.kind != "i":
        return None
    rank, axis = len(indices.shape) + 1, node.attributes.get("axis", -1)
    size = depth[0] if depth else length_of(b, node, axis, inputs[1])
    if size is None or size < 1:
        return None
    if not -rank <= axis < rank or size > np.iinfo(indices.dtype).max:
        return None
    axis %= rank
    indices = b.plain(indices)
    wide = indices.view(
        [*indices.shape[:axis], 1, *indices.shape[axis:]], [*indices.strides[:axis], 0, *indices.strides[axis:]]
    )
    places = np.arange(size, dtype=indices.dtype).reshape([-1 if i == axis else 1 for i in range(rank)])
    off, on = (b.plain(values).view((), (), i) for i in range(2))
    if values.value is not None:
        off, on = (b.constant(values.value[i]) for i in range(2))
    # a negative index counts from the end; one out of range is nowhere
    index, dtype = indices.element, values.element
    body = [
        Instruction("sub", (1, 4), index),
        Instruction("equal", (0, 1), "bool"),
        Instruction("equal", (0, 5), "bool"),
        Instruction("or", (6, 7), "bool"),
        Instruction("where", (8, 3, 2), dtype),
    ]
    end = b.number("size", size, indices.dtype)
    return [b.map("", [wide, b.constant(places), off, on, end], values.dtype, body=body)]
