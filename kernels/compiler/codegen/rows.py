"""Rows: expressions with reductions along contiguous elements. Softmax, layer normalization, sums over trailing axes.

Words of a step: rows, the sizes of the outer loops, those of the one or two loops of a row, the address of scratch
memory and its bytes a thread, then for each operand (inputs, then results) its address and its strides in elements: of
the outer loops, of the first of two loops of a row, and of the inner one where that is ``STRIDED``. A row is done by
one thread, in passes (``passes``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from distort.kernels.compiler.codegen import elements, passes
from distort.kernels.compiler.codegen.operands import BROADCAST, CONTIGUOUS, STRIDED, Operand, each_row, read_operands
from distort.kernels.compiler.codegen.passes import Evaluation, Passes
from distort.kernels.compiler.codegen.reducers import Reducer
from distort.kernels.compiler.codegen.target import Target
from distort.kernels.compiler.codegen.text import Function, Index, Value
from distort.kernels.compiler.expression import COMPUTED, STORED, Expression

#: how the loops of a row go through an operand, besides what ``operands`` says: by the first of two loops only
FIRST_ONLY = 3


@dataclass(slots=True)
class _Row:
    """What the passes of one row share."""

    f: Function
    expression: Expression
    passes: Passes
    operands: list[Operand]
    first_strides: list[Index]
    sizes: list[Value]
    lanes: int
    masks: bool
    scratch: list[tuple[Value, str]]  # of kept elements
    hosted: int | None  # the one that is kept in a result
    bases: list[Value] = field(default_factory=list)
    of_row: dict[int, Value] = field(default_factory=dict)

    @property
    def n_inputs(self) -> int:
        return len(self.expression.inputs)


def scratch_nbytes(expression: Expression, inner: Sequence[int], row_size: int) -> int:
    """Bytes of scratch memory that a thread needs."""
    split = split_of(expression, inner)
    hosted = kept_in_result(expression, split, inner)
    sizes = [size_of(passes.kept_dtype(expression, number)) for number in split.kept if number != hosted]
    return sum(-(-row_size * size // 64) * 64 for size in sizes)


def size_of(dtype: str) -> int:
    return {"double": 8, "float": 4, "i1": 1}.get(COMPUTED[dtype]) or int(COMPUTED[dtype][1:]) // 8


def varies(inner: Sequence[int]) -> tuple[bool, ...]:
    return tuple(how != BROADCAST for how in inner)


def split_of(expression: Expression, inner: Sequence[int]) -> Passes:
    dear = tuple(number for number, how in enumerate(inner[: len(expression.inputs)]) if how == STRIDED)
    return passes.split(expression, varies(inner), dear)


def kept_in_result(expression: Expression, split: Passes, inner: Sequence[int]) -> int | None:
    """A kept element that is kept where the last pass writes the one result of its own: memory that is there anyway."""
    (*_, positions) = split.results
    if len(positions) != 1 or inner[len(expression.inputs) + positions[0]] != CONTIGUOUS:
        return None
    dtype = expression.dtype(expression.results[positions[0]])
    return next((number for number in split.kept if passes.kept_dtype(expression, number) == dtype), None)


def emit_rows(
    f: Function, target: Target, expression: Expression, n_outer: int, n_inner: int, inner: tuple[int, ...]
) -> None:
    """``inner``: how a row's loops go through each input, then each result: ``BROADCAST`` is one value a row."""
    words = iter(range(1 << 30))
    n_rows = f.word(next(words))
    outer = [f.word(next(words)) for _ in range(n_outer)]
    sizes = [f.word(next(words)) for _ in range(n_inner)]
    memory, memory_nbytes = f.address(next(words)), f.word(next(words))
    dtypes = [*expression.inputs, *(expression.dtype(result) for result in expression.results)]
    by_step = [BROADCAST if how == FIRST_ONLY else how for how in inner]
    operands = read_operands(f, words, dtypes, by_step, n_outer + n_inner - 1)
    first_strides: list[Index] = [o.strides.pop() if n_inner == 2 else 0 for o in operands]
    split = split_of(expression, inner)
    place = f.at(memory, f.mul(f.thread, memory_nbytes), "i8")
    scratch = []
    length = f.mul(sizes[0], sizes[1]) if n_inner == 2 else sizes[0]
    hosted = kept_in_result(expression, split, inner)
    for number in split.kept:
        dtype = passes.kept_dtype(expression, number)
        if number == hosted:
            scratch.append((place, dtype))
            continue
        scratch.append((place, dtype))
        nbytes = f.mul(f.div(f.add(f.mul(length, size_of(dtype)), 63), 64), 64)
        place = f.at(place, nbytes, "i8")
    lanes = elements.lanes_for(target, expression)
    masks = elements.has_masks(target) and STRIDED not in inner
    row = _Row(f, expression, split, operands, first_strides, sizes, lanes, masks, scratch, hosted)
    begin, end = f.share(n_rows)
    with each_row(f, outer, operands, begin, end) as (_, bases):
        row.bases, row.of_row = bases, {}
        for number in range(row.n_inputs):
            if split.per_row[number]:
                row.of_row[number] = operands[number].load(f, bases[number], 0, 1)
        for turn in range(split.n_passes):
            passes.add_values_of_row(f, expression, split, turn, 1, row.of_row)
            _emit_pass(row, turn, length)
        passes.add_values_of_row(f, expression, split, split.n_passes, 1, row.of_row)
        for position, number in enumerate(expression.results, row.n_inputs):
            if inner[position] == BROADCAST:
                value = row.of_row.get(number)
                if value is None:
                    value = passes.constant(f, expression, number, 1)
                operands[position].store(f, value, bases[position], 0)
    f.ret()


