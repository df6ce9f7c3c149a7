"""Pooling, in blocked layout."""

from __future__ import annotations

import numpy as np

from distort.graph.ir import Node
from distort.kernels.compiler import layout, tiles, windowed
from distort.kernels.compiler.builder import Builder, lowers
from distort.kernels.compiler.codegen import pooling
from distort.kernels.compiler.ir import Tensor
from distort.kernels.compiler.windowed import geometry_of, pair
from distort.kernels.errors import Failed, InvalidInput
from distort.kernels.windows import windows_of

Result = list[Tensor | None] | None


@lowers("MaxPool", "AveragePool", blocks=True, wide=True)
def _pool(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    (x,) = inputs
    a = node.attributes
    if x is None or x.dtype != np.float32 or len(x.shape) not in (3, 4) or not x.size or len(node.outputs) > 1:
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
    geometry = geometry_of(x.shape, x.shape[1], windows)
    window = tiles.choose_window(geometry, b.target)
    if node.op_type == "MaxPool":
        mode = pooling.MAX
    else:
        mode = pooling.MEAN_PADDED if a.get("count_include_pad", 0) else pooling.MEAN
    if window.copied and mode != pooling.MAX:
        return None
    read = layout.memory(layout.blocked(b, x))
    pad_bottom, pad_right = pair(windows.ends, 0)
    shape = (*x.shape[:2], *windows.out)
    return [windowed.pool(b, geometry, window, read, shape, mode, pad_bottom, pad_right)]


@lowers("GlobalAveragePool", "GlobalMaxPool", blocks=True, wide=True)
def _global_pool(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    (x,) = inputs
    if x is None or x.dtype != np.float32 or len(x.shape) < 3 or not x.size:
        return None
    return [windowed.global_pool(b, x, pooling.MAX if node.op_type == "GlobalMaxPool" else pooling.MEAN)]
