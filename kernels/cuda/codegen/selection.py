"""The largest or smallest of rows: a block sorts as much of a row as shared memory holds, and keeps k each time.

What is sorted are numbers of 64 bits: an element's order above, its place below, so that no two are equal.
"""

from __future__ import annotations

import functools

from distort.kernels.cuda.codegen.dtypes import NBYTES, STORED, computed, is_real, is_signed
from distort.kernels.cuda.codegen.helpers import with_helpers
from distort.kernels.cuda.launch import NAME, Argument, Kernel, Launch, kernel_of
from distort.kernels.cuda.operations import CudaTopK

#: what a block sorts at once, at most: 32 KiB
MOST_SORTED = 4096
#: k that leave room for enough others
MOST_KEPT = MOST_SORTED // 2
_BLOCK = 256
#: dtypes whose order fits in 32 bits
ORDERED = frozenset(name for name in STORED if NBYTES[name] <= 4 and name != "bool")


def top_k_launches(operation: CudaTopK) -> list[Launch]:
    (x,), (values, places) = operation.inputs, operation.outputs
    n_rows, n = x.shape
    k = values.shape[1]
    if not values.size:
        return []
    # as small as will do: sorting costs more than its length
    sorted_ = 32
    while sorted_ < min(MOST_SORTED, max(2 * k, min(n, 1024))):
        sorted_ *= 2
    kernel = _kernel(x.element, operation.largest)
    arguments: list[Argument] = [x.address(), values.address(), places.address(), n_rows, n, k, sorted_, *x.strides]
    return [Launch(kernel, arguments, n_rows * _BLOCK, _BLOCK, shared_nbytes=8 * sorted_, blocks=n_rows)]


def _order(dtype: str) -> str:
    """An unsigned number that goes up with the element ``value``; NaN is above all."""
    if is_real(dtype):
        value = computed("value", dtype)
        return (
            f"const float real = {value};\n"
            "            unsigned order = bits_of(real + 0.0f);\n"
            "            order = real != real ? 0xffffffffu : order >> 31 ? ~order : order | 0x80000000u;"
        )
    lowest = "0x80000000u" if is_signed(dtype) else "0u"
    return f"unsigned order = (unsigned)value + {lowest};"


@functools.lru_cache(64)
def _kernel(dtype: str, largest: bool) -> Kernel:
    element = STORED[dtype]
    turned = "~order" if largest else "order"
    text = f"""extern "C" __global__ void __launch_bounds__({_BLOCK})
{NAME}(const {element}* __restrict__ x, {element}* __restrict__ values, long long* __restrict__ places,
    long long n_rows, long long n, long long k, long long n_sorted, long long row_step, long long step) {{
    dynamic_shared(room);
    unsigned long long* const keys = (unsigned long long*)room;
    for (long long row = blockIdx.x; row < n_rows; row += gridDim.x) {{
        int kept = 0;
        for (long long begin = 0; begin < n;) {{
            __syncthreads();
            const int n_new = (int)(n - begin < n_sorted - kept ? n - begin : n_sorted - kept);
            for (int i = kept + threadIdx.x; i < (int)n_sorted; i += blockDim.x) {{
                unsigned long long key = ~0ull;
                if (i < kept + n_new) {{
                    const long long place = begin + i - kept;
                    const {element} value = x[row * row_step + place * step];
            {_order(dtype)}
                    key = (unsigned long long)({turned}) << 32 | (unsigned)place;
                }}
                keys[i] = key;
            }}
            for (int size = 2; size <= (int)n_sorted; size *= 2) {{
                for (int apart = size / 2; apart > 0; apart /= 2) {{
                    __syncthreads();
                    for (int i = threadIdx.x; i < (int)n_sorted / 2; i += blockDim.x) {{
                        const int a = i / apart * apart * 2 + i % apart, b = a + apart;
                        const unsigned long long first = keys[a], second = keys[b];
                        if ((first > second) == ((a & size) == 0)) {{
                            keys[a] = second;
                            keys[b] = first;
                        }}
                    }}
                }}
            }}
            __syncthreads();
            begin += n_new;
            kept = (int)k;
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


__all__ = ["MOST_KEPT", "MOST_SORTED", "ORDERED", "top_k_launches"]
