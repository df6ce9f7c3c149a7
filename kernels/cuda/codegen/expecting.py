"""Values whose shapes earlier runs have shown, and checks of numbers that say them: the error word tells of others.

Places of what isn't 0 are found in two launches: blocks count in chunks of the elements, then each has its chunks'
first place by the counts before them, and writes in order.
"""

from __future__ import annotations

import functools

from distort.kernels.compiler.codegen.expecting import LARGEST
from distort.kernels.compiler.ir import ErrorWord
from distort.kernels.cuda.codegen.device_functions import with_helpers
from distort.kernels.cuda.codegen.dtypes import STORED, computed
from distort.kernels.cuda.codegen.grids import BLOCK, grid_kernel
from distort.kernels.cuda.launch import NAME, Argument, Kernel, Launch, kernel_of
from distort.kernels.cuda.operations import CudaExpect, CudaPlaces


def expect_launches(operation: CudaExpect) -> list[Launch]:
    addresses: list[Argument] = [t.address() for t in (*operation.inputs, *operation.outputs)]
    if operation.what == "same":
        n_items = operation.inputs[0].size
        return [Launch(_same(), [*addresses, ErrorWord(), n_items], n_items)] if n_items else []
    (result,) = operation.outputs
    n_items = max(result.size, 1)  # one looks, in any case
    return [Launch(_counting(result.element), [*addresses, ErrorWord(), result.size, n_items], n_items)]


@functools.cache
def _same() -> Kernel:
    parameters = [f"const long long* {name}" for name in ("given", "wanted", "other")]
    line = "if (given[item] != wanted[item] && given[item] != other[item]) *error = 1;"
    return grid_kernel("expect_same", [*parameters, "long long* error"], [line], True)


@functools.cache
def _counting(dtype: str) -> Kernel:
    """The last number lies before the limit, and what would be next doesn't."""
    element = STORED[dtype]
    parameters = [f"const {element}* {name}" for name in ("start", "limit", "delta")]
    parameters += [f"{element}* result", "long long* error", "long long n"]
    lines = [
        "const long long first = *start, end = *limit, step = *delta;",
        f"const long long most = {LARGEST}ll;",
        "bool fits = step != 0 && first < most && first > -most && end < most && end > -most;",
        "fits = fits && step < most && step > -most;",
        "const long long ahead = step < 0 ? first - end : end - first, size = step < 0 ? -step : step;",
        "if (fits) fits = ahead <= n * size && (n == 0 || (n - 1) * size < ahead);",
        "if (item == 0 && !fits) *error = 1;",
        f"if (item < n) result[item] = fits ? ({element})(first + item * step) : ({element})0;",
    ]
    return grid_kernel("counting", parameters, lines, True)


def places_launches(operation: CudaPlaces) -> list[Launch]:
    (x,), (result, counts) = operation.inputs, operation.outputs
    n_chunks = counts.size
    shared: list[Argument] = [x.address(), counts.address(), x.size, operation.chunk, n_chunks]
    writing: list[Argument] = [*shared, result.address(), ErrorWord(), result.shape[1], *x.shape]
    n_threads = n_chunks * BLOCK
    return [
        Launch(_counts(x.element), shared, n_threads, BLOCK, blocks=n_chunks),
        Launch(_places(x.element, len(x.shape)), writing, n_threads, BLOCK, blocks=n_chunks),
    ]


def _head(dtype: str, *more: str) -> str:
    parameters = [f"const {STORED[dtype]}* x", "int* counts", "long long size", "long long chunk", "long long n_chunks"]
    return f'extern "C" __global__ void __launch_bounds__({BLOCK})\n{NAME}({", ".join([*parameters, *more])})'


@functools.cache
def _counts(dtype: str) -> Kernel:
    text = f"""{_head(dtype)} {{
    __shared__ int total;
    for (long long number = blockIdx.x; number < n_chunks; number += gridDim.x) {{
        if (threadIdx.x == 0) total = 0;
        __syncthreads();
        int own = 0;
        for (long long k = threadIdx.x; k < chunk && number * chunk + k < size; k += blockDim.x)
            own += {computed("x[number * chunk + k]", dtype)} != 0;
        if (own) atomicAdd(&total, own);
        __syncthreads();
        if (threadIdx.x == 0) counts[number] = total;
        __syncthreads();
    }}
}}
"""
    return kernel_of("count_nonzero", with_helpers(text))


@functools.cache
def _places(dtype: str, rank: int) -> Kernel:
    axes = [
        line
        for axis in reversed(range(rank))
        for line in (
            f"result[{axis} * n + at] = {'rest' if axis == 0 else f'rest % size_{axis}'};",
            *([f"rest /= size_{axis};"] if axis else []),
        )
    ]
    more = ["long long* result", "long long* error", "long long n", *(f"long long size_{k}" for k in range(rank))]
    write = " ".join(axes)
    nothing = " ".join([f"result[{axis} * n + k] = 0;" for axis in range(rank)])
    text = f"""{_head(dtype, *more)} {{
    __shared__ int before, of_warps[33];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int n_warps = ((int)blockDim.x + 31) / 32;
    for (long long number = blockIdx.x; number < n_chunks; number += gridDim.x) {{
        __syncthreads();
        if (threadIdx.x == 0) before = 0;
        __syncthreads();
        int own = 0;
        for (long long k = threadIdx.x; k < number; k += blockDim.x) own += counts[k];
        if (own) atomicAdd(&before, own);
        __syncthreads();
        long long so_far = before;
        for (long long begin = 0; begin < chunk; begin += blockDim.x) {{
            const long long k = number * chunk + begin + threadIdx.x;
            const bool inside = begin + threadIdx.x < chunk && k < size;
            bool hit = false;
            if (inside) hit = {computed("x[k]", dtype)} != 0;
            int total = hit;
            for (int by = 1; by < 32; by *= 2) {{
                const int other = __shfl_up_sync(0xffffffffu, total, by);
                if (lane >= by) total += other;
            }}
            __syncthreads();
            if (lane == 31 || threadIdx.x == blockDim.x - 1) of_warps[warp] = total;
            __syncthreads();
            long long at = so_far + total - (hit ? 1 : 0);
            for (int w = 0; w < n_warps; ++w) {{
                if (w < warp) at += of_warps[w];
                so_far += of_warps[w];
            }}
            long long rest = k;
            if (hit && at < n) {{ {write} }}
        }}
        if (number == n_chunks - 1) {{
            if (threadIdx.x == 0 && so_far != n) *error = 1;
            // later steps read indices that there are
            for (long long k = so_far + threadIdx.x; k < n; k += blockDim.x) {{ {nothing} }}
        }}
    }}
}}
"""
    return kernel_of("places_nonzero", with_helpers(text))


__all__ = ["expect_launches", "places_launches"]
