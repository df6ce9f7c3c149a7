"""Reading by index: Gather, GatherElements, GatherND; ReverseSequence."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from distort.graph.ir import Node
from distort.kernels.compiler.builder import Builder, lowers
from distort.kernels.compiler.ir import Call, ErrorWord, Native, Tensor, Word
from distort.kernels.compiler.keys import Key
from distort.kernels.compiler.loops import merged

Result = list[Tensor | None] | None

#: elements that one thread copies at once
CHUNK = 4096
#: rows of so few elements are copied without a loop
_FEW = 8
_ROW_NS, _ELEMENT_NS, _BYTE_NS = 8.0, 0.6, 0.06
_INDEX_TYPES = {"int32": "i32", "int64": "i64"}


def element_of(tensor: Tensor) -> str:
    """The LLVM type that moves an element, whatever it means."""
    return f"i{8 * tensor.dtype.itemsize}"


def _axis(node: Node, x: Tensor) -> int | None:
    axis = node.attributes.get("axis", 0)
    rank = len(x.shape)
    return axis % rank if -rank <= axis < rank else None


@lowers("Gather")
def _gather(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    x, indices = inputs
    if x is None or indices is None or indices.element not in _INDEX_TYPES:
        return None
    axis = _axis(node, x)
    if axis is None:
        return None
    x, size = b.plain(x), x.shape[axis]
    shape = [*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]]
    if indices.value is not None:
        found = np.asarray(indices.value, np.int64)
        if found.size and not -size <= found.min() <= found.max() < size:
            return None
        found = np.where(found < 0, found + size, found)
        view = regular(x, axis, found)
        if view is not None:
            return [view]
    if 0 in shape:
        return [b.new(x.dtype, shape)]
    if not size:
        return None
    return [b.gathered(x, axis, indices).reshaped(shape)]


def regular(x: Tensor, axis: int, indices: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> Tensor | None:
    """A view, where known indices (counted from the front) go up or down by the same step."""
    if indices.ndim > 1 or not indices.size:
        return None
    flat = indices.reshape(-1)
    step = int(flat[1] - flat[0]) if flat.size > 1 else 0
    if (np.diff(flat) != step).any():
        return None
    shape, strides = list(x.shape), list(x.strides)
    extra = int(flat[0]) * strides[axis]
    shape[axis : axis + 1] = indices.shape
    strides[axis : axis + 1] = [step * strides[axis]] * indices.ndim
    return x.view(shape, strides, extra if math.prod(shape) else 0)


def gathered(b: Builder, x: Tensor, axis: int, indices: Tensor) -> Tensor:
    """x [outer…, n, inner…] at indices: [outer…, number of indices, inner…], contiguous. No size is 0."""
    indices = b.contiguous(b.plain(indices))
    outer, inner = x.shape[:axis], x.shape[axis + 1 :]
    n_outer, count = math.prod(outer), math.prod(inner)
    (_, (outer_steps,)), (_, (inner_steps,)) = merged(outer, [x.strides[:axis]]), merged(inner, [x.strides[axis + 1 :]])
    if len(outer_steps) > 1 or inner_steps not in ([0], [1]) or inner_steps[0] != (count > 1):
        x = b.contiguous(x)
        outer_steps = [x.shape[axis] * count]
    result = b.new(x.dtype, [*outer, indices.size, *inner])
    along = (x.shape[axis], x.strides[axis])
    if count == 1:
        shape = [n_outer, indices.size]
        source, places = x.view(shape, [outer_steps[0], 0]), indices.view(shape, [0, 1])
        _elements(b, source, along, places, result.view(shape, [indices.size, 1]))
    else:
        _rows(b, x, n_outer, outer_steps[0], indices.size, indices, 0, [along], count, result)
    return result


def _rows(
    b: Builder,
    x: Tensor,
    n_outer: int,
    x_step: int,
    n_rows: int,
    indices: Tensor,
    indices_step: int,
    axes: Sequence[tuple[int, int]],
    count: int,
    result: Tensor,
) -> None:
    """``axes``: size and step of each axis that is indexed."""
    chunk = min(CHUNK, count)
    words: list[Word] = [n_outer, n_rows, count, chunk, x.address(), x_step]
    words += [result.address(), indices.address(), indices_step, ErrorWord()]
    for size, step in axes:
        words += [size, step]
    n_units = n_outer * n_rows * -(-count // chunk)
    key = Key("gather_rows", (element_of(x), _INDEX_TYPES[indices.element], len(axes), count if count <= _FEW else 0))
    call = Call(key, words, n_units * _ROW_NS + result.nbytes * _BYTE_NS, most_threads=n_units)
    b.add(Native([x, indices], [result], [call]))


def _elements(b: Builder, x: Tensor, axis: tuple[int, int], indices: Tensor, result: Tensor) -> None:
    """All three of one shape; x has the stride 0 where it is indexed. ``axis``: size and step of what is indexed."""
    shape, (x_strides, index_strides, _) = merged(result.shape, [x.strides, indices.strides, result.strides])
    in_rows = index_strides[-1] == 0 and x_strides[-1] == 1
    if not in_rows and index_strides[-1] != 1 and shape[-1] > 1:
        return _elements(b, x, axis, b.contiguous(indices), result)
    size, step = axis
    reach = abs(step) * size + abs(x_strides[-1]) * shape[-1]
    chunk = min(CHUNK, shape[-1])
    n_chunks = math.prod(shape[:-1]) * -(-shape[-1] // chunk)
    words: list[Word] = [n_chunks, chunk, shape[-1], x.address(), step, x_strides[-1]]
    words += [result.address(), indices.address(), ErrorWord(), size]
    words += [*shape[:-1], *index_strides[:-1], *x_strides[:-1]]
    offset_type = "i32" if reach < 1 << 31 else "i64"
    key = Key(
        "gather_elements",
        (element_of(x), _INDEX_TYPES[indices.element], offset_type, len(shape) - 1, in_rows),
    )
    cost = result.size * (_ELEMENT_NS if not in_rows else _BYTE_NS * x.dtype.itemsize) + n_chunks * _ROW_NS
    b.add(Native([x, indices], [result], [Call(key, words, cost, most_threads=n_chunks)]))
    return None


def axis_of_elements(node: Node, x: Tensor, indices: Tensor) -> int | None:
    """The axis that indices count along; None where they don't go with x: along the others they are no longer."""
    axis = _axis(node, x)
    if axis is None or len(x.shape) != len(indices.shape):
        return None
    fits = all(n <= m for i, (n, m) in enumerate(zip(indices.shape, x.shape, strict=True)) if i != axis)
    return axis if fits else None


