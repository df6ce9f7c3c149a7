"""Weights in 4 or 8 bits with scales by blocks of depth: how panels of them are packed, and made numbers of.

A panel is records, one for each block: scales [width], offsets [width], then the codes' lines, two in a byte where
codes have 4 bits (the first in the lower half): [block / 2, width] or [block, width]. A weight is
code · scale + offset.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import numpy.typing as npt

from distort.kernels.compiler.codegen import elements
from distort.kernels.compiler.codegen.packing import aligned
from distort.kernels.compiler.codegen.text import Function, Index, Value, vector
from distort.kernels.compiler.codegen.tiles import Tile
from distort.kernels.compiler.expression import STORED

Array = npt.NDArray[Any]


def record_nbytes(width: int, block: Index, bits: int, f: Function) -> Index:
    return f.add(width * 8, f.mul(f.div(block, 8 // bits), width))


def pack_codes(codes: Array, scales: Array, zeros: Array, width: int, bits: int) -> Array:
    """codes: uint8 [columns, blocks, block]; scales, zeros: [columns, blocks] -> uint8 [panels, blocks, nbytes]."""
    columns, n_blocks, block = codes.shape
    n_panels = -(-columns // width)
    full = np.zeros((n_panels * width, n_blocks, block), np.uint8)
    full[:columns] = codes
    lines = full.reshape(n_panels, width, n_blocks, block).transpose(0, 2, 3, 1)  # [panels, blocks, block, width]
    if bits == 4:
        lines = lines[:, :, 0::2] | lines[:, :, 1::2] << 4
    factors = np.zeros((2, n_panels * width, n_blocks), np.float32)
    factors[0, :columns] = scales
    factors[1, :columns] = -(np.broadcast_to(zeros, scales.shape).astype(np.float32) * scales.astype(np.float32))
    heads = factors.reshape(2, n_panels, width, n_blocks).transpose(1, 3, 0, 2)  # [panels, blocks, 2, width]
    head_nbytes = 2 * width * 4
    made = aligned((n_panels, n_blocks, head_nbytes + lines.shape[2] * width), np.uint8)
    made[..., :head_nbytes] = np.ascontiguousarray(heads).view(np.uint8).reshape(n_panels, n_blocks, head_nbytes)
    made[..., head_nbytes:] = lines.reshape(n_panels, n_blocks, -1)
    return made


def emit_codes(f: Function, vectors: int, lanes: int, bits: int) -> None:
    """void(records, block, depth, panel): records of at least ``depth`` lines -> panel [depth, width], float32.

    ``block`` is even; the last block is made whole.
    """
    records, block, depth, panel = f.parameters
    width = vectors * lanes
    nbytes = record_nbytes(width, block, bits, f)
    real = vector("float", lanes)
    per_byte = 8 // bits
    with f.loop(0, depth, f.i64(block), [records]) as loop:
        (record,) = loop.carried
        scales, offsets = (
            [f.load(real, f.at(record, start + n * lanes, "float")) for n in range(vectors)] for start in (0, width)
        )
        codes = f.at(record, width * 8, "i8")
        to = f.at(panel, f.mul(loop.index, width), "float")
        with f.loop(0, f.div(block, per_byte)) as line:
            for n, (scale, offset) in enumerate(zip(scales, offsets, strict=True)):
                place = f.at(codes, f.add(f.mul(line.index, width), n * lanes), "i8")
                for part, code in enumerate(_numbers(f, place, lanes, bits)):
                    value = f.fma(code, scale, offset)
                    row = f.add(f.mul(line.index, per_byte), part)
                    f.store(value, f.at(to, f.add(f.mul(row, width), n * lanes), "float"))
        loop.carry([f.at(record, nbytes, "i8")])
    f.ret()


def emit_code_tile(f: Function, tile: Tile, lanes: int, bits: int, a_dtype: str) -> None:
    """void(n_rows, a, a_row, a_depth, records, block, depth, target), for 1 to ``tile.rows`` rows.

    a [n_rows, depth] · records [depth, width] to target [n_rows, width], float32. ``depth`` is so many whole blocks.
    Codes are added up as they are; a block's sum is scaled at its end.
    """
    cases = [functools.partial(_emit_rows, f, n, tile.vectors, lanes, bits, a_dtype) for n in range(1, tile.rows + 1)]
    f.switch(f.parameters[0], cases, first=1)
    f.ret()


def _emit_rows(f: Function, n_rows: int, vectors: int, lanes: int, bits: int, a_dtype: str) -> None:
    _, a, a_row, a_depth, records, block, depth, target = f.parameters
    width, per_byte, size = vectors * lanes, 8 // bits, n_rows * vectors
    real, element = vector("float", lanes), STORED[a_dtype]
    zero = f.const(real, 0)
    nbytes = record_nbytes(width, block, bits, f)
    with f.loop(0, depth, f.i64(block), [records, a, *[zero] * size]) as loop:
        record, one, *totals = loop.carried
        codes = f.at(record, width * 8, "i8")
        with f.loop(0, f.div(block, per_byte), 1, [codes, one, *[zero] * (size + n_rows)]) as line:
            place, at, *sums = line.carried
            parts = [_numbers(f, f.at(place, n * lanes, "i8"), lanes, bits) for n in range(vectors)]
            for part in range(per_byte):
                for row in range(n_rows):
                    value = elements.load(f, f.at(at, f.mul(row, a_row), element), a_dtype, 1)
                    every = f.splat(value, lanes)
                    for n in range(vectors):
                        sums[row * vectors + n] = f.fma(every, parts[n][part], sums[row * vectors + n])
                    sums[size + row] = f.fadd(sums[size + row], every)
                at = f.at(at, a_depth, element)
            line.carry([f.at(place, width, "i8"), at, *sums])
        _, one, *sums = line.carried
        for n in range(vectors):
            scale, offset = (f.load(real, f.at(record, start + n * lanes, "float")) for start in (0, width))
            for row in range(n_rows):
                total = f.fma(sums[size + row], offset, totals[row * vectors + n])
                totals[row * vectors + n] = f.fma(sums[row * vectors + n], scale, total)
        loop.carry([f.at(record, nbytes, "i8"), one, *totals])
    for n, total in enumerate(loop.carried[2:]):
        f.store(total, f.at(target, n * lanes, "float"))


def _numbers(f: Function, place: Value, lanes: int, bits: int) -> list[Value]:
    """The codes of some bytes: of one line, or of two."""
    wide = f.cast("zext", f.load(vector("i8", lanes), place), "i32")
    parts = [wide]
    if bits == 4:
        parts = [f.binary("and", wide, f.const(wide.type, 15)), f.binary("lshr", wide, f.const(wide.type, 4))]
    return [f.cast("sitofp", part, "float") for part in parts]
