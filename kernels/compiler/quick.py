"""Runs that have been gone before, with no more Python than they take: addresses, results, a call for each segment.

Where anything is not as it was, they give up, and the long way does all again and says what is wrong.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from distort.kernels.compiler import entering, flow, host_calls
from distort.kernels.compiler.addresses import address_of
from distort.kernels.compiler.codegen.drive import STEP_WORDS
from distort.kernels.compiler.codegen.entering import JOB_WORDS
from distort.kernels.compiler.team import entrances

if TYPE_CHECKING:
    from distort.kernels.compiler.executable import Compiled, Instance
    from distort.kernels.compiler.ir import Array
    from distort.kernels.compiler.program import CompiledProgram
    from distort.kernels.program import Room

_WORD_NBYTES = 8
_STEP_NBYTES = STEP_WORDS * _WORD_NBYTES
#: work of a segment for which the interpreter's lock is kept: others wait no longer for it than it takes to give it up
_BRIEF_NS = 20_000.0


class _Segment:
    """Native steps from one of number ``first``."""

    __slots__ = ("first", "is_brief", "is_shared", "n_steps")

    def __init__(self, first: int, n_steps: int, is_shared: bool, is_brief: bool) -> None:
        self.first, self.n_steps, self.is_shared, self.is_brief = first, n_steps, is_shared, is_brief


#: a segment, or a NumPy kernel, on a run's values: whether the run can't go on
Ready = Callable[[list[Any]], Any]


class Tables:
    """What an instance's quick runs go by. ``steps``: all that is done; ``rest``: after what the way in does."""

    __slots__ = ("_kept", "entry", "rest", "steps")

    def __init__(self, kept: Sequence[Array], steps: list[Ready], begins: bool) -> None:
        self._kept, self.steps, self.rest = kept, steps, steps[begins:]
        self.entry = kept[0].ctypes.data


