"""Tensor operations: what a graph is lowered to, and what is fused, placed and printed.

A tensor is a view of a buffer: a shape, strides and an offset, in elements. Reshapes, transposes and slices make views
and no work. An operation reads tensors and writes tensors; in the end it says which kernels it calls (:class:`Call`).
"""

from __future__ import annotations

import enum
import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from distort.kernels.compiler.expression import Expression, name_of
from distort.kernels.compiler.keys import Key

if TYPE_CHECKING:
    from distort.graph.ir import Node
    from distort.kernels.compiler.codegen.target import Target

Array = np.ndarray[Any, Any]
ALIGNMENT = 64


class Place(enum.Enum):
    ARENA = enum.auto()  # made and read within a run
    CONSTANT = enum.auto()  # a weight, or packed from one
    FEED = enum.auto()  # the caller's
    RESULT = enum.auto()  # made for the caller


@dataclass(eq=False, slots=True)
class Buffer:
    """Memory of a run. ``number`` is that of the feed or result; ``offset`` bytes from the arena's begin."""

    nbytes: int
    place: Place = Place.ARENA
    array: Array | None = None  # of a constant
    number: int = -1
    offset: int = -1
    #: whether it is written again in each round of a loop, or by the one or the other branch
    changes: bool = False


@dataclass(eq=False, slots=True)
class Address:
    """A byte of a buffer, as a word of a step."""

    buffer: Buffer
    offset: int = 0


@dataclass(eq=False, slots=True)
class Tensor:
    """``strides`` and ``offset`` count elements. ``value`` is there where it is known before the run."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    buffer: Buffer
    offset: int = 0
    value: Array | None = None
    #: channels in blocks: the memory is [N, C/block, spatial dimensions, block], contiguous; ``shape`` stays [N, C, …]
    block: int = 0
    #: a number that is known, and is another in other shapes of runs: no kernel should be made for it
    varies: bool = False
    #: of one in blocks: as it lies, see ``layout.memory``
    inner: Tensor | None = None

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    @property
    def element(self) -> str:
        return name_of(self.dtype)

    @property
    def contiguous(self) -> bool:
        return not self.block and (self.strides == strides_of(self.shape) or is_dense(self.shape, self.strides))

    @property
    def whole(self) -> bool:
        """Whether it is contiguous and covers its buffer."""
        return self.contiguous and self.offset == 0 and self.nbytes == self.buffer.nbytes

    def address(self, extra: int = 0) -> Address:
        """Of its first element, or one that comes ``extra`` elements later."""
        return Address(self.buffer, (self.offset + extra) * self.dtype.itemsize)

    def view(self, shape: Sequence[int], strides: Sequence[int], extra: int = 0) -> Tensor:
        """Another view of the memory; ``extra`` elements further."""
        return Tensor(self.dtype, tuple(shape), tuple(strides), self.buffer, self.offset + extra)

    def reshaped(self, shape: Sequence[int]) -> Tensor:
        """The same elements in another shape; only where it is contiguous."""
        shape = tuple(shape)
        assert self.contiguous and math.prod(shape) == math.prod(self.shape)
        value = None if self.value is None else self.value.reshape(shape)
        return Tensor(self.dtype, shape, strides_of(shape), self.buffer, self.offset, value, varies=self.varies)

    def permuted(self, axes: Sequence[int]) -> Tensor:
        shape, strides = tuple([self.shape[a] for a in axes]), tuple([self.strides[a] for a in axes])
        value = None if self.value is None else self.value.transpose(axes)
        return Tensor(self.dtype, shape, strides, self.buffer, self.offset, value)

    def broadcast(self, shape: Sequence[int]) -> Tensor:
        """As seen in a larger shape: dimensions that are repeated have stride 0."""
        shape = tuple(shape)
        strides = repeating(self.shape, self.strides, len(shape))
        if shape == self.shape and strides == self.strides and self.value is None and not self.block:
            return self
        return Tensor(self.dtype, shape, strides, self.buffer, self.offset)


#: layers of a model have the same shapes
_remembered = functools.lru_cache(8192)

#: of values that go together, by numpy's rules; raises ValueError
broadcast_shape: Callable[..., tuple[int, ...]] = _remembered(np.broadcast_shapes)


@_remembered
def repeating(shape: tuple[int, ...], strides: tuple[int, ...], rank: int) -> tuple[int, ...]:
    """Strides of a view of a larger shape with ``rank`` dimensions."""
    own = [0 if size == 1 else stride for size, stride in zip(shape, strides, strict=True)]
    return (*[0] * (rank - len(shape)), *own)


def strides_of(shape: Sequence[int]) -> tuple[int, ...]:
    """Of contiguous elements."""
    return _strides_of(tuple(shape))


@_remembered
def _strides_of(shape: tuple[int, ...]) -> tuple[int, ...]:
    strides = []
    step = 1
    for size in reversed(shape):
        strides.append(step)
        step *= size
    return tuple(reversed(strides))


def is_dense(shape: Sequence[int], strides: Sequence[int]) -> bool:
    """Whether elements lie next to each other in order; strides of dimensions of one element don't matter."""
    step = 1
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if size == 0:
            return True
        if size != 1 and stride != step:
            return False
        step *= size
    return True