@lowers("GatherElements")
def _gather_elements(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    x, indices = inputs
    if x is None or indices is None or indices.element not in _INDEX_TYPES:
        return None
    axis = axis_of_elements(node, x, indices)
    if axis is None:
        return None
    if math.prod(indices.shape) and not x.shape[axis]:
        return None
    return [b.gathered_elements(b.plain(x), axis, b.plain(indices))]


def gathered_elements(b: Builder, x: Tensor, axis: int, indices: Tensor) -> Tensor:
    """Along one axis, which has elements; indices are no longer along the others than x."""
    result = b.new(x.dtype, indices.shape)
    if result.size:
        strides = list(x.strides)
        strides[axis] = 0
        _elements(b, x.view(indices.shape, strides), (x.shape[axis], x.strides[axis]), indices, result)
    return result


@lowers("GatherND")
@lowers("GatherND", domain="com.microsoft")
def _gather_nd(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    x, indices = inputs
    if x is None or indices is None or indices.element not in _INDEX_TYPES or not indices.shape:
        return None
    batch, depth = node.attributes.get("batch_dims", 0), indices.shape[-1]
    rank = len(x.shape)
    if not 0 <= batch < len(indices.shape) or not 1 <= depth <= rank - batch or depth > 8:
        return None
    if x.shape[:batch] != indices.shape[:batch]:
        return None
    shape = [*indices.shape[:-1], *x.shape[batch + depth :]]
    result = b.new(x.dtype, shape)
    if not result.size:
        return [result]
    if 0 in x.shape:
        return None
    x, indices = b.contiguous(b.plain(x)), b.contiguous(b.plain(indices))
    n_outer, n_rows = math.prod(shape[:batch]), math.prod(indices.shape[batch:-1])
    axes = list(zip(x.shape[batch : batch + depth], x.strides[batch : batch + depth], strict=True))
    count = math.prod(x.shape[batch + depth :])
    _rows(b, x, n_outer, math.prod(x.shape[batch:]), n_rows, indices, n_rows * depth, axes, count, result)
    return [result]


@lowers("ReverseSequence")
def _reverse_sequence(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    x, lengths = inputs
    batch, time = node.attributes.get("batch_axis", 1), node.attributes.get("time_axis", 0)
    if x is None or lengths is None or lengths.element not in _INDEX_TYPES or len(x.shape) < 2:
        return None
    if {batch, time} != {0, 1} or lengths.shape != x.shape[batch : batch + 1]:
        return None
    result = b.new(x.dtype, x.shape)
    if not result.size:
        return None
    x, lengths = b.contiguous(b.plain(x)), b.contiguous(b.plain(lengths))
    count = math.prod(x.shape[2:])
    steps = (x.shape[1] * count, count)
    n_rows = x.shape[0] * x.shape[1]
    words: list[Word] = [x.shape[batch], x.shape[time], count, x.address(), result.address()]
    words += [steps[batch], steps[time], lengths.address(), ErrorWord()]
    key = Key("reversed", (element_of(x), _INDEX_TYPES[lengths.element]))
    call = Call(key, words, n_rows * _ROW_NS + x.nbytes * _BYTE_NS, most_threads=n_rows)
    b.add(Native([x, lengths], [result], [call]))
    return [result]
