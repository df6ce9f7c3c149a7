"""Row operations: element-wise work with reductions over some dimensions, and what is fused with it.

The operands of a :class:`Rows` are views of one shape, some of whose axes are reduced; results have that shape, or 1 at
the reduced axes. Kernels are ``rows`` where elements along the reduced axes are neighbours, otherwise ``columns``.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from distort.kernels.compiler.builder import Builder, with_constants
from distort.kernels.compiler.codegen import elements, passes, reductions, rows
from distort.kernels.compiler.codegen.operands import BROADCAST, CONTIGUOUS, STRIDED
from distort.kernels.compiler.codegen.target import Target
from distort.kernels.compiler.expression import Expression, Instruction
from distort.kernels.compiler.fuse import aligned, compose, same_shape
from distort.kernels.compiler.ir import Call, Map, Operation, Scratch, Tensor, Word
from distort.kernels.compiler.keys import Key
from distort.kernels.compiler.loops import merged, moved

#: what an element costs, about: of each operand, and of each instruction; and a row of its own
_OPERAND_NS, _INSTRUCTION_NS, _ROW_NS = 0.08, 0.02, 8.0

#: rows of at most so many elements are done many at a time, where there are many
_FEW, _MANY = 8, 32

#: instructions that see elements of a row in their order
_IN_ORDER = ("row_argmax", "row_argmin")

#: sizes, and strides of each operand; never changed
Loops = tuple[list[int], list[list[int]]]


@dataclass(frozen=True, slots=True)
class _Arrangement:
    """Loops of a kernel: kept ones (the last is ``columns``, where ``across``), then reduced ones."""

    across: bool
    kept: Loops
    reduced: Loops

    @property
    def strided(self) -> list[bool]:
        """Which operands have no neighbours in a vector."""
        return [steps[-1] not in (0, 1) for steps in (self.kept if self.across else self.reduced)[1]]


@dataclass(eq=False)
class Rows(Operation):
    """``shape`` is what inputs are views of; results are views of it, with 1 at ``axes`` where there is one a row."""

    expression: Expression
    shape: tuple[int, ...]
    axes: tuple[int, ...]
    kind: ClassVar[str] = "rows"
    repeats: ClassVar[bool] = True

    @property
    def row_shape(self) -> tuple[int, ...]:
        return tuple(1 if axis in self.axes else size for axis, size in enumerate(self.shape))

    # -- kernels

    def calls(self, target: Target, n_threads: int) -> list[Call]:
        if not math.prod(self.row_shape):
            return []
        arrangement = self.arranged()
        assert arrangement is not None
        call = self._across(arrangement, target) if arrangement.across else self._along(arrangement)
        n_elements = math.prod(self.shape)
        cost = elements.cost_of(self.expression.body) * _INSTRUCTION_NS
        each = _OPERAND_NS * (len(self.inputs) + len(self.outputs)) + cost
        call.work_ns = n_elements * each + math.prod(self.row_shape) * (0 if arrangement.across else _ROW_NS)
        if call.scratch_nbytes:
            call.scratch_nbytes *= n_threads
        return [call]

    def arranged(self) -> _Arrangement | None:
        """None where the kernels have no such loops."""
        keeps_order = any([i.op in _IN_ORDER for i in self.expression.body])
        strides = [t.strides for t in self.inputs] + [t.broadcast(self.shape).strides for t in self.outputs]
        return _arranged(self.shape, self.axes, tuple(strides), len(self.inputs), keeps_order)

    def _varies(self, loops: Loops) -> list[bool]:
        """Whether inputs, then results, go along the reduced loops. Results of elements do even where that is one."""
        varies = [any(steps) for steps in loops[1]]
        n_inputs = len(self.inputs)
        split = passes.split(self.expression, (*varies[:n_inputs], *(False for _ in self.outputs)))
        for position, number in enumerate(self.expression.results):
            varies[n_inputs + position] |= not split.per_row[number]
        return varies

    def _along(self, arrangement: _Arrangement) -> Call:
        (outer, outer_steps), (sizes, steps) = arrangement.kept, arrangement.reduced
        if outer == [1]:
            outer, outer_steps = [], [[] for _ in steps]
        varies = self._varies(arrangement.reduced)
        inner = []
        for varying, own in zip(varies, steps, strict=True):
            if not varying:
                inner.append(BROADCAST)
            elif own[-1] == 0 and len(sizes) == 2:
                inner.append(rows.FIRST_ONLY)
            else:
                inner.append(CONTIGUOUS if own[-1] == 1 or sizes[-1] == 1 else STRIDED)
        n_rows = math.prod(outer)
        nbytes = rows.scratch_nbytes(self.expression, inner, math.prod(sizes))
        words: list[Word] = [n_rows, *outer, *sizes, Scratch() if nbytes else 0, nbytes]
        tensors = [*self.inputs, *self.outputs]
        for tensor, how, kept, own in zip(tensors, inner, outer_steps, steps, strict=True):
            words += [tensor.address(), *kept, *own[:-1]]
            if how == STRIDED:
                words.append(own[-1])
        key = Key("rows", (self.expression, len(outer), len(sizes), tuple(inner)))
        return Call(key, words, 0.0, scratch_nbytes=nbytes, most_threads=n_rows)

    def _across(self, arrangement: _Arrangement, target: Target) -> Call:
        (kept, kept_steps), (sizes, steps) = arrangement.kept, arrangement.reduced
        how = tuple(
            ({0: BROADCAST, 1: CONTIGUOUS}.get(own[-1], STRIDED), varying)
            for own, varying in zip(kept_steps, self._varies(arrangement.reduced), strict=True)
        )
        *outer, columns = kept
        width = reductions.columns_of_unit(self.expression, how, target)
        n_units = math.prod(outer) * -(-columns // width)
        nbytes = reductions.scratch_nbytes(self.expression, how, target, math.prod(sizes))
        words: list[Word] = [n_units, *outer, columns, *sizes, Scratch() if nbytes else 0, nbytes]
        for tensor, own, inside in zip([*self.inputs, *self.outputs], kept_steps, steps, strict=True):
            words += [tensor.address(), *own[:-1], *inside, *(own[-1:] if own[-1] not in (0, 1) else ())]
        key = Key("columns", (self.expression, len(outer), len(sizes), how))
        return Call(key, words, 0.0, scratch_nbytes=nbytes, most_threads=n_units)

    # -- fusion

    def _seen(self, tensor: Tensor, shape: Sequence[int]) -> Tensor | None:
        """A view of another operation's shape as one of this shape: of all elements, or of rows."""
        if same_shape(shape, self.shape):
            return aligned(tensor, self.shape)
        if same_shape(shape, self.row_shape):
            return aligned(tensor, self.row_shape).broadcast(self.shape)
        return None

    def _checked(self, inputs: list[Tensor], outputs: list[Tensor], expression: Expression) -> Rows | None:
        """The operation, unless kernels have no such loops, or only slow ones: a copy on its own is faster then."""
        made = Rows(inputs, outputs, expression, self.shape, self.axes)
        before, after = self.arranged(), made.arranged()
        if before is None or after is None:
            return None
        is_slow = sum(after.strided) > sum(before.strided) and math.prod(after.reduced[0]) > _FEW
        return None if is_slow else made

    def absorb(self, after: Map, position: int, target: Target) -> Operation | None:
        return self.join(after, position, target)

    def join(self, after: Operation, position: int, target: Target) -> Operation | None:
        """One operation with what reads the result: a map of elements or rows, or a row operation on the same rows."""
        if len(self.outputs) != 1 or not isinstance(after, (Map, Rows)) or any(t.block for t in after.outputs):
            return None
        if isinstance(after, Rows) and (after.shape, after.axes) != (self.shape, self.axes):
            return None
        made = self.outputs[0]
        expected = made.broadcast(self.shape)
        inputs = []
        for tensor in after.inputs:
            seen = self._seen(tensor, after.shape)
            if seen is None or tensor.block:
                return None
            if tensor.buffer is made.buffer and not _same_places(seen, expected):
                return None
            inputs.append(seen)
        composed = compose(self.expression, self.inputs, after.expression, inputs, made.buffer)
        if composed is None:
            return None
        outputs = after.outputs
        if isinstance(after, Map):
            shape = self.shape if same_shape(after.shape, self.shape) else self.row_shape
            outputs = [aligned(t, shape) for t in after.outputs]
        return self._checked(composed[0], outputs, composed[1])

    def absorb_before(self, before: Map, position: int, target: Target) -> Operation | None:
        made = before.outputs[0]
        if made.block or any(t.block for t in before.inputs):
            return None
        seen = self._seen(made, before.shape)
        read = [t for t in self.inputs if t.buffer is made.buffer]
        if seen is None or not all(_same_places(tensor, seen) for tensor in read):
            return None
        inputs = [self._seen(t, before.shape) for t in before.inputs]
        composed = compose(
            before.expression, [t for t in inputs if t is not None], self.expression, self.inputs, made.buffer
        )
        return None if composed is None else self._checked(composed[0], self.outputs, composed[1])


