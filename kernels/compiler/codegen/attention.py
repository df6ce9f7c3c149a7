"""Attention: softmax(expression(Q · Kᵀ)) · V, a block of rows of one head at a time.

The products of a block of queries with all keys stay in the thread's scratch memory, where they are made weights; the
sums of these divide the rows of the result. Kᵀ and V are brought in panels of columns, by each thread once a head; a
few queries are multiplied with keys and values as they lie. What a unit (a head, a block of rows) computes does not
depend on who computes it.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

from distort.kernels.compiler.codegen import elements
from distort.kernels.compiler.codegen.attention_panels import Panels
from distort.kernels.compiler.codegen.dots import emit_dots
from distort.kernels.compiler.codegen.maps import BROADCAST, CONTIGUOUS
from distort.kernels.compiler.codegen.target import Target
from distort.kernels.compiler.codegen.text import Function, Index, Value, vector
from distort.kernels.compiler.codegen.tiles import Tile, emit_tile
from distort.kernels.compiler.codegen.weights import emit_weights
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
    *("scores_at", "inverses_at", "partial_at", "keys_at", "values_at"),  # elements from where a thread's begins
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
    #: which further input of the expression says how many keys a head has, as int64; -1: all have as many
    limited: int = -1


def scratch_parts(form: Form, lanes: int, words: dict[str, int]) -> dict[str, int]:
    """What a thread's scratch memory has where, in elements, and ``end``. ``words`` by name."""
    key_width, value_width = form.scores.vectors * lanes, form.values.vectors * lanes
    n_key_panels = {COLUMNS: -(-words["keys"] // key_width), ROWS: 1, DOTS: 0}[form.keys]
    direct = not words["pack_values"] and words["columns"] % value_width == 0
    sizes = {
        "scores_at": words["block_rows"] * words["line"],
        "inverses_at": words["block_rows"],
        "partial_at": form.values.rows * value_width,
        "keys_at": n_key_panels * key_width * words["depth"],
        "values_at": 0 if direct else -(-words["columns"] // value_width) * value_width * words["keys"],
    }
    places, place = {}, 0
    for name, size in sizes.items():
        places[name] = place
        place += -(-size // 16) * 16
    return {**places, "end": place}


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
        self.scores, self.inverses, self.partial, key_panels, value_panels = (
            f.at(place, self.words[f"{name}_at"], "float")
            for name in ("scores", "inverses", "partial", "keys", "values")
        )
        self.panels = Panels(f, lanes, form.scores, form.values, key_panels, value_panels)

    def emit(self) -> None:
        f, words, form = self.f, self.words, self.form
        n_blocks = f.div(f.add(words["rows"], f.sub(words["block_rows"], 1)), words["block_rows"])
        n_heads = f.mul(f.mul(words["outer"], words["middle"]), words["inner"])
        begin, end = f.share(f.mul(n_heads, n_blocks))
        panels = self.panels
        with f.loop(begin, end, 1, [f.i64(0), f.i64(0)]) as unit:
            head, block = f.div(unit.index, n_blocks), f.rem(unit.index, n_blocks)
            rest, inner = f.div(head, words["inner"]), f.rem(head, words["inner"])
            batch = (f.div(rest, words["middle"]), f.rem(rest, words["middle"]), inner)
            first = f.mul(block, words["block_rows"])
            n_rows = f.min(words["block_rows"], f.sub(words["rows"], first))
            seen = f.max(f.add(f.add(first, n_rows), f.sub(words["reach"], 1)), 0)
            self.keys = f.i64(f.min(words["keys"], seen))
            if form.limited >= 0:
                limits = self.operands[form.limited]
                limit = f.load("i64", f.at(limits.address, self._moved(batch, limits.loops), "i64"))
                self.keys = f.i64(f.min(self.keys, limit))
            apart = f.binary("or", words["k_inner"], words["v_inner"])
            other = f.binary("or", f.compare("eq", inner, 0), f.compare("ne", apart, 0))
            other = f.binary("and", other, f.compare("eq", block, 0))
            other = f.binary("or", other, f.compare("eq", unit.index, begin))
            panels.begin(f.select(other, f.i64(0), unit.carried[0]), f.select(other, f.i64(0), unit.carried[1]))
            self._multiply_keys(batch, first, n_rows)
            self._weigh(batch, first, n_rows)
            self._multiply_values(batch, first, n_rows)
            unit.carry([panels.n_keys, panels.n_values])
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
        if form.keys == COLUMNS:
            self.panels.pack_keys(k, k_dtype, words["k_line"], words["keys"], words["depth"], self.keys)
        with f.loop(0, self.keys, self.score_width) as panel:
            column = panel.index
            if form.keys == COLUMNS:
                lines, step, lines_dtype = self.panels.keys(column, words["depth"])
            else:
                lines, step, lines_dtype = self.panels.rows_of_keys(
                    k, k_dtype, words["k_line"], column, words["keys"], words["depth"]
                )

            def multiply(row: Index, count: Value) -> None:
                a = f.at(q, f.mul(row, words["q_row"]), STORED[q_dtype])
                target = self._score(row, column)
                self._tile(form.scores, (q_dtype, lines_dtype), count, a, words["q_row"], words["q_depth"],
                           lines, step, words["depth"], target, words["line"])  # fmt: skip

            self._tiles(n_rows, form.scores.rows, multiply)

    def _score(self, row: Index, column: Index) -> Value:
        return self.f.at(self.scores, self.f.add(self.f.mul(row, self.words["line"]), column), "float")

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
        f, form = self.f, self.form
        heads = [f.at(o.address, self._moved(batch, o.loops), STORED[o.dtype]) for o in self.operands]
        with f.loop(0, n_rows) as row:
            number = f.add(first, row.index)
            operands = [
                (f.at(head, f.mul(number, o.row), STORED[o.dtype]), o.dtype, o.way)
                for head, o in zip(heads, self.operands, strict=True)
            ]
            scores = self._score(row.index, 0)
            inverse = emit_weights(f, self.lanes, form.expression, form.zeros, scores, self.keys, operands)
            f.store(inverse, f.at(self.inverses, row.index, "float"))

    # -- products with values

    def _multiply_values(self, batch: Sequence[Index], first: Index, n_rows: Index) -> None:
        f, words, form = self.f, self.words, self.form
        dtype = form.dtypes[2]
        v = self._head("v", batch, dtype)
        packs = f.compare("ne", words["pack_values"], 0)
        self.panels.pack_values(v, dtype, words["v_line"], words["columns"], words["keys"], self.keys, packs)
        with f.loop(0, words["columns"], self.value_width) as panel:
            column = panel.index
            left = f.sub(words["columns"], column)
            lines, step = self.panels.values(v, dtype, words["v_line"], column, left, words["keys"], self.keys, packs)

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


__all__ = ["COLUMNS", "DOTS", "OPERAND", "ROWS", "WORDS", "Form", "emit_attention", "scratch_parts"]
