"""Weights in 4 or 8 bits with scales by blocks of depth: how panels of them are packed, and made numbers of.

A panel is records, one for each block: scales [width], offsets [width], then the codes' lines, two in a byte where
codes have 4 bits (the first in the lower half): [block / 2, width] or [block, width]. A weight is
code · scale + offset.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from distort.kernels.compiler.codegen.packing import aligned
from distort.kernels.compiler.codegen.text import Function, Index, vector

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
    real, byte = vector("float", lanes), vector("i8", lanes)
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
                wide = f.cast("zext", f.load(byte, place), "i32")
                for part in range(per_byte):
                    code = f.binary("lshr", wide, f.const(wide.type, 4)) if part else wide
                    if part < per_byte - 1:
                        code = f.binary("and", code, f.const(wide.type, 15))
                    value = f.fma(f.cast("sitofp", code, "float"), scale, offset)
                    row = f.add(f.mul(line.index, per_byte), part)
                    f.store(value, f.at(to, f.add(f.mul(row, width), n * lanes), "float"))
        loop.carry([f.at(record, nbytes, "i8")])
    f.ret()
