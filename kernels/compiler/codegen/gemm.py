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
from dataclasses import dataclass
from typing import NamedTuple

from distort.kernels.compiler.codegen import elements, packing
from distort.kernels.compiler.codegen.dots import emit_dots
from distort.kernels.compiler.codegen.maps import BROADCAST, CONTIGUOUS
from distort.kernels.compiler.codegen.target import Target
from distort.kernels.compiler.codegen.text import Function, Index, Value, vector
from distort.kernels.compiler.expression import STORED, Expression

#: how B comes: packed panels; [depth, columns]; [columns, depth]; the same for a few rows, as dot products
PACKED, ROWS, COLUMNS, DOTS = "packed", "rows", "columns", "dots"
#: the words of a step, in order; those of the epilogue's further inputs and of the results follow, ``OPERAND`` each
WORDS = (
    *("rows", "columns", "depth", "outer", "inner"),  # outer × inner products of rows × depth · depth × columns
    *("block_tiles", "block_depth", "scratch", "scratch_nbytes"),  # scratch_nbytes: of one thread
    *("a", "a_row", "a_depth", "a_outer", "a_inner"),  # an address, and strides in elements
    *("b", "b_line", "b_outer", "b_inner"),  # b_line: between rows, or between columns; unused where packed
)
OPERAND = ("address", "row", "outer", "inner")


class Tile(NamedTuple):
    rows: int
    vectors: int


def scratch_nbytes(tile: Tile, width: int, b: str, block_tiles: int, block_depth: int, depth: int) -> int:
    """Of one thread: a tile's sums, a panel where B is not packed, and sums between blocks of depth."""
    n_rows = tile.rows * (1 + (block_tiles if depth > block_depth else 0)) + (block_depth if _has_panel(b) else 0)
    return n_rows * width * 4


def _has_panel(b: str) -> bool:
    """Whether threads make panels of B for themselves."""
    return b in (ROWS, COLUMNS)


class Gemm(NamedTuple):
    """What a kernel is made for."""

    tile: Tile
    b: str = PACKED
    a_dtype: str = "float32"
    b_dtype: str = "float32"
    epilogue: Expression = Expression(("float32",), (), (0,))
    #: how columns go through the further inputs of the epilogue: ``BROADCAST`` or ``CONTIGUOUS``
    ways: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class _Operand:
    dtype: str
    way: int
    address: Value
    row: Value
    outer: Value
    inner: Value


def emit_gemm(f: Function, target: Target, *parameters: object) -> None:
    """``parameters`` are the fields of a ``Gemm``."""
    gemm = Gemm(*parameters)  # type: ignore[arg-type]
    _Emitter(f, target, gemm).emit()


