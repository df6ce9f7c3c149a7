"""Convolutions, by cuDNN."""

from __future__ import annotations

from distort.graph.ir import Node
from distort.kernels import convolve
from distort.kernels.compiler.builder import Builder
from distort.kernels.compiler.ir import Tensor
from distort.kernels.compiler.lower.convolution import activated
from distort.kernels.cuda.convolutions import convolution
from distort.kernels.cuda.lower import lowers_cuda
from distort.kernels.errors import Failed, InvalidInput
from distort.kernels.ops.convolution import transposed_extent
from distort.kernels.windows import spatial_attribute

Result = list[Tensor | None] | None


@lowers_cuda("Conv")
def _conv(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    x, w, bias = [*inputs, None][:3]
    if x is None or w is None or len(x.shape) < 3:
        return None
    get = node.attributes.get
    try:
        windows = convolve.windows_of_convolution(
            x.shape,
            w.shape,
            get("group", 1),
            get("kernel_shape"),
            get("strides"),
            get("dilations"),
            get("pads"),
            get("auto_pad", "NOTSET"),
        )
    except (InvalidInput, Failed):
        return None  # the kernel says so, when it runs
    shape = (x.shape[0], w.shape[0], *windows.out)
    made = convolution(b, x, w, bias, shape, windows.strides, windows.dilations, windows.begins, windows.ends)
    return None if made is None else [made]


@lowers_cuda("FusedConv", domain="com.microsoft")
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
    get = node.attributes.get
    result = activated(b, y, get("activation", ""), get("activation_params") or ())
    return None if result is None else [result]


@lowers_cuda("ConvTranspose")
def _conv_transpose(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    x, w, bias = [*inputs, None][:3]
    if x is None or w is None or not 3 <= len(x.shape) == len(w.shape):
        return None
    get, rank = node.attributes.get, len(x.shape) - 2
    size, kernel, groups = x.shape[2:], w.shape[2:], get("group", 1)
    if groups < 1 or w.shape[0] != x.shape[1] or x.shape[1] % groups:
        return None
    if tuple(get("kernel_shape") or kernel) != tuple(kernel):
        return None
    try:
        strides = spatial_attribute("strides", get("strides"), rank)
        dilations = spatial_attribute("dilations", get("dilations"), rank)
        extra = spatial_attribute("output_padding", get("output_padding"), rank, default=0, least=0)
        reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
        full = [s * (n - 1) + e + k for n, k, s, e in zip(size, reach, strides, extra, strict=True)]
        auto = get("auto_pad", "NOTSET")
        begins, out = transposed_extent(size, full, strides, auto, get("output_shape"), get("pads"))
    except (InvalidInput, Failed):
        return None
    # what a convolution of the result would want after each axis; more of it than a step is of no window
    ends = [max(0, s * (n - 1) + k - b - o) for n, k, s, b, o in zip(size, reach, strides, begins, out, strict=True)]
    shape = (x.shape[0], w.shape[1] * groups, *out)
    made = convolution(b, x, w, bias, shape, strides, dilations, begins, ends, transposed=True)
    return None if made is None else [made]
