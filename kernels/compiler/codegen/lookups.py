"""Functions of a byte, by a table of their 256 values."""

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


def _of_two(f: Function, one: Value, index: Value, other: Value) -> Value:
    """Bytes of two vectors, by the lowest seven bits of an index."""
    return f.call(one.type, "llvm.x86.avx512.vpermi2var.qi.512", [one, index, other])
