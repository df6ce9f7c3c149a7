"""A plan made ready to run on a GPU: functions with their arguments, addresses filled in, and captured graphs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from distort.kernels.compiler.ir import Address, Array, Buffer, ErrorWord, Place, Tensor
from distort.kernels.cuda.context import Context
from distort.kernels.cuda.launch import Launch
from distort.kernels.cuda.memory import device_dtype
from distort.kernels.cuda.plan import ALIGNMENT_NBYTES, CudaPlan, CudaStep
from distort.kernels.errors import KernelError

#: the error word, and what else a run keeps of its own in the slab
_OWN_NBYTES = ALIGNMENT_NBYTES

#: sets of addresses for which a graph is kept; whoever runs with ever new ones is not captured for
MOST_GRAPHS = 8
#: runs with the same addresses before a graph is made of them: the first one may still set things up
EAGER_RUNS = 2


@dataclass(slots=True)
class _Place:
    """An address that only a run knows: of a feed or of a result."""

    place: Place
    number: int
    offset: int


class Executable:
    """Of one plan. One run at a time."""

    def __init__(self, plan: CudaPlan, context: Context, stays: Callable[[Array], bool]) -> None:
        """``stays``: whether a weight is one for all plans. Raises OutOfMemory."""
        self.plan = plan
        self._context = context
        self.nbytes = plan.slab_nbytes + _OWN_NBYTES
        launches = [launch for step in plan.steps for launch in step.launches]
        #: what the plan reads that is the same in all runs
        self._weights = context.weights.send(_constants_of(plan), stays)
        self._functions = context.modules.get(launch.kernel for launch in launches)
        #: whether kernels may refuse what a run is fed
        self.checks = any(isinstance(argument, ErrorWord) for launch in launches for argument in launch.arguments)
        self.is_capturable = plan.is_capturable
        self._base = -1
        self._enqueue: list[Callable[[Sequence[int], Sequence[int], int], None] | None] = []
        self._graphs: dict[tuple[int, ...], Any] = {}
        self._seen: dict[tuple[int, ...], int] = {}
        #: why runs can't be captured; nothing while they can
        self.obstacle = ""

    # -- addresses

    def settle(self, base: int) -> None:
        """The slab's address: what was captured with another one is let go."""
        if base == self._base:
            return
        self._base = base
        self._graphs.clear()
        self._seen.clear()
        self._enqueue = [None if step.host is not None else self._ready(step) for step in self.plan.steps]

    @property
    def error_address(self) -> int:
        return self._base + self.plan.slab_nbytes

    def address(self, buffer: Buffer, offset: int, feeds: Sequence[int], results: Sequence[int]) -> int:
        """Of a byte of a buffer, in a run with these addresses of feeds and results."""
        found = self._fixed(buffer, offset)
        if isinstance(found, int):
            return found
        return (feeds if found.place is Place.FEED else results)[found.number] + offset

    def _fixed(self, buffer: Buffer, offset: int) -> int | _Place:
        if buffer.place is Place.ARENA:
            return self._base + buffer.offset + offset
        if buffer.place is Place.CONSTANT:
            return self._context.weights.address(buffer) + offset
        return _Place(buffer.place, buffer.number, offset)

    # -- steps

    def _ready(self, step: CudaStep) -> Callable[[Sequence[int], Sequence[int], int], None]:
        """What enqueues a step: takes addresses of feeds and results, and the stream's."""
        if step.library is not None:
            return self._library(step)
        calls = [self._launch(launch) for launch in step.launches]
        if len(calls) == 1:
            return calls[0]

        def all_of_them(feeds: Sequence[int], results: Sequence[int], stream: int) -> None:
            for call in calls:
                call(feeds, results, stream)

        return all_of_them

    def _launch(self, launch: Launch) -> Callable[[Sequence[int], Sequence[int], int], None]:
        function = self._functions[launch.kernel.name]
        grid, block = (launch.grid(self._context.most_blocks),), (launch.block,)
        shared = launch.shared_nbytes
        arguments: list[Any] = []
        moving: list[tuple[int, _Place]] = []
        for argument in launch.arguments:
            found: Any = argument
            if isinstance(argument, Address):
                found = self._fixed(argument.buffer, argument.offset)
                if isinstance(found, _Place):
                    moving.append((len(arguments), found))
                    found = 0
            elif isinstance(argument, ErrorWord):
                found = self.error_address
            elif isinstance(argument, float):
                found = np.float32(argument)
            arguments.append(found)
        stream_object = self._context.stream
        if not moving:
            fixed = tuple(arguments)

            def call(feeds: Sequence[int], results: Sequence[int], stream: int) -> None:
                try:
                    function(grid, block, fixed, shared_mem=shared, stream=stream_object)
                except RuntimeError as error:
                    _tell_launch(error, launch, grid[0])
                    raise

            return call

        def call_with(feeds: Sequence[int], results: Sequence[int], stream: int) -> None:
            given = arguments.copy()
            for position, place in moving:
                given[position] = (feeds if place.place is Place.FEED else results)[place.number] + place.offset
            try:
                function(grid, block, tuple(given), shared_mem=shared, stream=stream_object)
            except RuntimeError as error:
                _tell_launch(error, launch, grid[0])
                raise

        return call_with

    def _library(self, step: CudaStep) -> Callable[[Sequence[int], Sequence[int], int], None]:
        library = step.library
        assert library is not None
        operation = step.operation
        places = [self._fixed(t.buffer, t.offset * t.dtype.itemsize) for t in (*operation.inputs, *operation.outputs)]
        workspace = 0 if step.scratch is None else self._base + step.scratch.offset

        def call(feeds: Sequence[int], results: Sequence[int], stream: int) -> None:
            addresses = [
                place
                if isinstance(place, int)
                else (feeds if place.place is Place.FEED else results)[place.number] + place.offset
                for place in places
            ]
            library.run(addresses, workspace, stream)

        return call

    # -- runs

    def enqueue(self, number: int, feeds: Sequence[int], results: Sequence[int]) -> None:
        """One step that is no host step."""
        call = self._enqueue[number]
        assert call is not None
        call(feeds, results, self._context.stream.ptr)

    def clear_error(self) -> None:
        """Before a run: no kernel has refused anything."""
        import cupy

        cupy.cuda.runtime.memsetAsync(self.error_address, 0, 8, self._context.stream.ptr)

    def enqueue_all(self, feeds: Sequence[int], results: Sequence[int]) -> None:
        stream = self._context.stream.ptr
        if self.checks:
            self.clear_error()
        for call in self._enqueue:
            assert call is not None, "a plan with host steps is run step by step"
            call(feeds, results, stream)

    def launch(self, feeds: Sequence[int], results: Sequence[int], wanted: bool | None, graph_id: int = 0) -> bool:
        """Enqueue all steps: as one graph where these addresses have come before. Whether it was one.

        ``wanted``: None as it pays, False never, True from the second run with the same addresses on. Raises
        KernelError where graphs are wanted and can't be: what nobody asked for is given up instead, see ``obstacle``.
        """
        key = (graph_id, *feeds, *results)
        graph = self._graphs.get(key)
        if graph is None and wanted is not False and not self.obstacle:
            seen = self._seen[key] = self._seen.get(key, 0) + 1
            if len(self._seen) > 4 * MOST_GRAPHS:
                self._seen.clear()
            enough = 1 if wanted else EAGER_RUNS
            if seen > enough and (len(self._graphs) < MOST_GRAPHS or wanted):
                graph = self._capture(feeds, results)
                if graph is not None:
                    self._graphs[key] = graph
        if graph is None and self.obstacle and wanted:
            raise KernelError(
                f"enable_cuda_graph: runs of this model can't be captured: {self.obstacle}. Run it with "
                "enable_cuda_graph=0, or with the run option gpu_graph_id=-1."
            )
        if graph is None or wanted is False:
            self.enqueue_all(feeds, results)
            return False
        graph.launch(self._context.stream)
        return True

    def release_graphs(self, graph_id: int) -> None:
        """Forget the graphs of a number, and how often their addresses came."""
        for known in (self._graphs, self._seen):
            for key in [key for key in known if key[0] == graph_id]:
                del known[key]

    def _capture(self, feeds: Sequence[int], results: Sequence[int]) -> Any:
        """The graph; None where the stream or a library's kernel can't be captured."""
        from cupy.cuda.runtime import CUDARuntimeError

        stream = self._context.stream
        try:
            stream.begin_capture()
            try:
                self.enqueue_all(feeds, results)
            except BaseException:
                with contextlib.suppress(CUDARuntimeError):  # what broke the capture says more
                    stream.end_capture()
                raise
            return stream.end_capture()
        except (RuntimeError, KernelError) as error:
            self.obstacle = str(error).rstrip(".")
            return None

    # -- arrays

    def array(self, tensor: Tensor, feeds: Sequence[int], results: Sequence[int]) -> Any:
        """A tensor of a run as a CuPy array over the memory in which it lies, of bytes where CuPy lacks the dtype."""
        import cupy

        itemsize, dtype = tensor.dtype.itemsize, device_dtype(tensor.dtype)
        if not tensor.size:
            return cupy.empty(tensor.shape, dtype)
        address = self.address(tensor.buffer, tensor.offset * itemsize, feeds, results)
        span = sum((size - 1) * abs(stride) for size, stride in zip(tensor.shape, tensor.strides, strict=True)) + 1
        memory = cupy.cuda.UnownedMemory(address, span * itemsize, self, self._context.device_id)
        strides = tuple(stride * itemsize for stride in tensor.strides)
        return cupy.ndarray(tensor.shape, dtype, cupy.cuda.MemoryPointer(memory, 0), strides=strides)


def _tell_launch(error: RuntimeError, launch: Launch, n_blocks: int) -> None:
    """Add to CUDA's error, which keeps its class, what was launched."""
    error.add_note(
        f"It came up in launching {launch.kernel.name} ({n_blocks} blocks of {launch.block} threads, "
        f"{launch.shared_nbytes} bytes of shared memory), or in work before it."
    )


def _constants_of(plan: CudaPlan) -> Iterator[Array]:
    """What kernels and libraries read that was known before."""
    for step in plan.steps:
        if step.host is None:
            yield from (t.buffer.array for t in step.operation.inputs if t.buffer.array is not None)
        for argument in (argument for launch in step.launches for argument in launch.arguments):
            if isinstance(argument, Address) and argument.buffer.array is not None:
                yield argument.buffer.array


__all__ = ["Executable"]
