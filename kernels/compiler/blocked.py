"""Convolutions in blocked layout: weights packed, tiles chosen, and the words of a step.

See ``codegen.conv`` for the layout. ``lanes`` is the number of channels of a block.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distort.kernels.compiler.codegen.conv import WORDS, Form
from distort.kernels.compiler.codegen.target import Target

Array = NDArray[np.float32]
#: of a thread's rows with their padding: they should stay in the second-level cache with the weights
SCRATCH_NBYTES = 1 << 19
#: cycles until a product can be added to
FMA_LATENCY = 4


def block(x: Array, lanes: int) -> Array:
    """[N, C, *size] as [N, C/lanes, *size, lanes], missing channels as zeros."""
    n, c, *size = x.shape
    n_blocks = -(-c // lanes)
    out = np.zeros((n, n_blocks * lanes, *size), x.dtype)
    out[:, :c] = x
    out = out.reshape(n, n_blocks, lanes, *size)
    return np.ascontiguousarray(np.moveaxis(out, 2, -1))


def unblock(x: Array, channels: int) -> Array:
    """[N, C/lanes, *size, lanes] as [N, channels, *size]."""
    out = np.moveaxis(x, -1, 2)
    return np.ascontiguousarray(out.reshape(out.shape[0], -1, *out.shape[3:])[:, :channels])


def block_vector(x: Array, lanes: int) -> Array:
    """[..., C] with C filled up with zeros to a multiple of ``lanes``."""
    missing = -x.shape[-1] % lanes
    return np.ascontiguousarray(np.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, missing)]))


def merged_groups(groups: int, inputs: int, outputs: int, lanes: int) -> int | None:
    """How many groups of so many input and output channels together fill whole blocks; None where they can't."""
    for merge in range(1, groups + 1):
        if groups % merge == 0 and merge * inputs % lanes == 0 and merge * outputs % lanes == 0:
            return merge
    return 1 if groups == 1 else None


