"""What runs are expected to have, made and checked on a GPU: see the CPU's ``lower.expecting``."""

from __future__ import annotations

import numpy as np

from distort.kernels.compiler.builder import Builder
from distort.kernels.compiler.ir import Tensor
from distort.kernels.cuda.operations import CudaExpect, CudaPlaces

#: elements that a block has at once
CHUNK = 4096


def places(b: Builder, x: Tensor, count: int) -> Tensor:
    """As :meth:`Builder.places`."""
    result = b.new(np.int64, (len(x.shape), count))
    counts = b.new(np.int32, (-(-x.size // CHUNK),))
    b.add(CudaPlaces([x], [result, counts], CHUNK))
    return result


def counting(b: Builder, parts: list[Tensor], count: int) -> Tensor:
    """As :meth:`Builder.counting`."""
    result = b.new(parts[0].dtype, (count,))
    b.add(CudaExpect(parts, [result], "counting"))
    return result


__all__ = ["CHUNK", "counting", "places"]
