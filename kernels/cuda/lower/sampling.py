"""GridSample over one to three axes; between four pixels an axis, over two."""

from __future__ import annotations

from distort.graph.ir import Node
from distort.kernels.compiler.builder import Builder
from distort.kernels.compiler.codegen.sampling import CORNERS, EDGES
from distort.kernels.compiler.ir import Tensor
from distort.kernels.cuda.lower import lowers_cuda
from distort.kernels.cuda.operations import CudaSample

_REALS = ("float32", "float16", "bfloat16")
_MODES = {"linear": "linear", "bilinear": "linear", "nearest": "nearest", "cubic": "cubic", "bicubic": "cubic"}


@lowers_cuda("GridSample")
@lowers_cuda("GridSample", domain="com.microsoft")
def _grid_sample(b: Builder, node: Node, inputs: list[Tensor | None]) -> list[Tensor | None] | None:
    x, grid = inputs
    mode, padding = node.attributes.get("mode", "linear"), node.attributes.get("padding_mode", "zeros")
    if x is None or grid is None or x.element not in _REALS or grid.element not in _REALS:
        return None
    rank = len(x.shape) - 2
    if not 1 <= rank <= 3 or len(grid.shape) != rank + 2 or grid.shape[-1] != rank or grid.shape[0] != x.shape[0]:
        return None
    if mode not in _MODES or padding not in ("zeros", "border", "reflection") or not x.size:
        return None
    if _MODES[mode] == "cubic" and rank > 2:
        return None
    result = b.new(x.dtype, (*x.shape[:2], *grid.shape[1:-1]))
    points = CORNERS if node.attributes.get("align_corners", 0) else EDGES
    b.add(CudaSample([b.contiguous(x), b.contiguous(grid)], [result], _MODES[mode], padding, points))
    return [result]
