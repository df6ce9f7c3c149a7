"""What is carried through a reduction: sums, products, extremes and the places of extremes, on vectors of lanes."""

from __future__ import annotations

import math
from dataclasses import dataclass

from distort.kernels.compiler.codegen.operators import extreme, is_real, is_signed
from distort.kernels.compiler.codegen.text import Function, Index, Value, element_of, lanes_of, vector
from distort.kernels.compiler.expression import COMPUTED, Instruction

#: instruction -> whether its result is a place
REDUCTIONS = {
    **dict.fromkeys(("row_sum", "row_mean", "row_prod", "row_max", "row_min"), False),
    **dict.fromkeys(("row_argmax", "row_argmin"), True),
}

State = list[Value]


@dataclass(frozen=True, slots=True)
class Reducer:
    """One reduction. ``dtype`` is the operand's.

    ``row_max`` and ``row_min`` with the attribute ``numbers`` pass NaN over; ``row_argmax`` and ``row_argmin`` with
    ``last`` find the last of equal ones. Otherwise NaN is larger and smaller than all, as in numpy.
    """

    op: str
    dtype: str
    attribute: str = ""

    @classmethod
    def of(cls, instruction: Instruction, dtype: str) -> Reducer:
        return cls(instruction.op, dtype, *instruction.attributes)

    @property
    def n_values(self) -> int:
        return 2 if REDUCTIONS[self.op] else 1

    def begin(self, f: Function, lanes: int) -> State:
        type_ = vector(COMPUTED[self.dtype], lanes)
        if self.op in ("row_sum", "row_mean"):
            return [f.const(type_, 0)]
        if self.op == "row_prod":
            return [f.const(type_, 1)]
        largest = self.op in ("row_max", "row_argmax")
        start = f.const(type_, _lowest(self.dtype) if largest else _highest(self.dtype))
        if REDUCTIONS[self.op]:
            return [start, f.const(vector(_place_element(type_), lanes), 0)]
        return [start]

    def step(self, f: Function, state: State, value: Value, place: Index, mask: Value | None, across: bool) -> State:
        """With one more value a lane; ``place`` is the first lane's, or (``across``) that of all lanes."""
        if REDUCTIONS[self.op]:
            new = self._replaced(f, state, value, place, across)
        elif self.op in ("row_sum", "row_mean"):
            new = [
                f.binary("fadd", state[0], value, "contract") if is_real(value) else f.binary("add", state[0], value)
            ]
        else:
            new = self._merged(f, state, [value])
        if mask is None:
            return new
        return [f.select(mask, a, b) for a, b in zip(new, state, strict=True)]

    def _merged(self, f: Function, a: State, b: State) -> State:
        if self.op in ("row_sum", "row_mean", "row_prod"):
            name = "mul" if self.op == "row_prod" else "add"
            return [f.binary(f"f{name}" if is_real(a[0]) else name, a[0], b[0])]
        largest = self.op == "row_max"
        return [extreme(f, largest, is_signed(self.dtype), a[0], b[0], self.attribute == "numbers")]

    def _replaced(self, f: Function, state: State, value: Value, place: Index, across: bool) -> State:
        best, found = state
        lanes = lanes_of(value.type)
        element = element_of(found.type)
        if isinstance(place, int) or element == "i64":
            base = Value(element, str(place) if isinstance(place, int) else place.text)
        else:
            base = f.op(element, f"trunc {place} to {element}")
        places = f.splat(base, lanes)
        if lanes > 1 and not across:
            numbers = ", ".join(f"{element} {lane}" for lane in range(lanes))
            places = f.op(places.type, f"add {places}, <{numbers}>")
        better = self._is_better(f, value, best, self.attribute == "last")
        return [f.select(better, value, best), f.select(better, places, found)]

    def _is_better(self, f: Function, a: Value, b: Value, or_equal: bool) -> Value:
        """Whether a comes before b."""
        order = "g" if self.op == "row_argmax" else "l"
        condition = order + ("e" if or_equal else "t")
        if not is_real(a):
            return f.icmp(("s" if is_signed(self.dtype) else "u") + condition, a, b)
        stays = f.fcmp("ord", b, b)
        if or_equal:
            stays = f.binary("or", stays, f.fcmp("uno", a, a))
        return f.binary("and", f.fcmp(f"u{condition}", a, b), stays)

    def combine(self, f: Function, a: State, b: State) -> State:
        """Of two parts of a row."""
        if not REDUCTIONS[self.op]:
            return self._merged(f, a, b)
        sooner = f.icmp("slt" if self.attribute != "last" else "sgt", b[1], a[1])
        worse = self._is_better(f, a[0], b[0], False)
        level = f.binary("and", sooner, f.binary("xor", worse, f.const(worse.type, 1)))
        takes = f.binary("or", self._is_better(f, b[0], a[0], False), level)
        return [f.select(takes, y, x) for x, y in zip(a, b, strict=True)]

    def over_lanes(self, f: Function, state: State) -> State:
        """Of all lanes."""
        lanes = lanes_of(state[0].type)
        while lanes > 1:
            half = lanes // 2
            parts = [[_half(f, value, first, half) for value in state] for first in (0, half)]
            state = self.combine(f, *parts)
            lanes = half
        return state

    def finish(self, f: Function, state: State, count: Index, lanes: int) -> Value:
        """The result from what was carried; ``count`` elements were reduced."""
        if REDUCTIONS[self.op]:
            return f.cast("sext", state[1], "i64")
        if self.op != "row_mean":
            return state[0]
        element = element_of(state[0].type)
        number = f.op(element, f"sitofp i64 {f.i64(count).text} to {element}")
        return f.fdiv(state[0], f.splat(number, lanes))


def _half(f: Function, value: Value, first: int, lanes: int) -> Value:
    if lanes == 1:
        return f.extract(value, first)
    return f.shuffle(value, f.undef(value.type), range(first, first + lanes))


def _place_element(type_: str) -> str:
    return "i64" if element_of(type_) in ("double", "i64") else "i32"


def _lowest(dtype: str) -> float:
    if COMPUTED[dtype] in ("float", "double"):
        return -math.inf
    return -(1 << (int(COMPUTED[dtype][1:]) - 1)) if is_signed(dtype) else 0


def _highest(dtype: str) -> float:
    if COMPUTED[dtype] in ("float", "double"):
        return math.inf
    bits = int(COMPUTED[dtype][1:])
    return (1 << (bits - is_signed(dtype))) - 1


__all__ = ["REDUCTIONS", "Reducer", "State"]
