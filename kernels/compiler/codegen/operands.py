"""Operands of kernels that go over elements: where their rows are, and how the inner loop goes through them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from distort.kernels.compiler.codegen import elements
from distort.kernels.compiler.codegen.text import Function, Index, Value
from distort.kernels.compiler.expression import STORED

#: how the inner loop goes through an operand
BROADCAST, CONTIGUOUS, STRIDED = 0, 1, 2
#: of ``turned``
TURNED = 3


@dataclass(slots=True)
class Operand:
    """``strides`` of the outer loops, in elements; ``step`` is the inner one's, where it is ``STRIDED``."""

    dtype: str
    how: int
    address: Value
    strides: list[Value]
    step: Value | None = None

    def load(self, f: Function, base: Value, index: Index, lanes: int, mask: Value | None = None) -> Value:
        """Elements from ``index`` of a row on, in the type that is computed with."""
        if self.how == BROADCAST:
            return f.splat(elements.load(f, base, self.dtype, 1), lanes)
        if self.how == CONTIGUOUS:
            return elements.load(f, f.at(base, index, STORED[self.dtype]), self.dtype, lanes, mask)
        assert mask is None and self.step is not None
        first = f.at(base, f.mul(index, self.step), STORED[self.dtype])
        if lanes == 1:
            return elements.load(f, first, self.dtype, 1)
        found = f.undef(f"<{lanes} x {STORED[self.dtype]}>")
        for lane in range(lanes):
            one = f.load(STORED[self.dtype], f.at(first, f.mul(self.step, lane), STORED[self.dtype]))
            found = f.insert(found, one, lane)
        return elements.computed(f, found, self.dtype)

    def store(self, f: Function, value: Value, base: Value, index: Index, mask: Value | None = None) -> None:
        if self.how != STRIDED:
            elements.store(f, value, f.at(base, index, STORED[self.dtype]), self.dtype, mask)
            return
        assert mask is None and self.step is not None
        value = elements.stored(f, value, self.dtype)
        lanes = elements.lanes_of(value.type)
        first = f.at(base, f.mul(index, self.step), STORED[self.dtype])
        for lane in range(lanes):
            one = value if lanes == 1 else f.extract(value, lane)
            f.store(one, f.at(first, f.mul(self.step, lane), STORED[self.dtype]))


def read_operands(
    f: Function, words: Iterator[int], dtypes: Sequence[str], inner: Sequence[int], n_outer: int
) -> list[Operand]:
    """From the words of a step: for each its address, the strides of outer loops, and the step of a strided one."""
    operands = []
    for dtype, how in zip(dtypes, inner, strict=True):
        address = f.address(next(words))
        strides = [f.word(next(words)) for _ in range(n_outer)]
        operands.append(Operand(dtype, how, address, strides, f.word(next(words)) if how == STRIDED else None))
    return operands


def _moved(f: Function, operands: Sequence[Operand], bases: Sequence[Value], index: Index, loop: int) -> list[Value]:
    return [f.at(base, f.mul(index, o.strides[loop]), STORED[o.dtype]) for o, base in zip(operands, bases, strict=True)]


@contextmanager
def each_row(
    f: Function, sizes: Sequence[Value], operands: Sequence[Operand], first: Index, last: Index
) -> Iterator[tuple[Index, list[Value]]]:
    """A loop over rows ``first`` to before ``last`` of the outer loops: each row's number and where operands begin.

    Only outer loops but the last are found by division, once for all passes of the last.
    """
    bases = [operand.address for operand in operands]
    if not sizes:
        with f.loop(first, last) as only:
            yield only.index, bases
        return
    n_inside = sizes[-1]
    begin, end = f.div(first, n_inside), f.div(f.add(last, f.sub(n_inside, 1)), n_inside)
    with f.loop(begin, end) as outer:
        rest: Index = outer.index
        for loop in range(len(sizes) - 2, -1, -1):
            index = f.rem(rest, sizes[loop]) if loop else rest
            rest = f.div(rest, sizes[loop]) if loop else rest
            bases = _moved(f, operands, bases, index, loop)
        before = f.mul(outer.index, n_inside)
        low, high = f.max(f.sub(first, before), 0), f.min(f.sub(last, before), n_inside)
        with f.loop(low, high) as inside:
            yield f.add(before, inside.index), _moved(f, operands, bases, inside.index, len(sizes) - 1)
