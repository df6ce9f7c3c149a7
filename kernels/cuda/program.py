"""A graph on one GPU, planned for the shapes that it is run with.

A plan's steps are launches of our kernels and work of NVIDIA's libraries, on one stream, over one slab; nodes that
have neither run one at a time over CuPy, or on the CPU (``nodes.py``). Where a plan is nothing but enqueued work, it
becomes one CUDA graph. What a plan can't do (an error of ours, a value of another shape than was learned, data that a
kernel refuses) is done by the nodes alone, or by NumPy kernels, which say what is wrong with it.
"""

from __future__ import annotations

import functools
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from distort.graph.ir import Graph
from distort.kernels.compiler.constants import Constants
from distort.kernels.compiler.ir import Host, Tensor
from distort.kernels.cuda import copies, faults
from distort.kernels.cuda.context import Context
from distort.kernels.cuda.executable import Executable
from distort.kernels.cuda.libraries import LibraryFailed
from distort.kernels.cuda.modules import NotCompiled
from distort.kernels.cuda.nodes import Bodies, DeviceNodes, read_on_host
from distort.kernels.cuda.options import CudaOptions
from distort.kernels.cuda.plan import CudaPlan, plan_of
from distort.kernels.cuda.running import Graphs, PlanRun, Refused, Surprise, copy, fits, is_on_device
from distort.kernels.cuda.slab import Slab
from distort.kernels.cuda.weights import is_held
from distort.kernels.errors import KernelError, OutOfMemory
from distort.kernels.program import Cancellation, Program, Room, RunScope, StepObserver

if TYPE_CHECKING:
    from collections.abc import Iterator

    from distort.kernels.compiler.specialise import FeedType

