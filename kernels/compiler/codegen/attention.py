"""Attention: softmax(expression(Q · Kᵀ)) · V, a block of rows of one head at a time.

The products of a block of queries with all keys stay in the thread's scratch memory, where they are made weights; the
sums of these divide the rows of the result. Kᵀ is brought in panels of columns as it is read; a few queries are
multiplied with keys as they lie. What a unit (a head, a block of rows) computes does not depend on who computes it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from distort.kernels.compiler.codegen import elements, mathematics, packing
from distort.kernels.compiler.codegen.dots import emit_dots
from distort.kernels.compiler.codegen.maps import BROADCAST, CONTIGUOUS
from distort.kernels.compiler.codegen.reducers import Reducer
from distort.kernels.compiler.codegen.target import Target
from distort.kernels.compiler.codegen.text import Function, Index, Value, vector
from distort.kernels.compiler.codegen.tiles import Tile, emit_tile
from distort.kernels.compiler.expression import STORED, Expression

#: how keys lie: [keys, depth], which is turned; [depth, keys]; [keys, depth] for a few rows, as dot products
COLUMNS, ROWS, DOTS = "columns", "rows", "dots"
_BATCH = ("outer", "middle", "inner")
#: the words of a step, in order; then come an address and strides (``OPERAND``) of the operands of the scores'
#: expression, of those of the result's, and of the result
WORDS = (
    *_BATCH,  # heads, by three loops
    *("rows", "keys", "depth", "columns"),  # queries; positions of keys and values; sizes of these
    *("block_rows", "line", "pack_values"),  # line: elements between rows of scores
    "reach",  # row n sees no more than the first n + reach keys
    *("scratch", "scratch_nbytes"),  # scratch_nbytes: of one thread
    *("q", "q_row", "q_depth", *(f"q_{loop}" for loop in _BATCH)),  # an address, and strides in elements
    *("k", "k_line", *(f"k_{loop}" for loop in _BATCH)),
    *("v", "v_line", *(f"v_{loop}" for loop in _BATCH)),
)
OPERAND = ("address", "row", *_BATCH)
_ADDRESSES = ("scratch", "q", "k", "v")


class Form(NamedTuple):
    """What a kernel is made for."""

    scores: Tile
    values: Tile
    keys: str = COLUMNS
    dtypes: tuple[str, str, str] = ("float32", "float32", "float32")  # of q, k and v
    #: of scores; its first input is a product of query and key
    expression: Expression = Expression(("float32",), (), (0,))
    #: how columns go through its further inputs: ``BROADCAST`` or ``CONTIGUOUS``
    ways: tuple[int, ...] = ()
    #: whether a row that sees no key becomes zeros, not NaN
    zeros: bool = False
    #: of results
    finish: Expression = Expression(("float32",), (), (0,))
    finish_ways: tuple[int, ...] = ()


def scratch_nbytes(form: Form, lanes: int, sizes: Sequence[int], block_rows: int, line: int) -> int:
    """Of one thread. ``sizes``: keys, depth."""
    return 4 * sum(_parts(form, lanes, sizes, block_rows, line))


def _parts(form: Form, lanes: int, sizes: Sequence[int], block_rows: int, line: int) -> tuple[int, ...]:
    """Elements of scores, sums, a tile's results, a panel of keys, and one of values; in whole cache lines."""
    keys, depth = sizes
    parts = (
        block_rows * line,
        block_rows,
        form.values.rows * form.values.vectors * lanes,
        0 if form.keys == DOTS else form.scores.vectors * lanes * depth,
        form.values.vectors * lanes * keys,
    )
    return tuple(-(-part // 16) * 16 for part in parts)


def emit_attention(f: Function, target: Target, *parameters: Any) -> None:
    """``parameters`` are the fields of a ``Form``."""
    form = Form(Tile(*parameters[0]), Tile(*parameters[1]), *parameters[2:])
    _Emitter(f, form, target.lanes("float")).emit()


class _Operand(NamedTuple):
    dtype: str
    way: int
    address: Value
    row: Value
    loops: tuple[Value, ...]


class _Emitter:
    def __init__(self, f: Function, form: Form, lanes: int) -> None:
        self.f, self.form, self.lanes = f, form, lanes
        self.type = vector("float", lanes)
        self.words = {name: (f.address if name in _ADDRESSES else f.word)(n) for n, name in enumerate(WORDS)}
        self.keys = self.words["keys"]  # that a block of rows sees
        self.score_width, self.value_width = (tile.vectors * lanes for tile in (form.scores, form.values))
        at = iter(range(len(WORDS), 1 << 30))

        def read(dtypes: Sequence[str], ways: Sequence[int]) -> list[_Operand]:
            made = []
            for dtype, way in zip(dtypes, ways, strict=True):
                address = f.address(next(at))
                row, *loops = (f.word(next(at)) for _ in OPERAND[1:])
                made.append(_Operand(dtype, way, address, row, tuple(loops)))
            return made

        self.operands = read(form.expression.inputs[1:], form.ways)
        self.finishers = read(form.finish.inputs[1:], form.finish_ways)
        self.results = read(
            [form.finish.dtype(r) for r in form.finish.results], [CONTIGUOUS] * len(form.finish.results)
        )
        place = f.at(self.words["scratch"], f.mul(f.thread, self.words["scratch_nbytes"]), "i8")
        places = []
        for size in self._sizes():
            places.append(place)
            place = f.at(place, size, "float")
        self.scores, self.inverses, self.partial, self.key_panel, self.value_panel = places

    def _sizes(self) -> list[Index]:
        """As :func:`_parts`."""
        f, words, form = self.f, self.words, self.form

        def lines(size: Index) -> Index:
            return f.mul(f.div(f.add(size, 15), 16), 16)

        return [
            lines(f.mul(words["block_rows"], words["line"])),
            lines(words["block_rows"]),
            -(-form.values.rows * self.value_width // 16) * 16,
            0 if form.keys == DOTS else lines(f.mul(words["depth"], self.score_width)),
            0,
        ]

    def emit(self) -> None:
        f, words = self.f, self.words
        n_blocks = f.div(f.add(words["rows"], f.sub(words["block_rows"], 1)), words["block_rows"])
        n_heads = f.mul(f.mul(words["outer"], words["middle"]), words["inner"])
        begin, end = f.share(f.mul(n_heads, n_blocks))
        with f.loop(begin, end) as unit:
            head, block = f.div(unit.index, n_blocks), f.rem(unit.index, n_blocks)
            rest, inner = f.div(head, words["inner"]), f.rem(head, words["inner"])
            batch = (f.div(rest, words["middle"]), f.rem(rest, words["middle"]), inner)
            first = f.mul(block, words["block_rows"])
            n_rows = f.min(words["block_rows"], f.sub(words["rows"], first))
            seen = f.max(f.add(f.add(first, n_rows), f.sub(words["reach"], 1)), 0)
            self.keys = f.i64(f.min(words["keys"], seen))
            self._multiply_keys(batch, first, n_rows)
            self._weigh(batch, first, n_rows)
            self._multiply_values(batch, first, n_rows)
        f.ret()

    def _moved(self, batch: Sequence[Index], loops: Sequence[Value]) -> Index:
        total: Index = 0
        for index, stride in zip(batch, loops, strict=True):
            total = self.f.add(total, self.f.mul(index, stride))
        return total

    def _head(self, name: str, batch: Sequence[Index], dtype: str) -> Value:
        """Where the matrix of a head begins."""
        loops = [self.words[f"{name}_{loop}"] for loop in _BATCH]
        return self.f.at(self.words[name], self._moved(batch, loops), STORED[dtype])

    def _tiles(self, n_rows: Index, most: int, body: Any) -> None:
        """``body(first row, rows)`` for tiles that are as equal as they can be."""
        f = self.f
        n_tiles = f.div(f.add(n_rows, most - 1), most)
        shorter, longer = f.div(n_rows, n_tiles), f.rem(n_rows, n_tiles)
        with f.loop(0, n_tiles) as tile:
            row = f.add(f.mul(tile.index, shorter), f.min(tile.index, longer))
            more = f.op("i64", f"zext {f.compare('slt', tile.index, longer)} to i64")
            body(row, f.i64(f.add(shorter, more)))

    # -- products with keys

    def _multiply_keys(self, batch: Sequence[Index], first: Index, n_rows: Index) -> None:
        f, words, form, lanes = self.f, self.words, self.form, self.lanes
        q_dtype, k_dtype, _ = form.dtypes
        q = f.at(self._head("q", batch, q_dtype), f.mul(first, words["q_row"]), STORED[q_dtype])
        k = self._head("k", batch, k_dtype)
        if form.keys == DOTS:
            dots = functools.partial(emit_dots, tile=form.scores, lanes=lanes, dtypes=(q_dtype, k_dtype))
            name = f"dots_{form.scores.rows}_{q_dtype}_{k_dtype}"

            def by_dots(row: Index, count: Value) -> None:
                arguments = [
                    *(count, f.at(q, f.mul(row, words["q_row"]), STORED[q_dtype]), words["q_row"], k, words["k_line"]),
                    *(words["depth"], self.keys, self._score(row, 0), words["line"]),
                ]
                f.call_part(name, arguments, dots)

            self._tiles(n_rows, form.scores.rows, by_dots)
            return
        with f.loop(0, self.keys, self.score_width) as panel:
            column = panel.index
            lines, step, lines_dtype = self._key_lines(k, column)

            def multiply(row: Index, count: Value) -> None:
                a = f.at(q, f.mul(row, words["q_row"]), STORED[q_dtype])
                target = self._score(row, column)
                self._tile(form.scores, (q_dtype, lines_dtype), count, a, words["q_row"], words["q_depth"],
                           lines, step, words["depth"], target, words["line"])  # fmt: skip

            self._tiles(n_rows, form.scores.rows, multiply)

    def _key_lines(self, k: Value, column: Index) -> tuple[Value, Value, str]:
        """Lines of a panel of Kᵀ: where the first is, elements from each to the next, and their dtype."""
        f, words, dtype = self.f, self.words, self.form.dtypes[1]
        left = f.sub(self.keys, column)
        if self.form.keys == COLUMNS:
            at = f.at(k, f.mul(column, words["k_line"]), STORED[dtype])
            self._pack("columns", packing.emit_columns, dtype, self.form.scores, at, words["k_line"], left,
                       words["depth"], self.key_panel)  # fmt: skip
            return self.key_panel, f.i64(self.score_width), "float32"
        at = f.at(k, column, STORED[dtype])
        lines, step = self._as_rows(at, words["k_line"], left, words["depth"], dtype, self.form.scores, self.key_panel)
        return lines, step, dtype

    def _score(self, row: Index, column: Index) -> Value:
        return self.f.at(self.scores, self.f.add(self.f.mul(row, self.words["line"]), column), "float")

    def _as_rows(
        self,
        at: Value,
        line: Value,
        left: Index,
        depth: Value,
        dtype: str,
        tile: Tile,
        panel: Value,
        packs: Value | None = None,
    ) -> tuple[Value, Value]:
        """Lines of a panel that lie as rows: as they are, or packed where they are too short, or where ``packs``."""
        f, width = self.f, tile.vectors * self.lanes
        direct = f.compare("sge", left, width)
        if packs is not None:
            direct = f.binary("and", direct, f.compare("eq", packs, 0))

        def packed() -> list[Value]:
            self._pack("rows", packing.emit_rows, dtype, tile, at, line, left, depth, panel)
            return [panel, f.i64(width)]

        lines, step = f.choose(direct, (lambda: [at, line], packed))
        return lines, step

    def _pack(
        self, way: str, emit: Any, dtype: str, tile: Tile, at: Value, line: Value, left: Index, depth: Value, to: Value
    ) -> None:
        pack = functools.partial(emit, dtype=dtype, vectors=tile.vectors, lanes=self.lanes)
        name = f"pack_{way}_{tile.vectors}_{dtype}"
        self.f.call_part(name, [at, line, self.f.i64(left), depth, to], pack)

    def _tile(
        self,
        tile: Tile,
        dtypes: tuple[str, str],
        count: Value,
        a: Value,
        a_row: Value,
        a_depth: Value,
        lines: Value,
        step: Value,
        depth: Value,
        target: Value,
        target_row: Value,
    ) -> None:
        f = self.f
        arguments = [count, a, a_row, a_depth, lines, step, depth, target, target_row, lines, f.i64(0)]
        tiles = functools.partial(emit_tile, tile=tile, lanes=self.lanes, dtypes=dtypes)
        f.call_part(f"tile_{tile.rows}x{tile.vectors}_{'_'.join(dtypes)}", arguments, tiles)

    # -- weights

    def _weigh(self, batch: Sequence[Index], first: Index, n_rows: Index) -> None:
        """Scores as powers, and the inverses of their sums."""
        f, keys, lanes = self.f, self.keys, self.lanes
        heads = [f.at(o.address, self._moved(batch, o.loops), STORED[o.dtype]) for o in self.operands]
        lowest = f.const("float", -math.inf)
        with f.loop(0, n_rows) as row:
            scores = self._score(row.index, 0)
            places = [
                f.at(head, f.mul(f.add(first, row.index), o.row), STORED[o.dtype])
                for head, o in zip(heads, self.operands, strict=True)
            ]
            fixed = [
                elements.load(f, place, o.dtype, 1) if o.way == BROADCAST else None
                for place, o in zip(places, self.operands, strict=True)
            ]

            def largest(index: Index, best: Value, mask: Value | None = None) -> Value:
                """The scores from ``index`` on, by the expression; the largest of those and ``best``."""
                inputs = [f.load(self.type, f.at(scores, index, "float"))]
                for place, o, number in zip(places, self.operands, fixed, strict=True):
                    if number is not None:
                        inputs.append(f.splat(number, lanes))
                    else:
                        inputs.append(elements.load(f, f.at(place, index, STORED[o.dtype]), o.dtype, lanes, mask))
                (value,) = elements.evaluate(f, self.form.expression, inputs)
                if mask is not None:
                    value = f.select(mask, value, f.splat(lowest, lanes))
                if self.form.expression.body or mask is not None:
                    f.store(value, f.at(scores, index, "float"))
                return f.select(f.fcmp("ogt", value, best), value, best)  # NaN makes the sum one

            whole = f.mul(f.div(keys, lanes), lanes)
            with f.loop(0, whole, lanes, [f.splat(lowest, lanes)]) as some:
                some.carry([largest(some.index, some.carried[0])])
            with f.loop(whole, keys, lanes, some.carried) as rest:
                mask = elements.mask_of(f, lanes, f.sub(keys, rest.index))
                rest.carry([largest(rest.index, rest.carried[0], mask)])
            (top,) = Reducer("row_max", "float32", "numbers").over_lanes(f, rest.carried)
            if self.form.zeros:
                top = f.select(f.fcmp("oeq", top, lowest), f.const("float", 0), top)
            every = f.splat(top, lanes)
            with f.loop(0, keys, lanes, [f.const(self.type, 0)]) as some:
                place = f.at(scores, some.index, "float")
                power = mathematics.exp_to_one(f, f.fsub(f.load(self.type, place), every))
                f.store(power, place)
                some.carry([f.fadd(some.carried[0], power)])
            total = f.reduce_add(some.carried[0])
            if self.form.zeros:
                total = f.select(f.fcmp("oeq", total, f.const("float", 0)), f.const("float", 1), total)
            f.store(f.fdiv(f.const("float", 1), total), f.at(self.inverses, row.index, "float"))

    # -- products with values

    def _multiply_values(self, batch: Sequence[Index], first: Index, n_rows: Index) -> None:
        f, words, form = self.f, self.words, self.form
        dtype = form.dtypes[2]
        v = self._head("v", batch, dtype)
        with f.loop(0, words["columns"], self.value_width) as panel:
            column = panel.index
            left = f.sub(words["columns"], column)
            at = f.at(v, column, STORED[dtype])
            lines, step = self._as_rows(
                at, words["v_line"], left, self.keys, dtype, form.values, self.value_panel, words["pack_values"]
            )

            def multiply(row: Index, count: Value) -> None:
                self._tile(form.values, ("float32", dtype), count, self._score(row, 0), words["line"], f.i64(1),
                           lines, step, self.keys, self.partial, f.i64(self.value_width))  # fmt: skip
                self._finish(batch, row, f.add(first, row), count, column, left)

            self._tiles(n_rows, form.values.rows, multiply)

    def _finish(
        self, batch: Sequence[Index], row: Index, number: Index, count: Value, column: Index, left: Index
    ) -> None:
        """Rows of a tile's sums, divided and stored. ``number``: of the first row among all."""
        f, lanes, form = self.f, self.lanes, self.form
        operands = [*self.finishers, *self.results]
        bases = [f.at(o.address, self._moved(batch, o.loops), STORED[o.dtype]) for o in operands]
        n_inputs = len(self.finishers)
        with f.loop(0, count) as loop:
            inverse = f.splat(f.load("float", f.at(self.inverses, f.add(row, loop.index), "float")), lanes)
            sums = f.at(self.partial, f.mul(loop.index, self.value_width), "float")
            places = []
            for base, o in zip(bases, operands, strict=True):
                offset = f.mul(f.add(number, loop.index), o.row)
                offset = f.add(offset, column) if o.way == CONTIGUOUS else offset
                places.append(f.at(base, offset, STORED[o.dtype]))

            def store(index: Index, mask: Value | None) -> None:
                values = [f.fmul(f.load(self.type, f.at(sums, index, "float")), inverse)]
                for place, o in zip(places[:n_inputs], self.finishers, strict=True):
                    if o.way == BROADCAST:
                        values.append(f.splat(elements.load(f, place, o.dtype, 1), lanes))
                    else:
                        values.append(elements.load(f, f.at(place, index, STORED[o.dtype]), o.dtype, lanes, mask))
                made = elements.evaluate(f, form.finish, values)
                for value, place, o in zip(made, places[n_inputs:], self.results, strict=True):
                    elements.store(f, value, f.at(place, index, STORED[o.dtype]), o.dtype, mask)

            here = f.min(left, self.value_width)
            whole = f.mul(f.div(here, lanes), lanes)
            with f.loop(0, whole, lanes) as some:
                store(some.index, None)
            with f.loop(whole, here, lanes) as rest:
                store(rest.index, elements.mask_of(f, lanes, f.sub(here, rest.index)))


__all__ = ["COLUMNS", "DOTS", "OPERAND", "ROWS", "WORDS", "Form", "emit_attention", "scratch_nbytes"]
