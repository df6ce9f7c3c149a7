"""Element-wise operations: a thread has a pack of neighbours, or one element, and strides over the grid.

Loops are in the order of the first result's memory, and merged. Where an input lies along another loop than the
results do, tiles of it go through shared memory (``turned``).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

from distort.kernels.compiler.expression import Expression
from distort.kernels.compiler.ir import Map
from distort.kernels.compiler.loops import merged
from distort.kernels.cuda.codegen.device_functions import with_helpers
from distort.kernels.cuda.codegen.dtypes import COMPUTED, STORED, computed, stored
from distort.kernels.cuda.codegen.expressions import evaluate
from distort.kernels.cuda.codegen.indexing import (
    index_type,
    is_aligned,
    is_wide,
    overlap,
    place,
    pointer,
    size_arguments,
    size_parameters,
    unravel,
)
from distort.kernels.cuda.launch import NAME, Argument, Kernel, Launch, kernel_of

#: bytes that a thread reads or writes at once, and elements of a pack, at most
_PACK_NBYTES, _MOST_PACKED = 16, 8
BLOCK = 256


class Structure(NamedTuple):
    """What a kernel's text depends on besides its expression."""

    n_loops: int
    #: how the innermost loop goes through each operand: 0, 1, or 2 for another stride
    inner: tuple[int, ...]
    width: int  # elements of a pack
    aligned: tuple[bool, ...]  # of each operand: whether packs are known to be
    wide: bool
    restrict: bool


