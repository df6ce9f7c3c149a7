"""Attention for a GPU: cuDNN's where it has it, else products with a softmax between them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from distort.kernels.compiler.attention import ALL
from distort.kernels.compiler.builder import Builder
from distort.kernels.compiler.expression import Expression, Instruction
from distort.kernels.compiler.ir import Map, Tensor
from distort.kernels.compiler.rows import Body
from distort.kernels.compiler.scores import Scores
from distort.kernels.cuda.device_libraries import LibraryOperation, copied, is_aligned, libraries_of
from distort.kernels.cuda.dnn import GraphPlan
from distort.kernels.cuda.dnn_graphs import ATTENTION_DTYPES, AttentionProblem
from distort.kernels.cuda.library_call import LibraryCall, Withdrawn
from distort.kernels.cuda.products import multiply

#: what hides a key: less than any score
_HIDDEN = -1e30


@dataclass(eq=False)
class CudaAttention(LibraryOperation):
    """``inputs``: q [B, H, S, D], k [B, G, T, D], v [B, G, T, C], and a bias [B or 1, H or 1, S, T] where there is one,
    numbers of queries and of keys, int32 [B], where entries end before others.

    The output is [B, H, S, C].
    """

    problem: AttentionProblem
    kind: ClassVar[str] = "cuda attention"

    def library_call(self, context: object = None) -> LibraryCall:
        del context
        networks = self.libraries.networks
        plan = None if networks is None else networks.attention(self.problem)
        if plan is None:
            raise Withdrawn(str(self.problem))
        lengths = ("n_queries", "n_keys") if self.problem.lengths else ()
        return GraphCall(plan, ("q", "k", "v", *(("bias",) if self.problem.bias else ()), *lengths, "o"))


@dataclass(slots=True)
class GraphCall:
    """A graph of cuDNN's. ``names`` of its tensors, as addresses come."""

    plan: GraphPlan
    names: tuple[str, ...]

    @property
    def workspace_nbytes(self) -> int:
        return self.plan.workspace_nbytes

    def run(self, addresses: Sequence[int], workspace: int, stream: int) -> None:
        self.plan.run(dict(zip(self.names, addresses, strict=True)), workspace, stream)


def attend(
    b: Builder,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scores: Scores,
    *,
    zeros: bool,
    flat: bool,
    reach: int = ALL,
    limits: Tensor | None = None,
) -> Tensor | None:
    """As ``scores.attend`` of the compiler, whose arguments these are; it has looked at their shapes."""
    del reach  # it only says what the scores say too
    (batch, heads, steps, _), columns = q.shape, v.shape[3]
    if q.dtype != k.dtype or q.dtype != v.dtype or q.element not in ("float32", *ATTENTION_DTYPES):
        return None
    if flat:
        made = b.new(q.dtype, (batch, steps, heads * columns))
        apart = made.view((batch, heads, steps, columns), (steps * heads * columns, columns, heads * columns, 1))
    else:
        apart = made = b.new(q.dtype, (batch, heads, steps, columns))
    q, k, v = b.plain(q), b.plain(k), b.plain(v)
    if _by_cudnn(b, q, k, v, scores, zeros, apart, limits):
        return made
    if limits is not None:
        scores.padded(b, limits, k.shape[2])
    return made if _by_products(b, q, k, v, scores, zeros, apart) else None


def _by_cudnn(
    b: Builder,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scores: Scores,
    zeros: bool,
    out: Tensor,
    limits: Tensor | None = None,
) -> bool:
    """Whether cuDNN does it as one operation, which is added then."""
    libraries = libraries_of(b)
    networks = None if libraries is None else libraries.networks
    if libraries is None or networks is None:
        return False
    if q.element not in ATTENTION_DTYPES or not libraries.options.uses_cudnn_attention:
        return False
    (batch, heads, steps, size), (groups, keys), columns = q.shape, k.shape[1:3], v.shape[3]
    plain = scores.plain((steps, keys), _HIDDEN)
    if plain is None:
        return False
    scale, causal, added, counts = plain
    if limits is not None and counts is not None:
        return False
    has_keys = limits is not None  # one at least
    counts = counts if limits is None else limits
    if counts is not None and (causal or not zeros):
        return False  # a mask that is causal counts from the last of all keys, cuDNN from the last that there is
    bias = _bias(b, added, (batch, heads, steps, keys), q)
    if added and bias is None:
        return False
    q, k, v = (t if t.strides[3] == 1 and min(t.strides) > 0 and is_aligned(t) else copied(b, t) for t in (q, k, v))
    problem = AttentionProblem(
        q.element,
        batch,
        heads,
        groups,
        steps,
        keys,
        size,
        columns,
        q.strides,
        k.strides,
        v.strides,
        out.strides,
        scale,
        causal,
        None if bias is None else (bias.shape, bias.strides),
        lengths=counts is not None,
    )
    if not networks.supports(problem):
        return False
    inputs = [q, k, v, *([] if bias is None else [bias])]
    if counts is None:  # every query sees a key, by what is taken here
        b.add(CudaAttention(inputs, [out], libraries, problem))
        return True
    whole = b.map("min", [b.map("max", [counts, b.number("one", 1)]), b.number("keys", keys)])
    inputs += [b.constant(np.full(batch, steps, np.int32)), b.contiguous(b.map("cast", [whole], np.int32))]
    if has_keys:
        b.add(CudaAttention(inputs, [out], libraries, problem))
        return True
    made = b.new(q.dtype, out.shape).view(out.shape, out.strides)
    b.add(CudaAttention(inputs, [made], libraries, problem))
    _without_keys(b, made, counts, out)
    return True


