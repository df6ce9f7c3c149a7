"""Convolutions, in blocked layout."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from distort.graph.ir import Node
from distort.kernels import convolve
from distort.kernels.compiler import overlapping, tiles, volumes, windowed
from distort.kernels.compiler.blocked import Geometry, merged_groups
from distort.kernels.compiler.builder import Builder, lowers
from distort.kernels.compiler.depths import RANK
from distort.kernels.compiler.ir import Array, Tensor
from distort.kernels.compiler.layout import memory
from distort.kernels.compiler.products import multiply
from distort.kernels.compiler.rows import Body
from distort.kernels.compiler.windowed import Phase, geometry_of, pair
from distort.kernels.errors import Failed, InvalidInput
from distort.kernels.windows import Windows

Result = list[Tensor | None] | None
#: by so much output channels are fewer than lanes where each input channel is done by itself
_FEW_OUTPUTS = 4


@lowers("Conv", blocks=True, wide=True)
def _conv(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    x, w, bias = inputs[0], inputs[1], inputs[2] if len(inputs) > 2 else None
    if x is None or w is None or not compiles(x, w, bias, given=True):
        return None
    a = node.attributes
    groups = a.get("group", 1)
    try:
        windows = convolve.windows_of_convolution(
            x.shape,
            w.shape,
            groups,
            a.get("kernel_shape"),
            a.get("strides"),
            a.get("dilations"),
            a.get("pads"),
            a.get("auto_pad", "NOTSET"),
        )
    except (InvalidInput, Failed):
        return None  # the NumPy kernel says so, when it runs
    if bias is not None and bias.size != w.shape[0]:
        return None
    if w.value is None:
        made = None if len(x.shape) == RANK else _of_given_weights(b, x, w, windows, groups)
        return None if made is None else [made if bias is None else with_bias(b, made, bias)]
    if bias is not None and bias.value is None:
        without = _conv(b, replace(node, inputs=node.inputs[:2]), [x, w])
        return None if without is None or without[0] is None else [with_bias(b, without[0], bias)]

    def of_images(x: Tensor, w: Array, windows: Windows, bias: Tensor | None) -> Tensor:
        return _of_images(b, x, w, bias, windows, groups)

    if len(x.shape) == RANK:
        made = volumes.convolution(b, x, w.value, bias, windows, groups, of_images)
        return None if made is None else [made]
    padded = bool(windows.begins[-1] or windows.ends[-1])
    if overlapping.is_of_rows(x.shape, w.shape[2:], padded) and _plain_rows(windows):
        rows = overlapping.of_rows(b, x, w.value, windows.strides[0], bias)
        if rows is not None:
            return [rows]
    return [of_images(x, w.value, windows, bias)]


@lowers("FusedConv", domain="com.microsoft", blocks=True)
def _fused_conv(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    """Of the sum with z, where there is one: an activation."""
    z = inputs[3] if len(inputs) > 3 else None
    made = _conv(b, node, inputs[:3])
    if made is None or made[0] is None:
        return None
    y = made[0]
    if z is not None:
        if z.shape != y.shape or z.dtype != y.dtype:
            return None
        y = b.map("add", [y, z])
    result = activated(b, y, node.attributes.get("activation", ""), node.attributes.get("activation_params") or ())
    return None if result is None else [result]


def activated(b: Builder, y: Tensor, activation: str, given: Sequence[float]) -> Tensor | None:
    if activation == "":
        return y
    if activation in ("Relu", "Tanh", "Sigmoid"):
        return b.map(activation.lower(), [y])
    if activation == "LeakyRelu":
        return b.map("leaky_relu", [y], attributes=(float(given[0]) if given else 0.01,))
    if activation not in ("Clip", "HardSigmoid") or len(given) != 2:
        return None
    if activation == "HardSigmoid":
        return b.map("hard_sigmoid", [y], attributes=(float(given[0]), float(given[1])))
    low, high = (b.constant(np.asarray(value, np.float32)) for value in given)
    return b.map("min", [b.map("max", [y, low]), high])


def _plain_rows(windows: Windows) -> bool:
    """Whether windows are of rows that lie next to each other, without padding."""
    return not windows.begins[0] and not windows.ends[0] and all(n == 1 for n in windows.dilations)


def _of_images(b: Builder, x: Tensor, w: Array, bias: Tensor | None, windows: Windows, groups: int) -> Tensor:
    """A convolution of one or two dimensions."""
    geometry = geometry_of(x.shape, w.shape[0], windows, groups)
    shape = (x.shape[0], w.shape[0], *windows.out)
    if groups > 1 and w.shape[1] == 1 and w.shape[0] == groups:
        window = tiles.choose_window(geometry, b.target, b.varied)
        return windowed.depthwise(b, geometry, window, x, w, bias, shape)
    if groups == 1 and tiles.is_better_turned(geometry, b.target):
        return windowed.turned(b, geometry, x, w, bias, shape)
    if x.block or x.shape[1] >= b.target.lanes("float"):
        square = tiles.choose_tiles(geometry, b.target, b.settled("winograd", w))
        if square is not None:
            return windowed.transformed(b, x, [(square, Phase(w, geometry))], bias, shape)
        if geometry.kernel == (1, 1) != geometry.strides and not geometry.padded:
            x = windowed.strided(b, x, windows)
            geometry = replace(geometry, size=pair(windows.out), strides=(1, 1), ends=(0, 0))
    return windowed.direct(b, geometry, x, [Phase(w, geometry)], bias, shape)


def with_bias(b: Builder, made: Tensor, bias: Tensor) -> Tensor:
    """``bias``: [K], known or not."""
    column = b.contiguous(b.plain(bias)).reshaped((bias.size, *(1 for _ in made.shape[2:])))
    return b.map("add", [made, column])


def _of_given_weights(b: Builder, x: Tensor, w: Tensor, windows: Windows, groups: int) -> Tensor | None:
    """A convolution of one or two dimensions whose weights are made by the run, as a tracker's or a hypernetwork's."""
    w = b.plain(w)
    geometry = geometry_of(x.shape, w.shape[0], windows, groups)
    n, outputs, inputs = x.shape[0], w.shape[0], w.shape[1]
    shape = (n, outputs, *windows.out)
    if inputs == 1 and outputs == groups > 1:
        return windowed.depthwise(b, geometry, tiles.choose_window(geometry, b.target, b.varied), x, w, None, shape)
    lanes = b.target.lanes("float")
    each = outputs // groups
    if each * _FEW_OUTPUTS <= lanes and inputs * groups >= lanes:
        return _summed(b, x, w, geometry, windows, groups)
    if not x.block and geometry.kernel == geometry.strides == (1, 1) and not geometry.padded:
        pixels = math.prod(windows.out)
        matrix = b.contiguous(w).reshaped((groups, each, inputs))
        made = multiply(b, matrix, b.contiguous(x).reshaped((n, groups, inputs, pixels)))
        return None if made is None else made.reshaped(shape)
    merge = merged_groups(groups, inputs, each, lanes)
    if merge > lanes:
        return None
    return windowed.direct(b, geometry, x, [Phase(w, geometry)], None, shape)


def _summed(b: Builder, x: Tensor, w: Tensor, geometry: Geometry, windows: Windows, groups: int) -> Tensor | None:
    """With few output channels: each input channel by itself, then their sums."""
    n, channels = x.shape[:2]
    inputs, each = w.shape[1], w.shape[0] // groups
    lanes, pixels = b.target.lanes("float"), math.prod(windows.out)
    alone = replace(geometry, outputs=channels, groups=channels)
    window = tiles.choose_window(alone, b.target, b.varied)
    result = b.new(np.float32, (n, groups, each, pixels))
    w = b.contiguous(w)
    grouped = w.view((groups, each, *w.shape[1:]), (each * w.strides[0], *w.strides))
    for one in range(each):
        part = grouped.view((groups, *w.shape[1:]), (grouped.strides[0], *w.strides[1:]), one * w.strides[0])
        part = b.contiguous(part).reshaped((channels, 1, *w.shape[2:]))
        made = windowed.depthwise(b, alone, window, x, part, None, (n, channels, *windows.out))
        if groups == 1:
            inner = memory(made)  # lanes beyond the channels are zero, as their weights are
            source = inner.view((n, inner.shape[1], pixels, lanes), (*inner.strides[:2], lanes, 1))
        else:
            source = b.contiguous(b.plain(made)).reshaped((n, groups, inputs, pixels))
        body = Body(source.shape, "float32")
        sums = body.add(b, (1, 3) if groups == 1 else (2,), [(body.op("row_sum", body.input(source)), "float32", True)])
        if sums is None:
            return None
        b.copy(
            sums[0].reshaped((n, groups, pixels)),
            result.view((n, groups, pixels), (result.strides[0], result.strides[1], 1), one * pixels),
        )
    return result.reshaped((n, groups * each, *windows.out))


def compiles(x: Tensor, w: Tensor, bias: Tensor | None, *, given: bool = False) -> bool:
    """``given``: weights and bias that only the run knows will do too."""
    return (
        x.dtype == w.dtype == np.float32
        and (given or w.value is not None)
        and len(x.shape) in (3, 4, RANK)
        and len(w.shape) == len(x.shape)
        and x.size > 0
        and w.size > 0
        and (bias is None or (bias.dtype == np.float32 and len(bias.shape) == 1 and (given or bias.value is not None)))
    )
