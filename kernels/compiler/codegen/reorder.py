"""Between plain [N, C, pixels] and blocked [N, C/lanes, pixels, lanes]: small squares are transposed in registers."""

from __future__ import annotations

from collections.abc import Callable

from distort.kernels.compiler.codegen.target import Target
from distort.kernels.compiler.codegen.text import Function, Index, Value
from distort.kernels.compiler.codegen.turned import transposed

#: (lane, pixel) -> where a channel's pixels are, from this one on
Row = Callable[[int, Index], Value]

WORDS = (
    "plain",  # address
    "blocked",  # address
    "images",
    "blocks",
    "channels",
    "pixels",
    "chunk",  # pixels of a unit of work; a multiple of ``lanes``
    "plain_image",  # elements from one image to the next
    "plain_channel",
    "blocked_image",
    "blocked_block",
)


def emit_reorder(f: Function, target: Target, to_blocks: bool, few: bool) -> None:
    """``to_blocks``: into blocks, where missing channels become zeros, or back. ``few``: less pixels than lanes."""
    lanes = target.lanes("float")
    vector = f"<{lanes} x float>"
    words = {name: (f.address if name in ("plain", "blocked") else f.word)(n) for n, name in enumerate(WORDS)}
    spare = f.alloca("float", lanes)
    f.store(f.const(vector, 0), spare)
    chunk = words["chunk"]
    n_chunks = f.div(f.add(words["pixels"], f.sub(chunk, 1)), chunk)
    begin, end = f.share(f.mul(f.mul(words["images"], words["blocks"]), n_chunks))
    with f.loop(begin, end) as unit:
        part = f.rem(unit.index, n_chunks)
        rest = f.div(unit.index, n_chunks)
        block, image = f.rem(rest, words["blocks"]), f.div(rest, words["blocks"])
        channel = f.mul(block, lanes)
        place = f.add(f.mul(image, words["plain_image"]), f.mul(channel, words["plain_channel"]))
        plain = f.at(words["plain"], place, "float")
        place = f.add(f.mul(image, words["blocked_image"]), f.mul(block, words["blocked_block"]))
        blocked = f.at(words["blocked"], place, "float")
        n_rows = f.sub(words["channels"], channel)
        first = f.mul(part, chunk)
        last = f.min(f.add(first, chunk), words["pixels"])

        def row(lane: int, pixel: Index) -> Value:
            """Where a channel's pixels are; channels that are missing are somewhere else."""
            there = f.at(plain, f.add(f.mul(words["plain_channel"], lane), pixel), "float")
            return f.select(f.compare("slt", lane, n_rows), there, spare)

        if few:
            _one_by_one(f, lanes, blocked, row, to_blocks, first, last)
        else:
            _by_squares(f, lanes, blocked, row, to_blocks, first, last, words["pixels"])
    f.ret()


def _one_by_one(f: Function, lanes: int, blocked: Value, row: Row, to_blocks: bool, first: Index, last: Index) -> None:
    with f.loop(first, last) as pixel:
        here = f.at(blocked, f.mul(pixel.index, lanes), "float")
        for lane in range(lanes):
            one = f.at(here, lane, "float")
            source, target = (row(lane, pixel.index), one) if to_blocks else (one, row(lane, pixel.index))
            f.store(f.load("float", source), target)


def _by_squares(
    f: Function, lanes: int, blocked: Value, row: Row, to_blocks: bool, first: Index, last: Index, pixels: Index
) -> None:
    """The last square begins earlier and is partly done once more."""
    with f.loop(first, last, lanes) as pixel:
        at = f.min(pixel.index, f.sub(pixels, lanes))
        here = f.at(blocked, f.mul(at, lanes), "float")
        inside = [f.at(here, lane * lanes, "float") for lane in range(lanes)]
        rows = [row(lane, at) for lane in range(lanes)]
        sources, targets = (rows, inside) if to_blocks else (inside, rows)
        values = transposed(f, [f.load(f"<{lanes} x float>", address) for address in sources])
        for value, address in zip(values, targets, strict=True):
            f.store(value, address)
