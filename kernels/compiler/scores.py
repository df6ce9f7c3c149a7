"""What is done to attention's scores between the products, written down step by step; and heads as views."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from distort.kernels.compiler import half
from distort.kernels.compiler.attention import ALL, FEW_ROWS, Attention, fits
from distort.kernels.compiler.builder import Builder
from distort.kernels.compiler.expression import Expression, Instruction, name_of, of_sums
from distort.kernels.compiler.ir import Tensor

#: an operand of a step that is the scores so far
SO_FAR = None
_Operand = Tensor | float | None


class Scores:
    """Steps from the products of queries and keys to what softmax is done to, [B, H, S, T]."""

    def __init__(self) -> None:
        self._operands: list[Tensor] = []
        self._steps: list[tuple[str, tuple[int | float, ...], str]] = []
        #: of the step that hides padding its number, and how many keys entries have
        self._padding: tuple[int, Tensor] | None = None

    def then(self, op: str, *operands: _Operand) -> None:
        """The scores become this; tensors broadcast to them, numbers are constants."""
        self._steps.append((op, tuple(self._place(o) for o in operands), "float32"))

    def _place(self, operand: _Operand) -> int | float:
        if operand is None:
            return 0
        if not isinstance(operand, Tensor):
            return float(operand)
        self._operands.append(operand)
        return len(self._operands)

    def scaled(self, factor: float) -> None:
        self.then("mul", SO_FAR, factor)

    def capped(self, limit: float) -> None:
        """limit · tanh(x / limit)"""
        self.then("div", SO_FAR, limit)
        self.then("tanh", SO_FAR)
        self.then("mul", SO_FAR, limit)

    def seen(self, mask: Tensor, other: float) -> None:
        """What a bool mask hides becomes ``other``."""
        self.then("where", mask, SO_FAR, other)

    def padded(self, b: Builder, counts: Tensor, keys: int) -> None:
        """An entry's keys from its number on, int64 [B], are padding that nobody sees."""
        column = counts.view((counts.size, 1, 1, 1), (counts.strides[0], 0, 0, 0))
        self._padding = (len(self._steps), counts)
        self.seen(b.map("less", [b.constant(np.arange(keys)), column], np.bool_), -math.inf)

    def hidden(self, mask: Tensor, filler: float) -> None:
        """``filler`` is added where a mask of integers is 0."""
        self._steps.append(("hidden", (self._place(mask), float(filler)), mask.element))

    def limited(self, limits: Tensor) -> None:
        """A further operand, the last one: [B], as a column."""
        self._place(limits.view((limits.size, 1, 1, 1), (limits.strides[0], 0, 0, 0)))

    def operands(self, b: Builder, shape: Sequence[int]) -> list[Tensor] | None:
        """As views of ``shape``; None where one doesn't broadcast to it."""
        found = []
        for tensor in self._operands:
            fitting = len(tensor.shape) <= len(shape) and all(
                n in (1, want) for n, want in zip(reversed(tensor.shape), reversed(shape), strict=False)
            )
            if not fitting:
                return None
            view = b.plain(tensor).broadcast(shape)
            found.append(view if view.strides[-1] in (0, 1) else b.contiguous(tensor).broadcast(shape))
        return found

    def plain(
        self, shape: tuple[int, int], least: float
    ) -> tuple[float, str, list[tuple[Tensor, float | None]], Tensor | None] | None:
        """The steps as a scale, a causal mask, what is added, and how many keys entries have where some are padding.

        None where they are something else.

        ``shape``: queries S, keys T. ``least``: what hides a key. The mask: "", "first" (query n sees keys up to n),
        "last" (up to n + T - S). Added are tensors, or masks of integers with what is added where these are 0.
        """
        scale, masked, added = 1.0, "", list[tuple[Tensor, float | None]]()
        place, counts = self._padding or (-1, None)
        for number, (op, operands, _) in enumerate(self._steps):
            if number == place:
                continue
            if op == "mul" and isinstance(operands[1], float) and not added and not masked:
                scale *= operands[1]
            elif op == "add" and isinstance(operands[1], int) and operands[1]:
                added.append((self._operands[operands[1] - 1], None))
            elif op == "hidden":
                added.append((self._operands[int(operands[0]) - 1], float(operands[1])))
            elif op == "where" and operands[1] == 0 and isinstance(operands[2], float) and operands[2] <= least:
                found = _causal_of(self._operands[int(operands[0]) - 1], shape)
                if masked or not found:
                    return None
                masked = found
            else:
                return None
        return scale, masked, added, counts

    def expression(self) -> Expression:
        body: list[Instruction] = []
        first = 1 + len(self._operands)
        current = 0

        def add(op: str, operands: tuple[int, ...], dtype: str, attributes: tuple[Any, ...] = ()) -> int:
            body.append(Instruction(op, operands, dtype, attributes))
            return first + len(body) - 1

        for op, operands, dtype in self._steps:
            if op == "hidden":
                place, filler = operands
                none = add("constant", (0,), dtype, (0,))
                is_hidden = add("equal", (int(place), none), "bool")
                numbers = [add("constant", (0,), "float32", (number,)) for number in (float(filler), 0.0)]
                current = add("add", (current, add("where", (is_hidden, *numbers), "float32")), "float32")
                continue
            places = []
            for operand in operands:
                if isinstance(operand, float):
                    places.append(add("constant", (0,), "float32", (operand,)))
                else:
                    places.append(operand or current)
            current = add(op, tuple(places), dtype)
        return Expression(("float32", *(t.element for t in self._operands)), tuple(body), (current,))


