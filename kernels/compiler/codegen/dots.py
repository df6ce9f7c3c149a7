"""A few rows times a matrix whose columns lie as rows: dot products, which read it once, in order."""

from __future__ import annotations

import functools

from distort.kernels.compiler.codegen import elements
from distort.kernels.compiler.codegen.text import Function, Index, Value, vector
from distort.kernels.compiler.codegen.tiles import Tile
from distort.kernels.compiler.expression import STORED


def emit_dots(f: Function, tile: Tile, lanes: int, dtypes: tuple[str, str]) -> None:
    """void(n_rows, a, a_row, b, line, depth, left, target, target_row)

    For 1 to ``tile.rows`` rows: a [n_rows, depth], a_row elements from row to row; b [left, depth], ``line`` elements
    from row to row; the product to target [n_rows, left], float32, target_row elements from row to row. There is room
    for eight columns at a time: what is after the last is nobody's.
    """
    cases = [functools.partial(_emit_rows, f, n, lanes, dtypes) for n in range(1, tile.rows + 1)]
    f.switch(f.parameters[0], cases, first=1)
    f.ret()


def _emit_rows(f: Function, n_rows: int, lanes: int, dtypes: tuple[str, str]) -> None:
    _, a, a_row, b, line, depth, left, target, target_row = f.parameters
    a_element, b_element = (STORED[dtype] for dtype in dtypes)
    rows = [f.at(a, f.mul(n, a_row), a_element) for n in range(n_rows)]
    n_columns = 8 if n_rows == 1 and lanes % 8 == 0 else 4  # of one pass
    last = f.sub(left, 1)
    zero = f.const(vector("float", lanes), 0)

    def part(address: Value, position: Index, dtype: str, mask: Value | None) -> Value:
        place = f.at(address, position, STORED[dtype])
        return elements.load(f, place, dtype, lanes, mask)

    with f.loop(0, left, n_columns) as group:
        columns = [f.at(b, f.mul(f.min(f.add(group.index, n), last), line), b_element) for n in range(n_columns)]

        def advance(sums: list[Value], position: Index, mask: Value | None) -> list[Value]:
            parts = [part(row, position, dtypes[0], mask) for row in rows]
            made = []
            for n, column in enumerate(columns):
                other = part(column, position, dtypes[1], mask)
                made += [f.fma(one, other, sums[n * n_rows + m]) for m, one in enumerate(parts)]
            return made

        whole = f.mul(f.div(depth, lanes), lanes)
        with f.loop(0, whole, lanes, [zero] * (n_columns * n_rows)) as loop:
            loop.carry(advance(loop.carried, loop.index, None))
        with f.loop(whole, depth, lanes, loop.carried) as rest:
            mask = f.first_lanes(lanes, f.sub(depth, rest.index))
            rest.carry(advance(rest.carried, rest.index, mask))
        for n in range(n_columns):
            for m in range(n_rows):
                total = f.reduce_add(rest.carried[n * n_rows + m])
                f.store(total, f.at(target, f.add(group.index, f.add(f.mul(m, target_row), n)), "float"))
