"""Element-wise operations as calls of the ``map`` kernel: loops are merged, and shared out."""

from __future__ import annotations

import math
from collections.abc import Sequence

from distort.kernels.compiler.codegen.maps import BROADCAST, CONTIGUOUS, STRIDED
from distort.kernels.compiler.codegen.target import Target
from distort.kernels.compiler.ir import Call, Map, Word
from distort.kernels.compiler.keys import Key

#: elements of a row that one thread takes at once
CHUNK = 4096
#: what an element costs, about: memory, and each instruction
_ELEMENT_NS, _INSTRUCTION_NS = 0.15, 0.08


def map_call(operation: Map, target: Target, n_threads: int) -> list[Call]:
    del target, n_threads
    tensors = [*operation.inputs, *operation.outputs]
    shape, strides = merged(operation.shape, [t.strides for t in tensors])
    if math.prod(shape) == 0:
        return []
    inner = tuple({0: BROADCAST, 1: CONTIGUOUS}.get(s[-1], STRIDED) for s in strides)
    # a single element is contiguous
    inner = tuple(
        CONTIGUOUS if shape[-1] == 1 and position >= len(operation.inputs) else how
        for position, how in enumerate(inner)
    )
    chunk = min(CHUNK, shape[-1])
    units = math.prod(shape[:-1]) * -(-shape[-1] // chunk)
    words: list[Word] = [units, chunk, *shape]
    for tensor, how, steps in zip(tensors, inner, strides, strict=True):
        words += [tensor.address(), *steps[:-1]]
        if how == STRIDED:
            words.append(steps[-1])
    key = Key("map", (operation.expression, len(shape), inner))
    work = math.prod(shape) * (_ELEMENT_NS * len(tensors) + _INSTRUCTION_NS * len(operation.expression.body))
    return [Call(key, words, work, most_threads=units)]


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