def _causal_of(mask: Tensor, shape: tuple[int, int]) -> str:
    """Which causal mask a known mask is; "" for none."""
    steps, keys = shape
    if mask.value is None or mask.value.shape != shape:
        return ""
    ahead = np.arange(keys) - np.arange(steps)[:, None]
    if np.array_equal(mask.value, ahead <= 0):
        return "first"
    return "last" if np.array_equal(mask.value, ahead <= keys - steps) else ""


def split_heads(b: Builder, x: Tensor, heads: int) -> Tensor | None:
    """[B, S, H * D] as [B, H, S, D]; None where it can't be cut."""
    if len(x.shape) != 3 or heads < 1 or x.shape[2] % heads:
        return None
    batch, steps, hidden = x.shape
    size = hidden // heads
    x = x if x.strides[2] == 1 or hidden == 1 else b.contiguous(x)
    apart = x.view((batch, heads, steps, size), (x.strides[0], size * x.strides[2], x.strides[1], x.strides[2]))
    apart.value = None if x.value is None else x.value.reshape(batch, steps, heads, size).transpose(0, 2, 1, 3)
    return apart


def joined(b: Builder, past: Tensor, new: Tensor, to: Tensor | None = None) -> Tensor:
    """Keys or values [B, G, P, D] and [B, G, L, D], one after the other: in the view ``to``, or in new memory."""
    batch, groups, before, size = past.shape
    whole = b.new(new.dtype, (batch, groups, before + new.shape[2], size)) if to is None else to
    for part, begin in ((past, 0), (new, before)):
        if part.size:
            b.copy(b.plain(part), whole.view(part.shape, whole.strides, begin * whole.strides[2]))
    return whole


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
    """q [B, H, S, D], k [B, G, T, D], v [B, G, T, C], heads of a group next to each other.

    Returns [B, S, H * C] where ``flat``, else [B, H, S, C]. ``zeros``: what rows that see no key become, instead of
    NaN. ``reach``: query n sees no more than n + reach keys, by what ``scores`` say. ``limits``: int64 [B], how many
    keys an entry has, at least 1. None where it is not done here.
    """
    (batch, heads, steps, size), (groups, keys), columns = q.shape, k.shape[1:3], v.shape[3]
    same = k.shape == (batch, groups, keys, size) and v.shape[:3] == k.shape[:3] and groups > 0
    if not same or heads % groups or not keys or not size or not math.prod((batch, heads, steps, columns)):
        return None
    if b.attends is not None:
        return b.attends(b, q, k, v, scores, zeros=zeros, flat=flat, reach=reach, limits=limits)
    if {q.dtype, k.dtype, v.dtype} - {q.dtype} or (q.element != "float32" and not half.is_narrow(q)):
        return None
    repeated = heads // groups
    dtype = q.dtype
    q = half.widened(b, q)
    if (steps if steps > 1 else repeated) > FEW_ROWS:
        k, v = half.widened(b, k), half.widened(b, v)
    k = k if 1 in k.strides[2:] else b.contiguous(k)
    v = v if v.strides[3] == 1 or columns == 1 else b.contiguous(v)
    if limits is not None:
        scores.limited(limits)
    operands = scores.operands(b, (batch, heads, steps, keys))
    if operands is None:
        return None

    def by_group(tensor: Tensor) -> Tensor:
        """[B, H, …] as [B, groups, heads of a group, …]"""
        strides = (tensor.strides[0], tensor.strides[1] * repeated, tensor.strides[1], *tensor.strides[2:])
        return tensor.view((batch, groups, repeated, *tensor.shape[2:]), strides)

    def shared(tensor: Tensor) -> Tensor:
        shape = (batch, groups, repeated, *tensor.shape[2:])
        return tensor.view(shape, (*tensor.strides[:2], 0, *tensor.strides[2:]))

    if flat:
        made = b.new(dtype, (batch, steps, heads * columns))
        strides = (steps * heads * columns, columns, heads * columns, 1)
        apart = made.view((batch, heads, steps, columns), strides)
    else:
        apart = made = b.new(dtype, (batch, heads, steps, columns))
    views = [by_group(t) for t in operands]
    q, k, v = by_group(q), shared(k), shared(v)
    if not fits(q, k, v, views):
        return None
    finish = of_sums(name_of(dtype))
    limited = -1 if limits is None else len(views) - 1
    expression = scores.expression()
    b.add(Attention([q, k, v, *views], [by_group(apart)], expression, len(views), zeros, finish, reach, limited))
    return made


def causal(b: Builder, steps: int, keys: int, offset: int, left: int = -1, right: int = 0) -> Tensor:
    """bool [S, T]: the keys that a query may see by its position, which is ``offset`` for the first one.

    ``left``, ``right``: how far it sees; negative: all the way.
    """

    def made() -> np.ndarray[Any, Any]:
        ahead = np.arange(keys) - (np.arange(steps)[:, None] + offset)
        seen = np.ones(ahead.shape, bool)
        if right >= 0:
            seen &= ahead <= right
        if left >= 0:
            seen &= ahead >= -left
        return seen

    return b.packed(("seen", steps, keys, offset, left, right), made)


__all__ = ["SO_FAR", "Scores", "attend", "causal", "joined", "split_heads"]
