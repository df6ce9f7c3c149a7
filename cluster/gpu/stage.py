"""A stage's program on its GPU: values brought there, results handed on, what stays.

All work goes to one stream of the actor's. What a run reads (slots of shared memory, other GPUs' slots) is released
when the stream has got past it, so that a run is under way on the GPU while its results are announced already.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from distort.cluster.errors import ClusterError
from distort.cluster.gpu.exports import DeviceSlots
from distort.cluster.gpu.far import FarValues, Received
from distort.cluster.gpu.imports import DeviceValue
from distort.cluster.gpu.pinning import Pinning
from distort.cluster.gpu.releases import Releases
from distort.cluster.gpu.visible import adopt
from distort.cluster.orders import GpuSeat
from distort.cluster.shm.wire import INLINE_NBYTES
from distort.graph.ir import Graph
from distort.graph.types import DTYPE_OF, TensorType
from distort.kernels.program import Cancellation, Room, StepObserver

if TYPE_CHECKING:
    from distort.kernels.cuda.program import CudaProgram

#: how long an actor that has lost its GPU takes to say so
_LAST_WORDS_S = 0.5


class GpuStage:
    """Has what an actor wants of a program: ``outputs``, ``run``, and ``to`` for parts of the graph."""

    def __init__(self, graph: Graph, outputs: Sequence[str], seat: GpuSeat, label: str) -> None:
        self.device_id = adopt(seat)
        _require_gpu(self.device_id)
        import cupy

        from distort.kernels.cuda.memory import device_dtype
        from distort.kernels.cuda.options import CudaOptions
        from distort.kernels.cuda.program import CudaProgram

        self._cupy: Any = cupy
        self._turn = threading.RLock()
        self.use()
        self._device_dtype = device_dtype
        #: of outputs that GPUs hold as bytes, their own elements
        self._elements: dict[str, np.dtype[Any]] = {}
        for name in outputs:
            known = graph.types.get(name)
            dtype = DTYPE_OF.get(known.element) if isinstance(known, TensorType) else None
            if dtype is not None and dtype.kind not in "OUST" and device_dtype(dtype) != dtype:
                self._elements[name] = dtype
        options = CudaOptions.read({**seat.options, "device_id": str(self.device_id)}, in_process=False)
        self.program = CudaProgram(graph, options, outputs=outputs, label=label)
        self.stream = self.program.stream
        with self.current():
            self.bus_id: str = cupy.cuda.runtime.deviceGetPCIBusId(self.device_id)
            self.slots = DeviceSlots(self.bus_id, self.program.context.pool)
            self.pins = Pinning()
        self.outputs: tuple[str, ...] = tuple(self.program.outputs)
        self.releases = Releases()
        self._parts: dict[frozenset[str], _Part] = {}
        #: values from and to GPUs of other hosts, where there are any
        self.far: FarValues | None = None
        #: names of inputs that came from another GPU's memory
        self.by_device: set[str] = set()

    def run(
        self,
        feeds: Mapping[str, Any],
        observer: StepObserver | None = None,
        cancellation: Cancellation | None = None,
        room: Room | None = None,
    ) -> list[Any]:
        """As programs do, but for the GPU: results may still be in the making, by the stream."""
        return self._run(self.program, feeds, observer, cancellation)

    def _run(
        self,
        program: CudaProgram,
        feeds: Mapping[str, Any],
        observer: StepObserver | None,
        cancellation: Cancellation | None,
    ) -> list[Any]:
        with self.current():
            brought = {name: self._bring(name, value) for name, value in feeds.items()}
            return program.run(brought, observer, cancellation, synchronize=False)

    def _bring(self, name: str, value: Any) -> Any:
        """A feed as the program takes it. The copy is the stream's to make; what it is of must stay until then."""
        if type(value) is DeviceValue:
            self.by_device.add(name)
            return value.array(self.stream)
        if type(value) is Received:
            return value.array()
        is_tensor = isinstance(value, np.ndarray) and value.dtype.kind not in "OUST" and value.nbytes > 0
        # sizes and axes are read on the host, where the program knows what to do with them
        if not is_tensor or (value.dtype.kind in "iub" and value.nbytes <= INLINE_NBYTES):
            return value
        # an array of bytes would not say what they are: the program copies these itself, and waits for that
        if self._device_dtype(value.dtype) != value.dtype:
            return value
        return self._uploaded(value)

    def _uploaded(self, value: np.ndarray[Any, Any]) -> Any:
        from distort.kernels.cuda.copies import may_be_read_late

        whole = np.asarray(value, order="C")
        made = self._cupy.empty(value.shape, value.dtype)
        runtime = self._cupy.cuda.runtime
        pointer = whole.ctypes.data
        runtime.memcpyAsync(made.data.ptr, pointer, value.nbytes, runtime.memcpyHostToDevice, self.stream.ptr)
        # a copy of ours would be gone too soon, and so would what is in no slot
        if whole is not value or may_be_read_late(whole, self.device_id):
            self.stream.synchronize()
        return made

    def bring(self, value: Any) -> Any:
        """A value from the host, to stay here."""
        if not isinstance(value, np.ndarray) or value.dtype.kind in "OUST":
            return value
        if self._device_dtype(value.dtype) != value.dtype:
            return np.array(value)
        with self.current():
            made = self._uploaded(value) if value.nbytes else self._cupy.empty(value.shape, value.dtype)
        self.finish()
        return made

    def to(self, outputs: Iterable[str]) -> _Part:
        """What makes these outputs, and runs nothing else."""
        wanted = frozenset(outputs)
        if wanted not in self._parts:
            self._parts[wanted] = _Part(self, self.program.to(wanted))
        return self._parts[wanted]

    def is_read_by(self, bus_id: str) -> bool:
        """Whether a process on another GPU (or on this one) can read this one's memory."""
        if bus_id == self.bus_id:
            return True
        runtime = self._cupy.cuda.runtime
        for other in range(runtime.getDeviceCount()):
            if runtime.deviceGetPCIBusId(other) == bus_id:
                return bool(runtime.deviceCanAccessPeer(other, self.device_id))
        return False

    # -- values that leave, or stay

    def is_on_gpu(self, value: Any) -> bool:
        return isinstance(value, self._cupy.ndarray)

    @contextmanager
    def current(self) -> Iterator[None]:
        """The GPU, the stream and the pool are those that CuPy uses, and this thread's alone: what others gave to the
        stream meanwhile would become part of a graph that is captured."""
        with self._turn:
            self.use()
            with self.program.using():
                yield

    def use(self) -> None:
        """Make the GPU this thread's, for good: CUDA would open a context on another each time that it goes back."""
        self._cupy.cuda.Device(self.device_id).use()

    def dtype_of(self, name: str, value: Any) -> np.dtype[Any]:
        """The elements of an output, which the GPU may hold as bytes."""
        dtype: np.dtype[Any] = np.dtype(value.dtype)
        return self._elements.get(name, dtype) if dtype == np.uint8 else dtype

    def own(self, name: str, value: Any) -> Any:
        """A copy that stays: on the GPU, but of elements that it holds as bytes."""
        if not self.is_on_gpu(value):
            return value
        if self.dtype_of(name, value) != value.dtype:
            return self.on_host({name: value})[name]
        with self.current():
            return value.copy()

    def on_host(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The values as NumPy arrays: one wait for all."""
        with self.current():
            found = {name: self.start_download(name, value) for name, value in values.items()}
            self.stream.synchronize()
        return found

    def start_download(self, name: str, value: Any, out: np.ndarray[Any, Any] | None = None) -> Any:
        """A value as it will be on the host when the stream has got here; into ``out`` (contiguous) where given.

        Called with the GPU current.
        """
        if isinstance(value, (list, tuple)):
            return type(value)(self.start_download(name, item) for item in value)
        if not self.is_on_gpu(value):
            return value
        whole = self._cupy.ascontiguousarray(value)  # given back to a pool of this stream's, which reads it first
        made = np.empty(value.shape, self.dtype_of(name, value)) if out is None else out
        if value.nbytes:
            runtime = self._cupy.cuda.runtime
            target, kind = made.ctypes.data, runtime.memcpyDeviceToHost
            runtime.memcpyAsync(target, whole.data.ptr, value.nbytes, kind, self.stream.ptr)
        return made

    def release_after(self, readings: list[Any]) -> None:
        """Release what the work given so far reads, when it is done."""
        if readings:
            with self.current():
                event = self._cupy.cuda.Event(disable_timing=True)
                event.record(self.stream)
            self.releases.after(event, readings)
            readings.clear()

    def is_alive(self) -> bool:
        """Whether the GPU works for this process still: after some errors of kernels it never does again."""
        try:
            self.finish()
        except self._cupy.cuda.runtime.CUDARuntimeError:
            return False
        return True

    def leave_if_lost(self, leave: Callable[[], None]) -> None:
        """Call ``leave`` in a moment, when what is said meanwhile has been heard, if the GPU is lost."""
        if not self.is_alive():
            threading.Timer(_LAST_WORDS_S, leave).start()

    def finish(self) -> None:
        """Wait for the stream."""
        with self._turn:  # a stream that is captured can't be waited for
            self.use()
            self.stream.synchronize()

    def close(self) -> None:
        self.finish()
        self.releases.poll()
        if self.far is not None:
            self.far.close()
        with self.current():
            self.slots.close()

    def describe(self) -> list[str]:
        """Lines about what runs where."""
        lines = [f"on GPU {self.device_id} ({self.bus_id})"]
        if self.program.n_graph_runs:
            lines.append(f"{self.program.n_graph_runs} runs were one launch of a CUDA graph")
        if refused := list(dict.fromkeys(self.program.refused.values())):
            lines.append(f"no plan for some shapes of feeds: {'; '.join(refused[:3])}")
        lines += [f"runs are no CUDA graphs: {why}" for why in self.program.not_captured]
        lines += [f"not by NVIDIA's libraries: {why}" for why in self.program.context.libraries.obstacles()]
        if self.slots.obstacle:
            lines.append(f"values go to other GPUs by the host's memory: {self.slots.obstacle}")
        if self.pins.obstacle:
            lines.append(f"shared memory is not page-locked, and copied more slowly: {self.pins.obstacle}")
        return lines if self.far is None else lines + self.far.describe()


def _require_gpu(device_id: int) -> None:
    """Raises ClusterError where this process has no such GPU, with why and the remedy."""
    from distort.kernels.cuda import device

    with contextlib.suppress(ImportError):
        import cupy  # noqa: F401  # it is needed anyway, and says most itself
    why = device.why_not()
    if not why and device_id < device.count():
        return
    why = why or f"It sees {device.count()} of them, and is to have number {device_id}."
    raise ClusterError(f"An actor on {socket.gethostname()} can't use its GPU. {why}")


class _Part:
    """A program of some of a stage's outputs."""

    def __init__(self, whole: GpuStage, program: CudaProgram) -> None:
        self._whole, self._program = whole, program
        self.outputs: tuple[str, ...] = tuple(program.outputs)

    def run(
        self,
        feeds: Mapping[str, Any],
        observer: StepObserver | None = None,
        cancellation: Cancellation | None = None,
        room: Room | None = None,
    ) -> list[Any]:
        return self._whole._run(self._program, feeds, observer, cancellation)
