"""What becomes of a tile of sums: an expression on them and on further operands, stored by strides."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from distort.kernels.compiler.codegen import elements
from distort.kernels.compiler.codegen.maps import BROADCAST, CONTIGUOUS
from distort.kernels.compiler.codegen.text import Function, Index, Value, vector
from distort.kernels.compiler.expression import STORED, Expression

#: the words of an operand: its address, and strides in elements
OPERAND = ("address", "row", "outer", "inner")
#: of an epilogue's parameters: words, sums, outer and inner product, first row, rows, first column
EPILOGUE_TYPES = ("ptr", "ptr", "i64", "i64", "i64", "i64", "i64")
#: a longer expression is printed once in a loop over the vectors of a row, not once for each of them
_LONG = 10


def epilogue_part(
    f: Function, expression: Expression, ways: Sequence[int], vectors: int, lanes: int, words: Sequence[str]
) -> Value:
    """The address of a kernel's own epilogue. ``words`` are the kernel's, ``columns`` among them; operands follow."""
    epilogue = functools.partial(
        emit_epilogue,
        expression=expression,
        ways=ways,
        vectors=vectors,
        lanes=lanes,
        columns=words.index("columns"),
        first=len(words),
    )
    return f.part(f"{f.name}_epilogue", EPILOGUE_TYPES, epilogue)


def emit_epilogue(
    f: Function, expression: Expression, ways: Sequence[int], vectors: int, lanes: int, columns: int, first: int
) -> None:
    """void(words, sums, outer, inner, row, n_rows, column)

    sums: [n_rows, vectors · lanes], float32: the expression's first input. ``ways``: how columns go through its other
    inputs, ``BROADCAST`` or ``CONTIGUOUS``. Word ``columns`` is how many there are in all; operands begin at word
    ``first``: the other inputs, then the results.
    """
    _, sums, outer, inner, first_row, n_rows, column = f.parameters
    width = vectors * lanes
    n_inputs = len(expression.inputs) - 1
    dtypes = [*expression.inputs[1:], *(expression.dtype(result) for result in expression.results)]
    all_ways = [*ways, *(CONTIGUOUS for _ in expression.results)]
    operands: list[tuple[Value, Value, int, str]] = []  # where the tile begins, the stride of rows
    for number, (dtype, way) in enumerate(zip(dtypes, all_ways, strict=True)):
        place = first + number * len(OPERAND)
        base, row, by_outer, by_inner = f.address(place), *(f.word(place + n) for n in (1, 2, 3))
        offset = f.add(f.add(f.mul(outer, by_outer), f.mul(inner, by_inner)), f.mul(first_row, row))
        offset = f.add(offset, column) if way == CONTIGUOUS else offset
        operands.append((f.at(base, offset, STORED[dtype]), row, way, dtype))

    def evaluate(bases: Sequence[Value], offset: Index, mask: Value | None) -> None:
        """``bases``: where the row of the sums and those of the operands begin."""
        values = [f.load(vector("float", lanes), f.at(bases[0], offset, "float"))]
        places = [
            base if way == BROADCAST else f.at(base, offset, STORED[dtype])
            for base, (_, _, way, dtype) in zip(bases[1:], operands, strict=True)
        ]
        for place, (_, _, way, dtype) in zip(places[:n_inputs], operands, strict=False):
            if way == BROADCAST:
                values.append(f.splat(elements.load(f, place, dtype, 1), lanes))
            else:
                values.append(elements.load(f, place, dtype, lanes, mask))
        results = elements.evaluate(f, expression, values)
        for value, place, (_, _, _, dtype) in zip(results, places[n_inputs:], operands[n_inputs:], strict=True):
            elements.store(f, value, place, dtype, mask)

    left = f.sub(f.word(columns), column)

    @contextmanager
    def rows() -> Iterator[list[Value]]:
        with f.loop(0, n_rows, 1, [sums, *(base for base, _, _, _ in operands)]) as row:
            yield row.carried
            moved = [
                f.at(at, step, STORED[dtype]) for at, (_, step, _, dtype) in zip(row.carried[1:], operands, strict=True)
            ]
            row.carry([f.at(row.carried[0], width, "float"), *moved])

    def whole() -> list[Value]:
        with rows() as bases:
            if len(expression.body) > _LONG:
                with f.loop(0, width, lanes) as n:
                    evaluate(bases, n.index, None)
            else:
                for offset in range(0, width, lanes):
                    evaluate(bases, offset, None)
        return []

    def cut() -> list[Value]:
        with rows() as bases, f.loop(0, left, lanes) as n:
            evaluate(bases, n.index, f.first_lanes(lanes, f.sub(left, n.index)))
        return []

    f.choose(f.compare("sge", left, width), (whole, cut))
    f.ret()
