"""Pooling, in blocked layout."""

from __future__ import annotations

import math

import numpy as np

from distort.graph.ir import Node
from distort.kernels.compiler import layout, tiles
from distort.kernels.compiler.blockwise import Blockwise, Part
from distort.kernels.compiler.builder import Builder, lowers
from distort.kernels.compiler.codegen import pooling, sliding
from distort.kernels.compiler.expression import identity
from distort.kernels.compiler.ir import Scratch, Tensor, Word
from distort.kernels.compiler.lower.convolution import geometry_of, pair
from distort.kernels.errors import Failed, InvalidInput
from distort.kernels.windows import windows_of

Result = list[Tensor | None] | None
_TAP_NS, _ELEMENT_NS = 0.03, 0.08


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
    if window is None or (window.copied and mode != pooling.MAX):
        return None
    read = layout.memory(layout.blocked(b, x))
    pad_bottom, pad_right = pair(windows.ends, 0)
    lanes = b.target.lanes("float")
    result = layout.in_blocks(b, (*x.shape[:2], *windows.out))

    def plan(out: Tensor, n_threads: int) -> list[Part]:
        words = tiles.window_words(geometry, window, lanes)
        words |= {"x_image": read.strides[0], "out_image": out.strides[0], "pad_bottom": pad_bottom}
        named = {**words, "x": read.address(), "weights": 0, "scratch": Scratch()}
        outputs = geometry.images * geometry.channels * math.prod(geometry.out)
        work = outputs * (math.prod(geometry.kernel) * _TAP_NS + _ELEMENT_NS)
        units = words["images"] * words["blocks"] * words["bands"]
        form = (tuple(window), mode, pad_right)
        return [Part("pool", form, tuple(named[n] for n in sliding.WORDS), work, units, words["scratch_stride"] * 4)]

    b.add(Blockwise([read], [layout.memory(result)], 1, identity("float32"), (), plan))
    return [result]


@lowers("GlobalAveragePool", "GlobalMaxPool", blocks=True, wide=True)
def _global_pool(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    (x,) = inputs
    if x is None or x.dtype != np.float32 or len(x.shape) < 3 or not x.size:
        return None
    return [global_pool(b, x, pooling.MAX if node.op_type == "GlobalMaxPool" else pooling.MEAN)]


def global_pool(b: Builder, x: Tensor, mode: str) -> Tensor:
    """x [N, C, …] to [N, C, 1, …]: the mean or the largest of each channel."""
    read = layout.memory(layout.blocked(b, x))
    n, blocks, *size, lanes = read.shape
    result = layout.in_blocks(b, (n, x.shape[1], *(1 for _ in size)))

    def plan(out: Tensor, n_threads: int) -> list[Part]:
        words: tuple[Word, ...] = (read.address(), n, blocks, math.prod(size), read.strides[0], out.strides[0])
        return [Part("global_pool", (mode,), words, n * blocks * lanes * math.prod(size) * _ELEMENT_NS, n * blocks)]

    b.add(Blockwise([read], [layout.memory(result)], 1, identity("float32"), (), plan))
    return result