@functools.lru_cache(1024)
def _arranged(
    shape: tuple[int, ...],
    axes: tuple[int, ...],
    strides: tuple[tuple[int, ...], ...],
    n_inputs: int,
    keeps_order: bool,
) -> _Arrangement | None:
    by_stride = strides[0] if any(strides[0]) else strides[-1]
    order = sorted(range(len(shape)), key=lambda axis: -by_stride[axis])
    reduced = [axis for axis in (axes if keeps_order else order) if axis in axes]
    kept = [axis for axis in order if axis not in axes]
    inside = merged([shape[a] for a in reduced], [[s[a] for a in reduced] for s in strides])
    outside = merged([shape[a] for a in kept], [[s[a] for a in kept] for s in strides])
    if len(inside[0]) > 2:
        return None
    n_rows, n_reduced = math.prod(outside[0]), math.prod(inside[0])
    if n_reduced <= _FEW and n_rows >= _MANY:
        # short rows: a vector has elements of many
        best = max(range(len(outside[0])), key=lambda loop: (_ease(outside, loop), outside[0][loop]))
        if outside[0][best] >= _MANY:
            return _Arrangement(True, moved(*outside, best, len(outside[0]) - 1), inside)
    along = sum(steps[-1] not in (0, 1) for steps in inside[1]) if inside[0][-1] != 1 else 0
    if not along:
        return _Arrangement(False, outside, inside)
    for loop in range(len(outside[0]) - 1, -1, -1):
        steps_of_loop = [steps[loop] for steps in outside[1]]
        if set(steps_of_loop) <= {0, 1} and all(steps_of_loop[n_inputs:]):
            return _Arrangement(True, moved(*outside, loop, len(outside[0]) - 1), inside)
    return _Arrangement(False, outside, inside)


