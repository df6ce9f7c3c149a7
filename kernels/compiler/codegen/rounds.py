"""Small kernels of loops: what goes in and out by the number of the round."""

from __future__ import annotations

from distort.kernels.compiler.codegen.target import Target
from distort.kernels.compiler.codegen.text import Function, vector


def emit_copy(f: Function, target: Target) -> None:
    """words: address of the number of the round, a source and its step in bytes, a target and its step, bytes."""
    number = f.load("i64", f.address(0))
    source = f.at(f.address(1), f.mul(number, f.word(2)), "i8")
    to = f.at(f.address(3), f.mul(number, f.word(4)), "i8")
    nbytes, width = f.word(5), target.vector_nbytes
    whole = f.mul(f.div(nbytes, width), width)
    with f.loop(0, whole, width) as block:
        value = f.load(vector("i8", width), f.at(source, block.index, "i8"))
        f.store(value, f.at(to, block.index, "i8"))
    with f.loop(whole, nbytes) as single:
        f.store(f.load("i8", f.at(source, single.index, "i8")), f.at(to, single.index, "i8"))
    f.ret()


def emit_expect(f: Function, target: Target) -> None:
    """words: address of the number of rounds, how many there should be, the error word."""
    del target
    with f.when(f.compare("ne", f.load("i64", f.address(0)), f.word(1))):
        f.store(f.i64(1), f.address(2))
    f.ret()


def emit_refuse(f: Function, target: Target) -> None:
    """words: the error word."""
    del target
    f.store(f.i64(1), f.address(0))
    f.ret()
