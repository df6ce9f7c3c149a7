"""Reading and writing by index: Gather*, Scatter*, OneHot, NonZero, Compress, TopK, Unique, ReverseSequence."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from distort.kernels.errors import Failed, InvalidInput, KernelError
from distort.kernels.ops.shape import axis_of
from distort.kernels.registry import kernel


def checked(xp: Any, indices: Any, size: int, error: type[KernelError] = InvalidInput) -> Any:
    """Indices within [-size, size - 1]; numpy and cupy take negative ones as ONNX does."""
    if indices.size:
        low, high = int(indices.min()), int(indices.max())
        if low < -size or high >= size:
            bad = low if low < -size else high
            raise error(
                f"indices element out of data bounds, idx={bad} must be within the inclusive range [{-size},{size - 1}]"
            )
    return indices


@kernel("Gather")
def gather(xp: Any, x: Any, indices: Any, *, axis: int = 0) -> Any:
    position = axis_of(axis, x.ndim)
    if xp is np and indices.ndim:
        try:
            return x.take(indices, axis=position)
        except IndexError:
            checked(xp, indices, x.shape[position])
            raise
    checked(xp, indices, x.shape[position])
    if indices.ndim == 0 and xp is np:
        # a view where one item is taken; the ellipsis keeps a 0-d array an array
        return x[(*(slice(None),) * position, int(indices), ...)]
    return xp.asarray(xp.take(x, indices, axis=position))


@kernel("GatherElements", 11)
def gather_elements(xp: Any, x: Any, indices: Any, *, axis: int = 0) -> Any:
    position = axis_of(axis, x.ndim)
    checked(xp, indices, x.shape[position], Failed)
    return x[_element_index(xp, indices, position)]


def _element_index(xp: Any, indices: Any, axis: int) -> tuple[Any, ...]:
    """An index that picks one element for each of ``indices``; other axes by their own positions."""
    grids = [
        xp.arange(size).reshape([-1 if other == position else 1 for other in range(indices.ndim)])
        for position, size in enumerate(indices.shape)
    ]
    grids[axis] = indices
    return tuple(grids)


@kernel("GatherND", 11)
def gather_nd(xp: Any, x: Any, indices: Any, *, batch_dims: int = 0) -> Any:
    index = _nd_index(xp, x, indices, batch_dims)
    return x[(*index, ...)]


def _nd_index(xp: Any, x: Any, indices: Any, batch_dims: int = 0) -> list[Any]:
    depth = indices.shape[-1]
    if depth + batch_dims > x.ndim or depth < 1:
        raise InvalidInput(f"indices of shape {list(indices.shape)} don't fit data of shape {list(x.shape)}")
    if x.shape[:batch_dims] != indices.shape[:batch_dims]:
        raise InvalidInput(f"the first {batch_dims} axes of {list(x.shape)} and {list(indices.shape)} differ")
    index: list[Any] = [
        xp.arange(size).reshape([-1 if other == position else 1 for other in range(indices.ndim - 1)])
        for position, size in enumerate(indices.shape[:batch_dims])
    ]
    for position in range(depth):
        index.append(checked(xp, indices[..., position], x.shape[batch_dims + position]))
    return index


def _reduce_at(xp: Any, target: Any, index: tuple[Any, ...], updates: Any, reduction: str) -> None:
    if reduction == "none":
        target[index] = updates
        return
    functions = {"add": "add", "mul": "multiply", "max": "maximum", "min": "minimum"}
    if reduction not in functions:
        raise InvalidInput(f"no reduction {reduction!r}")
    getattr(xp, functions[reduction]).at(target, index, updates)


@kernel("Scatter", 9)
def scatter(xp: Any, x: Any, indices: Any, updates: Any, *, axis: int = 0) -> Any:
    return scatter_elements(xp, x, indices, updates, axis=axis)


@kernel("ScatterElements", 11)
def scatter_elements(xp: Any, x: Any, indices: Any, updates: Any, *, axis: int = 0, reduction: str = "none") -> Any:
    if indices.shape != updates.shape:
        raise InvalidInput(f"indices {list(indices.shape)} and updates {list(updates.shape)} differ in shape")
    position = axis_of(axis, x.ndim)
    checked(xp, indices, x.shape[position])
    result = x.copy()
    _reduce_at(xp, result, _element_index(xp, indices, position), updates, reduction)
    return result


@kernel("ScatterND", 11)
def scatter_nd(xp: Any, x: Any, indices: Any, updates: Any, *, reduction: str = "none") -> Any:
    result = x.copy()
    index = tuple(_nd_index(xp, x, indices))
    expected = indices.shape[:-1] + x.shape[indices.shape[-1] :]
    if updates.shape != expected:
        raise InvalidInput(f"updates have shape {list(updates.shape)}, expected {list(expected)}")
    _reduce_at(xp, result, index, updates, reduction)
    return result


@kernel("TensorScatter", 24)
def tensor_scatter(
    xp: Any, past: Any, update: Any, write_indices: Any = None, *, mode: str = "linear", axis: int = -2
) -> Any:
    """Write ``update`` into a cache at each batch's position; ``circular`` wraps around."""
    position = axis_of(axis, past.ndim)
    size, length = past.shape[position], update.shape[position]
    starts = xp.zeros(past.shape[0], dtype=np.int64) if write_indices is None else write_indices
    where = starts.reshape(-1, 1) + xp.arange(length)
    if mode == "circular":
        where = where % size
    elif where.size and int(where.max()) >= size:
        raise InvalidInput(f"write_indices plus {length} exceed the cache's {size}")
    moved = xp.moveaxis(past, position, 1).copy()
    moved[xp.arange(past.shape[0]).reshape(-1, 1), where] = xp.moveaxis(update, position, 1)
    return xp.ascontiguousarray(xp.moveaxis(moved, 1, position))


