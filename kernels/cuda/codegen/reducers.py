"""What is carried through a reduction, in CUDA C: sums, products, extremes, and the places of extremes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from distort.kernels.compiler.codegen.reducers import REDUCTIONS
from distort.kernels.compiler.expression import Expression
from distort.kernels.cuda.codegen.dtypes import COMPUTED, is_real, literal
from distort.kernels.cuda.codegen.expressions import unsigned


def lowest(dtype: str) -> float:
    """What nothing is below."""
    return -math.inf if is_real(dtype) else np.iinfo(dtype).min


def highest(dtype: str) -> float:
    """What nothing is above."""
    return math.inf if is_real(dtype) else np.iinfo(dtype).max


@dataclass(frozen=True, slots=True)
class Reducer:
    """One reduction, instruction ``number``, of elements of ``dtype``. Its state is one variable or two.

    ``row_max`` and ``row_min`` with the attribute ``numbers`` pass NaN over; ``row_argmax`` and ``row_argmin`` with
    ``last`` find the last of equal ones. Otherwise NaN is larger and smaller than all, as in numpy.
    """

    number: int
    op: str
    dtype: str
    attribute: str

    @classmethod
    def of(cls, expression: Expression, number: int) -> Reducer:
        instruction = expression.body[number - len(expression.inputs)]
        (attribute,) = instruction.attributes or ("",)
        return cls(number, instruction.op, expression.dtype(instruction.operands[0]), attribute)

    @property
    def variables(self) -> list[tuple[str, str]]:
        """Types and names."""
        made = [(COMPUTED[self.dtype], f"s{self.number}")]
        return [*made, ("long long", f"place{self.number}")] if REDUCTIONS[self.op] else made

    @property
    def begin(self) -> list[str]:
        """What variables hold before the first element."""
        if self.op in ("row_sum", "row_mean", "row_prod"):
            return [literal(self.op == "row_prod", self.dtype)]
        first = lowest(self.dtype) if self.op in ("row_max", "row_argmax") else highest(self.dtype)
        return [literal(first, self.dtype), "0"] if REDUCTIONS[self.op] else [literal(first, self.dtype)]

    def step(self, value: str, place: str) -> str:
        """A statement: with one more element."""
        (_, best), *rest = self.variables
        if not rest:
            return f"{best} = {self._merged(best, value)};"
        order = self._order() + ("_or_level" if self.attribute == "last" else "")
        kind = COMPUTED[self.dtype]
        return f"if ({order}<{kind}>({value}, {best})) {{ {best} = {value}; {rest[0][1]} = {place}; }}"

    def combine(self, other: list[str]) -> str:
        """A statement: with what was made of another part of the row."""
        (_, best), *rest = self.variables
        if not rest:
            return f"{best} = {self._merged(best, other[0])};"
        order, kind, place = self._order(), COMPUTED[self.dtype], rest[0][1]
        sooner = f"{other[1]} {'>' if self.attribute == 'last' else '<'} {place}"
        level = f"!{order}<{kind}>({best}, {other[0]}) && {sooner}"
        takes = f"{order}<{kind}>({other[0]}, {best}) || ({level})"
        return f"if ({takes}) {{ {best} = {other[0]}; {place} = {other[1]}; }}"

    def finish(self, count: str) -> str:
        """The result, as it is computed with."""
        variables = self.variables
        if self.op == "row_mean":
            return f"{variables[0][1]} / ({COMPUTED[self.dtype]}){count}"
        return variables[-1][1]

    def _order(self) -> str:
        return "is_above" if self.op == "row_argmax" else "is_below"

    def _merged(self, a: str, b: str) -> str:
        kind = COMPUTED[self.dtype]
        if self.op in ("row_sum", "row_mean", "row_prod"):
            sign = "*" if self.op == "row_prod" else "+"
            if is_real(self.dtype):
                return f"{a} {sign} {b}"
            wide = unsigned(self.dtype)
            return f"({kind})(({wide}){a} {sign} ({wide}){b})"
        largest = self.op == "row_max"
        if self.attribute == "numbers":
            return f"{'at_least' if largest else 'at_most'}<{kind}>({a}, {b})"
        return f"{'larger' if largest else 'smaller'}<{kind}>({a}, {b})"


__all__ = ["Reducer", "highest", "lowest"]
