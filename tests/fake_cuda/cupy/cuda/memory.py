"""cupy.cuda.memory: memory, pointers into it, the pool."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from .. import _heap, _state
from .._errors import CUDARuntimeError
from . import runtime


class OutOfMemoryError(MemoryError):
    def __init__(self, size: int, total: int, limit: int = 0) -> None:
        self._size, self._total, self._limit = size, total, limit
        text = f"Out of memory allocating {size:,} bytes (allocated so far: {total:,} bytes"
        super().__init__(text + (f", limit set to: {limit:,} bytes)." if limit else ")."))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._size, self._total, self._limit)


class BaseMemory:
    ptr: int = 0
    size: int = 0
    device_id: int = -1

    @property
    def device(self) -> Any:
        from .device import Device

        return Device(self.device_id)

    def __int__(self) -> int:
        return self.ptr


class Memory(BaseMemory):
    """cudaMalloc's memory: not of the pool, freed with the object."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.device_id = _state.current_device()
        self.ptr = 0
        if size > 0:
            self.ptr = _malloc(size)

    def __del__(self) -> None:
        if self.ptr:
            address, self.ptr = self.ptr, 0
            heap = _state.heap_of(address)
            try:
                runtime.free_if_there(address)
            except _heap.WroteBehind as error:
                if heap is not None:
                    heap.found.append(str(error))


class UnownedMemory(BaseMemory):
    def __init__(self, ptr: int, size: int, owner: object, device_id: int = -1) -> None:
        if device_id < 0:
            heap = _state.heap_of(ptr)
            device_id = runtime.device_of(ptr) if heap is None and ptr else _state.current_device()
            device_id = heap.device_id if heap is not None else device_id
        self.ptr, self.size, self._owner, self.device_id = int(ptr), int(size), owner, device_id


def _malloc(size: int) -> int:
    try:
        return runtime.malloc(size)
    except CUDARuntimeError as error:
        if error.status != 2:
            raise
        raise OutOfMemoryError(size, _state.heap(_state.current_device()).used_nbytes) from None


class MemoryPointer:
    """An address inside memory that it keeps alive."""

    def __init__(self, mem: BaseMemory, offset: int) -> None:
        self.mem = mem
        self.ptr = mem.ptr + offset

    @property
    def device_id(self) -> int:
        return self.mem.device_id

    @property
    def device(self) -> Any:
        return self.mem.device

    def __int__(self) -> int:
        return self.ptr

    def __add__(self, offset: int) -> MemoryPointer:
        return MemoryPointer(self.mem, self.ptr - self.mem.ptr + offset)

    __radd__ = __add__

    def __sub__(self, offset: int) -> MemoryPointer:
        return self + -offset

    def copy_from_device(self, src: MemoryPointer, size: int) -> None:
        runtime.memcpy(self.ptr, src.ptr, size, runtime.memcpyDefault)

    def copy_from_device_async(self, src: MemoryPointer, size: int, stream: Any = None) -> None:
        runtime.memcpyAsync(self.ptr, src.ptr, size, runtime.memcpyDefault, _handle(stream))

    def copy_from_host(self, mem: Any, size: int) -> None:
        runtime.memcpy(self.ptr, _address(mem), size, runtime.memcpyHostToDevice)

    def copy_from_host_async(self, mem: Any, size: int, stream: Any = None) -> None:
        runtime.memcpyAsync(self.ptr, _address(mem), size, runtime.memcpyHostToDevice, _handle(stream))

    def copy_from(self, mem: Any, size: int) -> None:
        copy = self.copy_from_device if isinstance(mem, MemoryPointer) else self.copy_from_host
        copy(mem, size)

    def copy_from_async(self, mem: Any, size: int, stream: Any = None) -> None:
        copy = self.copy_from_device_async if isinstance(mem, MemoryPointer) else self.copy_from_host_async
        copy(mem, size, stream)

    def copy_to_host(self, mem: Any, size: int) -> None:
        runtime.memcpy(_address(mem), self.ptr, size, runtime.memcpyDeviceToHost)

    def copy_to_host_async(self, mem: Any, size: int, stream: Any = None) -> None:
        runtime.memcpyAsync(_address(mem), self.ptr, size, runtime.memcpyDeviceToHost, _handle(stream))

    def memset(self, value: int, size: int) -> None:
        runtime.memset(self.ptr, value, size)

    def memset_async(self, value: int, size: int, stream: Any = None) -> None:
        runtime.memsetAsync(self.ptr, value, size, _handle(stream))


