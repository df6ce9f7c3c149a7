"""Running sums and products. Where neighbours are of different rows a thread goes along one; else a block does.

A block has one element for each thread at a time: scanned within warps, then over warps, on top of what came before.
"""

from __future__ import annotations

import functools

from distort.kernels.cuda.codegen.device_functions import with_helpers
from distort.kernels.cuda.codegen.dtypes import COMPUTED, STORED, computed, is_real, literal, stored
from distort.kernels.cuda.codegen.expressions import unsigned
from distort.kernels.cuda.codegen.grids import BLOCK, grid_kernel
from distort.kernels.cuda.launch import NAME, Argument, Kernel, Launch, kernel_of
from distort.kernels.cuda.operations import CudaScan


def scan_launches(operation: CudaScan) -> list[Launch]:
    (x,), (y,) = operation.inputs, operation.outputs
    outer, n, inner = x.shape
    if not x.size:
        return []
    along = inner == 1 and n > 1
    kernel = _kernel(x.element, operation.product, operation.exclusive, along)
    step = inner
    first = (n - 1) * step if operation.reverse else 0
    arguments: list[Argument] = [x.address(), y.address(), n, inner, first, -step if operation.reverse else step]
    if along:
        return [Launch(kernel, [*arguments, outer], outer * BLOCK, BLOCK, blocks=outer)]
    return [Launch(kernel, [*arguments, outer * inner], outer * inner, BLOCK)]


@functools.lru_cache(128)
def _kernel(dtype: str, product: bool, exclusive: bool, along: bool) -> Kernel:
    value, element = COMPUTED[dtype], STORED[dtype]
    none = literal(int(product), dtype)
    sign = "*" if product else "+"

    def joined(a: str, b: str) -> str:
        if is_real(dtype):
            return f"{a} {sign} {b}"
        wide = unsigned(dtype)
        return f"({value})(({wide}){a} {sign} ({wide}){b})"

    parameters = [f"const {element}* __restrict__ x", f"{element}* __restrict__ y"]
    parameters += ["long long n", "long long inner", "long long start", "long long along"]
    if not along:
        write = f"y[at] = {stored('total', dtype)};"
        after = [f"total = {joined('total', computed('x[at]', dtype))};"]
        lines = [
            "const long long begin = item / inner * n * inner + item % inner + start;",
            f"{value} total = {none};",
            "for (long long k = 0; k < n; ++k) {",
            "    const long long at = begin + k * along;",
            *[f"    {line}" for line in ([write, *after] if exclusive else [*after, write])],
            "}",
        ]
        return grid_kernel("columns_scan", parameters, lines, True)
    text = f"""extern "C" __global__ void __launch_bounds__({BLOCK})
{NAME}({", ".join(parameters)}, long long n_rows) {{
    __shared__ {value} of_warps[33];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int n_warps = ((int)blockDim.x + 31) / 32;
    for (long long row = blockIdx.x; row < n_rows; row += gridDim.x) {{
        {value} before = {none};
        for (long long begin = 0; begin < n; begin += blockDim.x) {{
            const long long k = begin + threadIdx.x, at = row * n + start + k * along;
            {value} own = {none};
            if (k < n) own = {computed("x[at]", dtype)};
            {value} total = own;
            for (int by = 1; by < 32; by *= 2) {{
                const {value} other = __shfl_up_sync(0xffffffffu, total, by);
                if (lane >= by) total = {joined("other", "total")};
            }}
            __syncthreads();
            if (lane == 31 || threadIdx.x == blockDim.x - 1) of_warps[warp] = total;
            __syncthreads();
            {value} sum = before;
            for (int w = 0; w < n_warps; ++w) {{
                if (w == warp) own = sum;
                sum = {joined("sum", "of_warps[w]")};
            }}
            const {value} carried = own;
            {value} result = {joined("carried", "total")};
"""
    if exclusive:
        text += f"""            {value} earlier = __shfl_up_sync(0xffffffffu, total, 1);
            result = lane ? {joined("carried", "earlier")} : carried;
"""
    text += f"""            if (k < n) y[at] = {stored("result", dtype)};
            before = sum;
        }}
    }}
}}
"""
    return kernel_of("rows_scan", with_helpers(text))


__all__ = ["scan_launches"]
