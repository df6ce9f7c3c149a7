"""Reading by index: a thread copies one element, or a pack of neighbours that one index leads to."""

from __future__ import annotations

import functools
import math

from distort.kernels.compiler.ir import ErrorWord, broadcast_shape
from distort.kernels.compiler.loops import merged
from distort.kernels.cuda.codegen.dtypes import OF_NBYTES
from distort.kernels.cuda.codegen.grids import BLOCK, grid_kernel
from distort.kernels.cuda.codegen.indexing import (
    index_type,
    is_aligned,
    is_wide,
    place,
    size_arguments,
    size_parameters,
    unravel,
)
from distort.kernels.cuda.codegen.maps import load_pack, store_pack
from distort.kernels.cuda.launch import Argument, Kernel, Launch
from distort.kernels.cuda.operations import CudaGather

_PACK_NBYTES = 16
INDEX = {"int32": "int", "int64": "long long"}


def gather_launches(operation: CudaGather) -> list[Launch]:
    x, indices = operation.inputs
    (y,) = operation.outputs
    if not y.size:
        return []
    assert broadcast_shape(x.shape, indices.shape) == y.shape
    sizes, strides = merged(y.shape, [x.strides, indices.strides, y.strides])
    itemsize = x.dtype.itemsize
    reach = [size * abs(step) for size, step in operation.axes]
    wide = is_wide([*sizes, 2], [[*steps, sum(reach)] for steps in strides], y.size)
    width = 1
    if (strides[0][-1], strides[1][-1], strides[2][-1]) == (1, 0, 1):
        others = [step for steps in (strides[0], strides[2]) for step in steps[:-1]]
        width = math.gcd(_PACK_NBYTES // itemsize, sizes[-1], *others, *(step for _, step in operation.axes))
    sizes[-1] //= width
    aligned = (width > 1 and is_aligned(x, width), width > 1 and is_aligned(y, width))
    kernel = _kernel(len(sizes), itemsize, INDEX[indices.element], len(operation.axes), width, aligned, wide)
    arguments: list[Argument] = [x.address(), indices.address(), y.address(), ErrorWord(), operation.index_step]
    arguments += [number for axis in operation.axes for number in axis]
    arguments += size_arguments(sizes)
    for steps in strides:
        arguments += [*steps[:-1], steps[-1] * width]
    n_items = y.size // width
    return [Launch(kernel, [*arguments, n_items], n_items, BLOCK)]


def index_parameters(n_axes: int) -> list[str]:
    return ["long long index_step", *(f"long long {name}_{j}" for j in range(n_axes) for name in ("size", "along"))]


def indexed(n_axes: int, at: str, kind: str) -> list[str]:
    """Statements: from ``indices`` at a place to ``offset``, the sum of steps along the axes that are indexed, and
    ``is_inside``. What is out of range is told by the error word."""
    lines = [f"{kind} offset = 0;", "bool is_inside = true;"]
    for j in range(n_axes):
        further = f" + {j} * ({kind})index_step" if j else ""
        lines += [
            f"long long index_{j} = indices[{at}{further}];",
            f"if (index_{j} < 0) index_{j} += size_{j};",
            f"is_inside = is_inside && index_{j} >= 0 && index_{j} < size_{j};",
            f"offset += ({kind})index_{j} * ({kind})along_{j};",
        ]
    return [*lines, "if (!is_inside) { *error = 1; offset = 0; }"]


@functools.lru_cache(256)
def _kernel(
    n_loops: int, itemsize: int, index: str, n_axes: int, width: int, aligned: tuple[bool, bool], wide: bool
) -> Kernel:
    kind, element = index_type(wide), OF_NBYTES[itemsize]
    parameters = [f"const {element}* __restrict__ x", f"const {index}* __restrict__ indices"]
    parameters += [f"{element}* __restrict__ y", "long long* error"]
    parameters += [*index_parameters(n_axes), *size_parameters(n_loops, "loop")]
    parameters += [f"long long step_{name}_{k}" for name in ("x", "i", "y") for k in range(n_loops)]
    lines = unravel("item", n_loops, wide, "loop")
    at_x, at_i, at_y = (
        place([(f"i_{k}", f"step_{name}_{k}") for k in range(n_loops)], wide) for name in ("x", "i", "y")
    )
    lines.append(f"const {kind} at = {at_i};")
    lines += indexed(n_axes, "at", kind)
    if width == 1:
        lines.append(f"y[{at_y}] = x[{at_x} + offset];")
    else:
        pack = load_pack(f"x + ({at_x} + offset)", element, width, aligned[0])
        lines.append(store_pack(f"y + ({at_y})", f"(Pack<{element}, {width}>({pack}))", element, width, aligned[1]))
    return grid_kernel("gather", parameters, lines, wide)


__all__ = ["INDEX", "gather_launches", "index_parameters", "indexed"]
