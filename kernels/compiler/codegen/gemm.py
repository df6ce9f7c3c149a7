"""Matrix products: C = epilogue(A · B), batched, with any strides, on a register tile of rows × vectors.

A is read in place, one element for all lanes. B is read in panels of ``vectors`` vectors of columns × depth: packed
once (``packing.pack_panels``), or by each thread as it needs them. Tiles of rows are as equal as they can be, so that a
rest of rows is no slow case. Units of work are (batch, block of rows, panel, tile of rows), in this order; a thread
takes a stretch of them. What a unit computes does not depend on who computes it.

Long sums are cut in blocks of depth, so that the part of a panel that is in use stays in the cache; sums between
blocks are in the thread's scratch memory, never in the result, which may hold an operand of the epilogue.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

from distort.kernels.compiler.codegen import elements, packing
from distort.kernels.compiler.codegen.target import Target
from distort.kernels.compiler.codegen.text import Function, Index, Value, vector
from distort.kernels.compiler.codegen.tile_epilogue import epilogue_part
from distort.kernels.compiler.codegen.tiles import Tile, emit_tile
from distort.kernels.compiler.expression import STORED, Expression

#: how B comes: packed panels; [depth, columns]; [columns, depth]; the same for a few rows, as dot products; packed
#: pairs, for ``gemm_bf16``; packed codes of 4 or 8 bits, and the same for a few rows, without making numbers of them
PACKED, ROWS, COLUMNS, DOTS, BF16 = "packed", "rows", "columns", "dots", "bf16"
CODES, FEW_CODES = {4: "codes4", 8: "codes8"}, {4: "few_codes4", 8: "few_codes8"}
#: a single tile of rows asks for weights that it comes to so many bytes later
_AHEAD_NBYTES = 8192
#: by more tiles than this a panel of rows is read once, and kept where its lines lie next to each other
_DIRECT_TILES = 2
#: the words of a step, in order; then come ``tile_epilogue.OPERAND`` of the epilogue's other inputs and of the results
WORDS = (
    *("rows", "columns", "depth", "outer", "inner"),  # outer × inner products of rows × depth · depth × columns
    *("block_tiles", "block_depth", "scratch", "scratch_nbytes"),  # scratch_nbytes: of one thread
    *("a", "a_row", "a_depth", "a_outer", "a_inner"),  # an address, and strides in elements
    *("b", "b_line", "b_outer", "b_inner"),  # b_line: between rows, or columns; of codes: lines of a block
)


def scratch_nbytes(tile: Tile, width: int, b: str, block_tiles: int, block_depth: int, depth: int) -> int:
    """Of one thread: a tile's sums, a panel where B is not packed, and sums between blocks of depth."""
    n_rows = tile.rows * (1 + (block_tiles if depth > block_depth else 0)) + (block_depth if _has_panel(b) else 0)
    return n_rows * width * 4


def _has_panel(b: str) -> bool:
    """Whether threads make panels of B for themselves."""
    return b in (ROWS, COLUMNS, *CODES.values())


class Gemm(NamedTuple):
    """What a kernel is made for."""

    tile: Tile
    b: str = PACKED
    a_dtype: str = "float32"
    b_dtype: str = "float32"
    epilogue: Expression = Expression(("float32",), (), (0,))
    #: how columns go through the further inputs of the epilogue: ``BROADCAST`` or ``CONTIGUOUS``
    ways: tuple[int, ...] = ()


def emit_gemm(f: Function, target: Target, *parameters: Any) -> None:
    """``parameters`` are the fields of a ``Gemm``. What does not depend on the epilogue is shared by kernels."""
    gemm = Gemm(Tile(*parameters[0]), *parameters[1:])
    lanes = target.lanes("float")
    finish = epilogue_part(f, gemm.epilogue, gemm.ways, gemm.tile.vectors, lanes, WORDS)
    name = f"products_{gemm.tile.rows}x{gemm.tile.vectors}_{gemm.b}_{gemm.a_dtype}_{gemm.b_dtype}"
    f.call_part(name, [*f.parameters, finish], lambda part: _Emitter(part, gemm, lanes).emit())
    f.ret()


