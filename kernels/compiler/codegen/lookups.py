"""Functions of a byte, by a table of their 256 values; where a number is among others."""

from __future__ import annotations

from distort.kernels.compiler.codegen.target import Target
from distort.kernels.compiler.codegen.text import Function, Index, Value, vector

#: bytes of a unit of work
UNIT_NBYTES = 4096
_LANES = 64


def emit_lookup(f: Function, target: Target) -> None:
    """Words: bytes, x, table, result."""
    n_bytes = f.word(0)
    x, table, result = (f.address(n) for n in (1, 2, 3))
    begin, end = f.share(f.div(f.add(n_bytes, UNIT_NBYTES - 1), UNIT_NBYTES))
    first, last = f.mul(begin, UNIT_NBYTES), f.min(f.mul(end, UNIT_NBYTES), n_bytes)
    whole: Index = first
    if target.vector_nbytes == _LANES and "+avx512vbmi" in target.features.split(","):
        whole = f.add(first, f.mul(f.div(f.max(f.sub(last, first), 0), _LANES), _LANES))
        type_ = vector("i8", _LANES)
        parts = [f.load(type_, f.at(table, n * _LANES, "i8")) for n in range(4)]
        with f.loop(first, whole, _LANES) as loop:
            index = f.load(type_, f.at(x, loop.index, "i8"))
            low, high = (_of_two(f, parts[n], index, parts[n + 1]) for n in (0, 2))
            value = f.select(f.icmp("slt", index, f.const(type_, 0)), high, low)
            f.store(value, f.at(result, loop.index, "i8"))
    with f.loop(whole, last) as loop:
        index = f.cast("zext", f.load("i8", f.at(x, loop.index, "i8")), "i64")
        f.store(f.load("i8", f.at(table, index, "i8")), f.at(result, loop.index, "i8"))
    f.ret()


def emit_find(f: Function, target: Target) -> None:
    """result[i]: the place of x[i] among the keys, or their number where it is none. All of them int64.

    Words: how many x, these; how many keys, these, in order, each once; how often the keys are halved until one is
    left; the result.
    """
    del target
    x, n_keys, keys, n_halvings, result = f.address(1), f.word(2), f.address(3), f.word(4), f.address(5)
    begin, end = f.share(f.word(0))
    with f.loop(begin, end) as loop:
        value = f.load("i64", f.at(x, loop.index, "i64"))
        with f.loop(0, n_halvings, carried=[f.i64(0), n_keys]) as search:
            first, count = search.carried
            half = f.div(count, 2)
            middle = f.add(first, half)
            is_later = f.compare("sle", f.load("i64", f.at(keys, middle, "i64")), value)
            search.carry([f.select(is_later, f.i64(middle), first), f.i64(f.sub(count, half))])
        place = search.carried[0]
        is_key = f.compare("eq", f.load("i64", f.at(keys, place, "i64")), value)
        f.store(f.select(is_key, place, n_keys), f.at(result, loop.index, "i64"))
    f.ret()


def _of_two(f: Function, one: Value, index: Value, other: Value) -> Value:
    """Bytes of two vectors, by the lowest seven bits of an index."""
    return f.call(one.type, "llvm.x86.avx512.vpermi2var.qi.512", [one, index, other])
