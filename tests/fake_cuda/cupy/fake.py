"""For tests, and for other fakes: what the real CuPy has not."""

from __future__ import annotations

import ctypes
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from . import _state
from .cuda import memory

#: ``void launch(void* stream, void (*function)(void*), void* argument)``, for libraries in C
ENQUEUE = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
_WORK = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_SYNCHRONIZING = (
    "synchronize",
    "get",
    "scalar",
    "boolean index",
    "nonzero",
    "repeat",
    "flatnonzero",
    "argwhere",
    "unique",
    "compress",
    "extract",
    "bincount",
)


def counts() -> Counter[str]:
    """How often what happened: "launch", "upload", "get", "graph launch" …; the counter itself, to be cleared."""
    return _state.counts


def synchronizations() -> int:
    """How often somebody waited for a device."""
    return sum(_state.counts[name] for name in _SYNCHRONIZING)


def enqueue(stream: int, work: Callable[[], None]) -> None:
    """Work of a library on a stream: done now or when the stream comes to it; kept for the graph while it captures."""
    _state.launch(stream, work)


def touch() -> None:
    """A library opens a handle on the current device."""
    _state.need_context()


@ctypes.CFUNCTYPE(ctypes.c_int)
def touch_from_c() -> int:
    """The same for a library in C: not 0 where that isn't allowed."""
    try:
        _state.need_context()
    except _state.OpenedContext:
        return 1
    return 0


@contextmanager
def only(*devices: int) -> Iterator[None]:
    """Raise OpenedContext where anything needs a context on another GPU."""
    before, _state.allowed = _state.allowed, set(devices)
    try:
        yield
    finally:
        _state.allowed = before


def opened() -> set[int]:
    """GPUs on which this process has a context."""
    return set(_state.opened)


@ENQUEUE
def enqueue_from_c(stream: int | None, function: int, argument: int | None) -> None:
    """The same for a library in C: ``function(argument)``, whose memory must stay."""
    call = _WORK(function)
    _state.launch(stream or 0, lambda: call(argument))


def set_lazy(lazy: bool) -> None:
    """Whether work waits until something synchronizes with it."""
    for device in range(len(_state.heaps)):
        _state.drain_device(device, wait=False)
    _state.lazy = lazy


def set_reads_pageable(reads: bool) -> None:
    """Whether GPUs read the host's memory that isn't pinned by themselves, as beside a Grace: copies may be late."""
    _state.reads_pageable = reads


def set_launch(blocks: int = 1, threads: int = 1) -> None:
    """How many blocks, and threads in each, kernels get, at most; 0: as many as they ask for."""
    _state.blocks, _state.threads = blocks, threads


def check() -> None:
    """Raise where something wrote behind its memory."""
    for heap in _state.heaps:
        heap.check()


def live_nbytes(device: int = 0) -> int:
    """Bytes of memory that is in use on a device; what the pool keeps counts too."""
    return _state.heap(device).used_nbytes


def shutdown() -> None:
    """Let go of all memory: after this the module is not used again."""
    for end in list(_state.at_shutdown):
        end()
    for device in range(len(_state.heaps)):
        _state.drain_device(device, wait=False)
    memory.default_pool.free_all_blocks()
    memory._free_of_all.clear()
    _state.shutdown()


def view(address: int, shape: tuple[int, ...], dtype: Any) -> Any:
    """Device memory as NumPy's array: for libraries that compute on it."""
    import numpy as np

    from . import _heap

    kind = np.dtype(dtype)
    nbytes = kind.itemsize * int(np.prod(shape, dtype=np.int64))
    return np.ndarray(shape, kind, buffer=_heap.bytes_at(address, nbytes))
