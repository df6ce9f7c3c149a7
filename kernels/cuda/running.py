"""One run by a plan: feeds where kernels read them, steps enqueued or done one at a time, results handed out."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from distort.kernels.compiler.ir import Host, Operation, Place, Tensor
from distort.kernels.cuda import copies
from distort.kernels.cuda.memory import device_dtype
from distort.kernels.cuda.weights import is_held, is_planned
from distort.kernels.errors import RunCancelled
from distort.kernels.program import TERMINATED, RunScope

if TYPE_CHECKING:
    from distort.kernels.cuda.executable import Executable
    from distort.kernels.cuda.program import CudaProgram


class Refused(Exception):
    """A kernel was given what it can't take."""


class Surprise(Exception):
    """A value has another shape than was learned."""

    def __init__(self, name: str) -> None:
        self.name = name


class Wanted(NamedTuple):
    """What a caller wants of a run, see :meth:`CudaProgram.run`."""

    into: Mapping[str, Any]
    fetches: Collection[str]
    home: Collection[str]
    #: whether it may be a graph, see :meth:`Executable.launch`, and of which it is one
    graphs: bool | None
    graph_id: int = 0
    #: whether somebody waits for the run before its feeds may change
    is_awaited: bool = False

    def goes_home(self, name: str) -> bool:
        """Whether a result is to be an array of this process."""
        return name in self.home or isinstance(self.into.get(name), np.ndarray)