@kernel("OneHot", 9, host=(1,))
def one_hot(xp: Any, indices: Any, depth: Any, values: Any, *, axis: int = -1) -> Any:
    """Indices out of [-depth, depth - 1] give a row of off values."""
    size = int(depth.reshape(-1)[0])
    if size < 1:
        raise InvalidInput(f"Depth must be positive, not {size}")
    position = axis_of(axis, indices.ndim + 1)
    whole = indices.astype(np.int64)
    whole = xp.where(whole < 0, whole + size, whole)
    grid = xp.arange(size).reshape([-1 if other == position else 1 for other in range(indices.ndim + 1)])
    hot = xp.expand_dims(whole, position) == grid
    return xp.where(hot, values[1], values[0]).astype(values.dtype, copy=False)


@kernel("NonZero", 9)
def nonzero(xp: Any, x: Any) -> Any:
    if x.ndim == 0:
        return xp.zeros((0, int(bool(x))), dtype=np.int64)
    if x.dtype == object:
        x = x != ""
    return xp.stack(xp.nonzero(x)).astype(np.int64, copy=False)


@kernel("Compress", 9)
def compress(xp: Any, x: Any, condition: Any, *, axis: int | None = None) -> Any:
    flat = x.reshape(-1) if axis is None else x
    position = 0 if axis is None else axis_of(axis, x.ndim)
    chosen = xp.nonzero(condition.reshape(-1)[: flat.shape[position]])[0]
    return xp.take(flat, chosen, axis=position)


@kernel("TopK", 1, host=(1,))
def top_k(xp: Any, x: Any, k: Any, *, axis: int = -1, largest: int = 1, sorted: int = 1) -> Any:
    """The k largest or smallest, equal ones by their index; NaN counts as the largest."""
    count = int(k.reshape(-1)[0])
    position = axis_of(axis, x.ndim)
    if not 0 <= count <= x.shape[position]:
        raise Failed(f"k argument [{count}] should not be greater than specified axis dim value [{x.shape[position]}]")
    if xp is np and 0 < count < x.shape[position] // 8 and _is_sortable(x.dtype) and not _has_nan(xp, x):
        rows = xp.moveaxis(x, position, -1)
        few = _contenders(xp, rows, count, largest)
        values = xp.take_along_axis(rows, few, axis=-1)
        indices = xp.take_along_axis(few, _ranked(xp, values, largest, -1), axis=-1)
        indices = xp.moveaxis(indices, -1, position)
    else:
        indices = xp.take(_ranked(xp, x, largest, position), xp.arange(count), axis=position)
    return xp.take_along_axis(x, indices, axis=position), indices.astype(np.int64, copy=False)


