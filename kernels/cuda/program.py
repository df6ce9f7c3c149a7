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
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from distort.graph.ir import Graph
from distort.kernels.compiler.constants import Constants
from distort.kernels.compiler.ir import Host, Place, Tensor
from distort.kernels.cuda import copies
from distort.kernels.cuda.context import Context
from distort.kernels.cuda.executable import Executable
from distort.kernels.cuda.memory import device_dtype
from distort.kernels.cuda.nodes import DeviceNodes, read_on_host
from distort.kernels.cuda.options import CudaOptions
from distort.kernels.cuda.plan import ALIGNMENT_NBYTES, CudaPlan, plan_of
from distort.kernels.cuda.weights import is_held
from distort.kernels.errors import KernelError, RunCancelled
from distort.kernels.program import TERMINATED, Cancellation, Program, Room, RunScope, StepObserver

if TYPE_CHECKING:
    from collections.abc import Iterator

    from distort.kernels.compiler.specialise import FeedType

#: whether an error in making a plan is raised: for tests
STRICT = False
#: plans that are kept, those used last
MOST_PLANS = 64
Key = tuple["FeedType", ...]


class _Refused(Exception):
    """A kernel was given what it can't take."""


class _Graphs(NamedTuple):
    """Whether a run may be a graph, see :meth:`Executable.launch`, and of which it is one."""

    wanted: bool | None
    number: int


class _Surprise(Exception):
    """A value has another shape than was learned."""

    def __init__(self, name: str) -> None:
        self.name = name


