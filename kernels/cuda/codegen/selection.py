"""The largest or smallest of rows: a block goes through a row, keeps what comes before the last of the best k so far,
and sorts when its shared memory is full.

What is sorted are numbers of 64 bits: an element's order above, its place below, so that no two are equal, and in what
order threads keep them does not matter.
"""

from __future__ import annotations

import functools

from distort.kernels.cuda.codegen.device_functions import with_helpers
from distort.kernels.cuda.codegen.dtypes import NBYTES, STORED, computed, is_real, is_signed
from distort.kernels.cuda.launch import NAME, Argument, Kernel, Launch, kernel_of
from distort.kernels.cuda.operations import CudaTopK

#: what a block sorts at once, at most: 32 KiB
_MOST_SORTED = 4096
#: threads of a block, by the length of rows
_MOST_BLOCK = 1024
_BLOCKS = ((64, 32), (8192, 256), (1 << 62, _MOST_BLOCK))
#: k that leave room for what a block finds in one step
MOST_KEPT = _MOST_SORTED - _MOST_BLOCK
#: dtypes whose order fits in 32 bits
ORDERED = frozenset(name for name in STORED if NBYTES[name] <= 4 and name != "bool")


def top_k_launches(operation: CudaTopK) -> list[Launch]:
    (x,), (values, places) = operation.inputs, operation.outputs
    n_rows, n = x.shape
    k = values.shape[1]
    if not values.size:
        return []
    block = next(block for limit, block in _BLOCKS if n <= limit)
    n_sorted = 1 << (max(k + block, min(n, 2 * block)) - 1).bit_length()
    kernel = _kernel(x.element, operation.largest)
    arguments: list[Argument] = [x.address(), values.address(), places.address(), n_rows, n, k, n_sorted, *x.strides]
    return [Launch(kernel, arguments, n_rows * block, block, shared_nbytes=8 * n_sorted, blocks=n_rows)]


def _order(dtype: str) -> str:
    """Statements: an unsigned ``order`` that goes up with the element ``value``; NaN is above all, zeros are equal."""
    if is_real(dtype):
        return (
            f"const float real = {computed('value', dtype)};\n"
            "    unsigned order = bits_of(real + 0.0f);\n"
            "    order = real != real ? 0xffffffffu : order >> 31 ? ~order : order | 0x80000000u;"
        )
    lowest = "0x80000000u" if is_signed(dtype) else "0u"
    return f"const unsigned order = (unsigned)value + {lowest};"


@functools.lru_cache(64)
def _kernel(dtype: str, largest: bool) -> Kernel:
    element = STORED[dtype]
    text = f"""typedef unsigned long long {NAME}_number;
static __device__ __forceinline__ {NAME}_number {NAME}_key(const {element} value, long long place) {{
    {_order(dtype)}
    return ({NAME}_number)({"~order" if largest else "order"}) << 32 | (unsigned)place;
}}
extern "C" __global__ void __launch_bounds__({_MOST_BLOCK})
{NAME}(const {element}* __restrict__ x, {element}* __restrict__ values, long long* __restrict__ places,
    long long n_rows, long long n, long long k, long long n_sorted, long long row_step, long long step) {{
    dynamic_shared(room);
    {NAME}_number* const keys = ({NAME}_number*)room;
    __shared__ int n_held;
    const int size = (int)n_sorted;
    for (long long row = blockIdx.x; row < n_rows; row += gridDim.x) {{
        {NAME}_number limit = ~0ull;  // what comes later is of no use
        if (threadIdx.x == 0) n_held = 0;
        __syncthreads();
        for (long long begin = 0; begin < n; begin += blockDim.x) {{
            const long long place = begin + threadIdx.x;
            if (place < n) {{
                const {NAME}_number key = {NAME}_key(x[row * row_step + place * step], place);
                if (key < limit) keys[atomicAdd(&n_held, 1)] = key;
            }}
            __syncthreads();
            const int held = n_held;
            __syncthreads();
            if (held + (int)blockDim.x <= size && begin + blockDim.x < n) continue;
            for (int i = held + threadIdx.x; i < size; i += blockDim.x) keys[i] = ~0ull;
            for (int run = 2; run <= size; run *= 2) {{
                for (int apart = run / 2; apart > 0; apart /= 2) {{
                    __syncthreads();
                    for (int i = threadIdx.x; i < size / 2; i += blockDim.x) {{
                        const int a = i / apart * apart * 2 + i % apart, b = a + apart;
                        const {NAME}_number first = keys[a], second = keys[b];
                        if ((first > second) == ((a & run) == 0)) {{
                            keys[a] = second;
                            keys[b] = first;
                        }}
                    }}
                }}
            }}
            __syncthreads();
            limit = keys[k - 1];
            if (threadIdx.x == 0) n_held = held < (int)k ? held : (int)k;
            __syncthreads();
        }}
        for (int i = threadIdx.x; i < (int)k; i += blockDim.x) {{
            const long long place = (long long)(unsigned)keys[i];
            values[row * k + i] = x[row * row_step + place * step];
            places[row * k + i] = place;
        }}
        __syncthreads();
    }}
}}
"""
    return kernel_of("top", with_helpers(text))


__all__ = ["MOST_KEPT", "ORDERED", "top_k_launches"]
