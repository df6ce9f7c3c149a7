"""Copies of elements that lie next to each other, whatever they mean, and indices that are checked."""

from __future__ import annotations

from distort.kernels.compiler.codegen.target import Target
from distort.kernels.compiler.codegen.text import Function, Index, Value, mangle, vector


def copy_row(f: Function, target: Target, source: Value, destination: Value, count: Index, element: str) -> None:
    """Copy ``count`` elements. The last vector of a row overlaps the one before it: no loop over what is left."""
    lanes = target.lanes(element)
    if isinstance(count, int) and count < 2 * lanes:
        width = min(lanes, 1 << count.bit_length() - 1)
        type_ = vector(element, width)
        values = [(at, f.load(type_, f.at(source, at, element))) for at in sorted({0, count - width})]
        for at, value in values:
            f.store(value, f.at(destination, at, element))
        return
    _copy(f, source, destination, count, element, lanes, whole=True)


def _copy(f: Function, source: Value, destination: Value, count: Index, element: str, lanes: int, whole: bool) -> None:
    type_ = vector(element, lanes)

    def move(place: Index) -> None:
        f.store(f.load(type_, f.at(source, place, element)), f.at(destination, place, element))

    def wide() -> None:
        last = f.sub(count, lanes)
        if whole:
            with f.loop(0, last, lanes) as loop:
                move(loop.index)
        elif lanes > 1:
            move(0)
        move(last)

    def narrow() -> None:
        if lanes > 1:
            _copy(f, source, destination, count, element, lanes // 2, whole=False)

    f.choose(f.compare("sge", count, lanes), (wide, narrow))


def checked(f: Function, index: Value, size: Value) -> tuple[Value, Value]:
    """An index (or a vector of them) counted from the front, 0 where it is out of range; and whether it is."""
    negative = f.icmp("slt", index, f.const(index.type, 0))
    front = f.select(negative, f.binary("add", index, size), index)
    bad = f.icmp("uge", front, size)
    return f.select(bad, f.const(index.type, 0), front), bad


def any_lane(f: Function, mask: Value) -> Value:
    """Whether a mask (i1, or a vector of them) holds anywhere."""
    if mask.type == "i1":
        return mask
    return f.call("i1", f"llvm.vector.reduce.or.{mangle(mask.type)}", [mask])


def report(f: Function, bad: Value, error_word: Value) -> None:
    """Write 1 to the error word where ``bad`` (an i1) holds."""
    with f.when(bad):
        f.do(f"store atomic i64 1, ptr {error_word.text} monotonic, align 8")
