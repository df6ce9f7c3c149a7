"""Writing by index: ScatterElements, ScatterND. What isn't written is copied first."""

from __future__ import annotations

import math

from distort.graph.ir import Node
from distort.kernels.compiler.builder import Builder, lowers
from distort.kernels.compiler.ir import Call, ErrorWord, Native, Tensor, Word
from distort.kernels.compiler.keys import Key
from distort.kernels.compiler.loops import merged
from distort.kernels.compiler.lower.gathering import axis_of_elements, element_of

Result = list[Tensor | None] | None

#: columns that a thread writes at once: of rows, and of single elements
_PART, _COLUMNS = 256, 64
_ROW_NS, _ELEMENT_NS, _BYTE_NS = 8.0, 1.5, 0.06
_INDEX_TYPES = {"int32": "i32", "int64": "i64"}
_REDUCED = frozenset(["float32", "float64", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))])


def given(node: Node, inputs: list[Tensor | None]) -> tuple[Tensor, Tensor, Tensor, str] | None:
    """x, indices and updates of types that go together, and the reduction; None where they don't."""
    x, indices, updates = inputs
    reduction = node.attributes.get("reduction", "none")
    if x is None or indices is None or updates is None or indices.element not in _INDEX_TYPES:
        return None
    if x.dtype != updates.dtype or reduction not in ("none", "add", "mul", "max", "min"):
        return None
    return x, indices, updates, reduction


def _kept(b: Builder, node: Node, inputs: list[Tensor | None]) -> tuple[Tensor, Tensor, Tensor, str] | None:
    """x, indices and updates as they lie, and how the key names their elements."""
    found = given(node, inputs)
    if found is None:
        return None
    x, indices, updates, reduction = found
    if reduction != "none" and x.element not in _REDUCED:
        return None
    name = element_of(x) if reduction == "none" else x.element
    return b.plain(x), b.contiguous(b.plain(indices)), b.contiguous(b.plain(updates)), name


@lowers("ScatterND")
def _scatter_nd(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    kept = _kept(b, node, inputs)
    if kept is None:
        return None
    x, indices, updates, name = kept
    depth = indices.shape[-1] if indices.shape else 0
    if not 1 <= depth <= min(len(x.shape), 8) or updates.shape != indices.shape[:-1] + x.shape[depth:]:
        return None
    result = b.new(x.dtype, x.shape)
    if 0 in x.shape:
        return None if indices.size else [result]
    b.copy(x, result)
    n_rows, count = math.prod(indices.shape[:-1]), math.prod(x.shape[depth:])
    part = min(_PART, count)
    words: list[Word] = [n_rows, count, part, result.address(), updates.address(), indices.address(), ErrorWord()]
    for size, step in zip(x.shape[:depth], result.strides[:depth], strict=True):
        words += [size, step]
    key = Key("scatter_rows", (name, node.attributes.get("reduction", "none"), _INDEX_TYPES[indices.element], depth))
    work = n_rows * _ROW_NS + updates.nbytes * _BYTE_NS
    _change(b, result, indices, updates, Call(key, words, work, most_threads=-(-count // part)))
    return [result]


def _change(b: Builder, result: Tensor, indices: Tensor, updates: Tensor, call: Call) -> None:
    """A step that changes a tensor: it reads it too, so that nothing overtakes it."""
    if updates.size:
        b.add(Native([result, indices, updates], [result], [call]))


@lowers("ScatterElements", "Scatter")
def scatter_elements(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    kept = _kept(b, node, inputs)
    if kept is None:
        return None
    x, indices, updates, name = kept
    axis = axis_of_elements(node, x, indices)
    if axis is None or indices.shape != updates.shape:
        return None
    others = [i for i in range(len(x.shape)) if i != axis]
    result = b.new(x.dtype, x.shape)
    if 0 in x.shape:
        return None if indices.size else [result]
    b.copy(x, result)
    shape, (index_steps, result_steps) = merged(
        [indices.shape[i] for i in others], [[t.strides[i] for i in others] for t in (indices, result)]
    )
    if index_steps[-1] == result_steps[-1] == 1:
        n_columns = shape.pop()
        del index_steps[-1], result_steps[-1]
    else:
        n_columns = 1
    part = min(_COLUMNS, n_columns)
    n_units = math.prod(shape) * -(-n_columns // part)
    words: list[Word] = [n_units, n_columns, part, indices.shape[axis], indices.strides[axis]]
    words += [x.shape[axis], result.strides[axis], result.address(), updates.address(), indices.address(), ErrorWord()]
    words += [*shape, *index_steps, *result_steps]
    reduction = node.attributes.get("reduction", "none")
    key = Key("scatter_elements", (name, reduction, _INDEX_TYPES[indices.element], len(shape)))
    _change(b, result, indices, updates, Call(key, words, indices.size * _ELEMENT_NS, most_threads=n_units))
    return [result]
