"""Blocked layout: tensors and weights in it, and the geometry of convolutions and pools.

See ``codegen.conv`` for the layout. ``lanes`` is the number of channels of a block.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from distort.kernels.compiler.codegen.packing import aligned

if TYPE_CHECKING:
    from distort.kernels.compiler.codegen.products import Form
    from distort.kernels.compiler.codegen.winograd import Tiles

Array = np.ndarray[Any, np.dtype[np.float32]]
#: elements that are looked at together, so that they stay in the cache
_FLUSHED = 1 << 14


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


def merged_groups(groups: int, inputs: int, outputs: int, lanes: int) -> int:
    """How many groups of so many input and output channels together fill whole blocks: all, where none else do."""
    for merge in range(1, groups + 1):
        if groups % merge == 0 and merge * inputs % lanes == 0 and merge * outputs % lanes == 0:
            return merge
    return groups


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


def window_of_groups(column: int, outputs: int, inputs: int, group: tuple[int, int], lanes: int) -> tuple[int, int]:
    """Input blocks, from the first to before the last, that ``outputs`` channels of a column look at.

    ``inputs``: all input channels; ``group``: output and input channels of one.
    """
    first = column * outputs // group[0] * group[1] // lanes
    last = min(((column + 1) * outputs - 1) // group[0] * group[1] + group[1], inputs)
    return first, -(-last // lanes)


def window_blocks(geometry: Geometry, blocks: int, lanes: int) -> int:
    """How many input blocks any column of so many output blocks looks at, at most."""
    g = geometry
    group = (g.outputs // g.groups, g.channels // g.groups)
    n_columns = -(-g.outputs // (blocks * lanes))
    ends = (window_of_groups(c, blocks * lanes, g.channels, group, lanes) for c in range(n_columns))
    return max(last - first for first, last in ends)


def in_windows(w: Array, groups: int, blocks: int, n_blocks: int, lanes: int) -> Array:
    """[K, C/groups, *kernel] as [K, n_blocks·lanes, *kernel]: the weights of a column's input blocks.

    The first of these is where a group begins; the last columns' windows end where the channels do.
    """
    k, c, *kernel = w.shape
    in_blocks = -(-c * groups // lanes)
    out = np.zeros((k, n_blocks * lanes, *kernel), w.dtype)
    for output in range(k):
        column = output // (blocks * lanes)
        first, _ = window_of_groups(column, blocks * lanes, c * groups, (k // groups, c), lanes)
        begin = output // (k // groups) * c - min(first, in_blocks - n_blocks) * lanes
        out[output, begin : begin + c] = w[output]
    return out


def without_denormals(w: Array) -> Array:
    """Weights so small that processors take a hundred cycles for a product, as those of dead filters, become zero.

    They do so in place; ``w`` is contiguous.
    """
    tiny = np.finfo(np.float32).tiny
    flat = w.reshape(-1)
    for begin in range(0, len(flat), _FLUSHED):
        part = flat[begin : begin + _FLUSHED]
        small = np.abs(part) < tiny
        if small.any():
            part[small] = 0
    return w


def filled_up(w: Array, n_taps: int, block: int) -> Array:
    """[K, C·n_taps, *kernel], by taps, with C filled up with zeros to whole blocks where there are several taps."""
    if n_taps == 1:
        return w
    k, c, *kernel = w.shape
    w = w.reshape(k, n_taps, c // n_taps, *kernel)
    missing = -w.shape[2] % block
    w = np.pad(w, [(0, 0), (0, 0), (0, missing), *[(0, 0)] * len(kernel)])
    return w.reshape(k, -1, *kernel)


def pack_weights(w: Array, lanes: int, form: Form, out: Array | None = None) -> Array:
    """[K, C, KH, KW] as [K/(blocks·lanes), C/block, KH, KW, block, blocks, lanes], filled up with zeros."""
    k, c, kh, kw = w.shape
    k_blocks, c_blocks = -(-k // lanes), -(-c // form.block)
    if (k_blocks * lanes, c_blocks * form.block) != (k, c):
        full = np.zeros((k_blocks * lanes, c_blocks * form.block, kh, kw), np.float32)
        full[:k, :c] = w
        w = full
    w = w.reshape(k_blocks // form.blocks, form.blocks, lanes, c_blocks, form.block, kh, kw)
    w = w.transpose(0, 3, 5, 6, 4, 1, 2)
    out = aligned(w.shape, np.float32) if out is None else out
    out[...] = w
    return without_denormals(out)


def pack_depthwise(w: Array, lanes: int) -> Array:
    """[C, *kernel] as [1, C/lanes, *kernel, lanes]."""
    return without_denormals(block(w[None], lanes))


def moved_weights(w: Array, geometry: Geometry, kernel: tuple[int, int], lanes: int) -> Array:
    """[K, C, KH, KW] as [K·lanes, C, KH, wider]: for each lane, moved by another stride."""
    k, c, kh, kw = w.reshape(*w.shape[:2], *geometry.kernel).shape
    w = w.reshape(k, c, kh, kw)
    out = np.zeros((k, lanes, c, *kernel), np.float32)
    step, dilation = geometry.strides[1], geometry.dilations[1]
    for lane in range(lanes):
        first = lane * step
        out[:, lane, :, :, first : first + (kw - 1) * dilation + 1 : dilation] = w
    return out.reshape(k * lanes, c, *kernel)


def pack_transformed(w: Array, lanes: int, tiles: Tiles) -> Array:
    """[K, C, 3, 3] for Winograd's products: [(m + 2)², K/(blocks·lanes), C/lanes, lanes, blocks, lanes]."""
    from distort.kernels.compiler.codegen.products import Form
    from distort.kernels.compiler.codegen.winograd import WEIGHTS

    transform = np.array(WEIGHTS[tiles.size], np.float64)
    # of a filter's nine numbers in a row: [(m + 2)², 9] · [9, K·C]
    square = np.kron(transform, transform) @ w.reshape(-1, 9).T.astype(np.float64)
    form = Form(lanes, tiles.pixels, tiles.blocks, (1, 1))
    k, c = w.shape[:2]
    k_blocks, c_blocks = -(-k // lanes), -(-c // lanes)
    out = aligned((len(square), k_blocks // form.blocks, c_blocks, 1, 1, lanes, form.blocks, lanes), np.float32)
    for one, packed in zip(square.reshape(-1, k, c, 1, 1), out, strict=True):
        pack_weights(one, lanes, form, packed)
    return out


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
    #: the output's rows do not follow each other
    apart: bool = False
    #: groups begin and end within blocks: a column of output blocks looks at those input blocks that it has to
    within: bool = False
    #: rows and columns of the output
    out: tuple[int, int] = field(init=False, repr=False, compare=False)
    #: whether a window reaches beyond the input
    padded: bool = field(init=False, repr=False, compare=False)
    #: with rows joined to one where the kernel does not notice
    flat: Geometry = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        (height, width), (top, left), (bottom, right) = self.size, self.begins, self.ends
        reaches = [(k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True)]
        rows = (height + top + bottom - reaches[0]) // self.strides[0] + 1
        columns = (width + left + right - reaches[1]) // self.strides[1] + 1
        padded = bool(
            top
            or left
            or (rows - 1) * self.strides[0] + reaches[0] > height
            or (columns - 1) * self.strides[1] + reaches[1] > width
        )
        flat = self
        if not padded and not self.apart and self.kernel == self.strides == (1, 1):
            joined = (1, height * width)
            if (self.size, self.dilations, self.ends) != (joined, (1, 1), (0, 0)):
                flat = replace(self, size=joined, dilations=(1, 1), ends=(0, 0))
        set_field = object.__setattr__  # once, of a frozen class
        set_field(self, "out", (rows, columns))
        set_field(self, "padded", padded)
        set_field(self, "flat", flat)
