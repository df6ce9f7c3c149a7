"""Attention as one tensor operation: softmax(expression(Q · Kᵀ)) · V, made by a lowering or found among operations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from distort.kernels.compiler.codegen import attention, elements
from distort.kernels.compiler.codegen.attention import COLUMNS, DOTS, ROWS, Form
from distort.kernels.compiler.codegen.maps import BROADCAST, CONTIGUOUS
from distort.kernels.compiler.codegen.target import Target
from distort.kernels.compiler.codegen.tiles import Tile
from distort.kernels.compiler.expression import Expression
from distort.kernels.compiler.fuse import compose
from distort.kernels.compiler.ir import ALIGNMENT, Buffer, Call, Map, Operation, Scratch, Tensor, Word
from distort.kernels.compiler.keys import Key
from distort.kernels.compiler.lower.views import strides_after
from distort.kernels.compiler.products import tile_of

#: up to so many queries are multiplied with keys as these lie
FEW_ROWS, _DOT_TILE = 8, Tile(4, 1)
#: scores of a block of queries stay in the second-level cache; fewer queries than the least don't pay for turned keys
_SCORES_NBYTES, _MOST_ROWS, _LEAST_ROWS = 1 << 19, 128, 16
#: no limit to the keys that a query sees
ALL = 1 << 40
_FLOP_NS, _WEIGHT_NS, _BYTE_NS, _ROW_NS = 1 / 120, 0.5, 1 / 25, 20.0


@dataclass(eq=False)
class Attention(Operation):
    """outputs = finish(softmax(expression(q · kᵀ, further inputs)) · v, further inputs).

    ``inputs``: q [outer, middle, inner, rows, depth], k [..., keys, depth], v [..., keys, columns]; ``n_operands``
    further inputs of ``expression``, [..., rows, keys]; those of ``finish``, [..., rows, columns], as the results.
    """

    expression: Expression
    n_operands: int
    zeros: bool  # what a row that sees no key becomes: zeros, or NaN
    finish: Expression
    #: row n weighs no more than the first n + reach keys, whatever the expression says
    reach: int = ALL
    #: which of the ``n_operands`` says how many keys, from the first on, there are for a head; -1: all
    limited: int = -1
    kind: ClassVar[str] = "attention"
    repeats: ClassVar[bool] = True

    @property
    def heads(self) -> tuple[int, ...]:
        return self.inputs[0].shape[:3]

    def absorb(self, after: Map, position: int, target: Target) -> Operation | None:
        del position, target
        made = self.outputs[0]
        shape = made.shape
        views = {}
        for tensor in (*after.inputs, *after.outputs):
            if tensor.buffer is not made.buffer:
                view = viewed(tensor, shape)
                if view is None or view.strides[-1] not in (0, 1):
                    return None
                views[id(tensor)] = view
        results = [views[id(t)] for t in after.outputs]
        if any(t.strides[-1] != 1 and shape[-1] != 1 for t in results):
            return None
        sums = Tensor(np.dtype(self.finish.inputs[0]), shape, made.strides, Buffer(0))
        others = self.inputs[3 + self.n_operands :]
        inputs = [views.get(id(t), t) for t in after.inputs]
        composed = compose(self.finish, [sums, *others], after.expression, inputs, made.buffer)
        if composed is None:
            return None
        operands, finish = composed
        kept = self.inputs[: 3 + self.n_operands]
        return replace(self, inputs=[*kept, *operands[1:]], outputs=results, finish=finish)

    def calls(self, target: Target, n_threads: int) -> list[Call]:
        q, k, v = self.inputs[:3]
        loops, (rows, depth), keys, columns = list(self.heads), q.shape[3:], k.shape[3], v.shape[4]
        if not math.prod(loops) * rows * columns:
            return []
        tensors, reach = [*self.inputs, *self.outputs], self.reach
        strides = [list(t.strides) for t in tensors]
        if rows == 1 and loops[2] > 1 and not strides[1][2] and not strides[2][2]:
            # heads that share keys are rows of one product
            rows, loops[2], reach = loops[2], 1, ALL
            for number, steps in enumerate(strides):
                if number not in (1, 2):
                    steps[3], steps[2] = steps[2], 0
        by_row = [number for number in range(len(tensors)) if number not in (1, 2)]
        form = self._form(target, rows, [steps[3:] for steps in strides])
        lanes = target.lanes("float")
        width = form.scores.vectors * lanes if form.keys != DOTS else max(lanes, 16)
        line = -(-keys // width) * width
        line += 0 if line // 16 % 2 else 16  # rows a power of two apart would meet in the cache
        most = max(_LEAST_ROWS, min(_MOST_ROWS, _SCORES_NBYTES // (4 * line)))
        n_blocks = -(-rows // most)
        block_rows = -(-rows // n_blocks)
        sizes = {"rows": rows, "keys": keys, "depth": depth, "columns": columns, "block_rows": block_rows, "line": line}
        sizes["pack_values"] = int(rows > form.values.rows)
        parts = attention.scratch_parts(form, lanes, sizes)
        nbytes = -(-4 * parts.pop("end") // ALIGNMENT) * ALIGNMENT
        words: list[Word] = [*loops, *sizes.values(), reach, Scratch(), nbytes, *parts.values()]
        words += [q.address(), *strides[0][3:], *strides[0][:3]]
        words += [k.address(), strides[1][4 if form.keys == ROWS else 3], *strides[1][:3]]
        words += [v.address(), strides[2][3], *strides[2][:3]]
        for number in by_row[1:]:
            words += [tensors[number].address(), strides[number][3], *strides[number][:3]]
        n_heads = math.prod(loops)
        work = n_heads * (
            2 * rows * keys * (depth + columns) * _FLOP_NS
            + rows * keys * (_WEIGHT_NS + 0.05 * elements.cost_of(self.expression.body))
            + rows * _ROW_NS
            + keys * (depth + columns) * k.dtype.itemsize * _BYTE_NS
        )
        key = Key("attention", (tuple(form.scores), tuple(form.values), *form[2:]))
        return [Call(key, words, work, nbytes * n_threads, n_heads * n_blocks)]

    def _form(self, target: Target, rows: int, strides: Sequence[Sequence[int]]) -> Form:
        """``strides``: of each tensor's last two dimensions."""
        q, k, v, *others = self.inputs
        (keys, depth), columns = k.shape[3:], v.shape[4]
        form, scores = COLUMNS if strides[1][1] == 1 or depth == 1 else ROWS, tile_of(target, keys)
        if form == COLUMNS and rows <= FEW_ROWS and (strides[0][1] == 1 or depth == 1):
            form, scores = DOTS, _DOT_TILE
        ways = [_way(t, keys if i < self.n_operands else columns) for i, t in enumerate(others)]
        return Form(
            scores,
            tile_of(target, columns),
            form,
            (q.element, k.element, v.element),
            self.expression,
            tuple(ways[: self.n_operands]),
            self.zeros,
            self.finish,
            tuple(ways[self.n_operands :]),
            self.limited,
        )


def _way(tensor: Tensor, columns: int) -> int:
    return BROADCAST if tensor.strides[-1] == 0 or columns == 1 else CONTIGUOUS


def fits(q: Tensor, k: Tensor, v: Tensor, operands: Sequence[Tensor]) -> bool:
    """Whether the kernel reads these views; see :class:`Attention`."""
    narrow = ("float32", "float16", "bfloat16")
    return (
        all(t.element in narrow and not t.block for t in (q, k, v))
        and (1 in k.strides[3:] or k.shape[4] == 1)
        and (v.strides[4] == 1 or v.shape[4] == 1)
        and all(t.strides[4] in (0, 1) and not t.block for t in operands)
        and k.shape[3] > 0
        and q.shape[4] > 0
    )


def viewed(tensor: Tensor, shape: Sequence[int]) -> Tensor | None:
    """The tensor's elements in another shape; None where no strides go that way."""
    strides = None if tensor.block else strides_after(tensor, shape)
    return None if strides is None else tensor.view(shape, strides)


__all__ = ["ALL", "FEW_ROWS", "Attention", "fits", "viewed"]
