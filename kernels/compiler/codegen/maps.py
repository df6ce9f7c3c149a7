"""Loops over elements: an expression on operands that are read and written by strides.

Words of a step: units of work, elements of a chunk, the sizes of the loops (outer ones first), then for each operand
(inputs, then results) its address and its strides in elements, one for each outer loop, and one for the inner loop
where that is ``STRIDED``. A unit is a chunk of a row.
"""

from __future__ import annotations

from distort.kernels.compiler.codegen import elements
from distort.kernels.compiler.codegen.operands import BROADCAST, CONTIGUOUS, STRIDED, each_row, read_operands
from distort.kernels.compiler.codegen.target import Target
from distort.kernels.compiler.codegen.text import Function, Index, Value
from distort.kernels.compiler.expression import Expression

#: vectors of a pass: bodies that are worth fewer simple instructions than the key
_UNROLLING = ((6, 4), (16, 2))


def emit_map(f: Function, target: Target, expression: Expression, n_loops: int, inner: tuple[int, ...]) -> None:
    """``inner``: how the inner loop goes through each input, then each result."""
    words = iter(range(1 << 30))
    n_units, chunk = f.word(next(words)), f.word(next(words))
    sizes = [f.word(next(words)) for _ in range(n_loops)]
    dtypes = [*expression.inputs, *(expression.dtype(result) for result in expression.results)]
    operands = read_operands(f, words, dtypes, inner, n_loops - 1)
    n_inputs = len(expression.inputs)
    length = sizes[-1]
    n_chunks = f.div(f.add(length, f.sub(chunk, 1)), chunk)
    lanes = elements.lanes_for(target, expression)
    cost = elements.cost_of(expression.body) + 4 * lanes * sum(how == STRIDED for how in inner)
    unroll = next((n for limit, n in _UNROLLING if cost < limit), 1)
    masks = elements.has_masks(target) and STRIDED not in inner
    begin, end = f.share(n_units)
    last_row = f.div(f.add(end, f.sub(n_chunks, 1)), n_chunks)
    with each_row(f, sizes[:-1], operands, f.div(begin, n_chunks), last_row) as (row, bases):
        before = f.mul(row, n_chunks)
        first = f.mul(f.max(f.sub(begin, before), 0), chunk)
        last = f.min(f.mul(f.sub(end, before), chunk), length)
        fixed = [
            operand.load(f, base, 0, 1) if operand.how == BROADCAST else None
            for operand, base in zip(operands[:n_inputs], bases, strict=False)
        ]

        def body(index: Index, width: int, mask: Value | None = None) -> None:
            values = [
                operand.load(f, base, index, width, mask) if constant is None else f.splat(constant, width)
                for operand, base, constant in zip(operands[:n_inputs], bases, fixed, strict=False)
            ]
            results = elements.evaluate(f, expression, values)
            for operand, base, value in zip(operands[n_inputs:], bases[n_inputs:], results, strict=True):
                operand.store(f, value, base, index, mask)

        begun: Index = first
        if unroll > 1 or masks:
            whole = f.add(first, f.mul(f.div(f.max(f.sub(last, first), 0), lanes * unroll), lanes * unroll))
            with f.loop(first, whole, lanes * unroll) as block:
                for position in range(unroll):
                    body(f.add(block.index, position * lanes), lanes)
            begun = whole
        if masks:
            with f.loop(begun, last, lanes) as some:
                body(some.index, lanes, elements.mask_of(f, lanes, f.sub(last, some.index)))
        else:
            whole = f.add(begun, f.mul(f.div(f.max(f.sub(last, begun), 0), lanes), lanes))
            with f.loop(begun, whole, lanes) as block:
                body(block.index, lanes)
            if lanes > 1:
                with f.loop(whole, last) as single:
                    body(single.index, 1)
    f.ret()


__all__ = ["BROADCAST", "CONTIGUOUS", "STRIDED", "emit_map"]
