"""Copying rows of elements, with something to both sides of them."""

from __future__ import annotations

from distort.kernels.compiler.codegen.text import Function, Index, Value, vector


def fill(f: Function, block: int, lanes: int, target: Value, first: Index, last: Index, number: float = 0.0) -> None:
    """A number at elements ``first`` to before ``last``, as many as a multiple of ``block``."""
    width = lanes if block % lanes == 0 else 1
    with f.loop(first, last, width) as loop:
        f.store(f.const(vector("float", width), number), f.at(target, loop.index, "float"))


def copy(f: Function, block: int, lanes: int, source: Value, target: Value, size: Index) -> None:
    """Copy ``size`` elements, a multiple of ``block``."""
    whole = size if block % lanes == 0 else f.mul(f.div(size, lanes), lanes)
    with f.loop(0, whole, lanes) as loop:
        value = f.load(vector("float", lanes), f.at(source, loop.index, "float"))
        f.store(value, f.at(target, loop.index, "float"))
    if block % lanes:
        with f.loop(whole, size) as loop:
            f.store(f.load("float", f.at(source, loop.index, "float")), f.at(target, loop.index, "float"))
