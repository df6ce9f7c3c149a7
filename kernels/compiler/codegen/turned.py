"""Maps whose operands are contiguous along another loop than the results: tiles are turned in registers on the way.

Words as those of a map (``maps``), but for the number of units; a unit is a tile of as many passages of the last outer
loop as a vector has lanes, and of ``width`` passages of the inner one. Operands that are ``TURNED`` have a stride of 1
in the last outer loop, and a step in the inner one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from distort.kernels.compiler.codegen import elements
from distort.kernels.compiler.codegen.operands import BROADCAST, STRIDED, TURNED, Operand, each_row, read_operands
from distort.kernels.compiler.codegen.target import Target
from distort.kernels.compiler.codegen.text import Function, Index, Value, vector
from distort.kernels.compiler.expression import STORED, Expression

#: vectors of the inner loop in a tile
_N_VECTORS = 4


def tile_of(expression: Expression, target: Target) -> tuple[int, int]:
    """A tile's passages of the last outer loop, and of the inner one."""
    lanes = elements.lanes_for(target, expression)
    return lanes, lanes * _N_VECTORS


def transposed(f: Function, rows: Sequence[Value]) -> list[Value]:
    """A square of as many vectors as each has lanes, turned: larger and larger blocks change places."""
    rows = list(rows)
    lanes = len(rows)
    step = 1
    while step < lanes:
        low = [lane if not lane & step else lane - step + lanes for lane in range(lanes)]
        high = [lane + step if not lane & step else lane + lanes for lane in range(lanes)]
        for row in range(lanes):
            if not row & step:
                a, b = rows[row], rows[row + step]
                rows[row], rows[row + step] = f.shuffle(a, b, low), f.shuffle(a, b, high)
        step *= 2
    return rows


@dataclass(slots=True)
class _Tile:
    """Where a tile begins in the inner loop, and its sizes."""

    begin: Index
    height: Index
    width: Index


def emit_turned(f: Function, target: Target, expression: Expression, n_loops: int, inner: tuple[int, ...]) -> None:
    """``inner``: how the inner loop goes through each input, then each result; these are contiguous."""
    high, wide = tile_of(expression, target)
    dtypes = [*expression.inputs, *(expression.dtype(result) for result in expression.results)]
    rooms = [
        f.alloca(STORED[dtype], high * wide) if how == TURNED else None
        for dtype, how in zip(dtypes, inner, strict=True)
    ]
    words = iter(range(1 << 30))
    n_units, _ = f.word(next(words)), next(words)
    sizes = [f.word(next(words)) for _ in range(n_loops)]
    *outer, n_high, n_wide = sizes
    by_step = [STRIDED if how == TURNED else how for how in inner]
    operands = read_operands(f, words, dtypes, by_step, n_loops - 1)
    fine = [operand.strides[-1] for operand in operands]
    for operand in operands:
        operand.strides[-1] = f.i64(f.mul(operand.strides[-1], high))
    n_bands = f.i64(f.div(f.add(n_high, high - 1), high))
    n_chunks = f.div(f.add(n_wide, wide - 1), wide)
    begin, end = f.share(n_units)
    last_row = f.div(f.add(end, f.sub(n_chunks, 1)), n_chunks)
    n_inputs = len(expression.inputs)
    lanes = high
    masks = elements.has_masks(target)

    def do(tile: _Tile, bases: Sequence[Value]) -> None:
        for operand, base, room in zip(operands, bases, rooms, strict=True):
            if room is not None:
                _turn(f, operand, base, room, tile, high, wide)
        with f.loop(0, tile.height) as line:
            places = []
            for operand, base, room, stride in zip(operands, bases, rooms, fine, strict=True):
                element = STORED[operand.dtype]
                if room is None:
                    places.append(f.at(base, f.mul(line.index, stride), element))
                else:
                    places.append(f.at(room, f.mul(line.index, wide), element))

            def body(index: Index, width: int, mask: Value | None = None) -> None:
                values = []
                for operand, base, room in zip(operands[:n_inputs], places, rooms, strict=False):
                    if room is not None:
                        address = f.at(base, index, STORED[operand.dtype])
                        values.append(elements.load(f, address, operand.dtype, width, mask))
                    elif operand.how == BROADCAST:
                        values.append(operand.load(f, base, 0, width))
                    else:
                        values.append(operand.load(f, base, f.add(tile.begin, index), width, mask))
                results = elements.evaluate(f, expression, values)
                for operand, base, value in zip(operands[n_inputs:], places[n_inputs:], results, strict=True):
                    operand.store(f, value, base, f.add(tile.begin, index), mask)

            whole = f.mul(f.div(tile.width, lanes), lanes)
            with f.loop(0, whole, lanes) as block:
                body(block.index, lanes)
            if masks:
                with f.loop(whole, tile.width, lanes) as some:
                    body(some.index, lanes, elements.mask_of(f, lanes, f.sub(tile.width, some.index)))
            elif lanes > 1:
                with f.loop(whole, tile.width) as single:
                    body(single.index, 1)

    with each_row(f, [*outer, n_bands], operands, f.div(begin, n_chunks), last_row) as (row, bases):
        height = f.min(f.sub(n_high, f.mul(f.rem(row, n_bands), high)), high)
        before = f.mul(row, n_chunks)
        first = f.mul(f.max(f.sub(begin, before), 0), wide)
        last = f.min(f.mul(f.sub(end, before), wide), n_wide)
        with f.loop(first, last, wide) as chunk:
            do(_Tile(chunk.index, height, f.min(f.sub(last, chunk.index), wide)), bases)
    f.ret()


def _turn(f: Function, operand: Operand, base: Value, room: Value, tile: _Tile, high: int, wide: int) -> None:
    """Copy a tile of an operand into room [high, wide]: whole squares by vectors, the rest by elements."""
    element = STORED[operand.dtype]
    step = operand.step
    assert step is not None
    first = f.at(base, f.mul(tile.begin, step), element)
    is_high = f.compare("eq", tile.height, high)
    squares = f.i64(f.mul(f.div(tile.width, high), high))
    whole = f.op("i64", f"select {is_high}, {squares}, i64 0")
    with f.loop(0, whole, high) as square:
        place = f.at(first, f.mul(square.index, step), element)
        rows = []
        for _ in range(high):
            rows.append(f.load(vector(element, high), place))
            place = f.at(place, step, element)
        for line, row in enumerate(transposed(f, rows) if high > 1 else rows):
            f.store(row, f.at(room, f.add(square.index, line * wide), element))
    with f.loop(whole, tile.width) as column:
        place = f.at(first, f.mul(column.index, step), element)
        with f.loop(0, tile.height) as line_:
            value = f.load(element, f.at(place, line_.index, element))
            f.store(value, f.at(room, f.add(f.mul(line_.index, wide), column.index), element))
