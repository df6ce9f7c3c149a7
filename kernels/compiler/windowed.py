"""Convolutions and pools as operations on tensors in blocks, added to a builder."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from distort.kernels.compiler import blocked as packing
from distort.kernels.compiler import given_weights, layout, tiles
from distort.kernels.compiler.blocked import Geometry
from distort.kernels.compiler.blockwise import Blockwise, Part
from distort.kernels.compiler.builder import Builder
from distort.kernels.compiler.codegen import conv, pooling, sliding, winograd
from distort.kernels.compiler.codegen.epilogues import CHANNEL
from distort.kernels.compiler.codegen.products import Form
from distort.kernels.compiler.codegen.winograd import Tiles
from distort.kernels.compiler.depths import Slab
from distort.kernels.compiler.expression import Expression, Instruction, identity
from distort.kernels.compiler.ir import Address, Array, Buffer, Scratch, Tensor, Word
from distort.kernels.windows import Windows

#: what a product costs, about, and an element that is copied or stored
_PRODUCT_NS, _ELEMENT_NS = 0.012, 0.05
Plan = Callable[[Tensor, int], Sequence[Part]]
#: the sum and an operand
_BIASED = Expression(("float32",) * 2, (Instruction("add", (0, 1), "float32"),), (2,))

#: Winograd's convolution is cut in at least so many units: tiles are grouped by unit, whatever the number of threads
_WINOGRAD_UNITS = 4


def geometry_of(shape: Sequence[int], outputs: int, windows: Windows, groups: int = 1) -> Geometry:
    """The sizes in two dimensions; what windows reach beyond the padding is padding too."""
    size, kernel, strides = tuple(shape[2:]), windows.kernel, windows.strides
    dilations, begins, out = windows.dilations, windows.begins, windows.out
    ends = tuple(
        [
            max(end, (out[i] - 1) * strides[i] + (kernel[i] - 1) * dilations[i] + 1 - size[i] - begins[i])
            for i, end in enumerate(windows.ends)
        ]
    )
    # a column is done as a row: the same memory, and tiles are of pixels of a row
    if len(size) == 1 or (len(size) == 2 and size[1] == kernel[1] == out[1] == 1):
        return Geometry(
            shape[0],
            shape[1],
            outputs,
            (1, size[0]),
            (1, kernel[0]),
            (1, strides[0]),
            (1, dilations[0]),
            (0, begins[0]),
            (0, ends[0]),
            groups,
        )
    return Geometry(
        shape[0],
        shape[1],
        outputs,
        (size[0], size[1]),
        (kernel[0], kernel[1]),
        (strides[0], strides[1]),
        (dilations[0], dilations[1]),
        (begins[0], begins[1]),
        (ends[0], ends[1]),
        groups,
    )


def pair(values: Sequence[int], fill: int = 1) -> tuple[int, int]:
    """Of one or two spatial axes, two."""
    return (fill, values[0]) if len(values) == 1 else (values[0], values[1])


def _in_order(
    names: Sequence[str], words: Mapping[str, int], read: Tensor | Address, weights: Tensor | None
) -> tuple[Word, ...]:
    """A kernel's words by their names."""
    known: dict[str, Word] = {
        **words,
        "x": read.address() if isinstance(read, Tensor) else read,
        "weights": weights.address() if weights else 0,
        "scratch": Scratch(),
    }
    return tuple([known[name] for name in names])


