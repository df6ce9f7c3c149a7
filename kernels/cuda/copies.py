"""Values between this process's memory and GPUs': pinned on the way, and counted.

What these functions return is there: they wait for their own copies, and for nothing else of the GPU.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from distort.kernels.cuda import device, memory, staging

Array = np.ndarray[Any, Any]

TO_DEVICE, TO_HOST, BETWEEN_DEVICES = "h2d", "d2h", "p2p"
#: cudaMemoryType of memory that CUDA has not been told of
_UNKNOWN = 0


class Copies:
    """Bytes and messages between the host and GPUs, by value. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: dict[tuple[str, str], list[int]] = {}

    def count(self, name: str, transport: str, nbytes: int) -> None:
        """``transport`` is TO_DEVICE, TO_HOST or BETWEEN_DEVICES."""
        with self._lock:
            sums = self._seen.setdefault((name, transport), [0, 0])
            sums[0] += nbytes
            sums[1] += 1

    def rows(self) -> list[dict[str, Any]]:
        """As ``get_transfer_stats`` has edges: both ends are this process."""
        with self._lock:
            seen = sorted(self._seen.items())
        return [
            {
                "value": name,
                "producer": -1,
                "consumer": -1,
                "nbytes": nbytes,
                "messages": messages,
                "transport": transport,
            }
            for (name, transport), (nbytes, messages) in seen
        ]


class _Pinned:
    """The base of an array over pinned memory, which goes back to CuPy's pool when the last array over it is gone."""

    __slots__ = ("__array_interface__", "_memory")
    exclusive = True  # no other memory's array lies here

    def __init__(self, nbytes: int) -> None:
        import cupy

        self._memory = cupy.cuda.alloc_pinned_memory(nbytes)
        self.__array_interface__ = {
            "data": (int(self._memory.ptr), False),
            "shape": (nbytes,),
            "typestr": "|u1",
            "version": 3,
        }


def pinned(shape: Sequence[int], dtype: np.dtype[Any]) -> Array:
    """An array that GPUs copy to and from by themselves; an ordinary one where the system lets no more be pinned."""
    sizes = tuple(shape)
    nbytes = int(np.prod(sizes, dtype=np.int64)) * dtype.itemsize
    if not nbytes:
        return np.empty(sizes, dtype)
    try:
        block = _Pinned(nbytes)
    except (RuntimeError, MemoryError):
        return np.empty(sizes, dtype)
    return np.asarray(block).view(dtype).reshape(sizes)


def is_pinned(array: Array) -> bool:
    """Whether :func:`pinned` made the array, or what it is a view of."""
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    return isinstance(base, _Pinned)


def is_read_at_once(array: Array, device_id: int) -> bool:
    """Whether CUDA reads the array when a copy from it is enqueued, into a buffer of its own, and never again."""
    return not array.nbytes or (_is_pageable(array) and not device.properties(device_id).reads_pageable)


def may_be_read_late(array: Array, device_id: int) -> bool:
    """Whether a GPU may read memory that isn't page-locked by itself, when a copy from it is enqueued already."""
    return device.properties(device_id).reads_pageable and bool(array.nbytes) and _is_pageable(array)


def _is_pageable(array: Array) -> bool:
    import cupy

    return int(cupy.cuda.runtime.pointerGetAttributes(array.ctypes.data).type) == _UNKNOWN


def to_device(array: Array, device_id: int, stream: Any = None) -> Any:
    """A CuPy array with the array's elements, C-contiguous; bytes where CuPy lacks the dtype.

    ``stream``: a CuPy stream of that GPU, else the current one. Raises OutOfMemory; TypeError for text.
    """
    made = memory.empty(array.shape, array.dtype, device_id)
    write(made, array, stream)
    return made


def write(target: Any, array: Array, stream: Any = None, *, wait: bool = True) -> None:
    """Write an array's elements into a C-contiguous CuPy array of as many bytes. The array may change afterwards.

    Without ``wait`` it may change when ``stream`` has come to it.
    """
    import cupy

    straight = np.asarray(array, order="C")
    whole = straight.reshape(-1).view(np.uint8)
    if not whole.nbytes:
        return
    with device.current(target.device.id):
        queue = stream or cupy.cuda.get_current_stream()
        flat = target.reshape(-1).view(np.uint8)
        if whole.nbytes <= staging.BLOCK_NBYTES or is_pinned(whole):
            flat.set(whole, stream=queue)
        else:
            with _staging(queue) as ring:
                ring.add(flat.data.ptr, whole)
        if wait or straight is not array:  # a copy of ours must stay until it is read
            queue.synchronize()


