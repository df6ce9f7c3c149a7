"""Windows that slide over one channel block at a time: what depthwise convolution and pooling share.

A tile is ``pixels`` outputs next to each other in a row. Which kernel rows lie inside the input is decided at run time,
by the bounds of a loop; which columns do, when the kernel is printed: a row is a tile at its left end, tiles in the
middle, and a tile at its right end, which may overlap, so an output must not share memory with an operand.
With ``copied`` rows are copied to scratch memory with their padding first, for kernels too wide to be printed.

Words of a step: see ``WORDS``; then those of the epilogue.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from distort.kernels.compiler.codegen import epilogues, fills
from distort.kernels.compiler.codegen.text import Function, Index, Value

WORDS = (
    "x",  # address, [images, channel blocks, height, width, lanes]
    "weights",  # address, [channel blocks, kernel height, kernel width, lanes]; of no meaning to pools
    "scratch",  # address, all threads' copied rows; of no meaning without
    "scratch_stride",  # elements from one thread's to the next
    "images",
    "bands",  # rows are worked on in bands
    "blocks",
    "height",
    "width",
    "out_height",
    "out_width",
    "band_rows",
    "pad_top",
    "pad_bottom",
    "x_image",  # elements from one image to the next
    "out_image",
    "deep",  # of a volume: the images that a window looks at
    "x_deep",  # elements from one of them to the next
    "first_tap",  # which kernel element of the depth the first of them meets
    "all_taps",  # how many there are
    "deep_count",  # how many of them a mean counts
)


class Window(NamedTuple):
    """What the code is made for."""

    pixels: int
    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]
    pad_left: int
    #: how far the last pixel's window reaches beyond the row's end
    overhang: int
    #: the row is one tile
    whole: bool = False
    copied: bool = False
    #: it looks at several images
    deep: bool = False

    def taps(self, first: bool, last: bool) -> list[list[int]]:
        """Kernel columns that lie inside, for each pixel of a tile, which may be the first or last of a row."""
        found = []
        for pixel in range(self.pixels):
            inside = []
            for column in range(self.kernel[1]):
                place = pixel * self.strides[1] + column * self.dilations[1]
                before = first and place < self.pad_left
                beyond = last and place > (self.pixels - 1) * self.strides[1] + self.reach - self.overhang
                if not before and not beyond:
                    inside.append(column)
            found.append(inside)
        return found

    @property
    def reach(self) -> int:
        return (self.kernel[1] - 1) * self.dilations[1]


class Row(NamedTuple):
    """A row of outputs that is being worked on."""

    image: Index
    block: Index
    out_row: Index
    #: kernel rows from the first to before the second lie inside
    first: Index
    last: Index
    words: dict[str, Value]


#: (row, sums, kernel row, (pixel, kernel column, vector) for each tap) -> sums
Combine = Callable[[Row, list[Value], Index, Sequence[tuple[int, Index, Value]]], list[Value]]
#: (row, sums, kernel columns inside for each pixel, whether the tile is the row's last) -> results
Finish = Callable[[Row, list[Value], Sequence[Sequence[int]], bool], list[Value]]


def read(f: Function) -> dict[str, Value]:
    """A step's words by name."""
    addresses = ("x", "weights", "scratch")
    return {name: (f.address if name in addresses else f.word)(n) for n, name in enumerate(WORDS)}


