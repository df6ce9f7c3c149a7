"""Fusion: element-wise work joins the operation before it, so that nothing is written to be read once."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from distort.kernels.compiler.codegen.target import Target
from distort.kernels.compiler.expression import Expression, Instruction, name_of
from distort.kernels.compiler.ir import Buffer, Map, Operation, Place, Tensor

#: a fused expression has no more operands and instructions than registers and caches like
MOST_OPERANDS, MOST_INSTRUCTIONS = 14, 80
#: found faster than an enumeration's member
_ARENA = Place.ARENA


class Uses:
    """Which operations read and write each buffer."""

    def __init__(self, operations: Sequence[Operation]) -> None:
        self.readers: dict[Buffer, list[Operation]] = {}
        self.writers: dict[Buffer, list[Operation]] = {}
        for operation in operations:
            self.enter(operation)
        self._change = any([buffer.changes for buffer in self.writers])

    def enter(self, operation: Operation) -> None:
        for known, tensors in ((self.readers, operation.inputs), (self.writers, operation.outputs)):
            for tensor in tensors:
                users = known.get(tensor.buffer)
                if users is None:
                    known[tensor.buffer] = [operation]
                elif operation not in users:
                    users.append(operation)

    def leave(self, operation: Operation) -> None:
        for known, tensors in ((self.readers, operation.inputs), (self.writers, operation.outputs)):
            for tensor in tensors:
                users = known[tensor.buffer]
                if operation in users:
                    users.remove(operation)

    def only_maker(self, tensor: Tensor, reader: Operation) -> Operation | None:
        """Who makes a value that nobody but ``reader`` reads, all of it."""
        buffer = tensor.buffer
        if buffer.place is not _ARENA:
            return None
        readers, writers = self.readers.get(buffer), self.writers.get(buffer)
        if readers is None or writers is None or len(readers) != 1 or len(writers) != 1 or readers[0] is not reader:
            return None
        maker = writers[0]
        return maker if maker is not reader and len(maker.outputs) == 1 else None

    def changed_between(self, before: Operation, current: Operation, place: Mapping[Operation, int]) -> bool:
        """Whether what ``before`` reads is written again up to ``current``, which it would move to."""
        if not self._change:
            return False
        for tensor in before.inputs:
            if tensor.buffer.changes:
                writers = self.writers.get(tensor.buffer, [])
                if any(place[before] < place[writer] <= place[current] for writer in writers):
                    return True
        return False


def fuse(operations: Sequence[Operation], target: Target) -> list[Operation]:
    """Operations in an order that respects what they read."""
    uses = Uses(operations)
    # consumers stay where they are; what joins them moves there
    order: list[Operation | None] = list(operations)
    place = {operation: i for i, operation in enumerate(operations)}
    for position in range(len(order)):
        while (current := order[position]) is not None:
            joined = _join_one(current, uses, place, target)
            if joined is None:
                break
            before, made = joined
            made.region = current.region
            uses.leave(before)
            uses.leave(current)
            uses.enter(made)
            made.names = [*before.names, *current.names]
            order[place[before]] = None
            order[position] = made
            place[made] = position
    return [operation for operation in order if operation is not None]


def _join_one(
    current: Operation, uses: Uses, place: Mapping[Operation, int], target: Target
) -> tuple[Operation, Operation] | None:
    """An operation that makes an input of ``current``, and the one that both become."""
    for position in range(len(current.inputs) - 1, -1, -1):
        tensor = current.inputs[position]
        before = uses.only_maker(tensor, current)
        if before is None or before.region != current.region or uses.changed_between(before, current, place):
            continue
        if isinstance(before, Map) and isinstance(current, Map):
            made: Operation | None = _merge(before, current)
        elif isinstance(before, Map):
            made = current.absorb_before(before, position, target)
        elif isinstance(current, Map):
            turned = _turned(current, before.outputs[0])
            made = before.absorb(turned, position, target) if turned is not None else None
        else:
            made = None
        if made is None:
            made = before.join(current, position, target)
        if made is not None:
            return before, made
    return None


def _in_step(current: Map, made: Tensor) -> bool:
    """Whether the map goes through ``made`` element by element, wherever it reads it."""
    shape, buffer = current.outputs[0].shape, made.buffer
    if not same_shape(made.shape, shape):
        return False
    for tensor in current.inputs:
        if tensor.buffer is buffer and not (same_elements(tensor, made) and same_shape(tensor.shape, shape)):
            return False
    return True


def _turned(current: Map, made: Tensor) -> Map | None:
    """The map with its dimensions in the order of ``made``, which it goes through in step; None where it doesn't."""
    if _in_step(current, made):
        return current
    read = next(t for t in current.inputs if t.buffer is made.buffer)
    if made.block or any(t.block for t in (*current.inputs, *current.outputs)):
        return None
    place = {pair: axis for axis, pair in enumerate(zip(read.shape, read.strides, strict=True)) if pair[0] != 1}
    wanted = [pair for pair in zip(made.shape, made.strides, strict=True) if pair[0] != 1]
    if sorted(place) != sorted(wanted):
        return None
    axes = [place[pair] for pair in wanted]
    axes += [axis for axis in range(len(read.shape)) if axis not in axes]
    inputs, outputs = ([t.permuted(axes) for t in tensors] for tensors in (current.inputs, current.outputs))
    turned = Map(inputs, outputs, current.expression, names=current.names)
    return turned if _in_step(turned, made) else None


