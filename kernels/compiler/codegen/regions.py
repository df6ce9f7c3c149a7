"""RoiAlign and MaxRoiPool, in blocked layout: regions of images, each cut in bins, of which each is a mean or the
largest of samples, or the largest of pixels.

A sample lies between four pixels, whose lanes are channels; where it lies is computed once for several channel blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from distort.kernels.compiler.codegen.copying import report
from distort.kernels.compiler.codegen.target import Target
from distort.kernels.compiler.codegen.text import Function, Index, Value

WORDS = (
    "x",  # address, [images, channel blocks, height, width, lanes]
    "regions",  # address, [regions, 4]: x1, y1, x2, y2
    "images_of",  # address, int64: the image of each region
    "result",  # address, [regions, channel blocks, bins down, bins across, lanes]
    "error",  # address
    "regions_count",
    "images",
    "blocks",
    "height",
    "width",
    "bins_down",
    "bins_across",
    "samples",  # of a bin along an axis; 0: as many as it has pixels
    "scale",  # the bits of a float: what regions' corners are multiplied with
    "x_image",  # elements from one image to the next
    "x_block",
    "result_region",
    "result_block",
)
_ADDRESSES = 5
#: channel blocks that are done at once
_BLOCKS = 4
#: more samples of a bin than any image has are refused
_MOST_SAMPLES = 1 << 16


class _Axis(NamedTuple):
    """An axis of a region: floats, but for the numbers of samples and pixels."""

    begin: Value
    bin: Value
    samples: Index
    size: Index


class _Tap(NamedTuple):
    """The pixels on both sides of a sample along an axis, and their weights."""

    pixels: tuple[Index, Index]
    weights: tuple[Value, Value]


def emit_roi_align(f: Function, target: Target, largest: bool, aligned: bool) -> None:
    """``largest``: of samples' weighted pixels, else their mean. ``aligned``: pixels are shifted by half."""
    lanes = target.lanes("float")
    words = {name: (f.address if n < _ADDRESSES else f.word)(n) for n, name in enumerate(WORDS)}
    scale = f.cast("bitcast", f.cast("trunc", words["scale"], "i32"), "float")
    begin, end = f.share(f.mul(words["regions_count"], words["bins_down"]))
    with f.loop(begin, end, carried=[Value("i1", "false")]) as unit:
        region, down = f.div(unit.index, words["bins_down"]), f.rem(unit.index, words["bins_down"])
        image = f.load("i64", f.at(words["images_of"], region, "i64"))
        wrong = f.icmp("uge", image, words["images"])
        image = f.select(wrong, f.i64(0), image)
        corners = f.at(words["regions"], f.mul(region, 4), "float")
        sides = []
        for which, size, bins in ((1, "height", "bins_down"), (0, "width", "bins_across")):
            side, many = _axis(f, words, corners, which, scale, words[size], words[bins], aligned)
            sides.append(side)
            wrong = f.binary("or", wrong, many)
        rows, columns = sides
        x = f.at(words["x"], f.mul(image, words["x_image"]), "float")
        spot = f.mul(f.mul(down, words["bins_across"]), lanes)
        made = f.at(words["result"], f.add(f.mul(region, words["result_region"]), spot), "float")
        count = f.mul(rows.samples, columns.samples)

        def blocks(first: Index, n: int, down: Index = down, x: Value = x, made: Value = made) -> None:
            own = f.at(x, f.mul(first, words["x_block"]), "float")
            to = f.at(made, f.mul(first, words["result_block"]), "float")
            with f.loop(0, words["bins_across"]) as across:
                sums = _bin(f, lanes, largest, own, words, (rows, columns), (down, across.index), n)
                for k, value in enumerate(sums):
                    zero = f.const(value.type, 0)
                    if largest:
                        value = f.select(f.compare("eq", count, 0), zero, value)
                    else:
                        divisor = f.cast("sitofp", f.i64(f.max(count, 1)), "float")
                        value = f.fdiv(value, f.splat(divisor, lanes))
                    place = f.add(f.mul(across.index, lanes), f.mul(words["result_block"], k))
                    f.store(value, f.at(to, place, "float"))

        whole = f.mul(f.div(words["blocks"], _BLOCKS), _BLOCKS)
        with f.loop(0, whole, _BLOCKS) as some:
            blocks(some.index, _BLOCKS)
        with f.loop(whole, words["blocks"]) as single:
            blocks(single.index, 1)
        unit.carry([f.binary("or", unit.carried[0], wrong)])
    report(f, unit.carried[0], words["error"])
    f.ret()