def _handle(stream: Any) -> int:
    return _state.current_stream() if stream is None else int(stream.ptr)


def _address(mem: Any) -> int:
    value = mem if isinstance(mem, int) else mem.value if isinstance(mem, ctypes.c_void_p) else mem.ptr
    return int(value or 0)


class _Pooled(BaseMemory):
    """A block of a pool; it goes back to the stream that it was asked for on."""

    def __init__(self, pool: MemoryPool, chunk: BaseMemory, key: tuple[int, int], asked: int) -> None:
        self._pool, self._chunk, self._key = pool, chunk, key
        self.ptr, self.size, self.device_id = chunk.ptr, asked, chunk.device_id
        self._heap = _state.heap_of(chunk.ptr)
        if self._heap is not None:
            if _state.lazy:
                _state.stream_of(key[1]).drain()  # who had the block before may still write into it
            self._heap.lend(chunk.ptr, asked, chunk.size)

    def free(self) -> None:
        chunk, self._chunk = self._chunk, None  # type: ignore[assignment]
        if chunk is not None and not chunk.ptr:  # garbage at once with its memory, which went first
            self.ptr = 0
        elif chunk is not None:
            if self._heap is not None:
                if _state.lazy:
                    with suppress(CUDARuntimeError):  # the stream may be gone, and its work done with it
                        _state.stream_of(self._key[1]).drain()
                self._heap.end_lending(self.ptr, self.size)
            self.ptr = 0
            self._pool.take_back(chunk, self._key)

    def __del__(self) -> None:
        try:
            self.free()
        except _heap.WroteBehind as error:  # the collector of garbage can't be told: fake.check() says it
            if self._heap is not None:
                self._heap.found.append(str(error))


#: blocks that pools have free: they stay where a pool is dropped, as CuPy's do
_free_of_all: set[BaseMemory] = set()


