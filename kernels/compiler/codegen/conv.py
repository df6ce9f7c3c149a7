"""Direct convolution of float32 in blocked layout.

A blocked tensor is [N, C/B, H, W, B]: B channels, one for each lane of a vector, lie next to each other, and the last
block is filled up with channels that nobody looks at. A register tile is ``pixels`` outputs next to each other in a row
times ``blocks`` blocks of output channels; each step multiplies one input channel of each pixel, in all lanes, by a
vector of weights. The input of a first layer may be plain, [N, C, H, W]: that is a block of one channel.

Padding is done by copying the rows that a band of output rows looks at into scratch memory with zeros around them:
each copied element takes part in thousands of products, and the loops over tiles know of no borders.
Where a row is not a multiple of a tile, the last tile begins earlier and computes some pixels once more, so an output
must not share memory with an operand.

Words of a step: see ``WORDS``; then those of the epilogue.
"""

from __future__ import annotations

from typing import NamedTuple

from distort.kernels.compiler.codegen import epilogues, fills
from distort.kernels.compiler.codegen.target import Target
from distort.kernels.compiler.codegen.text import Function, Index, Value
from distort.kernels.compiler.expression import Expression

NUMBER_OF_FLOATS_A_LINE = 16

WORDS = (
    "x",  # address, [images, channel blocks, height, width, block]
    "weights",  # address, see ``packing.pack_weights``
    "scratch",  # address, all threads' rows with their padding; of no meaning without
    "scratch_stride",  # elements from one thread's to the next
    "images",
    "bands",  # an image's tiles are worked on in bands
    "columns",  # groups of ``blocks`` output blocks
    "columns_a_group",  # of the convolution's groups
    "group_blocks",  # input blocks of a group
    "group_channels",  # input channels of a group; matters for 1 x 1 only
    "height",  # of the input
    "width",
    "out_width",
    "row_tiles",
    "band_tiles",
    "image_tiles",
    "pad_top",
    "pad_left",
    "padded_width",  # of a row in scratch memory
    "x_image",  # elements from one image to the next
    "out_image",
    "out_row",
    "out_plane",  # elements from one output block to the next
    "ahead_step",  # bytes of the next column's weights to fetch ahead for each product, where they are streamed
)


class Form(NamedTuple):
    """What the code of a convolution is made for."""

    block: int  # input channels of a block
    pixels: int
    blocks: int
    kernel: tuple[int, int]
    strides: tuple[int, int] = (1, 1)
    dilations: tuple[int, int] = (1, 1)
    padded: bool = False
    spread: int = 1  # outputs are so many pixels apart
    streamed: bool = False  # weights come from beyond the second-level cache: those to come are fetched ahead

    @property
    def run(self) -> int:
        """How many products have their input next to each other: a row of the kernel, or one element of it."""
        return self.block * (self.kernel[1] if self.dilations[1] == 1 else 1)

    @property
    def pointwise(self) -> bool:
        return self.kernel == (1, 1)


class _Step(NamedTuple):
    """A step's words by name, and what follows from them."""

    words: dict[str, Value]
    x: Value
    row: Index  # elements from one input row to the next, as the tiles read it
    plane: Index  # from one input block to the next