class _Emitter:
    """void(words, part, n_parts, thread, epilogue)"""

    def __init__(self, f: Function, gemm: Gemm, lanes: int) -> None:
        self.f, self.gemm, self.tile, self.lanes = f, gemm, gemm.tile, lanes
        self.width = self.tile.vectors * self.lanes  # columns of a panel
        self.type = vector("float", self.lanes)
        addresses = ("a", "b", "scratch")
        self.words = {name: (f.address if name in addresses else f.word)(n) for n, name in enumerate(WORDS)}

    def emit(self) -> None:
        f, words = self.f, self.words
        n_tiles = f.div(f.add(words["rows"], self.tile.rows - 1), self.tile.rows)
        n_panels = f.div(f.add(words["columns"], self.width - 1), self.width)
        self.n_tiles = n_tiles
        some = f.max(n_tiles, 1)
        #: rows of a tile; the first ``longer`` tiles have one more
        self.shorter, self.longer = f.div(words["rows"], some), f.rem(words["rows"], some)
        scratch = f.at(words["scratch"], f.mul(f.thread, words["scratch_nbytes"]), "i8")
        self.partial = scratch  # [rows of a tile, columns of a panel]
        self.panel = f.at(scratch, self.tile.rows * self.width, "float")  # [block_depth, columns of a panel]
        sums_at = f.mul(words["block_depth"], self.width) if _has_panel(self.gemm.b) else 0
        self.sums = f.at(self.panel, sums_at, "float")  # a partial for each tile of a block
        of_product = f.mul(n_tiles, n_panels)
        of_block = f.mul(words["block_tiles"], n_panels)
        begin, end = f.share(f.mul(of_product, f.mul(words["outer"], words["inner"])))
        with f.loop(begin, end) as unit:
            product = f.div(unit.index, of_product)
            rest = f.rem(unit.index, of_product)
            first_tile = f.mul(f.div(rest, of_block), words["block_tiles"])
            rest = f.rem(rest, of_block)
            here = f.min(words["block_tiles"], f.sub(n_tiles, first_tile))
            panel = f.div(rest, here)
            tile = f.rem(rest, here)
            count = f.min(f.sub(here, tile), f.sub(end, unit.index))
            self._panel(product, panel, f.add(first_tile, tile), count)
            unit.step = count
        f.ret()

    def _panel(self, product: Index, panel: Index, first_tile: Index, n_tiles: Index) -> None:
        """Some tiles of one panel, one after the other for each block of depth."""
        f, words = self.f, self.words
        batch = (f.div(product, words["inner"]), f.rem(product, words["inner"]))
        a = f.at(words["a"], self._batch(batch, words["a_outer"], words["a_inner"]), STORED[self.gemm.a_dtype])
        b_element = STORED[self.gemm.b_dtype]
        b = f.at(words["b"], self._batch(batch, words["b_outer"], words["b_inner"]), b_element)
        column = f.mul(panel, self.width)
        one_block = f.op("i1", f"icmp sle {words['depth']}, {words['block_depth'].text}")
        end = f.max(words["depth"], 1)
        with f.loop(0, end, words["block_depth"]) as block:
            depth = f.min(words["block_depth"], f.sub(words["depth"], block.index))
            is_first = f.compare("eq", block.index, 0)
            is_last = f.compare("sge", f.add(block.index, words["block_depth"]), end)
            if self.gemm.b == PACKED:
                begin = f.mul(f.add(f.mul(panel, words["depth"]), block.index), self.width)
                lines, step = f.at(b, begin, b_element), f.i64(self.width)
            elif self._bits():
                lines, step = self._records(b, panel, block.index, depth), f.i64(self.width)
            else:
                lines, step = self._lines(b, column, block.index, depth, n_tiles)
            # each tile asks for its share of what is next: the panel after this one, or its next block; a single one
            # for what it comes to itself, so that memory is never idle
            line_nbytes = self.width * elements.nbytes(self.gemm.b_dtype)
            ahead = f.i64(0)
            if self.gemm.b == PACKED:
                ahead = f.i64(f.div(line_nbytes, n_tiles))
            distance = f.select(f.compare("sgt", n_tiles, 1), f.i64(f.mul(depth, line_nbytes)), f.i64(_AHEAD_NBYTES))
            following = f.at(lines, distance, "i8")
            with f.loop(0, n_tiles) as loop:
                soon = f.at(following, f.mul(loop.index, f.mul(ahead, depth)), "i8")
                number = f.add(first_tile, loop.index)
                row = f.add(f.mul(number, self.shorter), f.min(number, self.longer))
                more = f.op("i64", f"zext {f.compare('slt', number, self.longer)} to i64")
                n_rows = f.i64(f.add(self.shorter, more))
                offset = f.add(f.mul(row, words["a_row"]), f.mul(block.index, words["a_depth"]))
                a_tile = f.at(a, offset, STORED[self.gemm.a_dtype])
                kept = f.at(self.sums, f.mul(loop.index, self.tile.rows * self.width), "float")
                sums = f.select(one_block, self.partial, kept)
                target = f.select(is_first, sums, self.partial)
                self._multiply(n_rows, a_tile, lines, step, depth, column, target, soon, ahead)
                with f.when(f.compare("ne", block.index, 0)):
                    self._accumulate(sums, n_rows)
                with f.when(is_last):
                    place = [f.i64(n) for n in (*batch, row, n_rows, column)]
                    f.invoke(f.parameters[4], [f.parameters[0], sums, *place])

    def _batch(self, batch: tuple[Index, Index], outer: Value, inner: Value) -> Index:
        return self.f.add(self.f.mul(batch[0], outer), self.f.mul(batch[1], inner))

    def _records(self, b: Value, panel: Index, first: Index, depth: Index) -> Value:
        """Records of a panel of codes; for more than a few rows the lines that they stand for."""
        from distort.kernels.compiler.codegen import codes

        f, block, bits = self.f, self.words["b_line"], self._bits()
        n_blocks = f.div(f.add(self.words["depth"], f.sub(block, 1)), block)
        number = f.add(f.mul(panel, n_blocks), f.div(first, block))
        records = f.at(b, f.mul(number, codes.record_nbytes(self.width, block, bits, f)), "i8")
        if self.gemm.b in FEW_CODES.values():
            return records
        decode = functools.partial(codes.emit_codes, vectors=self.tile.vectors, lanes=self.lanes, bits=bits)
        f.call_part(f"decode_{bits}_{self.tile.vectors}", [records, block, f.i64(depth), self.panel], decode)
        return self.panel

    def _bits(self) -> int:
        """Of a code; 0 where B is no codes."""
        return next((n for forms in (CODES, FEW_CODES) for n, form in forms.items() if form == self.gemm.b), 0)

    def _lines(self, b: Value, column: Index, first: Index, depth: Index, n_tiles: Index) -> tuple[Value, Value]:
        """Lines of a panel of B as it is: where the first is, and elements from each to the next."""
        f, words = self.f, self.words
        left = f.sub(words["columns"], column)
        if self.gemm.b in (COLUMNS, DOTS):
            at = f.at(b, f.add(f.mul(column, words["b_line"]), first), STORED[self.gemm.b_dtype])
            if self.gemm.b == DOTS:
                return at, words["b_line"]
            pack = functools.partial(
                packing.emit_columns, dtype=self.gemm.b_dtype, vectors=self.tile.vectors, lanes=self.lanes
            )
            name = f"pack_columns_{self.tile.vectors}_{self.gemm.b_dtype}"
            f.call_part(name, [at, words["b_line"], f.i64(left), f.i64(depth), self.panel], pack)
            return self.panel, f.i64(self.width)
        at = f.at(b, f.add(f.mul(first, words["b_line"]), column), STORED[self.gemm.b_dtype])
        few = f.compare("sle", n_tiles, _DIRECT_TILES)
        direct = f.binary("and", f.compare("sge", left, self.width), few)

        def packed() -> list[Value]:
            pack = functools.partial(
                packing.emit_rows, dtype=self.gemm.b_dtype, vectors=self.tile.vectors, lanes=self.lanes
            )
            name = f"pack_rows_{self.tile.vectors}_{self.gemm.b_dtype}"
            f.call_part(name, [at, words["b_line"], f.i64(left), f.i64(depth), self.panel], pack)
            return [self.panel, f.i64(self.width)]

        lines, step = f.choose(direct, (lambda: [at, words["b_line"]], packed))
        return lines, step

    def _multiply(
        self,
        n_rows: Value,
        a: Value,
        lines: Value,
        step: Value,
        depth: Index,
        column: Index,
        target: Value,
        soon: Value,
        ahead: Value,
    ) -> None:
        """A tile of A [n_rows, depth] · lines of B [depth, width] to ``target`` [n_rows, width]."""
        f, gemm, words = self.f, self.gemm, self.words
        line = f.i64(self.width)
        if gemm.b == DOTS:
            from distort.kernels.compiler.codegen.dots import emit_dots

            left = f.i64(f.min(self.width, f.sub(words["columns"], column)))
            dots = functools.partial(emit_dots, tile=self.tile, lanes=self.lanes, dtypes=(gemm.a_dtype, gemm.b_dtype))
            name = f"dots_{self.tile.rows}_{gemm.a_dtype}_{gemm.b_dtype}"
            f.call_part(name, [n_rows, a, words["a_row"], lines, step, f.i64(depth), left, target, line], dots)
            return
        bits = self._bits()
        if gemm.b in FEW_CODES.values():
            from distort.kernels.compiler.codegen import codes

            tile = functools.partial(
                codes.emit_code_tile, tile=self.tile, lanes=self.lanes, bits=bits, a_dtype=gemm.a_dtype
            )
            name = f"codes{bits}_{self.tile.rows}x{self.tile.vectors}_{gemm.a_dtype}"
            a_strides = (words["a_row"], words["a_depth"])
            f.call_part(name, [n_rows, a, *a_strides, lines, words["b_line"], f.i64(depth), target], tile)
            return
        dtypes = (gemm.a_dtype, gemm.b_dtype if gemm.b in (PACKED, ROWS) else "float32")
        operands = [a, words["a_row"], words["a_depth"], lines, step, f.i64(depth)]
        arguments = [n_rows, *operands, target, line, soon, ahead]
        tiles = functools.partial(emit_tile, tile=self.tile, lanes=self.lanes, dtypes=dtypes)
        f.call_part(f"tile_{self.tile.rows}x{self.tile.vectors}_{'_'.join(dtypes)}", arguments, tiles)

    def _accumulate(self, sums: Value, n_rows: Value) -> None:
        """Add the partial sums to those of earlier blocks of depth."""
        f = self.f
        with f.loop(0, f.mul(n_rows, self.width), self.lanes) as loop:
            place = f.at(sums, loop.index, "float")
            total = f.fadd(f.load(self.type, place), f.load(self.type, f.at(self.partial, loop.index, "float")))
            f.store(total, place)