class MemoryPool:
    """Blocks are kept by device and stream, whole: what fits best of the free ones is used."""

    def __init__(self, allocator: Callable[[int], MemoryPointer] | None = None) -> None:
        self._allocator = allocator
        self._lock = threading.RLock()
        self._free: dict[tuple[int, int], list[BaseMemory]] = {}
        self._total: dict[int, int] = {}
        self._used: dict[int, int] = {}
        self._limit: dict[int, int] = {}

    def malloc(self, size: int) -> MemoryPointer:
        if size == 0:
            return MemoryPointer(UnownedMemory(0, 0, None, _state.current_device()), 0)
        rounded = -(-size // 512) * 512
        device_id = _state.current_device()
        key = (device_id, _state.current_stream())
        with self._lock:
            blocks = self._free.setdefault(key, [])
            fitting = [block for block in blocks if rounded <= block.size <= rounded * 2]
            if fitting:
                chunk = min(fitting, key=lambda block: block.size)
                blocks.remove(chunk)
                _free_of_all.discard(chunk)
            else:
                chunk = self._more(rounded, device_id)
            self._used[device_id] = self._used.get(device_id, 0) + chunk.size
        return MemoryPointer(_Pooled(self, chunk, key, size), 0)

    def _more(self, rounded: int, device_id: int) -> BaseMemory:
        limit, total = self._limit.get(device_id, 0), self._total.get(device_id, 0)
        if limit and total + rounded > limit:
            self.free_all_blocks()
            total = self._total.get(device_id, 0)
            if total + rounded > limit:
                raise OutOfMemoryError(rounded, total, limit)
        try:
            chunk = self._chunk(rounded)
        except (OutOfMemoryError, CUDARuntimeError):
            self.free_all_blocks()
            try:
                chunk = self._chunk(rounded)
            except (OutOfMemoryError, CUDARuntimeError):
                raise OutOfMemoryError(rounded, self._total.get(device_id, 0), limit) from None
        self._total[device_id] = self._total.get(device_id, 0) + chunk.size
        return chunk

    def _chunk(self, size: int) -> BaseMemory:
        if self._allocator is None:
            return Memory(size)
        memory = self._allocator(size).mem
        memory.size = size
        return memory

    def take_back(self, chunk: BaseMemory, key: tuple[int, int]) -> None:
        with self._lock:
            self._used[key[0]] -= chunk.size
            self._free.setdefault(key, []).append(chunk)
            _free_of_all.add(chunk)

    def free_all_blocks(self, stream: Any = None) -> None:
        with self._lock:
            device_id = _state.current_device()
            for key, blocks in self._free.items():
                if key[0] == device_id and (stream is None or key[1] == stream.ptr):
                    self._total[device_id] = self._total.get(device_id, 0) - sum(block.size for block in blocks)
                    _free_of_all.difference_update(blocks)
                    blocks.clear()

    def free_all_free(self) -> None:
        self.free_all_blocks()

    def n_free_blocks(self) -> int:
        with self._lock:
            return sum(len(blocks) for key, blocks in self._free.items() if key[0] == _state.current_device())

    def used_bytes(self) -> int:
        return self._used.get(_state.current_device(), 0)

    def total_bytes(self) -> int:
        return self._total.get(_state.current_device(), 0)

    def free_bytes(self) -> int:
        return self.total_bytes() - self.used_bytes()

    def set_limit(self, size: int | None = None, fraction: float | None = None) -> None:
        if size is None:
            if fraction is None:
                raise ValueError("size or fraction must be specified")
            if not 0 <= fraction <= 1:
                raise ValueError(f"memory limit fraction out of range: {fraction}")
            size = int(fraction * runtime.memGetInfo()[1])
        elif fraction is not None:
            raise ValueError("size and fraction cannot be specified at one time")
        if size < 0:
            raise ValueError(f"memory limit size out of range: {size}")
        self._limit[_state.current_device()] = size

    def get_limit(self) -> int:
        return self._limit.get(_state.current_device(), 0)


class _ForeignMemory(BaseMemory):
    def __init__(self, ptr: int, size: int, device_id: int, give_back: Callable[[int, int], Any]) -> None:
        self.ptr, self.size, self.device_id, self._give_back = ptr, size, device_id, give_back
        runtime.foreign[ptr] = (size, device_id)

    def __del__(self) -> None:
        if self.ptr:
            address, self.ptr = self.ptr, 0
            runtime.foreign.pop(address, None)
            self._give_back(address, self.device_id)


class PythonFunctionAllocator:
    def __init__(self, malloc_func: Callable[[int, int], int], free_func: Callable[[int, int], None]) -> None:
        self._malloc, self._free = malloc_func, free_func

    def malloc(self, size: int) -> MemoryPointer:
        device_id = _state.current_device()
        return MemoryPointer(_ForeignMemory(self._malloc(size, device_id), size, device_id, self._free), 0)


class CFunctionAllocator:
    """``void* malloc(void* param, size_t size, int device)``, ``void free(void* param, void* ptr, int device)``."""

    def __init__(self, param: int, malloc_func: int, free_func: int, owner: object) -> None:
        self._owner = owner
        malloc = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)(malloc_func)
        free = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int)(free_func)
        self._malloc = lambda size, device_id: int(malloc(param, size, device_id) or 0)
        self._free = lambda ptr, device_id: free(param, ptr, device_id)

    def malloc(self, size: int) -> MemoryPointer:
        device_id = _state.current_device()
        return MemoryPointer(_ForeignMemory(self._malloc(size, device_id), size, device_id, self._free), 0)


default_pool = MemoryPool()
_allocator: Callable[[int], MemoryPointer] = default_pool.malloc
_of_thread = threading.local()


def malloc_raw(size: int) -> MemoryPointer:
    return MemoryPointer(Memory(size), 0)


def get_allocator() -> Callable[[int], MemoryPointer]:
    found: Callable[[int], MemoryPointer] | None = getattr(_of_thread, "allocator", None)
    return _allocator if found is None else found


def set_allocator(allocator: Callable[[int], MemoryPointer] | None = None) -> None:
    """None: memory by cudaMalloc, without a pool."""
    global _allocator
    if getattr(_of_thread, "allocator", None) is not None:
        raise ValueError("Can't change the global allocator inside `using_allocator` context manager.")
    _allocator = malloc_raw if allocator is None else allocator


@contextmanager
def using_allocator(allocator: Callable[[int], MemoryPointer] | None = None) -> Iterator[None]:
    before = getattr(_of_thread, "allocator", None)
    _of_thread.allocator = malloc_raw if allocator is None else allocator
    try:
        yield
    finally:
        _of_thread.allocator = before


def alloc(size: int) -> MemoryPointer:
    return get_allocator()(size)


def malloc_async(size: int) -> MemoryPointer:
    return malloc_raw(size)