def emit_conv(f: Function, target: Target, form: Form, expression: Expression, kinds: tuple[str, ...]) -> None:
    """``kinds``: how the epilogue's operands are read, see ``epilogues``."""
    form = Form(*form)
    lanes = target.lanes("float")
    addresses = ("x", "weights", "scratch")
    words = {name: (f.address if name in addresses else f.word)(n) for n, name in enumerate(WORDS)}
    epilogue = epilogues.read(f, expression, kinds, len(WORDS))
    scratch = f.at(words["scratch"], f.mul(f.parameters[1], words["scratch_stride"]), "float")
    begin, end = f.share(f.mul(f.mul(words["images"], words["bands"]), words["columns"]))
    with f.loop(begin, end) as unit:
        column = f.rem(unit.index, words["columns"])
        rest = f.div(unit.index, words["columns"])
        band, image = f.rem(rest, words["bands"]), f.div(rest, words["bands"])
        first = f.mul(band, words["band_tiles"])
        last = f.min(f.add(first, words["band_tiles"]), words["image_tiles"])
        first_row = f.div(first, words["row_tiles"])
        x = f.at(words["x"], f.mul(image, words["x_image"]), "float")
        if form.padded:
            n_rows = f.sub(f.div(f.add(last, f.sub(words["row_tiles"], 1)), words["row_tiles"]), first_row)
            n_in_rows = f.add(f.mul(f.sub(n_rows, 1), form.strides[0]), (form.kernel[0] - 1) * form.dilations[0] + 1)
            row = f.mul(words["padded_width"], form.block)
            plane = f.mul(row, n_in_rows)
            fresh = f.binary("or", f.compare("eq", column, 0), f.compare("eq", unit.index, begin))
            with f.when(fresh):
                _copy_rows(f, form, lanes, words, x, scratch, first_row, n_in_rows, row)
            step = _Step(words, scratch, row, plane)
            origin: Index = first_row
        else:
            row = f.mul(words["width"], form.block)
            step = _Step(words, x, row, f.mul(row, words["height"]))
            origin = 0
        group = f.div(column, words["columns_a_group"])
        step = step._replace(x=f.at(step.x, f.mul(f.mul(group, words["group_blocks"]), step.plane), "float"))
        n_products = f.mul(words["group_blocks"], form.block * form.kernel[0] * form.kernel[1])
        column_size = f.mul(n_products, form.blocks * lanes)
        weights = f.at(words["weights"], f.mul(column, column_size), "float")
        following_weights = f.at(weights, column_size, "float")
        # the tiles' places: rows and columns are counted, not divided
        start = [f.i64(first_row), f.i64(f.rem(first, words["row_tiles"]))]
        with f.loop(first, last, carried=start) as tile:
            out_row, number = tile.carried
            left = f.min(f.mul(number, form.pixels), f.sub(words["out_width"], form.pixels))
            place = f.mul(f.mul(f.sub(out_row, origin), form.strides[0]), step.row)
            place = f.add(place, f.mul(left, form.strides[1] * form.block))
            fetched = f.mul(f.mul(f.sub(tile.index, first), n_products), words["ahead_step"])
            sums = _products(
                f, form, lanes, step, f.at(step.x, place, "float"), weights, f.at(following_weights, fetched, "i8")
            )
            spot = f.add(f.mul(out_row, words["out_row"]), f.mul(left, form.spread * lanes))
            spot = f.add(spot, f.mul(image, words["out_image"]))
            blocks = [f.add(f.mul(column, form.blocks), k) for k in range(form.blocks)]
            places = [f.add(spot, f.mul(block, words["out_plane"])) for block in blocks]
            channels = [f.mul(block, lanes) for block in blocks]
            epilogue.apply(f, sums, image, channels, places, lanes, form.spread)
            ends = f.compare("eq", f.add(number, 1), words["row_tiles"])
            following = f.select(ends, f.i64(0), f.i64(f.add(number, 1)))
            tile.carry([f.i64(f.add(out_row, f.cast("zext", ends, "i64"))), following])
    f.ret()


