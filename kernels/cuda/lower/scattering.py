"""ScatterElements and ScatterND. Of several updates of a place the last one stays, as on the CPU.

Sums of several updates come in any order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from distort.graph.ir import Node
from distort.kernels.compiler.builder import Builder
from distort.kernels.compiler.ir import Tensor, strides_of
from distort.kernels.compiler.lower.gathering import axis_of_elements
from distort.kernels.compiler.lower.scattering import given
from distort.kernels.cuda.lower import lowers_cuda
from distort.kernels.cuda.operations import CudaScatter

Result = list[Tensor | None] | None
#: numbers of updates are 32 bits
_MOST_UPDATES = 1 << 31


def _kept(node: Node, inputs: list[Tensor | None]) -> tuple[Tensor, Tensor, Tensor, str] | None:
    found = given(node, inputs)
    if found is None:
        return None
    x, indices, _, reduction = found
    if (reduction != "none" and x.dtype == bool) or indices.size >= _MOST_UPDATES:
        return None
    return found


def _scatter(
    b: Builder,
    x: Tensor,
    indices: Tensor,
    updates: Tensor,
    reduction: str,
    inner: Sequence[int],
    of_result: Sequence[int],
    axes: Sequence[tuple[int, int]],
    index_step: int,
    shape_of_winners: Sequence[int],
    of_winners: Sequence[int],
    winner_steps: Sequence[int],
    result: Tensor,
) -> None:
    """``indices``: a view, one element an index; each index goes for ``inner`` elements of ``updates``.

    ``of_result``: strides of the updates' shape in the result; ``of_winners``: of the indices' shape in winners.
    """
    b.copy(x, result)
    if not updates.size:
        return
    target = result.view(updates.shape, of_result)
    places = indices.view((*indices.shape, *inner), (*indices.strides, *(0,) * len(inner)))
    more = {"axes": tuple(axes), "index_step": index_step, "winner_steps": tuple(winner_steps)}
    if reduction != "none":
        b.add(CudaScatter([target, places, updates], [target], **more, phase="reduce", reduction=reduction))  # type: ignore[arg-type]
        return
    read = [target, places, updates]
    if indices.size > 1:
        winners = b.new(np.int32, shape_of_winners)
        b.copy(b.constant(np.array(-1, np.int32)).broadcast(winners.shape), winners)
        claimed = winners.view(indices.shape, of_winners)
        b.add(CudaScatter([indices, claimed], [claimed], **more, phase="claim"))  # type: ignore[arg-type]
        read.append(winners.view(updates.shape, (*of_winners, *(0,) * len(inner))))
    b.add(CudaScatter(read, [target], **more, phase="put", n_repeated=math.prod(inner)))  # type: ignore[arg-type]


@lowers_cuda("ScatterElements", "Scatter")
def _scatter_elements(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    kept = _kept(node, inputs)
    if kept is None:
        return None
    x, indices, updates, reduction = kept
    axis = axis_of_elements(node, x, indices)
    if axis is None or indices.shape != updates.shape:
        return None
    result = b.new(x.dtype, x.shape)
    if 0 in x.shape:
        return None if indices.size else [result]
    strides = [0 if i == axis else step for i, step in enumerate(result.strides)]
    step = result.strides[axis]
    _scatter(
        *(b, x, indices, updates, reduction, (), strides, [(x.shape[axis], step)], 0),
        *(x.shape, strides, (step,), result),
    )
    return [result]


@lowers_cuda("ScatterND")
def _scatter_nd(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    kept = _kept(node, inputs)
    if kept is None:
        return None
    x, indices, updates, reduction = kept
    depth = indices.shape[-1] if indices.shape else 0
    if not 1 <= depth <= min(len(x.shape), 8) or updates.shape != indices.shape[:-1] + x.shape[depth:]:
        return None
    result = b.new(x.dtype, x.shape)
    if 0 in x.shape:
        return None if indices.size else [result]
    rows = indices.view(indices.shape[:-1], indices.strides[:-1])
    none = (0,) * len(rows.shape)
    axes = list(zip(x.shape[:depth], result.strides[:depth], strict=True))
    _scatter(
        *(b, x, rows, updates, reduction, x.shape[depth:], (*none, *result.strides[depth:]), axes),
        *(indices.strides[-1], x.shape[:depth], none, strides_of(x.shape[:depth]), result),
    )
    return [result]
