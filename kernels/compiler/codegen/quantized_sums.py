"""Products of 8-bit matrices: what kernels are made for, the words of their steps, and what becomes of sums.

Sums are made of what is stored; here zero points are seen to: Σ a·w − zero · term[weight] − zero[weight] · Σ a.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from distort.kernels.compiler.codegen import byte_dots as dots
from distort.kernels.compiler.codegen import elements
from distort.kernels.compiler.codegen.maps import BROADCAST, CONTIGUOUS
from distort.kernels.compiler.codegen.target import Target
from distort.kernels.compiler.codegen.text import Function, Index, Value, vector
from distort.kernels.compiler.expression import STORED, Expression, identity

#: the words of a step, in order; those of the epilogue's further inputs and of the results follow, ``OPERAND`` each
WORDS = (
    *("rows", "columns", "depth", "groups", "outer", "inner"),  # groups: of a panel, those of padding included
    *("scratch", "scratch_nbytes"),  # scratch_nbytes: of one thread
    *("a", "a_row", "a_outer", "a_inner", "b", "b_outer", "b_inner"),  # addresses, and strides in bytes
    *("zero", "terms", "weight_zeros"),  # of activations: one; of weights: int32, one each
    "block_panels",  # that a tile of rows goes through in a row, with tiles
)
_ADDRESSES = ("scratch", "a", "b", "zero", "terms", "weight_zeros")
OPERAND = ("address", "row", "outer", "inner")
#: parameters of what finishes a tile: words, sums, totals, outer, inner, row, n_rows, column, n_columns
FINISH_TYPES = ("ptr", "ptr", "ptr", "i64", "i64", "i64", "i64", "i64", "i64")
#: rows and depth of AMX's tiles, in bytes
TILE_ROWS, TILE_DEPTH = 16, 64


class Product(NamedTuple):
    """What a kernel is made for."""

    rows: int  # of a tile
    vectors: int  # of a panel
    mode: str
    a_signed: bool
    b_signed: bool
    weights: str = "b"  # which operand they are
    flip: bool = False  # whether a's highest bits are inverted as it is read; ``a_signed`` is what it is afterwards
    rest: int = 0  # bytes of a row behind the last whole group
    zero: str = ""  # dtype of the activations' zero point; none: it is ``offset``
    offset: int = 0  # what is added to it
    has_weight_zeros: bool = False
    epilogue: Expression = Expression(("int32",), (), (0,))
    #: how columns go through the further inputs of the epilogue: ``BROADCAST`` or ``CONTIGUOUS``
    ways: tuple[int, ...] = ()


def scratch_nbytes(product: Product, lanes: int, groups: int) -> int:
    """Of one thread."""
    width = product.vectors * lanes
    copied = product.rows * groups * 4 if product.mode == dots.TILES else 0
    return 4 * product.rows * width + 4 * max(product.rows, width) + copied + 64


def emit_parts(
    f: Function, target: Target, product: Product, n_words: int, name: str, emit: Callable[[Function, Product], None]
) -> None:
    """A kernel of two parts: ``emit`` prints the one that kernels share whose epilogues differ.

    Operands of the epilogue begin at word ``n_words``. ``name``: what the shared part depends on besides the product.
    """
    finish = f.part(f"{f.name}_finish", FINISH_TYPES, lambda part: _Finish(part, target, product, n_words).emit())
    shared = product._replace(zero="", offset=0, epilogue=identity("int32"), ways=())
    marks = [str(int(mark)) if isinstance(mark, bool) else str(mark) for mark in shared[:-2]]
    f.call_part("_".join([name, *filter(None, marks)]), [*f.parameters, finish], lambda part: emit(part, shared))
    f.ret()


class SumsEmitter:
    """void(words, thread, n_threads, finish): the words of a step, and the thread's scratch memory."""

    def __init__(self, f: Function, target: Target, product: Product) -> None:
        self.f, self.target, self.product = f, target, product
        self.mode = product.mode
        self.lanes = target.lanes("i32")
        self.group = dots.group_of(self.mode)
        self.width = product.vectors * self.lanes
        self.type = vector("i32", self.lanes)
        if self.mode == dots.TILES:
            dots.configure(f, 8)
        self.words = {name: (f.address if name in _ADDRESSES else f.word)(n) for n, name in enumerate(WORDS)}
        scratch = f.at(self.words["scratch"], f.mul(f.thread, self.words["scratch_nbytes"]), "i8")
        self.sums = scratch  # int32 [rows of a tile, columns of a panel]
        self.totals = f.at(scratch, product.rows * self.width, "i32")  # Σ a of a tile's rows, or of a panel's columns
        self.copied = f.at(self.totals, max(product.rows, self.width), "i32")
        #: bytes from line to line of a panel: a line is a group of depth for all columns
        self.line_nbytes: Index = self.width * self.group

    def in_batch(self, batch: tuple[Index, Index], outer: Value, inner: Value) -> Index:
        return self.f.add(self.f.mul(batch[0], outer), self.f.mul(batch[1], inner))

    def finish(
        self, batch: tuple[Index, Index], first_row: Index, n_rows: Index, column: Index, n_columns: Index
    ) -> None:
        """The epilogue of a tile: of sums [n_rows, width], the first ``n_columns``."""
        f = self.f
        numbers = [f.i64(n) for n in (*batch, first_row, n_rows, column, n_columns)]
        f.invoke(f.parameters[4], [f.parameters[0], self.sums, self.totals, *numbers])


@dataclass(frozen=True, slots=True)
class _Operand:
    dtype: str
    way: int
    address: Value
    row: Value
    outer: Value
    inner: Value


