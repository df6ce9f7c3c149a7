"""Element-wise operations on inputs that lie along another loop than the results: tiles go through shared memory.

Both the reads and the writes of a warp are then of neighbours.
"""

from __future__ import annotations

import functools
import math

from distort.kernels.compiler.expression import Expression
from distort.kernels.compiler.ir import Map
from distort.kernels.compiler.loops import moved
from distort.kernels.cuda.codegen import maps
from distort.kernels.cuda.codegen.device_functions import with_helpers
from distort.kernels.cuda.codegen.dtypes import STORED
from distort.kernels.cuda.codegen.indexing import (
    index_type,
    place,
    pointer,
    size_arguments,
    size_parameters,
    unravel,
)
from distort.kernels.cuda.launch import NAME, Argument, Kernel, Launch, kernel_of

#: rows and columns of a tile; loops that are shorter than the least are not worth one
_TILE, _LEAST = 32, 16
#: shared memory that every GPU gives a block
_MOST_NBYTES = 48 * 1024
_STRAIGHT, _TURNED = 0, 1


def turned_launch(
    operation: Map, sizes: list[int], strides: list[list[int]], wide: bool, restrict: bool
) -> Launch | None:
    """None where no input lies along another loop, or tiles don't pay."""
    tensors = [*operation.inputs, *operation.outputs]
    n_inputs = len(operation.inputs)
    across = [n for n in range(n_inputs) if strides[n][-1] not in (0, 1)]
    if not across or any(steps[-1] not in (0, 1) for steps in strides[n_inputs:]) or sizes[-1] < _LEAST:
        return None
    loops = [k for k in range(len(sizes) - 1) if all(strides[n][k] == 1 for n in across) and sizes[k] >= _LEAST]
    nbytes = sum(_TILE * (_TILE + 1) * tensors[n].dtype.itemsize for n in across)
    if not loops or nbytes > _MOST_NBYTES:
        return None
    loop = max(loops, key=lambda k: sizes[k])
    sizes, strides = moved(sizes, strides, loop, len(sizes) - 2)
    hows = tuple([_TURNED if n in across else _STRAIGHT for n in range(n_inputs)])
    kernel = _kernel(operation.expression, len(sizes), hows, wide, restrict)
    *outer, high, long = sizes
    tiles = [*outer, -(-high // _TILE), -(-long // _TILE)]
    arguments: list[Argument] = [*(t.address() for t in tensors), math.prod(tiles), high, long, *size_arguments(tiles)]
    for steps in strides:
        arguments += steps
    return Launch(kernel, arguments, operation.outputs[0].size, maps.BLOCK, blocks=math.prod(tiles))


@functools.lru_cache(1024)
def _kernel(expression: Expression, n_loops: int, hows: tuple[int, ...], wide: bool, restrict: bool) -> Kernel:
    dtypes = [*expression.inputs, *(expression.dtype(result) for result in expression.results)]
    n_inputs = len(expression.inputs)
    kind = index_type(wide)
    parameters = [pointer(n, dtype, n >= n_inputs, restrict) for n, dtype in enumerate(dtypes)]
    parameters += ["long long n_tiles", "long long high", "long long wide", *size_parameters(n_loops)]
    parameters += [f"long long step{number}_{k}" for number in range(len(dtypes)) for k in range(n_loops)]
    outer = range(n_loops - 2)
    lines = unravel("tile", n_loops, wide)
    lines.append(f"const {kind} row_0 = i_{n_loops - 2} * {_TILE}, column_0 = i_{n_loops - 1} * {_TILE};")
    for number in range(len(dtypes)):
        lines.append(f"const {kind} at{number} = {place([(f'i_{k}', f'step{number}_{k}') for k in outer], wide)};")
    across = [number for number, how in enumerate(hows) if how == _TURNED]
    lines += ["__syncthreads();", f"for (int k = threadIdx.x; k < {_TILE * _TILE}; k += blockDim.x) {{"]
    lines.append(f"    const {kind} row = row_0 + k % {_TILE}, column = column_0 + k / {_TILE};")
    lines.append(f"    if (row >= ({kind})high || column >= ({kind})wide) continue;")
    for number in across:
        source = place([(f"at{number} + row", ""), ("column", f"step{number}_{n_loops - 1}")], wide)
        lines.append(f"    turned{number}[k / {_TILE}][k % {_TILE}] = p{number}[{source}];")
    lines += ["}", "__syncthreads();", f"for (int k = threadIdx.x; k < {_TILE * _TILE}; k += blockDim.x) {{"]
    lines.append(f"    const {kind} row = row_0 + k / {_TILE}, column = column_0 + k % {_TILE};")
    lines.append(f"    if (row >= ({kind})high || column >= ({kind})wide) continue;")
    operands = []
    for number in range(len(dtypes)):
        if number in across:
            operands.append(f"turned{number}[k % {_TILE}][k / {_TILE}]")
            continue
        steps = [("row", f"step{number}_{n_loops - 2}"), ("column", f"step{number}_{n_loops - 1}")]
        operands.append(f"p{number}[{place([(f'at{number}', ''), *steps], wide)}]")
    lines += [f"    {line}" for line in maps.call_element(expression, operands[:n_inputs], operands[n_inputs:])]
    lines.append("}")
    shared = "".join([f"    __shared__ {STORED[dtypes[n]]} turned{n}[{_TILE}][{_TILE + 1}];\n" for n in across])
    body = "".join([f"        {line}\n" for line in lines])
    text = (
        f"{maps.element_function(expression)}"
        f'extern "C" __global__ void __launch_bounds__({maps.BLOCK})\n'
        f"{NAME}({', '.join(parameters)}) {{\n{shared}"
        f"    for ({kind} tile = blockIdx.x; tile < ({kind})n_tiles; tile += gridDim.x) {{\n{body}    }}\n}}\n"
    )
    return kernel_of("turned", with_helpers(text))


__all__ = ["turned_launch"]
