"""cupy.cuda, over host memory."""

from __future__ import annotations

from . import device, driver, graph, memory, nvrtc, pinned_memory, runtime, stream
from .device import Device, get_device_id
from .graph import Graph
from .memory import (
    BaseMemory,
    CFunctionAllocator,
    Memory,
    MemoryPointer,
    MemoryPool,
    PythonFunctionAllocator,
    UnownedMemory,
    alloc,
    get_allocator,
    malloc_async,
    set_allocator,
    using_allocator,
)
from .pinned_memory import PinnedMemory, PinnedMemoryPool, alloc_pinned_memory, set_pinned_memory_allocator
from .stream import Event, ExternalStream, Stream, get_current_stream, get_elapsed_time


def is_available() -> bool:
    return runtime.getDeviceCount() > 0


__all__ = [
    "BaseMemory",
    "CFunctionAllocator",
    "Device",
    "Event",
    "ExternalStream",
    "Graph",
    "Memory",
    "MemoryPointer",
    "MemoryPool",
    "PinnedMemory",
    "PinnedMemoryPool",
    "PythonFunctionAllocator",
    "Stream",
    "UnownedMemory",
    "alloc",
    "alloc_pinned_memory",
    "device",
    "driver",
    "get_allocator",
    "get_current_stream",
    "get_device_id",
    "get_elapsed_time",
    "graph",
    "is_available",
    "malloc_async",
    "memory",
    "nvrtc",
    "pinned_memory",
    "runtime",
    "set_allocator",
    "set_pinned_memory_allocator",
    "stream",
    "using_allocator",
]
