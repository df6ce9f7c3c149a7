"""Channels of a tensor in blocks, put into another one where they begin within a block."""

from __future__ import annotations

from distort.kernels.compiler.codegen.target import Target
from distort.kernels.compiler.codegen.text import Function, Index, Value, vector


def emit_join(f: Function, target: Target, shift: int) -> None:
    """result[n, b, p, l] = the part's channel b · lanes + l - ``shift`` of pixel p, float32.

    Only lanes of the part's channels are written: the others are those of other parts.
    Words: images, blocks of the result that the part touches, pixels, and those that a thread does at once; the part,
    its steps per image and block, its number of blocks; the first of the result's blocks, its steps per image and
    block; the first lane of the first block, the lane after the last one of the last block.
    """
    images, n_blocks, pixels, chunk = (f.word(i) for i in range(4))
    x, x_image, x_block, x_blocks = f.address(4), f.word(5), f.word(6), f.word(7)
    result, image_step, block_step, low, high = f.address(8), f.word(9), f.word(10), f.word(11), f.word(12)
    lanes = target.lanes("float")
    type_ = vector("float", lanes)
    n_chunks = f.div(f.add(pixels, f.sub(chunk, 1)), chunk)
    begin, end = f.share(f.mul(f.mul(images, n_blocks), n_chunks))
    with f.loop(begin, end) as unit:
        row = f.div(unit.index, n_chunks)
        first = f.mul(f.rem(unit.index, n_chunks), chunk)
        last = f.min(f.add(first, chunk), pixels)
        image, block = f.div(row, n_blocks), f.rem(row, n_blocks)
        base = f.at(x, f.mul(image, x_image), "float")
        before = f.at(base, f.mul(f.max(f.sub(block, 1), 0), x_block), "float")
        here = f.at(base, f.mul(f.min(block, f.sub(x_blocks, 1)), x_block), "float")
        own = f.at(result, f.add(f.mul(image, image_step), f.mul(block, block_step)), "float")
        from_lane = f.select(f.compare("eq", block, 0), low, f.i64(0))
        to_lane = f.select(f.compare("eq", f.add(block, 1), n_blocks), high, f.i64(lanes))
        mask = f.binary("xor", f.first_lanes(lanes, to_lane), f.first_lanes(lanes, from_lane))

        def move(
            pixel: Index, before: Value = before, here: Value = here, own: Value = own, mask: Value = mask
        ) -> None:
            at = f.mul(pixel, lanes)
            value = f.load(type_, f.at(here, at, "float"))
            if shift:
                left = f.load(type_, f.at(before, at, "float"))
                value = f.shuffle(left, value, [lanes - shift + lane for lane in range(lanes)])
            f.masked_store(value, f.at(own, at, "float"), mask)

        with f.loop(first, last) as pixel:
            move(pixel.index)
    f.ret()
