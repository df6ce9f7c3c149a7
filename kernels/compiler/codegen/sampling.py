"""Reading an image between its pixels, at points of the run."""

from __future__ import annotations

from itertools import product
from typing import NamedTuple

from distort.kernels.compiler.codegen.copying import report
from distort.kernels.compiler.codegen.target import Target
from distort.kernels.compiler.codegen.text import Function, Index, Value, mangle, vector


class _Axis(NamedTuple):
    """An axis of the image, in as many lanes as there are points."""

    size: Value  # float
    step: Value  # i32: elements from pixel to pixel


#: how points are given: (column, row) in [-1, 1] between the middles of the outer pixels, or between their edges;
#: or, rows and then columns, in pixels
CORNERS, EDGES, PIXELS = "corners", "edges", "pixels"
#: of cubic weights
_CUBIC_A = -0.75


def emit_grid_sample(f: Function, target: Target, mode: str, padding: str, points: str, chosen: bool) -> None:
    """result[n, c, q] = x[n, c] between pixels, at the points grid[n, q, :]; float32. ``PIXELS``: at grid[n, :, q].

    Words: images, channels, points of an image, and those that a thread does at once; x [N, C, H, W] (contiguous), its
    height and width; the grid; the result. ``chosen``: grids are not of images in order, but of those that int32
    numbers name: these, how many images there are, the error word.
    """
    images, channels, n_points, chunk = (f.word(i) for i in range(4))
    x, height, width, grid, result = f.address(4), f.word(5), f.word(6), f.address(7), f.address(8)
    lanes = target.lanes("float")
    pixels = f.mul(height, width)
    n_chunks = f.div(f.add(n_points, f.sub(chunk, 1)), chunk)
    begin, end = f.share(f.mul(images, n_chunks))

    def axis(size: Value, step: Value | int, lanes: int) -> _Axis:
        number = f.cast("sitofp", size, "float")
        return _Axis(f.splat(number, lanes), f.splat(f.cast("trunc", f.i64(step), "i32"), lanes))

    def source(image: Index) -> Index:
        if not chosen:
            return image
        number = f.op("i64", f"sext {f.load('i32', f.at(f.address(9), image, 'i32'))} to i64")
        wrong = f.icmp("uge", number, f.word(10))
        report(f, wrong, f.address(11))
        return f.select(wrong, f.i64(0), number)

    with f.loop(begin, end) as unit:
        image = f.div(unit.index, n_chunks)
        first = f.mul(f.rem(unit.index, n_chunks), chunk)
        last = f.min(f.add(first, chunk), n_points)
        base = f.at(x, f.mul(f.mul(source(image), channels), pixels), "float")
        own_grid = f.at(grid, f.mul(f.mul(image, n_points), 2), "float")
        own = f.at(result, f.mul(f.mul(image, channels), n_points), "float")

        def body(at: Index, lanes: int, base: Value = base, own_grid: Value = own_grid, own: Value = own) -> None:
            if points == PIXELS:
                places = [f.at(own_grid, f.add(f.mul(n_points, which), at), "float") for which in (0, 1)]
                where = [f.load(vector("float", lanes), place) for place in places]
            else:
                pairs = f.load(vector("float", 2 * lanes), f.at(own_grid, f.mul(at, 2), "float"))
                if lanes == 1:
                    where = [f.extract(pairs, 1), f.extract(pairs, 0)]
                else:
                    order = [[2 * lane + which for lane in range(lanes)] for which in (1, 0)]
                    where = [f.shuffle(pairs, pairs, one) for one in order]
            axes = [axis(height, width, lanes), axis(width, 1, lanes)]
            taps = [_taps(f, point, one, mode, padding, points) for point, one in zip(where, axes, strict=True)]
            weighted = []
            for (row, down), (column, across) in product(*taps):
                weight = down if across is None else across if down is None else f.fmul(down, across)
                weighted.append((f.binary("add", row, column), weight))
            with f.loop(0, channels) as channel:
                plane = f.at(base, f.mul(channel.index, pixels), "float")
                total = f.const(vector("float", lanes), 0)
                for place, weight in weighted:
                    value = _fetch(f, plane, place, weight if padding == "zeros" else None)
                    total = f.fadd(total, value) if weight is None else f.fma(value, weight, total)
                f.store(total, f.at(own, f.add(f.mul(channel.index, n_points), at), "float"))

        whole = f.add(first, f.mul(f.div(f.sub(last, first), lanes), lanes))
        with f.loop(first, whole, lanes) as block:
            body(block.index, lanes)
        with f.loop(whole, last) as single:
            body(single.index, 1)
    f.ret()


