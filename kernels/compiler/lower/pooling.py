"""Pooling, in blocked layout."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from distort.graph.ir import Node
from distort.kernels.compiler import layout, tiles, volumes, windowed
from distort.kernels.compiler.blocked import Geometry
from distort.kernels.compiler.builder import Builder, lowers
from distort.kernels.compiler.codegen import pooling
from distort.kernels.compiler.depths import RANK
from distort.kernels.compiler.ir import Tensor
from distort.kernels.compiler.lower.reductions import of_all_pixels, reduce
from distort.kernels.compiler.windowed import geometry_of, pair
from distort.kernels.errors import Failed, InvalidInput
from distort.kernels.windows import Windows, windows_of

Result = list[Tensor | None] | None
#: windows of so many elements are gone through by rows, then by columns
_LEAST_APART = 20


@lowers("MaxPool", "AveragePool", blocks=True, wide=True)
def _pool(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    (x,) = inputs
    a = node.attributes
    if x is None or x.dtype != np.float32 or len(x.shape) not in (3, 4, RANK) or not x.size or len(node.outputs) > 1:
        return None
    try:
        windows = windows_of(
            x.shape[2:],
            a.get("kernel_shape", ()),
            a.get("strides"),
            a.get("dilations"),
            a.get("pads"),
            a.get("auto_pad", "NOTSET"),
            a.get("ceil_mode", 0),
        )
    except (InvalidInput, Failed):
        return None
    if len(x.shape) == RANK:
        made = volumes.pool(b, x, windows, _mode(node))
        return None if made is None else [made]
    geometry = geometry_of(x.shape, x.shape[1], windows)
    window = tiles.choose_window(geometry, b.target)
    mode = _mode(node)
    if window.copied and mode != pooling.MAX:
        return _by_weights(b, x, geometry, windows, mode)
    if mode == pooling.MAX and min(geometry.kernel) > 1 and math.prod(geometry.kernel) >= _LEAST_APART:
        return [_of_rows_and_columns(b, x, geometry)]
    read = layout.memory(layout.blocked(b, x))
    pad_bottom, pad_right = pair(windows.ends, 0)
    shape = (*x.shape[:2], *windows.out)
    return [windowed.pool(b, geometry, window, read, shape, mode, pad_bottom, pad_right)]


def _by_weights(b: Builder, x: Tensor, geometry: Geometry, windows: Windows, mode: str) -> Result:
    """A mean whose windows all have the same divisor, as a convolution of each channel. None for another."""
    if pair(windows.ends, 0) != geometry.ends or (mode == pooling.MEAN and geometry.padded):
        return None
    channels, n = x.shape[1], math.prod(geometry.kernel)
    known = b.packed(("mean", channels, geometry.kernel), lambda: np.full((channels, n), 1 / n, np.float32)).value
    assert known is not None
    window = tiles.choose_window(geometry, b.target)
    return [windowed.depthwise(b, geometry, window, x, known, None, (*x.shape[:2], *windows.out))]


def _mode(node: Node) -> str:
    if node.op_type == "MaxPool":
        return pooling.MAX
    return pooling.MEAN_PADDED if node.attributes.get("count_include_pad", 0) else pooling.MEAN


def _of_rows_and_columns(b: Builder, x: Tensor, geometry: Geometry) -> Tensor:
    """The largest of each row's part, then of these."""
    g = geometry
    wide = replace(g, kernel=(1, g.kernel[1]), strides=(1, g.strides[1]), dilations=(1, g.dilations[1]))
    wide = replace(wide, begins=(0, g.begins[1]), ends=(0, g.ends[1]))
    high = replace(g, kernel=(g.kernel[0], 1), strides=(g.strides[0], 1), dilations=(g.dilations[0], 1))
    high = replace(high, size=(g.size[0], g.out[1]), begins=(g.begins[0], 0), ends=(g.ends[0], 0))
    for part in (wide, high):
        read = layout.memory(layout.blocked(b, x))
        window = tiles.choose_window(part, b.target)
        x = windowed.pool(b, part, window, read, (*x.shape[:2], *part.out), pooling.MAX, 0, 0)
    return x


@lowers("GlobalAveragePool", "GlobalMaxPool", blocks=True, wide=True)
def _global_pool(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    (x,) = inputs
    if x is None or x.dtype != np.float32 or len(x.shape) < 3 or not x.size:
        return None
    largest = node.op_type == "GlobalMaxPool"  # others, quantized ones too, are means
    if not x.block:
        axes = b.constant(np.arange(2, len(x.shape)))
        op_type = "ReduceMax" if largest else "ReduceMean"
        return reduce(b, replace(node, op_type=op_type, domain="", attributes={}), [x, axes])
    return [of_all_pixels(b, x, pooling.MAX if largest else pooling.MEAN)]
