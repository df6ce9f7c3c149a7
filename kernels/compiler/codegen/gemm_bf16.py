"""Matrix products whose operands are rounded to bfloat16, with sums in float32, on x86's tiles (AMX).

A tile of the result is 32 rows × 32 columns: four of the machine's. A thread rounds the rows of a block once, into its
scratch memory, and goes through panels of B with them; B is rounded and packed before (``packing.pack_pairs``). Units
of work are (product, block of rows, panel), in this order.
"""

from __future__ import annotations

import functools
from typing import Any

from distort.kernels.compiler.codegen import byte_dots, elements
from distort.kernels.compiler.codegen.gemm import WORDS, Gemm
from distort.kernels.compiler.codegen.target import Target
from distort.kernels.compiler.codegen.text import Function, Index, Value, vector
from distort.kernels.compiler.codegen.tile_epilogue import epilogue_part
from distort.kernels.compiler.codegen.tiles import Tile
from distort.kernels.compiler.expression import STORED

#: rows and columns of a tile of the result, and how many products one instruction adds to each of its sums
SIDE, DEPTH = 32, 32
_HALF, _LANES = 16, 16
_LINE_NBYTES = SIDE * 4  # of two lines of B, which lie in pairs
#: numbers of the machine's tiles
_SUMS, _A, _B = ((0, 1), (2, 3)), (4, 5), (6, 7)


def has_bf16_tiles(target: Target) -> bool:
    return "+amx-bf16" in target.features.split(",") and byte_dots.has_tiles(target)