def _taps(
    f: Function, point: Value, axis: _Axis, mode: str, padding: str, points: str
) -> list[tuple[Value, Value | None]]:
    """Offsets (i32) of the pixels next to points along an axis, and their weights; None is one."""

    def number(value: float) -> Value:
        return f.const(point.type, value)

    last = f.fsub(axis.size, number(1))
    one_more = f.fadd(point, number(1))
    low, high = number(0), last
    if points == PIXELS:
        at = point
    elif points == CORNERS:
        at = f.fmul(f.fmul(one_more, number(0.5)), last)
    else:
        at = f.fmul(f.fsub(f.fmul(one_more, axis.size), number(1)), number(0.5))
        low, high = number(-0.5), f.fsub(axis.size, number(0.5))
    if mode == "nearest":
        at = f.unary("roundeven", at)
    if padding == "border" and mode != "cubic":
        at = _within(f, at, last)
    elif padding == "reflection":
        at = _reflected(f, at, low, high)
    found: list[tuple[Value, Value | None]] = [(at, None)]
    if mode != "nearest":
        base = f.unary("floor", at)
        t = f.fsub(at, base)
        if mode == "linear":
            found = [(base, f.fsub(number(1), t)), (f.fadd(base, number(1)), t)]
        else:
            found = [(f.fadd(base, number(n)), weight) for n, weight in enumerate(_cubic_weights(f, t), -1)]
    taps: list[tuple[Value, Value | None]] = []
    for pixel, weight in found:
        if padding == "zeros":
            outside = f.binary("or", f.fcmp("olt", pixel, number(0)), f.fcmp("ogt", pixel, last))
            if weight is None:
                outside = f.binary("or", outside, f.fcmp("uno", pixel, pixel))
            weight = f.select(outside, number(0), number(1) if weight is None else weight)
        elif padding == "reflection":
            pixel = _reflected(f, pixel, low, high)
        pixel = f.select(f.fcmp("uno", pixel, pixel), number(0), _within(f, pixel, last))
        taps.append((f.binary("mul", f.cast("fptosi", pixel, "i32"), axis.step), weight))
    return taps


def _cubic_weights(f: Function, t: Value) -> list[Value]:
    """Of the pixel before the last one, that one, and the two behind; ``t``: how far behind the last one a point is."""

    def number(value: float) -> Value:
        return f.const(t.type, value)

    def inner(distance: Value) -> Value:
        slope = f.fsub(f.fmul(number(_CUBIC_A + 2), distance), number(_CUBIC_A + 3))
        return f.fadd(f.fmul(f.fmul(slope, distance), distance), number(1))

    def outer(distance: Value) -> Value:
        slope = f.fsub(f.fmul(number(_CUBIC_A), distance), number(5 * _CUBIC_A))
        return f.fsub(f.fmul(f.fadd(f.fmul(slope, distance), number(8 * _CUBIC_A)), distance), number(4 * _CUBIC_A))

    rest = f.fsub(number(1), t)
    return [outer(f.fadd(number(1), t)), inner(t), inner(rest), outer(f.fadd(number(1), rest))]


def _within(f: Function, at: Value, last: Value) -> Value:
    """From 0 to the last pixel; NaN stays."""
    zero = f.const(at.type, 0)
    at = f.select(f.fcmp("olt", at, zero), zero, at)
    return f.select(f.fcmp("ogt", at, last), last, at)


def _reflected(f: Function, at: Value, low: Value, high: Value) -> Value:
    """Mirrored at both ends until it is within them."""
    span = f.fsub(high, low)
    twice = f.fadd(span, span)
    distance = f.unary("fabs", f.fsub(at, low))
    rounds = f.unary("floor", f.fdiv(distance, twice))
    distance = f.fsub(distance, f.fmul(rounds, twice))
    back = f.fsub(twice, distance)
    mirrored = f.fadd(low, f.select(f.fcmp("olt", back, distance), back, distance))
    inside = f.binary("and", f.fcmp("oge", at, low), f.fcmp("ole", at, high))
    none = f.fcmp("ole", span, f.const(at.type, 0))
    return f.select(none, f.const(at.type, 0), f.select(inside, at, mirrored))


def _fetch(f: Function, plane: Value, places: Value, weight: Value | None) -> Value:
    """Elements at offsets; 0 where the weight is there and is 0: what is not read may be anything."""
    lanes = int(places.type[1:].split(" ")[0]) if places.type.startswith("<") else 1
    type_ = vector("float", lanes)
    zero = f.const(type_, 0)
    wanted = f.const(vector("i1", lanes), 1) if weight is None else f.fcmp("une", weight, zero)
    if lanes == 1:
        found = f.load("float", f.at(plane, f.cast("sext", places, "i64"), "float"))
        return f.select(wanted, found, zero)
    addresses = f.op(f"<{lanes} x ptr>", f"getelementptr inbounds float, ptr {plane.text}, {places}")
    name = f"llvm.masked.gather.{mangle(type_)}.v{lanes}p0"
    f.declare(f"{type_} @{name}(<{lanes} x ptr>, i32 immarg, <{lanes} x i1>, {type_})")
    return f.op(type_, f"call {type_} @{name}({addresses}, i32 4, {wanted}, {zero})")
