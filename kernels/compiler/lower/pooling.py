"""Pooling, in blocked layout."""

from __future__ import annotations

import math
import operator
from dataclasses import replace

import numpy as np

from distort.graph.ir import Node
from distort.kernels.compiler import layout, tiles, volumes, windowed
from distort.kernels.compiler.blocked import Geometry
from distort.kernels.compiler.builder import Builder, lowers
from distort.kernels.compiler.codegen import pooling
from distort.kernels.compiler.codegen.places import WORDS
from distort.kernels.compiler.depths import RANK
from distort.kernels.compiler.expression import Instruction
from distort.kernels.compiler.ir import Buffer, Call, Native, Tensor, Word
from distort.kernels.compiler.keys import Key
from distort.kernels.compiler.lower.padding import padded
from distort.kernels.compiler.lower.reductions import of_all_pixels, reduce
from distort.kernels.compiler.lower.views import numbers
from distort.kernels.compiler.windowed import geometry_of, pair
from distort.kernels.errors import Failed, InvalidInput
from distort.kernels.windows import Windows, windows_of

Result = list[Tensor | None] | None
#: windows of so many elements are gone through by rows, then by columns
_LEAST_APART = 20
#: an element that is compared, of all lanes
_PLACE_NS = 1.0


@lowers("MaxPool", "AveragePool", blocks=True, wide=True)
def _pool(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    (x,) = inputs
    a = node.attributes
    if x is None or x.dtype != np.float32 or len(x.shape) not in (3, 4, RANK) or not x.size:
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
    reach = [(k - 1) * d + 1 for k, d in zip(windows.kernel, windows.dilations, strict=True)]
    if any(max(pads) >= r for *pads, r in zip(windows.begins, windows.ends, reach, strict=True)):
        return None
    if len(node.outputs) > 1 and node.outputs[1]:
        return None if len(x.shape) == RANK else _with_places(b, x, windows, bool(a.get("storage_order", 0)))
    if len(x.shape) == RANK:
        made = volumes.pool(b, x, windows, _mode(node))
        return None if made is None else [made]
    geometry = geometry_of(x.shape, x.shape[1], windows)
    window = tiles.choose_window(geometry, b.target, b.varied)
    mode = _mode(node)
    if window.copied and mode != pooling.MAX:
        return _by_weights(b, x, geometry, windows, mode)
    if mode == pooling.MAX and min(geometry.kernel) > 1 and math.prod(geometry.kernel) >= _LEAST_APART:
        return [_of_rows_and_columns(b, x, geometry)]
    read = layout.memory(layout.blocked(b, x))
    pad_bottom, pad_right = pair(windows.ends, 0)
    shape = (*x.shape[:2], *windows.out)
    return [windowed.pool(b, geometry, window, read, shape, mode, pad_bottom, pad_right)]


def _with_places(b: Builder, x: Tensor, windows: Windows, by_columns: bool) -> Result:
    """The largest elements, and where they are in all of x; ``by_columns``: counted down its planes' columns."""
    height, width = pair(x.shape[2:])
    if height * width >= 1 << 31:
        return None
    read = layout.memory(layout.blocked(b, x))
    best = layout.in_blocks(b, (*x.shape[:2], *windows.out))
    buffer = Buffer(best.buffer.nbytes)
    places = Tensor(np.dtype(np.int32), best.shape, best.strides, buffer, block=best.block)
    n, blocks = read.shape[:2]
    words: list[Word] = [read.address(), best.address(), places.address(), n, blocks, height, width]
    for of_axes in (windows.out, windows.kernel, windows.strides, windows.dilations):
        words += pair(of_axes)
    words += [*pair(windows.begins, 0), *((1, height) if by_columns else (width, 1)), *read.strides[:2]]
    assert len(words) == len(WORDS)
    n_units = n * blocks * pair(windows.out)[0]
    work = math.prod(layout.memory(best).shape) / best.block * (_PLACE_NS * math.prod(windows.kernel) + 2)
    call = Call(Key("places", ()), words, work, most_threads=n_units)
    b.add(Native([read], [layout.memory(best), layout.memory(places)], [call]))
    planes = np.arange(n * x.shape[1]).reshape(*x.shape[:2], *(1 for _ in windows.out)) * (height * width)
    whole = b.map("cast", [b.plain(places)], np.int64)
    return [best, b.map("add", [whole, b.constant(planes)])]


def _by_weights(b: Builder, x: Tensor, geometry: Geometry, windows: Windows, mode: str) -> Result:
    """A mean whose windows all have the same divisor, as a convolution of each channel. None for another."""
    if pair(windows.ends, 0) != geometry.ends or (mode == pooling.MEAN and geometry.padded):
        return None
    channels, n = x.shape[1], math.prod(geometry.kernel)
    known = b.packed(("mean", channels, geometry.kernel), lambda: np.full((channels, n), 1 / n, np.float32)).value
    assert known is not None
    window = tiles.choose_window(geometry, b.target, b.varied)
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
        window = tiles.choose_window(part, b.target, b.varied)
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


@lowers("MaxUnpool")
def _max_unpool(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    """Elements put where they come from, among zeros."""
    x, indices, given = inputs[0], inputs[1], inputs[2] if len(inputs) > 2 else None
    if x is None or indices is None or x.shape != indices.shape or indices.dtype != np.int64 or len(x.shape) < 3:
        return None
    rank, a = len(x.shape) - 2, node.attributes
    kernel, steps, pads = a.get("kernel_shape") or (), a.get("strides") or [1] * rank, a.get("pads") or [0] * 2 * rank
    goal = numbers(given)
    if len(kernel) != rank or not x.size or (given is not None and goal is None):
        return None
    size = [(n - 1) * s + k for n, s, k in zip(x.shape[2:], steps, kernel, strict=True)]
    size = [n - low - high for n, low, high in zip(size, pads[:rank], pads[rank:], strict=True)]
    shape = (*x.shape[:2], *size)
    if min(size) < 1 or (goal is not None and (len(goal) != len(shape) or any(map(operator.lt, goal, shape)))):
        return None
    count = math.prod(shape)
    indices = b.contiguous(indices).reshaped((x.size,))
    # those before the first one would count from the end
    body = [Instruction("less", (0, 1), "bool"), Instruction("where", (3, 2, 0), "int64")]
    places = b.map("", [indices, b.constant(np.array(0)), b.number("count", count)], np.int64, body=body)
    zeros = b.constant(np.zeros(1, x.dtype)).broadcast((count,))
    updates = b.contiguous(x).reshaped((x.size,))
    made = b.scattered_elements(replace(node, op_type="ScatterElements", attributes={}), [zeros, places, updates])
    if made is None or made[0] is None:
        return None
    result = made[0].reshaped(shape)
    if goal is None or tuple(goal) == shape:
        return [result]
    more = [high - low for high, low in zip(goal, shape, strict=True)]
    return [padded(b, result, [0] * len(more), more, "constant", None)]