def _without_keys(b: Builder, made: Tensor, counts: Tensor, out: Tensor) -> None:
    """Results with zeros for entries that have no key."""
    column = counts.view((counts.size, 1, 1, 1), (counts.strides[0], 0, 0, 0))
    some = b.map("greater", [column, b.constant(np.zeros((), np.int64))], np.bool_)
    nothing = Instruction("constant", (0,), made.element, (0.0,))
    expression = Expression((made.element, "bool"), (nothing, Instruction("where", (1, 0, 2), made.element)), (3,))
    b.add(Map([made, some.broadcast(out.shape)], [out], expression))


def _bias(b: Builder, added: Sequence[tuple[Tensor, float | None]], shape: tuple[int, ...], q: Tensor) -> Tensor | None:
    """The sum of what is added to scores, [B or 1, H or 1, S, T] in the dtype of ``q``. None where one doesn't fit.

    ``added``: tensors, or masks of integers with what is added where these are 0.
    """
    total: Tensor | None = None
    for tensor, filler in added:
        fits = len(tensor.shape) <= 4 and all(
            n in (1, want) for n, want in zip(reversed(tensor.shape), reversed(shape), strict=False)
        )
        if not fits:
            return None
        part = b.plain(tensor)
        if filler is not None:
            hidden = b.map("equal", [part, b.constant(np.zeros((), part.dtype))], np.bool_)
            numbers = [b.constant(np.array(number, q.dtype)) for number in (filler, 0.0)]
            part = b.map("where", [hidden, *numbers], q.dtype)
        elif part.dtype != q.dtype:
            part = b.map("cast", [part], q.dtype)
        total = part if total is None else b.map("add", [total, part])
    if total is None:
        return None
    outer = (1,) * (4 - len(total.shape)) + total.shape
    view = total.view(outer, (0,) * (4 - len(total.shape)) + total.strides)
    view.value = None if total.value is None else total.value.reshape(outer)
    # rows and columns are all there; entries and heads may be one for all
    whole = b.contiguous(view.broadcast((*outer[:2], *shape[2:])))
    return whole


def _by_products(b: Builder, q: Tensor, k: Tensor, v: Tensor, scores: Scores, zeros: bool, out: Tensor) -> bool:
    """Whether products can be made of it, which are added then with a softmax of float32 between them."""
    (batch, heads, steps, _), (groups, keys) = q.shape, k.shape[1:3]
    operands = scores.operands(b, (batch, heads, steps, keys))
    if operands is None:
        return False
    repeated = heads // groups

    def by_group(tensor: Tensor) -> Tensor:
        """[B, H, …] as [B, groups, heads of a group, …]"""
        if repeated == 1:
            return tensor
        strides = (tensor.strides[0], tensor.strides[1] * repeated, tensor.strides[1], *tensor.strides[2:])
        return tensor.view((batch, groups, repeated, *tensor.shape[2:]), strides)

    def shared(tensor: Tensor) -> Tensor:
        if repeated == 1:
            return tensor
        return tensor.view((batch, groups, 1, *tensor.shape[2:]), (*tensor.strides[:2], 0, *tensor.strides[2:]))

    products = multiply(b, by_group(q), shared(k.permuted([0, 1, 3, 2])), "float32")
    if products is None:
        return False
    products = products.reshaped((batch, heads, steps, keys))
    expression = scores.expression()
    if expression.body:
        changed = b.new(np.float32, products.shape)
        b.add(Map([products, *operands], [changed], expression))
        products = changed
    weights = _softmax(b, products, q.element, zeros)
    return weights is not None and multiply(b, by_group(weights), shared(v), to=by_group(out)) is not None


def _softmax(b: Builder, scores: Tensor, dtype: str, zeros: bool) -> Tensor | None:
    """Over the last axis, stored as ``dtype``. ``zeros``: what rows of no keys become, instead of NaN."""
    body = Body(scores.shape, "float32")
    element = body.input(scores)
    top = body.op("row_max", element, attributes=("numbers",))
    power = body.op("exp_to_one", body.op("sub", element, top))
    weights = body.op("mul", power, body.op("reciprocal", body.op("row_sum", power)))
    if zeros:
        none = body.op("equal", top, body.number(-math.inf), dtype="bool")
        weights = body.op("where", none, body.number(0.0), weights)
    if dtype != "float32":
        weights = body.op("cast", weights, dtype=dtype)
    made = body.add(b, (len(scores.shape) - 1,), [(weights, dtype, False)])
    return None if made is None else made[0]


__all__ = ["CudaAttention", "GraphCall", "attend"]
