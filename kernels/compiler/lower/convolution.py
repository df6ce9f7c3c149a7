"""Convolutions, in blocked layout."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

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
from distort.kernels.ops.convolution import transposed_extent
from distort.kernels.windows import Windows, spatial_attribute

Result = list[Tensor | None] | None
#: by so much output channels are fewer than lanes where each input channel is done by itself
_FEW_OUTPUTS = 4


@lowers("Conv", blocks=True, wide=True)
def _conv(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    x, w, bias = inputs[0], inputs[1], inputs[2] if len(inputs) > 2 else None
    if x is None or w is None or not _compiles(x, w, bias, given=True):
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
        return None if made is None else [made if bias is None else _with_bias(b, made, bias)]
    if bias is not None and bias.value is None:
        without = _conv(b, replace(node, inputs=node.inputs[:2]), [x, w])
        return None if without is None or without[0] is None else [_with_bias(b, without[0], bias)]

    def of_images(x: Tensor, w: Array, windows: Windows) -> Tensor:
        return _of_images(b, x, w, bias, windows, groups)

    if len(x.shape) == RANK:
        made = volumes.convolution(b, x, w.value, bias, windows, groups, of_images)
        return None if made is None else [made]
    padded = bool(windows.begins[-1] or windows.ends[-1])
    if overlapping.is_of_rows(x.shape, w.shape[2:], padded) and _plain_rows(windows):
        rows = overlapping.of_rows(b, x, w.value, windows.strides[0], bias)
        if rows is not None:
            return [rows]
    return [of_images(x, w.value, windows)]


def _plain_rows(windows: Windows) -> bool:
    """Whether windows are of rows that lie next to each other, without padding."""
    return not windows.begins[0] and not windows.ends[0] and all(n == 1 for n in windows.dilations)


def _of_images(b: Builder, x: Tensor, w: Array, bias: Tensor | None, windows: Windows, groups: int) -> Tensor:
    """A convolution of one or two dimensions."""
    geometry = geometry_of(x.shape, w.shape[0], windows, groups)
    shape = (x.shape[0], w.shape[0], *windows.out)
    if groups > 1 and w.shape[1] == 1 and w.shape[0] == groups:
        window = tiles.choose_window(geometry, b.target)
        return windowed.depthwise(b, geometry, window, x, w, bias, shape)
    if groups == 1 and tiles.is_better_turned(geometry, b.target):
        return windowed.turned(b, geometry, x, w, bias, shape)
    if x.block or x.shape[1] >= b.target.lanes("float"):
        square = tiles.choose_tiles(geometry, b.target)
        if square is not None:
            return windowed.transformed(b, x, [(square, Phase(w, geometry))], bias, shape)
        if geometry.kernel == (1, 1) != geometry.strides and not geometry.padded:
            x = windowed.strided(b, x, windows)
            geometry = replace(geometry, size=pair(windows.out), strides=(1, 1))
    return windowed.direct(b, geometry, x, [Phase(w, geometry)], bias, shape)


def _with_bias(b: Builder, made: Tensor, bias: Tensor) -> Tensor:
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
        return windowed.depthwise(b, geometry, tiles.choose_window(geometry, b.target), x, w, None, shape)
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
    window = tiles.choose_window(alone, b.target)
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


def _compiles(x: Tensor, w: Tensor, bias: Tensor | None, *, given: bool = False) -> bool:
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


@lowers("ConvTranspose", blocks=True, wide=True)
def _conv_transpose(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    """Output pixels of each phase of the strides are a convolution with some of the weights, turned round."""
    x, w, bias = inputs[0], inputs[1], inputs[2] if len(inputs) > 2 else None
    if x is None or w is None or not _compiles(x, w, bias):
        return None
    a = node.attributes
    rank = len(x.shape) - 2
    groups = a.get("group", 1)
    size, kernel = x.shape[2:], w.shape[2:]
    try:
        strides = spatial_attribute("strides", a.get("strides"), rank)
        dilations = spatial_attribute("dilations", a.get("dilations"), rank)
        extra = spatial_attribute("output_padding", a.get("output_padding"), rank, default=0, least=0)
        reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
        full = [s * (n - 1) + e + k for n, k, s, e in zip(size, reach, strides, extra, strict=True)]
        begins, out = transposed_extent(
            size, full, strides, a.get("auto_pad", "NOTSET"), a.get("output_shape"), a.get("pads")
        )
    except (InvalidInput, Failed):
        return None
    dilated = max(dilations) > 1
    if (dilated and rank == 3) or groups < 1 or w.shape[0] != x.shape[1] or x.shape[1] % groups or min(begins) < 0:
        return None
    if tuple(a.get("kernel_shape") or kernel) != tuple(kernel) or min(out) < 1:
        return None
    assert w.value is not None
    outputs = w.shape[1] * groups
    lanes = b.target.lanes("float")
    if rank == 1 and groups == 1 and not dilated and outputs <= lanes // 4 and strides[0] >= lanes:
        # a phase for each step would have few channels
        made = overlapping.added(b, x, w.value, strides[0], begins[0], out[0], bias)
        if made is not None:
            return [made]
    if rank == 3:
        if groups > 1:
            return None
        sides = [
            [_phase(r, step, pad, k, n, o) for r in range(min(step, o))]
            for step, pad, k, n, o in zip(strides, begins, kernel, size, out, strict=True)
        ]
        value = w.value
        turned = b.packed(("turned round", b.identity(value)), lambda: np.swapaxes(value, 0, 1)).value
        assert turned is not None
        made = volumes.transposed(b, x, turned, sides, strides, bias, out)
        return None if made is None else [made]
    steps, pads, sizes = pair(strides), pair(begins, 0), pair(size)
    whole = pair(out)
    # [K, C/groups, KH, KW]
    weights = w.value.reshape(groups, x.shape[1] // groups, w.shape[1], *pair(kernel))
    weights = np.swapaxes(weights, 1, 2).reshape(outputs, -1, *pair(kernel))
    few = outputs * steps[0] * steps[1] <= b.target.lanes("float") and whole != sizes
    if (
        few
        and groups == 1
        and not dilated
        and steps == pair(kernel)
        and whole == (sizes[0] * steps[0], sizes[1] * steps[1])
    ):
        name = ("shuffled", b.identity(w.value))
        return [_shuffled(b, x, weights, name, bias, (x.shape[0], outputs, *out))]
    spans = pair(dilations)
    axes = [
        [_phase(r, step, pad, k, n, o, d) for r in range(min(step, o))]
        for step, pad, k, n, o, d in zip(steps, pads, pair(kernel), sizes, whole, spans, strict=True)
    ]
    apart = (spans[0] // math.gcd(steps[0], spans[0]), spans[1] // math.gcd(steps[1], spans[1]))
    phases: list[Phase] = []
    for row, vertical in enumerate(axes[0]):
        for column, horizontal in enumerate(axes[1]):
            places = [vertical[0], horizontal[0]]
            key = ("phase", b.identity(w.value), row, column, steps, pads, spans, groups)
            part = b.packed(key, partial(_taps, weights, places)).value
            assert part is not None
            geometry = Geometry(
                x.shape[0],
                x.shape[1],
                outputs,
                sizes,
                (len(places[0]), len(places[1])),
                dilations=apart,
                begins=(vertical[1], horizontal[1]),
                ends=(vertical[2], horizontal[2]),
                groups=groups,
                apart=True,
            )
            row_size = steps[0] * whole[1] * b.target.lanes("float")
            phases.append(Phase(part, geometry, row * whole[1] + column, steps[1], row_size))
    shape = (x.shape[0], outputs, *out)
    return [windowed.direct(b, phases[0][1], x, phases, bias, shape)]


def _shuffled(b: Builder, x: Tensor, weights: Array, name: object, bias: Tensor | None, shape: Sequence[int]) -> Tensor:
    """Where each output looks at one pixel: few channels by kernel elements in one product, whose results are moved.

    ``weights``: [K, C, KH, KW]
    """
    k, c, *kernel = weights.shape
    n_taps = kernel[0] * kernel[1]

    taps = b.packed(name, lambda: weights.transpose(2, 3, 0, 1).reshape(n_taps * k, c, 1, 1)).value
    assert taps is not None
    if bias is not None and bias.value is not None:
        value = bias.value
        bias = b.packed(("tiled", b.identity(value), n_taps), lambda: np.tile(value, n_taps))
    size = pair(x.shape[2:])
    geometry = Geometry(x.shape[0], c, n_taps * k, size, (1, 1))
    made = windowed.direct(b, geometry, x, [Phase(taps, geometry)], bias, (x.shape[0], n_taps * k, *x.shape[2:]))
    inner = memory(made)
    lanes = made.block
    strides = (inner.strides[0], 1, size[1] * lanes, kernel[1] * k, lanes, k)
    moved = inner.view((x.shape[0], k, size[0], kernel[0], size[1], kernel[1]), strides)
    return b.contiguous(moved).reshaped(shape)


def _phase(
    r: int, step: int, pad: int, kernel: int, size: int, out: int, dilation: int = 1
) -> tuple[list[int], int, int]:
    """Outputs ``r``, ``r + step``, … of an axis: kernel elements in the order of the input, padding to both sides.

    They are ``dilation / gcd(step, dilation)`` apart.
    """
    period, apart = step // math.gcd(step, dilation), dilation // math.gcd(step, dilation)
    first = next((k for k in range(period) if (r + pad - k * dilation) % step == 0), kernel)
    places = list(range(first, kernel, period))[::-1]
    shift = (r + pad - first * dilation) // step
    count = -(-(out - r) // step)
    if not places:
        places, shift = [-1], 0
    before = (len(places) - 1) * apart - shift
    if before < 0:  # the window begins later: elements that are zero come first
        more = -(before // apart)
        places, before = [-1] * more + places, before + more * apart
    return places, before, count + (len(places) - 1) * apart - size - before


def _taps(weights: Array, places: Sequence[Sequence[int]]) -> Array:
    """Some kernel elements; those of number -1 are zero."""
    padded = np.pad(weights, [(0, 0), (0, 0), (0, 1), (0, 1)])
    return np.ascontiguousarray(padded[:, :, places[0]][:, :, :, places[1]])
