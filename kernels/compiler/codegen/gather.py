"""Reading by index: rows of elements that lie next to each other, and single elements."""

from __future__ import annotations

from typing import NamedTuple

from distort.kernels.compiler.codegen.copying import any_lane, checked, copy_row, report
from distort.kernels.compiler.codegen.target import Target
from distort.kernels.compiler.codegen.text import Function, Index, Value, mangle, vector


def emit_rows(f: Function, target: Target, element: str, index_type: str, depth: int, count: int) -> None:
    """result[o, r, :] = x[o, i₀, i₁, …, :] where i are the ``depth`` numbers at indices[o, r].

    ``count``: the elements of a row where they are few, else 0.
    Words: o's and r's ends; elements of a row, and of a chunk of it that one thread copies at once; x, its step per o;
    the result (contiguous); the indices, their step per o; the error word; for each i: its end, x's step per i.
    """
    n_outer, n_rows, n, chunk = (f.word(i) for i in range(4))
    x, x_step = f.address(4), f.word(5)
    result, indices, indices_step, error_word = f.address(6), f.address(7), f.word(8), f.address(9)
    sizes, steps = ([f.word(10 + 2 * i + which) for i in range(depth)] for which in (0, 1))
    n_chunks: Index = 1 if count else f.div(f.add(n, f.sub(chunk, 1)), chunk)
    length: Index = count or n
    begin, end = f.share(f.mul(f.mul(n_outer, n_rows), n_chunks))
    first_row = f.div(begin, n_chunks)
    start = [f.div(first_row, n_rows), f.rem(first_row, n_rows), f.rem(begin, n_chunks)]
    with f.loop(begin, end, carried=[Value("i1", "false"), *map(f.i64, start)]) as unit:
        bad, outer, row, part = unit.carried
        first = 0 if count else f.mul(part, chunk)
        place = f.add(f.mul(outer, indices_step), f.mul(row, depth))
        offset: Index = f.add(f.mul(outer, x_step), first)
        for i in range(depth):
            index = f.cast("sext", f.load(index_type, f.at(indices, f.add(place, i), index_type)), "i64")
            index, wrong = checked(f, index, sizes[i])
            bad = f.binary("or", bad, wrong)
            offset = f.add(offset, f.mul(index, steps[i]))
        target_row = f.add(f.mul(outer, n_rows), row)
        destination = f.at(result, f.add(f.mul(target_row, length), first), element)
        copied: Index = count or f.min(chunk, f.sub(n, first))
        copy_row(f, target, f.at(x, offset, element), destination, copied, element)
        # the next unit, without divisions
        part, row = (part, f.i64(f.add(row, 1))) if count else _advanced(f, part, n_chunks, row)
        whole = f.compare("eq", row, n_rows)
        outer, row = f.select(whole, f.i64(f.add(outer, 1)), outer), f.select(whole, f.i64(0), row)
        unit.carry([bad, outer, row, part])
    report(f, unit.carried[0], error_word)
    f.ret()


def _advanced(f: Function, inner: Value, end: Index, outer: Value) -> tuple[Value, Value]:
    """Two nested counters, one step on; the outer one is not held to its end."""
    following = f.i64(f.add(inner, 1))
    done = f.compare("eq", following, end)
    return f.select(done, f.i64(0), following), f.select(done, f.i64(f.add(outer, 1)), outer)


def emit_elements(
    f: Function, target: Target, element: str, index_type: str, offset_type: str, n_loops: int, in_rows: bool
) -> None:
    """result[…, j] = x[…, ·, …] at indices[…, j] of one axis.

    ``offset_type``: ``i32`` where all of x's offsets fit. ``in_rows``: all j have the same index, and x's step per j
    is 1. Words: chunks of rows, elements of a chunk, of a row; x, its step per index and per j; the result
    (contiguous); the indices; the error word; the end of an index; then the sizes of the outer loops, the indices'
    steps, and x's.
    """
    n_chunks, chunk, count = (f.word(i) for i in range(3))
    x, axis_step, step = f.address(3), f.word(4), f.word(5)
    result, indices, error_word, size = f.address(6), f.address(7), f.address(8), f.word(9)
    sizes, index_steps, x_steps = ([f.word(10 + which * n_loops + i) for i in range(n_loops)] for which in range(3))
    begin, end = f.share(n_chunks)
    per_row = f.div(f.add(count, f.sub(chunk, 1)), chunk)
    with f.loop(begin, end, carried=[Value("i1", "false")]) as unit:
        row, first = f.div(unit.index, per_row), f.mul(f.rem(unit.index, per_row), chunk)
        n = f.min(chunk, f.sub(count, first))
        index_base: Index = 0 if in_rows else first
        x_base: Index = f.mul(first, step)
        rest = row
        for i in reversed(range(n_loops)):
            at = f.rem(rest, sizes[i]) if i else rest
            rest = f.div(rest, sizes[i]) if i else rest
            index_base = f.add(index_base, f.mul(at, index_steps[i]))
            x_base = f.add(x_base, f.mul(at, x_steps[i]))
        own_indices, own_x = f.at(indices, index_base, index_type), f.at(x, x_base, element)
        own_result = f.at(result, f.add(f.mul(row, count), first), element)
        if in_rows:
            index, bad = checked(f, f.cast("sext", f.load(index_type, own_indices), "i64"), size)
            copy_row(f, target, f.at(own_x, f.mul(index, axis_step), element), own_result, n, element)
        else:
            way = _Way(target.lanes("i64" if element == "i64" else "i32"), offset_type, size, axis_step, step)
            bad = _pick(f, way, element, index_type, own_x, own_indices, own_result, n)
        unit.carry([f.binary("or", unit.carried[0], bad)])
    report(f, unit.carried[0], error_word)
    f.ret()


