"""Tiles of AMX in products of 8-bit matrices: 32 × 32 sums in four tiles, 64 bytes of depth at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distort.kernels.compiler.codegen import byte_dots as dots
from distort.kernels.compiler.codegen.text import Index, Value, vector

if TYPE_CHECKING:
    from distort.kernels.compiler.codegen.quantized import ProductEmitter

#: sums, rows of a, columns of b
_SUMS, _A, _B = 0, 4, 6
_ROWS, _DEPTH = 16, 64


def emit_by_rows(emitter: ProductEmitter) -> None:
    """A tile of rows goes through panel after panel: it stays in the first cache, a block of panels in the second."""
    f, words = emitter.f, emitter.words
    rows = emitter.product.rows
    n_tiles = f.div(f.add(words["rows"], rows - 1), rows)
    n_panels = f.div(f.add(words["columns"], emitter.width - 1), emitter.width)
    of_batch = f.mul(n_tiles, n_panels)
    of_block = f.mul(n_tiles, words["block_panels"])
    begin, end = f.share(f.mul(of_batch, f.mul(words["outer"], words["inner"])))
    with f.loop(begin, end) as unit:
        number, in_batch = f.div(unit.index, of_batch), f.rem(unit.index, of_batch)
        batch = (f.div(number, words["inner"]), f.rem(number, words["inner"]))
        block, in_block = f.div(in_batch, of_block), f.rem(in_batch, of_block)
        first = f.mul(block, words["block_panels"])
        here = f.min(words["block_panels"], f.sub(n_panels, first))
        row = f.mul(f.div(in_block, here), rows)
        panel = f.rem(in_block, here)
        count = f.min(f.sub(here, panel), f.sub(end, unit.index))
        n_rows = f.i64(f.min(rows, f.sub(words["rows"], row)))
        place = f.add(emitter.in_batch(batch, words["a_outer"], words["a_inner"]), f.mul(row, words["a_row"]))
        a = f.at(words["a"], place, "i8")
        if emitter.product.has_weight_zeros:
            emitter.add_up(a, n_rows)
        a, stride = _whole(emitter, a, n_rows)
        with f.loop(f.add(first, panel), f.add(f.add(first, panel), count)) as loop:
            emit_tile(emitter, a, stride, emitter.panel(batch, loop.index))
            column = f.mul(loop.index, emitter.width)
            n_columns = f.min(emitter.width, f.sub(words["columns"], column))
            emitter.finish(batch, row, n_rows, column, n_columns)
        unit.step = count
    dots.release(f)
    f.ret()


def _whole(emitter: ProductEmitter, a: Value, n_rows: Value) -> tuple[Value, Value]:
    """Rows, and bytes from one to the next. A tile reads 16 × 64 bytes: rows that are too few, or end within 64 bytes
    of depth, are copied."""
    f, words = emitter.f, emitter.words
    depth_nbytes = f.mul(words["groups"], 4)
    ragged = f.binary(
        "or",
        f.compare("slt", n_rows, emitter.product.rows),
        f.compare("ne", words["depth"], depth_nbytes),
    )

    def copied() -> list[Value]:
        _copy(emitter, a, n_rows, depth_nbytes)
        return [emitter.copied, f.i64(depth_nbytes)]

    found, stride = f.choose(ragged, (copied, lambda: [a, words["a_row"]]))
    return found, stride


def emit_tile(emitter: ProductEmitter, a: Value, stride: Value, b: Value) -> None:
    """Sums of ``rows`` rows and all columns of a panel."""
    f = emitter.f
    depth_nbytes = f.mul(emitter.words["groups"], 4)
    n_row_tiles = emitter.product.rows // _ROWS
    for first in range(0, emitter.product.vectors, 2):
        n_column_tiles = min(2, emitter.product.vectors - first)
        _square(emitter, a, stride, f.at(b, first * 64, "i8"), n_row_tiles, n_column_tiles, first, depth_nbytes)


def _square(
    emitter: ProductEmitter,
    a: Value,
    a_stride: Value,
    b: Value,
    n_row_tiles: int,
    n_column_tiles: int,
    first: int,
    depth_nbytes: Index,
) -> None:
    f, product = emitter.f, emitter.product
    line, sums_line = f.i64(emitter.line_nbytes), f.i64(emitter.width * 4)
    for n in range(n_row_tiles * n_column_tiles):
        dots.clear_tile(f, _SUMS + n)
    with f.loop(0, depth_nbytes, _DEPTH) as loop:
        for m in range(n_column_tiles):
            # 16 groups of 4 bytes of depth are 16 lines of the panel
            place = f.mul(f.div(loop.index, 4), emitter.line_nbytes)
            dots.load_tile(f, _B + m, f.at(b, f.add(place, m * 64), "i8"), line)
        for n in range(n_row_tiles):
            place = f.add(f.mul(n * _ROWS, a_stride), loop.index)
            dots.load_tile(f, _A + n, f.at(a, place, "i8"), a_stride)
            for m in range(n_column_tiles):
                number = _SUMS + n * n_column_tiles + m
                dots.multiply_tiles(f, number, _A + n, _B + m, product.a_signed, product.b_signed)
    for n in range(n_row_tiles):
        for m in range(n_column_tiles):
            place = n * _ROWS * emitter.width + (first + m) * 16
            dots.store_tile(f, _SUMS + n * n_column_tiles + m, f.at(emitter.sums, place, "i32"), sums_line)


def _copy(emitter: ProductEmitter, a: Value, n_rows: Value, depth_nbytes: Index) -> None:
    """Rows of a, one behind the other. What is behind their ends doesn't matter: weights are zero there."""
    f, words = emitter.f, emitter.words
    type_ = vector("i8", _DEPTH)
    whole = f.mul(f.div(words["depth"], _DEPTH), _DEPTH)
    with f.loop(0, n_rows) as row:
        source = f.at(a, f.mul(row.index, words["a_row"]), "i8")
        target = f.at(emitter.copied, f.mul(row.index, depth_nbytes), "i8")
        with f.loop(0, whole, _DEPTH) as part:
            f.store(f.load(type_, f.at(source, part.index, "i8")), f.at(target, part.index, "i8"))
        with f.when(f.compare("slt", whole, words["depth"])):
            mask = f.first_lanes(_DEPTH, f.sub(words["depth"], whole))
            value = f.masked_load(type_, f.at(source, whole, "i8"), mask, f.const(type_, 0))
            f.store(value, f.at(target, whole, "i8"))
