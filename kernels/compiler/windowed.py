"""Convolutions and pools as operations on tensors in blocks, added to a builder."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from distort.kernels.compiler import blocked as packing
from distort.kernels.compiler import layout, tiles
from distort.kernels.compiler.blocked import Geometry
from distort.kernels.compiler.blockwise import Blockwise, Part
from distort.kernels.compiler.builder import Builder
from distort.kernels.compiler.codegen import conv, pooling, sliding, winograd
from distort.kernels.compiler.codegen.epilogues import CHANNEL
from distort.kernels.compiler.codegen.products import Form
from distort.kernels.compiler.codegen.winograd import Tiles
from distort.kernels.compiler.expression import Expression, Instruction, identity
from distort.kernels.compiler.ir import Array, Buffer, Scratch, Tensor, Word
from distort.kernels.windows import Windows

#: what a product costs, about, and an element that is copied or stored
_PRODUCT_NS, _ELEMENT_NS = 0.012, 0.05
Plan = Callable[[Tensor, int], Sequence[Part]]

#: Winograd's convolution is cut in at least so many units: tiles are grouped by unit, whatever the number of threads
_WINOGRAD_UNITS = 4


def geometry_of(shape: Sequence[int], outputs: int, windows: Windows, groups: int = 1) -> Geometry:
    """The sizes in two dimensions; what windows reach beyond the padding is padding too."""
    ends = [
        max(e, (o - 1) * s + (k - 1) * d + 1 - n - b)
        for e, o, s, k, d, n, b in zip(
            windows.ends,
            windows.out,
            windows.strides,
            windows.kernel,
            windows.dilations,
            shape[2:],
            windows.begins,
            strict=True,
        )
    ]
    # a column is done as a row: the same memory, and tiles are of pixels of a row
    column = len(shape) == 4 and shape[3] == windows.kernel[1] == windows.out[1] == 1
    along = slice(0, 1) if column else slice(0, None)
    return Geometry(
        shape[0],
        shape[1],
        outputs,
        pair(shape[2:][along]),
        pair(windows.kernel[along]),
        pair(windows.strides[along]),
        pair(windows.dilations[along]),
        pair(windows.begins[along], 0),
        pair(ends[along], 0),
        groups,
    )


def pair(values: Sequence[int], fill: int = 1) -> tuple[int, int]:
    """Of one or two spatial axes, two."""
    return (fill, values[0]) if len(values) == 1 else (values[0], values[1])


def _in_order(names: Sequence[str], words: Mapping[str, int], read: Tensor, weights: Tensor | None) -> tuple[Word, ...]:
    """A kernel's words by their names."""
    pointing: dict[str, Word] = {
        "x": read.address(),
        "weights": weights.address() if weights else 0,
        "scratch": Scratch(),
    }
    return tuple(pointing[name] if name in pointing else words[name] for name in names)


#: weights [K, C/groups, KH, KW], their geometry, where the output begins, its pixels' distance, elements between rows
Phase = tuple[Array, Geometry, int, int, int]


