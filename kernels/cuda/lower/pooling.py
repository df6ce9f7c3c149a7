"""MaxPool and AveragePool over one to three spatial axes."""

from __future__ import annotations

import numpy as np

from distort.graph.ir import Node
from distort.kernels.compiler.builder import Builder
from distort.kernels.compiler.ir import Tensor
from distort.kernels.cuda.convolutions import channels_last, is_channels_last
from distort.kernels.cuda.lower import lowers_cuda
from distort.kernels.cuda.operations import CudaPool
from distort.kernels.errors import Failed, InvalidInput
from distort.kernels.windows import windows_of

Result = list[Tensor | None] | None
_REALS = ("float32", "float64", "float16", "bfloat16")


@lowers_cuda("MaxPool", "AveragePool")
def _pool(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    (x,) = inputs
    a = node.attributes
    is_max = node.op_type == "MaxPool"
    if x is None or len(x.shape) not in (3, 4, 5) or not x.size:
        return None
    if x.element not in _REALS and not (is_max and x.element in ("int8", "uint8")):
        return None
    if len(a.get("kernel_shape", ())) != len(x.shape) - 2:
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
    has_places = len(node.outputs) > 1 and bool(node.outputs[1])
    shape = (*x.shape[:2], *windows.out)
    results = [b.new(x.dtype, shape)]
    if is_channels_last(x) and not has_places:
        results = [results[0].view(shape, channels_last(shape))]
    else:
        x = b.contiguous(x)
    mode = "max" if is_max else "mean_padded" if a.get("count_include_pad", 0) else "mean"
    if has_places:
        results.append(b.new(np.int64, shape))
    b.add(CudaPool([x], list(results), windows, mode, bool(a.get("storage_order", 0))))
    return list(results)
