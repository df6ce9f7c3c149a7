"""Kernels of values whose shapes earlier runs have shown: they make as many elements as expected, and write 1 to the
error word where that isn't what should be made."""

from __future__ import annotations

from distort.kernels.compiler.codegen.target import Target
from distort.kernels.compiler.codegen.text import Function, Value
from distort.kernels.compiler.expression import STORED

#: numbers of a Range are smaller than that in magnitude, and there are not as many: so nothing overflows
LARGEST, MOST = 1 << 46, 1 << 15


def emit_counting(f: Function, target: Target, dtype: str) -> None:
    """result[i] = start + i · delta. Words: how many, start, limit, delta, result, the error word."""
    del target
    element = STORED[dtype]
    n = f.word(0)
    start, limit, delta = (_wide(f, f.load(element, f.address(i))) for i in (1, 2, 3))
    down = f.compare("slt", delta, 0)
    step = f.select(down, f.i64(f.sub(0, delta)), delta)
    ahead = f.i64(f.sub(limit, start))
    ahead = f.select(down, f.i64(f.sub(0, ahead)), ahead)
    # as many: limit lies after the last number, and not after the one that would be next
    last = f.select(f.compare("sgt", n, 0), f.i64(f.mul(f.sub(n, 1), step)), f.i64(-LARGEST * 4))
    fits = [f.compare("slt", last, ahead), f.compare("sle", ahead, f.mul(n, step)), f.compare("sgt", step, 0)]
    # beyond what can't overflow all of this means nothing
    for value in (start, limit, delta):
        fits += [f.compare("slt", value, LARGEST), f.compare("sgt", value, -LARGEST)]
    _expect(f, fits, f.address(5))
    with f.loop(0, n, carried=[start]) as loop:
        value = loop.carried[0]
        narrow = value if element == "i64" else f.cast("trunc", value, element)
        f.store(narrow, f.at(f.address(4), loop.index, element))
        loop.carry([f.binary("add", value, delta)])
    f.ret()


def emit_nonzero(f: Function, target: Target, dtype: str, rank: int) -> None:
    """result[:, c]: the index of the c-th element of x that is not 0, in order.

    Words: elements of x, how many are expected, x (contiguous), result, the error word, x's dimensions.
    """
    del target
    element = STORED[dtype]
    size, n = f.word(0), f.word(1)
    x, result = f.address(2), f.address(3)
    dims = [f.word(5 + axis) for axis in range(rank)]
    with f.loop(0, size, carried=[f.i64(0)]) as loop:
        count = loop.carried[0]
        value = f.load(element, f.at(x, loop.index, element))
        is_real = element in ("float", "double")
        hit = f.fcmp("une", value, f.const(element, 0)) if is_real else f.icmp("ne", value, f.const(element, 0))
        with f.when(f.binary("and", hit, f.compare("slt", count, n))):
            rest = loop.index
            for axis in reversed(range(rank)):
                place = rest if axis == 0 else f.i64(f.rem(rest, dims[axis]))
                rest = f.i64(f.div(rest, dims[axis]))
                f.store(place, f.at(result, f.add(f.mul(n, axis), count), "i64"))
        loop.carry([f.i64(f.add(count, f.cast("zext", hit, "i64")))])
    count = loop.carried[0]
    _expect(f, [f.compare("eq", count, n)], f.address(4))
    with f.loop(f.min(count, n), n) as missing:  # later steps read indices that there are
        for axis in range(rank):
            f.store(f.i64(0), f.at(result, f.add(f.mul(n, axis), missing.index), "i64"))
    f.ret()


def emit_expect_same(f: Function, target: Target) -> None:
    """Words: how many numbers (int64), these, what each should be, or else what it may be, the error word."""
    del target
    with f.loop(0, f.word(0)) as loop:
        one, wanted, other = (f.load("i64", f.at(f.address(i), loop.index, "i64")) for i in (1, 2, 3))
        _expect(f, [f.binary("or", f.compare("eq", one, wanted), f.compare("eq", one, other))], f.address(4))
    f.ret()


def _wide(f: Function, value: Value) -> Value:
    return value if value.type == "i64" else f.cast("sext", value, "i64")


def _expect(f: Function, conditions: list[Value], error_word: Value) -> None:
    holds = conditions[0]
    for other in conditions[1:]:
        holds = f.binary("and", holds, other)
    with f.when(f.binary("xor", holds, Value("i1", "true"))):
        f.store(f.i64(1), error_word)


__all__ = ["LARGEST", "MOST", "emit_counting", "emit_expect_same", "emit_nonzero"]
