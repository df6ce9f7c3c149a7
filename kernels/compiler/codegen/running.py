"""Running sums and products along an axis."""

from __future__ import annotations

from distort.kernels.compiler.codegen.target import Target
from distort.kernels.compiler.codegen.text import Function, Index, Value, vector
from distort.kernels.compiler.expression import STORED


def emit_running(f: Function, target: Target, dtype: str, operation: str, exclusive: bool, single: bool) -> None:
    """result[o, a, j] = Σ or Π x[o, b, j] over b ≤ a, or b < a where ``exclusive``. ``single``: there is one j.

    ``operation``: ``add`` or ``mul``.

    Words: o's, a's and j's ends; the j's that a thread does at once; x, its step per o and per a; the result, its
    steps. The j's lie next to each other.
    """
    n_outer, n, count, part = (f.word(i) for i in range(4))
    x, x_outer, x_step = f.address(4), f.word(5), f.word(6)
    result, outer_step, step = f.address(7), f.word(8), f.word(9)
    element = STORED[dtype]
    name, neutral = ("f" if dtype.startswith("float") else "") + operation, int(operation == "mul")
    n_parts: Index = 1 if single else f.div(f.add(count, f.sub(part, 1)), part)
    begin, end = f.share(f.mul(n_outer, n_parts))
    with f.loop(begin, end) as unit:
        outer = f.div(unit.index, n_parts)
        first = f.mul(f.rem(unit.index, n_parts), part)
        source = f.at(x, f.add(f.mul(outer, x_outer), first), element)
        own = f.at(result, f.add(f.mul(outer, outer_step), first), element)
        if single:
            with f.loop(0, n, carried=[f.const(element, neutral)]) as a:
                total = a.carried[0]
                after = f.binary(name, total, f.load(element, f.at(source, f.mul(a.index, x_step), element)))
                f.store(total if exclusive else after, f.at(own, f.mul(a.index, step), element))
                a.carry([after])
        else:
            _columns(
                f,
                target,
                element,
                (name, neutral),
                exclusive,
                n,
                f.min(part, f.sub(count, first)),
                source,
                x_step,
                own,
                step,
            )
    f.ret()


def _columns(
    f: Function,
    target: Target,
    element: str,
    operation: tuple[str, int],
    exclusive: bool,
    n: Value,
    count: Index,
    source: Value,
    x_step: Value,
    own: Value,
    step: Value,
) -> None:
    """Row after row: the result's row before it with x's. ``operation``: its name, and what it begins with."""
    name, neutral = operation
    lanes = target.lanes(element)
    whole = f.mul(f.div(count, lanes), lanes)

    def one(at: Index, width: int, row: Index | None) -> None:
        type_ = vector(element, width)
        if row is None:
            value = f.const(type_, neutral) if exclusive else f.load(type_, f.at(source, at, element))
            f.store(value, f.at(own, at, element))
            return
        before = f.load(type_, f.at(own, f.add(f.mul(f.sub(row, 1), step), at), element))
        added = f.sub(row, 1) if exclusive else row
        value = f.load(type_, f.at(source, f.add(f.mul(added, x_step), at), element))
        f.store(f.binary(name, before, value), f.at(own, f.add(f.mul(row, step), at), element))

    def line(row: Index | None) -> None:
        with f.loop(0, whole, lanes) as block:
            one(block.index, lanes, row)
        with f.loop(whole, count) as single:
            one(single.index, 1, row)

    line(None)
    with f.loop(1, n) as a:
        line(a.index)