def _emit_pass(row: _Row, turn: int, length: Index) -> None:
    """One pass over a row: reductions end in ``of_row``."""
    f, numbers = row.f, row.passes.reductions[turn]
    reducers = passes.reducers_of(row.expression, numbers)
    cost = row.passes.costs[turn] + 2 * len(reducers)
    unroll = 4 if cost <= 6 else 2 if cost <= 14 else 1
    if any(operand.how == STRIDED for operand in row.operands):
        unroll = 1
    single = None if row.masks else _flat(reducers, lambda r: r.begin(f, 1))
    states = [value for _ in range(unroll) for value in _flat(reducers, lambda r: r.begin(f, row.lanes))]
    tails = single or []
    if len(row.sizes) == 1:
        states, tails = _emit_loops(row, turn, reducers, unroll, row.bases, 0, row.sizes[0], states, tails)
    else:
        with f.loop(0, row.sizes[0], carried=[*states, *tails]) as outside:
            bases = [
                f.at(base, f.mul(outside.index, stride), STORED[operand.dtype])
                for base, stride, operand in zip(row.bases, row.first_strides, row.operands, strict=True)
            ]
            before = f.mul(outside.index, row.sizes[1])
            first, rest = outside.carried[: len(states)], outside.carried[len(states) :]
            first, rest = _emit_loops(row, turn, reducers, unroll, bases, before, row.sizes[1], first, rest)
            outside.carry([*first, *rest])
        states, tails = outside.carried[: len(states)], outside.carried[len(states) :]
    width = sum(r.n_values for r in reducers)
    parts = [states[i * width : (i + 1) * width] for i in range(unroll)]
    position = 0
    for number, reducer in zip(numbers, reducers, strict=True):
        chosen = slice(position, position + reducer.n_values)
        position += reducer.n_values
        pieces = [part[chosen] for part in parts]
        while len(pieces) > 1:
            pieces = [reducer.combine(f, a, b) for a, b in zip(pieces[::2], pieces[1::2], strict=True)]
        state = reducer.over_lanes(f, pieces[0])
        if not row.masks and row.lanes > 1:
            state = reducer.combine(f, state, tails[chosen])
        row.of_row[number] = elements.rounded(f, row.expression, number, reducer.finish(f, state, length, 1))


