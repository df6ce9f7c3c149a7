"""Copies that change the order of dimensions, where the result's last ones are short.

Squares are read along the loop that the operand is contiguous in (a), turned in registers and written along the
result's last loops, taken together (j): a table says where their elements are in the operand.
"""

from __future__ import annotations

from distort.kernels.compiler.codegen.target import Target
from distort.kernels.compiler.codegen.text import Function, Index, vector
from distort.kernels.compiler.codegen.turned import transposed


def side_of(target: Target, element: str, n_a: int, n_j: int) -> int:
    """Of a square: a vector's lanes, or fewer where the loops are shorter."""
    most = min(target.lanes(element), 16, n_a, n_j)
    return 1 << most.bit_length() - 1


def emit_squares(f: Function, target: Target, element: str, side: int, n_loops: int) -> None:
    """result[…, a, j] = x[…, a + offset j]. The last squares of both loops overlap those before them.

    Words: bands of ``side`` a's in all; a's and j's ends; x, the offsets (i64); the result, its step per a; the sizes
    of the outer loops, their steps in x and in the result.
    """
    del target
    n_units, n_a, n_j = (f.word(i) for i in range(3))
    x, offsets, result, a_step = f.address(3), f.address(4), f.address(5), f.word(6)
    sizes, x_steps, result_steps = ([f.word(7 + which * n_loops + i) for i in range(n_loops)] for which in range(3))
    type_ = vector(element, side)
    n_bands = f.div(f.add(n_a, side - 1), side)
    n_blocks = f.div(f.add(n_j, side - 1), side)
    begin, end = f.share(n_units)
    with f.loop(begin, end) as unit:
        rest: Index = f.div(unit.index, n_bands)
        a = f.min(f.mul(f.rem(unit.index, n_bands), side), f.sub(n_a, side))
        source, place = a, f.mul(a, a_step)
        for i in reversed(range(n_loops)):
            at = f.rem(rest, sizes[i]) if i else rest
            rest = f.div(rest, sizes[i]) if i else rest
            source, place = f.add(source, f.mul(at, x_steps[i])), f.add(place, f.mul(at, result_steps[i]))
        own_x, own = f.at(x, source, element), f.at(result, place, element)
        with f.loop(0, n_blocks) as block:
            j = f.min(f.mul(block.index, side), f.sub(n_j, side))
            table = f.at(offsets, j, "i64")
            rows = []
            for i in range(side):
                rows.append(f.load(type_, f.at(own_x, f.load("i64", f.at(table, i, "i64")), element)))
            line = f.at(own, j, element)
            for row in transposed(f, rows) if side > 1 else rows:
                f.store(row, line)
                line = f.at(line, a_step, element)
    f.ret()


def emit_interleaved(f: Function, target: Target, element: str, count: int, lanes: int, n_loops: int) -> None:
    """result[…, a, j] = x[…, a + j · step] for few j's, where a's and j's of the result lie next to each other.

    Words: chunks of a's in all; a's end, and the a's of a chunk (a multiple of ``lanes``); x, its step per j; the
    result; the sizes of the outer loops, their steps in x and in the result.
    """
    del target
    n_units, n_a, chunk = (f.word(i) for i in range(3))
    x, step, result = f.address(3), f.word(4), f.address(5)
    sizes, x_steps, result_steps = ([f.word(6 + which * n_loops + i) for i in range(n_loops)] for which in range(3))
    n_chunks = f.div(f.add(n_a, f.sub(chunk, 1)), chunk)
    begin, end = f.share(n_units)
    with f.loop(begin, end) as unit:
        rest: Index = f.div(unit.index, n_chunks)
        first = f.mul(f.rem(unit.index, n_chunks), chunk)
        last = f.min(f.add(first, chunk), n_a)
        source: Index = 0
        place: Index = 0
        for i in reversed(range(n_loops)):
            at = f.rem(rest, sizes[i]) if i else rest
            rest = f.div(rest, sizes[i]) if i else rest
            source, place = f.add(source, f.mul(at, x_steps[i])), f.add(place, f.mul(at, result_steps[i]))
        lines = [f.at(x, f.add(source, f.mul(step, j)), element) for j in range(count)]
        own = f.at(result, place, element)
        whole = f.add(first, f.mul(f.div(f.sub(last, first), lanes), lanes))
        with f.loop(first, whole, lanes) as block:
            rows = [f.load(vector(element, lanes), f.at(line, block.index, element)) for line in lines]
            target_line = f.at(own, f.mul(block.index, count), element)
            for part in range(count):
                made = rows[0]
                for j in range(count):
                    # lanes of row j where they belong, the others as they are
                    flat = [part * lanes + lane for lane in range(lanes)]
                    if j == 0:
                        made = f.shuffle(rows[0], rows[0], [n // count for n in flat])
                    else:
                        chosen = [lanes + n // count if n % count == j else lane for lane, n in enumerate(flat)]
                        made = f.shuffle(made, rows[j], chosen)
                f.store(made, f.at(target_line, part * lanes, element))
        with f.loop(whole, last) as single:
            for j, line in enumerate(lines):
                to = f.add(f.mul(single.index, count), j)
                f.store(f.load(element, f.at(line, single.index, element)), f.at(own, to, element))
    f.ret()