class _Emitter:
    def __init__(self, f: Function, target: Target, gemm: Gemm) -> None:
        self.f, self.gemm = f, gemm
        self.tile = Tile(*gemm.tile)
        self.lanes = target.lanes("float")
        self.width = self.tile.vectors * self.lanes  # columns of a panel
        self.type = vector("float", self.lanes)
        addresses = ("a", "b", "scratch")
        self.words = {name: (f.address if name in addresses else f.word)(n) for n, name in enumerate(WORDS)}
        dtypes = [*gemm.epilogue.inputs[1:], *(gemm.epilogue.dtype(result) for result in gemm.epilogue.results)]
        ways = [*gemm.ways, *(CONTIGUOUS for _ in gemm.epilogue.results)]
        self.operands = []
        for number, (dtype, way) in enumerate(zip(dtypes, ways, strict=True)):
            place = len(WORDS) + number * len(OPERAND)
            strides = [f.word(place + 1 + n) for n in range(3)]
            self.operands.append(_Operand(dtype, way, f.address(place), *strides))

    def emit(self) -> None:
        f, words = self.f, self.words
        n_tiles = f.div(f.add(words["rows"], self.tile.rows - 1), self.tile.rows)
        n_panels = f.div(f.add(words["columns"], self.width - 1), self.width)
        self.n_tiles = n_tiles
        some = f.max(n_tiles, 1)
        #: rows of a tile; the first ``longer`` tiles have one more
        self.shorter, self.longer = f.div(words["rows"], some), f.rem(words["rows"], some)
        scratch = f.at(words["scratch"], f.mul(f.parameters[1], words["scratch_nbytes"]), "i8")
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
                place = f.mul(f.add(f.mul(panel, words["depth"]), block.index), self.width)
                lines, step = f.at(b, place, b_element), f.i64(self.width)
            else:
                lines, step = self._lines(b, column, block.index, depth)
            # each tile asks for its share of what is next: the panel after this one, or its next block
            line_nbytes = self.width * elements.nbytes(self.gemm.b_dtype)
            ahead = f.select(f.compare("sgt", n_tiles, 1), f.i64(f.div(line_nbytes, n_tiles)), f.i64(0))
            following = f.at(lines, f.mul(depth, line_nbytes), "i8")
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

                def multiply(n: int) -> None:
                    if self.gemm.b == DOTS:
                        self._dots(n, a_tile, lines, step, depth, column, target)
                    else:
                        self._multiply(n, a_tile, lines, step, depth, target, soon, ahead)

                cases = [functools.partial(multiply, n) for n in range(1, self.tile.rows + 1)]
                f.switch(n_rows, cases, first=1)
                with f.when(f.compare("ne", block.index, 0)):
                    self._accumulate(sums, n_rows)
                with f.when(is_last):
                    self._finish(sums, batch, row, n_rows, column)

    def _batch(self, batch: tuple[Index, Index], outer: Value, inner: Value) -> Index:
        return self.f.add(self.f.mul(batch[0], outer), self.f.mul(batch[1], inner))

    def _lines(self, b: Value, column: Index, first: Index, depth: Index) -> tuple[Value, Value]:
        """Lines of a panel of B as it is: where the first is, and elements from each to the next."""
        f, words = self.f, self.words
        left = f.sub(words["columns"], column)
        if self.gemm.b in (COLUMNS, DOTS):
            at = f.at(b, f.add(f.mul(column, words["b_line"]), first), STORED[self.gemm.b_dtype])
            if self.gemm.b == DOTS:
                return at, words["b_line"]
            packing.emit_columns(
                f, at, words["b_line"], self.gemm.b_dtype, left, depth, self.panel, self.tile.vectors, self.lanes
            )
            return self.panel, f.i64(self.width)
        at = f.at(b, f.add(f.mul(first, words["b_line"]), column), STORED[self.gemm.b_dtype])
        direct = f.compare("sge", left, self.width)

        def pack() -> list[Value]:
            packing.emit_rows(
                f, at, words["b_line"], self.gemm.b_dtype, left, depth, self.panel, self.tile.vectors, self.lanes
            )
            return [self.panel, f.i64(self.width)]

        lines, step = f.choose(direct, (lambda: [at, words["b_line"]], pack))
        return lines, step

    def _dots(self, n_rows: int, a: Value, b: Value, line: Value, depth: Index, column: Index, target: Value) -> None:
        f, gemm = self.f, self.gemm
        rows = [f.at(a, f.mul(n, self.words["a_row"]), STORED[gemm.a_dtype]) for n in range(n_rows)]
        left = f.sub(self.words["columns"], column)
        emit_dots(f, self.lanes, rows, gemm.a_dtype, b, line, gemm.b_dtype, left, depth, target)

    def _multiply(
        self, n_rows: int, a: Value, b: Value, step: Value, depth: Index, target: Value, soon: Value, ahead: Index
    ) -> None:
        """A [n_rows, depth] · B [depth, width] to ``target`` [n_rows, width]."""
        f, n_vectors = self.f, self.tile.vectors
        # as many chains of sums as the machine has additions on their way
        n_chains = max(1, min(4, 8 // (n_rows * n_vectors)))
        a_element, b_dtype = STORED[self.gemm.a_dtype], self.gemm.b_dtype if self.gemm.b != COLUMNS else "float32"
        a_rows = [f.at(a, f.mul(n, self.words["a_row"]), a_element) for n in range(n_rows)]
        zero = f.const(self.type, 0)

        def advance(sums: list[Value], line: Value, a_offset: Index) -> list[Value]:
            panel = [
                elements.load(f, f.at(line, n * self.lanes, STORED[b_dtype]), b_dtype, self.lanes)
                for n in range(n_vectors)
            ]
            made = []
            for n, a_row in enumerate(a_rows):
                one = elements.load(f, f.at(a_row, a_offset, a_element), self.gemm.a_dtype, 1)
                every = f.splat(one, self.lanes)
                made += [f.fma(every, b_vector, sums[n * n_vectors + m]) for m, b_vector in enumerate(panel)]
            return made

        size = n_rows * n_vectors
        sums = [zero] * size * n_chains
        start: Index = 0
        if n_chains > 1:
            whole = f.mul(f.div(depth, n_chains), n_chains)
            with f.loop(0, whole, n_chains, sums) as loop:
                following = []
                for chain in range(n_chains):
                    at = f.add(loop.index, chain)
                    line = f.at(b, f.mul(at, step), STORED[b_dtype])
                    part = loop.carried[chain * size : (chain + 1) * size]
                    following += advance(part, line, f.mul(at, self.words["a_depth"]))
                loop.carry(following)
            sums = loop.carried
            while len(sums) > size:
                half = len(sums) // 2
                sums = [f.fadd(one, other) for one, other in zip(sums[:half], sums[half:], strict=True)]
            start = whole
        with f.loop(start, depth, 1, sums) as loop:
            line = f.at(b, f.mul(loop.index, step), STORED[b_dtype])
            if self.gemm.b == PACKED:
                f.prefetch(f.at(soon, f.mul(loop.index, ahead), "i8"), locality=2)
            loop.carry(advance(loop.carried, line, f.mul(loop.index, self.words["a_depth"])))
        for n, total in enumerate(loop.carried):
            f.store(total, f.at(target, n * self.lanes, "float"))

    def _accumulate(self, sums: Value, n_rows: Value) -> None:
        """Add the partial sums to those of earlier blocks of depth."""
        f = self.f
        with f.loop(0, f.mul(n_rows, self.width), self.lanes) as loop:
            place = f.at(sums, loop.index, "float")
            total = f.fadd(f.load(self.type, place), f.load(self.type, f.at(self.partial, loop.index, "float")))
            f.store(total, place)

    def _finish(self, sums: Value, batch: tuple[Index, Index], first_row: Index, n_rows: Value, column: Index) -> None:
        """The epilogue of a tile, and its results."""
        f = self.f
        n_inputs = len(self.gemm.epilogue.inputs) - 1
        bases = []
        for one in self.operands:
            offset = f.add(self._batch(batch, one.outer, one.inner), f.mul(first_row, one.row))
            if one.way == CONTIGUOUS:
                offset = f.add(offset, column)
            bases.append(f.at(one.address, offset, STORED[one.dtype]))

        def vectors(row: Index, offset: Index, mask: Value | None) -> None:
            values = [f.load(self.type, f.at(sums, f.add(f.mul(row, self.width), offset), "float"))]
            places = []
            for base, one in zip(bases, self.operands, strict=True):
                step = f.mul(row, one.row)
                places.append(f.at(base, step if one.way == BROADCAST else f.add(step, offset), STORED[one.dtype]))
            for place, one in zip(places[:n_inputs], self.operands, strict=False):
                if one.way == BROADCAST:
                    values.append(f.splat(elements.load(f, place, one.dtype, 1), self.lanes))
                elif mask is None:
                    values.append(elements.load(f, place, one.dtype, self.lanes))
                else:
                    type_ = vector(STORED[one.dtype], self.lanes)
                    loaded = f.masked_load(type_, place, mask, f.const(type_, 0))
                    values.append(elements.computed(f, loaded, one.dtype))
            results = elements.evaluate(f, self.gemm.epilogue, values)
            for value, place, one in zip(results, places[n_inputs:], self.operands[n_inputs:], strict=True):
                if mask is None:
                    elements.store(f, value, place, one.dtype)
                else:
                    f.masked_store(elements.stored(f, value, one.dtype), place, mask)

        def whole() -> list[Value]:
            with f.loop(0, n_rows) as row:
                for n in range(self.tile.vectors):
                    vectors(row.index, n * self.lanes, None)
            return []

        left = f.sub(self.words["columns"], column)

        def cut() -> list[Value]:
            with f.loop(0, n_rows) as row, f.loop(0, left, self.lanes) as n:
                vectors(row.index, n.index, f.first_lanes(self.lanes, f.sub(left, n.index)))
            return []

        f.choose(f.compare("sge", left, self.width), (whole, cut))
