"""GridSample of images."""

from __future__ import annotations

import math

import numpy as np

from distort.graph.ir import Node
from distort.kernels.compiler.builder import Builder, lowers
from distort.kernels.compiler.ir import Call, Native, Tensor, Word
from distort.kernels.compiler.keys import Key

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
