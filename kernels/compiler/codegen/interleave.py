"""8-bit images made ready for convolutions: padded, and channels next to each other in groups of what a lane adds.

[N, C, H, W] -> [N, groups of the convolution, channel groups, padded H, padded W, channels of a group]. What is outside
the image is the zero point, a channel that isn't there is 0. An expression makes the bytes as they are read.
"""

from __future__ import annotations

from collections.abc import Sequence

from distort.kernels.compiler.codegen import byte_dots as dots
from distort.kernels.compiler.codegen import elements
from distort.kernels.compiler.codegen.operands import BROADCAST, CONTIGUOUS
from distort.kernels.compiler.codegen.target import Target
from distort.kernels.compiler.codegen.text import Function, Index, Value, lanes_of, vector
from distort.kernels.compiler.expression import STORED, Expression

#: of a step, in order; then for each operand: address, and strides by image, channel and row
WORDS = (
    *("images", "groups", "channels", "channel_groups"),  # channels: of one group of the convolution
    *("height", "width", "padded_height", "padded_width", "top", "left"),
    *("result", "result_image", "result_group", "zero"),  # strides in bytes
)


def emit_interleave(
    f: Function, target: Target, size: int, expression: Expression, ways: tuple[int, ...], flip: bool, has_zero: bool
) -> None:
    """``size`` channels of a group: 1, 2 or 4. ``ways``: how a row goes through each operand."""
    words = {name: (f.address if name in ("result", "zero") else f.word)(n) for n, name in enumerate(WORDS)}
    operands = []
    for number in range(len(ways)):
        place = len(WORDS) + 4 * number
        operands.append((f.address(place), [f.word(place + 1 + n) for n in range(3)]))
    lanes = target.lanes("float")
    if has_zero:
        zero = f.load("i8", words["zero"])
        zero = dots.flipped(f, zero) if flip else zero
    else:
        zero = f.const("i8", -128 if flip else 0)
    row_nbytes = f.mul(words["padded_width"], size)
    of_group = f.mul(words["channel_groups"], words["padded_height"])
    of_image = f.mul(words["groups"], of_group)
    begin, end = f.share(f.mul(words["images"], of_image))
    with f.loop(begin, end) as unit:
        image, in_image = f.div(unit.index, of_image), f.rem(unit.index, of_image)
        group, in_group = f.div(in_image, of_group), f.rem(in_image, of_group)
        part, row = f.div(in_group, words["padded_height"]), f.rem(in_group, words["padded_height"])
        start_at = f.add(f.mul(image, words["result_image"]), f.mul(group, words["result_group"]))
        start_at = f.add(start_at, f.mul(f.add(f.mul(part, words["padded_height"]), row), row_nbytes))
        target_row = f.at(words["result"], start_at, "i8")
        y = f.sub(row, words["top"])
        inside = f.binary("and", f.compare("sge", y, 0), f.compare("slt", y, words["height"]))
        first = f.mul(part, size)
        exists = [f.compare("slt", f.add(first, n), words["channels"]) for n in range(size)]
        outside = interleaved(f, [f.select(there, zero, f.const("i8", 0)) if size > 1 else zero for there in exists])
        outside = f.bitcast(outside, f"i{8 * size}")
        _fill(f, target_row, f.select(inside, words["left"], words["padded_width"]), outside, lanes)
        with f.when(inside):
            last = f.sub(words["channels"], 1)
            channels = [f.add(f.mul(group, words["channels"]), f.min(f.add(first, n), last)) for n in range(size)]
            rows = [
                [
                    f.at(address, _offset(f, (image, channel, y), strides), STORED[dtype])
                    for (address, strides), dtype in zip(operands, expression.inputs, strict=True)
                ]
                for channel in channels
            ]
            start = f.at(target_row, f.mul(words["left"], size), "i8")
            whole = f.mul(f.div(words["width"], lanes), lanes)

            def columns(x: Index, n: int, mask: Value | None = None) -> None:
                made = []
                for row_operands, there in zip(rows, exists, strict=True):
                    values = []
                    for address, way, dtype in zip(row_operands, ways, expression.inputs, strict=True):
                        if way == BROADCAST:
                            values.append(f.splat(elements.load(f, address, dtype, 1), n))
                        else:
                            values.append(elements.load(f, f.at(address, x, STORED[dtype]), dtype, n, mask))
                    (value,) = elements.evaluate(f, expression, values)
                    value = dots.flipped(f, value) if flip else value
                    made.append(f.select(there, value, f.const(value.type, 0)) if size > 1 else value)
                pixels = interleaved(f, made)
                place = f.at(start, f.mul(x, size), "i8")
                if mask is None:
                    f.store(pixels, place)
                else:
                    f.masked_store(f.bitcast(pixels, vector(f"i{8 * size}", n)), place, mask)

            with f.loop(0, whole, lanes) as block:
                columns(block.index, lanes)
            left = f.sub(words["width"], whole)
            if elements.has_masks(target):
                with f.when(f.compare("sgt", left, 0)):
                    columns(whole, lanes, elements.mask_of(f, lanes, left))
            else:
                # the last vector overlaps the one before it, where there is one
                with f.when(f.binary("and", f.compare("sgt", left, 0), f.compare("sgt", whole, 0))):
                    columns(f.sub(words["width"], lanes), lanes)
                with f.loop(0, f.select(f.compare("sgt", whole, 0), f.i64(0), f.i64(left))) as single:
                    columns(single.index, 1)
            behind = f.add(words["left"], words["width"])
            _fill(f, f.at(target_row, f.mul(behind, size), "i8"), f.sub(words["padded_width"], behind), outside, lanes)
    f.ret()


def _offset(f: Function, at: Sequence[Index], strides: Sequence[Value]) -> Index:
    offset: Index = 0
    for index, stride in zip(at, strides, strict=True):
        offset = f.add(offset, f.mul(index, stride))
    return offset


def interleaved(f: Function, values: Sequence[Value]) -> Value:
    """One, two or four vectors (or numbers) of bytes, a byte of each in turn."""
    n = lanes_of(values[0].type)
    if len(values) == 1:
        return values[0]
    if n == 1:
        made = f.undef(vector("i8", len(values)))
        for number, value in enumerate(values):
            made = f.insert(made, value, number)
        return made
    turns = [lane for pair in zip(range(n), range(n, 2 * n), strict=True) for lane in pair]
    if len(values) == 2:
        return f.shuffle(values[0], values[1], turns)
    pairs = [f.bitcast(f.shuffle(values[i], values[i + 1], turns), vector("i16", n)) for i in (0, 2)]
    return f.bitcast(f.shuffle(pairs[0], pairs[1], turns), vector("i8", 4 * n))


def _fill(f: Function, address: Value, n_pixels: Index, pixel: Value, lanes: int) -> None:
    wide = f.splat(pixel, lanes)
    whole = f.mul(f.div(n_pixels, lanes), lanes)
    with f.loop(0, whole, lanes) as block:
        f.store(wide, f.at(address, block.index, pixel.type), 1)
    with f.loop(whole, n_pixels) as single:
        f.store(pixel, f.at(address, single.index, pixel.type), 1)


__all__ = ["BROADCAST", "CONTIGUOUS", "WORDS", "emit_interleave", "interleaved"]