def emit_reversed(f: Function, target: Target, element: str, index_type: str) -> None:
    """result[b, t, :] = x[b, n - 1 - t, :] where t is less than n = lengths[b], else x[b, t, :].

    Words: b's and t's ends; elements of a row; x and the result (both with these steps): steps per b and t; lengths;
    the error word.
    """
    n_batches, n_times, count = (f.word(i) for i in range(3))
    x, result, batch_step, time_step = f.address(3), f.address(4), f.word(5), f.word(6)
    lengths, error_word = f.address(7), f.address(8)
    begin, end = f.share(f.mul(n_batches, n_times))
    with f.loop(begin, end, carried=[Value("i1", "false")]) as unit:
        batch, time = f.div(unit.index, n_times), f.rem(unit.index, n_times)
        length = f.cast("sext", f.load(index_type, f.at(lengths, batch, index_type)), "i64")
        bad = f.binary("or", f.compare("slt", length, 0), f.compare("sgt", length, n_times))
        turned = f.binary("and", f.compare("slt", time, length), f.icmp("eq", bad, Value("i1", "false")))
        source = f.select(turned, f.i64(f.sub(f.sub(length, 1), time)), f.i64(time))
        base = f.mul(batch, batch_step)
        from_row = f.at(x, f.add(base, f.mul(source, time_step)), element)
        to_row = f.at(result, f.add(base, f.mul(time, time_step)), element)
        copy_row(f, target, from_row, to_row, count, element)
        unit.carry([f.binary("or", unit.carried[0], bad)])
    report(f, unit.carried[0], error_word)
    f.ret()


class _Way(NamedTuple):
    """How elements are picked from a row."""

    lanes: int
    offset_type: str
    size: Value  # the end of an index
    axis_step: Value  # of x per index
    step: Value  # of x per element of the result


def _pick(
    f: Function, way: _Way, element: str, index_type: str, x: Value, indices: Value, result: Value, count: Index
) -> Value:
    """Elements of x for ``count`` indices next to each other. Returns whether one was out of range."""
    whole = f.mul(f.div(count, way.lanes), way.lanes)
    with f.loop(0, whole, way.lanes, carried=[f.const(vector("i1", way.lanes), 0)]) as block:
        values, bad = _picked(f, way, way.lanes, element, index_type, x, indices, block.index)
        f.store(values, f.at(result, block.index, element))
        block.carry([f.binary("or", block.carried[0], bad)])
    any_of_block = any_lane(f, block.carried[0])
    with f.loop(whole, count, carried=[any_of_block]) as single:
        values, bad = _picked(f, way, 1, element, index_type, x, indices, single.index)
        f.store(values, f.at(result, single.index, element))
        single.carry([f.binary("or", single.carried[0], bad)])
    return single.carried[0]


def _picked(
    f: Function, way: _Way, lanes: int, element: str, index_type: str, x: Value, indices: Value, at: Value
) -> tuple[Value, Value]:
    """``lanes`` elements, and which indices are out of range."""
    index = f.load(vector(index_type, lanes), f.at(indices, at, index_type))
    index, bad = checked(f, f.cast("sext", index, "i64"), f.splat(way.size, lanes))

    def fitting(value: Value) -> Value:
        return f.cast("trunc", value, "i32") if way.offset_type == "i32" else value

    step = fitting(way.step)
    offset = f.binary("mul nsw", fitting(index), f.splat(fitting(way.axis_step), lanes))
    offset = f.binary("add nsw", offset, f.splat(f.binary("mul nsw", fitting(at), step), lanes))
    if lanes > 1:
        ramp = ", ".join(f"{way.offset_type} {i}" for i in range(lanes))
        ramp_steps = f.binary("mul nsw", Value(offset.type, f"<{ramp}>"), f.splat(step, lanes))
        offset = f.binary("add nsw", offset, ramp_steps)
    return fetch(f, x, offset, element), bad


def fetch(f: Function, base: Value, offsets: Value, element: str) -> Value:
    """Elements at offsets from an address: as many as ``offsets`` has lanes."""
    if not offsets.type.startswith("<"):
        return f.load(element, f.at(base, f.cast("sext", offsets, "i64"), element))
    lanes = int(offsets.type[1:].split(" ")[0])
    type_ = vector(element, lanes)
    if element not in ("i32", "i64", "float", "double"):
        found = f.undef(type_)
        for lane in range(lanes):
            found = f.insert(found, fetch(f, base, f.extract(offsets, lane), element), lane)
        return found
    places = f.op(f"<{lanes} x ptr>", f"getelementptr inbounds {element}, ptr {base.text}, {offsets}")
    mask = f.const(f"<{lanes} x i1>", 1)
    name = f"llvm.masked.gather.{mangle(type_)}.v{lanes}p0"
    align = Value("i32", {"i64": "8", "double": "8"}.get(element, "4"))
    f.declare(f"{type_} @{name}(<{lanes} x ptr>, i32 immarg, <{lanes} x i1>, {type_})")
    return f.op(type_, f"call {type_} @{name}({places}, {align}, {mask}, {type_} poison)")
