"""Convolutions of 8-bit images as operations: an image is made ready, then multiplied with its weights."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from distort.kernels.compiler.byte_images import Geometry, Image, Interleave, as_image, geometry_of, image_of
from distort.kernels.compiler.codegen import byte_dots as dots
from distort.kernels.compiler.codegen import quantized_depthwise as depthwise
from distort.kernels.compiler.codegen.operands import BROADCAST, CONTIGUOUS
from distort.kernels.compiler.codegen.quantized_sums import TILE_DEPTH, TILE_ROWS, Product, scratch_nbytes
from distort.kernels.compiler.codegen.target import Target
from distort.kernels.compiler.expression import Expression, identity
from distort.kernels.compiler.ir import Array, Call, Map, Operation, Scratch, Tensor
from distort.kernels.compiler.keys import Key
from distort.kernels.compiler.quantized import (
    SUMS,
    absorbed,
    best_rows,
    best_vectors,
    signed_weights,
    work_ns,
)
from distort.kernels.windows import Windows

if TYPE_CHECKING:
    from distort.kernels.compiler.builder import Builder

#: bytes behind a prepared image that are read, and don't matter
_SLACK = 512
#: pixels that are summed up before the epilogue, of one channel by itself
_UNIT_PIXELS = 1024


class ConvWeights(NamedTuple):
    """[groups, padded rows, padded depth] int8; terms and zero points by filter."""

    rows: Tensor
    terms: Tensor
    zeros: Tensor | None
    n_rows: int  # of a group, padding included
    depth: int  # padding included
    tile_rows: int


def conv_mode(geometry: Geometry, target: Target) -> str:
    if dots.has_tiles(target) and geometry.filters >= TILE_ROWS // 2 and geometry.n_columns >= TILE_ROWS:
        return dots.TILES
    return dots.mode_of(target)


def prepare_conv(b: Builder, w: Tensor, zeros: Tensor | None, geometry: Geometry, vectors: int) -> ConvWeights:
    """Of known weights [groups · filters, channels, …], zero points of one or all filters."""
    mode = conv_mode(geometry, b.target)
    size = dots.group_of(mode)
    n_planes = -(-geometry.channels // size)
    depth = n_planes * geometry.n_taps * size
    if mode == dots.TILES:
        depth = -(-depth // TILE_DEPTH) * TILE_DEPTH
        tile_rows = TILE_ROWS if geometry.filters <= TILE_ROWS else 2 * TILE_ROWS
        n_rows = -(-geometry.filters // tile_rows) * tile_rows
    else:
        tile_rows, n_rows = best_rows(vectors, b.target, mode), geometry.filters
    value = w.value
    assert value is not None

    def rows() -> Array:
        signed, _ = signed_weights(value, None)
        wide = np.zeros((geometry.groups, geometry.filters, n_planes * size, geometry.n_taps), np.int8)
        wide[:, :, : geometry.channels] = signed.reshape(geometry.groups, geometry.filters, geometry.channels, -1)
        wide = wide.reshape(geometry.groups, geometry.filters, n_planes, size, -1).swapaxes(3, 4)
        made = np.zeros((geometry.groups, n_rows, depth), np.int8)
        flat = wide.reshape(geometry.groups, geometry.filters, -1)
        made[:, : geometry.filters, : flat.shape[2]] = flat
        return made

    terms, by_filter = _of_filters(b, w, zeros, geometry)
    name = ("quantized filters", b.source(w), geometry.groups, mode, n_rows)
    return ConvWeights(b.packed(name, rows), terms, by_filter, n_rows, depth, tile_rows)


def is_depthwise(geometry: Geometry, target: Target) -> bool:
    window = depthwise.Window(*geometry.kernel, geometry.strides[1], geometry.dilations[1])
    return geometry.channels == 1 and geometry.groups > 1 and depthwise.fits(window, target)


def prepare_depthwise(b: Builder, w: Tensor, zeros: Tensor | None, geometry: Geometry) -> ConvWeights:
    """[groups · filters, rows of taps, products] groups of bytes."""
    size = dots.group_of(dots.mode_of(b.target))
    chunks = -(-geometry.kernel[1] // size)
    value = w.value
    assert value is not None

    def rows() -> Array:
        signed, _ = signed_weights(value, None)
        made = np.zeros((len(value), geometry.kernel[0], chunks * size), np.int8)
        made[:, :, : geometry.kernel[1]] = signed.reshape(len(value), *geometry.kernel)
        return made

    name = b.source(w)
    terms, by_filter = _of_filters(b, w, zeros, geometry)
    packed = b.packed(("quantized depthwise", name, size, geometry.kernel), rows)
    return ConvWeights(packed, terms, by_filter, geometry.filters, geometry.kernel[0] * chunks * size, 1)


def _of_filters(b: Builder, w: Tensor, zeros: Tensor | None, geometry: Geometry) -> tuple[Tensor, Tensor | None]:
    """Terms and zero points by filter."""
    value, zero_values = w.value, None if zeros is None else zeros.value
    assert value is not None
    real_depth = geometry.channels * geometry.n_taps

    def terms() -> Array:
        signed, zero = signed_weights(value, zero_values)
        sums = signed.reshape(len(signed), -1).sum(axis=1, dtype=np.int32)
        return np.asarray(sums if zero is None else sums - real_depth * zero, np.int32)

    def by_filter() -> Array:
        _, zero = signed_weights(value, zero_values)
        return np.broadcast_to(np.asarray(zero, np.int32), (len(value),))

    name = (b.source(w), None if zeros is None else b.source(zeros))
    _, some_zeros = signed_weights(value[:1], zero_values)
    made = b.packed(("quantized filters' terms", *name), terms)
    if some_zeros is None:
        return made, None
    return made, b.packed(("quantized filters' zeros", *name), by_filter)


def taps_of(geometry: Geometry, size: int) -> Array:
    """Bytes from a window's first pixel to each of its taps."""
    width = geometry.padded[1]
    y, x = np.indices(geometry.kernel).reshape(2, -1)
    return np.asarray((y * geometry.dilations[0] * width + x * geometry.dilations[1]) * size, np.int64)