def padded(depth: int) -> int:
    """Elements of a row of A, and lines of a panel of B, as they are packed."""
    return -(-depth // DEPTH) * DEPTH


def scratch_nbytes(block_tiles: int, depth: int) -> int:
    """Of one thread: a tile's sums, and the rows of a block."""
    return SIDE * SIDE * 4 + block_tiles * SIDE * padded(depth) * 2


def emit_gemm_bf16(f: Function, target: Target, *parameters: Any) -> None:
    """``parameters`` are the fields of a ``Gemm``; the tile is always the same."""
    gemm = Gemm(Tile(*parameters[0]), *parameters[1:])
    finish = epilogue_part(f, gemm.epilogue, gemm.ways, SIDE // _LANES, target.lanes("float"), WORDS)
    products = functools.partial(_emit_products, a_dtype=gemm.a_dtype)
    f.call_part(f"products_bf16_{gemm.a_dtype}", [*f.parameters, finish], products)
    f.ret()


def _emit_products(f: Function, a_dtype: str) -> None:
    """void(words, part, n_parts, thread, epilogue)"""
    list_of_words, _, _, thread, epilogue = f.parameters
    addresses = ("a", "b", "scratch")
    words = {name: (f.address if name in addresses else f.word)(n) for n, name in enumerate(WORDS)}
    a_element = STORED[a_dtype]
    n_tiles = f.div(f.add(words["rows"], SIDE - 1), SIDE)
    n_panels = f.div(f.add(words["columns"], SIDE - 1), SIDE)
    n_blocks = f.div(f.add(n_tiles, f.sub(words["block_tiles"], 1)), words["block_tiles"])
    n_steps = f.div(f.add(words["depth"], DEPTH - 1), DEPTH)
    length = f.i64(f.mul(n_steps, DEPTH))  # of rows of A in the scratch memory
    sums = f.at(words["scratch"], f.mul(thread, words["scratch_nbytes"]), "i8")
    rounded = f.at(sums, SIDE * SIDE * 4, "i8")
    panel_nbytes = f.mul(n_steps, DEPTH // 2 * _LINE_NBYTES)
    begin, end = f.share(f.mul(f.mul(words["outer"], words["inner"]), f.mul(n_blocks, n_panels)))
    byte_dots.configure(f, 8)
    with f.loop(begin, end, carried=[f.i64(-1)]) as unit:
        group = f.i64(f.div(unit.index, n_panels))
        panel = f.rem(unit.index, n_panels)
        product, block = f.div(group, n_blocks), f.rem(group, n_blocks)
        outer, inner = f.div(product, words["inner"]), f.rem(product, words["inner"])
        first_row = f.mul(block, f.mul(words["block_tiles"], SIDE))
        n_rows = f.min(f.mul(words["block_tiles"], SIDE), f.sub(words["rows"], first_row))
        with f.when(f.compare("ne", group, unit.carried[0])):
            offset = f.add(f.mul(outer, words["a_outer"]), f.mul(inner, words["a_inner"]))
            a = f.at(words["a"], f.add(offset, f.mul(first_row, words["a_row"])), a_element)
            round_rows = functools.partial(_emit_rounding, dtype=a_dtype)
            arguments = [a, words["a_row"], f.i64(n_rows), words["depth"], rounded, length]
            f.call_part(f"round_rows_{a_dtype}", arguments, round_rows)
        unit.carry([group])
        offset = f.add(f.mul(outer, words["b_outer"]), f.mul(inner, words["b_inner"]))
        b = f.at(f.at(words["b"], offset, "bfloat"), f.mul(panel, panel_nbytes), "i8")
        here = f.div(f.add(n_rows, SIDE - 1), SIDE)
        # each tile asks for its share of the next panel
        ahead = f.div(panel_nbytes, f.max(f.mul(here, n_steps), 1))
        with f.loop(0, n_rows, SIDE) as tile:
            left = f.i64(f.min(SIDE, f.sub(n_rows, tile.index)))
            a = f.at(rounded, f.mul(tile.index, length), "bfloat")
            soon = f.at(b, f.add(panel_nbytes, f.mul(f.div(tile.index, SIDE), f.mul(ahead, n_steps))), "i8")
            arguments = [left, a, f.i64(f.mul(length, 2)), b, f.i64(n_steps), sums, soon, f.i64(ahead)]
            f.call_part("tile_bf16", arguments, _emit_tile)
            place = [f.i64(n) for n in (outer, inner, f.add(first_row, tile.index), left, f.mul(panel, SIDE))]
            f.invoke(epilogue, [list_of_words, sums, *place])
    byte_dots.release(f)
    f.ret()


def _emit_tile(f: Function) -> None:
    """void(n_rows, a, a_nbytes, b, n_steps, sums, soon, ahead): up to 32 rows, ``a_nbytes`` from row to row."""
    n_rows, a, a_nbytes, b, n_steps, sums, soon, ahead = f.parameters
    line = f.i64(_LINE_NBYTES)

    def halves(count: int) -> list[Value]:
        for row in range(count):
            for column in range(2):
                byte_dots.clear_tile(f, _SUMS[row][column])
        lower = f.at(a, f.mul(a_nbytes, _HALF), "i8")
        with f.loop(0, n_steps, carried=[soon]) as step:
            offset = f.mul(step.index, DEPTH * 2)
            at = f.at(b, f.mul(step.index, DEPTH // 2 * _LINE_NBYTES), "i8")
            for column in range(2):
                byte_dots.load_tile(f, _B[column], f.at(at, column * 64, "i8"), line)
            for row, base in enumerate((a, lower)[:count]):
                byte_dots.load_tile(f, _A[row], f.at(base, offset, "i8"), a_nbytes)
                for column in range(2):
                    tiles = [Value("i8", str(n)) for n in (_SUMS[row][column], _A[row], _B[column])]
                    f.call("void", "llvm.x86.tdpbf16ps", tiles)
            f.call_part("prefetch_bytes", [step.carried[0], ahead], _emit_prefetch)
            step.carry([f.at(step.carried[0], ahead, "i8")])
        for row in range(count):
            for column in range(2):
                place = f.at(sums, row * _HALF * SIDE + column * _HALF, "float")
                byte_dots.store_tile(f, _SUMS[row][column], place, line)
        return []

    f.choose(f.compare("sgt", n_rows, _HALF), (lambda: halves(2), lambda: halves(1)))
    f.ret()


def _emit_prefetch(f: Function) -> None:
    """void(address, nbytes)"""
    address, nbytes = f.parameters
    with f.loop(0, nbytes, 64) as loop:
        f.prefetch(f.at(address, loop.index, "i8"), locality=2)
    f.ret()


def _emit_rounding(f: Function, dtype: str) -> None:
    """void(a, a_row, n_rows, depth, target, length): a [n_rows, depth] -> target [n_rows, length], bfloat16.

    Zeros at and after ``depth``.
    """
    a, a_row, n_rows, depth, target, length = f.parameters
    whole = f.mul(f.div(depth, _LANES), _LANES)
    type_ = vector(STORED[dtype], _LANES)
    with f.loop(0, n_rows) as row:
        source = f.at(a, f.mul(row.index, a_row), STORED[dtype])
        to = f.at(target, f.mul(row.index, length), "bfloat")

        def keep(value: Value, position: Index, to: Value = to) -> None:
            f.store(elements.stored(f, value, "bfloat16"), f.at(to, position, "bfloat"))

        with f.loop(0, whole, _LANES) as k:
            keep(elements.load(f, f.at(source, k.index, STORED[dtype]), dtype, _LANES), k.index)
        with f.loop(whole, length, _LANES) as k:
            mask = f.first_lanes(_LANES, f.sub(depth, k.index))
            part = f.masked_load(type_, f.at(source, k.index, STORED[dtype]), mask, f.const(type_, 0))
            keep(elements.computed(f, part, dtype), k.index)
    f.ret()