def _products(
    f: Function, form: Form, lanes: int, step: _Step, x: Value, weights: Value, ahead: Value
) -> list[list[Value]]:
    """The sums of a tile, ``[block][pixel]``. ``x`` is where the first pixel's window begins.

    One product of each sum is printed, in loops: the machine overlaps their passes, and LLVM, given several, would
    order them by sums, so that each waits for the one before.
    """
    vector = f"<{lanes} x float>" if lanes > 1 else "float"
    size = form.blocks * lanes  # of the weights of one product
    n_taps = form.kernel[1] * form.block // form.run
    #: passes, elements of the input and products from one pass to the next
    loops: list[tuple[Index, Index, int]] = [
        (step.words["group_blocks"], step.plane, form.block * form.kernel[0] * form.kernel[1]),
        (form.kernel[0], f.mul(step.row, form.dilations[0]), form.block * form.kernel[1]),
        (n_taps, form.dilations[1] * form.block, form.block),
        (form.run, 1, 1),
    ]
    reach = form.pixels * form.strides[1] * form.block

    def nest(level: int, at: Value, weight: Value, ahead: Value, rest: Index, sums: list[Value]) -> list[Value]:
        """``rest``: input channels of this block and those after it."""
        if level == len(loops):
            if form.streamed:
                f.prefetch(ahead, 2)
            return _multiply(f, form, vector, lanes, at, weight, sums)
        count, x_step, products = loops[level]
        if count == 1:
            return nest(level + 1, at, weight, ahead, rest, sums)
        if level == 3 and form.pointwise:
            count = f.min(count, rest)
        with f.loop(0, count, carried=sums) as loop:
            here = f.at(at, f.mul(loop.index, x_step), "float")
            there = f.at(weight, f.mul(loop.index, products * size), "float")
            later = f.at(ahead, f.mul(loop.index, f.mul(step.words["ahead_step"], products)), "i8")
            if level == 0:
                rest = f.sub(step.words["group_channels"], f.mul(loop.index, form.block))
                if form.pointwise:
                    for line in range(0, reach, NUMBER_OF_FLOATS_A_LINE):
                        f.prefetch(f.at(here, reach + line, "float"))
            loop.carry(nest(level + 1, here, there, later, rest, loop.carried))
        return loop.carried

    zero = f.const(vector, 0)
    sums = nest(0, x, weights, ahead, 0, [zero] * (form.blocks * form.pixels))
    return [sums[k * form.pixels : (k + 1) * form.pixels] for k in range(form.blocks)]


def _multiply(
    f: Function, form: Form, vector: str, lanes: int, at: Value, weight: Value, sums: list[Value]
) -> list[Value]:
    """One product more of each sum: of the elements from ``at`` on, a stride apart, and the weights of their channel."""
    row = [f.load(vector, f.at(weight, k * lanes, "float")) for k in range(form.blocks)]
    sums = list(sums)
    for pixel in range(form.pixels):
        wide = f.splat(f.load("float", f.at(at, pixel * form.strides[1] * form.block, "float")), lanes)
        for k in range(form.blocks):
            number = k * form.pixels + pixel
            sums[number] = f.fma(wide, row[k], sums[number])
    return sums


def _copy_rows(
    f: Function,
    form: Form,
    lanes: int,
    words: dict[str, Value],
    x: Value,
    scratch: Value,
    first_row: Index,
    n_rows: Index,
    row: Index,
) -> None:
    """Copy ``n_rows`` rows of all input blocks, with zeros for what lies outside."""
    top = f.sub(f.mul(first_row, form.strides[0]), words["pad_top"])
    left = f.mul(words["pad_left"], form.block)
    size = f.mul(words["width"], form.block)
    inside = f.min(size, f.sub(row, left))
    n_blocks = f.mul(words["group_blocks"], f.div(words["columns"], words["columns_a_group"]))
    with f.loop(0, n_blocks) as block, f.loop(0, n_rows) as line:
        target = f.at(scratch, f.mul(f.add(f.mul(block.index, n_rows), line.index), row), "float")
        y = f.i64(f.add(top, line.index))
        # as unsigned numbers, rows above the image are beyond it
        known = f.compare("ult", y, words["height"])
        source = f.at(x, f.mul(f.add(f.mul(block.index, words["height"]), y), size), "float")
        n_copied = f.select(known, f.i64(inside), f.i64(0))
        first = f.select(known, f.i64(left), f.i64(0))
        fills.fill(f, form.block, lanes, target, 0, first)
        fills.copy(f, form.block, lanes, source, f.at(target, first, "float"), n_copied)
        fills.fill(f, form.block, lanes, target, f.add(first, n_copied), row)
