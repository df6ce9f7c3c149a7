"""Images between their pixels, and regions of them: GridSample, DeformConv, CropAndResize, RoiAlign, MaxRoiPool;
AffineGrid, Col2Im."""

from __future__ import annotations

import math

import numpy as np

from distort.graph.ir import Node
from distort.kernels import convolve, windows
from distort.kernels.compiler.builder import Builder, lowers
from distort.kernels.compiler.codegen.sampling import CORNERS, EDGES, PIXELS
from distort.kernels.compiler.ir import Call, ErrorWord, Native, Tensor, Word
from distort.kernels.compiler.keys import Key
from distort.kernels.compiler.lower.views import numbers, reshape
from distort.kernels.compiler.products import multiply
from distort.kernels.errors import Failed, InvalidInput

Result = list[Tensor | None] | None

_CHUNK = 256
_TAP_NS = 0.5
#: of an operator -> of the kernel, and how many pixels that reads
_MODES = {"linear": "linear", "bilinear": "linear", "nearest": "nearest", "cubic": "cubic", "bicubic": "cubic"}
_TAPS = {"nearest": 1, "linear": 4, "cubic": 16}
#: a place that no pixel is near to
_FAR = -16.0


@lowers("GridSample")
@lowers("GridSample", domain="com.microsoft")
def _grid_sample(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    x, grid = inputs
    mode, padding = node.attributes.get("mode", "linear"), node.attributes.get("padding_mode", "zeros")
    if x is None or grid is None or x.dtype != np.float32 or grid.dtype != np.float32 or len(x.shape) != 4:
        return None
    if len(grid.shape) != 4 or grid.shape[3] != 2 or grid.shape[0] != x.shape[0]:
        return None
    if mode not in _MODES or padding not in ("zeros", "border", "reflection"):
        return None
    n, c = x.shape[:2]
    result = b.new(x.dtype, (n, c, *grid.shape[1:3]))
    if not _has_pixels(x):
        return None
    if result.size:
        points = CORNERS if node.attributes.get("align_corners", 0) else EDGES
        sample(b, b.contiguous(b.plain(x)), b.contiguous(b.plain(grid)), _MODES[mode], padding, points, result)
    return [result]


def _has_pixels(x: Tensor) -> bool:
    """That 32 bits address."""
    return bool(x.size) and math.prod(x.shape[2:]) < 1 << 31


def sample(
    b: Builder,
    x: Tensor,
    grid: Tensor,
    mode: str,
    padding: str,
    points: str,
    result: Tensor,
    images: Tensor | None = None,
) -> None:
    """x [N, C, H, W] between its pixels -> result [N, C, …]; ``images``: those that grids are of, int32.

    All of them contiguous. ``grid`` and ``points``: see ``codegen.sampling``.
    """
    b.sampled(x, grid, mode, padding, points, result, images)


def sampled_kernel(
    b: Builder,
    x: Tensor,
    grid: Tensor,
    mode: str,
    padding: str,
    points: str,
    result: Tensor,
    images: Tensor | None,
) -> None:
    """As :func:`sample`."""
    n, c = result.shape[:2]
    n_points = math.prod(result.shape[2:])
    chunk = min(_CHUNK, n_points)
    words: list[Word] = [n, c, n_points, chunk, x.address(), *x.shape[2:], grid.address(), result.address()]
    inputs = [x, grid]
    if images is not None:
        words += [images.address(), x.shape[0], ErrorWord()]
        inputs.append(images)
    key = Key("grid_sample", (mode, padding, points, images is not None))
    work = result.size * _TAP_NS * _TAPS[mode]
    b.add(Native(inputs, [result], [Call(key, words, work, most_threads=n * -(-n_points // chunk))]))


@lowers("DeformConv")
def _deform_conv(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    """Pixels where windows look, as columns of a product with the weights."""
    x, w, offset, bias, mask = [*inputs, None, None][:5]
    a = node.attributes
    if x is None or w is None or offset is None or len(x.shape) != 4 or len(w.shape) != 4 or not w.size:
        return None
    if any(t is not None and t.dtype != np.float32 for t in inputs) or not _has_pixels(x):
        return None
    groups, parts = a.get("group", 1), a.get("offset_group", 1)
    try:
        found = convolve.windows_of_convolution(
            *(x.shape, w.shape, groups, a.get("kernel_shape"), a.get("strides"), a.get("dilations"), a.get("pads")),
            "NOTSET",
        )
    except (InvalidInput, Failed):
        return None
    n, channels = x.shape[:2]
    taps, places = math.prod(found.kernel), math.prod(found.out)
    if parts < 1 or channels % parts or not places or offset.shape != (n, parts * taps * 2, *found.out):
        return None
    if mask is not None and mask.shape != (n, parts * taps, *found.out):
        return None
    if bias is not None and bias.shape != w.shape[:1]:
        return None
    # where each tap of each window lies without offsets
    regular = np.zeros((2, *found.kernel, *found.out), np.float32)
    for axis in (0, 1):
        tap = np.arange(found.kernel[axis]) * found.dilations[axis] - found.begins[axis]
        place = np.arange(found.out[axis]) * found.strides[axis]
        shape = [1, 1, 1, 1]
        shape[axis] = len(tap)
        regular[axis] += tap.reshape(shape)
        shape = [1, 1, 1, 1]
        shape[2 + axis] = len(place)
        regular[axis] += place.reshape(shape)
    shifts = b.contiguous(b.plain(offset)).reshaped((n, parts, taps, 2, places)).permuted([0, 1, 3, 2, 4])
    at = b.map("add", [shifts, b.constant(regular.reshape(2, taps, places))])
    columns = b.new(np.float32, (n * parts, channels // parts, taps, places))
    images = b.contiguous(b.plain(x)).reshaped((n * parts, channels // parts, *x.shape[2:]))
    sample(b, images, b.contiguous(at), "linear", "zeros", PIXELS, columns)
    if mask is not None:
        by = b.contiguous(b.plain(mask)).reshaped((n * parts, 1, taps, places))
        columns = b.contiguous(b.map("mul", [columns, by]))
    each = w.shape[0] // groups
    matrix = reshape(b, w, (groups, each, w.size // w.shape[0]))
    made = multiply(b, matrix, columns.reshaped((n, groups, channels // groups * taps, places)))
    if made is None:
        return None
    made = b.contiguous(made).reshaped((n, w.shape[0], *found.out))
    return [made if bias is None else b.map("add", [made, reshape(b, bias, (bias.size, 1, 1))])]


@lowers("CropAndResize", domain="com.microsoft")
def _crop_and_resize(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    x, regions, images, size = inputs[0], inputs[1], inputs[2], numbers(inputs[3])
    mode, beyond = node.attributes.get("mode", "bilinear"), float(node.attributes.get("extrapolation_value", 0.0))
    if x is None or regions is None or images is None or size is None or len(size) != 2 or min(size) < 1:
        return None
    if x.dtype != np.float32 or len(x.shape) != 4 or regions.dtype != np.float32 or images.dtype != np.int32:
        return None
    n = regions.shape[0] if regions.shape else 0
    if regions.shape != (n, 4) or images.shape != (n,) or not n or mode not in ("bilinear", "nearest"):
        return None
    if not _has_pixels(x):
        return None
    regions = b.plain(regions)
    at = b.new(np.float32, (n, 2, *size))
    inside: list[Tensor] = []
    for axis in (0, 1):
        ends = [regions.view((n, 1), (regions.strides[0], 0), (axis + 2 * i) * regions.strides[1]) for i in (0, 1)]
        found, within = _places(b, ends[0], ends[1], x.shape[2 + axis], size[axis], mode == "nearest")
        shape = (n, size[0], size[1])
        steps = (found.strides[0], found.strides[1], 0) if axis == 0 else (found.strides[0], 0, found.strides[1])
        b.copy(found.view(shape, steps), at.view(shape, (at.strides[0], *at.strides[2:]), axis * at.strides[1]))
        inside.append(within.view((n, 1, *shape[1:]), (steps[0], 0, *steps[1:])))
    result = b.new(np.float32, (n, x.shape[1], *size))
    indices = b.contiguous(b.plain(images))
    sample(b, b.contiguous(b.plain(x)), at, _MODES[mode], "zeros", PIXELS, result, indices)
    if beyond:
        seen = b.map("and", inside)
        return [b.map("where", [seen, result, b.constant(np.asarray(beyond, np.float32))], np.float32)]
    return [result]


def _places(b: Builder, first: Tensor, last: Tensor, n: int, count: int, nearest: bool) -> tuple[Tensor, Tensor]:
    """([R, count] places in an axis of n pixels, far off where they are outside, and whether they are inside)."""

    def number(value: float) -> Tensor:
        return b.constant(np.asarray(value, np.float32))

    if count > 1:
        step = b.map("div", [b.map("mul", [b.map("sub", [last, first]), number(n - 1)]), number(count - 1)])
        along = b.constant(np.arange(count, dtype=np.float32))
        at = b.map("add", [b.map("mul", [first, number(n - 1)]), b.map("mul", [along, step])])
    else:
        at = b.map("mul", [b.map("mul", [number(0.5), b.map("add", [first, last])]), number(n - 1)])
    low, high = (
        b.map(how, [at, number(end)], np.bool_) for how, end in (("greater_or_equal", 0), ("less_or_equal", n - 1))
    )
    within = b.map("and", [low, high])
    if nearest:  # halves go up
        at = b.map("floor", [b.map("add", [at, number(0.5)])])
    return b.contiguous(b.map("where", [within, at, number(_FAR)], np.float32)), b.contiguous(within)


@lowers("AffineGrid")
def _affine_grid(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    """theta [N, rank, rank + 1] times (…, row, 1) of each pixel, the last axis first: [N, *size, rank]"""
    theta, size = inputs[0], numbers(inputs[1])
    if theta is None or size is None or len(size) not in (4, 5) or theta.dtype != np.float32 or min(size) < 1:
        return None
    n, _, *out = size
    rank = len(out)
    if theta.shape != (n, rank, rank + 1):
        return None
    theta = b.plain(theta)
    ones = (1,) * rank
    by = [
        theta.view((n, rank, *ones), (*theta.strides[:2], *(0,) * rank), which * theta.strides[2])
        for which in range(rank + 1)
    ]
    made = by[rank]
    for axis, count in enumerate(out):
        along = (2 * np.arange(count) + 1) / count - 1
        if node.attributes.get("align_corners", 0) and count > 1:
            along = np.linspace(-1, 1, count)
        places = b.constant(along.astype(np.float32).reshape(1, 1, *ones[:axis], -1, *ones[axis + 1 :]))
        made = b.map("add", [b.map("mul", [places, by[rank - 1 - axis]]), made])
    return [b.contiguous(made.permuted([0, *range(2, 2 + rank), 1]))]


@lowers("RoiAlign", blocks=True, wide=True)
def _roi_align(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    x, regions, images = inputs
    a = node.attributes
    usual = "half_pixel" if node.opset >= 16 else "output_half_pixel"  # before, no pixel was shifted
    way, mode = a.get("coordinate_transformation_mode", usual), a.get("mode", "avg")
    if x is None or regions is None or images is None or x.dtype != np.float32 or regions.dtype != np.float32:
        return None
    if len(x.shape) != 4 or len(regions.shape) != 2 or regions.shape[1] != 4 or images.dtype != np.int64:
        return None
    if (
        images.shape != regions.shape[:1]
        or mode not in ("avg", "max")
        or way not in ("half_pixel", "output_half_pixel")
    ):
        return None
    bins = (int(a.get("output_height", 1)), int(a.get("output_width", 1)))
    samples = max(int(a.get("sampling_ratio", 0)), 0)
    if not x.size or min(bins) < 1 or max(x.shape) >= 1 << 24:
        return None
    shape = (regions.shape[0], x.shape[1], *bins)
    if not regions.size:
        return [b.new(x.dtype, shape)]
    read, (result, out) = b.by_channels(x), b.room_by_channels(shape)
    regions, images = b.contiguous(b.plain(regions)), b.contiguous(b.plain(images))
    scale = int(np.float32(a.get("spatial_scale", 1.0)).view(np.int32))
    words: list[Word] = [read.address(), regions.address(), images.address(), out.address(), ErrorWord()]
    words += [regions.shape[0], *read.shape[:4], *bins, samples, scale, *read.strides[:2], *out.strides[:2]]
    n_units = regions.shape[0] * bins[0]
    work = math.prod(out.shape[:4]) * (samples or 2) ** 2 * 4 * _TAP_NS
    call = Call(Key("roi_align", (mode == "max", way == "half_pixel")), words, work, most_threads=n_units)
    b.add(Native([read, regions, images], [out], [call]))
    return [result]


@lowers("MaxRoiPool", blocks=True)
def _max_roi_pool(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    x, regions = inputs
    bins, scale = [int(n) for n in node.attributes.get("pooled_shape", ())], node.attributes.get("spatial_scale", 1.0)
    if x is None or regions is None or x.dtype != np.float32 or regions.dtype != np.float32 or len(x.shape) != 4:
        return None
    if len(regions.shape) != 2 or regions.shape[1] != 5 or len(bins) != 2 or min(bins) < 1 or not x.size:
        return None
    shape = (regions.shape[0], x.shape[1], *bins)
    if not regions.size:
        return [b.new(x.dtype, shape)]
    read, (result, out), regions = b.by_channels(x), b.room_by_channels(shape), b.contiguous(b.plain(regions))
    words: list[Word] = [read.address(), regions.address(), out.address(), ErrorWord(), regions.shape[0]]
    words += [*read.shape[:4], *bins, int(np.float64(scale).view(np.int64)), *read.strides[:2], *out.strides[:2]]
    n_units = regions.shape[0] * bins[0]
    work = math.prod(out.shape[:4]) * max(1.0, math.prod(x.shape[2:]) / math.prod(bins) / 4) * _TAP_NS
    b.add(Native([read, regions], [out], [Call(Key("max_roi_pool", ()), words, work, most_threads=n_units)]))
    return [result]


@lowers("Col2Im")
def _col2im(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    columns, size, block = inputs[0], numbers(inputs[1]), numbers(inputs[2])
    a = node.attributes
    if columns is None or not size or not block or len(size) != len(block) or len(size) > 2 or min(size + block) < 1:
        return None
    if columns.element not in ("float32", "float64") or len(columns.shape) != 3 or not columns.size:
        return None
    rank, taps = len(size), math.prod(block)
    try:
        strides = windows.spatial_attribute("strides", a.get("strides"), rank)
        dilations = windows.spatial_attribute("dilations", a.get("dilations"), rank)
        begins, ends = windows.explicit_pads(a.get("pads"), rank)
    except InvalidInput:
        return None
    counts = [
        (n + begin + end - (k - 1) * d - 1) // s + 1
        for n, k, s, d, begin, end in zip(size, block, strides, dilations, begins, ends, strict=True)
    ]
    if min(counts) < 1 or columns.shape[1] % taps or columns.shape[2] != math.prod(counts):
        return None
    planes = columns.shape[0] * (columns.shape[1] // taps)
    result = b.new(columns.dtype, (columns.shape[0], columns.shape[1] // taps, *size))
    columns = b.contiguous(b.plain(columns))
    words: list[Word] = [columns.address(), result.address(), planes]
    for pair, usual in ((size, 1), (block, 1), (counts, 1), (strides, 1), (dilations, 1), (begins, 0)):
        words += [*[usual] * (2 - rank), *pair]
    key = Key("fold", (columns.element, strides[-1] == 1))
    work = columns.size * (0.15 if strides[-1] == 1 else 0.8)
    b.add(Native([columns], [result], [Call(key, words, work, most_threads=planes)]))
    return [result]
