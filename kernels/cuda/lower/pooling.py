"""Pooling over one to three spatial axes: MaxPool, AveragePool, LpPool; GlobalLpPool; LRN, which pools channels."""

from __future__ import annotations

import math

import numpy as np

from distort.graph.ir import Node
from distort.kernels.compiler.builder import Builder, lowering_of
from distort.kernels.compiler.ir import Tensor
from distort.kernels.cuda.convolutions import channels_last, is_channels_last
from distort.kernels.cuda.lower import lowers_cuda
from distort.kernels.cuda.operations import CudaPool
from distort.kernels.errors import Failed, InvalidInput
from distort.kernels.windows import Windows, windows_of

Result = list[Tensor | None] | None
_REALS = ("float32", "float64", "float16", "bfloat16")
_WIDE = ("float32", "float64")


def _windows(node: Node, x: Tensor) -> Windows | None:
    """None for what the NumPy kernel refuses, or where a window may see nothing of x."""
    a = node.attributes
    if len(x.shape) not in (3, 4, 5) or not x.size or len(a.get("kernel_shape", ())) != len(x.shape) - 2:
        return None
    try:
        windows = windows_of(
            x.shape[2:],
            a["kernel_shape"],
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
    return windows


@lowers_cuda("MaxPool", "AveragePool")
def _pool(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    (x,) = inputs
    is_max = node.op_type == "MaxPool"
    if x is None or (x.element not in _REALS and not (is_max and x.element in ("int8", "uint8"))):
        return None
    windows = _windows(node, x)
    if windows is None:
        return None
    has_places = len(node.outputs) > 1 and bool(node.outputs[1])
    shape = (*x.shape[:2], *windows.out)
    results = [b.new(x.dtype, shape)]
    if is_channels_last(x) and not has_places:
        results = [results[0].view(shape, channels_last(shape))]
    else:
        x = b.contiguous(x)
    mode = "max" if is_max else "mean_padded" if node.attributes.get("count_include_pad", 0) else "mean"
    if has_places:
        results.append(b.new(np.int64, shape))
    b.add(CudaPool([x], list(results), windows, mode, bool(node.attributes.get("storage_order", 0))))
    return list(results)


def _power(b: Builder, x: Tensor, p: float) -> Tensor:
    if p == 2:
        return b.map("mul", [x, x])
    size = b.map("abs", [x])
    return size if p == 1 else b.map("pow", [size, b.constant(np.asarray(p, x.dtype))])


def _root(b: Builder, total: Tensor, p: float) -> Tensor:
    if p == 2:
        return b.map("sqrt", [total])
    return total if p == 1 else b.map("pow", [total, b.constant(np.asarray(1 / p, total.dtype))])


def _summed(b: Builder, x: Tensor, windows: Windows) -> Tensor:
    total = b.new(x.dtype, (*x.shape[:2], *windows.out))
    b.add(CudaPool([b.contiguous(x)], [total], windows, "sum"))
    return total


@lowers_cuda("LpPool", wide=True)
def _lp_pool(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    (x,) = inputs
    windows = None if x is None or x.element not in _WIDE else _windows(node, x)
    if x is None or windows is None:
        return None
    p = float(node.attributes.get("p", 2))
    return [_root(b, _summed(b, _power(b, x, p), windows), p)]


@lowers_cuda("GlobalLpPool", wide=True)
def _global_lp_pool(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    (x,) = inputs
    reduce = lowering_of("", "ReduceSum")
    if x is None or x.element not in _WIDE or len(x.shape) < 3 or not x.size or reduce is None:
        return None
    p = float(node.attributes.get("p", 2))
    total = reduce(
        b, Node("ReduceSum", "", ["", ""], [""], {}), [_power(b, x, p), b.constant(np.arange(2, len(x.shape)))]
    )
    return None if total is None or total[0] is None else [_root(b, total[0], p)]


@lowers_cuda("LRN", wide=True)
def _lrn(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    """x / (bias + alpha / size · the sum of squares of neighbouring channels) ^ beta"""
    (x,) = inputs
    get = node.attributes.get
    size = get("size", 0)
    if x is None or x.element not in _WIDE or len(x.shape) < 2 or not x.size or size < 1:
        return None
    before = (size - 1) // 2
    planes = (x.shape[0], 1, x.shape[1], math.prod(x.shape[2:]))
    pads = [before, 0, size - 1 - before, 0]
    windows = windows_of(planes[2:], [size, 1], None, None, pads, "NOTSET")
    x = b.contiguous(x)
    total = _summed(b, b.map("mul", [x, x]).reshaped(planes), windows).reshaped(x.shape)

    def number(value: float) -> Tensor:
        return b.constant(np.asarray(value, x.dtype))

    scaled = b.map("mul", [total, number(get("alpha", 1e-4) / size)])
    power = b.map("pow", [b.map("add", [scaled, number(get("bias", 1.0))]), number(get("beta", 0.75))])
    return [b.map("div", [x, power])]