def _ease(loops: Loops, loop: int) -> int:
    """How many operands go through a loop by neighbours, or not at all."""
    return sum(steps[loop] in (0, 1) for steps in loops[1])


def _same_places(a: Tensor, b: Tensor) -> bool:
    """Whether two views of one shape are of the same elements."""
    steps = [(s, t) for n, s, t in zip(a.shape, a.strides, b.strides, strict=True) if n != 1]
    return a.offset == b.offset and a.dtype == b.dtype and all(s == t for s, t in steps)


#: one object for the same expression of many layers
_expression_of = functools.lru_cache(1024)(Expression)


class Body:
    """An expression under construction: operands are views that broadcast to the rows' shape."""

    def __init__(self, shape: Sequence[int], dtype: str) -> None:
        self.shape = tuple(shape)
        self.dtype = dtype
        self.inputs: list[Tensor] = []
        self._body: list[Instruction] = []

    def input(self, tensor: Tensor) -> int:
        """All inputs come before the first instruction."""
        assert not self._body
        self.inputs.append(tensor)
        return len(self.inputs) - 1

    def op(self, op: str, *operands: int, attributes: tuple[Any, ...] = (), dtype: str = "") -> int:
        self._body.append(Instruction(op, operands, dtype or self.dtype, attributes))
        return len(self.inputs) + len(self._body) - 1

    def number(self, value: float) -> int:
        return self.op("constant", 0, attributes=(value,))

    def add(self, b: Builder, axes: Sequence[int], results: Sequence[tuple[int, str, bool]]) -> list[Tensor] | None:
        """Add the operation. ``results``: (operand, dtype, whether it is one a row). None where no kernel fits."""
        row_shape = [1 if axis in axes else size for axis, size in enumerate(self.shape)]
        made = [b.new(dtype, row_shape if per_row else self.shape) for _, dtype, per_row in results]
        expression = _expression_of(
            tuple([t.element for t in self.inputs]), tuple(self._body), tuple([number for number, _, _ in results])
        )
        inputs, expression = with_constants([t.broadcast(self.shape) for t in self.inputs], self.inputs, expression)
        operation = Rows(inputs, list(made), expression, self.shape, tuple(sorted(axes)))
        arrangement = operation.arranged()
        if arrangement is None:
            return None
        if sum(arrangement.strided) and not arrangement.across:
            # turned once, it is read by neighbours in all passes
            for position, tensor in enumerate(inputs):
                if arrangement.strided[position] and 0 not in tensor.strides:
                    operation.inputs[position] = b.contiguous(tensor)
        b.add(operation)
        return made
