"""Shapes and views: Shape, Size, Reshape, Squeeze, Unsqueeze, Flatten, Transpose, Expand, Tile."""

from __future__ import annotations

from typing import Any

import numpy as np

from distort.kernels.errors import Failed, InvalidInput
from distort.kernels.registry import kernel


def vector(values: Any, what: str) -> list[int]:
    """The entries of an integer vector that steers a kernel. Raises InvalidInput for another rank."""
    if values.ndim != 1:
        raise InvalidInput(f"{what} must be a vector, not a tensor of shape {list(values.shape)}")
    found: list[int] = values.tolist()
    return found


def axes_of(axes: Any, rank: int) -> tuple[int, ...]:
    """Axes counted from the front; raises for one out of range or listed twice."""
    found = []
    if hasattr(axes, "tolist"):
        axes = vector(axes.reshape(1) if not axes.ndim else axes, "axes")
    for axis in axes:
        if not -rank <= axis < rank:
            raise Failed(f"axis {axis} is out of range for rank {rank}")
        found.append(axis + rank if axis < 0 else axis)
    if len(set(found)) != len(found):
        raise InvalidInput(f"axes {found} repeat one")
    return tuple(found)


def axis_of(axis: int, rank: int) -> int:
    """One axis counted from the front."""
    if not -rank <= axis < rank:
        raise Failed(f"axis {axis} is out of range for rank {rank}")
    return axis + rank if axis < 0 else axis


@kernel("Shape")
def shape(xp: Any, x: Any, *, start: int = 0, end: int | None = None) -> Any:
    sizes = x.shape
    if start or end is not None:
        rank = len(sizes)
        first = min(max(start + rank if start < 0 else start, 0), rank)
        last = rank if end is None else min(max(end + rank if end < 0 else end, 0), rank)
        sizes = sizes[first:last]
    return np.array(sizes, dtype=np.int64)


@kernel("Size")
def size(xp: Any, x: Any) -> Any:
    return np.array(x.size, dtype=np.int64)


@kernel("Reshape", host=(1,))
def reshape(xp: Any, x: Any, target: Any, *, allowzero: int = 0, consumed_inputs: Any = None) -> Any:
    sizes = vector(target, "the shape of Reshape")
    if 0 in sizes and not allowzero:
        if any(size == 0 and position >= x.ndim for position, size in enumerate(sizes)):
            raise InvalidInput(f"0 in {sizes} copies a dimension that input shape {list(x.shape)} lacks")
        sizes = [x.shape[position] if size == 0 else size for position, size in enumerate(sizes)]
    try:
        return x.reshape(sizes)
    except ValueError:
        given, wanted = (",".join(map(str, shape)) for shape in (x.shape, target.tolist()))
        raise Failed(
            "The input tensor cannot be reshaped to the requested shape. "
            f"Input shape:{{{given}}}, requested shape:{{{wanted}}}"
        ) from None


@kernel("Squeeze", host=(1,))
def squeeze(xp: Any, x: Any, axes: Any = None) -> Any:
    if axes is None:
        return x.reshape([size for size in x.shape if size != 1])
    chosen = axes_of(axes, x.ndim)
    for axis in chosen:
        if x.shape[axis] != 1:
            raise Failed(f"Squeeze can't remove axis {axis} of shape {list(x.shape)}: it is not 1")
    return x.reshape([size for axis, size in enumerate(x.shape) if axis not in chosen])


@kernel("Unsqueeze", host=(1,))
def unsqueeze(xp: Any, x: Any, axes: Any) -> Any:
    wanted = axes.reshape(-1)
    chosen = axes_of(wanted, x.ndim + wanted.size)
    sizes = iter(x.shape)
    return x.reshape([1 if axis in chosen else next(sizes) for axis in range(x.ndim + wanted.size)])


@kernel("Flatten")
def flatten(xp: Any, x: Any, *, axis: int = 1) -> Any:
    if not -x.ndim <= axis <= x.ndim:
        raise InvalidInput(f"axis {axis} is out of range for rank {x.ndim}")
    position = axis + x.ndim if axis < 0 else axis
    return x.reshape(int(np.prod(x.shape[:position])), int(np.prod(x.shape[position:])))


@kernel("Transpose")
def transpose(xp: Any, x: Any, *, perm: list[int] | None = None) -> Any:
    if perm is None:
        return x.T
    if len(perm) != x.ndim:
        raise InvalidInput(f"perm {perm} does not fit shape {list(x.shape)}")
    return x.transpose(perm)


@kernel("Expand", 8, host=(1,))
def expand(xp: Any, x: Any, target: Any) -> Any:
    """Two-sided broadcast: a 1 in ``target`` keeps the input's size."""
    sizes = vector(target, "the shape of Expand")
    try:
        return xp.broadcast_to(x, np.broadcast_shapes(x.shape, tuple(sizes)))
    except ValueError:
        raise InvalidInput(f"invalid expand shape: {list(x.shape)} does not broadcast to {sizes}") from None


@kernel("Tile", 6, host=(1,))
def tile(xp: Any, x: Any, repeats: Any) -> Any:
    counts = repeats.reshape(-1).tolist()
    if len(counts) != x.ndim:
        raise InvalidInput(f"'repeat' input tensor must have the same length as the 'input' tensor: {counts}, {x.ndim}")
    if any(count < 0 for count in counts):
        raise InvalidInput(f"repeats {counts} must not be negative")
    return xp.tile(x, counts)


@kernel("Tile", 1, host=(1, 2))
def tile_axis(xp: Any, x: Any, tiles: Any, axis: Any) -> Any:
    counts = [1] * x.ndim
    counts[axis_of(int(axis.reshape(-1)[0]), x.ndim)] = int(tiles.reshape(-1)[0])
    return xp.tile(x, counts)


@kernel("Trilu", 14, host=(1,))
def trilu(xp: Any, x: Any, k: Any = None, *, upper: int = 1) -> Any:
    diagonal = 0 if k is None else int(k.reshape(-1)[0])
    if x.ndim < 2:
        raise InvalidInput(f"Trilu needs at least two axes, not shape {list(x.shape)}")
    return xp.triu(x, diagonal) if upper else xp.tril(x, diagonal)
