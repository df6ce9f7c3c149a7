"""Recurrent cells with 8-bit weights: states are quantized as they come, and multiplied as integers.

Four unsigned numbers times four signed ones are added to a 32-bit sum, in each lane.

Weights lie four rows together: [size / 4, vectors, lanes, 4]; of activations, four are loaded at once for all
lanes. Where the processor has no such instruction, pairs of 16-bit products are added, which all have in some form.
"""

from __future__ import annotations

from collections.abc import Sequence

from distort.kernels.compiler.codegen.target import Target
from distort.kernels.compiler.codegen.text import Function, Index, Value, lanes_of, vector

#: numbers of a group
GROUP = 4


def is_arm(target: Target) -> bool:
    return target.triple.startswith(("aarch64", "arm64"))


def shift_of(target: Target) -> int:
    """What is taken off an unsigned number before it is stored: arm multiplies signed numbers."""
    return 128 if is_arm(target) and target.has_int8_dot else 0


def dot(f: Function, target: Target, total: Value, activations: Value, weights: Value) -> Value:
    """total [lanes] + the sum over four of activations · weights; both with their bytes in [lanes] of i32."""
    lanes = target.lanes("i32")
    if target.has_int8_dot:
        of_bytes = vector("i8", 4 * lanes)
        operands = [total, f.bitcast(activations, of_bytes), f.bitcast(weights, of_bytes)]
        if is_arm(target):
            return f.call(total.type, f"llvm.aarch64.neon.sdot.v{lanes}i32.v{4 * lanes}i8", operands)
        return f.call(total.type, f"llvm.x86.avx512.vpdpbusd.{32 * lanes}", operands)
    pairs = vector("i16", 2 * lanes)
    x, w = f.bitcast(activations, pairs), f.bitcast(weights, pairs)
    eight = f.const(pairs, 8)
    even = f.binary("ashr", f.binary("shl", w, eight), eight)
    for numbers, factors in (
        (even, f.binary("and", x, f.const(pairs, 255))),
        (f.binary("ashr", w, eight), f.binary("lshr", x, eight)),
    ):
        products = f.binary("mul", f.cast("sext", numbers, "i32"), f.cast("sext", factors, "i32"))
        one, other = (f.shuffle(products, f.undef(products.type), range(n, 2 * lanes, 2)) for n in (0, 1))
        total = f.binary("add", total, f.binary("add", one, other))
    return total


def product(
    f: Function, target: Target, rows: Sequence[Value], panel: Value, n_groups: Index, n_vectors: int, n_chains: int = 1
) -> list[list[Value]]:
    """rows: addresses of [n_groups, 4] each, panel: [n_groups, n_vectors, lanes, 4] -> sums of each row, by vectors."""
    lanes = target.lanes("i32")
    type_ = vector("i32", lanes)
    n_sums = len(rows) * n_vectors

    def advance(k: Index, sums: Sequence[Value]) -> list[Value]:
        made: list[Value] = []
        line = f.at(panel, f.mul(k, n_vectors * lanes), "i32")
        weights = [f.load(type_, f.at(line, n * lanes, "i32")) for n in range(n_vectors)]
        for row in rows:
            every = f.splat(f.load("i32", f.at(row, k, "i32")), lanes)
            made += [dot(f, target, sums[len(made) + n], every, weight) for n, weight in enumerate(weights)]
        return made

    whole = f.mul(f.div(n_groups, n_chains), n_chains)
    with f.loop(0, whole, n_chains, [f.const(type_, 0)] * (n_sums * n_chains)) as loop:
        following: list[Value] = []
        for chain in range(n_chains):
            part = loop.carried[chain * n_sums : (chain + 1) * n_sums]
            following += advance(f.add(loop.index, chain), part)
        loop.carry(following)
    sums = loop.carried
    while len(sums) > n_sums:
        half = len(sums) // 2
        sums = [f.binary("add", one, other) for one, other in zip(sums[:half], sums[half:], strict=True)]
    if n_chains > 1:
        with f.loop(whole, n_groups, 1, sums) as rest:
            rest.carry(advance(rest.index, rest.carried))
        sums = rest.carried
    return [sums[n : n + n_vectors] for n in range(0, n_sums, n_vectors)]


