"""Winograd's convolution with 3 × 3 kernels, stride 1, float32 in blocked layout (Lavin and Gray, arXiv:1509.09308).

F(m × m, 3 × 3): an input tile of m + 2 by m + 2 pixels is transformed to as many numbers, each of them is multiplied
by its own matrix of weights, and m × m outputs are transformed back from that: (m + 2)² products a channel instead of
9 m². A thread takes a band of tiles: it transforms their input into scratch memory, multiplies, and transforms back.
Tiles at the far ends begin earlier, and compute some outputs once more: an output must not share memory with an
operand.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from distort.kernels.compiler.codegen import epilogues
from distort.kernels.compiler.codegen.products import Form, Products
from distort.kernels.compiler.codegen.target import Target
from distort.kernels.compiler.codegen.text import Function, Index, Value
from distort.kernels.compiler.expression import Expression

WORDS = (
    "x",  # address, [images, channel blocks, height, width, lanes]
    "weights",  # address, [(m + 2)², columns, channel blocks, lanes, blocks, lanes]
    "scratch",  # address, of all threads
    "scratch_stride",  # elements from one thread's to the next
    "images",
    "bands",
    "in_blocks",
    "columns",  # groups of ``blocks`` output blocks
    "splits",  # parts of the columns, which threads share; each transforms its input
    "height",
    "width",
    "out_height",
    "out_width",
    "row_tiles",
    "image_tiles",
    "band_tiles",  # a multiple of ``pixels``
    "pad_top",
    "pad_left",
    "x_image",  # elements from one image to the next
    "out_image",
    "out_plane",  # elements from one output block to the next
    "chunk_blocks",  # input blocks that are multiplied at a time
    "ahead_step",  # bytes of the weights to come to fetch for each product
    "x_step",  # elements between what is made of a band's tiles, of the input
    "out_step",  # and of the output
    "sums",  # where in scratch memory the latter begins
)


class Tiles(NamedTuple):
    """What the code is made for: F(size × size), and the register tile of the products."""

    size: int
    pixels: int
    blocks: int


def emit_winograd(f: Function, target: Target, tiles: Tiles, expression: Expression, kinds: tuple[str, ...]) -> None:
    tiles = Tiles(*tiles)
    lanes = target.lanes("float")
    addresses = ("x", "weights", "scratch")
    words = {name: (f.address if name in addresses else f.word)(n) for n, name in enumerate(WORDS)}
    epilogue = epilogues.read(f, expression, kinds, len(WORDS))
    zeros = f.alloca("float", lanes)
    f.store(f.const(f"<{lanes} x float>", 0), zeros)
    made = f.at(words["scratch"], f.mul(f.thread, words["scratch_stride"]), "float")
    sums = f.at(made, words["sums"], "float")
    begin, end = f.share(f.mul(f.mul(words["images"], words["bands"]), words["splits"]))
    with f.loop(begin, end) as unit:
        split, rest = f.rem(unit.index, words["splits"]), f.div(unit.index, words["splits"])
        band, image = f.rem(rest, words["bands"]), f.div(rest, words["bands"])
        columns = f.share(words["columns"], f.i64(split), words["splits"])
        first = f.mul(band, words["band_tiles"])
        count = f.min(words["band_tiles"], f.sub(words["image_tiles"], first))
        count = f.mul(f.div(f.add(count, tiles.pixels - 1), tiles.pixels), tiles.pixels)
        x = f.at(words["x"], f.mul(image, words["x_image"]), "float")
        _read(f, lanes, tiles, words, x, zeros, made, first, count)
        _multiply(f, lanes, tiles, words, made, sums, count, columns)
        _write(f, lanes, tiles, words, sums, first, count, columns, image, epilogue)
    f.ret()


def _place(f: Function, tiles: Tiles, words: dict[str, Value], first: Index, tile: Index) -> tuple[Index, Index]:
    """The output row and column that a tile begins at; tiles after the last are it."""
    number = f.min(f.add(first, tile), f.sub(words["image_tiles"], 1))
    row, column = f.div(number, words["row_tiles"]), f.rem(number, words["row_tiles"])
    top = f.min(f.mul(row, tiles.size), f.sub(words["out_height"], tiles.size))
    left = f.min(f.mul(column, tiles.size), f.sub(words["out_width"], tiles.size))
    return top, left


def _read(
    f: Function,
    lanes: int,
    tiles: Tiles,
    words: dict[str, Value],
    x: Value,
    zeros: Value,
    made: Value,
    first: Index,
    count: Index,
) -> None:
    """Transform a band's input: [(m + 2)², channel blocks, tiles, lanes]."""
    reach = tiles.size + 2
    vector = f"<{lanes} x float>"
    plane = f.mul(f.mul(words["height"], words["width"]), lanes)
    with f.loop(0, count) as tile:
        top, left = _place(f, tiles, words, first, tile.index)
        top, left = f.sub(top, words["pad_top"]), f.sub(left, words["pad_left"])
        # as unsigned numbers, rows above the image are beyond it
        rows = [f.compare("ult", f.i64(f.add(top, i)), words["height"]) for i in range(reach)]
        columns = [f.compare("ult", f.i64(f.add(left, i)), words["width"]) for i in range(reach)]
        corner = f.at(x, f.mul(f.add(f.mul(top, words["width"]), left), lanes), "float")
        lines = [f.mul(f.mul(words["width"], i), lanes) for i in range(reach)]
        with f.loop(0, words["in_blocks"]) as block:
            here = f.at(corner, f.mul(block.index, plane), "float")
            loaded = []
            for i in range(reach):
                line = f.at(here, lines[i], "float")
                for j in range(reach):
                    there = f.at(line, j * lanes, "float")
                    there = f.select(f.binary("and", rows[i], columns[j]), there, zeros)
                    loaded.append(f.load(vector, there))
            place = f.mul(f.add(f.mul(block.index, count), tile.index), lanes)
            target = f.at(made, place, "float")
            for number, value in enumerate(_both_ways(f, INPUTS[tiles.size], loaded)):
                f.store(value, f.at(target, f.mul(words["x_step"], number), "float"))


