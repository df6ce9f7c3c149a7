"""Convolutions and pools of three dimensions, as those of images: see ``depths``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product

import numpy as np

from distort.kernels.compiler import layout, tiles, windowed
from distort.kernels.compiler.blocked import Geometry
from distort.kernels.compiler.builder import Builder
from distort.kernels.compiler.codegen import pooling
from distort.kernels.compiler.codegen.winograd import Tiles
from distort.kernels.compiler.depths import flat, slabs_of, volume
from distort.kernels.compiler.ir import Array, Tensor
from distort.kernels.compiler.lower.padding import padded
from distort.kernels.compiler.windowed import Deep, Phase, geometry_of
from distort.kernels.windows import Windows

#: a convolution of images: x, weights, windows, bias
OfImages = Callable[[Tensor, Array, Windows, Tensor | None], Tensor]


def images_of(b: Builder, x: Tensor) -> Tensor:
    """The images of a volume, in blocks where there are enough channels."""
    lanes = b.target.lanes("float")
    found = flat(layout.blocked(b, x) if x.shape[1] >= lanes else x)
    if found is not None:
        return found
    n, c, d, h, w = x.shape
    return b.contiguous(b.plain(x).permuted((0, 2, 1, 3, 4))).reshaped((n * d, c, h, w))


def of_images(windows: Windows) -> Windows:
    """Without the depth."""
    return Windows(
        windows.kernel[1:],
        windows.strides[1:],
        windows.dilations[1:],
        windows.begins[1:],
        windows.ends[1:],
        windows.out[1:],
    )


def _has_no_depth(windows: Windows) -> bool:
    return (windows.kernel[0], windows.begins[0], windows.ends[0]) == (1, 0, 0)


def _chosen(b: Builder, x: Tensor, windows: Windows) -> Tensor | None:
    """The images that a kernel without depth looks at. None where they are not equally far apart."""
    n, _, d, _, _ = x.shape
    step, out = windows.strides[0], windows.out[0]
    if step > 1 and n > 1 and d % step:
        return None
    images = images_of(b, x)
    made = images.view((n * out, *images.shape[1:]), (images.strides[0] * step, *images.strides[1:]))
    made.block = images.block
    return made


def convolution(
    b: Builder,
    x: Tensor,
    w: Array,
    bias: Tensor | None,
    windows: Windows,
    groups: int,
    of_each_image: OfImages,
) -> Tensor | None:
    """``w``: [K, C/groups, KD, KH, KW]; ``of_each_image`` does one whose kernel has no depth."""
    n, c, d, *size = x.shape
    outputs = w.shape[0]
    shape = (n, outputs, *windows.out)
    inside = of_images(windows)
    if _has_no_depth(windows):
        images = _chosen(b, x, windows)
        flat_weights = b.packed(("flat", b.identity(w)), lambda: w.reshape(*w.shape[:2], *w.shape[3:])).value
        assert flat_weights is not None
        made = None if images is None else of_each_image(images, flat_weights, inside, bias)
        return None if made is None else volume(made, shape)
    geometry = geometry_of((1, c, *size), outputs, inside, groups)
    kernel, step, begin, dilation = (v[0] for v in (windows.kernel, windows.strides, windows.begins, windows.dilations))
    depthwise = groups > 1 and w.shape[1] == 1 and outputs == groups
    if not depthwise and (groups > 1 or dilation > 1):
        made = _by_taps(b, x, w, windows, of_each_image, bias) if n == 1 else None
        return None if made is None else volume(made, shape)
    slabs = slabs_of(n, d, windows.out[0], kernel, step, begin, dilation)
    if slabs is None:
        return None
    flat_shape = (n * windows.out[0], outputs, *windows.out[1:])
    if depthwise:
        window = tiles.choose_window(geometry, b.target, b.varied)._replace(deep=True)
        if window.copied:
            return None
        deep = Deep(slabs, kernel, dilation)
        made = windowed.depthwise(b, geometry, window, images_of(b, x), w, bias, flat_shape, deep)
        return volume(made, shape)
    phases = []
    for slab in slabs:
        taps = tuple(range(*slab.taps))
        part = _of_taps(b, w, taps)
        phases.append(Phase(part, replace(geometry, images=slab.n_images), slab=slab))
    return volume(_products(b, images_of(b, x), geometry, phases, bias, flat_shape), shape)


def _by_taps(
    b: Builder, x: Tensor, w: Array, windows: Windows, of_each_image: OfImages, bias: Tensor | None
) -> Tensor | None:
    """The sum of convolutions of images, one for each kernel element of the depth. x: one volume."""
    begin, end = windows.begins[0], windows.ends[0]
    step, dilation, out = windows.strides[0], windows.dilations[0], windows.out[0]
    beyond = max(end, (out - 1) * step + (windows.kernel[0] - 1) * dilation + 1 - x.shape[2] - begin)
    images = images_of(b, x)
    inner = layout.memory(images) if images.block else images
    others = [0] * (len(inner.shape) - 1)
    source = padded(b, inner, [begin, *others], [beyond, *others], "constant", None)
    if source is None:
        return None
    total: Tensor | None = None
    for tap in range(windows.kernel[0]):
        strides = (source.strides[0] * step, *source.strides[1:])
        seen = source.view((out, *source.shape[1:]), strides, tap * dilation * source.strides[0])
        seen = layout.of_memory(seen, images.shape[1]) if images.block else seen
        part = of_each_image(seen, _of_taps(b, w, (tap,)), of_images(windows), None if tap else bias)
        total = part if total is None else b.map("add", [total, part])
    return total


def _products(
    b: Builder, images: Tensor, geometry: Geometry, phases: list[Phase], bias: Tensor | None, shape: Sequence[int]
) -> Tensor:
    """By Winograd's way where all phases had better be done so."""
    lanes = b.target.lanes("float")
    squares: list[tuple[Tiles, Phase]] = []
    if images.block or images.shape[1] >= lanes:
        channels = -(-images.shape[1] // lanes) * lanes
        for phase in phases:
            assert phase.slab is not None
            n_taps = phase.slab.taps[1] - phase.slab.taps[0]
            wide = replace(phase.geometry, channels=channels * n_taps)
            square = tiles.choose_tiles(wide, b.target, b.settled("winograd", phase.weights))
            if square is not None:
                squares.append((square, phase._replace(geometry=wide)))
    if squares and len(squares) == len(phases):
        return windowed.transformed(b, images, squares, bias, shape)
    return windowed.direct(b, geometry, images, phases, bias, shape)


def _of_taps(b: Builder, w: Array, taps: tuple[int, ...], *key: object) -> Array:
    """[K, C, KD, KH, KW] as [K, taps · C, KH, KW]; the tap of number -1 is zero."""

    def make() -> Array:
        padded = np.pad(w, [(0, 0), (0, 0), (0, 1), (0, 0), (0, 0)]) if -1 in taps else w
        chosen = padded[:, :, list(taps)].transpose(0, 2, 1, 3, 4)
        return np.ascontiguousarray(chosen).reshape(w.shape[0], -1, *w.shape[3:])

    part = b.packed(("taps", b.identity(w), taps, *key), make).value
    assert part is not None
    return part


#: outputs r, r + step, … of an axis: kernel elements in the order of the input, padding to both sides
AxisPhase = tuple[list[int], int, int]


def transposed(
    b: Builder,
    x: Tensor,
    weights: Array,
    axes: Sequence[Sequence[AxisPhase]],
    steps: Sequence[int],
    bias: Tensor | None,
    out: Sequence[int],
) -> Tensor | None:
    """``weights``: [K, C, KD, KH, KW]; ``axes``: phases of each. See ``lower.transposed_convolution``."""
    n, c, d, *size = x.shape
    outputs = weights.shape[0]
    phases: list[Phase] = []
    for (first, deep), (row, high), (column, wide) in product(*map(enumerate, axes)):
        taps, begin, _ = deep
        count = -(-(out[0] - first) // steps[0])
        slabs = slabs_of(n, d, count, len(taps), 1, begin)
        if slabs is None:
            return None
        places = np.ix_(range(outputs), range(c), range(weights.shape[2]), high[0], wide[0])

        def part(places: tuple[Array, ...] = places) -> Array:
            padded = np.pad(weights, [(0, 0), (0, 0), (0, 0), (0, 1), (0, 1)])
            return np.ascontiguousarray(padded[places])

        key = ("phase of volumes", b.identity(weights), row, column, tuple(high[0]), tuple(wide[0]))
        kept = b.packed(key, part).value
        assert kept is not None
        geometry = Geometry(
            1,
            c,
            outputs,
            (size[0], size[1]),
            (len(high[0]), len(wide[0])),
            begins=(high[1], wide[1]),
            ends=(high[2], wide[2]),
            apart=True,
        )
        for slab in slabs:
            image = slab.out // count * out[0] + first + slab.out % count * steps[0]
            moved = slab._replace(out=image, out_step=steps[0])
            chosen = _of_taps(b, kept, tuple(taps[slice(*slab.taps)]))
            lanes = b.target.lanes("float")
            phases.append(
                Phase(
                    chosen,
                    replace(geometry, images=slab.n_images),
                    row * out[2] + column,
                    steps[2],
                    steps[1] * out[2] * lanes,
                    moved,
                )
            )
    images = images_of(b, x)
    made = windowed.direct(b, phases[0].geometry, images, phases, bias, (n * out[0], outputs, *out[1:]))
    return volume(made, (n, outputs, *out))


def pool(b: Builder, x: Tensor, windows: Windows, mode: str) -> Tensor | None:
    n, c, d, *size = x.shape
    kernel, step, begin, dilation = (v[0] for v in (windows.kernel, windows.strides, windows.begins, windows.dilations))
    slabs = slabs_of(n, d, windows.out[0], kernel, step, begin, dilation)
    geometry = geometry_of((1, c, *size), c, of_images(windows))
    window = tiles.choose_window(geometry, b.target, b.varied)._replace(deep=True)
    beyond = (windows.out[0] - 1) * step - begin + (kernel - 1) * dilation >= d + windows.ends[0]
    if slabs is None or window.copied or (beyond and mode == pooling.MEAN_PADDED):
        return None
    counts = [kernel] * len(slabs) if mode == pooling.MEAN_PADDED else None
    deep = Deep(slabs, kernel, dilation, counts)
    images = flat(layout.blocked(b, x))
    if images is None:
        return None
    shape = (n * windows.out[0], c, *windows.out[1:])
    pads = windows.ends[1], windows.ends[2]
    made = windowed.pool(b, geometry, window, layout.memory(images), shape, mode, *pads, deep)
    return volume(made, (n, c, *windows.out))


__all__ = ["convolution", "images_of", "pool", "transposed"]
