"""GridSample of images, and RoiAlign."""

from __future__ import annotations

import math

import numpy as np

from distort.graph.ir import Node
from distort.kernels.compiler.builder import Builder, lowers
from distort.kernels.compiler.ir import Call, ErrorWord, Native, Tensor, Word
from distort.kernels.compiler.keys import Key
from distort.kernels.compiler.layout import blocked, in_blocks, memory

Result = list[Tensor | None] | None

_CHUNK = 256
_TAP_NS = 0.5


@lowers("GridSample")
def _grid_sample(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    x, grid = inputs
    mode, padding = node.attributes.get("mode", "linear"), node.attributes.get("padding_mode", "zeros")
    if x is None or grid is None or x.dtype != np.float32 or grid.dtype != np.float32 or len(x.shape) != 4:
        return None
    if len(grid.shape) != 4 or grid.shape[3] != 2 or grid.shape[0] != x.shape[0]:
        return None
    if mode not in ("linear", "bilinear", "nearest") or padding not in ("zeros", "border", "reflection"):
        return None
    n, c, height, width = x.shape
    if not x.size or height * width >= 1 << 31:
        return None
    result = b.new(x.dtype, (n, c, *grid.shape[1:3]))
    if not result.size:
        return [result]
    x, grid = b.contiguous(b.plain(x)), b.contiguous(b.plain(grid))
    n_points = math.prod(grid.shape[1:3])
    chunk = min(_CHUNK, n_points)
    words: list[Word] = [n, c, n_points, chunk, x.address(), height, width, grid.address(), result.address()]
    linear = mode != "nearest"
    key = Key("grid_sample", (linear, padding, bool(node.attributes.get("align_corners", 0))))
    work = result.size * _TAP_NS * (4 if linear else 1)
    b.add(Native([x, grid], [result], [Call(key, words, work, most_threads=n * -(-n_points // chunk))]))
    return [result]


@lowers("RoiAlign", blocks=True, wide=True)
def _roi_align(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    x, regions, images = inputs
    a = node.attributes
    usual = "half_pixel" if node.opset >= 16 else "output_half_pixel"  # before, no pixel was shifted
    way, mode = a.get("coordinate_transformation_mode", usual), a.get("mode", "avg")
    if x is None or regions is None or images is None or x.dtype != np.float32 or regions.dtype != np.float32:
        return None
    if len(x.shape) != 4 or len(regions.shape) != 2 or regions.shape[1] != 4 or images.dtype != np.int64:
        return None
    if (
        images.shape != regions.shape[:1]
        or mode not in ("avg", "max")
        or way not in ("half_pixel", "output_half_pixel")
    ):
        return None
    bins = (int(a.get("output_height", 1)), int(a.get("output_width", 1)))
    samples = max(int(a.get("sampling_ratio", 0)), 0)
    if not x.size or min(bins) < 1 or max(x.shape) >= 1 << 24:
        return None
    result = in_blocks(b, (regions.shape[0], x.shape[1], *bins))
    if not result.size:
        return [b.new(x.dtype, result.shape)]
    read, out = memory(blocked(b, x)), memory(result)
    regions, images = b.contiguous(b.plain(regions)), b.contiguous(b.plain(images))
    scale = int(np.float32(a.get("spatial_scale", 1.0)).view(np.int32))
    words: list[Word] = [read.address(), regions.address(), images.address(), out.address(), ErrorWord()]
    words += [regions.shape[0], *read.shape[:4], *bins, samples, scale, *read.strides[:2], *out.strides[:2]]
    n_units = regions.shape[0] * bins[0]
    work = math.prod(out.shape[:4]) * (samples or 2) ** 2 * 4 * _TAP_NS
    call = Call(Key("roi_align", (mode == "max", way == "half_pixel")), words, work, most_threads=n_units)
    b.add(Native([read, regions, images], [out], [call]))
    return [result]