def _multiply(
    f: Function,
    lanes: int,
    tiles: Tiles,
    words: dict[str, Value],
    made: Value,
    sums: Value,
    count: Index,
    columns: tuple[Index, Index],
) -> None:
    """[(m + 2)², output blocks, tiles, lanes] from what was made of the input."""
    form = Form(lanes, tiles.pixels, tiles.blocks, (1, 1), streamed=True)
    block_size = lanes * tiles.blocks * lanes  # weights of an input block
    column_size = f.mul(words["in_blocks"], block_size)
    n_sums = tiles.pixels * tiles.blocks
    with f.loop(0, (tiles.size + 2) ** 2) as number, f.loop(*columns) as column:
        position = f.add(f.mul(number.index, words["columns"]), column.index)
        weights = f.at(words["weights"], f.mul(position, column_size), "float")
        x = f.at(made, f.mul(number.index, words["x_step"]), "float")
        out = f.at(sums, f.mul(number.index, words["out_step"]), "float")
        out = f.at(out, f.mul(f.mul(f.mul(column.index, tiles.blocks), count), lanes), "float")
        with f.loop(0, words["in_blocks"], words["chunk_blocks"]) as chunk:
            n_blocks = f.min(words["chunk_blocks"], f.sub(words["in_blocks"], chunk.index))
            here = f.at(weights, f.mul(chunk.index, block_size), "float")
            ahead = f.at(here, f.mul(n_blocks, block_size), "float")
            plane = f.mul(count, lanes)
            source = f.at(x, f.mul(chunk.index, plane), "float")
            products = Products(form, lanes, n_blocks, f.mul(n_blocks, lanes), 0, plane, words["ahead_step"])
            with f.loop(0, count, tiles.pixels) as tile:
                target = f.at(out, f.mul(tile.index, lanes), "float")
                slots = [
                    f.at(target, f.add(f.mul(plane, k), p * lanes), "float")
                    for k in range(tiles.blocks)
                    for p in range(tiles.pixels)
                ]
                began = f.compare("eq", chunk.index, 0)
                values = f.choose(began, [partial(products.zeros, f), partial(_loaded, f, products.vector, slots)])
                steps = f.mul(f.mul(tile.index, f.mul(n_blocks, lanes)), words["ahead_step"])
                fetched = f.at(ahead, f.div(steps, tiles.pixels), "i8")
                at = f.at(source, f.mul(tile.index, lanes), "float")
                values = products.add(f, at, here, fetched, values)
                assert len(values) == n_sums
                for value, slot in zip(values, slots, strict=True):
                    f.store(value, slot)


def _loaded(f: Function, vector: str, addresses: Sequence[Value]) -> list[Value]:
    return [f.load(vector, address) for address in addresses]


