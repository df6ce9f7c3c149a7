"""Expressions with reductions in them, split into passes over a row.

The operand of ``row_sum``, ``row_max`` and so on is reduced over the row, and the result is one value a row that later
instructions use in all places. What a pass needs of a value made in an earlier one is computed again where that is
cheap, and otherwise kept in scratch memory.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from distort.kernels.compiler.codegen import elements, operators
from distort.kernels.compiler.codegen.reducers import REDUCTIONS, Reducer
from distort.kernels.compiler.codegen.text import Function, Value
from distort.kernels.compiler.expression import Expression

#: from this cost on (instructions, and operands that are read) a value is kept
_KEPT_COST = 5


@dataclass(frozen=True, slots=True)
class Passes:
    """``level`` of each number (inputs, then instructions): whether it is one value a row."""

    n_passes: int
    per_row: tuple[bool, ...]
    #: the pass that an element can be computed in first; of values a row, the pass before which they are known
    first: tuple[int, ...]
    kept: tuple[int, ...]
    reductions: tuple[tuple[int, ...], ...]  # of each pass: instructions, by number
    results: tuple[tuple[int, ...], ...]  # of each pass: positions among the results
    costs: tuple[int, ...]


@functools.lru_cache(maxsize=1024)
def split(expression: Expression, varies: tuple[bool, ...], dear: tuple[int, ...] = ()) -> Passes:
    """``varies``: whether each input, then each result, goes along the row. ``dear``: inputs to be read only once."""
    n_inputs = len(expression.inputs)
    per_row = [not v for v in varies[:n_inputs]]
    first = [0] * n_inputs
    for instruction in expression.body:
        operands = [o for o in instruction.operands if not _is_constant(expression, o)]
        if instruction.op == "constant":
            operands = []
        begin = max((first[o] for o in operands), default=0)
        is_reduction = instruction.op in REDUCTIONS
        first.append(begin + is_reduction)
        per_row.append(is_reduction or all(per_row[o] for o in operands))
    last = [0]
    results: dict[int, list[int]] = {}
    for position, number in enumerate(expression.results):
        if varies[n_inputs + position]:
            results.setdefault(first[number], []).append(position)
            last.append(first[number])
    reductions: dict[int, list[int]] = {}
    for number, instruction in enumerate(expression.body, n_inputs):
        if instruction.op in REDUCTIONS:
            reductions.setdefault(first[number] - 1, []).append(number)
            last.append(first[number] - 1)
    n_passes = max(last) + 1
    kept = _kept(expression, per_row, first, results, dear)
    costs = []
    for turn in range(n_passes):
        wanted = [expression.body[number - n_inputs].operands[0] for number in reductions.get(turn, [])]
        wanted += [expression.results[position] for position in results.get(turn, [])]
        needed = _needed(expression, per_row, [k for k in kept if first[k] < turn], wanted)
        costs.append(elements.cost_of(expression.body[n - n_inputs] for n in needed if n >= n_inputs))
    return Passes(
        n_passes,
        tuple(per_row),
        tuple(first),
        tuple(sorted(kept)),
        tuple(tuple(reductions.get(turn, ())) for turn in range(n_passes)),
        tuple(tuple(results.get(turn, ())) for turn in range(n_passes)),
        tuple(costs),
    )


def _is_constant(expression: Expression, number: int) -> bool:
    place = number - len(expression.inputs)
    return place >= 0 and expression.body[place].op == "constant"


def _needed(expression: Expression, per_row: Sequence[bool], known: Sequence[int], wanted: Sequence[int]) -> set[int]:
    """Elements that lead to the wanted ones, themselves included, from inputs and known ones on."""
    n_inputs = len(expression.inputs)
    found: set[int] = set()
    rest = list(wanted)
    while rest:
        number = rest.pop()
        if number in found or number in known or per_row[number]:
            continue
        found.add(number)
        if number >= n_inputs:
            rest.extend(expression.body[number - n_inputs].operands)
    return found


def _kept(
    expression: Expression,
    per_row: Sequence[bool],
    first: Sequence[int],
    results: dict[int, list[int]],
    dear: Sequence[int],
) -> list[int]:
    """Elements that a later pass needs and that are dear."""
    n_inputs = len(expression.inputs)
    uses: list[tuple[int, int]] = []  # (element, the pass that it is needed in)
    for number, instruction in enumerate(expression.body, n_inputs):
        if instruction.op in REDUCTIONS:
            uses += [(o, first[number] - 1) for o in instruction.operands]
        elif not per_row[number]:
            uses += [(o, first[number]) for o in instruction.operands]
    for turn, positions in results.items():
        uses += [(expression.results[position], turn) for position in positions]
    kept: list[int] = []
    for number, turn in sorted(set(uses)):
        if per_row[number] or first[number] >= turn or number in kept:
            continue
        needed = _needed(expression, per_row, kept, [number])
        reads = sum(_KEPT_COST if n in dear else 1 for n in needed if n < n_inputs)
        if elements.cost_of(expression.body[n - n_inputs] for n in needed if n >= n_inputs) + reads >= _KEPT_COST:
            kept.append(number)
    return kept


def kept_dtype(expression: Expression, number: int) -> str:
    """Of an element in scratch memory: what it is computed with."""
    dtype = expression.dtype(number)
    return "float32" if dtype in ("float16", "bfloat16") else dtype


class Evaluation:
    """The values of one place of a row, in one pass."""

    def __init__(
        self,
        f: Function,
        expression: Expression,
        passes: Passes,
        turn: int,
        width: int,
        of_row: dict[int, Value],
        read: Callable[[int], Value],
        recall: Callable[[int], Value],
    ) -> None:
        """``read`` an input, ``recall`` a kept element, both by number; ``of_row``: what is known of the row."""
        operators.register()
        self._f, self._expression, self._passes, self._turn, self._width = f, expression, passes, turn, width
        self._of_row, self._read, self._recall = of_row, read, recall
        self._known: dict[int, Value] = {}

    def get(self, number: int) -> Value:
        """An element, in all lanes."""
        value = self._known.get(number)
        if value is None:
            value = self._known[number] = self._make(number)
        return value

    def _make(self, number: int) -> Value:
        f, expression, passes = self._f, self._expression, self._passes
        n_inputs = len(expression.inputs)
        if _is_constant(expression, number):
            return constant(f, expression, number, self._width)
        if passes.per_row[number]:
            value = self._of_row[number]
            return value if elements.lanes_of(value.type) == self._width else f.splat(value, self._width)
        if number in passes.kept and passes.first[number] < self._turn:
            return self._recall(number)
        if number < n_inputs:
            return self._read(number)
        instruction = expression.body[number - n_inputs]
        return elements.emit(f, expression, number, [self.get(operand) for operand in instruction.operands])


def constant(f: Function, expression: Expression, number: int, width: int) -> Value:
    instruction = expression.body[number - len(expression.inputs)]
    return f.const(elements.type_of(instruction.dtype, width), instruction.attributes[0])


def add_values_of_row(
    f: Function, expression: Expression, passes: Passes, turn: int, width: int, of_row: dict[int, Value]
) -> None:
    """Compute what becomes known of a row before a pass, from its reductions and its operands."""
    operators.register()
    n_inputs = len(expression.inputs)
    for number, instruction in enumerate(expression.body, n_inputs):
        ready = passes.per_row[number] and passes.first[number] == turn
        if not ready or number in of_row or instruction.op == "constant":
            continue
        operands = [
            constant(f, expression, o, width) if _is_constant(expression, o) else of_row[o]
            for o in instruction.operands
        ]
        of_row[number] = elements.emit(f, expression, number, operands)


def reducers_of(expression: Expression, numbers: Sequence[int]) -> list[Reducer]:
    instructions = [expression.body[number - len(expression.inputs)] for number in numbers]
    return [Reducer.of(i, expression.dtype(i.operands[0])) for i in instructions]


__all__ = ["Evaluation", "Passes", "add_values_of_row", "constant", "kept_dtype", "reducers_of", "split"]
