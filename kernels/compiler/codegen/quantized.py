"""Products of 8-bit matrices with exact int32 sums: C = epilogue(Σ (a − zero) · (w − zero of w)).

One operand holds activations, with one zero point for all, which may be known at run time only; the other holds
weights, prepared before: signed, and with a term for each of their rows (columns), Σ w − depth · zero, and where they
are not symmetric a zero point. Sums are made of what is stored; zero points are seen to afterwards:
Σ a·w − zero · term[weight] − zero[weight] · Σ a.

A [rows, depth] is read in place. B comes in panels of ``vectors`` vectors: [groups, columns of the panel, group],
a group being the neighbours in depth that one lane adds (``dots``). Units of work are (batch, panel, tile of rows).
With ``TILES`` a tile is 32 × the panel's columns, else it is in vector registers; the sums of a tile go through the
thread's scratch memory, which stays in the first cache, to the epilogue.
"""

from __future__ import annotations

from distort.kernels.compiler.codegen import byte_dots as dots
from distort.kernels.compiler.codegen.quantized_sums import WORDS, Product, SumsEmitter, emit_parts
from distort.kernels.compiler.codegen.target import Target
from distort.kernels.compiler.codegen.text import Function, Index, Value, vector


def emit_product(f: Function, target: Target, *parameters: object) -> None:
    """``parameters`` are the fields of a ``Product``."""
    product = Product(*parameters)  # type: ignore[arg-type]

    def emit(part: Function, shared: Product) -> None:
        ProductEmitter(part, target, shared).emit()

    emit_parts(f, target, product, len(WORDS), "bytes_product", emit)


