"""Panels of a matrix: columns in groups, each group's lines one after the other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from distort.kernels.compiler.codegen import elements
from distort.kernels.compiler.codegen.text import Function, Value, vector
from distort.kernels.compiler.expression import STORED

if TYPE_CHECKING:
    import numpy.typing as npt

_LINE_NBYTES = 64
_AHEAD_LINES = 8


def pack_panels(b: npt.NDArray[Any], width: int) -> npt.NDArray[Any]:
    """b: [..., depth, columns] -> [..., panels, depth, width], zeros where columns end."""
    *batch, depth, columns = b.shape
    n_panels = -(-columns // width)
    packed = aligned((*batch, n_panels, depth, width), b.dtype)
    for panel in range(n_panels):
        part = b[..., panel * width : (panel + 1) * width]
        packed[..., panel, :, : part.shape[-1]] = part
        packed[..., panel, :, part.shape[-1] :] = 0
    return packed


def pack_pairs(b: npt.NDArray[Any], width: int, multiple: int) -> npt.NDArray[Any]:
    """b: [..., depth, columns] -> bfloat16 [..., panels, lines / 2, width, 2].

    Lines come in pairs, and are zeros after ``depth``: their number is a multiple of ``multiple``.
    """
    from ml_dtypes import bfloat16

    *batch, depth, columns = b.shape
    n_lines = -(-depth // multiple) * multiple
    full = np.zeros((*batch, n_lines, columns), bfloat16)
    full[..., :depth, :] = b
    panels = pack_panels(full, width)
    paired = panels.reshape(*panels.shape[:-2], n_lines // 2, 2, width)
    made = aligned((*paired.shape[:-2], width, 2), bfloat16)
    made[...] = paired.swapaxes(-1, -2)
    return made


def aligned(shape: Sequence[int], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """An empty array that begins with a cache line."""
    dtype = np.dtype(dtype)
    nbytes = math.prod(shape) * dtype.itemsize
    memory = np.empty(nbytes + _LINE_NBYTES, np.uint8)
    begin = -memory.ctypes.data % _LINE_NBYTES
    return memory[begin : begin + nbytes].view(dtype).reshape(shape)


def emit_rows(f: Function, dtype: str, vectors: int, lanes: int) -> None:
    """void(b, line, left, depth, panel)

    b [depth, left], ``line`` elements from row to row -> panel [depth, vectors · lanes] of the same element type.
    Columns at and after ``left`` are zeros.
    """
    b, line, left, depth, panel = f.parameters
    # as it is, so as integers where masked memory is of these
    type_ = vector({"float16": "i16", "bfloat16": "i16"}.get(dtype, STORED[dtype]), lanes)
    masks = [f.first_lanes(lanes, f.sub(left, n * lanes)) for n in range(vectors)]
    with f.loop(0, depth) as loop:
        source = f.at(b, f.mul(loop.index, line), STORED[dtype])
        # lines are further apart than the processor looks ahead by itself
        soon = f.at(source, f.mul(line, _AHEAD_LINES), STORED[dtype])
        for at in range(0, vectors * lanes * elements.nbytes(dtype), _LINE_NBYTES):
            f.prefetch(f.at(soon, at, "i8"))
        to = f.at(panel, f.mul(loop.index, vectors * lanes), STORED[dtype])
        for n, mask in enumerate(masks):
            value = f.masked_load(type_, f.at(source, n * lanes, STORED[dtype]), mask, f.const(type_, 0))
            f.store(value, f.at(to, n * lanes, STORED[dtype]))
    f.ret()


def emit_columns(f: Function, dtype: str, vectors: int, lanes: int) -> None:
    """void(b, line, left, depth, panel)

    b [left, depth], ``line`` elements from row to row -> panel [depth, vectors · lanes], float32.
    Columns of the panel at and after ``left`` are copies of another: what comes of them is nobody's.
    """
    b, line, left, depth, panel = f.parameters
    width = vectors * lanes
    last = f.sub(f.min(left, width), 1)
    short = f.compare("slt", depth, lanes)

    def blocks() -> list[Value]:
        with f.loop(0, depth, lanes) as loop:
            # the last block overlaps the one before it
            first = f.min(loop.index, f.sub(depth, lanes))
            with f.loop(0, width, lanes) as group:
                rows = []
                for n in range(lanes):
                    place = f.add(f.mul(f.min(f.add(group.index, n), last), line), first)
                    rows.append(elements.load(f, f.at(b, place, STORED[dtype]), dtype, lanes))
                to = f.at(panel, f.add(f.mul(first, width), group.index), "float")
                for n, column in enumerate(transpose(f, rows)):
                    f.store(column, f.at(to, n * width, "float"))
        return []

    def singles() -> list[Value]:
        with f.loop(0, width) as n, f.loop(0, depth) as k:
            place = f.add(f.mul(f.min(n.index, last), line), k.index)
            one = elements.load(f, f.at(b, place, STORED[dtype]), dtype, 1)
            f.store(one, f.at(panel, f.add(f.mul(k.index, width), n.index), "float"))
        return []

    f.choose(short, (singles, blocks))
    f.ret()


def transpose(f: Function, rows: list[Value]) -> list[Value]:
    """A square of vectors, by exchanges between pairs of them."""
    lanes = len(rows)
    step = 1
    while step < lanes:
        made = list(rows)
        for n in range(lanes):
            if n & step:
                continue
            one, other = rows[n], rows[n + step]
            low = [i if not i & step else lanes + i - step for i in range(lanes)]
            high = [i + step if not i & step else lanes + i for i in range(lanes)]
            made[n], made[n + step] = f.shuffle(one, other, low), f.shuffle(one, other, high)
        rows = made
        step *= 2
    return rows
