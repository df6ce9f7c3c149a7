"""Windows over 8-bit images: laid out as rows of a product, or summed up by a thread each."""

from __future__ import annotations

import functools
import math

from distort.kernels.cuda.codegen.dtypes import STORED
from distort.kernels.cuda.codegen.grids import BLOCK, grid_kernel
from distort.kernels.cuda.codegen.indexing import index_type, is_wide, size_arguments, size_parameters, unravel
from distort.kernels.cuda.launch import Argument, Kernel, Launch
from distort.kernels.cuda.operations import CudaByteConv, CudaPatches

_WORD = 4
#: of an axis, as parameters of kernels
_OF_AXIS = ("length", "stride", "dilation", "begin")


def patches_launches(operation: CudaPatches) -> list[Launch]:
    x, *around = operation.inputs
    (y,), windows = operation.outputs, operation.windows
    if not y.size:
        return []
    rank, line = len(windows.out), x.shape[-1]
    n_words = math.gcd(line // _WORD, 4)
    loops = [x.shape[0], *windows.out, *windows.kernel, line // (n_words * _WORD)]
    wide = is_wide((x.size, y.size), ((1, 0), (0, 1)), y.size)
    kernel = _patches(rank, n_words, bool(around), wide)
    arguments: list[Argument] = [x.address(), y.address(), *(t.address() for t in around)]
    for axis in range(rank):
        arguments += [x.shape[1 + axis], windows.strides[axis], windows.dilations[axis], windows.begins[axis]]
    n_items = y.size // (n_words * _WORD)
    arguments += [operation.channels, line, *size_arguments(loops), n_items]
    return [Launch(kernel, arguments, n_items, BLOCK)]


@functools.lru_cache(64)
def _patches(rank: int, n_words: int, has_around: bool, wide: bool) -> Kernel:
    kind, pack, width = index_type(wide), f"Pack<unsigned, {n_words}>", n_words * _WORD
    parameters = ["const signed char* __restrict__ x", "signed char* __restrict__ y"]
    parameters += ["const signed char* __restrict__ around"] if has_around else []
    parameters += [f"long long {name}_{axis}" for axis in range(rank) for name in _OF_AXIS]
    parameters += ["long long channels", "long long line", *size_parameters(2 * rank + 2)]
    lines = unravel("item", 2 * rank + 2, wide)
    lines.append("bool inside = true;")
    place = "i_0"
    for axis in range(rank):
        window, tap = f"i_{1 + axis}", f"i_{1 + rank + axis}"
        lines.append(
            f"const {kind} at_{axis} = {window} * ({kind})stride_{axis} + {tap} * ({kind})dilation_{axis} "
            f"- ({kind})begin_{axis};"
        )
        lines.append(f"inside = inside && at_{axis} >= 0 && at_{axis} < ({kind})length_{axis};")
        place = f"({place}) * ({kind})length_{axis} + at_{axis}"
    lines += [
        f"const {kind} channel = i_{2 * rank + 1} * {width};",
        f"{pack} made;",
        f"const unsigned filler = {'0x01010101u * (unsigned char)around[0]' if has_around else '0u'};",
        f"for (int i = 0; i < {n_words}; ++i) made.at[i] = filler;",
        f"if (inside) made = *reinterpret_cast<const {pack}*>(x + ({place}) * ({kind})line + channel);",
        f"for (int i = 0; i < {n_words}; ++i) {{",
        f"    const long long rest = channels - channel - {_WORD} * i;",
        f"    made.at[i] &= rest >= {_WORD} ? 0xffffffffu : rest <= 0 ? 0u : (1u << 8 * (int)rest) - 1u;",
        "}",
        f"*reinterpret_cast<{pack}*>(y + item * {width}) = made;",
    ]
    return grid_kernel("patches", parameters, lines, wide)


def byte_conv_launches(operation: CudaByteConv) -> list[Launch]:
    x, w, *zeros = operation.inputs
    (y,), windows = operation.outputs, operation.windows
    rank = len(windows.out)
    wide = is_wide((x.size, w.size, y.size), ((1, 0, 0), (0, 1, 0), (0, 0, 1)), y.size)
    by_filter = operation.has_w_zero and zeros[-1].size > 1
    kernel = _byte_conv(rank, x.element, w.element, operation.has_zero, operation.has_w_zero, by_filter, wide)
    arguments: list[Argument] = [x.address(), w.address(), *(t.address() for t in zeros), y.address()]
    for axis in range(rank):
        arguments += [x.shape[2 + axis], windows.strides[axis], windows.dilations[axis], windows.begins[axis]]
        arguments.append(windows.kernel[axis])
    arguments += [w.shape[1], operation.groups, w.shape[0] // operation.groups, *size_arguments(y.shape), y.size]
    return [Launch(kernel, arguments, y.size, BLOCK)]


@functools.lru_cache(64)
def _byte_conv(
    rank: int, of_x: str, of_w: str, has_zero: bool, has_w_zero: bool, by_filter: bool, wide: bool
) -> Kernel:
    kind = index_type(wide)
    parameters = [f"const {STORED[of_x]}* __restrict__ x", f"const {STORED[of_w]}* __restrict__ w"]
    parameters += [f"const {STORED[of_x]}* __restrict__ x_zero"] if has_zero else []
    parameters += [f"const {STORED[of_w]}* __restrict__ w_zero"] if has_w_zero else []
    parameters += ["int* __restrict__ y"]
    parameters += [f"long long {name}_{axis}" for axis in range(rank) for name in (*_OF_AXIS, "kernel")]
    parameters += ["long long channels", "long long groups", "long long filters", *size_parameters(rank + 2)]
    lines = unravel("item", rank + 2, wide)
    lines += [
        f"const {kind} group = i_1 / ({kind})filters;",
        f"const int minus_x = {'x_zero[0]' if has_zero else '0'};",
        f"const int minus_w = {'0' if not has_w_zero else 'w_zero[i_1]' if by_filter else 'w_zero[0]'};",
        "int total = 0;",
        f"for ({kind} channel = 0; channel < ({kind})channels; ++channel) {{",
        f"    const {kind} plane = (i_0 * ({kind})groups + group) * ({kind})channels + channel;",
        f"    const {kind} of_filter = i_1 * ({kind})channels + channel;",
    ]
    place, tap = "plane", "of_filter"
    for axis in range(rank):
        indent = "    " * (axis + 1)
        lines += [
            f"{indent}for ({kind} k_{axis} = 0; k_{axis} < ({kind})kernel_{axis}; ++k_{axis}) {{",
            f"{indent}    const {kind} at_{axis} = i_{2 + axis} * ({kind})stride_{axis} + k_{axis} * "
            f"({kind})dilation_{axis} - ({kind})begin_{axis};",
            f"{indent}    if (at_{axis} < 0 || at_{axis} >= ({kind})length_{axis}) continue;",
        ]
        place = f"({place}) * ({kind})length_{axis} + at_{axis}"
        tap = f"({tap}) * ({kind})kernel_{axis} + k_{axis}"
    indent = "    " * (rank + 1)
    lines.append(f"{indent}total += ((int)x[{place}] - minus_x) * ((int)w[{tap}] - minus_w);")
    lines += ["    " * axis + "}" for axis in range(rank, -1, -1)]
    lines.append("y[item] = total;")
    return grid_kernel("byte_conv", parameters, lines, wide)


__all__ = ["byte_conv_launches", "patches_launches"]