def _flat(reducers: Sequence[Reducer], make: Callable[[Reducer], list[Value]]) -> list[Value]:
    return [value for reducer in reducers for value in make(reducer)]


def _emit_loops(
    row: _Row,
    turn: int,
    reducers: Sequence[Reducer],
    unroll: int,
    bases: Sequence[Value],
    before: Index,
    size: Value,
    states: list[Value],
    tails: list[Value],
) -> tuple[list[Value], list[Value]]:
    """The inner loop: several vectors at once, then single ones, the last of them in part or by elements.

    ``before``: how many elements of the row come before. ``states``: of vectors; ``tails``: of single elements.
    """
    f, lanes = row.f, row.lanes
    width = sum(r.n_values for r in reducers)
    done: Index = 0
    if unroll > 1 or row.masks:
        step = lanes * unroll
        whole = f.mul(f.div(size, step), step)
        with f.loop(0, whole, step, carried=states) as block:
            made = []
            for part in range(unroll):
                some = block.carried[part * width : (part + 1) * width]
                index = f.add(block.index, part * lanes)
                made += _emit_place(row, turn, reducers, bases, before, index, lanes, None, some)
            block.carry(made)
        states, done = block.carried, whole
    first, others = states[:width], states[width:]
    if row.masks:
        with f.loop(done, size, lanes, carried=first) as some_lanes:
            mask = elements.mask_of(f, lanes, f.sub(size, some_lanes.index))
            made = _emit_place(row, turn, reducers, bases, before, some_lanes.index, lanes, mask, some_lanes.carried)
            some_lanes.carry(made)
        return [*some_lanes.carried, *others], tails
    whole = f.add(done, f.mul(f.div(f.sub(size, done), lanes), lanes))
    with f.loop(done, whole, lanes, carried=first) as vectors:
        vectors.carry(_emit_place(row, turn, reducers, bases, before, vectors.index, lanes, None, vectors.carried))
    if lanes == 1:
        return [*vectors.carried, *others], tails
    with f.loop(whole, size, carried=tails) as singles:
        singles.carry(_emit_place(row, turn, reducers, bases, before, singles.index, 1, None, singles.carried))
    return [*vectors.carried, *others], singles.carried


def _emit_place(
    row: _Row,
    turn: int,
    reducers: Sequence[Reducer],
    bases: Sequence[Value],
    before: Index,
    index: Index,
    width: int,
    mask: Value | None,
    state: Sequence[Value],
) -> list[Value]:
    """What is done with the elements from ``index`` of the inner loop on; the state of reductions afterwards."""
    f, expression = row.f, row.expression
    place = f.add(before, index)

    def kept_at(number: int) -> tuple[Value, str]:
        base, dtype = row.scratch[row.passes.kept.index(number)]
        if number == row.hosted:
            return f.at(bases[row.n_inputs + row.passes.results[-1][0]], index, STORED[dtype]), dtype
        return f.at(base, place, STORED[dtype]), dtype

    def recall(number: int) -> Value:
        address, dtype = kept_at(number)
        return elements.load(f, address, dtype, width, mask)

    evaluation = Evaluation(
        *(f, expression, row.passes, turn, width, row.of_row),
        read=lambda number: row.operands[number].load(f, bases[number], index, width, mask),
        recall=recall,
    )
    made: list[Value] = []
    for number, reducer in zip(row.passes.reductions[turn], reducers, strict=True):
        (operand,) = expression.body[number - row.n_inputs].operands
        mine = list(state[len(made) : len(made) + reducer.n_values])
        made += reducer.step(f, mine, evaluation.get(operand), place, mask, across=False)
    for position in row.passes.results[turn]:
        result = row.n_inputs + position
        row.operands[result].store(f, evaluation.get(expression.results[position]), bases[result], index, mask)
    for number in row.passes.kept:
        if row.passes.first[number] == turn:
            address, dtype = kept_at(number)
            elements.store(f, evaluation.get(number), address, dtype, mask)
    return made


__all__ = ["FIRST_ONLY", "emit_rows", "scratch_nbytes", "varies"]
