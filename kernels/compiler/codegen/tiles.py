"""The register tile of matrix products: rows of A times a panel of B, all sums in registers."""

from __future__ import annotations

import functools
from typing import NamedTuple

from distort.kernels.compiler.codegen import elements
from distort.kernels.compiler.codegen.text import Function, Value, vector
from distort.kernels.compiler.expression import STORED

#: additions that a machine has on their way at once, at least: fewer chains of sums would wait for each other
_CHAINS = 8


class Tile(NamedTuple):
    rows: int
    vectors: int


def emit_tile(f: Function, tile: Tile, lanes: int, dtypes: tuple[str, str]) -> None:
    """void(n_rows, a, a_row, a_depth, b, b_step, depth, target, target_row, soon, ahead)

    For 1 to ``tile.rows`` rows: a [n_rows, depth] by strides a_row and a_depth; b [depth, width], b_step elements from
    line to line; the product to target [n_rows, width], float32, target_row elements from row to row. For each line of
    b it asks for as many cache lines as that has at ``soon``, which moves on by ``ahead`` bytes.
    """
    cases = [functools.partial(_emit_rows, f, n, tile.vectors, lanes, dtypes) for n in range(1, tile.rows + 1)]
    f.switch(f.parameters[0], cases, first=1)
    f.ret()


def _emit_rows(f: Function, n_rows: int, n_vectors: int, lanes: int, dtypes: tuple[str, str]) -> None:
    _, a, a_row, a_depth, b, b_step, depth, target, target_row, soon, ahead = f.parameters
    a_dtype, b_dtype = dtypes
    a_element, b_element = (STORED[dtype] for dtype in dtypes)
    offsets = [f.mul(n, a_row) for n in range(n_rows)]
    size = n_rows * n_vectors

    def advance(sums: list[Value], one: Value, line: Value) -> list[Value]:
        """Add the product of a column of A and a line of B."""
        panel = [elements.load(f, f.at(line, n * lanes, b_element), b_dtype, lanes) for n in range(n_vectors)]
        made = []
        for n, offset in enumerate(offsets):
            every = f.splat(elements.load(f, f.at(one, offset, a_element), a_dtype, 1), lanes)
            made += [f.fma(every, line, sums[n * n_vectors + m]) for m, line in enumerate(panel)]
        return made

    def ask(soon: Value) -> None:
        for n in range(n_vectors):
            f.prefetch(f.at(soon, 64 * n, "i8"), locality=2)

    n_chains = max(1, min(4, _CHAINS // size))
    sums = [f.const(vector("float", lanes), 0)] * size
    whole = f.mul(f.div(depth, n_chains), n_chains)
    one, line = a, b
    if n_chains > 1:
        with f.loop(0, whole, n_chains, [one, line, soon, *sums * n_chains]) as loop:
            one, line, soon, *many = loop.carried
            following: list[Value] = []
            for chain in range(n_chains):
                following += advance(many[chain * size : (chain + 1) * size], one, line)
                one, line = f.at(one, a_depth, a_element), f.at(line, b_step, b_element)
                ask(soon)
                soon = f.at(soon, ahead, "i8")
            loop.carry([one, line, soon, *following])
        one, line, soon, *many = loop.carried
        while len(many) > size:
            half = len(many) // 2
            many = [f.fadd(x, y) for x, y in zip(many[:half], many[half:], strict=True)]
        sums = many
    with f.loop(whole if n_chains > 1 else 0, depth, 1, [one, line, soon, *sums]) as loop:
        one, line, soon, *sums = loop.carried
        ask(soon)
        sums = advance(sums, one, line)
        following = [f.at(one, a_depth, a_element), f.at(line, b_step, b_element), f.at(soon, ahead, "i8"), *sums]
        loop.carry(following)
    for n, total in enumerate(loop.carried[3:]):
        row, m = divmod(n, n_vectors)
        f.store(total, f.at(target, f.add(f.mul(row, target_row), m * lanes), "float"))