def _axis(
    f: Function,
    words: dict[str, Value],
    corners: Value,
    which: int,
    scale: Value,
    size: Value,
    bins: Value,
    aligned: bool,
) -> tuple[_Axis, Value]:
    """An axis of a region, and whether it has more samples than it may."""
    first, last = (f.fmul(f.load("float", f.at(corners, which + 2 * i, "float")), scale) for i in (0, 1))
    zero, one, half = (f.const("float", number) for number in (0, 1, 0.5))
    if aligned:
        first, last = f.fsub(first, half), f.fsub(last, half)
    extent = f.fsub(last, first)
    if not aligned:
        extent = f.select(f.fcmp("olt", extent, one), one, extent)
    each = f.fdiv(extent, f.cast("sitofp", bins, "float"))
    wanted = f.unary("ceil", each)
    most = f.const("float", _MOST_SAMPLES)
    many = f.fcmp("ugt", wanted, most)
    wanted = f.select(f.fcmp("ogt", wanted, zero), wanted, zero)
    wanted = f.select(many, zero, wanted)
    given = f.compare("sgt", words["samples"], 0)
    samples = f.select(given, words["samples"], f.cast("fptosi", wanted, "i64"))
    return _Axis(first, each, samples, size), f.select(given, Value("i1", "false"), many)


def _tap(f: Function, axis: _Axis, number: Index, sample: Index) -> _Tap:
    """Of a sample of the bin ``number``; one that is more than a pixel outside weighs nothing."""
    zero, one, half = (f.const("float", value) for value in (0, 1, 0.5))

    def real(index: Index) -> Value:
        return f.cast("sitofp", f.i64(index), "float")

    within = f.fdiv(f.fmul(f.fadd(real(sample), half), axis.bin), real(axis.samples))
    at = f.fadd(f.fadd(axis.begin, f.fmul(real(number), axis.bin)), within)
    size, last = real(axis.size), f.fsub(real(axis.size), one)
    inside = f.binary("and", f.fcmp("oge", at, f.const("float", -1)), f.fcmp("ole", at, size))
    at = f.select(f.fcmp("ogt", at, zero), at, zero)
    at = f.select(f.fcmp("ogt", at, last), last, at)
    low = f.unary("floor", at)
    share = f.fsub(at, low)
    first = f.cast("fptosi", low, "i64")
    second = f.min(f.add(first, 1), f.sub(axis.size, 1))
    weights = (f.select(inside, f.fsub(one, share), zero), f.select(inside, share, zero))
    return _Tap((first, second), weights)


def _bin(
    f: Function,
    lanes: int,
    largest: bool,
    x: Value,
    words: dict[str, Value],
    axes: Sequence[_Axis],
    numbers: Sequence[Index],
    n_blocks: int,
) -> list[Value]:
    """The sums of a bin's samples, or the largest of their weighted pixels, of channel blocks from ``x`` on."""
    vector = f"<{lanes} x float>"
    start = [f.const(vector, float("-inf") if largest else 0.0)] * n_blocks
    with f.loop(0, axes[0].samples, carried=start) as row:
        high = _tap(f, axes[0], numbers[0], row.index)
        with f.loop(0, axes[1].samples, carried=row.carried) as column:
            wide = _tap(f, axes[1], numbers[1], column.index)
            state = list(column.carried)
            for y, above in zip(high.pixels, high.weights, strict=True):
                for at, beside in zip(wide.pixels, wide.weights, strict=True):
                    weight = f.splat(f.fmul(above, beside), lanes)
                    place = f.mul(f.add(f.mul(y, words["width"]), at), lanes)
                    for k in range(n_blocks):
                        there = f.at(x, f.add(place, f.mul(words["x_block"], k)), "float")
                        value = f.load(vector, there)
                        if largest:
                            state[k] = f.intrinsic("maximum", state[k], f.fmul(value, weight))
                        else:
                            state[k] = f.fma(value, weight, state[k])
            column.carry(state)
        row.carry(column.carried)
    return row.carried


MAX_WORDS = (
    *("x", "regions", "result", "error"),  # as above, but regions [regions, 5]: image, x1, y1, x2, y2
    *("regions_count", "images", "blocks", "height", "width", "bins_down", "bins_across"),
    "scale",  # the bits of a double
    *("x_image", "x_block", "result_region", "result_block"),
)
_MAX_ADDRESSES = 4
#: corners beyond are refused
_FARTHEST = 2.0**30


