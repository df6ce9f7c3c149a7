"""A graph compiled for the shapes that it is run with: native segments with NumPy kernels between them.

For each set of feed shapes there is a plan with its kernels; what a run needs besides (an arena, the steps' words) is
an instance, of which there are as many as runs at the same time. Where a value turns out to have another shape than
was learned from earlier runs, the run is done again by the plain program.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from distort.graph.collecting import uncollected
from distort.graph.ir import Graph
from distort.kernels import dumping
from distort.kernels.compiler import arrays
from distort.kernels.compiler.addresses import address_of
from distort.kernels.compiler.ahead import Likely, Note, likely_feeds
from distort.kernels.compiler.codegen import drive
from distort.kernels.compiler.constants import Constants, Share
from distort.kernels.compiler.executable import Compiled, Instance, assemble
from distort.kernels.compiler.expression import STORED, name_of
from distort.kernels.compiler.hosting import HostKernels, Surprise
from distort.kernels.compiler.ir import Array, Place
from distort.kernels.compiler.library import Library, shared
from distort.kernels.compiler.quick import QuickRun, quick_run
from distort.kernels.compiler.specialise import FeedType, Plan, Step, specialise
from distort.kernels.compiler.team import DEFAULT_SPINS, Team
from distort.kernels.errors import KernelError, RunCancelled
from distort.kernels.program import TERMINATED, Cancellation, Program, Room, RunScope, StepObserver

#: whether an error in making a plan is raised: for tests of the compiler
STRICT = False
_RANDOM = frozenset(
    ("Bernoulli", "Dropout", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike")
)
_PLAN_NUMBERS = itertools.count()
#: plans that are kept, those used last; and how large they are together, but for a few
MOST_PLANS, MOST_PLANS_NBYTES, LEAST_PLANS = 1024, 1 << 26, 16
#: of a kept plan's step with its operation, about
_STEP_NBYTES = 2500
#: kinds of feeds that are planned for by themselves; plans of others use the same kernels where they can
OWN_PLANS = 3
#: weights of fewer bytes are packed by the first run, if nobody knows its shapes
PACKED_AHEAD_NBYTES = 1 << 24
#: arenas of no more bytes are a plan's own
OWN_ARENA_NBYTES = 1 << 18
#: kinds of feeds for which shapes differ from run to run, before they are taken to do so for all others too
MOST_UNSTEADY = 4
#: of a body that is no part of a plan: rounds of a run with values of the same shapes before one is compiled
BODY_PLAIN_RUNS = 2


class _Refused(Exception):
    """A kernel was given what it can't take."""