def emit(
    f: Function,
    lanes: int,
    window: Window,
    words: dict[str, Value],
    epilogue: epilogues.Epilogue,
    initial: float,
    combine: Combine,
    finish: Finish,
) -> None:
    """``initial``: what sums begin with, and what padding is in copied rows."""
    begin, end = f.share(f.mul(f.mul(words["images"], words["blocks"]), words["bands"]))
    row_size = f.mul(words["width"], lanes)
    scratch = f.at(words["scratch"], f.mul(f.thread, words["scratch_stride"]), "float")
    padded_width: Index = f.add(words["width"], window.pad_left + max(window.overhang, 0))
    with f.loop(begin, end) as unit:
        band = f.rem(unit.index, words["bands"])
        rest = f.div(unit.index, words["bands"])
        block, image = f.rem(rest, words["blocks"]), f.div(rest, words["blocks"])
        first_row = f.mul(band, words["band_rows"])
        last_row = f.min(f.add(first_row, words["band_rows"]), words["out_height"])
        x = f.at(words["x"], f.mul(image, words["x_image"]), "float")
        x = f.at(x, f.mul(f.mul(block, words["height"]), row_size), "float")
        with f.loop(first_row, last_row) as out_row:
            top = f.sub(f.mul(out_row.index, window.strides[0]), words["pad_top"])
            first, last = inside(f, top, words["height"], window.kernel[0], window.dilations[0])
            row = Row(image, block, out_row.index, first, last, words)
            place = f.add(f.mul(block, words["out_height"]), out_row.index)
            spot = f.add(f.mul(f.mul(place, words["out_width"]), lanes), f.mul(image, words["out_image"]))
            source, source_row, origin = x, row_size, top
            if window.copied:
                source, source_row, origin = scratch, f.mul(padded_width, lanes), 0
                with f.loop(first, last) as line:
                    y = f.add(top, f.mul(line.index, window.dilations[0]))
                    target = f.at(scratch, f.mul(line.index, source_row), "float")
                    left = window.pad_left * lanes
                    fills.fill(f, lanes, lanes, target, 0, left, initial)
                    fills.copy(
                        f, lanes, lanes, f.at(x, f.mul(y, row_size), "float"), f.at(target, left, "float"), row_size
                    )
                    fills.fill(f, lanes, lanes, target, f.add(row_size, left), source_row, initial)

            def tile(left: Index, at_start: bool, at_end: bool) -> None:
                columns = window.taps(at_start and not window.copied, at_end and not window.copied)
                at = f.mul(left, window.strides[1])
                if not window.copied:
                    at = f.sub(at, window.pad_left)
                sums = _tile(f, lanes, window, row, source, source_row, origin, at, columns, initial, combine)
                sums = finish(row, sums, columns, at_end)
                here = f.add(spot, f.mul(left, lanes))
                epilogue.apply(f, [sums], image, [f.mul(block, lanes)], [here], lanes)

            end_tile = f.sub(words["out_width"], window.pixels)
            if window.copied:
                with f.loop(0, words["out_width"], window.pixels) as middle:
                    tile(f.min(middle.index, end_tile), False, False)
            elif window.whole:
                tile(0, True, True)
            else:
                right_edge = -(-max(window.overhang, 0) // window.strides[1])
                tile(0, True, False)
                with f.loop(window.pixels, end_tile, window.pixels) as middle:
                    tile(f.min(middle.index, f.sub(end_tile, right_edge)), False, False)
                tile(end_tile, False, True)
    f.ret()


def inside(f: Function, top: Index, height: Index, size: int, dilation: int) -> tuple[Index, Index]:
    """Which of ``size`` kernel rows from ``top`` on, ``dilation`` apart, lie in an input of ``height`` rows."""
    first = f.div(f.add(f.max(f.sub(0, top), 0), dilation - 1), dilation)
    last = f.div(f.add(f.max(f.sub(height, top), 0), dilation - 1), dilation)
    last = f.min(last, size)
    return f.min(first, last), last


def _tile(
    f: Function,
    lanes: int,
    window: Window,
    row: Row,
    x: Value,
    row_size: Index,
    top: Index,
    left: Index,
    columns: Sequence[Sequence[int]],
    initial: float,
    combine: Combine,
) -> list[Value]:
    """Sums of a tile whose first window begins at column ``left`` of the input."""
    start = [f.const(f"<{lanes} x float>", initial)] * window.pixels
    if not window.deep:
        return _plane(f, lanes, window, row, x, row_size, top, left, columns, start, combine, 0)
    with f.loop(0, row.words["deep"], carried=start) as tap:
        here = f.at(x, f.mul(tap.index, row.words["x_deep"]), "float")
        line = f.mul(f.add(tap.index, row.words["first_tap"]), window.kernel[0])
        tap.carry(_plane(f, lanes, window, row, here, row_size, top, left, columns, tap.carried, combine, line))
    return tap.carried


def _plane(
    f: Function,
    lanes: int,
    window: Window,
    row: Row,
    x: Value,
    row_size: Index,
    top: Index,
    left: Index,
    columns: Sequence[Sequence[int]],
    start: Sequence[Value],
    combine: Combine,
    first_line: Index,
) -> list[Value]:
    """``start`` with what a window sees of an image. ``first_line``: kernel rows of the images before."""
    vector = f"<{lanes} x float>"
    with f.loop(row.first, row.last, carried=list(start)) as line:
        y = line.index if window.copied else f.add(top, f.mul(line.index, window.dilations[0]))
        at = f.at(x, f.add(f.mul(y, row_size), f.mul(left, lanes)), "float")
        sums = list(line.carried)
        if window.copied:
            with f.loop(0, window.kernel[1], carried=sums) as column:
                here = f.at(at, f.mul(column.index, window.dilations[1] * lanes), "float")
                values: list[tuple[int, Index, Value]] = []
                for pixel in range(window.pixels):
                    address = f.at(here, pixel * window.strides[1] * lanes, "float")
                    values.append((pixel, column.index, f.load(vector, address)))
                column.carry(combine(row, column.carried, f.add(line.index, first_line), values))
            line.carry(column.carried)
        else:
            loaded: dict[int, Value] = {}
            values = []
            for column_number in range(window.kernel[1]):
                for pixel in range(window.pixels):
                    if column_number in columns[pixel]:
                        place = pixel * window.strides[1] + column_number * window.dilations[1]
                        if place not in loaded:
                            loaded[place] = f.load(vector, f.at(at, place * lanes, "float"))
                        values.append((pixel, column_number, loaded[place]))
            line.carry(combine(row, sums, f.add(line.index, first_line), values))
    return line.carried
