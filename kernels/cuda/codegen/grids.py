"""Kernels whose threads each do one item after another, with nothing between them."""

from __future__ import annotations

from collections.abc import Sequence

from distort.kernels.cuda.codegen.device_functions import with_helpers
from distort.kernels.cuda.codegen.indexing import index_type
from distort.kernels.cuda.launch import NAME, Kernel, kernel_of

BLOCK = 256


def grid_kernel(family: str, parameters: Sequence[str], lines: Sequence[str], wide: bool, before: str = "") -> Kernel:
    """``lines`` do ``item``, of ``n_items`` (the last parameter); ``before``: functions of the kernel's own."""
    kind = index_type(wide)
    body = "".join([f"        {line}\n" for line in lines])
    text = (
        f'{before}extern "C" __global__ void __launch_bounds__({BLOCK})\n'
        f"{NAME}({', '.join([*parameters, 'long long n_items'])}) {{\n"
        f"    const {kind} step = ({kind})gridDim.x * ({kind})blockDim.x;\n"
        f"    const {kind} first = ({kind})blockIdx.x * ({kind})blockDim.x + ({kind})threadIdx.x;\n"
        f"    for ({kind} item = first; item < ({kind})n_items; item += step) {{\n{body}    }}\n}}\n"
    )
    return kernel_of(family, with_helpers(text))


__all__ = ["BLOCK", "grid_kernel"]