class CompiledProgram:
    """As :class:`distort.kernels.program.Program`, compiled. ``n_threads`` take part in steps that are large enough.

    In each run, the first ``plain_runs`` times with feeds of a type are by plain kernels: for bodies, whose shapes may
    change from round to round.
    """

    def __init__(
        self,
        graph: Graph,
        *,
        outputs: Sequence[str] | None = None,
        n_threads: int = 1,
        spins: int = DEFAULT_SPINS,
        plain_runs: int = 0,
        library: Library | None = None,
        precision: str = "float32",
        keep_qdq: bool = False,
        team: Team | None = None,
        captures: Sequence[str] = (),
        share: Share | None = None,
    ) -> None:
        self.plain = Program(graph, outputs=outputs, captures=captures)
        self._precision, self._keep_qdq = precision, keep_qdq
        self.inputs, self.outputs = self.plain.inputs, self.plain.outputs
        self.input_types, self.output_types = self.plain.input_types, self.plain.output_types
        self.n_formal_inputs = self.plain.n_formal_inputs
        #: captures whose values the graph has
        self._known = [i for i, name in enumerate(self.inputs) if name in captures and name in graph.initializers]
        self._graph = graph
        self._library = library
        self.team = team or Team(n_threads, spins)
        self._compiled: OrderedDict[tuple[FeedType, ...], Compiled] = OrderedDict()
        self._constants = Constants(share)
        for weight in graph.initializers.values():
            if isinstance(weight, np.ndarray):
                self._constants.files.enter(weight)
        self._learned: dict[tuple[FeedType, ...], dict[str, tuple[np.dtype[Any], tuple[int, ...]]]] = {}
        self._volatile: set[str] = set()
        #: feeds for which there is no plan, and why
        self.refused: dict[tuple[FeedType, ...], str] = {}
        #: whether a run draws random numbers, which doing it again would use up
        self._draws = any(node.op_type in _RANDOM for node in graph.nodes)
        #: feeds for which what was taken for likely was not so
        self._cautious: set[tuple[FeedType, ...]] = set()
        #: feeds for which shapes differ from run to run
        self._unsteady: set[tuple[FeedType, ...]] = set()
        #: feeds that came first
        self._first_kinds: set[tuple[FeedType, ...]] = set()
        self._lock = threading.Lock()
        self._plain_runs = plain_runs
        self.hosts = HostKernels(graph, self.plain, partial(_body, graph, library, precision, keep_qdq, self.team))
        #: seconds spent on plans, kernels included
        self.compile_s = 0.0

    def run(
        self,
        feeds: Mapping[str, Any],
        observer: StepObserver | None = None,
        cancellation: Cancellation | None = None,
        room: Room | None = None,
    ) -> list[Any]:
        """As :meth:`Program.run`. An observer is told of operations: several nodes where those are fused.

        Results are made in the memory that ``room`` gives for their names, shapes and types, where it gives some.
        """
        return self._run_values([feeds.get(name) for name in self.inputs], RunScope(observer, cancellation), room)

    def run_values(self, given: Sequence[Any], scope: RunScope) -> list[Any]:
        """As :meth:`Program.run_values`."""
        return self._run_values(given, scope, None)

    def _run_values(self, given: Sequence[Any], scope: RunScope, room: Room | None) -> list[Any]:
        values = [np.asarray(v) if isinstance(v, np.generic) else v for v in given]
        for number in self._known:
            values[number] = None
        key = tuple((v.dtype, v.shape) if isinstance(v, np.ndarray) else None for v in values)
        if self._plain_runs and scope.count(self, key) <= self._plain_runs:
            return self._run_plain(values, scope)
        compiled = self._compiled.get(key)
        if compiled is None:
            found = None if key in self.refused else self._try_to_compile(key)
            if found is None:
                return self._run_plain(values, scope)
            compiled = found
        elif len(self._compiled) > LEAST_PLANS:
            with contextlib.suppress(KeyError):  # another run may have dropped it
                self._compiled.move_to_end(key)
        learns = bool(compiled.plan.unknown) and key not in self._learned
        try:
            results = self._run(compiled, key, values, scope, room)
            if learns and self._learned[key] and scope.observer is None and not self._draws:
                # again, as all later runs do it: they give the same bits
                return self.run_values(given, scope)
            return results
        except Surprise as surprise:
            with self._lock:
                self._volatile.add(surprise.name)
                self._learned.pop(key, None)
                self._compiled.pop(key, None)
            return self._run_plain(values, scope)
        except _Refused:
            if compiled.plan.guessed and not compiled.plan.expects:
                self._renounce(key, self._cautious)
            results = self._run_plain(values, scope)
            if compiled.plan.expects:  # and nothing is wrong with the feeds
                self._renounce(key, self._unsteady)
            return results

    def _renounce(self, key: tuple[FeedType, ...], of: set[tuple[FeedType, ...]]) -> None:
        """Let the next plan for such feeds take less for likely."""
        with self._lock:
            of.add(key)
            self._compiled.pop(key, None)

    def _try_to_compile(self, key: tuple[FeedType, ...]) -> Compiled | None:
        """The plan; None where there is an error of ours in making it: then NumPy kernels do the work, and say so."""
        try:
            return self._compile(key)
        except KernelError:
            raise
        except Exception as error:
            if STRICT:
                raise
            self.refused[key] = f"{type(error).__name__}: {error}"
            return None

    def _run_plain(self, values: Sequence[Any], scope: RunScope) -> list[Any]:
        self._constants.files.check()
        return self.plain.run_values(values, scope)

    def quick(self, feeds: Mapping[str, Array]) -> QuickRun | None:
        """How to run again with feeds of the same types, where there is a plan that stays, and does the same again."""
        values = [feeds.get(name) for name in self.inputs]
        key = tuple((v.dtype, v.shape) if isinstance(v, np.ndarray) else None for v in values)
        compiled = self._compiled.get(key)
        if compiled is None or self._draws or (compiled.plan.unknown and key not in self._learned):
            return None
        return quick_run(self, compiled, feeds)

    # -- compilation

    @property
    def n_nodes(self) -> int:
        return len(self._graph.nodes)

    @property
    def plans(self) -> list[tuple[tuple[FeedType, ...], Plan]]:
        """By types of feeds, in the order of ``inputs``; the one that was made last comes last."""
        with self._lock:
            return [(key, compiled.plan) for key, compiled in self._compiled.items()]

    def prepare(self, feeds: Sequence[FeedType]) -> Plan:
        """Compile for feeds of these types, in the order of ``inputs``."""
        key = tuple(feeds)
        compiled = self._compiled.get(key) or self._compile(key)
        return compiled.plan

    def _compile(self, key: tuple[FeedType, ...]) -> Compiled:
        with self._lock:
            compiled = self._compiled.get(key)
            if compiled is not None:
                return compiled
            began = time.perf_counter()
            library = self._own_library()
            self._constants.files.check()
            with uncollected():
                plan = self._plan(key, library)
                compiled = assemble(plan, library, self._constants.files)
                if (folder := dumping.folder()) is not None:
                    from distort.kernels.compiler import dump

                    name = f"{self._graph.name or 'graph'}-{os.getpid()}-{next(_PLAN_NUMBERS)}"
                    dump.dump(folder, plan, library.target, name)
                for step in plan.steps:
                    if step.call is not None:
                        step.call.words = []  # they are in an array now
            self._constants.files.give_back()
            self._keep(key, compiled)
            self.compile_s += time.perf_counter() - began
            return compiled

    def _own_library(self) -> Library:
        """The one that was given, or the process's, which is made when the first program needs it."""
        self._library = self._library or shared()
        return self._library

    def _keep(self, key: tuple[FeedType, ...], compiled: Compiled) -> None:
        """In place of plans that were used longest ago, where it would be too many, or too large ones."""
        self._compiled[key] = compiled
        nbytes = sum(map(self._nbytes, self._compiled.values()))
        while len(self._compiled) > LEAST_PLANS and (len(self._compiled) > MOST_PLANS or nbytes > MOST_PLANS_NBYTES):
            _, dropped = self._compiled.popitem(last=False)
            nbytes -= self._nbytes(dropped)

    @staticmethod
    def _nbytes(compiled: Compiled) -> int:
        """What keeping a plan takes, about, with an instance of it."""
        arena = compiled.plan.arena_nbytes
        own = arena if arena <= OWN_ARENA_NBYTES else 0
        return own + 2 * compiled.words.nbytes + _STEP_NBYTES * len(compiled.plan.steps)

    def prepare_ahead(self) -> None:
        """Before the first run: compile, where the graph says what it will be fed.

        Where it leaves the number of samples open, only what makes a first run slow: kernels that are not on disk, and
        weights that take long to pack. Where it says less, these weights.
        """
        likely = likely_feeds(self._graph, self.inputs) if not self._plain_runs else None
        if likely is None:
            return
        weights = [w for w in self._graph.initializers.values() if isinstance(w, np.ndarray)]
        is_small = sum(w.nbytes for w in weights) < PACKED_AHEAD_NBYTES
        if likely.is_exact or (likely.is_close and not is_small):
            self._try_to_compile(tuple(likely.feeds))
            return
        if likely.is_close:
            library = self._own_library()
            note = Note(self._graph, likely, library.target, self.team.n_threads, self._precision, self._keep_qdq)
            if not note.is_there() and self._try_to_compile(tuple(likely.feeds)) is not None:
                note.keep()
            return
        if is_small:
            return
        try:
            self._pack_ahead(likely)
        except Exception:
            if STRICT:
                raise  # else the first run meets it again, and goes on without

    def _pack_ahead(self, likely: Likely) -> None:
        with self._lock, uncollected():
            library = self._own_library()
            plan = self._plan(tuple(likely.feeds), library)  # packs weights
            for operation in plan.operations:
                for tensor in operation.inputs:
                    if tensor.buffer.place is Place.CONSTANT:
                        self._constants.files.resident(tensor.buffer)
            self._constants.files.give_back()

    def _plan(self, key: tuple[FeedType, ...], library: Library) -> Plan:
        return specialise(
            self._graph,
            self.outputs,
            self.inputs,
            key,
            library.target,
            self.team.n_threads,
            self._constants,
            self._learned.get(key, {}),
            self._precision,
            key in self._cautious,
            key not in self._unsteady and len(self._unsteady) < MOST_UNSTEADY and not self._draws,
            self._is_one_of_many(key),
            self._keep_qdq,
        )

    def _is_one_of_many(self, key: tuple[FeedType, ...]) -> bool:
        """Whether runs have so many shapes that plans should be alike. The first few are the best for their own."""
        if key in self._first_kinds:
            return False
        if len(self._first_kinds) < OWN_PLANS:
            self._first_kinds.add(key)
            return False
        return True

    def memory(self, nbytes: int) -> Array:
        """For an arena: that of an idle instance, of whatever plan. So plans share one, as large as any needs.

        A small one is made: whoever runs two plans in turn would else make an instance each time.
        """
        if nbytes <= OWN_ARENA_NBYTES:
            return np.empty(nbytes, np.uint8)
        idle: list[Instance] = []
        if self._lock.acquire(blocking=False):
            try:
                for other in self._compiled.values():
                    with contextlib.suppress(IndexError):
                        idle.append(other.free.pop())
            finally:
                self._lock.release()
        largest = max((instance.memory for instance in idle), key=len, default=None)
        return largest if largest is not None and len(largest) >= nbytes else np.empty(nbytes, np.uint8)

    # -- running

    def _run(
        self,
        compiled: Compiled,
        key: tuple[FeedType, ...],
        values: Sequence[Any],
        scope: RunScope,
        room: Room | None,
    ) -> list[Any]:
        instance = compiled.take(self.memory)
        try:
            results, named = self._go(compiled, instance, values, scope, room)
        finally:
            compiled.free.append(instance)
        if compiled.plan.unknown and key not in self._learned:
            self._learn(key, named)
        return results

    def _go(
        self, compiled: Compiled, instance: Instance, values: Sequence[Any], scope: RunScope, room: Room | None
    ) -> tuple[list[Any], dict[str, Any]]:
        given: list[Any] = list(values)
        cells = instance.cells
        for number, places in compiled.feeds:
            array = given[number]
            if not array.flags.c_contiguous:
                array = given[number] = np.ascontiguousarray(array).reshape(array.shape)
            address = address_of(array)
            for place, offset in places:
                cells[place] = address + offset
        results: list[Any] = []
        for name, result in zip(self.outputs, compiled.plan.results, strict=True):
            tensor = result.tensor
            memory = room(name, tensor.shape, tensor.dtype) if room is not None and tensor is not None else None
            results.append(np.empty(tensor.shape, tensor.dtype) if memory is None and tensor is not None else memory)
        for number, places in compiled.results:
            address = address_of(results[number])
            for place, offset in places:
                cells[place] = address + offset
        named: dict[str, Any] = {}
        observer = scope.observer
        trace = np.zeros((len(instance.steps), drive.TRACE_WORDS), np.int64) if observer is not None else None
        cancellation, checked = scope.cancellation, len(compiled.of_error) > 0
        cancel = 0 if cancellation is None else cancellation.address
        for segment in compiled.segments:
            if cancellation is not None and cancellation.requested:
                raise RunCancelled(TERMINATED)
            if segment.host is not None:
                self.hosts.run(segment, instance, given, results, named, scope)
                continue
            address = instance.address + segment.first * drive.STEP_WORDS * 8
            run = self.team.run if segment.shared else self.team.run_alone
            if observer is None or trace is None:
                run(address, segment.last - segment.first, 0, cancel)
            else:
                from distort.kernels.compiler import tracing

                rows = trace[segment.first : segment.last]
                begin_ns = time.time_ns()
                run(address, segment.last - segment.first, rows.ctypes.data, cancel)
                end_ns = time.time_ns()
                made = compiled.operations[segment.first : segment.last]
                find = partial(arrays.find, instance.memory, instance.base, given, results)
                tracing.tell(observer, made, rows, begin_ns, end_ns, tracing.nodes_of(self._graph), find)
            if checked and cells[-1]:
                cells[-1] = 0
                raise _Refused
        if cancellation is not None and cancellation.requested:
            raise RunCancelled(TERMINATED)  # the results are not complete
        for i, result in enumerate(compiled.plan.results):
            if result.value is not None:
                results[i] = result.value.copy()
            elif result.name:
                results[i] = self.hosts.named(result.name, given, named)
        return results, named

    def _learn(self, key: tuple[FeedType, ...], named: Mapping[str, Any]) -> None:
        """Take note of shapes that nobody could tell: the next run has a plan that goes by them."""
        found = {
            name: (np.asarray(value).dtype, np.asarray(value).shape)
            for name, value in named.items()
            if name not in self._volatile
            and isinstance(value, (np.ndarray, np.generic))
            and name_of(value.dtype) in STORED
        }
        with self._lock:
            self._learned[key] = found
            if found:
                self._compiled.pop(key, None)


def _body(
    around: Graph,
    library: Library | None,
    precision: str,
    keep_qdq: bool,
    team: Team,
    graph: Graph,
    *,
    captures: Sequence[str],
) -> CompiledProgram:
    """The body of a node that is not part of the plan, with the weights around it as its own."""
    known = {name: around.initializers[name] for name in captures if name in around.initializers}
    return CompiledProgram(
        replace(graph, initializers=graph.initializers | known),
        captures=captures,
        plain_runs=BODY_PLAIN_RUNS,
        library=library,
        precision=precision,
        keep_qdq=keep_qdq,
        team=team,
    )


__all__ = ["CompiledProgram", "Step"]
