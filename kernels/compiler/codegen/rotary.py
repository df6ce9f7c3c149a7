"""Rotary position embeddings: pairs of a head's elements turned by the angles of its position."""

from __future__ import annotations

from distort.kernels.compiler.codegen.copying import copy_row
from distort.kernels.compiler.codegen.target import Target
from distort.kernels.compiler.codegen.text import Function, Index, Value, vector

WORDS = (
    "x",  # addresses
    "to",
    "cos",
    "sin",
    "batches",
    "heads",
    "positions",
    "pairs",
    "rest",  # elements that are copied
    "x_batch",  # elements from one to the next; those of a head lie next to each other
    "x_head",
    "x_position",
    "to_batch",
    "to_head",
    "to_position",
    "cos_batch",
    "cos_position",
    "sin_batch",
    "sin_position",
)


def emit_rotary(f: Function, target: Target, interleaved: bool) -> None:
    """``interleaved``: elements of a pair are neighbours, else half of all that are turned is between them."""
    words = {name: (f.address if n < 4 else f.word)(n) for n, name in enumerate(WORDS)}
    pairs = words["pairs"]
    lanes = target.lanes("float")
    begin, end = f.share(f.mul(words["batches"], words["positions"]))
    with f.loop(begin, end) as unit:
        batch, position = f.div(unit.index, words["positions"]), f.rem(unit.index, words["positions"])

        def place(name: str, head: Index = 0, batch: Index = batch, position: Index = position) -> Value:
            where = f.add(f.mul(batch, words[f"{name}_batch"]), f.mul(position, words[f"{name}_position"]))
            if name in ("x", "to"):
                where = f.add(where, f.mul(head, words[f"{name}_head"]))
            return f.at(words[name], where, "float")

        cos, sin = place("cos"), place("sin")
        with f.loop(0, words["heads"]) as head:
            x, to = place("x", head.index), place("to", head.index)
            first: Index = 0
            for width in (lanes, 4, 1) if lanes > 4 else (lanes, 1):
                last = f.add(first, f.mul(f.div(f.sub(pairs, first), width), width))
                with f.loop(first, last, width) as block:
                    angles = [f.load(vector("float", width), f.at(a, block.index, "float")) for a in (cos, sin)]
                    _turn(f, width, interleaved, x, to, block.index, pairs, angles)
                first = last
            turned = f.mul(pairs, 2)
            copy_row(f, target, f.at(x, turned, "float"), f.at(to, turned, "float"), words["rest"], "float")
    f.ret()


def _turn(
    f: Function, width: int, interleaved: bool, x: Value, to: Value, at: Index, pairs: Value, angles: list[Value]
) -> None:
    """``width`` pairs."""
    cos, sin = angles
    if interleaved and width > 1:
        both = f.load(vector("float", 2 * width), f.at(x, f.mul(at, 2), "float"))
        one, other = (f.shuffle(both, both, range(which, 2 * width, 2)) for which in (0, 1))
    else:
        places = (f.mul(at, 2), f.add(f.mul(at, 2), 1)) if interleaved else (at, f.add(at, pairs))
        one, other = (f.load(vector("float", width), f.at(x, p, "float")) for p in places)
    real = f.fsub(f.fmul(one, cos), f.fmul(other, sin))
    imaginary = f.fadd(f.fmul(one, sin), f.fmul(other, cos))
    if interleaved and width > 1:
        order = [lane + which * width for lane in range(width) for which in (0, 1)]
        f.store(f.shuffle(real, imaginary, order), f.at(to, f.mul(at, 2), "float"))
        return
    for value, p in zip((real, imaginary), places, strict=True):
        f.store(value, f.at(to, p, "float"))
