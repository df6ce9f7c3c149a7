"""Element-wise operations as calls of the ``map`` kernels: loops are ordered and merged, and shared out."""

from __future__ import annotations

import math
from collections.abc import Sequence

from distort.kernels.compiler.codegen import elements
from distort.kernels.compiler.codegen.operands import BROADCAST, CONTIGUOUS, STRIDED, TURNED
from distort.kernels.compiler.codegen.target import Target
from distort.kernels.compiler.ir import Call, Map, Tensor, Word
from distort.kernels.compiler.keys import Key
from distort.kernels.compiler.transposition import transposed_copy

#: elements of a row that one thread takes at once
CHUNK = 4096
#: what an element costs, about: each operand in memory, one that is not contiguous, and each instruction
_OPERAND_NS, _TURNED_NS, _STRIDED_NS, _INSTRUCTION_NS, _ROW_NS = 0.08, 0.2, 0.5, 0.025, 5.0


def map_call(operation: Map, target: Target, n_threads: int) -> list[Call]:
    del n_threads
    tensors = [*operation.inputs, *operation.outputs]
    n_inputs = len(operation.inputs)
    n_elements = math.prod(operation.shape)
    if n_elements == 0:
        return []
    by_result = sorted(range(len(operation.shape)), key=lambda axis: -tensors[-1].strides[axis])
    loops = merged([operation.shape[i] for i in by_result], [[t.strides[i] for i in by_result] for t in tensors])
    copy = transposed_copy(operation, *loops, target)
    if copy is not None:
        return [copy]
    shape, strides = merged(*ordered(operation.shape, [t.strides for t in tensors], n_inputs))
    expression = operation.expression
    # a single element is contiguous
    inner = tuple(
        CONTIGUOUS if shape[-1] == 1 and position >= n_inputs else {0: BROADCAST, 1: CONTIGUOUS}.get(s[-1], STRIDED)
        for position, s in enumerate(strides)
    )
    work = n_elements * (_OPERAND_NS * len(tensors) + _INSTRUCTION_NS * elements.cost_of(expression.body))
    family, units, chunk = "map", 0, min(CHUNK, shape[-1])
    if STRIDED in inner:
        from distort.kernels.compiler.codegen import turned

        across = _turned_loop(shape, strides, inner, n_inputs, *turned.tile_of(expression, target))
        if across is None:
            work += n_elements * _STRIDED_NS * inner.count(STRIDED)
        else:
            shape, strides = moved(shape, strides, across, len(shape) - 2)
            inner = tuple(TURNED if how == STRIDED else how for how in inner)
            high, wide = turned.tile_of(expression, target)
            family = "turned"
            units = math.prod(shape[:-2]) * -(-shape[-2] // high) * -(-shape[-1] // wide)
            work += n_elements * _TURNED_NS
    if family == "map":
        units = math.prod(shape[:-1]) * -(-shape[-1] // chunk)
        work += math.prod(shape[:-1]) * _ROW_NS
    words: list[Word] = [units, chunk, *shape]
    for tensor, how, steps in zip(tensors, inner, strides, strict=True):
        words += [tensor.address(), *steps[:-1]]
        if how in (STRIDED, TURNED):
            words.append(steps[-1])
    key = Key(family, (expression, len(shape), inner))
    return [Call(key, words, work, most_threads=units)]


def ordered(shape: Sequence[int], strides: Sequence[Sequence[int]], n_inputs: int) -> tuple[list[int], list[list[int]]]:
    """Loops in the order of the first result's strides, the cheapest one innermost."""
    result = strides[n_inputs]
    order = sorted((axis for axis, size in enumerate(shape) if size != 1), key=lambda axis: -result[axis])
    sizes, steps = [shape[axis] for axis in order], [[s[axis] for axis in order] for s in strides]
    if not order:
        return list(shape), [list(s) for s in strides]
    last = len(sizes) - 1
    candidates = [moved(sizes, steps, loop, last) for loop in range(last, -1, -1)]
    costs = [_inner_cost(*candidate, n_inputs) for candidate in candidates]
    cheapest = min(range(len(costs)), key=lambda i: costs[i])
    return candidates[cheapest if costs[cheapest] < 0.7 * costs[0] else 0]


def _inner_cost(shape: Sequence[int], strides: Sequence[Sequence[int]], n_inputs: int) -> float:
    """Of an element, in these loops."""
    cost = 0.0
    for position, steps in enumerate(strides):
        cost += _OPERAND_NS
        if steps[-1] not in (0, 1):
            others = max((n for n, step in zip(shape, steps, strict=True) if step == 1), default=0)
            cost += _TURNED_NS if position < n_inputs and min(others, shape[-1]) >= 8 else _STRIDED_NS
    return cost + _ROW_NS / merged(shape, strides)[0][-1]


def _turned_loop(
    shape: Sequence[int],
    strides: Sequence[Sequence[int]],
    inner: Sequence[int],
    n_inputs: int,
    high: int,
    wide: int,
) -> int | None:
    """The loop that all strided operands are contiguous along, where tiles of both pay."""
    if STRIDED in inner[n_inputs:] or high < 4:
        return None
    loops = set(range(len(shape) - 1))
    for how, steps in zip(inner, strides, strict=True):
        if how == STRIDED:
            loops &= {loop for loop in loops if steps[loop] == 1}
    found = max(loops, key=lambda loop: shape[loop], default=None)
    pays = found is not None and shape[found] >= high // 2 and shape[-1] >= high // 2
    return found if pays else None


def moved(
    shape: Sequence[int], strides: Sequence[Sequence[int]], loop: int, to: int
) -> tuple[list[int], list[list[int]]]:
    """The loops with one of them at another place."""
    order = [i for i in range(len(shape)) if i != loop]
    order.insert(to, loop)
    return [shape[i] for i in order], [[s[i] for i in order] for s in strides]


def merged(shape: Sequence[int], strides: Sequence[Sequence[int]]) -> tuple[list[int], list[list[int]]]:
    """Loops without those of one pass, and neighbours made one where every operand goes through them as through one."""
    kept = [i for i, size in enumerate(shape) if size != 1]
    sizes: list[int] = []
    steps: list[list[int]] = [[] for _ in strides]
    for i in kept:
        if sizes and all(mine[-1] == theirs[i] * shape[i] for mine, theirs in zip(steps, strides, strict=True)):
            sizes[-1] *= shape[i]
            for mine, theirs in zip(steps, strides, strict=True):
                mine[-1] = theirs[i]
            continue
        sizes.append(shape[i])
        for mine, theirs in zip(steps, strides, strict=True):
            mine.append(theirs[i])
    if not sizes:
        return [1], [[0] for _ in strides]
    return sizes, steps


def loops_of_source(size: int, step: int, source: Tensor, copied: Tensor) -> list[tuple[int, int]] | None:
    """A loop over a contiguous copy, ``step`` elements apart, as one or two over its source: sizes and strides.

    None where the loop is not over whole dimensions.
    """
    if size == 1:
        return [(1, 0)]
    axes: list[int] = []
    for axis in range(len(copied.shape) - 1, -1, -1):
        if copied.shape[axis] != 1 and (axes or copied.strides[axis] == step):
            axes.insert(0, axis)
            if math.prod(copied.shape[a] for a in axes) >= size:
                break
    if math.prod(copied.shape[a] for a in axes) != size:
        return None
    sizes, (steps,) = merged([copied.shape[a] for a in axes], [[source.strides[a] for a in axes]])
    return list(zip(sizes, steps, strict=True)) if len(sizes) <= 2 else None
