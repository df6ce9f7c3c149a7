"""Values whose shapes follow from numbers of the run: NonZero, Compress, Range and others, with shapes that earlier
runs had; and what else runs are expected to have.

A run that finds others is refused, and the next plan has NumPy kernels instead.
"""

from __future__ import annotations

import math

import numpy as np

from distort.graph.ir import Node
from distort.kernels.compiler.builder import Builder, lowers
from distort.kernels.compiler.codegen.expecting import MOST
from distort.kernels.compiler.ir import Call, ErrorWord, Native, Tensor, Word
from distort.kernels.compiler.keys import Key

Result = list[Tensor | None] | None
_INDEXED = frozenset(["bool", "int8", "uint8", "int16", "int32", "int64", "float32", "float64"])
_COUNTED = frozenset(["int16", "int32", "int64"])


@lowers("NonZero")
def _nonzero(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    (x,) = inputs
    if x is None or not x.shape or not x.size or x.element not in _INDEXED:
        return None
    shape = b.expected(node.outputs[0])
    if shape is None or len(shape) != 2 or shape[0] != len(x.shape) or shape[1] > x.size:
        return None
    return [_places(b, x, shape[1])]


def _places(b: Builder, x: Tensor, count: int) -> Tensor:
    """Where x is not 0: [rank, count]. A run in which there are more or fewer such places is refused."""
    return b.places(b.contiguous(b.plain(x)), count)


def places_kernel(b: Builder, x: Tensor, count: int) -> Tensor:
    """As :meth:`Builder.places`."""
    result = b.new(np.int64, (len(x.shape), count))
    words: list[Word] = [x.size, count, x.address(), result.address(), ErrorWord(), *x.shape]
    key = Key("nonzero", (x.element, len(x.shape)))
    b.add(Native([x], [result], [Call(key, words, x.size * 0.8 + count * 4.0 * len(x.shape), most_threads=1)]))
    return result


@lowers("Compress")
def _compress(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    x, condition = inputs
    axis = node.attributes.get("axis")
    if x is None or condition is None or condition.dtype != bool or not x.size or not condition.size:
        return None
    rank = 1 if axis is None else len(x.shape)
    axis = 0 if axis is None else axis
    if not -rank <= axis < rank:
        return None
    axis %= rank
    shape = b.expected(node.outputs[0])
    x = b.contiguous(b.plain(x)).reshaped((x.size,)) if rank != len(x.shape) else b.plain(x)
    if shape is None or len(shape) != rank or shape[axis] > x.shape[axis]:
        return None
    flat = b.contiguous(b.plain(condition)).reshaped((condition.size,))
    places = _places(b, flat.view((min(flat.size, x.shape[axis]),), (1,)), shape[axis])
    return [b.gathered(x, axis, places.reshaped((shape[axis],))) if shape[axis] else b.new(x.dtype, shape)]


def counted(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    """Range of numbers that are made in the run."""
    parts = [t for t in inputs if t is not None]
    if len(parts) != 3 or parts[0].element not in _COUNTED or any(t.size != 1 for t in parts):
        return None
    if any(t.dtype != parts[0].dtype for t in parts):
        return None
    shape = b.expected(node.outputs[0])
    if shape is None or len(shape) != 1 or shape[0] >= MOST:
        return None
    return [b.counting([b.contiguous(b.plain(t)) for t in parts], shape[0])]


def counting_kernel(b: Builder, parts: list[Tensor], count: int) -> Tensor:
    """As :meth:`Builder.counting`."""
    result = b.new(parts[0].dtype, (count,))
    words: list[Word] = [count, *(t.address() for t in parts), result.address(), ErrorWord()]
    b.add(Native(parts, [result], [Call(Key("counting", (parts[0].element,)), words, count * 0.5, most_threads=1)]))
    return result


def repeats(b: Builder, node: Node, x: Tensor, counts: Tensor | None) -> list[int] | None:
    """Of a Tile, by the shape that its result had; they are checked in the run."""
    if counts is None or counts.dtype != np.int64 or counts.shape != (len(x.shape),) or not math.prod(x.shape):
        return None
    shape = b.expected(node.outputs[0])
    if shape is None or len(shape) != len(x.shape) or any(n % size for n, size in zip(shape, x.shape, strict=True)):
        return None
    found = [n // size for n, size in zip(shape, x.shape, strict=True)]
    expect(b, counts, found)
    return found


def expect(b: Builder, given: Tensor, wanted: list[int], other: list[int] | None = None) -> None:
    """Refuse a run in which integers (int64) are not these, each of them or what ``other`` has in its place."""
    given = b.contiguous(b.plain(given))
    b.refuse_others(given, *(b.constant(np.array(values, np.int64)) for values in (wanted, other or wanted)))


def refuse_kernel(b: Builder, given: Tensor, *known: Tensor) -> None:
    """As :meth:`Builder.refuse_others`."""
    words: list[Word] = [given.size, given.address(), *(t.address() for t in known), ErrorWord()]
    call = Call(Key("expect_same", ()), words, given.size * 1.0, most_threads=1)
    b.add(Native([given, *known], [], [call]))


def expect_no_zero(b: Builder, divisor: Tensor) -> bool:
    """Refuse a run in which an integer is 0. False where there is no kernel that looks."""
    if not divisor.size:
        return False
    from distort.kernels.compiler.rows import Body

    zeros = b.map("equal", [divisor, b.constant(np.zeros((), divisor.dtype))], np.bool_)
    numbers = b.contiguous(b.map("cast", [zeros], np.int64)).reshaped((divisor.size,))
    body = Body(numbers.shape, "int64")
    made = body.add(b, (0,), [(body.op("row_sum", body.input(numbers)), "int64", True)])
    if made is None:
        return False
    expect(b, made[0], [0])
    return True


def length_of(b: Builder, node: Node, axis: int, given: Tensor | None) -> int | None:
    """An axis of the node's first result, which is what one number of the run says."""
    if given is None or given.dtype != np.int64 or given.size != 1:
        return None
    shape = b.expected(node.outputs[0])
    if shape is None or not -len(shape) <= axis < len(shape):
        return None
    expect(b, given, [shape[axis]])
    return shape[axis]


def shape_of(b: Builder, node: Node, given: Tensor | None, source: tuple[int, ...] = ()) -> tuple[int, ...] | None:
    """The shape of the node's result, which numbers of the run say; 1 there means what ``source`` has, to the right."""
    if given is None or given.dtype != np.int64 or len(given.shape) != 1:
        return None
    shape = b.expected(node.outputs[0])
    if shape is None or len(shape) < given.size:
        return None
    wanted = shape[len(shape) - given.size :]
    longer = (1,) * len(wanted) + source
    other = [1 if size == own else size for size, own in zip(wanted, longer[len(longer) - len(wanted) :], strict=True)]
    expect(b, given, list(wanted), other)
    return shape


__all__ = [
    "counted",
    "counting_kernel",
    "expect",
    "expect_no_zero",
    "length_of",
    "places_kernel",
    "refuse_kernel",
    "repeats",
    "shape_of",
]
