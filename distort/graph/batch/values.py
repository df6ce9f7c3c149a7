"""What the proof knows of a value: its shape for a batch of one sample, and where samples lie in it.

The batch size is N, unknown and at least 1. A value is one of these:

- the same for every part: ``Tensor`` without an axis;
- made of samples: ``Tensor`` with an axis, along which each sample has the same number of rows, one sample after the
  other. What a batch gives is then what its parts give, concatenated along the axis;
- laid out like that, but computed from the numbers of the samples, which begin anew in each part (``Content``);
- a small tensor of integers that is computed from N, such as a shape: ``Sizes`` with a ``Size`` among its elements.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

import numpy as np

#: elements of a tensor whose values are followed; shapes, axes, pads and scales are smaller
FOLLOWED = 64

#: integers below it are exact in float32
EXACT = 1 << 24

Dims = tuple[int | None, ...]  # None: not known, and the same for every part


class Refused(Exception):
    """A rule can't show that the node keeps samples apart; the text says why."""


@dataclass(frozen=True, slots=True)
class Size:
    """``per_sample`` · N + ``fixed``, with ``per_sample`` other than 0."""

    per_sample: int
    fixed: int = 0

    def __str__(self) -> str:
        grows = "N" if self.per_sample == 1 else f"{self.per_sample}·N"
        return f"{grows}{self.fixed:+d}" if self.fixed else grows


#: an integer; one that grows with the batch; or one that isn't known, and is the same for every part
Element = int | Size | None


class Content(Enum):
    """What the elements of a tensor with an axis are."""

    SAMPLES = auto()  #: what parts give, concatenated
    NUMBERS = auto()  #: all elements of a sample are its number
    INDICES = auto()  #: along the last axis the first element is the sample's number, others are SAMPLES
    MIXED = auto()  #: computed from numbers in some other way; only the shape is of use


@dataclass(frozen=True, slots=True, eq=False)
class Tensor:
    """A tensor. With an axis, ``shape`` is known in rank, and ``shape[axis]`` is the rows of one sample."""

    shape: Dims | None = None
    axis: int | None = None
    array: np.ndarray[Any, Any] | None = None  # its elements, where they are few and known
    content: Content = Content.SAMPLES

    def __post_init__(self) -> None:
        if self.axis is not None:
            rows = self.shape[self.axis] if self.shape is not None and 0 <= self.axis < len(self.shape) else None
            if rows is None or rows < 1:
                raise Refused("it makes a value of which the rows that belong to a sample aren't known")

    @property
    def dims(self) -> Dims:
        if self.shape is None:
            raise Refused("the rank of one of its inputs isn't known")
        return self.shape

    @property
    def rank(self) -> int:
        return len(self.dims)

    @property
    def batch_axis(self) -> int:
        """The axis of a value that is made of samples."""
        if self.axis is None:
            raise Refused("it reads a value that is the same for every part where it needs one made of samples")
        return self.axis

    @property
    def rows(self) -> int:
        """Rows of one sample along the axis."""
        rows = self.dims[self.batch_axis]
        assert rows is not None  # __post_init__
        return rows


@dataclass(frozen=True, slots=True)
class Sizes:
    """A tensor of integers (or truth values) of rank 0 or 1, element by element."""

    elements: tuple[Element, ...]
    rank: int
    dtype: np.dtype[Any]

    @property
    def grows(self) -> bool:
        """Whether it isn't the same for every part."""
        return any(isinstance(element, Size) for element in self.elements)

    def settled(self) -> Sizes | Tensor:
        """As a tensor with known elements where all are numbers."""
        if not all(isinstance(element, int) for element in self.elements):
            return self
        array = np.array(self.elements, dtype=self.dtype)
        array = array.reshape(()) if self.rank == 0 else array
        return Tensor(array.shape, None, array)

    def tensor(self) -> Tensor:
        """What is left of it where elements don't matter."""
        return Tensor((len(self.elements),) if self.rank else ())


Value = Tensor | Sizes


def of_array(array: np.ndarray[Any, Any]) -> Tensor:
    """A value that no run changes."""
    return Tensor(tuple(array.shape), None, array if array.size <= FOLLOWED else None)


def elements_of(value: Value | None) -> tuple[Element, ...] | None:
    """Elements of a vector or a scalar of whole numbers, as far as they are known; None where nothing is."""
    if isinstance(value, Sizes):
        return value.elements
    if value is None or value.axis is not None or value.array is None or value.array.ndim > 1:
        return None
    if value.array.dtype.kind in "iub":
        return tuple(int(element) for element in value.array.reshape(-1).tolist())
    if value.array.dtype not in (np.float32, np.float64):
        return None
    return tuple(_whole(element) for element in value.array.reshape(-1).tolist())


def _whole(number: float) -> int | None:
    return int(number) if abs(number) < EXACT and number.is_integer() else None


def shape_elements(value: Tensor) -> tuple[Element, ...]:
    """The dimensions of a value as a run sees them."""
    return tuple(Size(value.rows) if i == value.axis else dim for i, dim in enumerate(value.dims))


def product(dims: Iterable[int | None]) -> int | None:
    """None where a factor isn't known, but for a known 0."""
    total: int | None = 1
    for dim in dims:
        if dim == 0:
            return 0
        total = None if dim is None or total is None else total * dim
    return total


def normalized(axis: int, rank: int) -> int:
    """A negative axis counted from the end."""
    axis = axis + rank if axis < 0 else axis
    if not 0 <= axis < rank:
        raise Refused(f"axis {axis} is none of its input's {rank}")
    return axis


def same(first: Value | None, second: Value | None) -> bool:
    """Whether two values are described alike."""
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        arrays = (first.array, second.array)
        equal = all(a is None for a in arrays) or (
            first.array is not None
            and second.array is not None
            and first.array.dtype == second.array.dtype
            and np.array_equal(first.array, second.array)
        )
        known = (first.shape, first.axis, first.content) == (second.shape, second.axis, second.content)
        return known and equal
    return first == second


def joined(first: Value, second: Value, what: str) -> Value:
    """What is true of both. Raises Refused where samples lie differently in them."""
    if same(first, second):
        return first
    if any(isinstance(value, Sizes) and value.grows for value in (first, second)):
        raise Refused(f"{what} differs with the batch size")
    one, other = (value.tensor() if isinstance(value, Sizes) else value for value in (first, second))
    if one.content is not other.content or one.content is not Content.SAMPLES:
        raise Refused(f"{what} is computed from the numbers of the samples")
    if one.axis != other.axis:
        raise Refused(f"samples lie along different axes of {what}")
    if one.shape is None or other.shape is None or len(one.shape) != len(other.shape):
        if one.axis is not None:
            raise Refused(f"the rank of {what} differs")
        return Tensor()
    if one.axis is not None and one.rows != other.rows:
        raise Refused(f"the rows of a sample in {what} differ")
    return Tensor(tuple(a if a == b else None for a, b in zip(one.shape, other.shape, strict=True)), one.axis)