class QuickRun:
    """Feeds of the types of one plan. ``loose``: results that may be anybody's, and differ in shape from run to run."""

    def __init__(
        self,
        program: CompiledProgram,
        compiled: Compiled,
        feeds: Sequence[tuple[str, entering.Expected]],
        hosts: host_calls.Hosts | None,
    ) -> None:
        self._program, self._compiled, self._hosts = program, compiled, hosts
        self._free = compiled.free
        self._names = [name for name, _ in feeds]
        self._expected = [expected for _, expected in feeds]
        self._made = [None if r.tensor is None else (r.tensor.shape, r.tensor.dtype) for r in compiled.plan.results]
        for place in () if hosts is None else hosts.made:
            self._made[place - len(feeds)] = None
        self._segments = _segments(compiled)
        self._order: list[bool] = [s.host is not None for s in compiled.segments]
        first = self._segments[0] if self._segments and not self._order[0] else None
        #: whether the way in does the first segment too
        self._begins = first is not None and first.is_brief and not first.is_shared
        self._is_whole = self._begins and len(self._order) == 1 and hosts is None
        self._enter, self._go_brief, self._go_long = entrances()
        self.is_direct = entering.is_possible()
        self.n_feeds = len(feeds)
        self.loose: list[int] = [] if hosts is None else hosts.loose
        #: of results that are made for each run
        self.made_nbytes = sum(r.tensor.nbytes for r in compiled.plan.results if r.tensor is not None)
        #: whether all steps are native, and what these take, about; a loop may take longer
        self.is_native = hosts is None
        calls = [step.call for step in compiled.plan.steps if step.call is not None]
        self.work_ns = math.inf if any(c.key == flow.JUMP for c in calls) else sum(c.work_ns for c in calls)

    def direct(self, feeds: Mapping[str, Any]) -> list[Any] | None:
        """As a call with feeds of which nothing is known yet; None where they aren't of these types too."""
        try:
            instance = self._free.pop()
        except IndexError:
            instance = self._compiled.take(self._program.memory)
        try:
            tables = instance.quick or self._tables(instance)
            results: list[Any] = [None if made is None else np.empty(*made) for made in self._made]
            values = [*map(feeds.__getitem__, self._names), *results]
            if self._enter(tables.entry, values):
                return None
            return results if self._is_whole else self._finish(tables.rest, values, results)
        except KeyError:
            return None  # another feed
        finally:
            self._free.append(instance)

    def into(self, feeds: Mapping[str, Any], room: Room) -> list[Any] | None:
        """As :meth:`direct`, with results in the memory that ``room`` has for them."""
        made = zip(self._program.outputs, self._made, strict=True)
        results = [None if one is None else _placed(room(name, *one), one) for name, one in made]
        instance = self._compiled.take(self._program.memory)
        try:
            tables = instance.quick or self._tables(instance)
            values = [*map(feeds.__getitem__, self._names), *results]
            if self._enter(tables.entry, values):
                return None
            return results if self._is_whole else self._finish(tables.rest, values, results)
        except KeyError:
            return None
        finally:
            self._free.append(instance)

    def __call__(self, feeds: Mapping[str, Array]) -> list[Any] | None:
        """The results; None where a kernel refused what it was fed, or made what was not expected of it."""
        try:
            instance = self._free.pop()
        except IndexError:
            instance = self._compiled.take(self._program.memory)
        try:
            tables = instance.quick or self._tables(instance)
            cells = instance.cells
            kept: list[Array] = []  # copies live as long as the run
            for number, places in self._compiled.feeds:
                array = feeds[self._program.inputs[number]]
                if not array.flags.c_contiguous:
                    array = np.ascontiguousarray(array).reshape(array.shape)
                    kept.append(array)
                address = address_of(array)
                for place, offset in places:
                    cells[place] = address + offset
            results: list[Any] = [None if made is None else np.empty(*made) for made in self._made]
            for number, places in self._compiled.results:
                address = address_of(results[number])
                for place, offset in places:
                    cells[place] = address + offset
            values = [*map(feeds.__getitem__, self._names), *results]
            return self._finish(tables.steps, values, results)
        finally:
            self._free.append(instance)

    def _finish(self, steps: Sequence[Ready], values: list[Any], results: list[Any]) -> list[Any] | None:
        """Do what there is to do. ``values``: of feeds, then results."""
        hosts = self._hosts
        if hosts is None:
            return None if any([step(values) for step in steps]) else results
        values += [None] * hosts.n_made
        try:
            if hosts.quiet:
                with np.errstate(all="ignore"):
                    if any(step(values) for step in steps):
                        return None
            else:
                for step in steps:
                    if step(values):
                        return None
        except Exception:  # noqa: BLE001  # whatever it is: the long way meets it again, and says so
            return None
        for number, known, place in hosts.outputs:
            results[number] = known.copy() if place < 0 else values[place]
        return results

    def _native(self, instance: Instance, segment: _Segment, job: Array) -> Ready:
        """A native segment; what it returns is not 0 where a kernel refused."""
        if not segment.is_shared:
            go, address = self._go_brief if segment.is_brief else self._go_long, job.ctypes.data
            return lambda values: go(address)
        run, begin = self._program.team.run, instance.address + segment.first * _STEP_NBYTES
        n_steps, cells = segment.n_steps, instance.cells

        def shared(values: list[Any]) -> int:
            run(begin, n_steps)
            refused: int = cells[-1]
            cells[-1] = 0
            return refused

        return shared

    def _tables(self, instance: Instance) -> Tables:
        """Made once for an instance."""
        words = instance.words.ctypes.data

        def cells(of: Sequence[tuple[int, Sequence[tuple[int, int]]]], number: int) -> entering.Cells:
            return [
                (words + place * _WORD_NBYTES, offset) for n, places in of if n == number for place, offset in places
            ]

        error = words + (len(instance.words) - 1) * _WORD_NBYTES
        control = self._program.team.control_address
        jobs = [[instance.address + s.first * _STEP_NBYTES, s.n_steps, control, error] for s in self._segments]
        compiled, inputs = self._compiled, self._program.inputs
        table = entering.table_of(
            jobs[0] if self._begins else [0, 0, control, error],
            [
                (expected, cells(compiled.feeds, inputs.index(name)))
                for name, expected in zip(self._names, self._expected, strict=True)
            ],
            [cells(compiled.results, number) for number in range(len(self._made))],
        )
        every_job = np.array(jobs, np.int64).reshape(-1, JOB_WORDS)
        natives = iter([self._native(instance, *of) for of in zip(self._segments, every_job, strict=True)])
        hosts = iter([] if self._hosts is None else self._hosts.calls(instance))
        steps = [next(hosts if is_host else natives) for is_host in self._order]
        instance.quick = Tables([table, every_job], steps, self._begins)
        return instance.quick


def _placed(memory: Array | None, made: tuple[Any, Any]) -> Array:
    return np.empty(*made) if memory is None else memory


def _segments(compiled: Compiled) -> list[_Segment]:
    calls = [step.call for step in compiled.plan.steps if step.call is not None]
    made = []
    for segment in compiled.segments:
        if segment.host is None:
            own = calls[segment.first : segment.last]
            is_brief = sum(call.work_ns for call in own) < _BRIEF_NS and all(call.key != flow.JUMP for call in own)
            made.append(_Segment(segment.first, segment.last - segment.first, segment.shared, is_brief))
    return made


def quick_run(program: CompiledProgram, compiled: Compiled, given: Mapping[str, Any]) -> QuickRun | None:
    """For a plan whose steps need nothing but the feeds that are given, all of them arrays."""
    if any(program.inputs[number] not in given for number, _ in compiled.feeds):
        return None  # a default
    if not given.keys() <= set(program.inputs):
        return None
    feeds = [
        (name, entering.Expected(given[name].dtype, given[name].shape)) for name in program.inputs if name in given
    ]
    is_native = all(s.host is None for s in compiled.segments) and all(r.tensor for r in compiled.plan.results)
    hosts = None if is_native else host_calls.hosts_of(program, compiled, given)
    return QuickRun(program, compiled, feeds, hosts) if is_native or hosts is not None else None


__all__ = ["QuickRun", "Tables", "quick_run"]
