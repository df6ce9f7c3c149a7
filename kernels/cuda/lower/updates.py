"""TensorScatter: new entries of caches, each batch's at its own place.

The cache is made anew: an entry is read from the updates where one lies there, else from the cache.
"""

from __future__ import annotations

import numpy as np

from distort.graph.ir import Node
from distort.kernels.compiler.builder import Builder
from distort.kernels.compiler.expression import Instruction
from distort.kernels.compiler.ir import Tensor
from distort.kernels.cuda.lower import lowers_cuda
from distort.kernels.cuda.lower.gathering import gather_at

Result = list[Tensor | None] | None


@lowers_cuda("TensorScatter")
def _tensor_scatter(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    past, update, starts = [*inputs, None][:3]
    axis, mode = node.attributes.get("axis", -2), node.attributes.get("mode", "linear")
    if past is None or update is None or past.dtype != update.dtype or mode not in ("linear", "circular"):
        return None
    rank = len(past.shape)
    if rank < 2 or not -rank <= axis < rank or axis % rank == 0 or not past.size or not update.size:
        return None
    axis %= rank
    length, size = update.shape[axis], past.shape[axis]
    if update.shape != (*past.shape[:axis], length, *past.shape[axis + 1 :]) or length > size:
        return None
    n_batches = past.shape[0]
    if starts is None:
        starts = b.constant(np.zeros(n_batches, np.int64))
    if starts.dtype != np.int64 or starts.shape != (n_batches,):
        return None
    batches = b.contiguous(starts).reshaped((n_batches, 1))
    places = b.constant(np.arange(size, dtype=np.int64))
    # which update lies at a place, or which one would
    number = b.map("sub", [places, batches], np.int64)
    whole, count, nothing = (b.number(what, value) for what, value in (("size", size), ("length", length), ("none", 0)))
    if mode == "circular":
        number = b.map("mod", [number, whole], np.int64, (0,))
    body = [
        Instruction("greater_or_equal", (0, 2), "bool"),
        Instruction("less", (0, 1), "bool"),
        Instruction("and", (3, 4), "bool"),
    ]
    lies = b.map("", [number, count, nothing], np.bool_, body=body)
    index = b.map("where", [lies, number, nothing], np.int64)
    if mode == "linear":
        # what would lie outside is refused, as an index that is out of range
        last = b.map("add", [batches, count], np.int64)
        body = [
            Instruction("less", (0, 3), "bool"),
            Instruction("greater", (1, 2), "bool"),
            Instruction("or", (5, 6), "bool"),
            Instruction("where", (7, 2, 4), "int64"),
        ]
        index = b.map("", [batches, last, whole, nothing, index], np.int64, body=body)
    index = b.contiguous(index)
    steps = [0] * rank
    steps[0], steps[axis] = index.strides
    of_update = list(update.strides)
    of_update[axis] = 0
    source = b.plain(update).view(past.shape, of_update)
    found = gather_at(b, source, index.view(past.shape, steps), past.shape, [(length, update.strides[axis])])
    chosen = b.contiguous(lies)
    return [b.map("where", [chosen.view(past.shape, steps), found, past], past.dtype)]
