"""A graph on one GPU, planned for the shapes that it is run with.

A plan's steps are launches of our kernels and work of NVIDIA's libraries, on one stream, over one slab; nodes that
have neither run one at a time over CuPy, or on the CPU (``nodes.py``). Where a plan is nothing but enqueued work, it
becomes one CUDA graph. What a plan can't do (an error of ours, a value of another shape than was learned, data that a
kernel refuses) is done by the nodes alone, or by NumPy kernels, which say what is wrong with it.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from functools import partial
from typing import Any

import numpy as np

from distort.graph.ir import Graph
from distort.graph.types import SparseTensorType
from distort.kernels.compiler.ir import Host, Tensor
from distort.kernels.cuda import copies, feeding, plans
from distort.kernels.cuda.context import Context
from distort.kernels.cuda.libraries import LibraryFailed
from distort.kernels.cuda.memory import is_lent
from distort.kernels.cuda.nodes import Bodies, DeviceNodes, read_on_host
from distort.kernels.cuda.options import CudaOptions
from distort.kernels.cuda.plan import CudaPlan
from distort.kernels.cuda.plans import Key, Plans, obstacles
from distort.kernels.cuda.running import PlanRun, Refused, Surprise, Wanted, copy, fits, is_on_device
from distort.kernels.cuda.workspace import Workspace
from distort.kernels.errors import OutOfMemory
from distort.kernels.program import Cancellation, Paths, Program, Room, RunScope, StepObserver


class CudaProgram:
    """As :class:`distort.kernels.program.Program`, on a GPU. Thread-safe: runs come one after another.

    ``label`` names the graph in errors. Raises MissingKernel for an operator without a kernel, OutOfMemory where the
    GPU has no room.
    """

    def __init__(
        self,
        graph: Graph,
        options: CudaOptions | None = None,
        *,
        outputs: Sequence[str] | None = None,
        captures: Sequence[str] = (),
        context: Context | None = None,
        workspace: Workspace | None = None,
        label: str = "the model",
    ) -> None:
        """``context``: of the program that this one is of. ``workspace``: likewise, where both take turns."""
        self.graph = graph
        #: whether it is a node's: then numbers of its rounds come from the host
        self.is_body = False
        self._label = label
        self.context = context or Context(options or CudaOptions())
        self.options = self.context.options
        own = self.context
        with own.using():
            self.nodes = _nodes_of(own, graph, outputs=outputs, captures=captures)
        self.inputs, self.outputs = self.nodes.inputs, self.nodes.outputs
        self.input_types, self.output_types = self.nodes.input_types, self.nodes.output_types
        self.n_formal_inputs = self.nodes.n_formal_inputs
        self._declared = [feeding.lacking(graph.types.get(name)) for name in self.inputs]
        self._captures = tuple(captures)
        turns = self._workspace = workspace or Workspace(own)
        self.slab = turns.slab
        self._plans = Plans(graph, self.inputs, self.outputs, own, turns.constants)
        # nothing here refers to this program: its memory goes when the last reference to it does
        self._parts = Paths(graph, partial(CudaProgram, context=own, workspace=turns, label=label))
        #: outputs that are weights which the model hands out as sparse tensors
        self._sparse = {
            name: graph.initializers[name]
            for name in self.outputs
            if name in graph.initializers and isinstance(graph.types.get(name), SparseTensorType)
        }
        self._cpu: Program | None = None
        self.bodies = Bodies(graph, self.nodes, partial(_nodes_of, own))
        #: runs that were one launch of a graph
        self.n_graph_runs = 0

    def to(self, outputs: Collection[str]) -> CudaProgram:
        """The program that makes these outputs, in the graph's order, and runs nothing else: on the same stream, in the
        same memory, with the same weights."""
        with self._workspace.turn():
            return self if set(self.outputs) <= set(outputs) else self._parts.to(outputs)

    def _all(self) -> list[CudaProgram]:
        """This program and its parts."""
        return [self, *self._parts.made]

    @property
    def device_id(self) -> int:
        return self.context.device_id

    @functools.cached_property
    def host_inputs(self) -> frozenset[str]:
        """Inputs that only this process reads: they are better left there."""
        return read_on_host(self.graph)

    def weight(self, name: str) -> Any:
        """A value that the model has; None where it has none of this name."""
        return self.graph.initializers.get(name)

    def weights_of(self, host: Host) -> list[Any]:
        """What a node is given that is the same in all plans."""
        tensors = [t for t in host.arguments if isinstance(t, Tensor) and t.value is not None]
        return [tensor.value for tensor in tensors if self._workspace.constants.keeps(tensor)]

    @property
    def stream(self) -> Any:
        """The CuPy stream that runs are on."""
        return self.context.stream

    def synchronize(self) -> None:
        """Wait for all runs."""
        with self._workspace.turn():
            self._workspace.settle()

    def using(self) -> AbstractContextManager[None]:
        """This program's GPU, stream and memory are those that CuPy uses."""
        return self.context.using()

    # -- runs

    def run(
        self,
        feeds: Mapping[str, Any],
        observer: StepObserver | None = None,
        cancellation: Cancellation | None = None,
        room: Room | None = None,
        *,
        graph_id: int = 0,
        synchronize: bool = True,
        into: Mapping[str, Any] | None = None,
        fetches: Collection[str] | None = None,
        home: Collection[str] = (),
    ) -> list[Any]:
        """Feeds are NumPy or CuPy arrays of this GPU, by name. Results in the order of ``outputs``.

        They are CuPy arrays, the caller's own; but what a node made on the CPU, or followed from shapes, is NumPy's.
        ``into``: contiguous CuPy arrays of this GPU, or NumPy arrays, that results of their names are written to, and
        which are then the results; where one has another shape or type than the result, the result is an array of its
        own. ``fetches``: names of the results that are asked for, None for all; others are None. ``home``: names of
        those that are to be arrays of this process, which are waited for.
        ``graph_id``: graphs are captured for each by itself, for -1 none. Without ``synchronize`` results may still
        be in the making, on ``stream``. ``room`` is for compiled programs of a CPU.
        """
        del room
        scope = RunScope(observer, cancellation)
        graphs = False if graph_id == -1 else True if self.options.enable_cuda_graph else None
        wanted = Wanted(into or {}, self.outputs if fetches is None else fetches, home, graphs, graph_id, synchronize)
        values = [feeds.get(name) for name in self.inputs]
        with self._workspace.turn():
            if any(is_on_device(value) and is_lent(value) for value in (*values, *wanted.into.values())):
                self.context.follow_callers()
            try:
                results = self._results(values, scope, wanted)
            except BaseException as error:
                with suppress(RuntimeError):  # the first error says more
                    self._workspace.settle()  # what was enqueued reads feeds that are the caller's again
                if isinstance(error, OutOfMemory):
                    text = f"{error.text} It was {self._label} that ran, {_fed(self.inputs, values)}."
                    raise OutOfMemory(text) from error
                raise
            if synchronize or home:
                self._workspace.settle()
            else:
                self._workspace.hold(values, into)
            return results

    def run_values(self, values: Sequence[Any], scope: RunScope) -> list[Any]:
        """As :meth:`Program.run_values`: for bodies. Results stay on the GPU, and may not be there yet."""
        with self._workspace.turn():
            return self._results(list(values), scope, Wanted({}, self.outputs, (), False))

    def _results(self, values: list[Any], scope: RunScope, wanted: Wanted) -> list[Any]:
        values = [np.asarray(value) if isinstance(value, np.generic) else value for value in values]
        key = tuple([feeding.type_of(kind, value) for kind, value in zip(self._declared, values, strict=True)])
        executable = self._plans.of(key)
        if executable is None:
            return self._into(self._one_by_one(values, scope), wanted)
        plan = executable.plan
        learns = self._plans.learns(key, plan)
        try:
            run = PlanRun(self, executable, values, wanted, notes_branches=learns)
            results, is_graph = run.go(scope)
            self.n_graph_runs += is_graph
        except Surprise as surprise:
            self._plans.forget(key, surprise.name)
            return self._into(self._one_by_one(values, scope), wanted)
        except LibraryFailed as error:  # that it would, nobody could tell before
            if plans.STRICT:
                raise
            self._plans.give_up(key, error)
            return self._into(self._one_by_one(values, scope), wanted)
        except Refused:
            if plan.guessed and not plan.expects:
                self._plans.take_less_for_likely(key, expects=False)
            results = self._on_cpu(values, scope)
            if plan.expects:  # and nothing is wrong with the feeds
                self._plans.take_less_for_likely(key, expects=True)
            return self._into(results, wanted)
        if learns:
            self._plans.learn(key, run.named, run.branches)
        return self._into(results, wanted)

    def _on_cpu(self, values: Sequence[Any], scope: RunScope) -> list[Any]:
        """By NumPy kernels, which check what they are given."""
        if self._cpu is None:
            self._cpu = Program(self.graph, outputs=self.outputs, captures=self._captures)
        given = zip(self._declared, values, strict=True)
        return self._cpu.run_values([feeding.at_home(kind, value) for kind, value in given], scope)

    def _one_by_one(self, values: Sequence[Any], scope: RunScope) -> list[Any]:
        """By nodes alone, which take on the host what a GPU has only the bytes of."""
        given = zip(self._declared, values, strict=True)
        return self.nodes.run_values([feeding.as_nodes_take(kind, value) for kind, value in given], scope)

    def _into(self, results: list[Any], wanted: Wanted) -> list[Any]:
        """Those results that were asked for, with those that were given memory in it."""
        for number, name in enumerate(self.outputs):
            target, value = wanted.into.get(name), results[number]
            if name not in wanted.fetches:
                results[number] = None
            elif name in self._sparse:
                results[number] = self._sparse[name]
            elif target is not None and value is not target and fits(target, value.shape, value.dtype):
                if is_on_device(value) and not is_on_device(target):
                    self.context.copies.count(name, copies.TO_HOST, value.nbytes)
                copy(target, value)
                results[number] = target
        return results

    # -- memory

    def shrink(self) -> None:
        """Give memory that is not in use back to the GPU (``memory.enable_memory_arena_shrinkage``)."""
        with self._workspace.turn():
            self._workspace.settle()
            self.slab.drop()
            for program in self._all():
                for executable in program._plans:
                    executable.settle(-1)
            self.context.pool.shrink()

    def close(self) -> None:
        """Give all memory back to the GPU, but what values of others lie in. A run under way ends before."""
        with self._workspace.turn():
            self._workspace.settle()
            self.slab.drop()
            for program in self._all():
                program._plans.clear()
            self.context.weights.clear()
            self.context.pool.shrink()

    def release_graphs(self, graph_id: int) -> None:
        """Forget the graphs that were captured for a number."""
        with self._workspace.turn():
            self._workspace.settle()  # one may be under way
            for program in self._all():
                for executable in program._plans:
                    executable.release_graphs(graph_id)

    # -- plans

    @property
    def not_captured(self) -> list[str]:
        """Why runs of plans that could be a graph are none."""
        with self._workspace.turn():
            return obstacles(executable for program in self._all() for executable in program._plans)

    @property
    def n_nodes(self) -> int:
        return len(self.graph.nodes)

    @property
    def plans(self) -> list[tuple[Key, CudaPlan]]:
        """By types of feeds, in the order of ``inputs``; the one that was made last comes last, parts' after all."""
        with self._workspace.turn():
            return [row for program in self._all() for row in program._plans.rows()]

    @property
    def refused(self) -> dict[Key, str]:
        """Feeds for which there is no plan, and why."""
        return self._plans.refused

    @property
    def faults(self) -> dict[Key, str]:
        """Of those, what were errors of ours: tracebacks."""
        return self._plans.faults

    @property
    def compile_s(self) -> float:
        """Seconds spent on plans."""
        return sum(program._plans.compile_s for program in self._all())


def _fed(names: Sequence[str], values: Sequence[Any]) -> str:
    """What a run was fed, in words."""
    told = [
        f"{name} {value.dtype.name}{list(value.shape)}"
        for name, value in zip(names, values, strict=True)
        if hasattr(value, "dtype")
    ]
    return f"fed {', '.join(told)}" if told else "fed nothing"


def _nodes_of(
    context: Context, graph: Graph, *, outputs: Sequence[str] | None = None, captures: Sequence[str] = ()
) -> DeviceNodes:
    bodies = partial(_body, context)
    own = (context.pool, context.weights, context.copies)
    return DeviceNodes(graph, *own, outputs=outputs, captures=captures, bodies=bodies)


def _body(context: Context, graph: Graph, *, captures: Sequence[str]) -> CudaProgram:
    """The body of a node, on the same GPU and stream."""
    made = CudaProgram(graph, captures=captures, context=context)
    made.is_body = True
    return made


__all__ = ["CudaProgram"]
