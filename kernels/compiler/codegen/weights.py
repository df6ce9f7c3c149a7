"""Softmax over a row of attention's scores, but for the division, which is the result's."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from distort.kernels.compiler.codegen import elements, mathematics
from distort.kernels.compiler.codegen.maps import BROADCAST
from distort.kernels.compiler.codegen.reducers import Reducer
from distort.kernels.compiler.codegen.text import Function, Index, Value, vector
from distort.kernels.compiler.expression import STORED, Expression

#: scores that cost so little are made twice instead of kept
_CHEAP = 3


def emit_weights(
    f: Function,
    lanes: int,
    expression: Expression,
    zeros: bool,
    scores: Value,
    keys: Value,
    operands: Sequence[tuple[Value, str, int]],
) -> Value:
    """Of ``expression`` of scores [keys], in their place: e to the difference from the largest. Returns 1 / their sum.

    ``operands``: where those of the row begin, their dtypes, and how keys go through them, ``BROADCAST`` or
    ``CONTIGUOUS``. ``zeros``: whether a row of -inf becomes zeros, not NaN. There is room for whole vectors.
    """
    type_ = vector("float", lanes)
    again = not operands and elements.cost_of(expression.body) <= _CHEAP
    lowest, none, one = (f.const("float", number) for number in (-math.inf, 0, 1))
    fixed = [elements.load(f, place, dtype, 1) if way == BROADCAST else None for place, dtype, way in operands]

    def score(index: Index, mask: Value | None) -> Value:
        inputs = [f.load(type_, f.at(scores, index, "float"))]
        for (place, dtype, _), number in zip(operands, fixed, strict=True):
            if number is not None:
                inputs.append(f.splat(number, lanes))
            else:
                inputs.append(elements.load(f, f.at(place, index, STORED[dtype]), dtype, lanes, mask))
        return elements.evaluate(f, expression, inputs)[0]

    def largest(index: Index, best: Value, mask: Value | None) -> Value:
        value = score(index, mask)
        if mask is not None:
            value = f.select(mask, value, f.splat(lowest, lanes))
        if not again:
            f.store(value, f.at(scores, index, "float"))
        return f.select(f.fcmp("ogt", value, best), value, best)  # NaN makes the sum one

    best = _over(f, lanes, keys, f.splat(lowest, lanes), largest)
    (top,) = Reducer("row_max", "float32", "numbers").over_lanes(f, [best])
    if zeros:
        top = f.select(f.fcmp("oeq", top, lowest), none, top)
    every = f.splat(top, lanes)

    def power(index: Index, total: Value, mask: Value | None) -> Value:
        place = f.at(scores, index, "float")
        value = score(index, mask) if again else f.load(type_, place)
        value = mathematics.exp_to_one(f, f.fsub(value, every))
        if mask is not None:
            value = f.select(mask, value, f.splat(none, lanes))
        f.store(value, place)
        return f.fadd(total, value)

    total = f.reduce_add(_over(f, lanes, keys, f.splat(none, lanes), power))
    if zeros:
        total = f.select(f.fcmp("oeq", total, none), one, total)
    return f.fdiv(one, total)


def _over(
    f: Function, lanes: int, keys: Value, state: Value, step: Callable[[Index, Value, Value | None], Value]
) -> Value:
    """``state`` after ``step(index, state, mask)`` for the vectors of a row; the last one may be a part."""
    whole = f.mul(f.div(keys, lanes), lanes)
    with f.loop(0, whole, lanes, [state]) as some:
        some.carry([step(some.index, some.carried[0], None)])
    with f.loop(whole, keys, lanes, some.carried) as rest:
        mask = elements.mask_of(f, lanes, f.sub(keys, rest.index))
        rest.carry([step(rest.index, rest.carried[0], mask)])
    return rest.carried[0]
