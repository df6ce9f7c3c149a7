"""Columns: expressions with reductions over loops that are not the innermost. Means over channels, softmax on axis 1.

The elements of a vector are neighbours that are kept apart; the loops that are reduced go over such vectors.

Words of a step: units, the sizes of the outer loops, columns (the innermost loop), the sizes of the one or two loops
that are reduced, the address of scratch memory and its bytes a thread, then for each operand (inputs, then results) its
address and its strides in elements: of the outer loops, of the reduced ones, and of the columns where these are
``STRIDED``. A unit is a block of columns
(``columns_of_unit``) of one passage of the outer loops.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from distort.kernels.compiler.codegen import elements, passes
from distort.kernels.compiler.codegen.operands import STRIDED, Operand, each_row, read_operands
from distort.kernels.compiler.codegen.passes import Evaluation, Passes
from distort.kernels.compiler.codegen.reducers import Reducer
from distort.kernels.compiler.codegen.rows import size_of
from distort.kernels.compiler.codegen.target import Target
from distort.kernels.compiler.codegen.text import Function, Index, Value
from distort.kernels.compiler.expression import STORED, Expression

#: for each operand: how columns go through it (``operands``), and whether the reduced loops do
How = tuple[tuple[int, bool], ...]


@dataclass(slots=True)
class _Block:
    """What the passes over a block of columns share: ``n_vectors`` of ``lanes`` elements from ``column`` on."""

    f: Function
    expression: Expression
    passes: Passes
    operands: list[Operand]
    strides: list[list[Value]]  # of the reduced loops
    sizes: list[Value]
    scratch: list[tuple[Value, str]]
    pitch: int  # elements between places of scratch memory
    bases: list[Value]
    column: Index
    lanes: int
    n_vectors: int
    mask: Value | None
    of_row: list[dict[int, Value]] = field(default_factory=list)  # of each vector


def vectors_of_unit(expression: Expression, how: How) -> int:
    """Vectors of columns that go through the passes together."""
    split = passes.split(expression, tuple(v for _, v in how))
    n_values = sum(len(numbers) for numbers in split.reductions)
    return 4 if max(split.costs) <= 6 and n_values <= 2 else 2 if max(split.costs) <= 24 else 1


def columns_of_unit(expression: Expression, how: How, target: Target) -> int:
    return vectors_of_unit(expression, how) * elements.lanes_for(target, expression)


def scratch_nbytes(expression: Expression, how: How, target: Target, n_reduced: int) -> int:
    """Bytes of scratch memory that a thread needs."""
    split = passes.split(expression, tuple(v for _, v in how))
    columns = columns_of_unit(expression, how, target)
    return sum(-(-n_reduced * columns * size_of(passes.kept_dtype(expression, n)) // 64) * 64 for n in split.kept)


def emit_columns(f: Function, target: Target, expression: Expression, n_outer: int, n_reduced: int, how: How) -> None:
    words = iter(range(1 << 30))
    n_units = f.word(next(words))
    outer = [f.word(next(words)) for _ in range(n_outer)]
    columns = f.word(next(words))
    sizes = [f.word(next(words)) for _ in range(n_reduced)]
    memory, memory_nbytes = f.address(next(words)), f.word(next(words))
    dtypes = [*expression.inputs, *(expression.dtype(result) for result in expression.results)]
    operands = read_operands(f, words, dtypes, [by for by, _ in how], n_outer + n_reduced)
    strides = [operand.strides[n_outer:] for operand in operands]
    for operand in operands:
        del operand.strides[n_outer:]
    split = passes.split(expression, tuple(v for _, v in how))
    lanes = elements.lanes_for(target, expression)
    n_vectors = vectors_of_unit(expression, how)
    pitch = lanes * n_vectors
    length: Index = 1
    for size in sizes:
        length = f.mul(length, size)
    place = f.at(memory, f.mul(f.thread, memory_nbytes), "i8")
    scratch = []
    for number in split.kept:
        dtype = passes.kept_dtype(expression, number)
        scratch.append((place, dtype))
        place = f.at(place, f.mul(f.div(f.add(f.mul(length, pitch * size_of(dtype)), 63), 64), 64), "i8")
    n_blocks = f.div(f.add(columns, pitch - 1), pitch)
    begin, end = f.share(n_units)
    last_row = f.div(f.add(end, f.sub(n_blocks, 1)), n_blocks)

    def do(bases: list[Value], column: Index, width: int, count: int, mask: Value | None = None) -> None:
        block = _Block(
            *(f, expression, split, operands, strides, sizes, scratch, pitch),
            *(bases, column, width, count, mask),
        )
        _emit_block(block, length)

    with each_row(f, outer, operands, f.div(begin, n_blocks), last_row) as (row, bases):
        before = f.mul(row, n_blocks)
        first = f.mul(f.max(f.sub(begin, before), 0), pitch)
        last = f.min(f.mul(f.sub(end, before), pitch), columns)
        whole = f.add(first, f.mul(f.div(f.max(f.sub(last, first), 0), pitch), pitch))
        with f.loop(first, whole, pitch) as many:
            do(bases, many.index, lanes, n_vectors)
        if elements.has_masks(target) and all(operand.how != STRIDED for operand in operands):
            with f.loop(whole, last, lanes) as some:
                do(bases, some.index, lanes, 1, elements.mask_of(f, lanes, f.sub(last, some.index)))
        else:
            vectors = f.add(whole, f.mul(f.div(f.max(f.sub(last, whole), 0), lanes), lanes))
            if n_vectors > 1:
                with f.loop(whole, vectors, lanes) as one:
                    do(bases, one.index, lanes, 1)
            if lanes > 1:
                with f.loop(vectors, last) as single:
                    do(bases, single.index, 1, 1)
    f.ret()


def _emit_block(block: _Block, length: Index) -> None:
    f, expression, split = block.f, block.expression, block.passes
    n_inputs = len(expression.inputs)
    block.of_row = [{} for _ in range(block.n_vectors)]
    for vector, known in enumerate(block.of_row):
        for number in range(n_inputs):
            if split.per_row[number]:
                known[number] = _load(block, number, block.bases[number], vector)
    for turn in range(split.n_passes + 1):
        for known in block.of_row:
            passes.add_values_of_row(f, expression, split, turn, block.lanes, known)
        if turn < split.n_passes:
            _emit_pass(block, turn, length)
    for position, number in enumerate(expression.results, n_inputs):
        if position - n_inputs in {p for positions in split.results for p in positions}:
            continue
        for vector, known in enumerate(block.of_row):
            value = known.get(number)
            if value is None:
                value = passes.constant(f, expression, number, block.lanes)
            _store(block, position, value, block.bases[position], vector)


def _load(block: _Block, number: int, base: Value, vector: int) -> Value:
    index = block.f.add(block.column, vector * block.lanes)
    return block.operands[number].load(block.f, base, index, block.lanes, block.mask)


def _store(block: _Block, number: int, value: Value, base: Value, vector: int) -> None:
    index = block.f.add(block.column, vector * block.lanes)
    block.operands[number].store(block.f, value, base, index, block.mask)


def _emit_pass(block: _Block, turn: int, length: Index) -> None:
    """One pass over the reduced loops: reductions end in ``of_row``."""
    f, numbers = block.f, block.passes.reductions[turn]
    reducers = passes.reducers_of(block.expression, numbers)
    states = [v for _ in range(block.n_vectors) for r in reducers for v in r.begin(f, block.lanes)]
    if len(block.sizes) == 1:
        with f.loop(0, block.sizes[0], carried=states) as loop:
            bases = _moved(block, block.bases, loop.index, 0)
            loop.carry(_emit_place(block, turn, reducers, bases, loop.index, loop.carried))
        states = loop.carried
    else:
        with f.loop(0, block.sizes[0], carried=states) as outside:
            bases = _moved(block, block.bases, outside.index, 0)
            before = f.mul(outside.index, block.sizes[1])
            with f.loop(0, block.sizes[1], carried=outside.carried) as inside:
                places = _moved(block, bases, inside.index, 1)
                place = f.add(before, inside.index)
                inside.carry(_emit_place(block, turn, reducers, places, place, inside.carried))
            outside.carry(inside.carried)
        states = outside.carried
    at = 0
    for known in block.of_row:
        for number, reducer in zip(numbers, reducers, strict=True):
            value = reducer.finish(f, states[at : at + reducer.n_values], length, block.lanes)
            known[number] = elements.rounded(f, block.expression, number, value)
            at += reducer.n_values


def _moved(block: _Block, bases: Sequence[Value], index: Index, loop: int) -> list[Value]:
    f = block.f
    return [
        f.at(base, f.mul(index, strides[loop]), STORED[operand.dtype])
        for base, strides, operand in zip(bases, block.strides, block.operands, strict=True)
    ]


def _emit_place(
    block: _Block, turn: int, reducers: Sequence[Reducer], bases: Sequence[Value], place: Index, state: Sequence[Value]
) -> list[Value]:
    """What is done at one place of the reduced loops; the state of reductions afterwards."""
    f, expression, split = block.f, block.expression, block.passes
    n_inputs = len(expression.inputs)
    made: list[Value] = []
    for vector, known in enumerate(block.of_row):

        def kept_at(number: int, vector: int = vector) -> tuple[Value, str]:
            base, dtype = block.scratch[split.kept.index(number)]
            index = f.add(f.mul(place, block.pitch), vector * block.lanes)
            return f.at(base, index, STORED[dtype]), dtype

        def read(number: int, vector: int = vector) -> Value:
            return _load(block, number, bases[number], vector)

        def recall(number: int, kept_at: Callable[[int], tuple[Value, str]] = kept_at) -> Value:
            address, dtype = kept_at(number)
            return elements.load(f, address, dtype, block.lanes)

        evaluation = Evaluation(f, expression, split, turn, block.lanes, known, read, recall)
        for number, reducer in zip(split.reductions[turn], reducers, strict=True):
            (operand,) = expression.body[number - n_inputs].operands
            mine = list(state[len(made) : len(made) + reducer.n_values])
            made += reducer.step(f, mine, evaluation.get(operand), place, None, across=True)
        for position in split.results[turn]:
            result = n_inputs + position
            _store(block, result, evaluation.get(expression.results[position]), bases[result], vector)
        for number in split.kept:
            if split.first[number] == turn:
                address, dtype = kept_at(number)
                elements.store(f, evaluation.get(number), address, dtype)
    return made


__all__ = ["columns_of_unit", "emit_columns", "scratch_nbytes", "vectors_of_unit"]