def scales(f: Function, target: Target, rows: tuple[Value, Value], n_rows: Index, size: Index) -> tuple[Value, Value]:
    """The scale and zero point of all numbers of some rows, as DynamicQuantizeLinear has them.

    ``rows``: an address and the stride of rows [n_rows, size]. Returns a float and an i32.
    """
    lanes = target.lanes("float")
    type_ = vector("float", lanes)
    whole = f.mul(f.div(size, lanes), lanes)
    zero = f.const(type_, 0)
    with f.loop(0, n_rows, 1, [zero, zero]) as row:
        at = f.at(rows[0], f.mul(row.index, rows[1]), "float")
        with f.loop(0, whole, lanes, row.carried) as block:
            block.carry(_wider(f, block.carried, f.load(type_, f.at(at, block.index, "float"))))
        with f.loop(whole, size, 1, block.carried) as single:
            number = f.splat(f.load("float", f.at(at, single.index, "float")), lanes)
            single.carry(_wider(f, single.carried, number))
        row.carry(single.carried)
    low, high = (
        _reduced(f, f"vector.reduce.f{name}", value, lanes)
        for name, value in zip(("min", "max"), row.carried, strict=True)
    )
    same = f.fcmp("oeq", low, high)
    span = f.fdiv(f.fsub(high, low), f.const("float", 255))
    scale = f.select(same, f.const("float", 1), span)
    point = f.fdiv(f.op("float", f"fneg {low}"), scale)
    point = f.intrinsic("minnum", f.intrinsic("maxnum", point, f.const("float", 0)), f.const("float", 255))
    return scale, f.cast("fptosi", f.unary("rint", point), "i32")


def _wider(f: Function, bounds: Sequence[Value], numbers: Value) -> list[Value]:
    low, high = bounds
    return [
        f.select(f.fcmp("olt", numbers, low), numbers, low),
        f.select(f.fcmp("ogt", numbers, high), numbers, high),
    ]


def _reduced(f: Function, name: str, value: Value, lanes: int) -> Value:
    return f.call("float", f"llvm.{name}.v{lanes}f32", [value])


def quantize(
    f: Function,
    target: Target,
    rows: tuple[Value, Value],
    to: tuple[Value, Index],
    some: tuple[Index, Index],
    size: Index,
    scale: Value,
    zero: Value,
) -> None:
    """Rows ``some`` (from, to before) as bytes: round(x / scale) + zero, less ``shift_of``.

    ``rows``, ``to``: an address and the stride of rows, of floats and of bytes.
    """
    lanes = target.lanes("float")
    whole = f.mul(f.div(size, lanes), lanes)
    shift = shift_of(target)
    # the lowest number is -zero by construction; a tie may round up the highest
    most = f.binary("sub", f.const("i32", 255), zero)
    offset = f.binary("sub", zero, f.const("i32", shift))

    def some_of(at: Value, place: Value, index: Value, width: int) -> None:
        type_ = vector("float", width)
        number = f.fdiv(f.load(type_, f.at(at, index, "float")), f.splat(scale, width))
        # what is no number becomes one: which doesn't matter
        number = f.intrinsic("minnum", f.unary("rint", number), f.const(type_, 255))
        number = f.intrinsic("maxnum", number, f.const(type_, -255))
        integer = f.intrinsic("smin", f.cast("fptosi", number, "i32"), f.splat(most, width))
        integer = f.binary("add", integer, f.splat(offset, width))
        f.store(f.cast("trunc", integer, "i8"), f.at(place, index, "i8"))

    with f.loop(*some) as row:
        at = f.at(rows[0], f.mul(row.index, rows[1]), "float")
        place = f.at(to[0], f.mul(row.index, to[1]), "i8")
        with f.loop(0, whole, lanes) as block:
            some_of(at, place, block.index, lanes)
        with f.loop(whole, size) as single:
            some_of(at, place, single.index, 1)


def scaled(f: Function, total: Value, zero: Value, scale: Value, sums: Value, scales: Value, column: Index) -> Value:
    """(total - zero · sums) · scale · scales, for columns from this one on. ``sums``: of a column's weights."""
    lanes = lanes_of(total.type)
    of_weights = f.load(total.type, f.at(sums, column, "i32"))
    exact = f.binary("sub", total, f.binary("mul", f.splat(zero, lanes), of_weights))
    factor = f.load(vector("float", lanes), f.at(scales, column, "float"))
    return f.fmul(f.cast("sitofp", exact, "float"), f.fmul(f.splat(scale, lanes), factor))
