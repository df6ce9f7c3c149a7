"""Products with weights of few bits, scaled by blocks of depth: C = epilogue(A · W).

Lanes are columns. A word of 32 bits of a lane holds neighbours in depth, the first in its lowest bits, as signed
numbers; they are taken apart in registers. Panels of columns: words [groups, vectors, lanes], scales and products of
scales and zero points, both float32, [blocks, vectors, lanes]. Units of work are (panel, tile of rows).

One row is summed up by blocks, each of which is scaled once; for more rows the weights are scaled.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from distort.kernels.compiler.codegen.target import Target
from distort.kernels.compiler.codegen.text import Function, Index, Value, vector
from distort.kernels.compiler.codegen.tile_epilogue import epilogue_part
from distort.kernels.compiler.expression import Expression

#: of a step, in order; then come ``tile_epilogue.OPERAND`` of the epilogue's other inputs and of the results
WORDS = (
    *("rows", "columns", "blocks", "block_groups"),  # block_groups: words of a block of depth
    *("a", "a_row", "weights", "scales", "zeros"),  # a_row: elements from row to row
    *("scratch", "scratch_nbytes"),  # scratch_nbytes: of one thread
)


class Nbits(NamedTuple):
    """What a kernel is made for."""

    rows: int  # of a tile
    vectors: int  # of a panel
    bits: int
    has_zeros: bool  # whether zero points are other than the middle
    epilogue: Expression = Expression(("float32",), (), (0,))
    ways: tuple[int, ...] = ()


def scratch_nbytes(nbits: Nbits, lanes: int, blocks: int) -> int:
    """Of one thread: sums of a tile, and sums of A by blocks."""
    return 4 * (nbits.rows * nbits.vectors * lanes + blocks)


def emit_nbits(f: Function, target: Target, *parameters: Any) -> None:
    """``parameters`` are the fields of an ``Nbits``."""
    nbits = Nbits(*parameters)
    lanes = target.lanes("float")
    finish = epilogue_part(f, nbits.epilogue, nbits.ways, nbits.vectors, lanes, WORDS)
    name = f"nbits_{nbits.rows}x{nbits.vectors}_{nbits.bits}_{int(nbits.has_zeros)}"
    f.call_part(name, [*f.parameters, finish], lambda part: _Emitter(part, nbits, lanes).emit())
    f.ret()


class _Emitter:
    """void(words, part, n_parts, thread, epilogue)"""

    def __init__(self, f: Function, nbits: Nbits, lanes: int) -> None:
        self.f, self.nbits, self.lanes = f, nbits, lanes
        addresses = ("a", "weights", "scales", "zeros", "scratch")
        self.words = {name: (f.address if name in addresses else f.word)(n) for n, name in enumerate(WORDS)}
        self.type = vector("float", lanes)
        self.width = nbits.vectors * lanes
        self.n_fields = 32 // nbits.bits
        self.table = self._table()
        self.sums = f.at(self.words["scratch"], f.mul(f.thread, self.words["scratch_nbytes"]), "i8")
        self.totals = f.at(self.sums, nbits.rows * self.width, "float")

    def _table(self) -> Value | None:
        """What 4 bits mean, in lanes, where lanes can be chosen by an index that may have other bits above."""
        if self.lanes != 16 or self.nbits.bits != 4 or (self.f.target and self.f.target.triple.startswith("aarch64")):
            return None
        numbers = [n if n < 8 else n - 16 for n in range(16)]
        return Value(self.type, "<" + ", ".join(str(self.f.const("float", n)) for n in numbers) + ">")

    def emit(self) -> None:
        f, words, nbits = self.f, self.words, self.nbits
        if nbits.rows == 1 and nbits.has_zeros:
            self._sum_blocks()
        n_tiles = f.div(f.add(words["rows"], nbits.rows - 1), nbits.rows)
        n_panels = f.div(f.add(words["columns"], self.width - 1), self.width)
        some = f.max(n_tiles, 1)
        shorter, longer = f.div(words["rows"], some), f.rem(words["rows"], some)
        groups = f.mul(words["blocks"], words["block_groups"])
        begin, end = f.share(f.mul(n_panels, n_tiles))
        with f.loop(begin, end) as unit:
            panel, tile = f.div(unit.index, n_tiles), f.rem(unit.index, n_tiles)
            row = f.add(f.mul(tile, shorter), f.min(tile, longer))
            more = f.op("i64", f"zext {f.compare('slt', tile, longer)} to i64")
            n_rows = f.i64(f.add(shorter, more))
            a = f.at(words["a"], f.mul(row, words["a_row"]), "float")
            weights = f.at(words["weights"], f.mul(f.mul(panel, groups), self.width), "i32")
            place = f.mul(f.mul(panel, words["blocks"]), self.width)
            scales, zeros = (f.at(words[name], place, "float") for name in ("scales", "zeros"))
            if nbits.rows == 1:
                self._one_row(a, weights, scales, zeros)
            else:
                self._rows(n_rows, a, weights, scales, zeros)
            numbers = [f.i64(n) for n in (0, 0, row, n_rows, f.mul(panel, self.width))]
            f.invoke(f.parameters[4], [f.parameters[0], self.sums, *numbers])
        f.ret()

    def _field(self, word: Value, number: int) -> Value:
        """A number of each lane's word, as float32."""
        f, bits = self.f, self.nbits.bits
        if self.table is not None:
            index = f.binary("lshr", word, f.const(word.type, number * bits)) if number else word
            return f.call(self.type, "llvm.x86.avx512.permvar.sf.512", [self.table, index])
        if number < self.n_fields - 1:
            word = f.binary("shl", word, f.const(word.type, 32 - bits * (number + 1)))
        return f.cast("sitofp", f.binary("ashr", word, f.const(word.type, 32 - bits)), "float")

    def _words_of(self, weights: Value, group: Index) -> list[Value]:
        f = self.f
        line = f.at(weights, f.mul(group, self.width), "i32")
        return [f.load(vector("i32", self.lanes), f.at(line, n * self.lanes, "i32")) for n in range(self.nbits.vectors)]

    def _vectors(self, base: Value, block: Index) -> list[Value]:
        f = self.f
        line = f.at(base, f.mul(block, self.width), "float")
        return [f.load(self.type, f.at(line, n * self.lanes, "float")) for n in range(self.nbits.vectors)]

    def _one_row(self, a: Value, weights: Value, scales: Value, zeros: Value) -> None:
        f, words, n_vectors = self.f, self.words, self.nbits.vectors
        nothing = f.const(self.type, 0)
        with f.loop(0, words["blocks"], 1, [nothing] * n_vectors) as block:
            first = f.mul(block.index, words["block_groups"])
            # two chains of sums for each vector
            with f.loop(first, f.add(first, words["block_groups"]), 1, [nothing] * (2 * n_vectors)) as group:
                sums = list(group.carried)
                there = self._words_of(weights, group.index)
                place = f.at(a, f.mul(group.index, self.n_fields), "float")
                for number in range(self.n_fields):
                    every = f.splat(f.load("float", f.at(place, number, "float")), self.lanes)
                    for n, word in enumerate(there):
                        chain = 2 * n + number % 2
                        sums[chain] = f.fma(every, self._field(word, number), sums[chain])
                group.carry(sums)
            parts = group.carried
            made = []
            for n, scale in enumerate(self._vectors(scales, block.index)):
                part = f.fadd(parts[2 * n], parts[2 * n + 1])
                made.append(f.fma(scale, part, block.carried[n]))
            if self.nbits.has_zeros:
                total = f.splat(f.load("float", f.at(self.totals, block.index, "float")), self.lanes)
                made = [f.fma(z, total, m) for z, m in zip(self._vectors(zeros, block.index), made, strict=True)]
            block.carry(made)
        for n, value in enumerate(block.carried):
            f.store(value, f.at(self.sums, n * self.lanes, "float"))

    def _rows(self, n_rows: Value, a: Value, weights: Value, scales: Value, zeros: Value) -> None:
        """A whole tile; rows that it has too many are the last one again."""
        f, words, n_vectors = self.f, self.words, self.nbits.vectors
        last = f.sub(n_rows, 1)
        a_rows = [f.at(a, f.mul(f.min(n, last), words["a_row"]), "float") for n in range(self.nbits.rows)]
        with f.loop(0, words["blocks"], 1, [f.const(self.type, 0)] * (self.nbits.rows * n_vectors)) as block:
            first = f.mul(block.index, words["block_groups"])
            by = self._vectors(scales, block.index)
            less = self._vectors(zeros, block.index) if self.nbits.has_zeros else []
            with f.loop(first, f.add(first, words["block_groups"]), 1, block.carried) as group:
                sums = list(group.carried)
                there = self._words_of(weights, group.index)
                place = f.mul(group.index, self.n_fields)
                starts = [f.at(row, place, "float") for row in a_rows]
                for number in range(self.n_fields):
                    line = []
                    for n, word in enumerate(there):
                        value = self._field(word, number)
                        line.append(f.fma(value, by[n], less[n]) if less else f.fmul(value, by[n]))
                    for m, start in enumerate(starts):
                        every = f.splat(f.load("float", f.at(start, number, "float")), self.lanes)
                        for n, value in enumerate(line):
                            sums[m * n_vectors + n] = f.fma(every, value, sums[m * n_vectors + n])
                group.carry(sums)
            block.carry(group.carried)
        for n, value in enumerate(block.carried):
            f.store(value, f.at(self.sums, n * self.lanes, "float"))

    def _sum_blocks(self) -> None:
        """Sums of the only row's blocks, for zero points. A block has a multiple of 16 elements."""
        f, words = self.f, self.words
        size = f.mul(words["block_groups"], self.n_fields)
        with f.loop(0, words["blocks"]) as block:
            place = f.at(words["a"], f.mul(block.index, size), "float")
            with f.loop(0, size, self.lanes, [f.const(self.type, 0)]) as part:
                part.carry([f.fadd(part.carried[0], f.load(self.type, f.at(place, part.index, "float")))])
            name = f"llvm.vector.reduce.fadd.v{self.lanes}f32"
            total = f.call("float", name, [f.const("float", 0), part.carried[0]], "reassoc")
            f.store(total, f.at(self.totals, block.index, "float"))