def _merge(before: Map, after: Map) -> Map | None:
    """One map that does both; None where they don't go through the value in step."""
    made = before.outputs[0]
    if not _in_step(after, made):
        return None
    shape = after.outputs[0].shape
    inputs = [t if t.shape == shape else aligned(t, shape) for t in before.inputs]
    result = compose(before.expression, inputs, after.expression, after.inputs, made.buffer)
    if result is None:
        return None
    operands, expression = result
    return Map(operands, after.outputs, expression)


def compose(
    before: Expression, before_inputs: Sequence[Tensor], after: Expression, after_inputs: Sequence[Tensor], made: Buffer
) -> tuple[list[Tensor], Expression] | None:
    """The expression that does ``after`` to the one result of ``before``, which ``after`` reads from ``made``.

    Operands: those of ``before``, then those of ``after`` without the value between. None where it grows too large.
    """
    operands = list(before_inputs)
    places: list[int] = []  # of operands of after; -1: the value between
    for tensor in after_inputs:
        if tensor.buffer is made:
            places.append(-1)
            continue
        buffer = tensor.buffer
        for place, known in enumerate(operands):
            if known.buffer is buffer and same_view(tensor, known):
                places.append(place)
                break
        else:
            places.append(len(operands))
            operands.append(tensor)
    if len(operands) > MOST_OPERANDS or len(before.body) + len(after.body) > MOST_INSTRUCTIONS:
        return None
    return operands, _composed_of(before, after, tuple(places), tuple([name_of(t.dtype) for t in operands]))


#: by ``id`` of both expressions, which are kept with what is made of them: most are made once, and long ones take a
#: while to hash
_COMPOSED: dict[tuple[Any, ...], tuple[Expression, Expression, Expression]] = {}
_MOST_COMPOSED = 4096


def _composed_of(before: Expression, after: Expression, places: tuple[int, ...], dtypes: tuple[str, ...]) -> Expression:
    key = (id(before), id(after), places, dtypes)
    known = _COMPOSED.get(key)
    if known is None:
        if len(_COMPOSED) >= _MOST_COMPOSED:
            _COMPOSED.clear()
        known = _COMPOSED[key] = (before, after, _composed(before, after, places, dtypes))
    return known[2]


@functools.lru_cache(4096)
def _composed(before: Expression, after: Expression, places: tuple[int, ...], dtypes: tuple[str, ...]) -> Expression:
    n_before, n_after = len(before.inputs), len(after.inputs)
    shift = len(dtypes) - n_before
    body: list[Instruction] = []
    for instruction in before.body:
        moved = tuple([o if o < n_before else o + shift for o in instruction.operands])
        body.append(instruction._replace(operands=moved))
    (result,) = before.results
    between = result if result < n_before else result + shift
    offset = len(dtypes) + len(before.body) - n_after

    def moved_of_after(operand: int) -> int:
        if operand >= n_after:
            return operand + offset
        return between if places[operand] == -1 else places[operand]

    for instruction in after.body:
        body.append(instruction._replace(operands=tuple([moved_of_after(o) for o in instruction.operands])))
    return Expression(dtypes, tuple(body), tuple([moved_of_after(r) for r in after.results]))


def same_view(a: Tensor, b: Tensor) -> bool:
    return a.buffer is b.buffer and (a.offset, a.shape, a.strides, a.dtype) == (b.offset, b.shape, b.strides, b.dtype)


def same_shape(a: Sequence[int], b: Sequence[int]) -> bool:
    """But for dimensions of one element."""
    if a == b:
        return True
    return [n for n in a if n != 1] == [n for n in b if n != 1]


def same_elements(a: Tensor, b: Tensor) -> bool:
    """Whether two views of a buffer go through the same elements in the same order, but for dimensions of one."""
    if a is b:
        return True
    if a.offset != b.offset or a.block != b.block or a.dtype != b.dtype:
        return False
    if a.shape == b.shape and a.strides == b.strides:
        return True
    one = [(n, s) for n, s in zip(a.shape, a.strides, strict=True) if n != 1]
    other = [(n, s) for n, s in zip(b.shape, b.strides, strict=True) if n != 1]
    return one == other


def aligned(tensor: Tensor, shape: Sequence[int]) -> Tensor:
    """A view in a shape that differs in dimensions of one element."""
    rest = iter([(n, s) for n, s in zip(tensor.shape, tensor.strides, strict=True) if n != 1])
    strides = [0 if size == 1 else next(rest)[1] for size in shape]
    return tensor.view(shape, strides)