def direct(
    b: Builder, geometry: Geometry, x: Tensor, phases: Sequence[Phase], bias: Tensor | None, shape: Sequence[int]
) -> Tensor:
    """One convolution, or several that each make some of the output's pixels."""
    lanes = b.target.lanes("float")
    groups = geometry.groups
    merge = packing.merged_groups(groups, geometry.channels // groups, geometry.outputs // groups, lanes)
    within = _had_better_be_within(geometry, merge, lanes)
    if within:
        read, plain = layout.memory(layout.blocked(b, x)), False
    else:
        read, plain = _source(b, x, groups == merge and geometry.kernel != (1, 1))
    forms: list[tuple[Form, Geometry, Tensor, int, int]] = []
    for w, phase, shift, spread, row in phases:
        phase = replace(phase, groups=groups if within else groups // merge, within=within)
        form = tiles.choose_form(phase, b.target, plain)._replace(spread=spread)
        key = ("conv", b.identity(w), 0 if within else merge, lanes, form.block, form.blocks)

        def packed(w: Array = w, form: Form = form, phase: Geometry = phase) -> Array:
            whole = w.reshape(*w.shape[:2], *phase.kernel)
            if within:
                n_blocks = packing.window_blocks(phase, form.blocks, lanes)
                whole = packing.in_windows(whole, groups, form.blocks, n_blocks, lanes)
            else:
                whole = packing.merge_weights(whole, groups, merge)
            return packing.pack_weights(whole, lanes, form)

        forms.append((form, phase, b.packed(key, packed), shift, row))

    def plan(out: Tensor, n_threads: int) -> list[Part]:
        parts = []
        for form, phase, weights, shift, row in forms:
            words = tiles.words_of(phase, form, lanes, n_threads)
            words |= {"x_image": read.strides[0], "out_image": out.strides[0], "out_plane": out.strides[1]}
            words["out_row"] = row or words["out_row"]
            products = math.prod(phase.out) * phase.outputs * words["group_blocks"] * form.block
            products *= math.prod(phase.kernel)
            work = phase.images * products * _PRODUCT_NS
            units = words["images"] * words["bands"] * words["columns"]
            scratch = words["scratch_stride"] * 4
            parts.append(
                Part(
                    "conv",
                    (tuple(form),),
                    _in_order(conv.WORDS, words, read, weights),
                    work,
                    units,
                    scratch,
                    shift * lanes,
                )
            )
        return parts

    return _blockwise(b, [read, *(f[2] for f in forms)], bias, shape, plan)


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
    b: Builder, geometry: Geometry, square: Tiles, x: Tensor, w: Array, bias: Tensor | None, shape: Sequence[int]
) -> Tensor:
    """By Winograd's way."""
    lanes = b.target.lanes("float")
    read = layout.memory(layout.blocked(b, x))
    key = ("winograd", b.identity(w), lanes, square)
    weights = b.packed(key, lambda: packing.pack_transformed(w.reshape(*w.shape[:2], 3, 3), lanes, square))

    def plan(out: Tensor, n_threads: int) -> list[Part]:
        words = tiles.transformed_words(geometry, square, lanes, _WINOGRAD_UNITS)
        words |= {"x_image": read.strides[0], "out_image": out.strides[0], "out_plane": out.strides[1]}
        products = words["image_tiles"] * (square.size + 2) ** 2 * geometry.channels * geometry.outputs
        work = geometry.images * products * _PRODUCT_NS * 1.5
        units, scratch = words["images"] * words["bands"] * words["splits"], words["scratch_stride"] * 4
        return [
            Part("winograd", (tuple(square),), _in_order(winograd.WORDS, words, read, weights), work, units, scratch)
        ]

    return _blockwise(b, [read, weights], bias, shape, plan)


def turned(b: Builder, geometry: Geometry, x: Tensor, w: Array, bias: Tensor | None, shape: Sequence[int]) -> Tensor:
    """A convolution with few output channels. Lanes are pixels: its result is plain, rows maybe longer than they look.

    Pixels next to each other are what output channels are elsewhere: their kernels are the same, moved by a stride.
    """
    lanes = b.target.lanes("float")
    wide = tiles.turned_geometry(geometry, lanes)
    read, plain = _source(b, x, True)
    form = tiles.choose_form(wide, b.target, plain)
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
        expression = Expression(("float32",) * 2, (Instruction("add", (0, 1), "float32"),), (2,))
        operands.append(b.packed(("repeated", b.identity(value), lanes), lambda: np.repeat(value, lanes)[None]))
    kinds = (CHANNEL,) * len(operands)
    b.add(Blockwise([read, weights, *operands], [result], 2, expression, kinds, plan, turned=True))
    return result


def strided(b: Builder, x: Tensor, windows: Windows) -> Tensor:
    """The pixels that a 1 × 1 kernel with strides looks at."""
    geometry = geometry_of(x.shape, x.shape[1], windows)
    window = tiles.choose_window(geometry, b.target)
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
) -> Tensor:
    """A pool of a tensor as it lies."""
    lanes = b.target.lanes("float")

    def plan(out: Tensor, n_threads: int) -> list[Part]:
        words = tiles.window_words(geometry, window, lanes, n_threads)
        words |= {"x_image": read.strides[0], "out_image": out.strides[0], "pad_bottom": pad_bottom}
        outputs = geometry.images * geometry.channels * math.prod(geometry.out)
        work = outputs * (math.prod(geometry.kernel) * 3 * _PRODUCT_NS + _ELEMENT_NS)
        units, scratch = words["images"] * words["blocks"] * words["bands"], words["scratch_stride"] * 4
        form = (tuple(window), mode, pad_right)
        return [Part("pool", form, _in_order(sliding.WORDS, words, read, None), work, units, scratch)]

    return _blockwise(b, [read], None, shape, plan)


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
    w: Array,
    bias: Tensor | None,
    shape: Sequence[int],
) -> Tensor:
    lanes = b.target.lanes("float")
    read = layout.memory(layout.blocked(b, x))
    key = ("depthwise", b.identity(w), lanes)
    weights = b.packed(key, lambda: packing.pack_depthwise(w.reshape(-1, *geometry.kernel), lanes))

    def plan(out: Tensor, n_threads: int) -> list[Part]:
        words = tiles.window_words(geometry, window, lanes, n_threads)
        words |= {"x_image": read.strides[0], "out_image": out.strides[0]}
        outputs = geometry.images * geometry.channels * math.prod(geometry.out)
        work = outputs * (math.prod(geometry.kernel) * 2 * _PRODUCT_NS + _ELEMENT_NS)
        units = words["images"] * words["blocks"] * words["bands"]
        scratch = words["scratch_stride"] * 4
        return [
            Part("depthwise", (tuple(window),), _in_order(sliding.WORDS, words, read, weights), work, units, scratch)
        ]

    return _blockwise(b, [read, weights], bias, shape, plan)


def _blockwise(b: Builder, read: list[Tensor], bias: Tensor | None, shape: Sequence[int], plan: Plan) -> Tensor:
    """Add the operation with its bias as an epilogue."""
    result = layout.in_blocks(b, shape)
    out = layout.memory(result)
    operands: list[Tensor] = []
    expression = identity("float32")
    if bias is not None:
        expression = Expression(("float32",) * 2, (Instruction("add", (0, 1), "float32"),), (2,))
        column = bias.reshaped((bias.size, *(1 for _ in shape[2:])))
        inner = layout.by_channel(b, column, shape, result.block)
        assert inner is not None
        operands.append(inner.broadcast(out.shape))
    b.add(Blockwise([*read, *operands], [out], len(read), expression, (CHANNEL,) * len(operands), plan))
    return result
