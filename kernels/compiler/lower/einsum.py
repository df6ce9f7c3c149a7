"""Einsum, as a chain of products of two operands, the cheapest first."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np

from distort.graph.ir import Node
from distort.kernels.compiler import half
from distort.kernels.compiler.builder import Builder, lowers
from distort.kernels.compiler.ir import Tensor
from distort.kernels.compiler.lower.reductions import reduce
from distort.kernels.compiler.lower.views import reshape
from distort.kernels.compiler.products import multiply
from distort.kernels.errors import InvalidInput
from distort.kernels.ops.linear_algebra import parse_equation

Result = list[Tensor | None] | None
#: a tensor, and a letter for each of its axes
Operand = tuple[Tensor, str]
#: elements of the largest value on the way, at most
_MOST_ELEMENTS = 1 << 24


@lowers("Einsum")
def _einsum(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    given = [b.plain(t) for t in inputs if t is not None]
    if not given or len(given) < len(inputs):
        return None
    dtype = given[0].dtype
    if any(t.dtype != dtype or not t.size for t in given):
        return None
    try:
        terms, output = parse_equation(node.attributes["equation"], [len(t.shape) for t in given])
    except InvalidInput:
        return None
    sizes: dict[str, int] = {}
    for tensor, term in zip(given, terms, strict=True):
        for letter, size in zip(term, tensor.shape, strict=True):
            if sizes.setdefault(letter, size) != size:
                return None
    if len(given) != 2:
        given = [half.widened(b, t) for t in given]
    operands = [_diagonal(t, term) for t, term in zip(given, terms, strict=True)]
    while True:
        if len(operands) == 1:
            result = _summed(b, node, *operands[0], set(output))
            break
        one, other = _cheapest(operands, output, sizes)
        left, right = operands[one], operands[other]
        del operands[other], operands[one]
        keep = set(output).union(*(term for _, term in operands))
        made = _pair(b, node, left, right, keep, sizes)
        if made is None:
            return None
        operands.insert(one, made)
    if result is None:
        return None
    tensor, term = result
    tensor = tensor.permuted([term.index(c) for c in output])
    return [tensor if tensor.dtype == dtype else half.narrowed(b, tensor, dtype)]


def _cheapest(operands: Sequence[Operand], output: str, sizes: Mapping[str, int]) -> tuple[int, int]:
    """Which two to multiply next: those with the fewest products, then those that come first."""

    def cost(pair: tuple[int, int]) -> int:
        return math.prod(sizes[c] for c in set(operands[pair[0]][1]) | set(operands[pair[1]][1]))

    return min(combinations(range(len(operands)), 2), key=cost)


def _diagonal(x: Tensor, term: str) -> Operand:
    """A letter that a term repeats stands for the diagonal, which is a view."""
    letters = list(dict.fromkeys(term))
    if len(letters) == len(term):
        return x, term
    shape = [x.shape[term.index(c)] for c in letters]
    strides = [sum(s for s, other in zip(x.strides, term, strict=True) if other == c) for c in letters]
    made = x.view(shape, strides)
    if x.value is not None:
        steps = [sum(s for s, other in zip(x.value.strides, term, strict=True) if other == c) for c in letters]
        made.value = np.lib.stride_tricks.as_strided(x.value, shape, steps, writeable=False)
    return made, "".join(letters)


def _summed(b: Builder, node: Node, x: Tensor, term: str, keep: set[str]) -> Operand | None:
    """x summed over the letters that nothing else needs."""
    over = [i for i, letter in enumerate(term) if letter not in keep]
    if not over:
        return x, term
    sums = reduce(
        b,
        replace(node, op_type="ReduceSum", attributes={"keepdims": 0}),
        [x, b.constant(np.array(over))],
    )
    if sums is None or sums[0] is None:
        return None
    return sums[0], "".join(c for c in term if c in keep)


def _pair(
    b: Builder, node: Node, one: Operand, other: Operand, keep: set[str], sizes: Mapping[str, int]
) -> Operand | None:
    """Two operands multiplied, and summed over the letters that they share and nobody keeps."""
    left = _summed(b, node, *one, keep | set(other[1]))
    right = _summed(b, node, *other, keep | set(one[1]))
    if left is None or right is None:
        return None
    (x, first), (y, second) = left, right
    batch = [c for c in first if c in second and c in keep]
    depth = [c for c in first if c in second and c not in keep]
    rows = [c for c in first if c not in second]
    columns = [c for c in second if c not in first]
    letters = [*batch, *rows, *columns]
    shape = [sizes[c] for c in letters]
    if math.prod(shape) > _MOST_ELEMENTS:
        return None

    def seen(x: Tensor, term: str, order: Sequence[str]) -> Tensor:
        """Its axes in an order; those that it doesn't have, of one element."""
        axes = [term.index(c) for c in order if c in term]
        moved = x.permuted(axes)
        sides = [sizes[c] if c in term else 1 for c in order]
        steps = iter(moved.strides)
        made = moved.view(sides, [next(steps) if c in term else 0 for c in order])
        made.value = None if moved.value is None else moved.value.reshape(sides)
        return made

    if not depth:
        return b.map("mul", [seen(x, first, letters), seen(y, second, letters)]), "".join(letters)

    def arranged(x: Tensor, term: str, *groups: Sequence[str]) -> Tensor:
        """As matrices whose sides are groups of letters."""
        x = x.permuted([term.index(c) for c in [*batch, *groups[0], *groups[1]]])
        sides = [*(sizes[c] for c in batch), *(math.prod(sizes[c] for c in group) for group in groups)]
        return x if tuple(sides) == x.shape else reshape(b, x, sides)

    made = multiply(b, arranged(x, first, rows, depth), arranged(y, second, depth, columns))
    return None if made is None else (made.reshaped(shape), "".join(letters))
