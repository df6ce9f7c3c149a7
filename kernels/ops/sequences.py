"""Sequences and optionals. A sequence is a list, an optional without an element is None.

Lists are never changed in place: two values of a model may share one.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from distort.kernels.errors import InvalidInput
from distort.kernels.ops.shape import axis_of
from distort.kernels.registry import kernel


@kernel("SequenceConstruct", 11)
def sequence_construct(xp: Any, *inputs: Any) -> Any:
    if any(item.dtype != inputs[0].dtype for item in inputs):
        raise InvalidInput(f"items have the element types {', '.join(sorted({str(i.dtype) for i in inputs}))}")
    return list(inputs)


@kernel("SequenceEmpty", 11)
def sequence_empty(xp: Any, *, dtype: int | None = None) -> Any:
    return []


def _position(position: Any, least: int, most: int) -> int:
    """The position an int32 or int64 scalar names. Raises InvalidInput outside of least..most."""
    if position.size != 1:
        raise InvalidInput(f"the position in a sequence must be a scalar, not shape {list(position.shape)}")
    value = int(position.reshape(()).item())
    if not least <= value <= most:
        size = -least
        raise InvalidInput(f"Invalid sequence index ({value}) specified for sequence of size ({size})")
    return value


@kernel("SequenceInsert", 11, host=(2,))
def sequence_insert(xp: Any, sequence: list[Any], item: Any, position: Any = None) -> Any:
    """The item goes before ``position``, a number in [-n, n]; at the end without one."""
    if sequence and sequence[0].dtype != item.dtype:
        raise InvalidInput(f"an item of element type {item.dtype} in a sequence of {sequence[0].dtype}")
    n = len(sequence)
    at = n if position is None else _position(position, -n, n)
    at = at + n if at < 0 else at
    return [*sequence[:at], item, *sequence[at:]]


@kernel("SequenceErase", 11, host=(1,))
def sequence_erase(xp: Any, sequence: list[Any], position: Any = None) -> Any:
    """Without the item at ``position``, a number in [-n, n - 1]; without the last one if there is no position."""
    n = len(sequence)
    if not n:
        raise InvalidInput("SequenceErase of an empty sequence")
    at = n - 1 if position is None else _position(position, -n, n - 1) % n
    return [*sequence[:at], *sequence[at + 1 :]]


@kernel("SequenceAt", 11, host=(1,))
def sequence_at(xp: Any, sequence: list[Any], position: Any) -> Any:
    return sequence[_position(position, -len(sequence), len(sequence) - 1)]


@kernel("SequenceLength", 11)
def sequence_length(xp: Any, sequence: list[Any]) -> Any:
    return np.array(len(sequence), dtype=np.int64)


@kernel("ConcatFromSequence", 11)
def concat_from_sequence(xp: Any, sequence: list[Any], *, axis: int, new_axis: int = 0) -> Any:
    """``new_axis`` 1 stacks along an axis that the items lack."""
    if not sequence:
        raise InvalidInput("ConcatFromSequence of an empty sequence")
    if new_axis not in (0, 1):
        raise InvalidInput(f"new_axis is {new_axis}, expected 0 or 1")
    position = axis_of(axis, sequence[0].ndim + new_axis)
    try:
        return (xp.stack if new_axis else xp.concatenate)(sequence, position)
    except ValueError:
        shapes = ", ".join(str(list(item.shape)) for item in sequence)
        raise InvalidInput(f"ConcatFromSequence can't join shapes {shapes} along axis {axis}") from None


@kernel("SplitToSequence", 11, host=(1,))
def split_to_sequence(xp: Any, x: Any, split: Any = None, *, axis: int = 0, keepdims: int = 1) -> Any:
    """Parts of the sizes in ``split``, or all of one size (the last may be smaller); single items without it."""
    position = axis_of(axis, x.ndim)
    total = x.shape[position]
    before = (slice(None),) * position
    if split is None and not keepdims:
        return [x[(*before, i)] for i in range(total)]
    if split is None or split.ndim == 0:
        size = 1 if split is None else int(split)
        if size < 1:
            raise InvalidInput(f"split is {size}, expected 1 or more")
        bounds = [*range(0, total, size), total]
    else:
        sizes = split.tolist()
        if any(size < 0 for size in sizes) or sum(sizes) != total:
            raise InvalidInput(f"split sizes {sizes} don't add up to axis {axis} of shape {list(x.shape)}")
        bounds = [0, *np.cumsum(sizes).tolist()]
    return [x[(*before, slice(start, end))] for start, end in pairwise(bounds)]


@kernel("Optional", 15)
def optional(xp: Any, x: Any = None, *, type: Any = None) -> Any:  # ONNX's name of the attribute
    if x is None and type is None:
        raise InvalidInput("Optional without an input needs the attribute 'type'")
    return x


@kernel("OptionalGetElement", 15)
def optional_get_element(xp: Any, x: Any) -> Any:
    if x is None:
        raise InvalidInput("OptionalGetElement of an optional that is empty")
    return x


@kernel("OptionalHasElement", 15)
def optional_has_element(xp: Any, x: Any = None) -> Any:
    return np.array(x is not None)