class Phase(NamedTuple):
    """Some pixels of some images of an output."""

    #: [K, C/groups, KH, KW]; of several images' channels, that of each filled up to whole blocks
    weights: Array | Tensor  # a tensor where only the run knows them: then of all channels at once
    geometry: Geometry
    shift: int = 0  # of the output's first pixel
    spread: int = 1  # pixels from one output to the next
    row: int = 0  # elements between rows
    slab: Slab | None = None  # the images; all where there is none

    def image_words(self, read: Tensor, out: Tensor) -> dict[str, int]:
        step, out_step = (self.slab.x_step, self.slab.out_step) if self.slab else (1, 1)
        return {
            "x_image": read.strides[0] * step,
            "out_image": out.strides[0] * out_step,
            "out_plane": out.strides[1],
        }

    def address(self, read: Tensor) -> Address:
        """Of the first image that is looked at."""
        return read.address(self.slab.x * read.strides[0] if self.slab else 0)

    def output_shift(self, out: Tensor, lanes: int) -> int:
        return self.shift * lanes + (self.slab.out * out.strides[0] if self.slab else 0)


def direct(
    b: Builder, geometry: Geometry, x: Tensor, phases: Sequence[Phase], bias: Tensor | None, shape: Sequence[int]
) -> Tensor:
    """One convolution, or several that each make some of the output's pixels."""
    lanes = b.target.lanes("float")
    groups = geometry.groups
    merge = packing.merged_groups(groups, geometry.channels // groups, geometry.outputs // groups, lanes)
    known = not isinstance(phases[0].weights, Tensor)
    within = known and _had_better_be_within(geometry, merge, lanes)
    if within:
        read, plain = layout.memory(layout.blocked(b, x)), False
    else:
        read, plain = _source(b, x, groups == merge and geometry.kernel != (1, 1))
    forms: list[tuple[Form, Geometry, Tensor, Phase]] = []
    for phase in phases:
        w, slab = phase.weights, phase.slab or Slab()
        n_taps = slab.taps[1] - slab.taps[0]
        channels = geometry.channels if plain else -(-geometry.channels // lanes) * lanes
        sizes = phase.geometry
        if within or sizes.groups != groups // merge:
            sizes = replace(sizes, groups=groups if within else groups // merge, within=within)
        if n_taps > 1:
            sizes = replace(sizes, channels=n_taps * channels)
        form = tiles.choose_form(sizes, b.target, plain, b.settled("conv", w))
        if phase.spread != 1:
            form = form._replace(spread=phase.spread)
        if isinstance(w, Tensor):
            weights = given_weights.merged(b, w, groups, merge)
            forms.append((form, sizes, given_weights.packed(b, weights, lanes, form), phase))
            continue
        b.packings("conv", w).add(form.blocks)
        key = ("conv", b.identity(w), 0 if within else merge, lanes, form.block, form.blocks, n_taps)

        def packed(w: Array = w, form: Form = form, phase: Geometry = sizes, n_taps: int = n_taps) -> Array:
            whole = packing.filled_up(w.reshape(*w.shape[:2], *phase.kernel), n_taps, form.block)
            if within:
                n_blocks = packing.window_blocks(phase, form.blocks, lanes)
                whole = packing.in_windows(whole, groups, form.blocks, n_blocks, lanes)
            else:
                whole = packing.merge_weights(whole, groups, merge)
            return packing.pack_weights(whole, lanes, form)

        forms.append((form, sizes, b.packed(key, packed), phase))

    def plan(out: Tensor, n_threads: int) -> list[Part]:
        parts = []
        for form, sizes, weights, phase in forms:
            words = tiles.words_of(sizes, form, lanes, n_threads)
            words |= phase.image_words(read, out)
            words["out_row"] = phase.row or words["out_row"]
            products = math.prod(sizes.out) * sizes.outputs * words["group_blocks"] * form.block
            products *= math.prod(sizes.kernel)
            work = sizes.images * products * _PRODUCT_NS
            units = words["images"] * words["bands"] * words["columns"]
            scratch = words["scratch_stride"] * 4
            parts.append(
                Part(
                    "conv",
                    (tuple(form),),
                    _in_order(conv.WORDS, words, phase.address(read), weights),
                    work,
                    units,
                    scratch,
                    phase.output_shift(out, lanes),
                )
            )
        return parts

    some = any(phase.slab for phase in phases)
    return _blockwise(b, [read, *(f[2] for f in forms)], bias, shape, plan, some=some)


def _had_better_be_within(geometry: Geometry, merge: int, lanes: int) -> bool:
    """Whether columns should look at the blocks that their groups lie in, where these don't fill blocks.

    Else ``merge`` groups together are one.
    """
    g = geometry
    if g.groups == 1 or g.channels // g.groups * merge <= lanes:
        return False
    return packing.window_blocks(g, 1, lanes) < -(-g.channels // g.groups * merge // lanes)


def _source(b: Builder, x: Tensor, wide: bool) -> tuple[Tensor, bool]:
    """The tensor as it is read, and whether that is plain: where most of a block would be missing.

    ``wide``: a kernel reads what is missing too, so it may be better to bring a tensor back from blocks.
    """
    lanes = b.target.lanes("float")
    few = x.shape[1] < lanes if not x.block else wide and x.shape[1] <= lanes // 2
    if few:
        return layout.pixels_dense(b, b.plain(x)), True
    return layout.memory(layout.blocked(b, x)), False


def transformed(
    b: Builder, x: Tensor, phases: Sequence[tuple[Tiles, Phase]], bias: Tensor | None, shape: Sequence[int]
) -> Tensor:
    """By Winograd's way."""
    lanes = b.target.lanes("float")
    read = layout.memory(layout.blocked(b, x))
    packed: list[Tensor] = []
    for square, phase in phases:
        w, slab = phase.weights, phase.slab or Slab()
        assert not isinstance(w, Tensor)
        n_taps = slab.taps[1] - slab.taps[0]

        def pack(w: Array = w, square: Tiles = square, n_taps: int = n_taps) -> Array:
            whole = packing.filled_up(w.reshape(*w.shape[:2], 3, 3), n_taps, lanes)
            return packing.pack_transformed(whole, lanes, square)

        b.packings("winograd", w).add(square.blocks)
        packed.append(b.packed(("winograd", b.identity(w), lanes, square, n_taps), pack))

    def plan(out: Tensor, n_threads: int) -> list[Part]:
        parts = []
        for (square, phase), weights in zip(phases, packed, strict=True):
            geometry = phase.geometry
            words = tiles.transformed_words(geometry, square, lanes, _WINOGRAD_UNITS)
            words |= phase.image_words(read, out)
            products = words["image_tiles"] * (square.size + 2) ** 2 * geometry.channels * geometry.outputs
            work = geometry.images * products * _PRODUCT_NS * 1.5
            units, scratch = words["images"] * words["bands"] * words["splits"], words["scratch_stride"] * 4
            ordered = _in_order(winograd.WORDS, words, phase.address(read), weights)
            shift = phase.output_shift(out, lanes)
            parts.append(Part("winograd", (tuple(square),), ordered, work, units, scratch, shift))
        return parts

    some = any(phase.slab for _, phase in phases)
    return _blockwise(b, [read, *packed], bias, shape, plan, some=some)


def turned(b: Builder, geometry: Geometry, x: Tensor, w: Array, bias: Tensor | None, shape: Sequence[int]) -> Tensor:
    """A convolution with few output channels. Lanes are pixels: its result is plain, rows maybe longer than they look.

    Pixels next to each other are what output channels are elsewhere: their kernels are the same, moved by a stride.
    """
    lanes = b.target.lanes("float")
    wide = tiles.turned_geometry(geometry, lanes)
    read, plain = _source(b, x, True)
    form = tiles.choose_form(wide, b.target, plain, b.settled("turned", w))
    b.packings("turned", w).add(form.blocks)
    key = ("turned", b.identity(w), geometry.strides, geometry.dilations, lanes, form.block, form.blocks)
    kernel = (wide.kernel[0], wide.kernel[1])
    moved = packing.moved_weights
    weights = b.packed(key, lambda: packing.pack_weights(moved(w, geometry, kernel, lanes), lanes, form))
    row = wide.out[1] * lanes
    heights = shape[2:-1]
    strides = (shape[1] * math.prod(heights) * row, math.prod(heights) * row, *(row for _ in heights), 1)
    result = Tensor(np.dtype(np.float32), tuple(shape), strides, Buffer(shape[0] * strides[0] * 4))

    def plan(out: Tensor, n_threads: int) -> list[Part]:
        words = tiles.words_of(wide, form, lanes, n_threads)
        words |= {"x_image": read.strides[0], "out_image": out.strides[0], "out_plane": out.strides[1]}
        work = wide.images * math.prod(wide.out) * wide.outputs * wide.channels * math.prod(kernel) * _PRODUCT_NS
        units, scratch = words["images"] * words["bands"] * words["columns"], words["scratch_stride"] * 4
        return [Part("conv", (tuple(form),), _in_order(conv.WORDS, words, read, weights), work, units, scratch)]

    operands, expression = [], identity("float32")
    if bias is not None and bias.value is not None:
        value = bias.value
        expression = _BIASED
        operands.append(b.packed(("repeated", b.identity(value), lanes), lambda: np.repeat(value, lanes)[None]))
    kinds = (CHANNEL,) * len(operands)
    b.add(Blockwise([read, weights, *operands], [result], 2, expression, kinds, plan, turned=True))
    return result


def strided(b: Builder, x: Tensor, windows: Windows) -> Tensor:
    """The pixels that a 1 × 1 kernel with strides looks at."""
    geometry = geometry_of(x.shape, x.shape[1], windows)
    window = tiles.choose_window(geometry, b.target, b.varied)
    read = layout.memory(layout.blocked(b, x))
    shape = (*x.shape[:2], *windows.out)
    return pool(b, geometry, window, read, shape, pooling.MAX, 0, 0)


def pool(
    b: Builder,
    geometry: Geometry,
    window: sliding.Window,
    read: Tensor,
    shape: Sequence[int],
    mode: str,
    pad_bottom: int,
    pad_right: int,
    deep: Deep | None = None,
) -> Tensor:
    """A pool of a tensor as it lies. ``deep``: of a volume's images."""
    form, lanes = (tuple(window), mode, pad_right), b.target.lanes("float")

    def plan(out: Tensor, n_threads: int) -> list[Part]:
        words = tiles.window_words(geometry, window, lanes, n_threads) | {"pad_bottom": pad_bottom}
        cost = math.prod(geometry.kernel) * 3 * _PRODUCT_NS + _ELEMENT_NS
        return _slid("pool", form, words, geometry, read, None, out, cost, deep)

    return _blockwise(b, [read], None, shape, plan, some=deep is not None)


class Deep(NamedTuple):
    """How windows slide over volumes, whose depths are images."""

    slabs: Sequence[Slab]
    kernel: int  # elements of the depth
    dilation: int
    #: of a mean: how many count, for each output depth of a slab; those that lie inside where not given
    counts: Sequence[int] | None = None


def _slid(
    family: str,
    form: tuple[object, ...],
    words: dict[str, int],
    geometry: Geometry,
    read: Tensor,
    weights: Tensor | None,
    out: Tensor,
    cost: float,
    deep: Deep | None,
) -> list[Part]:
    """Calls of a kernel whose windows slide over blocks. ``cost``: nanoseconds an output, of one image."""
    words |= {"x_image": read.strides[0], "out_image": out.strides[0], "deep": 1, "x_deep": 0, "deep_count": 1}
    scratch, outputs = words["scratch_stride"] * 4, geometry.channels * math.prod(geometry.out)
    if deep is None:
        work, units = words["images"] * outputs * cost, words["images"] * words["blocks"] * words["bands"]
        return [Part(family, form, _in_order(sliding.WORDS, words, read, weights), work, units, scratch)]
    parts = []
    for number, slab in enumerate(deep.slabs):
        phase = Phase(np.empty(0), geometry, slab=slab)
        n_taps = slab.taps[1] - slab.taps[0]
        own = words | phase.image_words(read, out)
        own |= {"images": slab.n_images, "deep": n_taps, "x_deep": read.strides[0] * deep.dilation}
        own["deep_count"] = deep.counts[number] if deep.counts else n_taps
        own["first_tap"], own["all_taps"] = slab.taps[0], deep.kernel
        ordered = _in_order(sliding.WORDS, own, phase.address(read), weights)
        work, units = slab.n_images * outputs * cost * n_taps, slab.n_images * words["blocks"] * words["bands"]
        parts.append(Part(family, form, ordered, work, units, scratch, phase.output_shift(out, 0)))
    return parts


def global_pool(b: Builder, x: Tensor, mode: str) -> Tensor:
    """x [N, C, …] to [N, C, 1, …]: the mean or the largest of each channel."""
    read = layout.memory(layout.blocked(b, x))
    n, blocks, *size, lanes = read.shape

    def plan(out: Tensor, n_threads: int) -> list[Part]:
        words: tuple[Word, ...] = (read.address(), n, blocks, math.prod(size), read.strides[0], out.strides[0])
        work = n * blocks * lanes * math.prod(size) * _ELEMENT_NS
        return [Part("global_pool", (mode,), words, work, n * blocks)]

    return _blockwise(b, [read], None, (n, x.shape[1], *(1 for _ in size)), plan)


def depthwise(
    b: Builder,
    geometry: Geometry,
    window: sliding.Window,
    x: Tensor,
    w: Array | Tensor,
    bias: Tensor | None,
    shape: Sequence[int],
    deep: Deep | None = None,
) -> Tensor:
    """``w``: [C, 1, *kernel]; ``deep``: of a volume's images."""
    lanes = b.target.lanes("float")
    read = layout.memory(layout.blocked(b, x))
    kernel = ((deep.kernel,) if deep else ()) + geometry.kernel
    if isinstance(w, Tensor):
        weights = given_weights.by_channel(b, w)
    else:
        known = w.reshape(-1, *kernel)
        key = ("depthwise", b.identity(w), lanes)
        weights = b.packed(key, lambda: packing.pack_depthwise(known, lanes))

    def plan(out: Tensor, n_threads: int) -> list[Part]:
        words = tiles.window_words(geometry, window, lanes, n_threads)
        cost = math.prod(geometry.kernel) * 2 * _PRODUCT_NS + _ELEMENT_NS
        return _slid("depthwise", (tuple(window),), words, geometry, read, weights, out, cost, deep)

    return _blockwise(b, [read, weights], bias, shape, plan, some=deep is not None)


def _column(b: Builder, bias: Tensor, shape: Sequence[int], lanes: int) -> Tensor:
    """A bias as an operand in blocks. Of a known one it is the same for all shapes of so many dimensions."""
    inner = layout.by_channel(b, bias.reshaped((bias.size, *[1] * len(shape[2:]))), shape, lanes)
    assert inner is not None
    return inner


def _blockwise(
    b: Builder, read: list[Tensor], bias: Tensor | None, shape: Sequence[int], plan: Plan, *, some: bool = False
) -> Tensor:
    """Add the operation with its bias as an epilogue. ``some``: its parts make some of the images each."""
    result = layout.in_blocks(b, shape)
    out = layout.memory(result)
    operands: list[Tensor] = []
    expression = identity("float32")
    if bias is not None:
        expression = _BIASED
        if bias.value is None:
            column = _column(b, bias, shape, result.block)
        else:
            key = ("column", b.identity(bias.value), len(shape), result.block)
            column = b.once(key, lambda: _column(b, bias, shape, result.block))
        operands.append(column.broadcast(out.shape))
    b.add(Blockwise([*read, *operands], [out], len(read), expression, (CHANNEL,) * len(operands), plan, some=some))
    return result