class PlanRun:
    """``notes_branches``: conditions are of interest."""

    def __init__(
        self,
        program: CudaProgram,
        executable: Executable,
        values: Sequence[Any],
        wanted: Wanted,
        *,
        notes_branches: bool = False,
    ) -> None:
        self._program, self._executable, self._wanted = program, executable, wanted
        self._context = program.context
        self._base = program.slab.reserve(executable.nbytes)
        executable.settle(self._base)
        #: values of this run that have no place in the plan
        self.named: dict[str, Any] = {}
        #: conditions that nodes If had, by their first results
        self.branches: dict[str, bool] = {}
        self._notes_branches = notes_branches
        self._given = list(values)
        plan = executable.plan
        for number, offset in plan.feed_offsets.items():
            value = values[number]
            stays = isinstance(value, np.ndarray) and (
                program.inputs[number] in program.host_inputs or number not in plan.used_feeds
            )
            if value is not None and is_planned(value.dtype) and (number in plan.gpu_feeds or not stays):
                self._given[number] = self._fed(number, value, self._base + offset)
        self._feeds = [v.data.ptr if is_on_device(v) and v.size else 0 for v in self._given]
        self._made: list[Any] = []
        self._results: list[int] = []

    def go(self, scope: RunScope) -> tuple[list[Any], bool]:
        """The results, and whether they were one launch of a graph. Raises Refused, Surprise, RunCancelled."""
        executable, wanted = self._executable, self._wanted
        eager = scope.observer is not None or not executable.is_capturable
        if scope.cancellation is not None and scope.cancellation.requested:
            raise RunCancelled(TERMINATED)
        self._make_room(eager or wanted.graphs is False)
        is_graph = False
        if eager:
            self._step_by_step(scope)
        else:
            is_graph = executable.launch(self._feeds, self._results, wanted.graphs, wanted.graph_id)
        if executable.checks and self._is_refused():
            raise Refused
        return self._handed_out(), is_graph

    # -- feeds and results

    def _fed(self, number: int, value: Any, address: int) -> Any:
        """A feed as its readers want it: on this GPU, contiguous and aligned; in the slab where it wasn't so."""
        name, context = self._program.inputs[number], self._context
        is_elsewhere = is_on_device(value) and value.device.id != context.device_id
        if is_on_device(value) and not is_elsewhere:
            wanted = self._executable.plan.feed_alignments.get(number, 1)
            if value.flags.c_contiguous and value.data.ptr % wanted == 0:
                return value
        place = self._program.slab.array(address, value.shape, value.dtype)
        if is_elsewhere:
            context.copies.count(name, copies.BETWEEN_DEVICES, value.nbytes)
            copies.move(place, value, context.stream, wait=False)
        elif is_on_device(value):
            place[...] = value
        elif isinstance(value, np.ndarray) and value is self._program.weight(name):
            return context.weights.of(value)
        elif self._program.is_body and value.size == 1 and value.dtype.kind in "biuf":
            place.fill(value.item())  # the number of a round, as an argument of a kernel: nobody waits
        else:
            context.copies.count(name, copies.TO_DEVICE, value.nbytes)
            wait = not self._wanted.is_awaited and not copies.is_read_at_once(value, context.device_id)
            copies.write(place, value, context.stream, wait=wait)
        return place

    def _make_room(self, is_fresh: bool) -> None:
        """Where results are made: what was given for them, arrays of their own, or the slab, where graphs find it.

        What goes to the host, or to nobody, is best made in the slab.
        """
        import cupy

        plan, wanted = self._executable.plan, self._wanted
        for number, (name, result) in enumerate(zip(self._program.outputs, plan.results, strict=True)):
            tensor = result.tensor
            array: Any = None
            alignment = plan.result_alignments.get(number, 1)
            if tensor is not None and name in wanted.into and _is_place_of(wanted.into[name], tensor, alignment):
                array = wanted.into[name]
            elif tensor is not None and is_fresh and name in wanted.fetches and not wanted.goes_home(name):
                array = cupy.empty(tensor.shape, device_dtype(tensor.dtype))
            elif tensor is not None:
                offset = self._base + plan.result_offsets[number]
                array = self._program.slab.array(offset, tensor.shape, tensor.dtype)
            self._made.append(array)
            self._results.append(0 if array is None or not array.size else array.data.ptr)

    def _handed_out(self) -> list[Any]:
        """What the caller gets: nothing of it lies in the slab. What goes to the host is on its way there."""
        found: list[Any] = []
        program, wanted = self._program, self._wanted
        for name, result, array in zip(program.outputs, self._executable.plan.results, self._made, strict=True):
            if name not in wanted.fetches:
                found.append(None)
                continue
            if result.name:
                array = self._value(result.name)
            elif result.value is not None:
                array = result.value.copy()
            elif result.tensor is not None and wanted.goes_home(name):
                array = self._sent_home(name, array, result.tensor.dtype)
            elif array is not wanted.into.get(name) and result.tensor is not None and not is_held(result.tensor.dtype):
                array = self._home(name, array, result.tensor)  # as a CuPy array it would not say what it is of
            # a feed may lie there too, and be a result
            if array is not wanted.into.get(name) and is_on_device(array) and program.slab.has(array):
                array = array.copy()
            found.append(array)
        return found

    def _sent_home(self, name: str, array: Any, dtype: np.dtype[Any]) -> Any:
        """A result as it will be on the host when the run is done."""
        target = self._wanted.into.get(name)
        self._context.copies.count(name, copies.TO_HOST, array.nbytes)
        if isinstance(target, np.ndarray) and fits(target, array.shape, dtype):
            copies.download(array, self._context.stream, target.view(array.dtype))
            return target
        return copies.download(array, self._context.stream).view(dtype)

    def _home(self, name: str, array: Any, tensor: Tensor) -> Any:
        """A value in this process's memory, of the dtype that CuPy lacks."""
        self._context.copies.count(name, copies.TO_HOST, tensor.nbytes)
        return copies.to_host([array], [tensor.dtype], self._context.stream)[0]

    def _is_refused(self) -> bool:
        """Whether a kernel says so. Waits for the run."""
        word = self._program.slab.array(self._executable.error_address, (1,), np.dtype(np.int64))
        return bool(copies.to_host([word], [word.dtype], self._context.stream)[0][0])

    # -- steps

    def _step_by_step(self, scope: RunScope) -> None:
        executable = self._executable
        if executable.checks:
            executable.clear_error()
        for number, step in enumerate(executable.plan.steps):
            if scope.cancellation is not None and scope.cancellation.requested:
                raise RunCancelled(TERMINATED)
            begin_ns = time.time_ns() if scope.observer else 0
            if step.host is not None:
                self._run_host(step.host, scope)
                continue
            executable.enqueue(number, self._feeds, self._results)
            if scope.observer is not None:
                self._tell(step.operation, begin_ns, scope)

    def _tell(self, operation: Operation, begin_ns: int, scope: RunScope) -> None:
        """An observer is told of an operation when it is done, as the last of the nodes that it stands for."""
        from distort.kernels.compiler.tracing import nodes_of

        self._context.stream.synchronize()
        nodes = nodes_of(self._program.graph)
        node = next((nodes[name] for name in reversed(operation.names) if name in nodes), None)
        if node is not None and scope.observer is not None:
            array = partial(self._executable.array, feeds=self._feeds, results=self._results)
            arrays = [list(map(array, tensors)) for tensors in (operation.inputs, operation.outputs)]
            scope.observer(node, begin_ns, time.time_ns(), *arrays)

    def _run_host(self, host: Host, scope: RunScope) -> None:
        """A node by its body."""
        label = host.node.label()
        arguments = [None if argument is None else self._argument(argument, label) for argument in host.arguments]
        nodes, number = self._program.bodies.of(host)
        nodes.know(*self._program.weights_of(host))
        if self._notes_branches and host.node.op_type == "If" and not host.node.domain:
            condition = nodes.on_host(host.node, arguments[0])
            if condition.size == 1:
                self.branches[host.node.outputs[0]] = bool(condition.reshape(-1)[0])
            arguments[0] = condition
        made = nodes.call(number, arguments, scope)
        for result, value in zip(host.results, made, strict=False):
            if isinstance(result, Tensor):
                place = self._executable.array(result, self._feeds, self._results)
                if getattr(value, "shape", None) != place.shape or value.dtype != result.dtype:
                    raise Surprise(host.node.outputs[list(host.results).index(result)])
                copy(place, value)
            elif result:
                self.named[result] = self._apart(value)

    def _apart(self, value: Any) -> Any:
        """A value that outlives what the slab has now: bodies may return what they were given, or views of it.

        An array over the slab says that its data is its own, as all do that are no views of other arrays.
        """
        if is_on_device(value):
            shares = value.base is not None or self._program.slab.has(value) or self._context.weights.has(value)
            return value.copy() if shares else value
        if isinstance(value, (list, tuple)):
            return type(value)(self._apart(item) for item in value)
        return value

    def _argument(self, argument: Tensor | str, name: str) -> Any:
        if isinstance(argument, str):
            return self._value(argument)
        if argument.value is not None:
            return argument.value
        if argument.buffer.place is Place.FEED and isinstance(self._given[argument.buffer.number], np.ndarray):
            return _part(self._given[argument.buffer.number], argument)
        array = self._executable.array(argument, self._feeds, self._results)
        return array if is_held(argument.dtype) else self._home(name, array, argument)

    def _value(self, name: str) -> Any:
        """A value of the run that has no place in the plan: made, fed, or the model's."""
        if name in self.named:
            return self.named[name]
        inputs = self._program.inputs
        if name in inputs and self._given[inputs.index(name)] is not None:
            return self._given[inputs.index(name)]
        return self._program.weight(name)


