"""Runs of a plan that is one native segment, with no more Python than that takes: addresses, results, a call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from distort.kernels.compiler.addresses import address_of
from distort.kernels.compiler.codegen.drive import STEP_WORDS

if TYPE_CHECKING:
    from distort.kernels.compiler.ir import Array
    from distort.kernels.compiler.program import Compiled, CompiledProgram, Instance

_WORD_NBYTES = 8


class QuickRun:
    """``feeds``: the names of feeds whose addresses the plan wants, with the places where it wants them."""

    __slots__ = ("_begin", "_call", "_checked", "_feeds", "_free", "_made", "_n_steps", "_new", "_places")

    def __init__(
        self,
        new: Callable[[], Instance],
        free: list[Instance],
        call: Callable[[int, int], None],
        steps: tuple[int, int],
        feeds: Sequence[tuple[str, Sequence[tuple[int, int]]]],
        made: Sequence[tuple[tuple[int, ...], np.dtype[Any]]],
        places: Sequence[tuple[int, Sequence[tuple[int, int]]]],
        checked: bool,
    ) -> None:
        self._new, self._free, self._call = new, free, call
        self._begin, self._n_steps = steps[0] * STEP_WORDS * _WORD_NBYTES, steps[1]
        self._feeds, self._made, self._places, self._checked = feeds, made, places, checked

    def __call__(self, feeds: Mapping[str, Array]) -> list[Array] | None:
        """The results, which are the caller's; None where a kernel refused what it was fed."""
        try:
            instance = self._free.pop()
        except IndexError:
            instance = self._new()
        try:
            cells = instance.cells
            kept: list[Array] = []  # copies live as long as the run
            for name, places in self._feeds:
                array = feeds[name]
                if not array.flags.c_contiguous:
                    array = np.ascontiguousarray(array).reshape(array.shape)
                    kept.append(array)
                address = address_of(array)
                for place, offset in places:
                    cells[place] = address + offset
            results = [np.empty(shape, dtype) for shape, dtype in self._made]
            for number, places in self._places:
                address = address_of(results[number])
                for place, offset in places:
                    cells[place] = address + offset
            self._call(instance.address + self._begin, self._n_steps)
            if self._checked and cells[-1]:
                cells[-1] = 0
                return None
        finally:
            self._free.append(instance)
        return results


def quick_run(program: CompiledProgram, compiled: Compiled, given: Mapping[str, Any]) -> QuickRun | None:
    """For a plan that is nothing but native steps between the feeds that are given and results that it makes."""
    if len(compiled.segments) != 1 or compiled.segments[0].host is not None:
        return None
    made = []
    for result in compiled.plan.results:
        if result.tensor is None:
            return None
        made.append((result.tensor.shape, result.tensor.dtype))
    feeds = [(program.inputs[number], places) for number, places in compiled.feeds]
    if any(name not in given for name, _ in feeds):
        return None  # a default
    (segment,) = compiled.segments
    call = program.team.run if segment.shared else program.team.run_alone
    return QuickRun(
        lambda: program.instance_of(compiled),
        compiled.free,
        call,
        (segment.first, segment.last - segment.first),
        feeds,
        made,
        compiled.results,
        len(compiled.of_error) > 0,
    )
