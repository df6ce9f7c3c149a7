"""Transposed convolutions, in blocked layout: as many convolutions as strides make phases of the output."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from distort.graph.ir import Node
from distort.kernels.compiler import overlapping, volumes, windowed
from distort.kernels.compiler.blocked import Geometry, merged_groups
from distort.kernels.compiler.builder import Builder, lowers
from distort.kernels.compiler.ir import Array, Tensor
from distort.kernels.compiler.layout import memory
from distort.kernels.compiler.lower.convolution import compiles, with_bias
from distort.kernels.compiler.lower.padding import padded
from distort.kernels.compiler.windowed import Phase, pair
from distort.kernels.errors import Failed, InvalidInput
from distort.kernels.ops.convolution import transposed_extent
from distort.kernels.windows import spatial_attribute

Result = list[Tensor | None] | None


@lowers("ConvTranspose", blocks=True, wide=True)
def _conv_transpose(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    """Output pixels of each phase of the strides are a convolution with some of the weights, turned round."""
    x, w, bias = inputs[0], inputs[1], inputs[2] if len(inputs) > 2 else None
    if x is None or w is None or not compiles(x, w, bias, given=True):
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
    simple = groups == 1 and not dilated and w.value is not None
    if (dilated and rank == 3) or groups < 1 or w.shape[0] != x.shape[1] or x.shape[1] % groups or min(begins) < 0:
        return None
    if tuple(a.get("kernel_shape") or kernel) != tuple(kernel) or min(out) < 1:
        return None
    outputs = w.shape[1] * groups
    if bias is not None and bias.value is None:
        without = _conv_transpose(b, replace(node, inputs=node.inputs[:2]), [x, w])
        if without is None or without[0] is None or bias.size != outputs:
            return None
        return [with_bias(b, without[0], bias)]
    if w.value is None:
        w = b.contiguous(b.plain(w))
    lanes = b.target.lanes("float")
    if (
        w.value is not None
        and rank == 1
        and groups == 1
        and not dilated
        and outputs <= lanes // 4
        and strides[0] >= lanes
    ):
        # a phase for each step would have few channels
        made = overlapping.added(b, x, w.value, strides[0], begins[0], out[0], bias)
        if made is not None:
            return [made]
    if rank == 3:
        if groups > 1 or w.value is None:
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
    few = outputs * steps[0] * steps[1] <= lanes and whole != sizes
    apart = steps == pair(kernel) and whole == (sizes[0] * steps[0], sizes[1] * steps[1])
    if simple and w.value is not None and few and apart:
        name = ("shuffled", b.identity(w.value))
        return [_shuffled(b, x, _turned_round(w.value, 1), name, bias, (x.shape[0], outputs, *out))]
    spans = pair(dilations)
    axes = [
        [_phase(r, step, pad, k, n, o, d) for r in range(min(step, o))]
        for step, pad, k, n, o, d in zip(steps, pads, pair(kernel), sizes, whole, spans, strict=True)
    ]
    between = (spans[0] // math.gcd(steps[0], spans[0]), spans[1] // math.gcd(steps[1], spans[1]))
    phases: list[Phase] = []
    for row, vertical in enumerate(axes[0]):
        for column, horizontal in enumerate(axes[1]):
            places = (vertical[0], horizontal[0])
            geometry = Geometry(
                x.shape[0],
                x.shape[1],
                outputs,
                sizes,
                (len(places[0]), len(places[1])),
                dilations=between,
                begins=(vertical[1], horizontal[1]),
                ends=(vertical[2], horizontal[2]),
                groups=groups,
                apart=True,
            )
            part = _taps(b, w, groups, places) if w.value is not None else _given_taps(b, w, groups, places)
            phases.append(Phase(part, geometry, row * whole[1] + column, steps[1], steps[0] * whole[1] * lanes))
    if w.value is None and merged_groups(groups, x.shape[1] // groups, w.shape[1], lanes) > lanes:
        return None
    return [windowed.direct(b, phases[0][1], x, phases, bias, (x.shape[0], outputs, *out))]


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


def _turned_round(w: Array, groups: int) -> Array:
    """[C, K/groups, *kernel] as [K, C/groups, KH, KW]."""
    c, k, *kernel = w.shape
    grouped = w.reshape(groups, c // groups, k, *pair(kernel))
    return np.swapaxes(grouped, 1, 2).reshape(groups * k, c // groups, *pair(kernel))


def _taps(b: Builder, w: Tensor, groups: int, places: tuple[list[int], list[int]]) -> Array:
    """Some kernel elements of weights [C, K/groups, *kernel], turned round; those of number -1 are zero."""
    value = w.value
    assert value is not None

    def make() -> Array:
        padded = np.pad(_turned_round(value, groups), [(0, 0), (0, 0), (0, 1), (0, 1)])
        return np.ascontiguousarray(padded[:, :, places[0]][:, :, :, places[1]])

    part = b.packed(("taps", b.identity(value), groups, *map(tuple, places)), make).value
    assert part is not None
    return part


def _given_taps(b: Builder, w: Tensor, groups: int, places: tuple[list[int], list[int]]) -> Tensor:
    """The same of contiguous weights that only the run knows; elements that are zero come first."""
    c, k, *size = w.shape
    kernel = pair(size)
    steps = (kernel[0] * kernel[1], kernel[1], 1)
    shape, strides = [groups, k, c // groups], [c // groups * k * steps[0], steps[0], k * steps[0]]
    first, zeros = 0, []
    for axis, numbers in enumerate(places):
        found = [n for n in numbers if n >= 0]
        zeros.append(len(numbers) - len(found))
        shape.append(len(found))
        strides.append((found[1] - found[0] if len(found) > 1 else 1) * steps[1 + axis])
        first += found[0] * steps[1 + axis] if found else 0
    whole = (groups * k, c // groups, *map(len, places))
    if 0 in shape:
        return b.constant(np.zeros(whole, np.float32))
    part = b.contiguous(w.view(shape, strides, first)).reshaped((groups * k, c // groups, *shape[3:]))
    made = padded(b, part, [0, 0, *zeros], [0] * 4, "constant", None)
    assert made is not None
    return made
