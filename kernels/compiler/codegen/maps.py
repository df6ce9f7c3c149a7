"""Loops over elements: an expression on operands that are read and written by strides.

Words of a step: units of work, elements of a chunk, the sizes of the loops (outer ones first), then for each operand
(inputs, then results) its address and its strides in elements, one for each outer loop, and one for the inner loop
where that is ``STRIDED``.
"""

from __future__ import annotations

from collections.abc import Sequence

from distort.kernels.compiler.codegen import elements
from distort.kernels.compiler.codegen.target import Target
from distort.kernels.compiler.codegen.text import Function, Index, Value
from distort.kernels.compiler.expression import COMPUTED, STORED, Expression

#: how the inner loop goes through an operand
BROADCAST, CONTIGUOUS, STRIDED = 0, 1, 2


def emit_map(f: Function, target: Target, expression: Expression, n_loops: int, inner: tuple[int, ...]) -> None:
    """``inner``: how the inner loop goes through each input, then each result."""
    words = iter(range(1 << 30))
    n_units, chunk = f.word(next(words)), f.word(next(words))
    sizes = [f.word(next(words)) for _ in range(n_loops)]
    addresses, strides = [], []
    for how in inner:
        addresses.append(f.address(next(words)))
        strides.append([f.word(next(words)) for _ in range(n_loops - 1 + (how == STRIDED))])
    dtypes = [*expression.inputs, *(expression.dtype(result) for result in expression.results)]
    n_chunks = f.div(f.add(sizes[-1], f.sub(chunk, 1)), chunk)
    lanes = (
        max(1, min(target.lanes(COMPUTED[dtype]) for dtype in dtypes if COMPUTED[dtype] in ("float", "double")))
        if any(COMPUTED[dtype] in ("float", "double") for dtype in dtypes)
        else target.lanes("i32")
    )
    begin, end = f.share(n_units)
    with f.loop(begin, end) as unit:
        row = f.div(unit.index, n_chunks)
        first = f.mul(f.rem(unit.index, n_chunks), chunk)
        last = f.min(f.add(first, chunk), sizes[-1])
        bases = _bases(f, row, sizes[:-1], addresses, strides, dtypes)
        fixed = [
            elements.load(f, base, dtype, 1) if how == BROADCAST else None
            for base, how, dtype in zip(bases, inner[: len(expression.inputs)], dtypes, strict=False)
        ]
        whole = f.add(first, f.mul(f.div(f.sub(last, first), lanes), lanes))

        def body(index: Index, width: int) -> None:
            values = []
            for number, dtype in enumerate(expression.inputs):
                constant = fixed[number]
                if constant is not None:
                    values.append(f.splat(constant, width))
                elif inner[number] == CONTIGUOUS:
                    values.append(elements.load(f, f.at(bases[number], index, STORED[dtype]), dtype, width))
                else:
                    values.append(_gather(f, bases[number], index, strides[number][-1], dtype, width))
            results = elements.evaluate(f, expression, values)
            for number, value in enumerate(results, len(expression.inputs)):
                if inner[number] == CONTIGUOUS:
                    elements.store(f, value, f.at(bases[number], index, STORED[dtypes[number]]), dtypes[number])
                else:
                    _scatter(f, value, bases[number], index, strides[number][-1], dtypes[number], width)

        with f.loop(first, whole, lanes) as block:
            body(block.index, lanes)
        if lanes > 1:
            with f.loop(whole, last) as single:
                body(single.index, 1)
    f.ret()


def _bases(
    f: Function,
    row: Index,
    sizes: Sequence[Value],
    addresses: Sequence[Value],
    strides: Sequence[Sequence[Value]],
    dtypes: Sequence[str],
) -> list[Value]:
    """Where each operand's row begins: ``row`` counts through the outer loops."""
    offsets: list[Index] = [0] * len(addresses)
    rest = row
    for position in range(len(sizes) - 1, -1, -1):
        index = f.rem(rest, sizes[position]) if position else rest
        rest = f.div(rest, sizes[position]) if position else rest
        for number in range(len(addresses)):
            offsets[number] = f.add(offsets[number], f.mul(index, strides[number][position]))
    return [f.at(a, o, STORED[d]) for a, o, d in zip(addresses, offsets, dtypes, strict=True)]


def _gather(f: Function, base: Value, index: Index, stride: Value, dtype: str, width: int) -> Value:
    found: Value | None = None
    for lane in range(width):
        place = f.mul(f.add(index, lane), stride)
        one = elements.load(f, f.at(base, place, STORED[dtype]), dtype, 1)
        if width == 1:
            return one
        found = f.insert(found or f.undef(elements.type_of(dtype, width)), one, lane)
    assert found is not None
    return found


def _scatter(f: Function, value: Value, base: Value, index: Index, stride: Value, dtype: str, width: int) -> None:
    for lane in range(width):
        one = value if width == 1 else f.extract(value, lane)
        place = f.mul(f.add(index, lane), stride)
        elements.store(f, one, f.at(base, place, STORED[dtype]), dtype)