def _staging(stream: Any) -> staging.Staging:
    return staging.Staging(stream, lambda nbytes: pinned((nbytes,), np.dtype(np.uint8)))


def upload(pairs: Sequence[tuple[Any, Array]]) -> None:
    """Write each array's elements into a C-contiguous CuPy array of the current GPU, by its current stream.

    What lies in the same memory goes in few copies, and is waited for once. The arrays may change afterwards.
    """
    import cupy

    if not any(array.nbytes for _, array in pairs):
        return
    with _staging(cupy.cuda.get_current_stream()) as ring:
        before = None
        for target, array in pairs:
            if target.data.mem is not before:
                ring.flush()
                before = target.data.mem
            ring.add(target.data.ptr, np.asarray(array, order="C").reshape(-1).view(np.uint8))


def to_host(values: Sequence[Any], dtypes: Sequence[np.dtype[Any]], stream: Any = None) -> list[Array]:
    """CuPy arrays as arrays of this process, the caller's own, in pinned memory; all are waited for at once.

    ``dtypes`` are NumPy's own of the elements, which may lie there as bytes.
    """
    import cupy

    found, queues, kept = [], {}, []
    for value, dtype in zip(values, dtypes, strict=True):
        with device.current(value.device.id):
            queue = stream or cupy.cuda.get_current_stream()
            with queue:
                whole = cupy.ascontiguousarray(value).reshape(value.shape)
            result = download(whole, queue)
            queues[value.device.id, queue.ptr] = queue
            kept.append(whole)  # the GPU reads it until the copy is done
        found.append(result.view(dtype) if dtype != result.dtype else result)
    for (device_id, _), queue in queues.items():
        with device.current(device_id):  # a default stream is that of the current GPU
            queue.synchronize()
    return found


def download(value: Any, stream: Any, out: Array | None = None) -> Array:
    """A C-contiguous CuPy array of the current GPU as it will be on the host when ``stream`` has got here.

    In pinned memory, the caller's own, or in ``out``, of its shape and C-contiguous. Until then the GPU reads
    ``value``, and writes.
    """
    made = pinned(value.shape, value.dtype) if out is None else out
    if value.nbytes:
        value.get(stream=stream, out=made, blocking=False)
    return made


def read_into(target: Array, value: Any, stream: Any = None) -> None:
    """Write a CuPy array's elements into a C-contiguous array of as many bytes, without another copy on the way."""
    import cupy

    with device.current(value.device.id):
        queue = stream or cupy.cuda.get_current_stream()
        with queue:
            flat = cupy.ascontiguousarray(value).reshape(-1).view(np.uint8)
        if flat.nbytes:
            flat.get(stream=queue, out=target.reshape(-1).view(np.uint8), blocking=True)


def move(target: Any, source: Any, stream: Any = None, *, wait: bool = True) -> None:
    """Write one CuPy array's elements into another of as many bytes, be it on another GPU.

    It is there afterwards; without ``wait``, when ``stream`` gets to it.
    """
    import cupy

    with device.current(source.device.id):
        made_in = stream if stream is not None and source.device.id == target.device.id else None
        queue = made_in or cupy.cuda.get_current_stream()
        with queue:
            whole = cupy.ascontiguousarray(source)
        if source.device.id != target.device.id:
            queue.synchronize()  # the other GPU's stream doesn't wait for this one's
    with device.current(target.device.id):
        queue = stream or cupy.cuda.get_current_stream()
        if target.nbytes:
            target.data.copy_from_device_async(whole.data, target.nbytes, queue)
        if wait or whole is not source:  # a copy of ours must stay until it is read
            queue.synchronize()


def moved(source: Any, device_id: int) -> Any:
    """A copy of a CuPy array on a GPU, C-contiguous. Raises OutOfMemory."""
    made = memory.empty(source.shape, source.dtype, device_id)
    move(made, source)
    return made