@dataclass(frozen=True, slots=True)
class Scratch:
    """Stands for the address of the step's scratch memory among its words."""


@dataclass(frozen=True, slots=True)
class ErrorWord:
    """Stands for the address of the run's error word: a kernel writes 1 there where it is given what the NumPy kernel
    would refuse, as an index out of range, and goes on with a harmless value. The plain program then says why."""


Word = int | Address | Scratch | ErrorWord


@dataclass(slots=True)
class Call:
    """A kernel with its words. ``work_ns``: about how long one thread takes, which decides how many take part."""

    key: Key
    words: list[Word]
    work_ns: float
    #: memory for the step alone: what ``Scratch`` words point to
    scratch_nbytes: int = 0
    #: the most threads that have work
    most_threads: int = 1 << 30
    #: whether its threads wait for each other: then each does exactly one part
    meets: bool = False


@dataclass(eq=False)
class Operation:
    """``inputs`` and ``outputs`` are all that it reads and writes. ``names`` of the nodes that it stands for."""

    inputs: list[Tensor]
    outputs: list[Tensor]
    names: list[str] = field(default_factory=list, kw_only=True)
    #: what is done as often: 0 for what is done once, a number for each branch and each body of a loop
    region: int = field(default=0, kw_only=True)
    kind: ClassVar[str] = ""
    #: whether calls follow from the fields and from how tensors lie alone, see ``repeats``
    repeats: ClassVar[bool] = False

    def calls(self, target: Target, n_threads: int) -> list[Call]:
        """The kernels that do it, in order."""
        raise NotImplementedError

    def absorb(self, after: Map, position: int, target: Target) -> Operation | None:
        """This operation with ``after`` done to its result on the way, which is input ``position`` of it.

        None where it can't. Only asked where nobody else reads the result and the shapes are the same.
        """
        del after, position, target
        return None

    def absorb_before(self, before: Map, position: int, target: Target) -> Operation | None:
        """This operation with ``before``, which makes input ``position``, done while it is read. None where it can't.

        Only asked where nobody else reads that input.
        """
        del before, position, target
        return None

    def join(self, after: Operation, position: int, target: Target) -> Operation | None:
        """One operation that does this and, in place of input ``position``, ``after``. None where there is none.

        Only asked where nobody else reads the result, and where neither absorbs the other.
        """
        del after, position, target
        return None


@dataclass(eq=False)
class Map(Operation):
    """Element-wise work over ``shape``: all operands are views of that shape, with stride 0 where repeated."""

    expression: Expression
    kind: ClassVar[str] = "map"
    repeats: ClassVar[bool] = True

    @property
    def shape(self) -> tuple[int, ...]:
        return self.outputs[0].shape

    def calls(self, target: Target, n_threads: int) -> list[Call]:
        from distort.kernels.compiler.loops import map_call

        return map_call(self, target, n_threads)


@dataclass(eq=False)
class Native(Operation):
    """Kernels that nothing is fused with."""

    made: list[Call]
    kind: ClassVar[str] = "native"

    def calls(self, target: Target, n_threads: int) -> list[Call]:
        del target, n_threads
        return self.made


@dataclass(eq=False)
class Mark(Operation):
    """A place among operations that jumps lead to."""

    inputs: list[Tensor] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)
    kind: ClassVar[str] = "mark"


@dataclass(eq=False)
class Jump(Operation):
    """Go on at ``to`` where the only input, one bool, is ``when``; without an input, always.

    Without ``to`` nothing more is done: the run has been refused, see :class:`ErrorWord`.
    """

    to: Mark | None
    when: bool = True
    kind: ClassVar[str] = "jump"


@dataclass(eq=False)
class Host(Operation):
    """A node that a NumPy kernel runs. ``inputs`` are those that are tensors; see ``arguments``."""

    node: Node  # in its newest form
    origin: Node  # as the graph has it
    #: in the node's order: a tensor, a value that is no tensor or whose shape is not known (by name), or None
    arguments: list[Tensor | str | None]
    results: list[Tensor | str | None]
    kind: ClassVar[str] = "host"
