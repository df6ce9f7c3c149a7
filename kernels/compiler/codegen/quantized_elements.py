"""Quantization as element-wise work: quotients by a scale, rounding, saturation; and the range of a tensor."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from distort.kernels.compiler.codegen.elements import Emitter, mask_of
from distort.kernels.compiler.codegen.target import Target
from distort.kernels.compiler.codegen.text import Function, Index, Value, vector, with_element
from distort.kernels.compiler.expression import COMPUTED, Expression, Instruction

#: quotients beyond this saturate any type of 16 bits, whatever their last digits
_LARGE = float(1 << 20)
_MOST = float(np.finfo(np.float32).max)


def has_fma(f: Function) -> bool:
    return f.target is not None and f.target.has_fma


def _quotient(f: Function, expression: Expression, instruction: Instruction, operands: Sequence[Value]) -> Value:
    """x / scale as division rounds it, given 1 / scale rounded: one step of Newton's, by Markstein's theorem.

    Exact where the quotient is neither large nor tiny, which is all that rounding to an integer of 16 bits sees;
    scales are from 2⁻¹⁰⁰ to 2¹⁰⁰.
    """
    del expression, instruction
    x, scale, inverse = operands
    if not has_fma(f):
        return f.fdiv(x, scale)
    quotient = f.fmul(x, inverse)
    rest = f.intrinsic("fma", f.op(quotient.type, f"fneg {quotient}"), scale, x)
    better = f.intrinsic("fma", rest, inverse, quotient)
    usual = f.fcmp("olt", f.unary("fabs", quotient), f.const(x.type, _LARGE))
    return f.select(usual, better, quotient)


def _saturate(f: Function, expression: Expression, instruction: Instruction, operands: Sequence[Value]) -> Value:
    """rint(x), half to even, plus the zero point (float32), in the range of the result's dtype. NaN is the least."""
    del expression
    x, zero = operands
    limits = np.iinfo(instruction.dtype)
    value = f.fadd(f.unary("roundeven", x), zero)
    low, high = (f.const(x.type, float(limit)) for limit in (limits.min, limits.max))
    value = f.select(f.fcmp("ogt", value, low), value, low)
    value = f.select(f.fcmp("olt", value, high), value, high)
    return f.cast("trunc", f.cast("fptosi", value, "i32"), COMPUTED[instruction.dtype])


OPERATORS: dict[str, Emitter] = {"quotient": _quotient, "saturate": _saturate}


def emit_range(f: Function, target: Target, finishes: bool) -> None:
    """Least and largest elements of parts of a float32 tensor; zero counts as one.

    Words: parts, elements of a part, elements, x, the results: float32 [parts, 2]. ``finishes``: there is one part, and
    what ``emit_range_end`` makes is made at once; its words follow.
    """
    n_parts, size, length = (f.word(n) for n in range(3))
    x, results = f.address(3), f.address(4)
    lanes = target.lanes("float")
    type_ = vector("float", lanes)
    n_chains = 4
    begin, end = f.share(n_parts)
    with f.loop(begin, end) as part:
        first = f.mul(part.index, size)
        last = f.min(f.add(first, size), length)
        zero = f.const(type_, 0)
        quiet = f.const(with_element(type_, "i1"), 0)

        def look(carried: Sequence[Value], value: Value) -> list[Value]:
            low, high, nan = carried
            return [
                f.select(f.fcmp("olt", value, low), value, low),
                f.select(f.fcmp("ogt", value, high), value, high),
                f.binary("or", nan, f.fcmp("uno", value, value)),
            ]

        step = n_chains * lanes
        whole = f.add(first, f.mul(f.div(f.sub(last, first), step), step))
        with f.loop(first, whole, step, [zero, zero, quiet] * n_chains) as loop:
            following = []
            for n in range(n_chains):
                value = f.load(type_, f.at(x, f.add(loop.index, n * lanes), "float"))
                following += look(loop.carried[3 * n : 3 * n + 3], value)
            loop.carry(following)
        low, high, nan = loop.carried[:3]
        for n in range(1, n_chains):
            other_low, other_high, other_nan = loop.carried[3 * n : 3 * n + 3]
            low = f.select(f.fcmp("olt", other_low, low), other_low, low)
            high = f.select(f.fcmp("ogt", other_high, high), other_high, high)
            nan = f.binary("or", nan, other_nan)
        with f.loop(whole, last, lanes, [low, high, nan]) as loop:
            mask = mask_of(f, lanes, f.sub(last, loop.index))
            value = f.masked_load(type_, f.at(x, loop.index, "float"), mask, zero)
            loop.carry(look(loop.carried, value))
        low, high, nan = loop.carried
        least = f.call("float", f"llvm.vector.reduce.fmin.v{lanes}f32", [low])
        largest = f.call("float", f"llvm.vector.reduce.fmax.v{lanes}f32", [high])
        any_nan = f.call("i1", f"llvm.vector.reduce.or.v{lanes}i1", [nan])
        least = f.select(any_nan, f.const("float", float("nan")), least)
        if finishes:
            _finish(f, least, largest, 5)
        else:
            f.store(least, f.at(results, f.mul(part.index, 2), "float"))
            f.store(largest, f.at(results, f.add(f.mul(part.index, 2), 1), "float"))
    f.ret()


def emit_range_end(f: Function, target: Target) -> None:
    """Scale and zero point of uint8 over the range that parts have.

    Words: parts, their results, then where the scale, its reciprocal and the zero point go: float32, and uint8.
    """
    del target
    n_parts, parts = f.word(0), f.address(1)
    zero = f.const("float", 0)
    with f.loop(0, n_parts, 1, [zero, zero]) as loop:
        low, high = (f.load("float", f.at(parts, f.add(f.mul(loop.index, 2), n), "float")) for n in (0, 1))
        # a NaN, which the least element is then, stays
        less = f.fcmp("ult", low, loop.carried[0])
        less = f.binary("and", less, f.fcmp("ord", loop.carried[0], loop.carried[0]))
        loop.carry(
            [
                f.select(less, low, loop.carried[0]),
                f.select(f.fcmp("ogt", high, loop.carried[1]), high, loop.carried[1]),
            ]
        )
    low, high = loop.carried
    _finish(f, low, high, 2)
    f.ret()


def _finish(f: Function, low: Value, high: Value, first_word: Index) -> None:
    assert isinstance(first_word, int)
    scale = f.fdiv(f.fsub(high, low), f.const("float", 255))
    scale = f.select(f.fcmp("oeq", high, low), f.const("float", 1), scale)
    inverse = f.fdiv(f.const("float", 1), scale)
    inverse = f.select(f.fcmp("ogt", inverse, f.const("float", _MOST)), f.const("float", _MOST), inverse)
    zero = f.unary("roundeven", f.fdiv(f.op("float", f"fneg {low}"), scale))
    zero = f.select(f.fcmp("ogt", zero, f.const("float", 0)), zero, f.const("float", 0))
    zero = f.select(f.fcmp("olt", zero, f.const("float", 255)), zero, f.const("float", 255))
    f.store(scale, f.address(first_word))
    f.store(inverse, f.address(first_word + 1))
    f.store(zero, f.address(first_word + 2))
    f.store(f.cast("trunc", f.cast("fptosi", zero, "i32"), "i8"), f.address(first_word + 3))