#: whether an error in making a plan is raised: for tests
STRICT = False
#: plans that are kept, those used last
MOST_PLANS = 64
Key = tuple["FeedType", ...]


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
        label: str = "the model",
    ) -> None:
        self.graph = graph
        #: whether it is a node's: then numbers of its rounds come from the host
        self.is_body = False
        self._label = label
        self.context = context or Context(options or CudaOptions())
        self.options = self.context.options
        own = self.context
        with self.using():
            self.nodes = _nodes_of(own, graph, outputs=outputs, captures=captures)
        self.inputs, self.outputs = self.nodes.inputs, self.nodes.outputs
        self.input_types, self.output_types = self.nodes.input_types, self.nodes.output_types
        self.n_formal_inputs = self.nodes.n_formal_inputs
        self._captures = tuple(captures)
        self._constants = Constants()
        self._lock = threading.RLock()
        self._plans: OrderedDict[Key, Executable] = OrderedDict()
        self._learned: dict[Key, dict[str, tuple[np.dtype[Any], tuple[int, ...]]]] = {}
        self._branches: dict[Key, dict[str, bool]] = {}
        self._volatile: set[str] = set()
        self._cautious: set[Key] = set()
        self._unsteady: set[Key] = set()
        #: feeds for which there is no plan, and why; of errors of ours in making one, tracebacks
        self.refused: dict[Key, str] = {}
        self.faults: dict[Key, str] = {}
        self.slab = Slab(own.pool)
        #: what runs under way use, each with an event that says when it is done
        self._held: deque[tuple[Any, tuple[Any, ...]]] = deque()
        self._cpu: Program | None = None
        self.bodies = Bodies(graph, self.nodes, partial(_nodes_of, own))
        #: seconds spent on plans
        self.compile_s = 0.0
        #: runs that were one launch of a graph
        self.n_graph_runs = 0

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
        return [tensor.value for tensor in tensors if self._constants.keeps(tensor)]

    @property
    def stream(self) -> Any:
        """The CuPy stream that runs are on."""
        return self.context.stream

    def synchronize(self) -> None:
        """Wait for all runs."""
        with self._lock, self.using():
            self._settle()

    def _settle(self) -> None:
        """As :meth:`synchronize`, where the GPU is current already."""
        self.context.stream.synchronize()
        self._held.clear()

    @contextmanager
    def using(self) -> Iterator[None]:
        """This program's GPU, stream and memory are those that CuPy uses."""
        with self.context.pool.used(), self.context.stream:
            yield

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
    ) -> list[Any]:
        """Feeds are NumPy or CuPy arrays of this GPU, by name. Results in the order of ``outputs``.

        They are CuPy arrays, the caller's own; but what a node made on the CPU, or followed from shapes, is NumPy's.
        ``into``: contiguous CuPy arrays of this GPU, that results of their names are written to, and which are then
        the results; where one has another shape or type than the result, the result is an array of its own.
        ``graph_id``: graphs are captured for each by itself, for -1 none. Without ``synchronize`` results may still
        be in the making, on ``stream``. ``room`` is for compiled programs of a CPU.
        """
        del room
        scope = RunScope(observer, cancellation)
        wanted = False if graph_id == -1 else True if self.options.enable_cuda_graph else None
        values = [feeds.get(name) for name in self.inputs]
        with self._lock, self.using():
            try:
                results = self._results(values, scope, into or {}, Graphs(wanted, graph_id, synchronize))
            except BaseException as error:
                with suppress(RuntimeError):  # the first error says more
                    self._settle()  # what was enqueued reads feeds that are the caller's again
                if isinstance(error, OutOfMemory):
                    text = f"{error.text} It was {self._label} that ran, {_fed(self.inputs, values)}."
                    raise OutOfMemory(text) from error
                raise
            if synchronize:
                self._settle()
            else:
                self._hold(values, into)
            return results

    def _hold(self, *what: Any) -> None:
        """Keep what a run that nobody waits for reads and writes: its memory may be other values' otherwise."""
        import cupy

        while self._held and self._held[0][0].done:
            self._held.popleft()
        done = cupy.cuda.Event(disable_timing=True)
        self.context.stream.record(done)
        self._held.append((done, what))

    def run_values(self, values: Sequence[Any], scope: RunScope) -> list[Any]:
        """As :meth:`Program.run_values`: for bodies. Results stay on the GPU, and may not be there yet."""
        with self._lock, self.using():
            return self._results(list(values), scope, {}, Graphs(False, 0))

    def _results(self, values: list[Any], scope: RunScope, into: Mapping[str, Any], graphs: Graphs) -> list[Any]:
        values = [np.asarray(value) if isinstance(value, np.generic) else value for value in values]
        key = tuple([_type_of(value) for value in values])
        executable = self._executable(key)
        if executable is None:
            return self._into(self.nodes.run_values(values, scope), into)
        learns = bool(executable.plan.unknown) and key not in self._learned
        try:
            run = PlanRun(self, executable, values, into, graphs, notes_branches=learns)
            results, is_graph = run.go(scope)
            self.n_graph_runs += is_graph
        except Surprise as surprise:
            self._volatile.add(surprise.name)
            self._learned.pop(key, None)
            self._plans.pop(key, None)
            return self._into(self.nodes.run_values(values, scope), into)
        except LibraryFailed as error:  # that it would, nobody could tell before
            if STRICT:
                raise
            self._give_up(key, error)
            return self._into(self.nodes.run_values(values, scope), into)
        except Refused:
            plan = executable.plan
            if plan.guessed and not plan.expects:
                self._cautious.add(key)
                self._plans.pop(key, None)
            results = self._on_cpu(values, scope)
            if plan.expects:  # and nothing is wrong with the feeds
                self._unsteady.add(key)
                self._plans.pop(key, None)
            return self._into(results, into)
        if learns:
            self._branches[key] = run.branches
            self._learn(key, run.named)
        return self._into(results, into)

    def _on_cpu(self, values: Sequence[Any], scope: RunScope) -> list[Any]:
        """By NumPy kernels, which check what they are given."""
        if self._cpu is None:
            self._cpu = Program(self.graph, outputs=self.outputs, captures=self._captures)
        return self._cpu.run_values([self._on_host(value) for value in values], scope)

    def _on_host(self, value: Any) -> Any:
        return copies.to_host([value], [value.dtype])[0] if is_on_device(value) else value

    def _into(self, results: list[Any], into: Mapping[str, Any]) -> list[Any]:
        """Results with those that were given memory in it."""
        for number, name in enumerate(self.outputs):
            target, value = into.get(name), results[number]
            if target is not None and value is not target and fits(target, value.shape, value.dtype):
                copy(target, value)
                results[number] = target
        return results

    # -- memory

    def shrink(self) -> None:
        """Give memory that is not in use back to the GPU (``memory.enable_memory_arena_shrinkage``)."""
        with self._lock, self.using():
            self.context.stream.synchronize()
            self.slab.drop()
            for executable in self._plans.values():
                executable.settle(-1)
            self.context.pool.shrink()

    def release_graphs(self, graph_id: int) -> None:
        """Forget the graphs that were captured for a number."""
        with self._lock, self.using():
            self.context.stream.synchronize()  # one may be under way
            for executable in self._plans.values():
                executable.release_graphs(graph_id)

    # -- plans

    @property
    def not_captured(self) -> list[str]:
        """Why runs of plans that could be a graph are none."""
        with self._lock:
            return list(dict.fromkeys(e.obstacle for e in self._plans.values() if e.obstacle))

    @property
    def n_nodes(self) -> int:
        return len(self.graph.nodes)

    @property
    def plans(self) -> list[tuple[Key, CudaPlan]]:
        """By types of feeds, in the order of ``inputs``; the one that was made last comes last."""
        with self._lock:
            return [(key, executable.plan) for key, executable in self._plans.items()]

    def _executable(self, key: Key) -> Executable | None:
        """The plan for feeds; None where there is an error of ours in making it."""
        found = self._plans.get(key)
        if found is not None:
            self._plans.move_to_end(key)
            return found
        if key in self.refused:
            return None
        for name, kind in zip(self.inputs, key, strict=True):
            if kind is not None and kind[0].kind not in "OUST" and not is_held(kind[0]):
                # nodes take it by themselves: as bytes in the slab it would be another dtype to them
                self.refused[key] = f"the feed '{name}' is {kind[0]}, of which a GPU has no arrays"
                return None
        began = time.perf_counter()
        try:
            plan = plan_of(
                self.graph,
                self.outputs,
                self.inputs,
                key,
                self.context,
                self._constants,
                self._learned.get(key, {}),
                key in self._cautious,
                key not in self._unsteady,
                self._branches.get(key),
            )
            found = Executable(plan, self.context)
        except Exception as error:
            if STRICT or (isinstance(error, KernelError) and not isinstance(error, NotCompiled)):
                raise
            self._give_up(key, error)
            return None
        self._plans[key] = found
        while len(self._plans) > MOST_PLANS:
            self._plans.popitem(last=False)
        self.compile_s += time.perf_counter() - began
        return found

    def _give_up(self, key: Key, error: Exception) -> None:
        """There is no plan for these feeds: nodes run one at a time, and ``explain`` says why."""
        self.refused[key], self.faults[key] = faults.told(error), faults.whole(error)
        self._plans.pop(key, None)

    def _learn(self, key: Key, named: Mapping[str, Any]) -> None:
        """Take note of shapes that nobody could tell: the next run has a plan that goes by them."""
        found = {
            name: (np.dtype(value.dtype), tuple(value.shape))
            for name, value in named.items()
            if name not in self._volatile and hasattr(value, "shape") and is_held(np.dtype(value.dtype))
        }
        self._learned[key] = found
        if found:
            self._plans.pop(key, None)


def _type_of(value: Any) -> FeedType:
    return (np.dtype(value.dtype), tuple(value.shape)) if hasattr(value, "dtype") and hasattr(value, "shape") else None


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