def emit_max_roi_pool(f: Function, target: Target) -> None:
    """result[r, …, i, j, :] = the largest pixels of a bin, 0 where it has none."""
    lanes = target.lanes("float")
    words = {name: (f.address if n < _MAX_ADDRESSES else f.word)(n) for n, name in enumerate(MAX_WORDS)}
    scale = f.bitcast(words["scale"], "double")
    begin, end = f.share(f.mul(words["regions_count"], words["bins_down"]))
    with f.loop(begin, end, carried=[Value("i1", "false")]) as unit:
        region, down = f.div(unit.index, words["bins_down"]), f.rem(unit.index, words["bins_down"])
        own = f.at(words["regions"], f.mul(region, 5), "float")
        number = f.load("float", own)
        named = f.binary(
            "and",
            f.fcmp("ogt", number, f.const("float", -1)),
            f.fcmp("olt", number, f.cast("sitofp", words["images"], "float")),
        )
        image = f.cast("fptosi", f.select(named, number, f.const("float", 0)), "i64")
        wrong = f.binary("xor", named, Value("i1", "true"))
        ends = []
        for which in range(1, 5):
            corner = f.cast("fpext", f.load("float", f.at(own, which, "float")), "double")
            place, far = _nearest(f, f.fmul(corner, scale))
            ends.append(place)
            wrong = f.binary("or", wrong, far)
        top, bottom = _pixels(f, (ends[1], ends[3]), words["bins_down"], down, words["height"])
        x = f.at(words["x"], f.mul(image, words["x_image"]), "float")
        spot = f.mul(f.mul(down, words["bins_across"]), lanes)
        made = f.at(words["result"], f.add(f.mul(region, words["result_region"]), spot), "float")
        with f.loop(0, words["bins_across"]) as across:
            left, right = _pixels(f, (ends[0], ends[2]), words["bins_across"], across.index, words["width"])
            empty = f.binary("or", f.compare("sge", top, bottom), f.compare("sge", left, right))
            with f.loop(0, words["blocks"]) as block:
                from_ = f.at(x, f.mul(block.index, words["x_block"]), "float")
                least = f.const(f"<{lanes} x float>", float("-inf"))
                with f.loop(top, bottom, carried=[least]) as row:
                    line = f.at(from_, f.mul(f.mul(row.index, words["width"]), lanes), "float")
                    with f.loop(left, right, carried=row.carried) as column:
                        value = f.load(least.type, f.at(line, f.mul(column.index, lanes), "float"))
                        column.carry([f.intrinsic("maximum", column.carried[0], value)])
                    row.carry(column.carried)
                value = f.select(empty, f.const(least.type, 0), row.carried[0])
                to = f.add(f.mul(across.index, lanes), f.mul(block.index, words["result_block"]))
                f.store(value, f.at(made, to, "float"))
        unit.carry([f.binary("or", unit.carried[0], wrong)])
    report(f, unit.carried[0], words["error"])
    f.ret()


def _nearest(f: Function, at: Value) -> tuple[Value, Value]:
    """The nearest whole number, halves away from 0, and whether that is no number or too large."""
    size = f.unary("fabs", at)
    far = f.fcmp("ugt", size, f.const("double", _FARTHEST))
    rounded = f.unary("floor", f.fadd(f.select(far, f.const("double", 0), size), f.const("double", 0.5)))
    return f.cast("fptosi", f.intrinsic("copysign", rounded, at), "i64"), far


def _pixels(f: Function, ends: tuple[Value, Value], bins: Value, number: Index, size: Value) -> tuple[Index, Index]:
    """The first pixel of a bin along an axis, and one after the last."""
    extent = f.max(f.add(f.sub(ends[1], ends[0]), 1), 1)
    width = f.fdiv(f.cast("sitofp", f.i64(extent), "float"), f.cast("sitofp", bins, "float"))
    found = []
    for edge, rounding in ((number, "floor"), (f.add(number, 1), "ceil")):
        at = f.unary(rounding, f.fmul(f.cast("sitofp", f.i64(edge), "float"), width))
        found.append(f.min(f.max(f.add(f.cast("fptosi", at, "i64"), ends[0]), 0), size))
    return found[0], found[1]