class CudaProgram:
    """As :class:`distort.kernels.program.Program`, on a GPU. Thread-safe: runs come one after another.

    Raises MissingKernel for an operator without a kernel, OutOfMemory where the GPU has no room.
    """

    def __init__(
        self,
        graph: Graph,
        options: CudaOptions | None = None,
        *,
        outputs: Sequence[str] | None = None,
        captures: Sequence[str] = (),
        context: Context | None = None,
    ) -> None:
        self._graph = graph
        #: whether it is a node's: then numbers of its rounds come from the host
        self.is_body = False
        self.context = context or Context(options or CudaOptions())
        self.options = self.context.options
        own = self.context
        with self.using():
            self.nodes = DeviceNodes(
                graph,
                own.pool,
                own.weights,
                own.copies,
                outputs=outputs,
                captures=captures,
                bodies=partial(_body, own),
            )
        self.inputs, self.outputs = self.nodes.inputs, self.nodes.outputs
        self.input_types, self.output_types = self.nodes.input_types, self.nodes.output_types
        self.n_formal_inputs = self.nodes.n_formal_inputs
        self._captures = tuple(captures)
        self._constants = Constants()
        self._lock = threading.RLock()
        self._plans: OrderedDict[Key, Executable] = OrderedDict()
        self._learned: dict[Key, dict[str, tuple[np.dtype[Any], tuple[int, ...]]]] = {}
        self._volatile: set[str] = set()
        self._cautious: set[Key] = set()
        self._unsteady: set[Key] = set()
        #: feeds for which there is no plan, and why
        self.refused: dict[Key, str] = {}
        self._slab: Any = None
        #: what runs under way use, each with an event that says when it is done
        self._held: deque[tuple[Any, tuple[Any, ...]]] = deque()
        self._cpu: Program | None = None
        self._alone: dict[int, DeviceNodes] = {}
        self._number_of = {id(n): i for i, n in enumerate(graph.nodes) if not any(True for _ in n.subgraphs())}
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
        return read_on_host(self._graph)

    @property
    def stream(self) -> Any:
        """The CuPy stream that runs are on."""
        return self.context.stream

    def synchronize(self) -> None:
        """Wait for all runs."""
        with self._lock, self.using():
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
            results = self._results(values, scope, into or {}, _Graphs(wanted, graph_id))
            if synchronize:
                self.synchronize()
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
            return self._results(list(values), scope, {}, _Graphs(False, 0))

    def _results(self, values: list[Any], scope: RunScope, into: Mapping[str, Any], graphs: _Graphs) -> list[Any]:
        values = [np.asarray(value) if isinstance(value, np.generic) else value for value in values]
        key = tuple([_type_of(value) for value in values])
        executable = self._executable(key)
        if executable is None:
            return self._into(self.nodes.run_values(values, scope), into)
        learns = bool(executable.plan.unknown) and key not in self._learned
        try:
            results, named = self._go(executable, values, scope, into, graphs)
        except _Surprise as surprise:
            self._volatile.add(surprise.name)
            self._learned.pop(key, None)
            self._plans.pop(key, None)
            return self._into(self.nodes.run_values(values, scope), into)
        except _Refused:
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
            self._learn(key, named)
        return results

    def _on_cpu(self, values: Sequence[Any], scope: RunScope) -> list[Any]:
        """By NumPy kernels, which check what they are given."""
        if self._cpu is None:
            self._cpu = Program(self._graph, outputs=self.outputs, captures=self._captures)
        return self._cpu.run_values([self._on_host(value) for value in values], scope)

    def _on_host(self, value: Any) -> Any:
        return copies.to_host([value], [value.dtype])[0] if _is_on_device(value) else value

    def _into(self, results: list[Any], into: Mapping[str, Any]) -> list[Any]:
        """Results with those that were given memory in it."""
        for number, name in enumerate(self.outputs):
            target, value = into.get(name), results[number]
            if target is not None and value is not target and _fits(target, value.shape, value.dtype):
                _copy(target, value)
                results[number] = target
        return results

    # -- one run by a plan

    def _go(
        self,
        executable: Executable,
        values: list[Any],
        scope: RunScope,
        into: Mapping[str, Any],
        graphs: _Graphs,
    ) -> tuple[list[Any], dict[str, Any]]:
        import cupy

        plan = executable.plan
        base = self._settle(executable)
        given = values.copy()
        for number, offset in plan.feed_offsets.items():
            stays = isinstance(given[number], np.ndarray) and (
                self.inputs[number] in self.host_inputs or number not in plan.used_feeds
            )
            if number in plan.gpu_feeds or not stays:
                given[number] = self._fed(number, given[number], base + offset)
        feeds = [value.data.ptr if _is_on_device(value) and value.size else 0 for value in given]
        if scope.cancellation is not None and scope.cancellation.requested:
            raise RunCancelled(TERMINATED)
        eager = scope.observer is not None or not plan.is_capturable
        made: list[Any] = []
        for number, (name, result) in enumerate(zip(self.outputs, plan.results, strict=True)):
            tensor = result.tensor
            if tensor is None:
                made.append(None)
            elif name in into and _is_place_of(into[name], tensor):
                made.append(into[name])
            elif eager or graphs.wanted is False:
                made.append(cupy.empty(tensor.shape, tensor.dtype))
            else:
                made.append(self._array(base + plan.result_offsets[number], tensor))
        results = [0 if array is None or not array.size else array.data.ptr for array in made]
        named: dict[str, Any] = {}
        if eager:
            self._step_by_step(executable, given, feeds, results, named, scope)
        else:
            self.n_graph_runs += executable.launch(feeds, results, graphs.wanted, graphs.number)
        if executable.checks and self._error(executable):
            raise _Refused
        return self._made(plan, made, named, given, into), named

    def _made(
        self,
        plan: CudaPlan,
        made: list[Any],
        named: Mapping[str, Any],
        given: Sequence[Any],
        into: Mapping[str, Any],
    ) -> list[Any]:
        """What the caller gets: nothing of it lies in the slab any more, once it is handed out."""
        found: list[Any] = []
        for name, result, array in zip(self.outputs, plan.results, made, strict=True):
            if result.name:
                array = self._named(result.name, given, named)
            elif result.value is not None:
                array = result.value.copy()
            elif array is not into.get(name) and self._is_in_slab(array):
                array = array.copy()
            found.append(array)
        return self._into(found, into)

    def _fed(self, number: int, value: Any, address: int) -> Any:
        """A feed as kernels read it: on this GPU, contiguous and aligned; in the slab where it wasn't so."""
        if value is None:
            return None
        if _is_on_device(value):
            self._check_device(self.inputs[number], value)
            if value.flags.c_contiguous and value.data.ptr % ALIGNMENT_NBYTES == 0:
                return value
        place = self._array_at(address, value.shape, value.dtype)
        if _is_on_device(value):
            place[...] = value
        elif isinstance(value, np.ndarray) and value is self._graph.initializers.get(self.inputs[number]):
            return self.context.weights.of(value)
        elif self.is_body and value.size == 1 and value.dtype.kind in "biuf":
            place.fill(value.item())  # the number of a round, as an argument of a kernel: nobody waits
        else:
            self.context.copies.count(self.inputs[number], copies.TO_DEVICE, value.nbytes)
            copies.write(place, value, self.context.stream)
        return place

    def _check_device(self, name: str, value: Any) -> None:
        if value.device.id != self.context.device_id:
            raise KernelError(
                f"The feed '{name}' lies on cuda:{value.device.id}, and the session runs on cuda:"
                f"{self.context.device_id}. Copy it there, or open the session with device_id={value.device.id}."
            )

    def _step_by_step(
        self,
        executable: Executable,
        given: Sequence[Any],
        feeds: Sequence[int],
        results: Sequence[int],
        named: dict[str, Any],
        scope: RunScope,
    ) -> None:
        if executable.checks:
            executable.clear_error()
        for number, step in enumerate(executable.plan.steps):
            if scope.cancellation is not None and scope.cancellation.requested:
                raise RunCancelled(TERMINATED)
            begin_ns = time.time_ns() if scope.observer else 0
            if step.host is not None:
                self._run_host(executable, step.host, given, feeds, results, named, scope)
                continue
            executable.enqueue(number, feeds, results)
            if scope.observer is not None:
                self._tell(executable, step.operation, begin_ns, feeds, results, scope)

    def _tell(
        self,
        executable: Executable,
        operation: Any,
        begin_ns: int,
        feeds: Sequence[int],
        results: Sequence[int],
        scope: RunScope,
    ) -> None:
        """An observer is told of an operation when it is done, as the last of the nodes that it stands for."""
        from distort.kernels.compiler.tracing import nodes_of

        self.context.stream.synchronize()
        nodes = nodes_of(self._graph)
        node = next((nodes[name] for name in reversed(operation.names) if name in nodes), None)
        if node is not None and scope.observer is not None:
            array = partial(executable.array, feeds=feeds, results=results)
            arrays = [list(map(array, tensors)) for tensors in (operation.inputs, operation.outputs)]
            scope.observer(node, begin_ns, time.time_ns(), *arrays)

    def _run_host(
        self,
        executable: Executable,
        host: Host,
        given: Sequence[Any],
        feeds: Sequence[int],
        results: Sequence[int],
        named: dict[str, Any],
        scope: RunScope,
    ) -> None:
        """A node by its body."""
        arguments: list[Any] = []
        nodes, number = self._nodes_of(host)
        for argument in host.arguments:
            if argument is None:
                arguments.append(None)
            elif isinstance(argument, str):
                arguments.append(self._named(argument, given, named))
            elif argument.value is not None:
                if self._constants.keeps(argument):
                    nodes.know(argument.value)
                arguments.append(argument.value)
            elif argument.buffer.place is Place.FEED and isinstance(given[argument.buffer.number], np.ndarray):
                arguments.append(_part(given[argument.buffer.number], argument))
            else:
                arguments.append(executable.array(argument, feeds, results))
        made = nodes.call(number, arguments, scope)
        for result, value in zip(host.results, made, strict=False):
            if isinstance(result, Tensor):
                place = executable.array(result, feeds, results)
                if getattr(value, "shape", None) != place.shape or value.dtype != place.dtype:
                    raise _Surprise(host.node.outputs[list(host.results).index(result)])
                _copy(place, value)
            elif result:
                named[result] = _apart(value)

    def _nodes_of(self, host: Host) -> tuple[DeviceNodes, int]:
        """Who calls a node's body, and the node's number there."""
        number = self._number_of.get(id(host.origin))
        if number is not None:
            return self.nodes, number
        nodes = self._alone.get(id(host.origin))
        if nodes is None:
            node = host.origin
            inputs = list(dict.fromkeys(name for name in (*node.inputs, *node.captured()) if name))
            graph = Graph(inputs=inputs, outputs=[name for name in node.outputs if name], nodes=[node])
            own = self.context
            nodes = DeviceNodes(graph, own.pool, own.weights, own.copies, bodies=partial(_body, own))
            self._alone[id(node)] = nodes
        return nodes, 0

    def _named(self, name: str, given: Sequence[Any], named: Mapping[str, Any]) -> Any:
        """A value of a run that has no place in the plan: made, fed, or the model's."""
        if name in named:
            return named[name]
        if name in self.inputs and given[self.inputs.index(name)] is not None:
            return given[self.inputs.index(name)]
        return self._graph.initializers.get(name)

    def _error(self, executable: Executable) -> bool:
        """Whether a kernel has refused what it was given. Waits for the run."""
        word = self._array_at(executable.error_address, (1,), np.dtype(np.int64))
        return bool(copies.to_host([word], [word.dtype], self.context.stream)[0][0])

    # -- memory

    def _settle(self, executable: Executable) -> int:
        """The slab, large enough for a plan; returns its address."""
        if self._slab is None or self._slab.mem.size < executable.nbytes:
            self._slab = None
            self._slab = self.context.pool.malloc(executable.nbytes)
        base = int(self._slab.ptr)
        executable.settle(base)
        return base

    def _array(self, address: int, tensor: Tensor) -> Any:
        return self._array_at(address, tensor.shape, tensor.dtype)

    def _array_at(self, address: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
        import cupy

        nbytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        if not nbytes:
            return cupy.empty(shape, dtype)
        memory = cupy.cuda.UnownedMemory(address, nbytes, self._slab, self.context.device_id)
        return cupy.ndarray(shape, dtype, cupy.cuda.MemoryPointer(memory, 0))

    def _is_in_slab(self, array: Any) -> bool:
        return 0 <= int(array.data.ptr) - int(self._slab.ptr) < int(self._slab.mem.size)

    def shrink(self) -> None:
        """Give memory that is not in use back to the GPU (``memory.enable_memory_arena_shrinkage``)."""
        with self._lock, self.using():
            self.context.stream.synchronize()
            self._slab = None
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
    def n_nodes(self) -> int:
        return len(self._graph.nodes)

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
        began = time.perf_counter()
        try:
            plan = plan_of(
                self._graph,
                self.outputs,
                self.inputs,
                key,
                self.context,
                self._constants,
                self._learned.get(key, {}),
                key in self._cautious,
                key not in self._unsteady,
            )
            found = Executable(plan, self.context)
        except KernelError:
            raise
        except Exception as error:
            if STRICT:
                raise
            self.refused[key] = f"{type(error).__name__}: {error}"
            return None
        self._plans[key] = found
        while len(self._plans) > MOST_PLANS:
            self._plans.popitem(last=False)
        self.compile_s += time.perf_counter() - began
        return found

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


def _is_on_device(value: Any) -> bool:
    import cupy

    return isinstance(value, cupy.ndarray)


def _type_of(value: Any) -> FeedType:
    return (np.dtype(value.dtype), tuple(value.shape)) if hasattr(value, "dtype") and hasattr(value, "shape") else None


def _fits(target: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> bool:
    """Whether an array given for a result can have its elements."""
    return target.shape == tuple(shape) and dtype.kind != "O" and target.dtype == device_dtype(dtype)


def _is_place_of(target: Any, tensor: Tensor) -> bool:
    """Whether kernels can write a result into an array at once: they count on alignment."""
    return _fits(target, tensor.shape, tensor.dtype) and target.data.ptr % ALIGNMENT_NBYTES == 0


def _part(feed: np.ndarray[Any, Any], tensor: Tensor) -> np.ndarray[Any, Any]:
    """A feed that stays on the host, as a node reads it: perhaps in another shape."""
    strides = [stride * feed.itemsize for stride in tensor.strides]
    whole = np.ascontiguousarray(feed).reshape(-1)[tensor.offset :]
    return np.lib.stride_tricks.as_strided(whole, tensor.shape, strides, writeable=False)


def _copy(target: Any, value: Any) -> None:
    """Write a value, wherever it lies, into a CuPy array."""
    if _is_on_device(value):
        target[...] = value
    else:
        copies.write(target, np.asarray(value))


def _apart(value: Any) -> Any:
    """A value that outlives the slab's use of its memory: bodies may return views of what they were given."""
    if _is_on_device(value):
        return value.copy() if value.base is not None or not value.flags.owndata else value
    if isinstance(value, (list, tuple)):
        return type(value)(_apart(item) for item in value)
    return value


def _body(context: Context, graph: Graph, *, captures: Sequence[str]) -> CudaProgram:
    """The body of a node, on the same GPU and stream."""
    made = CudaProgram(graph, captures=captures, context=context)
    made.is_body = True
    return made


__all__ = ["CudaProgram"]