class _Finish:
    """void(words, sums, totals, outer, inner, row, n_rows, column, n_columns)

    sums: int32 [n_rows, width]; totals: Σ of activations, by row or by column of the tile.
    """

    def __init__(self, f: Function, target: Target, product: Product, n_words: int) -> None:
        self.f, self.product = f, product
        self.lanes = target.lanes("i32")
        self.width = product.vectors * self.lanes
        self.type = vector("i32", self.lanes)
        self.words = {name: (f.address if name in _ADDRESSES else f.word)(n) for n, name in enumerate(WORDS)}
        epilogue = product.epilogue
        dtypes = [*epilogue.inputs[1:], *(epilogue.dtype(result) for result in epilogue.results)]
        ways = [*product.ways, *(CONTIGUOUS for _ in epilogue.results)]
        self.operands = []
        for number, (dtype, way) in enumerate(zip(dtypes, ways, strict=True)):
            place = n_words + number * len(OPERAND)
            strides = [f.word(place + 1 + n) for n in range(3)]
            self.operands.append(_Operand(dtype, way, f.address(place), *strides))
        self.zero = self._zero()

    def emit(self) -> None:
        f = self.f
        _, sums, totals, outer, inner, first_row, n_rows, column, n_columns = f.parameters
        starts = [sums]
        for one in self.operands:
            offset = f.add(f.add(f.mul(outer, one.outer), f.mul(inner, one.inner)), f.mul(first_row, one.row))
            offset = f.add(offset, column) if one.way == CONTIGUOUS else offset
            starts.append(f.at(one.address, offset, STORED[one.dtype]))
        # of the tile's weights
        by_rows = self.product.weights == "a"
        place = f.add(f.mul(inner, self.words["rows"]), first_row) if by_rows else column
        terms, zeros = (f.at(self.words[name], place, "i32") for name in ("terms", "weight_zeros"))
        whole = f.mul(f.div(n_columns, self.lanes), self.lanes)

        def down(n: Index, mask: Value | None) -> None:
            """A vector of columns, row by row."""
            term = self._term(f.load(self.type, f.at(terms, n, "i32"))) if self.zero is not None else None
            zero = f.load(self.type, f.at(zeros, n, "i32")) if self.product.has_weight_zeros else None
            with f.loop(0, n_rows, 1, [*self._moved(starts, n), totals]) as row:
                *places, total = row.carried
                less = f.binary("mul", zero, self._every(total)) if zero is not None else None
                self._vector(places, term, less, mask)
                row.carry([*self._next_row(places), f.at(total, 1, "i32")])

        def along(places: list[Value], row: Index) -> None:
            """A row, vector by vector."""
            term = self._term(self._every(f.at(terms, row, "i32"))) if self.zero is not None else None
            zero = self._every(f.at(zeros, row, "i32")) if self.product.has_weight_zeros else None

            def one(n: Index, mask: Value | None) -> None:
                total = f.load(self.type, f.at(totals, n, "i32")) if zero is not None else None
                less = f.binary("mul", zero, total) if zero is not None and total is not None else None
                self._vector(self._moved(places, n), term, less, mask)

            each(one)

        def each(one: Callable[[Index, Value | None], None]) -> None:
            with f.loop(0, whole, self.lanes) as n:
                one(n.index, None)
            with f.when(f.compare("slt", whole, n_columns)):
                one(whole, f.first_lanes(self.lanes, f.sub(n_columns, whole)))

        if not by_rows:
            each(down)
        else:
            with f.loop(0, n_rows, 1, starts) as row:
                along(row.carried, row.index)
                row.carry(self._next_row(row.carried))
        f.ret()

    def _zero(self) -> Value | None:
        """The activations' zero point in all lanes; None where it is 0."""
        f, product = self.f, self.product
        if not product.zero:
            return f.const(self.type, product.offset) if product.offset else None
        stored = f.load("i8", self.words["zero"])
        value = f.cast("sext" if product.zero == "int8" else "zext", stored, "i32")
        return f.splat(f.binary("add", value, f.const("i32", product.offset)), self.lanes)

    def _every(self, address: Value) -> Value:
        return self.f.splat(self.f.load("i32", address), self.lanes)

    def _term(self, value: Value) -> Value:
        assert self.zero is not None
        return self.f.binary("mul", self.zero, value)

    def _moved(self, places: Sequence[Value], n: Index) -> list[Value]:
        """Where the sums and the operands of a row begin, ``n`` columns further."""
        f = self.f
        moved = [f.at(places[0], n, "i32")]
        for place, one in zip(places[1:], self.operands, strict=True):
            moved.append(f.at(place, n, STORED[one.dtype]) if one.way == CONTIGUOUS else place)
        return moved

    def _next_row(self, places: Sequence[Value]) -> list[Value]:
        f = self.f
        following = [f.at(places[0], self.width, "i32")]
        for place, one in zip(places[1:], self.operands, strict=True):
            following.append(f.at(place, one.row, STORED[one.dtype]))
        return following

    def _vector(self, places: Sequence[Value], term: Value | None, less: Value | None, mask: Value | None) -> None:
        """The epilogue of some lanes of sums, less what zero points come to."""
        f, epilogue = self.f, self.product.epilogue
        n_inputs = len(epilogue.inputs)
        value = f.load(self.type, places[0])
        for part in (term, less):
            value = value if part is None else f.binary("sub", value, part)
        values = [value]
        for place, one in zip(places[1:n_inputs], self.operands, strict=False):
            if one.way == BROADCAST:
                values.append(f.splat(elements.load(f, place, one.dtype, 1), self.lanes))
            else:
                values.append(elements.load(f, place, one.dtype, self.lanes, mask))
        results = elements.evaluate(f, epilogue, values)
        for value, place, one in zip(results, places[n_inputs:], self.operands[n_inputs - 1 :], strict=True):
            elements.store(f, value, place, one.dtype, mask)
