"""Reading by index: one kernel, whatever strides x has. Gather and GatherElements come here by the builder."""

from __future__ import annotations

from collections.abc import Sequence

from distort.graph.ir import Node
from distort.kernels.compiler.builder import Builder
from distort.kernels.compiler.ir import Tensor
from distort.kernels.cuda.lower import lowers_cuda
from distort.kernels.cuda.operations import CudaGather

Result = list[Tensor | None] | None
INDEX_TYPES = ("int32", "int64")


def gather_at(
    b: Builder, x: Tensor, indices: Tensor, shape: Sequence[int], axes: Sequence[tuple[int, int]], index_step: int = 0
) -> Tensor:
    """``x`` and ``indices``: views of ``shape``."""
    result = b.new(x.dtype, shape)
    if result.size:
        b.add(CudaGather([x, indices], [result], tuple(axes), index_step))
    return result


def gathered(b: Builder, x: Tensor, axis: int, indices: Tensor) -> Tensor:
    """x [outer…, n, inner…] at indices: [outer…, number of indices, inner…], contiguous. x is not in blocks."""
    shape = [*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]]
    of_x = [*x.strides[:axis], *(0,) * len(indices.shape), *x.strides[axis + 1 :]]
    of_indices = [*(0,) * axis, *indices.strides, *(0,) * (len(x.shape) - 1 - axis)]
    made = gather_at(b, x.view(shape, of_x), indices.view(shape, of_indices), shape, [(x.shape[axis], x.strides[axis])])
    return made.reshaped((*x.shape[:axis], indices.size, *x.shape[axis + 1 :]))


def gathered_elements(b: Builder, x: Tensor, axis: int, indices: Tensor) -> Tensor:
    """Along one axis; indices are no longer along the others than x."""
    strides = [0 if i == axis else stride for i, stride in enumerate(x.strides)]
    source = x.view(indices.shape, strides)
    return gather_at(b, source, indices, indices.shape, [(x.shape[axis], x.strides[axis])])


@lowers_cuda("GatherND")
@lowers_cuda("GatherND", domain="com.microsoft")
def _gather_nd(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    x, indices = inputs
    if x is None or indices is None or indices.element not in INDEX_TYPES or not indices.shape:
        return None
    batch, depth = node.attributes.get("batch_dims", 0), indices.shape[-1]
    rank = len(x.shape)
    if not 0 <= batch < len(indices.shape) or not 1 <= depth <= rank - batch or depth > 8:
        return None
    if x.shape[:batch] != indices.shape[:batch]:
        return None
    inner = batch + depth
    shape = [*indices.shape[:-1], *x.shape[inner:]]
    if 0 in x.shape and 0 not in shape:
        return None
    n_rows = len(indices.shape) - 1 - batch
    of_x = [*x.strides[:batch], *(0,) * n_rows, *x.strides[inner:]]
    of_indices = [*indices.strides[:-1], *(0,) * (rank - inner)]
    axes = list(zip(x.shape[batch:inner], x.strides[batch:inner], strict=True))
    return [gather_at(b, x.view(shape, of_x), indices.view(shape, of_indices), shape, axes, indices.strides[-1])]
