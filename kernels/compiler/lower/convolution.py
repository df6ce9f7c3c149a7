"""Convolutions, in blocked layout."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from distort.graph.ir import Node
from distort.kernels import convolve
from distort.kernels.compiler import blocked as packing
from distort.kernels.compiler import layout, tiles
from distort.kernels.compiler.blocked import Geometry
from distort.kernels.compiler.blockwise import Blockwise, Part
from distort.kernels.compiler.builder import Builder, lowers
from distort.kernels.compiler.codegen import conv, sliding
from distort.kernels.compiler.codegen.epilogues import CHANNEL
from distort.kernels.compiler.codegen.products import Form
from distort.kernels.compiler.expression import Expression, Instruction, identity
from distort.kernels.compiler.ir import Array, Scratch, Tensor
from distort.kernels.errors import Failed, InvalidInput
from distort.kernels.ops.convolution import transposed_extent
from distort.kernels.windows import Windows, spatial_attribute

Result = list[Tensor | None] | None
#: what a product costs, about, and an element that is copied or stored
_PRODUCT_NS, _ELEMENT_NS = 0.012, 0.05


@lowers("Conv", blocks=True, wide=True)
def _conv(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    x, w, bias = inputs[0], inputs[1], inputs[2] if len(inputs) > 2 else None
    if x is None or w is None or not _compiles(x, w, bias):
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
    assert w.value is not None
    geometry = geometry_of(x.shape, w.shape[0], windows, groups)
    shape = (x.shape[0], w.shape[0], *windows.out)
    if groups > 1 and w.shape[1] == 1 and w.shape[0] == groups:
        window = tiles.choose_window(geometry, b.target)
        if window is not None:
            return [_depthwise(b, geometry, window, x, w.value, bias, shape)]
    return [_direct(b, geometry, x, [(w.value, geometry, 0, 1, 0)], bias, shape)]


def _compiles(x: Tensor, w: Tensor, bias: Tensor | None) -> bool:
    return (
        x.dtype == w.dtype == np.float32
        and w.value is not None
        and len(x.shape) in (3, 4)
        and len(w.shape) == len(x.shape)
        and x.size > 0
        and w.size > 0
        and (bias is None or (bias.value is not None and bias.dtype == np.float32 and len(bias.shape) == 1))
    )


def geometry_of(shape: Sequence[int], outputs: int, windows: Windows, groups: int = 1) -> Geometry:
    """The sizes in two dimensions; what windows reach beyond the padding is padding too."""
    ends = [
        max(e, (o - 1) * s + (k - 1) * d + 1 - n - b)
        for e, o, s, k, d, n, b in zip(
            windows.ends,
            windows.out,
            windows.strides,
            windows.kernel,
            windows.dilations,
            shape[2:],
            windows.begins,
            strict=True,
        )
    ]
    return Geometry(
        shape[0],
        shape[1],
        outputs,
        pair(shape[2:]),
        pair(windows.kernel),
        pair(windows.strides),
        pair(windows.dilations),
        pair(windows.begins, 0),
        pair(ends, 0),
        groups,
    )


def pair(values: Sequence[int], fill: int = 1) -> tuple[int, int]:
    """Of one or two spatial axes, two."""
    return (fill, values[0]) if len(values) == 1 else (values[0], values[1])


#: weights [K, C/groups, KH, KW], their geometry, where the output begins, its pixels' distance, elements between rows
Phase = tuple[Array, Geometry, int, int, int]


def _direct(
    b: Builder, geometry: Geometry, x: Tensor, phases: Sequence[Phase], bias: Tensor | None, shape: Sequence[int]
) -> Tensor:
    """One convolution, or several that each make some of the output's pixels."""
    lanes = b.target.lanes("float")
    groups = geometry.groups
    merge = packing.merged_groups(groups, geometry.channels // groups, geometry.outputs // groups, lanes)
    plain = not x.block and groups == merge and geometry.channels < lanes
    read = layout.pixels_dense(b, x) if plain else layout.memory(layout.blocked(b, x))
    forms: list[tuple[Form, Geometry, Tensor, int, int]] = []
    for w, phase, shift, spread, row in phases:
        phase = replace(phase, groups=groups // merge)
        form = tiles.choose_form(phase, b.target, plain)._replace(spread=spread)
        key = ("conv", b.identity(w), merge, lanes, form.block, form.blocks)
        kernel = (phase.kernel[0], phase.kernel[1])

        def packed(w: Array = w, form: Form = form, kernel: tuple[int, int] = kernel) -> Array:
            whole = packing.merge_weights(w.reshape(*w.shape[:2], *kernel), groups, merge)
            return packing.pack_weights(whole, lanes, form)

        forms.append((form, phase, b.packed(key, packed), shift, row))

    def plan(out: Tensor, n_threads: int) -> list[Part]:
        parts = []
        for form, phase, weights, shift, row in forms:
            words = tiles.words_of(phase, form, lanes)
            words |= {"x_image": read.strides[0], "out_image": out.strides[0], "out_plane": out.strides[1]}
            words["out_row"] = row or words["out_row"]
            named = {**words, "x": read.address(), "weights": weights.address(), "scratch": Scratch()}
            products = math.prod(phase.out) * phase.outputs * phase.channels // phase.groups * math.prod(phase.kernel)
            work = phase.images * products * _PRODUCT_NS
            units = words["images"] * words["bands"] * words["columns"]
            scratch = words["scratch_stride"] * 4
            parts.append(
                Part("conv", (tuple(form),), tuple(named[n] for n in conv.WORDS), work, units, scratch, shift * lanes)
            )
        return parts

    return _blockwise(b, [read, *(f[2] for f in forms)], bias, shape, plan)


def _depthwise(
    b: Builder,
    geometry: Geometry,
    window: sliding.Window,
    x: Tensor,
    w: Array,
    bias: Tensor | None,
    shape: Sequence[int],
) -> Tensor:
    lanes = b.target.lanes("float")
    read = layout.memory(layout.blocked(b, x))
    key = ("depthwise", b.identity(w), lanes)
    weights = b.packed(key, lambda: packing.block(np.moveaxis(w.reshape(-1, 1, *geometry.kernel), 0, 1), lanes))

    def plan(out: Tensor, n_threads: int) -> list[Part]:
        words = tiles.window_words(geometry, window, lanes)
        words |= {"x_image": read.strides[0], "out_image": out.strides[0]}
        named = {**words, "x": read.address(), "weights": weights.address(), "scratch": Scratch()}
        outputs = geometry.images * geometry.channels * math.prod(geometry.out)
        work = outputs * (math.prod(geometry.kernel) * 2 * _PRODUCT_NS + _ELEMENT_NS)
        units = words["images"] * words["blocks"] * words["bands"]
        scratch = words["scratch_stride"] * 4
        return [Part("depthwise", (tuple(window),), tuple(named[n] for n in sliding.WORDS), work, units, scratch)]

    return _blockwise(b, [read, weights], bias, shape, plan)


def _blockwise(b: Builder, read: list[Tensor], bias: Tensor | None, shape: Sequence[int], plan: object) -> Tensor:
    """Add the operation with its bias as an epilogue."""
    result = layout.in_blocks(b, shape)
    out = layout.memory(result)
    operands: list[Tensor] = []
    expression, kinds = identity("float32"), ()
    if bias is not None:
        expression = Expression(("float32",) * 2, (Instruction("add", (0, 1), "float32"),), (2,))
        column = bias.reshaped((bias.size, *(1 for _ in shape[2:])))
        inner = layout.by_channel(b, column, shape, result.block)
        assert inner is not None
        operands.append(inner.broadcast(out.shape))
        kinds = (CHANNEL,)  # type: ignore[assignment]
    b.add(Blockwise([*read, *operands], [out], len(read), expression, kinds, plan))  # type: ignore[arg-type]
    return result


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
        full = [s * (n - 1) + e + k for n, k, s, e in zip(size, kernel, strides, extra, strict=True)]
        begins, out = transposed_extent(
            size, full, strides, a.get("auto_pad", "NOTSET"), a.get("output_shape"), a.get("pads")
        )
    except (InvalidInput, Failed):
        return None
    if max(dilations) > 1 or groups < 1 or w.shape[0] != x.shape[1] or x.shape[1] % groups or min(begins) < 0:
        return None
    if tuple(a.get("kernel_shape") or kernel) != tuple(kernel) or min(out) < 1:
        return None
    assert w.value is not None
    outputs = w.shape[1] * groups
    steps, pads, sizes = pair(strides), pair(begins, 0), pair(size)
    whole = pair(out)
    # [K, C/groups, KH, KW]
    weights = w.value.reshape(groups, x.shape[1] // groups, w.shape[1], *pair(kernel))
    weights = np.swapaxes(weights, 1, 2).reshape(outputs, -1, *pair(kernel))
    axes = [
        [_phase(r, step, pad, k, n, o) for r in range(min(step, o))]
        for step, pad, k, n, o in zip(steps, pads, pair(kernel), sizes, whole, strict=True)
    ]
    if any(phase is None for axis in axes for phase in axis):
        return None
    phases: list[Phase] = []
    for row, vertical in enumerate(axes[0]):
        for column, horizontal in enumerate(axes[1]):
            assert vertical is not None and horizontal is not None
            places = [vertical[0], horizontal[0]]
            part = b.packed(
                ("phase", b.identity(w.value), row, column, steps, pads, groups),
                lambda places=places: _taps(weights, places),
            ).value
            assert part is not None
            geometry = Geometry(
                x.shape[0],
                x.shape[1],
                outputs,
                sizes,
                (len(places[0]), len(places[1])),
                begins=(vertical[1], horizontal[1]),
                ends=(vertical[2], horizontal[2]),
                groups=groups,
                apart=True,
            )
            row_size = steps[0] * whole[1] * b.target.lanes("float")
            phases.append((part, geometry, row * whole[1] + column, steps[1], row_size))
    shape = (x.shape[0], outputs, *out)
    return [_direct(b, phases[0][1], x, phases, bias, shape)]


def _phase(r: int, step: int, pad: int, kernel: int, size: int, out: int) -> tuple[list[int], int, int] | None:
    """Outputs ``r``, ``r + step``, … of an axis: kernel elements in the order of the input, padding to both sides."""
    first = (r + pad) % step
    places = list(range(first, kernel, step))[::-1]
    shift = (r + pad - first) // step
    count = -(-(out - r) // step)
    if not places:
        places, shift = [-1], 0
    before = len(places) - 1 - shift
    if before < 0:
        return None
    return places, before, count - 1 + len(places) - size - before


def _taps(weights: Array, places: Sequence[Sequence[int]]) -> Array:
    """Some kernel elements; those of number -1 are zero."""
    padded = np.pad(weights, [(0, 0), (0, 0), (0, 1), (0, 1)])
    return np.ascontiguousarray(padded[:, :, places[0]][:, :, :, places[1]])
