"""Attention among operations: a product, softmax over its rows, and a product of these become cuDNN's attention."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from distort.kernels.compiler.attending import before_softmax
from distort.kernels.compiler.attention import viewed
from distort.kernels.compiler.expression import identity
from distort.kernels.compiler.fuse import Uses
from distort.kernels.compiler.ir import Buffer, Map, Operation, Tensor, strides_of
from distort.kernels.compiler.rows import Rows
from distort.kernels.cuda.attention import CudaAttention
from distort.kernels.cuda.device_libraries import Libraries, is_aligned
from distort.kernels.cuda.dnn_graphs import ATTENTION_DTYPES, AttentionProblem
from distort.kernels.cuda.epilogues import epilogue_of
from distort.kernels.cuda.products import CudaProduct


def attend(operations: Sequence[Operation], libraries: Libraries) -> list[Operation]:
    """Operations, fused, with cuDNN's attention where it is found."""
    if not libraries.options.uses_cudnn_attention or not any(isinstance(o, Rows) for o in operations):
        return list(operations)
    uses = Uses(operations)
    place = {operation: i for i, operation in enumerate(operations)}
    order: list[list[Operation]] = [[operation] for operation in operations]
    for position, last in enumerate(operations):
        found = _found(last, uses)
        if found is None:
            continue
        before = (found.first, found.weights)
        if any(o.region != last.region or uses.changed_between(o, last, place) for o in before):
            continue
        made = _joined(found, libraries)
        if made is None:
            continue
        names = [*found.first.names, *found.weights.names, *last.names]
        for operation in made:
            operation.names, operation.region = names, last.region
        order[place[found.first]] = order[place[found.weights]] = []
        order[position] = made
    return [operation for made in order for operation in made]


class _Found(NamedTuple):
    first: CudaProduct
    weights: Rows
    last: CudaProduct


def _found(last: Operation, uses: Uses) -> _Found | None:
    if not isinstance(last, CudaProduct) or last.inputs[0].element not in ATTENTION_DTYPES or not _is_plain(last):
        return None
    weights = uses.only_maker(last.inputs[0], last)
    if not isinstance(weights, Rows) or len(weights.outputs) != 1:
        return None
    for tensor in weights.inputs:
        first = uses.only_maker(tensor, weights)
        if isinstance(first, CudaProduct) and not first.has_bias and not first.activation:
            return _Found(first, weights, last)
    return None


def _is_plain(product: CudaProduct) -> bool:
    return product.alpha == 1.0 and not (product.has_c or product.has_bias or product.activation)


def _joined(found: _Found, libraries: Libraries) -> list[Operation] | None:
    """The attention, with a copy of its bias before it where that repeats rows; None where they are none of cuDNN's."""
    first, weights, last = found
    networks = libraries.networks
    before = before_softmax(weights)
    scores = first.outputs[0]
    if networks is None or before is None or not 2 <= len(scores.shape) <= 4:
        return None
    n_entries, n_heads = (1, 1, *scores.shape[:-2])[-2:]
    heads = (n_entries, n_heads)
    (rows, keys), depth, columns = scores.shape[-2:], first.inputs[0].shape[-1], last.shape[-1]
    whole = (*heads, rows, keys)
    read = next(t for t in weights.inputs if t.buffer is scores.buffer)
    views = [
        viewed(first.inputs[0], (*heads, rows, depth)),
        viewed(first.inputs[1], (*heads, depth, keys)),
        viewed(last.inputs[1], (*heads, keys, columns)),
        viewed(last.outputs[0], (*heads, rows, columns)),
    ]
    between = [viewed(t, whole) for t in (scores, read, weights.outputs[0], last.inputs[0])]
    if None in views or None in between or weights.shape[-1] != keys:
        return None
    q, turned, v, o = (t for t in views if t is not None)
    made, taken, given, used = (t for t in between if t is not None)
    if not _same(made, taken) or not _same(given, used):
        return None
    k = turned.permuted([0, 1, 3, 2])
    if any(t.strides[3] != 1 or min(t.strides) < 1 or not is_aligned(t) for t in (q, k, v, o)):
        return None
    # softmax of what the product makes: scaled, with something added
    step = Map([t.broadcast(weights.shape) for t in weights.inputs], [weights.outputs[0]], before)
    epilogue = epilogue_of(step, scores.buffer)
    if epilogue is None or epilogue.activation or (epilogue.scale != 1.0 and first.has_c):
        return None
    added = [*epilogue.added, *(first.inputs[2:3] if first.has_c else [])]
    if len(added) > 1:
        return None
    bias, copies = None, list[Operation]()
    if added:
        view = viewed(added[0], whole)
        if view is None or view.element not in (q.element, "float32"):
            return None
        bias = _without_repeats(view)
        if bias.strides[3] != 1 or bias.strides[2] < keys or not is_aligned(bias):
            dense = Tensor(bias.dtype, bias.shape, strides_of(bias.shape), Buffer(bias.nbytes))
            copies.append(Map([bias], [dense], identity(bias.element)))
            bias = dense
    problem = AttentionProblem(
        q.element,
        n_entries,
        n_heads,
        n_heads,
        rows,
        keys,
        depth,
        columns,
        q.strides,
        k.strides,
        v.strides,
        o.strides,
        first.alpha * epilogue.scale,
        "",
        None if bias is None else (bias.shape, bias.strides),
        "" if bias is None else bias.element,
    )
    if not networks.supports(problem):
        return None
    inputs = [q, k, v, *([] if bias is None else [bias])]
    return [*copies, CudaAttention(inputs, list(last.outputs), libraries, problem)]


def _without_repeats(tensor: Tensor) -> Tensor:
    """Entries and heads that are all the same are one."""
    shape = list(tensor.shape)
    for axis in (0, 1):
        if tensor.strides[axis] == 0:
            shape[axis] = 1
    strides = [step or 1 for step in tensor.strides[:2]]
    return tensor.view(shape, (*strides, *tensor.strides[2:]))


def _same(a: Tensor, b: Tensor) -> bool:
    """Whether two views of one shape are of the same elements."""
    steps = (s == t for n, s, t in zip(a.shape, a.strides, b.strides, strict=True) if n != 1)
    return a.buffer is b.buffer and a.offset == b.offset and a.dtype == b.dtype and all(steps)


__all__ = ["attend"]