def _write(
    f: Function,
    lanes: int,
    tiles: Tiles,
    words: dict[str, Value],
    sums: Value,
    first: Index,
    count: Index,
    columns: tuple[Index, Index],
    image: Index,
    epilogue: epilogues.Epilogue,
) -> None:
    """Transform back, and store the outputs of a band's tiles."""
    n = (tiles.size + 2) ** 2
    vector = f"<{lanes} x float>"
    row_size = f.mul(words["out_width"], lanes)
    used = f.min(count, f.sub(words["image_tiles"], first))
    with f.loop(0, used) as tile:
        top, left = _place(f, tiles, words, first, tile.index)
        spot = f.add(f.mul(top, row_size), f.mul(left, lanes))
        spot = f.add(spot, f.mul(image, words["out_image"]))
        with f.loop(f.mul(columns[0], tiles.blocks), f.mul(columns[1], tiles.blocks)) as block:
            source = f.at(sums, f.mul(f.add(f.mul(block.index, count), tile.index), lanes), "float")
            values = [f.load(vector, f.at(source, f.mul(words["out_step"], i), "float")) for i in range(n)]
            outputs = _both_ways(f, OUTPUTS[tiles.size], values)
            place = f.add(spot, f.mul(block.index, words["out_plane"]))
            rows = [outputs[i : i + tiles.size] for i in range(0, len(outputs), tiles.size)]
            places = [f.add(place, f.mul(row_size, i)) for i in range(tiles.size)]
            channel = f.mul(block.index, lanes)
            epilogue.apply(f, rows, image, [channel] * tiles.size, places, lanes)


Transform = Callable[[Function, Sequence[Value]], list[Value]]


def _both_ways(f: Function, transform: Transform, values: Sequence[Value]) -> list[Value]:
    """Of a square, in row-major order: its columns, then the rows of that."""
    n = round(len(values) ** 0.5)
    columns = [transform(f, values[j::n]) for j in range(n)]
    rows = [transform(f, [column[i] for column in columns]) for i in range(len(columns[0]))]
    return [value for row in rows for value in row]


def _times(f: Function, number: float, a: Value, plus: Value) -> Value:
    return f.fma(a, f.const(a.type, number), plus)


def _inputs_of_2(f: Function, x: Sequence[Value]) -> list[Value]:
    a, b, c, d = x
    return [f.fsub(a, c), f.fadd(b, c), f.fsub(c, b), f.fsub(b, d)]


def _outputs_of_2(f: Function, m: Sequence[Value]) -> list[Value]:
    a, b, c, d = m
    return [f.fadd(f.fadd(a, b), c), f.fsub(f.fsub(b, c), d)]


def _inputs_of_4(f: Function, x: Sequence[Value]) -> list[Value]:
    a, b, c, d, e, g = x
    even, odd = _times(f, -4, c, e), _times(f, -4, b, d)
    near, far = f.fsub(e, c), f.fsub(d, b)
    return [
        _times(f, 4, a, _times(f, -5, c, e)),
        f.fadd(even, odd),
        f.fsub(even, odd),
        _times(f, 2, far, near),
        _times(f, -2, far, near),
        _times(f, 4, b, _times(f, -5, d, g)),
    ]


def _outputs_of_4(f: Function, m: Sequence[Value]) -> list[Value]:
    a, b, c, d, e, g = m
    s, t = f.fadd(b, c), f.fsub(b, c)
    u, v = f.fadd(d, e), f.fsub(d, e)
    return [
        f.fadd(f.fadd(a, s), u),
        _times(f, 2, v, t),
        _times(f, 4, u, s),
        f.fadd(_times(f, 8, v, t), g),
    ]


INPUTS: dict[int, Transform] = {2: _inputs_of_2, 4: _inputs_of_4}
OUTPUTS: dict[int, Transform] = {2: _outputs_of_2, 4: _outputs_of_4}
#: of weights, by size: [m + 2, 3]
WEIGHTS = {
    2: ((1, 0, 0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0, 0, 1)),
    4: (
        (1 / 4, 0, 0),
        (-1 / 6, -1 / 6, -1 / 6),
        (-1 / 6, 1 / 6, -1 / 6),
        (1 / 24, 1 / 12, 1 / 6),
        (1 / 24, -1 / 12, 1 / 6),
        (0, 0, 1),
    ),
}
