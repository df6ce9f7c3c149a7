"""Register tiles of convolutions and pools in blocked layout, and the words of their steps."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from distort.kernels.compiler.blocked import Geometry, window_blocks
from distort.kernels.compiler.codegen.products import Form
from distort.kernels.compiler.codegen.sliding import Window
from distort.kernels.compiler.codegen.target import Target
from distort.kernels.compiler.codegen.winograd import Tiles

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: of a thread's rows with their padding: they should stay in the second-level cache with the weights
SCRATCH_NBYTES = 1 << 19
#: weights larger than this are not expected in the cache when a step begins
STREAMED_NBYTES = 1 << 18
#: what a tile reads of the first-level cache
CHUNK_NBYTES = 40 << 10
#: sums over some of the input channels that a thread keeps
PARTIAL_NBYTES = 1 << 17
#: of a band's transformed inputs and outputs
TRANSFORMED_NBYTES = 1 << 19
STREAMED_TRANSFORMED_NBYTES = 1 << 21
#: F(2 × 2, 3 × 3) is as exact as sums as they are; larger tiles are not
_SIZE = 2
#: for each tile and block of channels; bytes that come from beyond the second-level cache in a cycle
_TRANSFORM_CYCLES, _CACHE_NBYTES_A_CYCLE = 80, 3.5
#: where each tile is one of more, a column's weights are there before its last
MOST_STREAMED_TILES = 64
#: cycles until a product can be added to
FMA_LATENCY = 4
#: bytes of weights that stay in a cache, and cycles until a vector of them is there; else
_FETCH_CYCLES, _FAR_CYCLES = ((CHUNK_NBYTES, 0.0), (5 << 17, 1.5)), 6.0
#: what a band more costs, as a part of the work
_BAND_COST = 0.02
#: ways to pack a convolution's weights, where runs have many shapes; another one has to be that much faster
MOST_PACKINGS, _PACKING_GAIN = 2, 0.8
#: kernel columns that are printed; wider kernels are a loop
MOST_COLUMNS = 8


def choose_form(geometry: Geometry, target: Target, plain: bool = False, known: Collection[int] | None = None) -> Form:
    """The register tile: as few loads and as little computed twice as may be.

    ``known``: where runs have many shapes, blocks of tiles that weights are packed for. Then these are used again, and
    few sizes of tiles, so that other shapes need neither other weights nor other kernels.
    """
    g = geometry.flat
    lanes = target.lanes("float")
    width = g.out[1]
    # of one input block for one output block
    weights = math.prod(g.kernel) * (1 if plain else lanes) * lanes * 4
    n_blocks = -(-(g.outputs if g.within else g.outputs // g.groups) // lanes)
    pixels, blocks = _register_tile(
        n_blocks, width, target, weights, lambda b: window_blocks(g, b, lanes) if g.within else 1, known
    )
    nbytes = g.outputs * g.channels // g.groups * math.prod(g.kernel) * 4
    n_tiles = -(-width // pixels) * g.out[0]
    streamed = nbytes >= STREAMED_NBYTES and n_tiles <= MOST_STREAMED_TILES
    form = Form(1 if plain else lanes, pixels, blocks, g.kernel, g.strides, g.dilations, g.padded, streamed=streamed)
    chunked = _chunk_blocks(g, form, lanes) < _group_blocks(g, form, lanes)
    return form._replace(chunked=chunked) if chunked else form


def _register_tile(
    n_blocks: int,
    width: int,
    target: Target,
    weights: int = 0,
    looked_at: Callable[[int], int] = lambda _: 1,
    known: Collection[int] | None = None,
) -> tuple[int, int]:
    """Pixels and blocks of a tile, of a row of ``width``. ``weights``: see :func:`_cost`.

    ``looked_at``: input blocks by blocks of a tile, where these differ. ``known``: see :func:`choose_form`.
    """
    best: dict[int, tuple[float, int, int]] = {}
    for blocks, most in _register_tiles(n_blocks, target):
        found: tuple[float, int] | None = None
        for cycles, pixels in _by_cycles(blocks, most, weights, known is not None):
            if found is not None and cycles > found[0]:
                break  # a row that such tiles fill is the best that they can do
            if pixels <= width:
                one = (cycles * _excess(pixels, width), pixels)
                found = one if found is None else min(found, one)
        assert found is not None
        best[blocks] = (found[0] * looked_at(blocks), found[1], blocks)
    choice = min(best.values())
    if known is not None:
        again = min([best[blocks] for blocks in known if blocks in best], default=choice)
        if len(known) >= MOST_PACKINGS or again[0] * _PACKING_GAIN < choice[0]:
            choice = again
    return choice[1:]


@functools.lru_cache(1024)
def _by_cycles(blocks: int, most: int, weights: int, common: bool) -> list[tuple[float, int]]:
    """Pixels of tiles for rows of any width, those with the fewest cycles a product first."""
    pixels = [p for p in range(1, most + 1) if not common or _is_common(p, most)]
    return sorted([(_cycles(blocks, p, weights), p) for p in pixels])


def _register_tiles(n_blocks: int, target: Target) -> Iterator[tuple[int, int]]:
    """Blocks of all tiles that registers hold, and how many pixels these can have."""
    room = target.n_vector_registers - (1 if target.has_fma else 2)
    for blocks in range(1, min(n_blocks, room // 2) + 1):
        if n_blocks % blocks == 0:
            # in a tile of one block the input is read by the product itself
            yield blocks, room - 2 if blocks == 1 and room > 15 else (room - blocks) // blocks


def _is_common(pixels: int, most: int) -> bool:
    """Whether it is one of the few sizes for rows of any width: these cost a few per cent more than the best ones."""
    return pixels <= 4 or (most - pixels) % 3 == 0


def _group_blocks(g: Geometry, form: Form, lanes: int) -> int:
    """Input blocks that a column looks at."""
    if g.within:
        return window_blocks(g, form.blocks, lanes)
    return -(-g.channels // g.groups // form.block)


def _chunk_blocks(g: Geometry, form: Form, lanes: int) -> int:
    """Input blocks whose weights for a column stay in the first-level cache, with the pixels of two tiles."""
    n_blocks = _group_blocks(g, form, lanes)
    weights = math.prod(form.kernel) * form.blocks * lanes
    pixels = (form.pixels - 1) * form.strides[1] + (form.kernel[1] - 1) * form.dilations[1] + 1
    nbytes = form.block * 4 * (weights + form.kernel[0] * pixels * (2 if form.pointwise else 1))
    n_chunks = max(1, -(-n_blocks * nbytes // CHUNK_NBYTES))
    return max(1, -(-n_blocks // n_chunks))


def _cost(blocks: int, pixels: int, width: int, weights: int = 0) -> float:
    """Cycles for a product of one pixel of a row of ``width`` and one block, about; see :func:`_cycles`."""
    return _cycles(blocks, pixels, weights) * _excess(pixels, width)


def _excess(pixels: int, width: int) -> float:
    """What the tiles of a row compute, against what is wanted."""
    return -(-width // pixels) * pixels / width


def _cycles(blocks: int, pixels: int, weights: int) -> float:
    """Cycles for a product of one pixel and one block, about: two products or two loads a cycle.

    ``weights``: bytes of a block's that each tile reads once, and again for the next input block. Where all blocks' are
    more than a cache holds, each of their vectors comes from the next one.
    """
    sums, loads = blocks * pixels, blocks + pixels
    nbytes = blocks * weights
    fetched = blocks * next((cycles for most, cycles in _FETCH_CYCLES if nbytes <= most), _FAR_CYCLES)
    cycles = max(sums / 2, loads / 2, FMA_LATENCY, fetched) + 0.1 * loads + 0.5
    return cycles / sums


def words_of(geometry: Geometry, form: Form, lanes: int, n_threads: int = 1) -> dict[str, int]:
    """A step's words by name, but for the addresses. ``scratch_stride`` is in elements, a multiple of a cache line."""
    g = geometry.flat
    out_height, out_width = g.out
    row_tiles = -(-out_width // form.pixels)
    image_tiles = row_tiles * out_height
    columns = -(-g.outputs // lanes) // form.blocks
    in_blocks = -(-g.channels // form.block)
    group_blocks = _group_blocks(g, form, lanes)
    padded_width = max(g.begins[1] + g.size[1], (out_width - 1) * g.strides[1] + (g.kernel[1] - 1) * g.dilations[1] + 1)
    reach = (g.kernel[0] - 1) * g.dilations[0] + 1
    in_row_nbytes = padded_width * in_blocks * form.block * 4
    if form.padded:
        most = _most_rows(g, form, lanes, in_row_nbytes, row_tiles)
        band_rows = band_size(out_height, most, columns, g.images, n_threads)
        band_tiles = band_rows * row_tiles
        scratch = ((band_rows - 1) * g.strides[0] + reach) * in_row_nbytes // 4
    else:
        most = max(1, SCRATCH_NBYTES // max(1, in_row_nbytes // row_tiles * g.strides[0]))
        if form.chunked:
            most = min(most, PARTIAL_NBYTES // (form.pixels * form.blocks * lanes * 4))
        band_tiles = band_size(image_tiles, most, columns, g.images, n_threads)
        scratch = 0
    partial = -(-scratch // 16) * 16
    if form.chunked:
        scratch = partial + band_tiles * form.pixels * form.blocks * lanes
    return {
        "images": g.images,
        "bands": -(-image_tiles // band_tiles),
        "columns": columns,
        "group_outputs": g.outputs // g.groups if g.within else columns // g.groups * form.blocks * lanes,
        "group_inputs": g.channels // g.groups if g.within else in_blocks // g.groups * form.block,
        "group_blocks": group_blocks,
        "group_channels": group_blocks * form.block if g.within else g.channels // g.groups,
        "in_blocks": in_blocks,
        "height": g.size[0],
        "width": g.size[1],
        "out_width": out_width,
        "row_tiles": row_tiles,
        "band_tiles": band_tiles,
        "image_tiles": image_tiles,
        "pad_top": g.begins[0],
        "pad_left": g.begins[1],
        "padded_width": padded_width,
        "x_image": in_blocks * form.block * math.prod(g.size),
        "out_image": columns * form.blocks * lanes * out_height * out_width,
        "out_row": lanes * form.spread * out_width,
        "out_plane": lanes * out_height * out_width,
        "ahead_step": -(-form.blocks * lanes * 4 // band_tiles),
        "chunk_blocks": _chunk_blocks(g, form, lanes),
        "partial": partial,
        "scratch_stride": -(-scratch // 16) * 16,
    }


def _most_rows(g: Geometry, form: Form, lanes: int, in_row_nbytes: int, row_tiles: int) -> int:
    """Output rows of a band, at most: what they look at should stay in the cache."""
    reach = (g.kernel[0] - 1) * g.dilations[0] + 1
    # where rows are so far apart that little fits, most of a band would be copied for others too
    rows = max((SCRATCH_NBYTES // in_row_nbytes - reach) // g.strides[0] + 1, 2 * reach // g.strides[0], 1)
    if form.chunked:
        rows = max(1, min(rows, PARTIAL_NBYTES // (form.pixels * form.blocks * lanes * 4 * row_tiles)))
    return rows


def band_size(n_items: int, most: int, columns: int, images: int, n_threads: int) -> int:
    """How many of an image's tiles or rows are a band, so that threads have about the same to do.

    Threads share ``images`` · bands · ``columns`` units, in this order.
    """
    least = -(-n_items // most)
    if n_threads == 1:
        return -(-n_items // least)
    best: tuple[float, int] | None = None
    enough = [-(-n_threads * times // (columns * images)) for times in range(1, 5)]
    for bands in sorted({min(max(bands, least), n_items) for bands in (*range(least, least + 8), *enough)}):
        size = -(-n_items // bands)
        bands = -(-n_items // size)
        units = images * bands * columns

        def done(unit: int, size: int = size, bands: int = bands) -> int:
            """What the units before this one are."""
            rest, column = divmod(unit, columns)
            image, band = divmod(rest, bands)
            begin = min(band * size, n_items)
            return image * n_items * columns + begin * columns + column * min(size, n_items - begin)

        shares = [done(units * t // n_threads) for t in range(n_threads + 1)]
        busiest = max(after - before for before, after in pairwise(shares))
        cost = busiest * (1 + _BAND_COST * (bands - least))
        if best is None or cost < best[0]:
            best = (cost, size)
    assert best is not None
    return best[1]


def step_words(
    names: Sequence[str], words: dict[str, int], x: int, weights: int, scratch: int, *rest: int
) -> NDArray[np.int64]:
    """All words in order; ``rest`` are the epilogue's."""
    named = {**words, "x": x, "weights": weights, "scratch": scratch}
    return np.array([*(named[name] for name in names), *rest], np.int64)


def turned_geometry(geometry: Geometry, lanes: int) -> Geometry:
    """A convolution whose lanes are pixels of an output channel: with wider kernels, and longer strides."""
    g = geometry
    width = -(-g.out[1] // lanes)
    kernel = (g.kernel[1] - 1) * g.dilations[1] + 1 + (lanes - 1) * g.strides[1]
    stride = lanes * g.strides[1]
    end = (width - 1) * stride + kernel - g.size[1] - g.begins[1]
    return Geometry(
        g.images,
        g.channels,
        g.outputs * lanes,
        g.size,
        (g.kernel[0], kernel),
        (g.strides[0], stride),
        (g.dilations[0], 1),
        g.begins,
        (g.ends[0], end),
    )


def is_better_turned(geometry: Geometry, target: Target) -> bool:
    """Whether so few output channels had better not be lanes."""
    g, lanes = geometry, target.lanes("float")
    if g.outputs * 2 > lanes:
        return False
    wide = turned_geometry(g, lanes)
    cycles = []
    for one, n_blocks in ((g.flat, 1), (wide, g.outputs)):
        width = one.out[1]
        pixels, blocks = _register_tile(n_blocks, width, target)
        cycles.append(_cost(blocks, pixels, width) * n_blocks * math.prod(one.out) * one.kernel[1])
    return cycles[1] < 0.8 * cycles[0]


def choose_tiles(geometry: Geometry, target: Target, known: Collection[int] | None = None) -> Tiles | None:
    """Winograd's tiles where that is faster than the products as they are, by about; else None.

    ``known``: see :func:`choose_form`.
    """
    g = geometry
    if (g.kernel, g.strides, g.dilations, g.groups) != ((3, 3), (1, 1), (1, 1), 1) or min(g.out) < _SIZE:
        return None
    lanes = target.lanes("float")
    in_blocks, out_blocks = -(-g.channels // lanes), -(-g.outputs // lanes)
    n_tiles = math.prod(-(-n // _SIZE) for n in g.out)
    pixels, blocks = _register_tile(out_blocks, n_tiles, target, known=known)
    products = g.channels * out_blocks
    words = transformed_words(g, Tiles(_SIZE, pixels, blocks), lanes, 1)
    n = (_SIZE + 2) ** 2
    fetched = n * in_blocks * lanes * out_blocks * lanes * 4 * words["bands"] / _CACHE_NBYTES_A_CYCLE
    transforms = n_tiles * (in_blocks + out_blocks) * _TRANSFORM_CYCLES
    cycles = max(n_tiles * n * products / 2, fetched) + transforms
    return Tiles(_SIZE, pixels, blocks) if cycles < math.prod(g.out) * 9 * products / 2 else None


def transformed_words(geometry: Geometry, tiles: Tiles, lanes: int, n_threads: int) -> dict[str, int]:
    """Words of Winograd's convolution by name, but for the addresses."""
    g = geometry
    out_height, out_width = g.out
    row_tiles = -(-out_width // tiles.size)
    image_tiles = row_tiles * -(-out_height // tiles.size)
    in_blocks, out_blocks = -(-g.channels // lanes), -(-g.outputs // lanes)
    n = (tiles.size + 2) ** 2
    tile_nbytes = n * (in_blocks + out_blocks) * lanes * 4
    # large weights had better be read once
    weights_nbytes = n * in_blocks * out_blocks * lanes * lanes * 4
    most_nbytes = TRANSFORMED_NBYTES if weights_nbytes < STREAMED_TRANSFORMED_NBYTES else 4 * TRANSFORMED_NBYTES
    bands = -(-image_tiles * tile_nbytes // most_nbytes)
    columns = out_blocks // tiles.blocks
    splits = 1
    groups = -(-image_tiles // tiles.pixels)
    if bands * g.images < n_threads and weights_nbytes >= STREAMED_TRANSFORMED_NBYTES:
        splits = min(columns, -(-n_threads // (bands * g.images)))
        band_tiles = -(-groups // bands) * tiles.pixels
    else:
        band_tiles = band_size(groups, -(-groups // bands), 1, g.images, n_threads) * tiles.pixels
    # a line more, so that what is made of a tile does not fall into one set of the cache
    x_step, out_step = ((blocks * band_tiles + 1) * lanes for blocks in (in_blocks, out_blocks))
    return {
        "scratch_stride": n * (x_step + out_step),
        "images": g.images,
        "bands": -(-image_tiles // band_tiles),
        "in_blocks": in_blocks,
        "columns": columns,
        "splits": splits,
        "height": g.size[0],
        "width": g.size[1],
        "out_height": out_height,
        "out_width": out_width,
        "row_tiles": row_tiles,
        "image_tiles": image_tiles,
        "band_tiles": band_tiles,
        "pad_top": g.begins[0],
        "pad_left": g.begins[1],
        "x_image": in_blocks * lanes * math.prod(g.size),
        "out_image": out_blocks * lanes * out_height * out_width,
        "out_plane": lanes * out_height * out_width,
        "chunk_blocks": min(in_blocks, max(1, CHUNK_NBYTES // (lanes * 4 * (tiles.blocks * lanes + 2 * tiles.pixels)))),
        "ahead_step": -(-tiles.blocks * lanes * 4 // (band_tiles // tiles.pixels)),
        "x_step": x_step,
        "out_step": out_step,
        "sums": n * x_step,
    }


def choose_window(geometry: Geometry, target: Target, varied: bool = False) -> Window:
    """The tile of a depthwise convolution or a pool. ``varied``: runs have many shapes, and few tiles do for them."""
    g = geometry
    width = g.out[1]
    most = max(4, target.n_vector_registers // 3)
    reach = (g.kernel[1] - 1) * g.dilations[1]
    overhang = (width - 1) * g.strides[1] + reach - g.begins[1] - (g.size[1] - 1)
    edge = max(-(-g.begins[1] // g.strides[1]), -(-max(overhang, 0) // g.strides[1]))
    copied = g.kernel[1] > MOST_COLUMNS or (edge > most and width > most)
    whole = width <= most and not copied and (not varied or _is_common(width, most))
    sizes = [p for p in range(1, min(most, width) + 1) if not varied or _is_common(p, most)]
    pixels = width if whole else min(sizes, key=lambda p: (-(-width // p) * (p + 2), -p))
    if not whole and not copied and pixels < edge:
        pixels = min(most, width)
    return Window(pixels, g.kernel, g.strides, g.dilations, g.begins[1], overhang, whole, copied)


def window_words(geometry: Geometry, window: Window, lanes: int, n_threads: int = 1) -> dict[str, int]:
    """A step's words by name, but for the addresses."""
    g = geometry
    blocks = -(-g.channels // lanes)
    out_height, out_width = g.out
    band_rows = band_size(out_height, out_height, blocks, g.images, n_threads)
    return {
        "scratch_stride": (g.size[1] + window.pad_left + max(window.overhang, 0)) * lanes * g.kernel[0]
        if window.copied
        else 0,
        "images": g.images,
        "bands": -(-out_height // band_rows),
        "blocks": blocks,
        "height": g.size[0],
        "width": g.size[1],
        "out_height": out_height,
        "out_width": out_width,
        "band_rows": band_rows,
        "pad_top": g.begins[0],
        "pad_bottom": g.ends[0],
        "first_tap": 0,
        "all_taps": 1,
        "x_image": blocks * lanes * math.prod(g.size),
        "out_image": blocks * lanes * out_height * out_width,
    }
