"""Weights of 4 and 8 bits by few rows: a warp makes one column, and reads each code once. For many they are unpacked.

Sums of a chunk of codes are made of the codes as they are, scaled and moved to the zero point afterwards.
"""

from __future__ import annotations

import functools

from distort.kernels.cuda.codegen.device_functions import with_helpers
from distort.kernels.cuda.codegen.dtypes import STORED, computed, stored
from distort.kernels.cuda.codegen.grids import BLOCK, grid_kernel
from distort.kernels.cuda.launch import NAME, Argument, Kernel, Launch, kernel_of
from distort.kernels.cuda.operations import CudaNBits, CudaUnpack

#: rows that a warp has sums of in its registers
MOST_ROWS = 8
_BLOCK, _WARP = 256, 32
#: codes that a lane reads at once
_CHUNK = 8


def n_bits_launches(operation: CudaNBits) -> list[Launch]:
    a, codes, _, *others = operation.inputs
    (y,) = operation.outputs
    if not y.size:
        return []
    depth, n_columns = a.shape[-1], codes.shape[0]
    zeros = others[0].element if operation.has_zeros else ""
    pitch = others[0].shape[-1] if operation.has_zeros else 0
    n_rows = a.size // depth
    kernel = _kernel(a.element, operation.bits, zeros, operation.has_bias, n_rows)
    arguments: list[Argument] = [*(t.address() for t in operation.inputs), y.address()]
    arguments += [depth, n_columns, operation.block_size, pitch]
    n_blocks = -(-n_columns // (_BLOCK // _WARP))
    return [Launch(kernel, arguments, n_columns * _WARP, _BLOCK, blocks=n_blocks)]


def unpack_launches(operation: CudaUnpack) -> list[Launch]:
    others = operation.inputs[2:]
    (w,) = operation.outputs
    if not w.size:
        return []
    zeros, pitch = (others[0].element, others[0].shape[-1]) if operation.has_zeros else ("", 0)
    kernel = _unpacking(w.element, operation.bits, zeros)
    arguments: list[Argument] = [*(t.address() for t in operation.inputs), w.address()]
    n_items = w.size // _CHUNK
    return [Launch(kernel, [*arguments, w.shape[1], operation.block_size, pitch, n_items], n_items, BLOCK)]


@functools.lru_cache(64)
def _unpacking(dtype: str, bits: int, zeros: str) -> Kernel:
    element, word = STORED[dtype], "unsigned" if bits == 4 else "unsigned long long"
    parameters = [f"const {word}* __restrict__ codes", f"const {element}* __restrict__ scales"]
    parameters += [f"const {STORED[zeros]}* __restrict__ zeros"] if zeros else []
    parameters += [f"{element}* __restrict__ w", "long long depth", "long long block_size", "long long pitch"]
    code = f"(float)((unsigned)(word >> (i * {bits})) & {(1 << bits) - 1}u)"
    lines = [
        f"const long long n_chunks = depth / {_CHUNK}, column = item / n_chunks, chunk = item % n_chunks;",
        f"const long long block = chunk * {_CHUNK} / block_size;",
        f"const {word} word = codes[item];",
        f"const float scale = {computed('scales[column * (depth / block_size) + block]', dtype)};",
        f"const float zero = {_zero(zeros, bits)};",
        f"Pack<{element}, {_CHUNK}> made;",
        "#pragma unroll",
        f"for (int i = 0; i < {_CHUNK}; ++i) made.at[i] = {stored(f'({code} - zero) * scale', dtype)};",
        f"store_pack<{element}, {_CHUNK}>(w + item * {_CHUNK}, made);",
    ]
    return grid_kernel("unpack", parameters, lines, True)


def _zero(zeros: str, bits: int) -> str:
    """The zero point of a column's block; the middle of the codes where none is given."""
    if not zeros:
        return f"{1 << (bits - 1)}.0f"
    if zeros != "uint8":
        return computed("zeros[column * pitch + block]", zeros)
    if bits == 4:
        return "(float)(zeros[column * pitch + block / 2] >> (block % 2 * 4) & 15)"
    return "(float)zeros[column * pitch + block]"


@functools.lru_cache(128)
def _kernel(dtype: str, bits: int, zeros: str, has_bias: bool, n_rows: int) -> Kernel:
    element = STORED[dtype]
    word = "unsigned" if bits == 4 else "unsigned long long"
    parameters = [f"const {element}* __restrict__ a", f"const {word}* __restrict__ codes"]
    parameters.append(f"const {element}* __restrict__ scales")
    parameters += [f"const {STORED[zeros]}* __restrict__ zeros"] if zeros else []
    parameters += [f"const {element}* __restrict__ bias"] if has_bias else []
    parameters += [f"{element}* __restrict__ y", "long long depth", "long long n_columns", "long long block_size"]
    parameters.append("long long pitch")
    rows = range(n_rows)
    zero = _zero(zeros, bits)
    totals = ", ".join(f"total_{row} = 0" for row in rows)
    sums = "".join(
        f"""            {{
                const auto part = load_pack<{element}, {_CHUNK}>(a + {row} * depth + chunk * {_CHUNK});
                float product = 0, sum = 0;
#pragma unroll
                for (int i = 0; i < {_CHUNK}; ++i) {{
                    const float value = {computed("part.at[i]", dtype)};
                    product += value * (float)((unsigned)(word >> (i * {bits})) & {(1 << bits) - 1}u);
                    sum += value;
                }}
                total_{row} += scale * (product - zero * sum);
            }}
"""
        for row in rows
    )
    reduced = "".join(f"            total_{row} += other_lane(total_{row}, bits);\n" for row in rows)
    bias = f" + {computed('bias[column]', dtype)}" if has_bias else ""
    written = "".join(
        f"            y[{row} * n_columns + column] = {stored(f'total_{row}{bias}', dtype)};\n" for row in rows
    )
    text = f"""extern "C" __global__ void __launch_bounds__({_BLOCK})
{NAME}({", ".join(parameters)}) {{
    const int lanes = blockDim.x < {_WARP} ? (int)blockDim.x : {_WARP};
    const int lane = threadIdx.x % lanes, n_warps = (int)blockDim.x / lanes;
    const long long n_chunks = depth / {_CHUNK}, n_blocks = depth / block_size;
    const int chunks_of_block = (int)block_size / {_CHUNK};
    const long long step = (long long)gridDim.x * n_warps;
    for (long long first = (long long)blockIdx.x * n_warps; first < n_columns; first += step) {{
        const long long column = first + threadIdx.x / lanes;
        const long long end = column < n_columns ? n_chunks : 0;
        float {totals};
#pragma unroll 4
        for (int chunk = lane; chunk < end; chunk += lanes) {{
            const {word} word = codes[column * n_chunks + chunk];
            const int block = chunk / chunks_of_block;
            const float scale = {computed("scales[column * n_blocks + block]", dtype)};
            const float zero = {zero};
{sums}        }}
        for (int bits = 1; bits < lanes; bits *= 2) {{
{reduced}        }}
        if (lane == 0 && column < n_columns) {{
{written}        }}
    }}
}}
"""
    return kernel_of("n_bits", with_helpers(text))


__all__ = ["MOST_ROWS", "n_bits_launches", "unpack_launches"]