def _ranked(xp: Any, x: Any, largest: int, axis: int) -> Any:
    """Indices along the axis, best first, the lower index first among equals."""
    if xp is not np and x.dtype.kind == "V":
        x = x.astype(xp.float32)  # cupy sorts no bfloat16
    if not largest:
        return xp.argsort(x, axis=axis, kind="stable")
    # a stable sort of the reversed axis puts the lower index first among equals
    flipped = xp.argsort(xp.flip(x, axis), axis=axis, kind="stable")
    return x.shape[axis] - 1 - xp.flip(flipped, axis)


def _is_sortable(dtype: Any) -> bool:
    return dtype.kind in "iuf" and dtype.isbuiltin != 2


def _has_nan(xp: Any, x: Any) -> bool:
    return x.dtype.kind == "f" and bool(xp.isnan(x).any())


def _contenders(xp: Any, rows: Any, count: int, largest: int) -> Any:
    """Ascending indices [..., count] of the best of each row, of equals those with lower indices."""
    size = rows.shape[-1]
    place = size - count if largest else count - 1
    limit = xp.partition(rows, place, axis=-1)[..., place, None]
    chosen = rows > limit if largest else rows < limit
    equal = rows == limit
    room = count - chosen.sum(axis=-1, keepdims=True)
    if bool((equal.sum(axis=-1, keepdims=True) > room).any()):
        equal &= xp.cumsum(equal, axis=-1) <= room
    chosen |= equal
    return (xp.flatnonzero(chosen) % size).reshape(*rows.shape[:-1], count)


def _unique_by_lexsort(xp: Any, x: Any, axis: int) -> tuple[Any, Any, Any, Any]:
    """As ``numpy.unique`` along an axis. CuPy's compares slices one after another, by differences that overflow."""
    n = x.shape[axis]
    rows = xp.moveaxis(x, axis, 0).reshape(n, math.prod(x.shape) // n if n else 0)
    order = xp.lexsort(xp.ascontiguousarray(rows.T[::-1])) if rows.size else xp.arange(n)
    starts = xp.ones(n, bool)
    starts[1:] = (rows[order[1:]] != rows[order[:-1]]).any(axis=1)
    places = xp.flatnonzero(starts)
    inverse = xp.empty(n, np.int64)
    inverse[order] = xp.cumsum(starts) - 1
    counts = xp.diff(places, append=xp.full(1, n, places.dtype))
    first = order[places]
    return xp.take(x, first, axis=axis), first, inverse, counts


@kernel("Unique", 11)
def unique(xp: Any, x: Any, *, axis: int | None = None, sorted: int = 1) -> Any:
    flat = x if axis is not None else x.reshape(-1)
    position = axis_of(axis, x.ndim) if axis is not None else 0
    if flat.dtype == object:
        flat = flat.astype(str)
    if xp is not np and flat.dtype.kind == "V":
        flat = flat.astype(xp.float32)  # cupy sorts no bfloat16
    if xp is np:
        values, first, inverse, counts = np.unique(
            flat, return_index=True, return_inverse=True, return_counts=True, axis=position
        )
        inverse = inverse.reshape(-1)
    else:
        values, first, inverse, counts = _unique_by_lexsort(xp, flat, position)
    if not sorted:
        order = xp.argsort(first)
        rank = xp.empty_like(order)
        rank[order] = xp.arange(order.size)
        values, first, counts = xp.take(values, order, axis=position), first[order], counts[order]
        inverse = rank[inverse]
    integers = (first.astype(np.int64), inverse.astype(np.int64), counts.astype(np.int64))
    return (values.astype(x.dtype), *integers)


@kernel("ReverseSequence", 10)
def reverse_sequence(xp: Any, x: Any, lengths: Any, *, batch_axis: int = 1, time_axis: int = 0) -> Any:
    batch, steps = axis_of(batch_axis, x.ndim), axis_of(time_axis, x.ndim)
    moved = xp.moveaxis(x, (batch, steps), (0, 1))
    size = moved.shape[1]
    if lengths.shape != moved.shape[:1] or (lengths.size and not 0 <= int(lengths.min()) <= int(lengths.max()) <= size):
        raise Failed(f"sequence_lens {lengths.tolist()} don't fit shape {list(x.shape)}")
    time = xp.arange(size).reshape(1, -1)
    limit = lengths.reshape(-1, 1)
    order = xp.where(time < limit, limit - 1 - time, time)
    result = moved[xp.arange(moved.shape[0]).reshape(-1, 1), order]
    return xp.ascontiguousarray(xp.moveaxis(result, (0, 1), (batch, steps)))