def is_on_device(value: Any) -> bool:
    import cupy

    return isinstance(value, cupy.ndarray)


def fits(target: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> bool:
    """Whether an array given for a result, on the host or the GPU, can have its elements."""
    if target.shape != tuple(shape) or dtype.kind == "O":
        return False
    return bool(target.dtype == (dtype if isinstance(target, np.ndarray) else device_dtype(dtype)))


def _is_place_of(target: Any, tensor: Tensor, alignment: int) -> bool:
    """Whether kernels can write a result into an array at once."""
    return is_on_device(target) and fits(target, tensor.shape, tensor.dtype) and target.data.ptr % alignment == 0


def _part(feed: np.ndarray[Any, Any], tensor: Tensor) -> np.ndarray[Any, Any]:
    """A feed that stays on the host, as a node reads it: perhaps in another shape."""
    strides = [stride * feed.itemsize for stride in tensor.strides]
    whole = np.ascontiguousarray(feed).reshape(-1)[tensor.offset :]
    return np.lib.stride_tricks.as_strided(whole, tensor.shape, strides, writeable=False)


def copy(target: Any, value: Any) -> None:
    """Write a value, wherever it lies, into an array of the GPU or a contiguous one of the host."""
    if isinstance(target, np.ndarray):
        if is_on_device(value):
            copies.read_into(target, value)
        else:
            np.copyto(target, value)
    elif is_on_device(value):
        target[...] = value
    else:
        copies.write(target, np.asarray(value))


__all__ = ["PlanRun", "Refused", "Surprise", "Wanted", "copy", "fits", "is_on_device"]