@dataclass(eq=False)
class QuantizedConv(Operation):
    """``inputs``: a prepared image, the zero point where it is a tensor, further inputs of the epilogue."""

    geometry: Geometry
    image: Image
    weights: ConvWeights
    taps: Tensor
    vectors: int
    dtype: str  # of the image before it was prepared
    zero: Tensor | None = None
    epilogue: Expression = SUMS
    operands: tuple[Tensor, ...] = ()
    depthwise: bool = False
    kind: ClassVar[str] = "quantized conv"

    def calls(self, target: Target, n_threads: int) -> list[Call]:
        (result,) = self.outputs
        geometry, image, weights = self.geometry, self.image, self.weights
        mode = dots.mode_of(target) if self.depthwise else conv_mode(geometry, target)
        views = [_spread(t, geometry) for t in (*self.operands, result)]
        assert all(views)
        product = Product(
            weights.tile_rows,
            self.vectors,
            mode,
            True,
            (self.dtype == "int8") != image.flip,
            "a",
            zero="" if self.zero is None else str(self.zero.dtype),
            offset=(128 if self.dtype == "int8" else -128) if image.flip else 0,
            has_weight_zeros=weights.zeros is not None,
            epilogue=self.epilogue,
            ways=tuple(view[0] for view in views[:-1] if view),
        )
        lanes = target.lanes("i32")
        n_lines = weights.depth // image.size
        panel = 0 if geometry.direct else n_lines * self.vectors * lanes * image.size
        nbytes = -(-(scratch_nbytes(product, lanes, 0) + panel) // 64) * 64
        words: list[Any] = [geometry.filters, geometry.n_columns, weights.depth, n_lines]
        words += [geometry.images, geometry.groups, Scratch(), nbytes]
        words += [weights.rows.address(), weights.depth, 0, weights.n_rows * weights.depth]  # a group's rows
        words += [self.inputs[0].address(), image.image, image.group]
        zeros = weights.zeros or weights.terms
        words += [(self.zero or weights.terms).address(), weights.terms.address(), zeros.address(), 1]
        row = geometry.padded[1] * image.size
        of_operands: list[Any] = []
        for tensor, view in zip((*self.operands, result), views, strict=True):
            assert view is not None
            of_operands += [tensor.address(), view[1], view[2], view[3]]
        if self.depthwise:
            unit_rows = max(1, min(_UNIT_PIXELS // geometry.out[1], geometry.out[0]))
            words[7] = nbytes = -(-8 * (unit_rows * geometry.out[1] + lanes) // 64) * 64
            words += [*geometry.out, geometry.strides[0] * row, geometry.dilations[0] * row, unit_rows, *of_operands]
            n_units = geometry.images * geometry.groups * geometry.filters * -(-geometry.out[0] // unit_rows)
            window = (*geometry.kernel, geometry.strides[1], geometry.dilations[1])
            n_pixels = geometry.images * geometry.groups * geometry.filters * geometry.n_columns
            work = n_pixels * (0.1 + 0.03 * geometry.n_taps)
            key = Key("quantized_depthwise", (window, tuple(product)))
            return [Call(key, words, work, nbytes * n_threads, n_units)]
        words += [geometry.out[1], geometry.strides[0] * row, geometry.strides[1] * image.size]
        words += [geometry.n_taps, self.taps.address(), image.n_planes, image.plane, *of_operands]
        n_products = geometry.images * geometry.groups * geometry.filters * geometry.n_columns * weights.depth
        n_panels = -(-geometry.n_columns // (self.vectors * lanes))
        n_units = geometry.images * geometry.groups * n_panels * -(-geometry.filters // weights.tile_rows)
        stride = geometry.strides[1] if geometry.strides[1] in (1, 2) else 0
        work = work_ns(n_products, mode, target) + n_panels * self.vectors * n_lines * 2.0
        key = Key("quantized_conv", (geometry.direct, stride, tuple(product)))
        return [Call(key, words, work, nbytes * n_threads, n_units)]

    def absorb(self, after: Map, position: int, target: Target) -> Operation | None:
        del position, target
        made = self.outputs[0]
        result = after.outputs[0]
        if result.shape != made.shape or len(after.outputs) != 1:
            return None
        joined = absorbed(self.epilogue, self.operands, after, made)
        if joined is None or any(_spread(t, self.geometry) is None for t in (*joined[0], result)):
            return None
        operands, expression = joined
        inputs = [*self.inputs[: 1 + (self.zero is not None)], *operands]
        return replace(self, inputs=inputs, outputs=after.outputs, epilogue=expression, operands=tuple(operands))


def _spread(tensor: Tensor, geometry: Geometry) -> tuple[int, int, int, int] | None:
    """(how pixels go through it, strides by filter, image and group) of a view in the shape of the result."""
    if tensor.block:
        return None
    of_image, of_filter, *spatial = tensor.strides
    sizes = tensor.shape[2:]
    steps = [s for n, s in zip(sizes, spatial, strict=True) if n != 1]
    if all(s == 0 for s in steps) and math.prod(sizes) > 1:
        way = BROADCAST
    elif steps == _dense([n for n in sizes if n != 1]):
        way = CONTIGUOUS
    else:
        return None
    return way, of_filter, of_image, of_filter * geometry.filters


def _dense(sizes: list[int]) -> list[int]:
    return [math.prod(sizes[i + 1 :]) for i in range(len(sizes))]


def convolved_bytes(
    b: Builder, x: Tensor, w: Tensor, zero: Tensor | None, w_zero: Tensor | None, windows: Windows, groups: int
) -> Tensor | None:
    """As :meth:`Builder.convolved_bytes`: weights and their zero points are known."""
    if w.value is None or (w_zero is not None and w_zero.value is None) or len(x.shape) not in (3, 4):
        return None
    return convolution(b, x, w, zero, w_zero, geometry_of(x.shape, w.shape, groups, windows))


def convolution(
    b: Builder, x: Tensor, w: Tensor, zero: Tensor | None, w_zero: Tensor | None, geometry: Geometry
) -> Tensor:
    """int32 results of x [N, C, …] int8 or uint8 and known weights."""
    alone = is_depthwise(geometry, b.target)
    mode = dots.mode_of(b.target) if alone else conv_mode(geometry, b.target)
    size = 1 if alone else dots.group_of(mode)
    vectors = 1 if alone else best_vectors(geometry.n_columns, b.target.lanes("i32"), b.target)
    if alone:
        weights = prepare_depthwise(b, w, w_zero, geometry)
    else:
        weights = prepare_conv(b, w, w_zero, geometry, vectors)
    # tiles read whole tiles of planes where they read the image itself
    least = weights.depth // size if geometry.direct and not alone else 0
    image = image_of(geometry, size, least, str(x.dtype), mode)
    x = b.plain(x)
    if x.strides[-1] != 1:
        x = b.contiguous(x)
    prepared = b.new(np.uint8, (image.image * geometry.images + _SLACK,))
    zeros = [] if zero is None else [zero]
    b.add(Interleave([x, *zeros], [prepared], geometry, image, (as_image(x),), zero, identity(str(x.dtype))))
    out = geometry.out if len(x.shape) == 4 else geometry.out[1:]
    result = b.new(np.int32, (geometry.images, geometry.groups * geometry.filters, *out))
    taps = b.packed(
        ("taps", geometry.kernel, geometry.dilations, geometry.padded[1], size), lambda: taps_of(geometry, size)
    )
    inputs = [prepared, *zeros]
    b.add(QuantizedConv(inputs, [result], geometry, image, weights, taps, vectors, str(x.dtype), zero, depthwise=alone))
    return result
