"""Runs that have been gone before, with no more Python than they take: addresses, results, a call for each segment.

Where anything is not as it was, they give up, and the long way does all again and says what is wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from distort.kernels.compiler import host_calls
from distort.kernels.compiler.addresses import address_of
from distort.kernels.compiler.codegen.drive import STEP_WORDS

if TYPE_CHECKING:
    from distort.kernels.compiler.host_calls import HostCall
    from distort.kernels.compiler.ir import Array
    from distort.kernels.compiler.program import Compiled, CompiledProgram, Instance

_WORD_NBYTES = 8


class QuickRun:
    """Feeds of the types of one plan. ``named``: results that NumPy kernels make, with whether these are the caller's
    own already; others may be anybody's."""

    __slots__ = ("_checked", "_compiled", "_feeds", "_hosts", "_made", "_program", "_segments", "named")

    def __init__(
        self,
        program: CompiledProgram,
        compiled: Compiled,
        feeds: Sequence[tuple[str, Sequence[tuple[int, int]]]],
        hosts: host_calls.Hosts | None,
    ) -> None:
        self._program, self._compiled, self._feeds, self._hosts = program, compiled, feeds, hosts
        self._made = [None if r.tensor is None else (r.tensor.shape, r.tensor.dtype) for r in compiled.plan.results]
        self._checked = len(compiled.of_error) > 0
        team = program.team
        self._segments = [
            (s.first * STEP_WORDS * _WORD_NBYTES, s.last - s.first, team.run if s.shared else team.run_alone)
            for s in compiled.segments
            if s.host is None
        ]
        self.named: list[tuple[int, bool]] = [] if hosts is None else hosts.named

    def __call__(self, feeds: Mapping[str, Array]) -> list[Any] | None:
        """The results; None where a kernel refused what it was fed, or made what was not expected of it."""
        compiled = self._compiled
        try:
            instance = compiled.free.pop()
        except IndexError:
            instance = self._program.instance_of(compiled)
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
            results: list[Any] = [None if made is None else np.empty(*made) for made in self._made]
            for number, places in compiled.results:
                address = address_of(results[number])
                for place, offset in places:
                    cells[place] = address + offset
            if self._hosts is not None:
                return self._with_hosts(self._hosts, instance, feeds, results)
            for begin, n_steps, call in self._segments:
                call(instance.address + begin, n_steps)
            if self._checked and cells[-1]:
                cells[-1] = 0
                return None
        finally:
            compiled.free.append(instance)
        return results

    def _with_hosts(
        self, hosts: host_calls.Hosts, instance: Instance, feeds: Mapping[str, Array], results: list[Any]
    ) -> list[Any] | None:
        if instance.host_calls is None:
            instance.host_calls = hosts.calls(instance)
        values = hosts.values(feeds, results)
        native = iter(self._segments)
        if hosts.quiet:
            with np.errstate(all="ignore"):
                went = self._go(instance, instance.host_calls, native, values)
        else:
            went = self._go(instance, instance.host_calls, native, values)
        return hosts.results(values, results) if went else None

    def _go(
        self,
        instance: Instance,
        calls: Sequence[HostCall | None],
        native: Any,
        values: list[Any],
    ) -> bool:
        cells = instance.cells
        for host in calls:
            if host is not None:
                if not host(values):
                    return False
                continue
            begin, n_steps, run = next(native)
            run(instance.address + begin, n_steps)
            if self._checked and cells[-1]:
                cells[-1] = 0
                return False
        return True


def quick_run(program: CompiledProgram, compiled: Compiled, given: Mapping[str, Any]) -> QuickRun | None:
    """For a plan whose steps need nothing but the feeds that are given."""
    feeds = [(program.inputs[number], places) for number, places in compiled.feeds]
    if any(name not in given for name, _ in feeds):
        return None  # a default
    is_native = all(s.host is None for s in compiled.segments) and all(r.tensor for r in compiled.plan.results)
    hosts = None if is_native else host_calls.hosts_of(program, compiled, given)
    return QuickRun(program, compiled, feeds, hosts) if is_native or hosts is not None else None


__all__ = ["QuickRun", "quick_run"]
