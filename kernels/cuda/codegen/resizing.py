"""Resizing: a thread makes one element, from the places that tables hold for its index along each resized axis."""

from __future__ import annotations

import functools

from distort.kernels.compiler.loops import merged
from distort.kernels.cuda.codegen.dtypes import COMPUTED, NBYTES, OF_NBYTES, STORED, computed, stored
from distort.kernels.cuda.codegen.grids import BLOCK, grid_kernel
from distort.kernels.cuda.codegen.indexing import index_type, is_wide, place, size_arguments, size_parameters, unravel
from distort.kernels.cuda.launch import Argument, Kernel, Launch
from distort.kernels.cuda.operations import CudaResize


def resize_launches(operation: CudaResize) -> list[Launch]:
    x, *tables = operation.inputs
    (y,) = operation.outputs
    if not y.size:
        return []
    # loops: each resized axis, and what is between them
    sizes: list[int] = []
    steps: list[int] = []
    tabled: list[int] = []  # which loops go by a table
    between: list[int] = []
    for axis in range(len(y.shape) + 1):
        if axis < len(y.shape) and axis not in operation.axes:
            between.append(axis)
            continue
        if between:
            shape, (strides,) = merged([y.shape[a] for a in between], [[x.strides[a] for a in between]])
            sizes += shape
            steps += strides
            between = []
        if axis < len(y.shape):
            tabled.append(len(sizes))
            sizes.append(y.shape[axis])
            steps.append(0)
    wide = is_wide([x.buffer.nbytes, *sizes], [[1, *steps]], y.size)
    kernel = _kernel(x.element, len(sizes), tuple(tabled), operation.weighs, wide)
    arguments: list[Argument] = [
        x.address(),
        *(t.address() for t in tables),
        y.address(),
        *size_arguments(sizes),
        *steps,
    ]
    each = 2 if operation.weighs else 1
    arguments += [number for table in tables[::each] for number in table.shape]
    return [Launch(kernel, [*arguments, y.size], y.size, BLOCK)]


@functools.lru_cache(128)
def _kernel(dtype: str, n_loops: int, tabled: tuple[int, ...], weighs: bool, wide: bool) -> Kernel:
    kind = index_type(wide)
    element, value = STORED[dtype], COMPUTED[dtype]
    if not weighs:  # what elements mean does not matter
        element = OF_NBYTES[NBYTES[dtype]]
    parameters = [f"const {element}* __restrict__ x"]
    for n in range(len(tabled)):
        parameters.append(f"const int* __restrict__ places_{n}")
        parameters += [f"const {value}* __restrict__ weights_{n}"] if weighs else []
    parameters += [f"{element}* __restrict__ y", *size_parameters(n_loops, "loop")]
    parameters += [f"long long step_{k}" for k in range(n_loops)]
    parameters += [f"long long {name}_{n}" for n in range(len(tabled)) for name in ("taps", "length")]
    lines = unravel("item", n_loops, wide, "loop")
    begin = place([(f"i_{k}", f"step_{k}") for k in range(n_loops) if k not in tabled], wide)
    if not weighs:
        offsets = " + ".join([f"places_{n}[i_{k}]" for n, k in enumerate(tabled)])
        lines.append(f"y[item] = x[{begin} + {offsets}];")
        return grid_kernel("resize", parameters, lines, wide)
    lines += [f"const {kind} begin = {begin};", f"{value} total = 0;"]
    at, weight = "begin", ""
    for n, k in enumerate(tabled):
        indent = "    " * n
        lines.append(f"{indent}for (int tap_{n} = 0; tap_{n} < (int)taps_{n}; ++tap_{n}) {{")
        entry = f"tap_{n} * (int)length_{n} + i_{k}"
        lines.append(f"{indent}    const {kind} at_{n} = {at} + places_{n}[{entry}];")
        factor = f"weights_{n}[{entry}]"
        lines.append(f"{indent}    const {value} weight_{n} = {f'{weight} * {factor}' if weight else factor};")
        at, weight = f"at_{n}", f"weight_{n}"
    lines.append(f"{'    ' * len(tabled)}total += {weight} * {computed(f'x[{at}]', dtype)};")
    lines += ["    " * n + "}" for n in range(len(tabled) - 1, -1, -1)]
    lines.append(f"y[item] = {stored('total', dtype)};")
    return grid_kernel("resize", parameters, lines, wide)


__all__ = ["resize_launches"]
