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

from dataclasses import dataclass

from distort.kernels.compiler.codegen import epilogues, fills
from distort.kernels.compiler.codegen.products import Form, Products
from distort.kernels.compiler.codegen.sliding import inside
from distort.kernels.compiler.codegen.target import Target
from distort.kernels.compiler.codegen.text import Function, Index, Value
from distort.kernels.compiler.expression import Expression

WORDS = (
    "x",  # address, [images, channel blocks, height, width, block]
    "weights",  # address, see ``packing.pack_weights``
    "scratch",  # address, all threads' rows with their padding; of no meaning without
    "scratch_stride",  # elements from one thread's to the next
    "images",
    "bands",  # an image's tiles are worked on in bands
    "columns",  # groups of ``blocks`` output blocks
    "group_outputs",  # output channels of a group, and input channels: where a column's input begins
    "group_inputs",
    "group_blocks",  # input blocks that a column looks at
    "group_channels",  # input channels of these; matters for 1 x 1 only
    "in_blocks",  # all of them
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
    "ahead_step",  # bytes of the weights to come to fetch for each product, where they are streamed
    "chunk_blocks",  # input blocks that are worked on at a time, where that is not all
    "partial",  # where in a thread's scratch memory sums over some blocks are kept, in elements
)


@dataclass(slots=True)
class _Unit:
    """A band of an image and a column of output blocks, and how its tiles read the input."""

    f: Function
    form: Form
    lanes: int
    words: dict[str, Value]
    image: Index
    column: Index
    first: Index  # tile
    last: Index
    first_row: Index  # of outputs
    x: Value
    row: Index  # elements from one input row to the next
    plane: Index  # from one input block to the next
    origin: Index  # output row that begins at ``x``


def emit_conv(f: Function, target: Target, form: Form, expression: Expression, kinds: tuple[str, ...]) -> None:
    """``kinds``: how the epilogue's operands are read, see ``epilogues``."""
    form = Form(*form)
    lanes = target.lanes("float")
    addresses = ("x", "weights", "scratch")
    words = {name: (f.address if name in addresses else f.word)(n) for n, name in enumerate(WORDS)}
    epilogue = epilogues.read(f, expression, kinds, len(WORDS))
    scratch = f.at(words["scratch"], f.mul(f.thread, words["scratch_stride"]), "float")
    begin, end = f.share(f.mul(f.mul(words["images"], words["bands"]), words["columns"]))
    with f.loop(begin, end) as loop:
        column = f.rem(loop.index, words["columns"])
        rest = f.div(loop.index, words["columns"])
        band, image = f.rem(rest, words["bands"]), f.div(rest, words["bands"])
        first = f.mul(band, words["band_tiles"])
        last = f.min(f.add(first, words["band_tiles"]), words["image_tiles"])
        first_row = f.div(first, words["row_tiles"])
        x = f.at(words["x"], f.mul(image, words["x_image"]), "float")
        row: Index = f.mul(words["width"], form.block)
        plane, origin = f.mul(row, words["height"]), f.i64(0)
        unit = _Unit(f, form, lanes, words, image, column, first, last, first_row, x, row, plane, origin)
        if form.padded:
            fresh = f.binary("or", f.compare("eq", column, 0), f.compare("eq", loop.index, begin))
            _read_copy(unit, scratch, fresh)
        group = f.div(f.mul(column, form.blocks * lanes), words["group_outputs"])
        begins = f.div(f.mul(group, words["group_inputs"]), form.block)
        begins = f.min(begins, f.sub(words["in_blocks"], words["group_blocks"]))
        unit.x = f.at(unit.x, f.mul(begins, unit.plane), "float")
        tap = form.block * form.kernel[0] * form.kernel[1] * form.blocks * lanes  # weights of an input block
        size = f.mul(words["group_blocks"], tap)
        weights = f.at(words["weights"], f.mul(column, size), "float")
        if not form.chunked:
            _tiles(unit, epilogue, weights, f.at(weights, size, "float"), 0, words["group_blocks"], None)
        else:
            partial = f.at(scratch, words["partial"], "float")
            with f.loop(0, words["group_blocks"], words["chunk_blocks"]) as chunk:
                count = f.min(words["chunk_blocks"], f.sub(words["group_blocks"], chunk.index))
                here = f.at(weights, f.mul(chunk.index, tap), "float")
                ahead = f.at(here, f.mul(count, tap), "float")
                _tiles(unit, epilogue, here, ahead, chunk.index, count, partial)
    f.ret()


