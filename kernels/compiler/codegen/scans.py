"""Running sums and products along an axis of contiguous elements [outer, n, inner].

Words of a step: units, outer, n, inner, the operand's address, the result's. A unit is a block of ``lanes`` neighbours
of one outer passage; it goes along the axis.
"""

from __future__ import annotations

from distort.kernels.compiler.codegen import elements
from distort.kernels.compiler.codegen.target import Target
from distort.kernels.compiler.codegen.text import Function, Index, element_of
from distort.kernels.compiler.expression import COMPUTED, STORED, identity


def lanes_of_unit(target: Target, dtype: str) -> int:
    return elements.lanes_for(target, identity(dtype))


def emit_scan(f: Function, target: Target, dtype: str, op: str, exclusive: bool, reverse: bool) -> None:
    """``op``: ``add`` or ``mul``. ``exclusive``: without the element itself; ``reverse``: from the end."""
    n_units, _, length, inner = (f.word(i) for i in range(4))
    source, result = f.address(4), f.address(5)
    lanes = lanes_of_unit(target, dtype)
    neutral = 0 if op == "add" else 1
    n_blocks = f.div(f.add(inner, lanes - 1), lanes)
    begin, end = f.share(n_units)

    def do(first: Index, width: int) -> None:
        """Go along the axis from element ``first`` on."""
        type_ = elements.type_of(dtype, width)
        name = f"f{op}" if element_of(COMPUTED[dtype]) in ("float", "double") else op
        with f.loop(0, length, carried=[f.const(type_, neutral)]) as steps:
            place = f.sub(f.sub(length, 1), steps.index) if reverse else steps.index
            offset = f.add(first, f.mul(place, inner))
            value = elements.load(f, f.at(source, offset, STORED[dtype]), dtype, width)
            total = f.binary(name, steps.carried[0], value)
            made = steps.carried[0] if exclusive else total
            elements.store(f, made, f.at(result, offset, STORED[dtype]), dtype)
            steps.carry([total])

    with f.loop(begin, end) as unit:
        outer, block = f.div(unit.index, n_blocks), f.rem(unit.index, n_blocks)
        column = f.mul(block, lanes)
        first = f.add(f.mul(f.mul(outer, length), inner), column)
        count = f.min(f.sub(inner, column), lanes)
        if lanes > 1:
            with f.when(f.compare("eq", count, lanes)):
                do(first, lanes)
            with f.when(f.compare("slt", count, lanes)), f.loop(0, count) as single:
                do(f.add(first, single.index), 1)
        else:
            do(first, 1)
    f.ret()
