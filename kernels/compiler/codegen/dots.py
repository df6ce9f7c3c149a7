"""A few rows times a matrix whose columns lie as rows: dot products, which read it once, in order."""

from __future__ import annotations

from distort.kernels.compiler.codegen import elements
from distort.kernels.compiler.codegen.text import Function, Index, Value, vector
from distort.kernels.compiler.expression import STORED


def emit_dots(
    f: Function,
    lanes: int,
    rows: list[Value],
    row_dtype: str,
    b: Value,
    line: Value,
    dtype: str,
    left: Index,
    depth: Index,
    target: Value,
) -> None:
    """rows (each [depth]) · B [left, depth], ``line`` elements from row to row -> ``target`` [rows, lanes], float32.

    Columns of the target at and after ``left`` are copies of others: what comes of them is nobody's.
    """
    at_once = 8 if len(rows) == 1 and lanes % 8 == 0 else 4  # columns of one pass
    last = f.sub(left, 1)
    zero = f.const(vector("float", lanes), 0)

    def part(address: Value, position: Index, of: str, mask: Value | None) -> Value:
        place = f.at(address, position, STORED[of])
        if mask is None:
            return elements.load(f, place, of, lanes)
        type_ = vector(STORED[of], lanes)
        return elements.computed(f, f.masked_load(type_, place, mask, f.const(type_, 0)), of)

    def advance(sums: list[Value], columns: list[Value], position: Index, mask: Value | None) -> list[Value]:
        parts = [part(row, position, row_dtype, mask) for row in rows]
        made = []
        for n, column in enumerate(columns):
            other = part(column, position, dtype, mask)
            made += [f.fma(one, other, sums[n * len(rows) + m]) for m, one in enumerate(parts)]
        return made

    with f.loop(0, f.min(lanes, left), at_once) as group:
        columns = [f.at(b, f.mul(f.min(f.add(group.index, n), last), line), STORED[dtype]) for n in range(at_once)]
        whole = f.mul(f.div(depth, lanes), lanes)
        with f.loop(0, whole, lanes, [zero] * (at_once * len(rows))) as loop:
            loop.carry(advance(loop.carried, columns, loop.index, None))
        with f.loop(whole, depth, lanes, loop.carried) as rest:
            mask = f.first_lanes(lanes, f.sub(depth, rest.index))
            rest.carry(advance(rest.carried, columns, rest.index, mask))
        for n in range(at_once):
            for m in range(len(rows)):
                total = f.reduce_add(rest.carried[n * len(rows) + m])
                f.store(total, f.at(target, f.add(group.index, m * lanes + n), "float"))