def map_launches(operation: Map) -> list[Launch]:
    n_elements = math.prod(operation.shape)
    if not n_elements:
        return []
    tensors = [*operation.inputs, *operation.outputs]
    n_inputs = len(operation.inputs)
    sizes, strides = loops_of(operation.shape, [t.strides for t in tensors], n_inputs)
    wide = is_wide(sizes, strides, n_elements)
    restrict = not overlap(operation.inputs, operation.outputs)
    from distort.kernels.cuda.codegen import turned

    tiled = turned.turned_launch(operation, sizes, strides, wide, restrict)
    if tiled is not None:
        return [tiled]
    inner = tuple([steps[-1] if steps[-1] in (0, 1) else 2 for steps in strides])
    width = _width(operation, sizes, strides, inner)
    if len(sizes) > 1:
        # loops go over packs
        sizes = [*sizes[:-1], sizes[-1] // width]
    aligned = tuple([width > 1 and is_aligned(t, width) for t in tensors])
    kernel = _kernel(operation.expression, Structure(len(sizes), inner, width, aligned, wide, restrict))
    n_items, rest = divmod(n_elements, width)
    arguments: list[Argument] = [*(t.address() for t in tensors), n_items, n_elements - rest, n_elements]
    arguments += size_arguments(sizes)
    for how, steps in zip(inner, strides, strict=True):
        arguments += steps[:-1]
        if how == 2:
            arguments.append(steps[-1])
    return [Launch(kernel, arguments, max(n_items, rest), BLOCK)]


def loops_of(
    shape: Sequence[int], strides: Sequence[Sequence[int]], n_inputs: int
) -> tuple[list[int], list[list[int]]]:
    """Loops in the order of the first result's memory, merged."""
    order = sorted(range(len(shape)), key=lambda axis: -strides[n_inputs][axis])
    return merged([shape[axis] for axis in order], [[steps[axis] for axis in order] for steps in strides])


def _width(operation: Map, sizes: Sequence[int], strides: Sequence[Sequence[int]], inner: tuple[int, ...]) -> int:
    """Elements of a pack: as many as all operands have next to each other, and as registers hold at once."""
    if 2 in inner or 1 not in inner:
        return 1
    tensors = [*operation.inputs, *operation.outputs]
    packed = [(t, steps) for t, how, steps in zip(tensors, inner, strides, strict=True) if how]
    width = min(_MOST_PACKED, _PACK_NBYTES // max(t.dtype.itemsize for t, _ in packed))
    if len(sizes) == 1:
        return width if sizes[0] >= width else 1
    common = math.gcd(width, sizes[-1], *(step for _, steps in packed for step in steps[:-1]))
    return common


def element_function(expression: Expression) -> str:
    """The text of what is done for one element: operands in, results by reference."""
    names = [f"x{number}" for number in range(len(expression.inputs))]
    lines, results = evaluate(expression, names)
    parameters = [f"const {COMPUTED[dtype]} {name}" for name, dtype in zip(names, expression.inputs, strict=True)]
    for number, result in enumerate(expression.results):
        parameters.append(f"{COMPUTED[expression.dtype(result)]}& y{number}")
    lines += [f"y{number} = {result};" for number, result in enumerate(results)]
    body = "".join([f"    {line}\n" for line in lines])
    return f"static __device__ __forceinline__ void {NAME}_element({', '.join(parameters)}) {{\n{body}}}\n"


def call_element(expression: Expression, inputs: Sequence[str], targets: Sequence[str]) -> list[str]:
    """Statements: stored operands in, results to stored ``targets``."""
    dtypes = [expression.dtype(result) for result in expression.results]
    lines = [f"{COMPUTED[dtype]} y{number};" for number, dtype in enumerate(dtypes)]
    given = [computed(text, dtype) for text, dtype in zip(inputs, expression.inputs, strict=True)]
    given += [f"y{number}" for number in range(len(dtypes))]
    lines.append(f"{NAME}_element({', '.join(given)});")
    return lines + [
        f"{target} = {stored(f'y{number}', dtype)};"
        for number, (target, dtype) in enumerate(zip(targets, dtypes, strict=True))
    ]


@functools.lru_cache(2048)
def _kernel(expression: Expression, structure: Structure) -> Kernel:
    n_loops, inner, width, aligned, wide, restrict = structure
    dtypes = [*expression.inputs, *(expression.dtype(result) for result in expression.results)]
    n_inputs = len(expression.inputs)
    kind = index_type(wide)
    parameters = [pointer(n, dtype, n >= n_inputs, restrict) for n, dtype in enumerate(dtypes)]
    parameters += ["long long n_items", "long long begin_rest", "long long n_elements", *size_parameters(n_loops)]
    places = []
    for number, how in enumerate(inner):
        steps = [(f"i_{k}", f"step{number}_{k}") for k in range(n_loops - 1)]
        parameters += [f"long long {stride}" for _, stride in steps]
        last = f"i_{n_loops - 1}"
        if how == 1:
            steps.append((f"{last} * {width}" if width > 1 else last, ""))
        elif how == 2:
            parameters.append(f"long long step{number}_{n_loops - 1}")
            steps.append((last, f"step{number}_{n_loops - 1}"))
        places.append(place(steps, wide))
    lines = unravel("item", n_loops, wide)
    lines += [f"const {kind} at{number} = {text};" for number, text in enumerate(places)]
    if width == 1:
        operands = [f"p{number}[at{number}]" for number in range(len(dtypes))]
        lines += call_element(expression, operands[:n_inputs], operands[n_inputs:])
    else:
        lines += _packed(expression, dtypes, inner, width, aligned)
    loop = f"for ({kind} item = first; item < ({kind})n_items; item += step) {{"
    rest = ""
    if width > 1 and n_loops == 1:
        operands = [f"p{number}[{'item' if how else '0'}]" for number, how in enumerate(inner)]
        rest = _block(
            f"for ({kind} item = ({kind})begin_rest + first; item < ({kind})n_elements; item += step) {{",
            call_element(expression, operands[:n_inputs], operands[n_inputs:]),
        )
    text = (
        f"{element_function(expression)}"
        f'extern "C" __global__ void __launch_bounds__({BLOCK})\n'
        f"{NAME}({', '.join(parameters)}) {{\n"
        f"    const {kind} first = ({kind})blockIdx.x * ({kind})blockDim.x + ({kind})threadIdx.x;\n"
        f"    const {kind} step = ({kind})gridDim.x * ({kind})blockDim.x;\n"
        f"{_block(loop, lines)}{rest}}}\n"
    )
    return kernel_of("map", with_helpers(text))


def _block(head: str, lines: Sequence[str]) -> str:
    return f"    {head}\n" + "".join([f"        {line}\n" for line in lines]) + "    }\n"


def _packed(
    expression: Expression, dtypes: Sequence[str], inner: Sequence[int], width: int, aligned: Sequence[bool]
) -> list[str]:
    """Statements for a pack of neighbours."""
    n_inputs = len(expression.inputs)
    lines, operands = [], []
    for number, (dtype, how) in enumerate(zip(dtypes, inner, strict=True)):
        kind, address = STORED[dtype], f"p{number} + at{number}"
        if number >= n_inputs:
            lines.append(f"Pack<{kind}, {width}> b{number};")
            operands.append(f"b{number}.at[j]")
        elif how == 0:
            lines.append(f"const {kind} a{number} = p{number}[at{number}];")
            operands.append(f"a{number}")
        else:
            lines.append(f"const Pack<{kind}, {width}> a{number} = {load_pack(address, kind, width, aligned[number])};")
            operands.append(f"a{number}.at[j]")
    lines += ["#pragma unroll", f"for (int j = 0; j < {width}; ++j) {{"]
    lines += [f"    {line}" for line in call_element(expression, operands[:n_inputs], operands[n_inputs:])]
    lines.append("}")
    for number in range(n_inputs, len(dtypes)):
        kind = STORED[dtypes[number]]
        lines.append(store_pack(f"p{number} + at{number}", f"b{number}", kind, width, aligned[number]))
    return lines


def load_pack(address: str, kind: str, width: int, aligned: bool) -> str:
    if aligned:
        return f"*reinterpret_cast<const Pack<{kind}, {width}>*>({address})"
    return f"load_pack<{kind}, {width}>({address})"


def store_pack(address: str, value: str, kind: str, width: int, aligned: bool) -> str:
    if aligned:
        return f"*reinterpret_cast<Pack<{kind}, {width}>*>({address}) = {value};"
    return f"store_pack<{kind}, {width}>({address}, {value});"


__all__ = ["BLOCK", "call_element", "element_function", "load_pack", "loops_of", "map_launches", "store_pack"]
