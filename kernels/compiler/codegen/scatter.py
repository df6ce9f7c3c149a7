"""Writing by index: rows of elements that lie next to each other, and single elements.

Elements of the result are written in the order of the indices. Threads have different columns of it, or different
rows across the axis, so what is written twice is written by one thread.
"""

from __future__ import annotations

from functools import partial

from distort.kernels.compiler.codegen.copying import checked, copy_row, report
from distort.kernels.compiler.codegen.target import Target
from distort.kernels.compiler.codegen.text import Function, Index, Value, vector
from distort.kernels.compiler.expression import STORED

_REAL = {"add": "fadd", "mul": "fmul", "max": "maximum", "min": "minimum"}
_WHOLE = {"add": "add", "mul": "mul", "max": "max", "min": "min"}


def stored_type(dtype: str) -> str:
    """``dtype``: numpy's name, or an LLVM type that only moves."""
    return STORED.get(dtype, dtype)


def _combined(f: Function, dtype: str, reduction: str, old: Value, new: Value) -> Value:
    if reduction == "none":
        return new
    if dtype.startswith("float"):
        name = _REAL[reduction]
        return f.binary(name, old, new) if name.startswith("f") else f.intrinsic(name, old, new)
    name = _WHOLE[reduction]
    if name in ("add", "mul"):
        return f.binary(name, old, new)
    return f.intrinsic(("u" if dtype.startswith("u") else "s") + name, old, new)


def emit_rows(f: Function, target: Target, dtype: str, reduction: str, index_type: str, depth: int) -> None:
    """result[i₀, i₁, …, :] = updates[r, :] where i are the ``depth`` numbers at indices[r].

    Words: rows, elements of a row, of a thread's part of it; the result, updates, indices (all contiguous); the error
    word; for each i: its end, the result's step.
    """
    n_rows, count, part = (f.word(i) for i in range(3))
    result, updates, indices, error_word = (f.address(i) for i in range(3, 7))
    sizes, steps = ([f.word(7 + 2 * i + which) for i in range(depth)] for which in (0, 1))
    element = stored_type(dtype)
    begin, end = f.share(f.div(f.add(count, f.sub(part, 1)), part))
    first, last = f.mul(begin, part), f.min(f.mul(end, part), count)
    n = f.max(f.sub(last, first), 0)
    with f.loop(0, n_rows, carried=[Value("i1", "false")]) as row:
        bad = row.carried[0]
        offset: Index = first
        place = f.mul(row.index, depth)
        for i in range(depth):
            index = f.cast("sext", f.load(index_type, f.at(indices, f.add(place, i), index_type)), "i64")
            index, wrong = checked(f, index, sizes[i])
            bad = f.binary("or", bad, wrong)
            offset = f.add(offset, f.mul(index, steps[i]))
        source = f.at(updates, f.add(f.mul(row.index, count), first), element)
        destination = f.at(result, offset, element)
        if reduction == "none":
            copy_row(f, target, source, destination, n, element)
        else:
            lanes = target.lanes(element)
            whole = f.mul(f.div(n, lanes), lanes)
            combine = partial(_combine, f, dtype, reduction, source, destination)
            with f.loop(0, whole, lanes) as block:
                combine(block.index, block.index, lanes)
            with f.loop(whole, n) as single:
                combine(single.index, single.index, 1)
        row.carry([bad])
    report(f, row.carried[0], error_word)
    f.ret()


def _combine(
    f: Function, dtype: str, reduction: str, source: Value, destination: Value, at: Index, to: Index, lanes: int
) -> None:
    element = stored_type(dtype)
    new = f.load(vector(element, lanes), f.at(source, at, element))
    place = f.at(destination, to, element)
    old = new if reduction == "none" else f.load(new.type, place)
    f.store(_combined(f, dtype, reduction, old, new), place)


def emit_elements(f: Function, target: Target, dtype: str, reduction: str, index_type: str, n_loops: int) -> None:
    """result[…, i, …, j] = updates[…, a, …, j] where i is indices[…, a, …, j].

    Words: parts of all rows (of j's); j's end, and the part of it that a thread does at once; a's end, and the step of
    indices and updates per a; i's end, the result's step per i; the result, updates, indices; the error word; the sizes
    of the loops around, their steps in indices and updates, and in the result.
    """
    n_units, n_columns, part, n_places, place_step, size, step = (f.word(i) for i in range(7))
    result, updates, indices, error_word = (f.address(i) for i in range(7, 11))
    sizes, index_steps, result_steps = (
        [f.word(11 + which * n_loops + i) for i in range(n_loops)] for which in range(3)
    )
    element = stored_type(dtype)
    del target
    n_parts = f.div(f.add(n_columns, f.sub(part, 1)), part)
    begin, end = f.share(n_units)
    with f.loop(begin, end, carried=[Value("i1", "false")]) as unit:
        rest: Index = f.div(unit.index, n_parts)
        first = f.mul(f.rem(unit.index, n_parts), part)
        last = f.min(f.add(first, part), n_columns)
        source: Index = 0
        base: Index = 0
        for i in reversed(range(n_loops)):
            at = f.rem(rest, sizes[i]) if i else rest
            rest = f.div(rest, sizes[i]) if i else rest
            source, base = f.add(source, f.mul(at, index_steps[i])), f.add(base, f.mul(at, result_steps[i]))
        own = f.at(result, base, element)
        with f.loop(0, n_places, carried=[unit.carried[0]]) as place:
            row = f.add(source, f.mul(place.index, place_step))
            with f.loop(first, last, carried=[place.carried[0]]) as column:
                here = f.add(row, column.index)
                index = f.cast("sext", f.load(index_type, f.at(indices, here, index_type)), "i64")
                index, bad = checked(f, index, size)
                _combine(f, dtype, reduction, updates, own, here, f.add(f.mul(index, step), column.index), 1)
                column.carry([f.binary("or", column.carried[0], bad)])
            place.carry([column.carried[0]])
        unit.carry([place.carried[0]])
    report(f, unit.carried[0], error_word)
    f.ret()