def merge_weights(w: Array, groups: int, merge: int) -> Array:
    """[K, C/groups, *kernel] of ``groups`` groups as that of ``groups / merge``: zeros where groups do not meet."""
    if merge == 1:
        return w
    k, c, *kernel = w.shape
    out = np.zeros((groups // merge, merge, k // groups, merge, c, *kernel), w.dtype)
    parts = w.reshape(groups // merge, merge, k // groups, c, *kernel)
    for one in range(merge):
        out[:, one, :, one] = parts[:, one]
    return out.reshape(k, merge * c, *kernel)


def pack_weights(w: Array, lanes: int, form: Form) -> Array:
    """[K, C, KH, KW] as [K/(blocks·lanes), C/block, KH, KW, block, blocks, lanes], filled up with zeros."""
    k, c, kh, kw = w.shape
    k_blocks, c_blocks = -(-k // lanes), -(-c // form.block)
    out = np.zeros((k_blocks * lanes, c_blocks * form.block, kh, kw), np.float32)
    out[:k, :c] = w
    out = out.reshape(k_blocks // form.blocks, form.blocks, lanes, c_blocks, form.block, kh, kw)
    return np.ascontiguousarray(out.transpose(0, 3, 5, 6, 4, 1, 2))


@dataclass(frozen=True, slots=True)
class Geometry:
    """A convolution's sizes. ``channels`` and ``outputs`` are all of them, of all (merged) groups."""

    images: int
    channels: int
    outputs: int
    size: tuple[int, int]
    kernel: tuple[int, int]
    strides: tuple[int, int] = (1, 1)
    dilations: tuple[int, int] = (1, 1)
    begins: tuple[int, int] = (0, 0)
    ends: tuple[int, int] = (0, 0)
    groups: int = 1

    @property
    def out(self) -> tuple[int, int]:
        return tuple(  # type: ignore[return-value]
            (n + b + e - (k - 1) * d - 1) // s + 1
            for n, b, e, k, d, s in zip(
                self.size, self.begins, self.ends, self.kernel, self.dilations, self.strides, strict=True
            )
        )

    @property
    def padded(self) -> bool:
        """Whether a window reaches beyond the input."""
        return any(self.begins) or any(
            (o - 1) * s + (k - 1) * d + 1 > n
            for o, s, k, d, n in zip(self.out, self.strides, self.kernel, self.dilations, self.size, strict=True)
        )

    @property
    def flat(self) -> Geometry:
        """Rows joined to one where the kernel does not notice."""
        if self.kernel == self.strides == (1, 1) and not self.padded:
            return Geometry(
                self.images, self.channels, self.outputs, (1, math.prod(self.size)), (1, 1), groups=self.groups
            )
        return self


def choose_form(geometry: Geometry, target: Target, plain: bool = False) -> Form:
    """The register tile: as few loads and as little computed twice as may be."""
    g = geometry.flat
    lanes = target.lanes("float")
    room = target.n_vector_registers - 1
    n_blocks = -(-(g.outputs // g.groups) // lanes)
    width = g.out[1]
    best: tuple[float, int, int] | None = None
    for blocks in range(1, min(n_blocks, room // 2) + 1):
        if n_blocks % blocks:
            continue
        # in a tile of one block the input is read by the product itself
        most = room - 2 if blocks == 1 and room > 15 else (room - blocks) // blocks
        for pixels in range(1, min(most, width) + 1):
            cost = _cost(blocks, pixels, width)
            if best is None or cost < best[0]:
                best = (cost, pixels, blocks)
    assert best is not None
    _, pixels, blocks = best
    return Form(
        1 if plain else lanes, pixels, blocks, g.kernel, g.strides, g.dilations, g.padded
    )


def _cost(blocks: int, pixels: int, width: int) -> float:
    """Cycles for a product of one pixel and one block, about: two products or two loads a cycle."""
    sums, loads = blocks * pixels, blocks + pixels
    cycles = max(sums / 2, loads / 2, FMA_LATENCY) + 0.1 * loads
    return cycles / sums * (-(-width // pixels) * pixels / width)


def words_of(geometry: Geometry, form: Form, lanes: int, bands: int | None = None) -> dict[str, int]:
    """A step's words by name, but for the addresses. ``scratch_stride`` is in elements, a multiple of a cache line."""
    g = geometry.flat
    out_height, out_width = g.out
    row_tiles = -(-out_width // form.pixels)
    image_tiles = row_tiles * out_height
    columns = -(-g.outputs // lanes) // form.blocks
    in_blocks = -(-g.channels // form.block)
    padded_width = max(g.begins[1] + g.size[1], (out_width - 1) * g.strides[1] + (g.kernel[1] - 1) * g.dilations[1] + 1)
    reach = (g.kernel[0] - 1) * g.dilations[0] + 1
    in_row_nbytes = padded_width * in_blocks * form.block * 4
    if bands is None:
        bands = _n_bands(g, form, in_row_nbytes, row_tiles, columns)
    if form.padded:
        band_rows = -(-out_height // bands)
        band_tiles = band_rows * row_tiles
        scratch = ((band_rows - 1) * g.strides[0] + reach) * in_row_nbytes // 4
    else:
        band_tiles = -(-image_tiles // bands)
        scratch = 0
    words = {
        "images": g.images,
        "bands": -(-image_tiles // band_tiles),
        "columns": columns,
        "columns_a_group": columns // g.groups,
        "group_blocks": in_blocks // g.groups,
        "group_channels": g.channels // g.groups,
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
        "out_plane": lanes * out_height * out_width,
        "ahead_step": -(-form.blocks * lanes * 4 // band_tiles),
        "scratch_stride": -(-scratch // 16) * 16,
    }
    return words


def _n_bands(g: Geometry, form: Form, in_row_nbytes: int, row_tiles: int, columns: int) -> int:
    """Bands of an image: what one reads should stay in the cache, and threads should have enough to share."""
    out_height = g.out[0]
    if form.padded:
        rows = max(1, (SCRATCH_NBYTES // in_row_nbytes - g.kernel[0]) // g.strides[0])
        return min(out_height, max(-(-out_height // rows), -(-8 // (columns * g.images))))
    tile_nbytes = in_row_nbytes // row_tiles
    tiles = max(1, SCRATCH_NBYTES // max(1, tile_nbytes * g.strides[0]))
    n_tiles = row_tiles * out_height
    return min(n_tiles, max(-(-n_tiles // tiles), -(-8 // (columns * g.images))))


def step_words(words: dict[str, int], x: int, weights: int, scratch: int, *rest: int) -> NDArray[Any]:
    """All words in order; ``rest`` are the epilogue's."""
    named = {**words, "x": x, "weights": weights, "scratch": scratch}
    return np.array([*(named[name] for name in WORDS), *rest], np.int64)
