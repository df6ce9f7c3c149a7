"""Pooling: a thread makes one element, and goes through its window."""

from __future__ import annotations

import functools
import math

from distort.kernels.compiler.ir import is_dense
from distort.kernels.cuda.codegen.dtypes import COMPUTED, STORED, computed, literal, stored
from distort.kernels.cuda.codegen.grids import BLOCK, grid_kernel
from distort.kernels.cuda.codegen.indexing import index_type, is_wide, size_arguments, size_parameters, unravel
from distort.kernels.cuda.codegen.reducers import lowest
from distort.kernels.cuda.launch import Argument, Kernel, Launch
from distort.kernels.cuda.operations import CudaPool


def pool_launches(operation: CudaPool) -> list[Launch]:
    (x,), y, windows = operation.inputs, operation.outputs[0], operation.windows
    if not y.size:
        return []
    rank = len(windows.out)
    sizes = x.shape[2:]
    is_last = not is_dense(x.shape, x.strides)
    loops = [y.shape[0], *windows.out, y.shape[1]] if is_last else [math.prod(y.shape[:2]), *windows.out]
    wide = is_wide((x.size,), ((1,),), max(x.size, y.size))
    kernel = _kernel(rank, x.element, operation.mode, len(operation.outputs) > 1, operation.by_columns, wide, is_last)
    arguments: list[Argument] = [x.address(), *(t.address() for t in operation.outputs), *size_arguments(loops)]
    arguments += [y.shape[1]] if is_last else []
    for axis in range(rank):
        arguments += [sizes[axis], windows.kernel[axis], windows.strides[axis], windows.dilations[axis]]
        arguments += [windows.begins[axis], windows.ends[axis]]
    return [Launch(kernel, [*arguments, y.size], y.size, BLOCK)]


@functools.lru_cache(256)
def _kernel(rank: int, dtype: str, mode: str, has_places: bool, by_columns: bool, wide: bool, is_last: bool) -> Kernel:
    """``is_last``: neighbouring threads have neighbouring channels, not places."""
    kind, value = index_type(wide), COMPUTED[dtype]
    parameters = [f"const {STORED[dtype]}* __restrict__ x", f"{STORED[dtype]}* __restrict__ y"]
    parameters += ["long long* __restrict__ places"] if has_places else []
    n_loops = rank + 1 + is_last
    parameters += size_parameters(n_loops)
    parameters += ["long long channels"] if is_last else []
    words = ("length", "kernel", "stride", "dilation", "begin", "end")
    parameters += [f"long long {word}_{axis}" for axis in range(rank) for word in words]
    lines = unravel("item", n_loops, wide)
    lines.append(f"const {kind} plane = i_0 * {' * '.join(f'({kind})length_{axis}' for axis in range(rank))};")
    lines.append(f"{value} total = {literal(lowest(dtype) if mode == 'max' else 0, dtype)};")
    if has_places:
        lines.append("long long found = -1;")
    for axis in range(rank):
        lines.append(f"const {kind} start_{axis} = i_{axis + 1} * ({kind})stride_{axis} - ({kind})begin_{axis};")
    place = "plane"
    for axis in range(rank):
        indent = "    " * axis
        lines.append(f"{indent}for ({kind} k_{axis} = 0; k_{axis} < ({kind})kernel_{axis}; ++k_{axis}) {{")
        lines.append(f"{indent}    const {kind} at_{axis} = start_{axis} + k_{axis} * ({kind})dilation_{axis};")
        lines.append(f"{indent}    if (at_{axis} < 0 || at_{axis} >= ({kind})length_{axis}) continue;")
    place = "at_0"
    for axis in range(1, rank):
        place = f"({place}) * ({kind})length_{axis} + at_{axis}"
    indent = "    " * rank
    where = f"(plane + {place}) * ({kind})channels + i_{rank + 1}" if is_last else f"plane + {place}"
    lines.append(f"{indent}const {value} value = {computed(f'x[{where}]', dtype)};")
    if mode != "max":
        lines.append(f"{indent}total += value;")
    elif has_places:
        counted = f"at_{rank - 1}" if by_columns else place
        for axis in range(rank - 2, -1, -1) if by_columns else ():
            counted = f"({counted}) * ({kind})length_{axis} + at_{axis}"
        better = f"found < 0 || is_above<{value}>(value, total)"
        lines.append(f"{indent}if ({better}) {{ total = value; found = plane + {counted}; }}")
    else:
        lines.append(f"{indent}total = larger<{value}>(total, value);")
    lines += ["    " * axis + "}" for axis in range(rank - 1, -1, -1)]
    if mode.startswith("mean"):
        lines += _divided(rank, kind, value, padded=mode == "mean_padded")
    lines.append(f"y[item] = {stored('total', dtype)};")
    lines += ["places[item] = found;"] if has_places else []
    return grid_kernel("pool", parameters, lines, wide)


def _divided(rank: int, kind: str, value: str, padded: bool) -> list[str]:
    """Statements: the total by how many elements count, one at least."""
    lines = []
    for axis in range(rank):
        low, high = "0", f"({kind})length_{axis}"
        if padded:
            low, high = f"-({kind})begin_{axis}", f"{high} + ({kind})end_{axis}"
        lines.append(f"{kind} count_{axis} = 0;")
        lines.append(f"for ({kind} k = 0; k < ({kind})kernel_{axis}; ++k) {{")
        lines.append(f"    const {kind} at = start_{axis} + k * ({kind})dilation_{axis};")
        lines.append(f"    count_{axis} += at >= {low} && at < {high};")
        lines.append("}")
    lines.append(f"const {kind} count = {' * '.join(f'count_{axis}' for axis in range(rank))};")
    lines.append(f"total = total / ({value})(count > 0 ? count : 1);")
    return lines


__all__ = ["pool_launches"]
