"""Operators over windows of images: Conv, pools, Resize and what samples from images. Samples lie along axis 0."""

from __future__ import annotations

from collections.abc import Sequence

from .rules import MICROSOFT, Site, rule
from .values import Element, Size, Tensor, Value, normalized


def leading(site: Site, position: int = 0) -> Tensor:
    """An input [N, C, ...] whose samples lie along axis 0."""
    value = site.tensor(position)
    if value.axis not in (None, 0):
        site.refuse(f"it mixes what lies along axis {value.axis}, the batch axis")
    return value


def _windows(site: Site, dims: Sequence[int | None], kernel: Sequence[int | None]) -> list[int | None]:
    """Sizes after a convolution or a pool."""
    n = len(dims)
    strides = site.attribute("strides") or [1] * n
    dilations = site.attribute("dilations") or [1] * n
    pads = site.attribute("pads") or [0] * (2 * n)
    auto = site.attribute("auto_pad", "NOTSET")
    made: list[int | None] = []
    for i, (dim, window) in enumerate(zip(dims, kernel, strict=True)):
        if dim is None or window is None:
            made.append(None)
            continue
        extent = (window - 1) * dilations[i] + 1
        if auto in ("SAME_UPPER", "SAME_LOWER"):
            made.append(-(-dim // strides[i]))
            continue
        room = dim - extent + (pads[i] + pads[i + n] if auto == "NOTSET" else 0)
        if site.attribute("ceil_mode", 0):
            count = -(-room // strides[i]) + 1
            # onnx's versions differ on a last window that begins in the padding
            in_padding = (count - 1) * strides[i] >= dim + pads[i]
            made.append(None if in_padding else count)
        else:
            made.append(room // strides[i] + 1)
    return made


def _convolved(site: Site, weights: int) -> Tensor:
    value, kernel = leading(site), site.tensor(weights)
    if value.shape is None:
        return Tensor()
    shape = kernel.shape or (None,) * value.rank
    if len(shape) != value.rank:
        site.refuse("its weights don't fit its input")
    return Tensor((value.dims[0], shape[0], *_windows(site, value.dims[2:], shape[2:])), value.axis)


@rule("Conv", "ConvInteger")
def conv(site: Site) -> Value:
    return _convolved(site, 1)


@rule("QLinearConv")
def quantized_conv(site: Site) -> Value:
    if site.attribute("channels_last", 0):
        site.refuse("channels last have no rule")
    return _convolved(site, 3)


@rule("FusedConv", domain=MICROSOFT, samples=(0, 3))
def fused_conv(site: Site) -> Value:
    value = _convolved(site, 1)
    added = site.optional(3)
    if added is not None and (added.axis, added.axis is not None and added.rows) != (
        value.axis,
        value.axis is not None and value.rows,
    ):
        site.refuse("what it adds isn't made of the same samples")
    return value


@rule("DeformConv", samples=(0, 2, 4))
def deformed_conv(site: Site) -> Value:
    value = _convolved(site, 1)
    for position in (2, 4):
        given = site.optional(position)
        if given is not None and (given.axis != value.axis or (given.axis is not None and given.rows != value.rows)):
            site.refuse("its offsets or its mask are not those of the samples")
    return value


@rule("ConvTranspose")
def conv_transpose(site: Site) -> Value:
    value, kernel = leading(site), site.tensor(1)
    n = value.rank - 2
    strides = site.attribute("strides") or [1] * n
    dilations = site.attribute("dilations") or [1] * n
    added = site.attribute("output_padding") or [0] * n
    pads = site.attribute("pads") or [0] * (2 * n)
    shape = kernel.shape or (None,) * value.rank
    asked = site.attribute("output_shape")
    auto = site.attribute("auto_pad", "NOTSET")
    dims: list[int | None] = []
    for i in range(n):
        dim, window = value.dims[2 + i], shape[2 + i]
        if asked:
            dims.append(asked[len(asked) - n + i])
        elif dim is None or window is None:
            dims.append(None)
        elif auto in ("SAME_UPPER", "SAME_LOWER"):
            dims.append(dim * strides[i])
        else:
            total = strides[i] * (dim - 1) + added[i] + (window - 1) * dilations[i] + 1
            dims.append(total - (pads[i] + pads[i + n] if auto == "NOTSET" else 0))
    channels = None if shape[1] is None else shape[1] * site.attribute("group", 1)
    return Tensor((value.dims[0], channels, *dims), value.axis)


@rule("AveragePool", "LpPool", "MaxPool")
def pool(site: Site) -> Sequence[Value]:
    value = leading(site)
    if value.axis is not None and site.node.op_type == "MaxPool" and site.wants(1):
        site.refuse("its second output numbers the elements of all samples")
    kernel = site.attribute("kernel_shape") or [None] * (value.rank - 2)
    result = Tensor((*value.dims[:2], *_windows(site, value.dims[2:], kernel)), value.axis)
    return [result, result][: len(site.node.outputs)]


@rule("QLinearAveragePool", domain=MICROSOFT)
def quantized_pool(site: Site) -> Value:
    value = leading(site)
    if site.attribute("channels_last", 0):
        site.refuse("channels last have no rule")
    return Tensor((*value.dims[:2], *_windows(site, value.dims[2:], site.attribute("kernel_shape"))), value.axis)


@rule("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")
def global_pool(site: Site) -> Value:
    value = leading(site)
    return Tensor((*value.dims[:2], *(1 for _ in value.dims[2:])), value.axis)


@rule("QLinearGlobalAveragePool", domain=MICROSOFT)
def quantized_global_pool(site: Site) -> Value:
    if site.attribute("channels_last", 0):
        site.refuse("channels last have no rule")
    return global_pool(site)


#: modes in which a scale of 1 takes every element from its own place
_STEADY = frozenset(("half_pixel", "half_pixel_symmetric", "asymmetric", "align_corners", "pytorch_half_pixel"))


@rule("Resize", sizes=(3,))
def resize(site: Site) -> Value:
    value = site.tensor()
    if site.node.opset < 11:
        return _rescaled(site, value, site.inputs[1] if site.has(1) else None)
    mode = site.attribute("coordinate_transformation_mode", "half_pixel")
    axes = list(range(value.rank))
    if site.attribute("axes") is not None:
        axes = [normalized(axis, value.rank) for axis in site.attribute("axes")]
    touches = value.axis in axes
    if touches and mode not in _STEADY:
        site.refuse(f"{mode} may move samples")
    if not site.has(3):
        return _rescaled(site, value, site.inputs[2] if site.has(2) else None, axes)
    if touches and site.attribute("keep_aspect_ratio_policy", "stretch") != "stretch":
        site.refuse("it scales all axes, the batch axis too, by one factor")
    sizes = site.elements(3)
    dims = list(value.dims)
    for i, axis in enumerate(axes):
        size: Element = None if sizes is None or len(sizes) != len(axes) else sizes[i]
        if axis == value.axis:
            if size != Size(value.rows):
                site.refuse("it resizes the batch axis, or fixes its size")
        elif isinstance(size, Size):
            site.refuse("it resizes an axis by the batch size")
        else:
            dims[axis] = size if site.attribute("keep_aspect_ratio_policy", "stretch") == "stretch" else None
    return Tensor(tuple(dims), value.axis)


def _rescaled(site: Site, value: Tensor, scales: Value | None, axes: Sequence[int] | None = None) -> Tensor:
    axes = list(range(value.rank)) if axes is None else axes
    factors = None
    if isinstance(scales, Tensor) and scales.array is not None and scales.array.size == len(axes):
        factors = [float(item) for item in scales.array.reshape(-1)]
    return _by_factors(site, value, factors, axes)


def _by_factors(site: Site, value: Tensor, factors: Sequence[float] | None, axes: Sequence[int]) -> Tensor:
    dims = list(value.dims)
    for i, axis in enumerate(axes):
        factor = None if factors is None else factors[i]
        if axis == value.axis:
            if factor != 1:
                site.refuse("it resizes the batch axis, or by a factor that isn't known")
            continue
        dim = dims[axis]
        if factor == 1:
            continue
        # a product that is nearly a whole number may be rounded either way
        exact = None if dim is None or factor is None else dim * factor
        sure = exact is not None and factor is not None and (factor.is_integer() or 0.01 < exact % 1 < 0.99)
        dims[axis] = int(exact) if sure and exact is not None else None
    return Tensor(tuple(dims), value.axis)


@rule("Upsample")
def upsample(site: Site) -> Value:
    value = site.tensor()
    if site.node.opset >= 9:
        return _rescaled(site, value, site.inputs[1] if site.has(1) else None)
    scales = site.attribute("scales")
    return _by_factors(site, value, scales, list(range(value.rank)))


@rule("GridSample", samples=(0, 1))
def grid_sample(site: Site) -> Value:
    value, grid = leading(site), leading(site, 1)
    if value.axis != grid.axis or (value.axis is not None and value.rows != grid.rows):
        site.refuse("its grid isn't that of the samples")
    return Tensor((*value.dims[:2], *grid.dims[1:-1]), value.axis)


@rule("RoiAlign", samples=(1, 2))
def roi_align(site: Site) -> Value:
    boxes, numbers = leading(site, 1), leading(site, 2)
    if boxes.axis != numbers.axis or (boxes.axis is not None and boxes.rows != numbers.rows):
        site.refuse("its boxes and their images are not those of the samples")
    height, width = site.attribute("output_height", 1), site.attribute("output_width", 1)
    images = site.tensor()
    return Tensor((boxes.dims[0], images.dims[1], height, width), boxes.axis)


@rule("Col2Im")
def columns_to_image(site: Site) -> Value:
    value, image, block = leading(site), site.integers(1), site.integers(2)
    if value.rank != 3:
        site.refuse("its input has no batch axis")
    channels = None
    if block and value.dims[1] is not None:
        area = 1
        for size in block:
            area *= size
        channels = value.dims[1] // area
    shape = image if image is not None else [None] * (site.tensor(1).dims[0] or 0)
    return Tensor((value.dims[0], channels, *shape), value.axis)


@rule("NhwcMaxPool", domain=MICROSOFT)
def channels_last_pool(site: Site) -> Value:
    value = leading(site)
    return Tensor((value.dims[0], *(None for _ in value.dims[1:-1]), value.dims[-1]), value.axis)
