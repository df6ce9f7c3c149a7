"""Resizing: every element of a result is read, or is a weighted sum of what is read, at places that tables hold.

Tables are made before the run: ``offsets`` [taps, n] of elements and ``weights`` [taps, n] of float32, for the n
elements along an axis of the result. ``taps`` is 0 in a key where they are many: then a word has their number.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from distort.kernels.compiler.codegen.copying import copy_row
from distort.kernels.compiler.codegen.gather import fetch
from distort.kernels.compiler.codegen.target import Target
from distort.kernels.compiler.codegen.text import Function, Index, Value, vector


def emit_nearest(f: Function, target: Target, element: str, repeats: int) -> None:
    """result[p, y, j] = x[p, y_offsets[y] + x_offsets[j]]; ``repeats``: every element of a row so often, else 0.

    Words: planes, rows of the result, its columns, x, its step per plane, row offsets (i64), column offsets (i32), the
    result (contiguous).
    """
    planes, n_rows, n_columns = (f.word(i) for i in range(3))
    x, plane_step, row_offsets, column_offsets, result = (
        f.address(3),
        f.word(4),
        f.address(5),
        f.address(6),
        f.address(7),
    )
    begin, end = f.share(f.mul(planes, n_rows))
    with f.loop(begin, end) as unit:
        plane, row = f.div(unit.index, n_rows), f.rem(unit.index, n_rows)
        destination = f.at(result, f.mul(unit.index, n_columns), element)
        offset = f.load("i64", f.at(row_offsets, row, "i64"))
        before = f.load("i64", f.at(row_offsets, f.max(f.sub(row, 1), 0), "i64"))
        # a row as the one above it, which this thread has made, is copied
        same = f.binary("and", f.compare("sgt", row, 0), f.compare("eq", offset, before))
        same = f.binary("and", same, f.compare("sgt", unit.index, begin))
        source = f.at(x, f.add(f.mul(plane, plane_step), offset), element)
        above = f.at(destination, f.sub(0, n_columns), element)

        if repeats:
            pick = partial(_repeat, f, target, source, destination, n_columns, element, repeats)
        else:
            pick = partial(_pick, f, target, source, destination, n_columns, element, column_offsets)
        f.choose(same, (partial(copy_row, f, target, above, destination, n_columns, element), pick))
    f.ret()


def _repeat(
    f: Function, target: Target, source: Value, destination: Value, count: Value, element: str, repeats: int
) -> None:
    lanes = target.lanes(element)
    n = f.div(count, repeats)
    whole = f.mul(f.div(n, lanes), lanes)
    with f.loop(0, whole, lanes) as block:
        values = f.load(vector(element, lanes), f.at(source, block.index, element))
        for part in range(repeats):
            spread = f.shuffle(values, values, [(part * lanes + lane) // repeats for lane in range(lanes)])
            f.store(spread, f.at(destination, f.add(f.mul(block.index, repeats), part * lanes), element))
    with f.loop(whole, n) as single:
        value = f.load(element, f.at(source, single.index, element))
        for part in range(repeats):
            f.store(value, f.at(destination, f.add(f.mul(single.index, repeats), part), element))


def _pick(
    f: Function, target: Target, source: Value, destination: Value, count: Value, element: str, offsets: Value
) -> None:
    def body(at: Index, lanes: int) -> None:
        places = f.load(vector("i32", lanes), f.at(offsets, at, "i32"))
        f.store(fetch(f, source, places, element), f.at(destination, at, element))

    _over(f, count, target.lanes("i64" if element == "i64" else "i32"), body)


def _over(f: Function, count: Index, lanes: int, body: Callable[[Index, int], None]) -> None:
    """``body(index, lanes)`` for vectors, then one by one for what is left."""
    whole = f.mul(f.div(count, lanes), lanes)
    with f.loop(0, whole, lanes) as block:
        body(block.index, lanes)
    if lanes > 1:
        with f.loop(whole, count) as single:
            body(single.index, 1)


class Taps:
    """A sum over taps: unrolled, or a loop."""

    def __init__(self, f: Function, known: int, number: Value) -> None:
        self._f, self._known = f, known
        self.number: Index = known or number

    def sum(self, lanes: int, term: Callable[[Index, Value], Value]) -> Value:
        """``term(tap, sum so far)`` gives the next sum."""
        total = self._f.const(vector("float", lanes), 0)
        if self._known:
            for tap in range(self._known):
                total = term(tap, total)
            return total
        with self._f.loop(0, self.number, carried=[total]) as loop:
            loop.carry([term(loop.index, loop.carried[0])])
        return loop.carried[0]


def slot_elements(n_columns: int) -> int:
    return (n_columns + 31) // 16 * 16


def emit_linear(f: Function, target: Target, row_taps: int, column_taps: int) -> None:
    """result[p, y, j] = Σ_t Σ_s w[t, y] v[s, j] x[p, row t of y, column s of j], float32.

    A row of x is stretched once for as long as it is needed: slots hold stretched rows, and a row of x has one slot.
    Words: planes, rows of the result, its columns, x, its step per plane; row offsets (i64), slots (i64), weights; row
    taps; column offsets (i32), weights; column taps; the result (contiguous); scratch: for each thread as many slots
    as the next word says, of :func:`slot_elements` elements each.
    """
    planes, n_rows, n_columns = (f.word(i) for i in range(3))
    x, plane_step = f.address(3), f.word(4)
    row_offsets, slots, row_weights = (f.address(i) for i in (5, 6, 7))
    rows = Taps(f, row_taps, f.word(8))
    column_offsets, column_weights = f.address(9), f.address(10)
    columns = Taps(f, column_taps, f.word(11))
    result, scratch, n_slots = f.address(12), f.address(13), f.word(14)
    lanes = target.lanes("float")
    # a slot: the address of the row of x that it holds, in 16 elements' room, then the row
    slot_size = f.mul(f.div(f.add(n_columns, 31), 16), 16)
    own = f.at(scratch, f.mul(f.mul(f.thread, n_slots), slot_size), "float")
    with f.loop(0, n_slots) as slot:
        f.store(Value("i64", "0"), f.at(own, f.mul(slot.index, slot_size), "float"))

    def stretch(source: Value, destination: Value) -> None:
        def body(at: Index, width: int) -> None:
            def term(tap: Index, total: Value) -> Value:
                place = f.add(f.mul(tap, n_columns), at)
                offsets = f.load(vector("i32", width), f.at(column_offsets, place, "i32"))
                weights = f.load(vector("float", width), f.at(column_weights, place, "float"))
                return f.fma(fetch(f, source, offsets, "float"), weights, total)

            f.store(columns.sum(width, term), f.at(destination, at, "float"))

        _over(f, n_columns, lanes, body)

    def add_up(row: Index, destination: Value, at: Index, width: int) -> None:
        def term(tap: Index, total: Value) -> Value:
            place = f.add(f.mul(tap, n_rows), row)
            slot = f.mul(f.load("i64", f.at(slots, place, "i64")), slot_size)
            weight = f.load("float", f.at(row_weights, place, "float"))
            value = f.load(vector("float", width), f.at(own, f.add(f.add(slot, 16), at), "float"))
            return f.fma(value, f.splat(weight, width), total)

        f.store(rows.sum(width, term), f.at(destination, at, "float"))

    begin, end = f.share(f.mul(planes, n_rows))
    with f.loop(begin, end) as unit:
        plane, row = f.div(unit.index, n_rows), f.rem(unit.index, n_rows)
        image = f.at(x, f.mul(plane, plane_step), "float")
        destination = f.at(result, f.mul(unit.index, n_columns), "float")
        if row_taps == 1:
            stretch(f.at(image, f.load("i64", f.at(row_offsets, row, "i64")), "float"), destination)
        else:
            with f.loop(0, rows.number) as tap:
                place = f.add(f.mul(tap.index, n_rows), row)
                source = f.at(image, f.load("i64", f.at(row_offsets, place, "i64")), "float")
                slot_ = f.at(own, f.mul(f.load("i64", f.at(slots, place, "i64")), slot_size), "float")
                name = f.op("i64", f"ptrtoint ptr {source.text} to i64")
                with f.when(f.icmp("ne", f.load("i64", slot_), name)):
                    f.store(name, slot_)
                    stretch(source, f.at(slot_, 16, "float"))
            _over(f, n_columns, lanes, partial(add_up, row, destination))
    f.ret()


def emit_blend(f: Function, target: Target, known_taps: int) -> None:
    """result[o, j, :] = Σ_t w[t, j] x[o, offsets[t, j] + :], float32.

    Words: o's and j's ends; elements of a row, and of a chunk of it; x, its step per o; offsets (i64), weights, taps;
    the result (contiguous).
    """
    n_outer, n_rows, count, chunk = (f.word(i) for i in range(4))
    x, x_step = f.address(4), f.word(5)
    offsets, weights = f.address(6), f.address(7)
    taps = Taps(f, known_taps, f.word(8))
    result = f.address(9)
    n_chunks = f.div(f.add(count, f.sub(chunk, 1)), chunk)
    begin, end = f.share(f.mul(f.mul(n_outer, n_rows), n_chunks))
    with f.loop(begin, end) as unit:
        row, first = f.div(unit.index, n_chunks), f.mul(f.rem(unit.index, n_chunks), chunk)
        outer, place = f.div(row, n_rows), f.rem(row, n_rows)
        source = f.at(x, f.add(f.mul(outer, x_step), first), "float")
        destination = f.at(result, f.add(f.mul(row, count), first), "float")

        add_up = partial(_blend, f, taps, (offsets, weights), n_rows, place, source, destination)
        _over(f, f.min(chunk, f.sub(count, first)), target.lanes("float"), add_up)
    f.ret()


def _blend(
    f: Function,
    taps: Taps,
    tables: tuple[Value, Value],
    n_rows: Value,
    row: Index,
    source: Value,
    destination: Value,
    at: Index,
    width: int,
) -> None:
    offsets, weights = tables

    def term(tap: Index, total: Value) -> Value:
        place = f.add(f.mul(tap, n_rows), row)
        offset = f.load("i64", f.at(offsets, place, "i64"))
        weight = f.splat(f.load("float", f.at(weights, place, "float")), width)
        return f.fma(f.load(vector("float", width), f.at(source, f.add(offset, at), "float")), weight, total)

    f.store(taps.sum(width, term), f.at(destination, at, "float"))


def emit_pixels(f: Function, target: Target, lanes: int, row_taps: int, column_taps: int) -> None:
    """result[p, y, j, :] = Σ_t Σ_s w[t, y] v[s, j] x[p, row t of y, column s of j, :], pixels of ``lanes`` float32.

    With one tap each way, pixels are copied. Words: planes, rows of the result, its columns, x, its step per plane; row
    offsets (i64), weights; column offsets (i64), weights; the result (contiguous).
    """
    planes, n_rows, n_columns = (f.word(i) for i in range(3))
    x, plane_step = f.address(3), f.word(4)
    row_offsets, row_weights, column_offsets, column_weights, result = (f.address(i) for i in range(5, 10))
    type_ = vector("float", lanes)
    del target
    begin, end = f.share(f.mul(planes, n_rows))
    with f.loop(begin, end) as unit:
        plane, row = f.div(unit.index, n_rows), f.rem(unit.index, n_rows)
        places = [f.add(f.mul(n_rows, tap), row) for tap in range(row_taps)]
        steps = [f.load("i64", f.at(row_offsets, place, "i64")) for place in places]
        lines = [f.at(x, f.add(f.mul(plane, plane_step), step), "float") for step in steps]
        down = [f.splat(f.load("float", f.at(row_weights, place, "float")), lanes) for place in places]
        destination = f.at(result, f.mul(f.mul(unit.index, n_columns), lanes), "float")
        with f.loop(0, n_columns) as column:
            total = f.const(type_, 0)
            for tap in range(column_taps):
                place = f.add(f.mul(n_columns, tap), column.index)
                offset = f.load("i64", f.at(column_offsets, place, "i64"))
                found = [f.load(type_, f.at(line, offset, "float")) for line in lines]
                if row_taps == column_taps == 1:
                    total = found[0]
                    break
                across = f.splat(f.load("float", f.at(column_weights, place, "float")), lanes)
                value = f.fmul(found[0], down[0])
                for other, weight in zip(found[1:], down[1:], strict=True):
                    value = f.fma(other, weight, value)
                total = f.fma(value, across, total)
            f.store(total, f.at(destination, f.mul(column.index, lanes), "float"))
    f.ret()