def _read_copy(unit: _Unit, scratch: Value, fresh: Value) -> None:
    """Let the unit read a copy of its rows with their padding, made where it is ``fresh``."""
    f, form, words = unit.f, unit.form, unit.words
    n_rows = f.sub(f.div(f.add(unit.last, f.sub(words["row_tiles"], 1)), words["row_tiles"]), unit.first_row)
    n_in_rows = f.add(f.mul(f.sub(n_rows, 1), form.strides[0]), (form.kernel[0] - 1) * form.dilations[0] + 1)
    row = f.mul(words["padded_width"], form.block)
    with f.when(fresh):
        _copy_rows(f, form, unit.lanes, words, unit.x, scratch, unit.first_row, n_in_rows, row)
    unit.x, unit.row, unit.plane, unit.origin = scratch, row, f.mul(row, n_in_rows), unit.first_row


def _tiles(
    unit: _Unit,
    epilogue: epilogues.Epilogue,
    weights: Value,
    ahead: Value,
    first_block: Index,
    n_blocks: Index,
    partial: Value | None,
) -> None:
    """All tiles of a unit, for some input blocks. ``ahead``: the weights after these.

    ``partial``: where sums over some of a group's blocks are kept, for each tile.
    """
    f, form, lanes, words = unit.f, unit.form, unit.lanes, unit.words
    n_products = f.mul(n_blocks, form.block * form.kernel[0] * form.kernel[1])
    x = f.at(unit.x, f.mul(first_block, unit.plane), "float")
    channels_left = f.sub(words["group_channels"], f.mul(first_block, form.block))
    # the tiles' places: rows and columns are counted, not divided
    start = [f.i64(unit.first_row), f.i64(f.rem(unit.first, words["row_tiles"]))]
    with f.loop(unit.first, unit.last, carried=start) as tile:
        out_row, number = tile.carried
        left = f.min(f.mul(number, form.pixels), f.sub(words["out_width"], form.pixels))
        place = f.mul(f.mul(f.sub(out_row, unit.origin), form.strides[0]), unit.row)
        place = f.add(place, f.mul(left, form.strides[1] * form.block))
        count = f.sub(tile.index, unit.first)
        fetched = f.at(ahead, f.mul(f.mul(count, n_products), words["ahead_step"]), "i8")
        rows = None
        if form.padded and form.kernel[0] > 1:
            top = f.sub(f.mul(out_row, form.strides[0]), words["pad_top"])
            rows = inside(f, top, words["height"], form.kernel[0], form.dilations[0])
        products = Products(form, lanes, n_blocks, channels_left, unit.row, unit.plane, words["ahead_step"], rows)
        spot = f.add(f.mul(out_row, words["out_row"]), f.mul(left, form.spread * lanes))
        spot = f.add(spot, f.mul(unit.image, words["out_image"]))
        blocks = [f.add(f.mul(unit.column, form.blocks), k) for k in range(form.blocks)]
        places = [f.add(spot, f.mul(block, words["out_plane"])) for block in blocks]
        channels = [f.mul(block, lanes) for block in blocks]

        def finish(sums: list[Value], places: list[Index] = places, channels: list[Index] = channels) -> None:
            rows = [sums[k * form.pixels : (k + 1) * form.pixels] for k in range(form.blocks)]
            epilogue.apply(f, rows, unit.image, channels, places, lanes, form.spread)

        here = f.at(x, place, "float")
        n_sums = form.blocks * form.pixels
        if partial is None:
            finish(products.add(f, here, weights, fetched, products.zeros(f)))
        else:
            kept = f.at(partial, f.mul(count, n_sums * lanes), "float")
            slots = [f.at(kept, i * lanes, "float") for i in range(n_sums)]
            began = f.compare("eq", first_block, 0)
            sums = f.choose(
                began,
                [
                    lambda: products.zeros(f),
                    lambda slots=slots: [f.load(products.vector, slot) for slot in slots],
                ],
            )
            sums = products.add(f, here, weights, fetched, sums)
            done = f.compare("eq", f.add(first_block, n_blocks), words["group_blocks"])
            with f.when(done):
                finish(sums)
            with f.when(f.binary("xor", done, f.const("i1", 1))):
                for value, slot in zip(sums, slots, strict=True):
                    f.store(value, slot)
        ends = f.compare("eq", f.add(number, 1), words["row_tiles"])
        following = f.select(ends, f.i64(0), f.i64(f.add(number, 1)))
        tile.carry([f.i64(f.add(out_row, f.cast("zext", ends, "i64"))), following])


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
    with f.loop(0, words["in_blocks"]) as block, f.loop(0, n_rows) as line:
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