class ProductEmitter(SumsEmitter):
    """Loops of a product whose panels lie ready."""

    def emit(self) -> None:
        if self.mode == dots.TILES and self.product.weights == "b":
            from distort.kernels.compiler.codegen import quantized_tiles

            quantized_tiles.emit_by_rows(self)
            return
        f, words = self.f, self.words
        rows = self.product.rows
        n_tiles = f.div(f.add(words["rows"], rows - 1), rows)
        n_panels = f.div(f.add(words["columns"], self.width - 1), self.width)
        of_batch = f.mul(n_tiles, n_panels)
        some = f.max(n_tiles, 1)
        # rows of a tile, as equal as they can be; the first ``longer`` tiles have one more
        self.shorter, self.longer = f.div(words["rows"], some), f.rem(words["rows"], some)
        begin, end = f.share(f.mul(of_batch, f.mul(words["outer"], words["inner"])))
        with f.loop(begin, end) as unit:
            number = f.div(unit.index, of_batch)
            batch = (f.div(number, words["inner"]), f.rem(number, words["inner"]))
            rest = f.rem(unit.index, of_batch)
            panel, tile = f.div(rest, n_tiles), f.rem(rest, n_tiles)
            count = f.min(f.sub(n_tiles, tile), f.sub(end, unit.index))
            a = f.at(words["a"], self.in_batch(batch, words["a_outer"], words["a_inner"]), "i8")
            b = self.panel(batch, panel)
            with f.loop(tile, f.add(tile, count)) as loop:
                if self.mode == dots.TILES:
                    row: Index = f.mul(loop.index, rows)
                    n_rows = f.i64(f.min(f.sub(words["rows"], row), rows))
                else:
                    row = f.add(f.mul(loop.index, self.shorter), f.min(loop.index, self.longer))
                    more = f.op("i64", f"zext {f.compare('slt', loop.index, self.longer)} to i64")
                    n_rows = f.i64(f.add(self.shorter, more))
                self._tile(f.at(a, f.mul(row, words["a_row"]), "i8"), b, n_rows)
                column = f.mul(panel, self.width)
                self.finish(batch, row, n_rows, column, f.min(self.width, f.sub(words["columns"], column)))
            unit.step = count
        if self.mode == dots.TILES:
            dots.release(f)
        f.ret()

    def panel(self, batch: tuple[Index, Index], panel: Index) -> Value:
        """Where a panel is."""
        f, words = self.f, self.words
        place = f.mul(f.mul(panel, words["groups"]), self.width * self.group)
        return f.at(words["b"], f.add(self.in_batch(batch, words["b_outer"], words["b_inner"]), place), "i8")

    # -- a tile

    def _tile(self, a: Value, b: Value, n_rows: Value) -> None:
        """Sums of the tile to ``self.sums``."""
        f, product = self.f, self.product
        if self.mode == dots.TILES:
            from distort.kernels.compiler.codegen import quantized_tiles

            quantized_tiles.emit_tile(self, a, self.words["a_row"], b)
        else:
            cases = [lambda n=n: self._multiply(n, a, b) for n in range(1, product.rows + 1)]
            f.switch(n_rows, cases, first=1)
        if product.has_weight_zeros and product.weights == "b":
            self.add_up(a, n_rows)

    def add_up(self, a: Value, n_rows: Value) -> None:
        """Σ a of a tile's rows to ``totals``."""
        f = self.f
        with f.loop(0, n_rows) as row:
            total = self.total(f.at(a, f.mul(row.index, self.words["a_row"]), "i8"))
            f.store(total, f.at(self.totals, row.index, "i32"))

    def _read(self, address: Value, n: int) -> Value:
        """Bytes of a, ready to be multiplied."""
        value = self.f.load(vector("i8", n), address)
        value = dots.flipped(self.f, value) if self.product.flip else value
        return dots.wide(self.f, value, self.mode, self.product.a_signed)

    def _last(self, address: Value) -> Value:
        """The bytes behind the last whole group, and zeros. Read with those before them, as a row goes no further."""
        f, n = self.f, self.group
        rest = self.product.rest
        integer = f"i{8 * n}"
        value = f.load(integer, f.at(address, rest - n, "i8"), 1)
        value = dots.flipped(f, value) if self.product.flip else value
        value = f.bitcast(f.binary("lshr", value, f.const(integer, 8 * (n - rest))), vector("i8", n))
        return dots.wide(f, value, self.mode, self.product.a_signed)

    def _add_products(self, sums: Value, a: Value, b: Value) -> Value:
        activations, weights = (a, b) if self.product.weights == "b" else (b, a)
        return dots.add_products(self.f, self.target, self.mode, sums, activations, weights)

    def _multiply(self, n_rows: int, a: Value, b: Value) -> None:
        f, n_vectors, group = self.f, self.product.vectors, self.group
        n_chains = 1 << (max(1, min(4, 8 // (n_rows * n_vectors))).bit_length() - 1)
        a_rows = [f.at(a, f.mul(n, self.words["a_row"]), "i8") for n in range(n_rows)]

        def advance(sums: list[Value], number: Index, is_last: bool = False) -> list[Value]:
            line = f.at(b, f.mul(number, self.line_nbytes), "i8")
            n_bytes = self.lanes * group
            parts = [f.load(vector("i8", n_bytes), f.at(line, n * n_bytes, "i8")) for n in range(n_vectors)]
            parts = [dots.wide(f, part, self.mode, self.product.b_signed) for part in parts]
            made = []
            for n, a_row in enumerate(a_rows):
                address = f.at(a_row, f.mul(number, group), "i8")
                one = self._last(address) if is_last else self._read(address, group)
                every = dots.every(f, one, self.lanes)
                made += [self._add_products(sums[n * n_vectors + m], every, part) for m, part in enumerate(parts)]
            return made

        size = n_rows * n_vectors
        n_groups = f.div(self.words["depth"], group)
        sums = [f.const(self.type, 0)] * size * n_chains
        start: Index = 0
        if n_chains > 1:
            whole = f.mul(f.div(n_groups, n_chains), n_chains)
            with f.loop(0, whole, n_chains, sums) as loop:
                following = []
                for chain in range(n_chains):
                    part = loop.carried[chain * size : (chain + 1) * size]
                    following += advance(part, f.add(loop.index, chain))
                loop.carry(following)
            sums = loop.carried
            while len(sums) > size:
                half = len(sums) // 2
                sums = [f.binary("add", one, other) for one, other in zip(sums[:half], sums[half:], strict=True)]
            start = whole
        with f.loop(start, n_groups, 1, sums) as loop:
            loop.carry(advance(loop.carried, loop.index))
        sums = loop.carried
        if self.product.rest:
            sums = advance(sums, n_groups, is_last=True)
        for n, total in enumerate(sums):
            f.store(total, f.at(self.sums, n * self.lanes, "i32"))

    def total(self, a: Value) -> Value:
        """Σ a over one row."""
        f, depth = self.f, self.words["depth"]
        mode = dots.mode_of(self.target)
        group = dots.group_of(mode)
        step = self.lanes * group
        is_signed = self.product.a_signed
        whole = f.mul(f.div(depth, step), step)
        element = "i16" if mode == dots.PAIRS else "i8"
        ones = f.const(vector(element, step), 1)
        # the dot product that takes the other sign for its first operand has the ones there
        ones_first = mode == dots.MIXED and is_signed

        def add(sums: Value, values: Value) -> Value:
            values = dots.flipped(f, values) if self.product.flip else values
            values = dots.wide(f, values, mode, is_signed)
            one, other = (ones, values) if ones_first else (values, ones)
            return dots.add_products(f, self.target, mode, sums, one, other)

        with f.loop(0, whole, step, [f.const(self.type, 0)]) as loop:
            loop.carry([add(loop.carried[0], f.load(vector("i8", step), f.at(a, loop.index, "i8")))])
        start = f.call("i32", f"llvm.vector.reduce.add.v{self.lanes}i32", [loop.carried[0]])
        with f.loop(whole, depth, 1, [start]) as loop:
            byte = f.load("i8", f.at(a, loop.index, "i8"))
            byte = dots.flipped(f, byte) if self.product.flip else byte
            loop.carry([f.binary("add", loop.carried[0], f.cast("sext" if is_signed else "zext", byte, "i32"))])
        return loop.carried[0]
