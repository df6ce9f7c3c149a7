"""Memory of a GPU: a session's pool with its limit, arrays over memory of others, and running out of it in words."""

from __future__ import annotations

import ctypes
import gc
import math
import sys
import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from distort.kernels.cuda import device
from distort.kernels.cuda.options import CudaOptions
from distort.kernels.errors import OutOfMemory

#: dtypes that CuPy has no array of: their bytes lie in arrays of uint8, one an element, as NumPy's do
_BYTES = np.dtype(np.uint8)
#: NumPy's own dtypes have lower numbers; ``isbuiltin`` is 0 for those that were unpickled
_N_OWN = 24
_HOST, _DEVICE, _MANAGED = 1, 2, 3  # cudaMemoryType


def device_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """What CuPy holds elements of a dtype as: itself, or bytes where it has no such (8-bit floats, int4, …).

    Raises TypeError for text and other objects.
    """
    if dtype.num < _N_OWN and dtype.kind in "biufc" and dtype.isnative:
        return dtype
    if dtype.name == "bfloat16":
        return dtype
    if dtype.kind == "O" or dtype.itemsize != 1:
        raise TypeError(f"a GPU has no arrays of {dtype}: text, sequences and maps stay in this process's memory")
    return _BYTES


class Pool:
    """The GPU memory of one session: CuPy's pool with the session's limit, or the user's own allocator."""

    def __init__(self, options: CudaOptions) -> None:
        import cupy

        self.device_id = options.device_id
        self.limit_nbytes = options.limit_nbytes
        #: what the session has of the GPU beside the pool: it counts for the limit
        self.aside_nbytes = 0
        self._lock = threading.Lock()
        self._empty_cache: Any = None
        self._pool: Any = None
        if options.gpu_external_alloc:
            allocate = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_size_t)(options.gpu_external_alloc)
            release = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(options.gpu_external_free)
            if options.gpu_external_empty_cache:
                self._empty_cache = ctypes.CFUNCTYPE(None)(options.gpu_external_empty_cache)

            def take(nbytes: int, device_id: int) -> int:
                address = allocate(nbytes)
                if not address:
                    raise cupy.cuda.memory.OutOfMemoryError(nbytes, 0)
                return int(address)

            self._malloc = cupy.cuda.PythonFunctionAllocator(take, lambda address, device_id: release(address)).malloc
            return
        self._pool = cupy.cuda.MemoryPool()
        self._malloc = self._pool.malloc
        # CuPy's pools keep what is free for ever where nobody has them any more; at exit CUDA takes it
        weakref.finalize(self, _let_go, _Ending(cupy, self._pool, self.device_id)).atexit = False
        if self.limit_nbytes is not None:
            with device.current(self.device_id):
                self._pool.set_limit(size=self.limit_nbytes)

    def malloc(self, nbytes: int) -> Any:
        """A ``cupy.cuda.MemoryPointer``; the current device must be the pool's. Raises OutOfMemory."""
        with told(nbytes, self.device_id, self.limit_nbytes, self.aside_nbytes):
            return self._malloc(nbytes)

    def set_aside(self, nbytes: int) -> bool:
        """Whether the limit leaves room for memory that is taken beside the pool: it counts until it is given back."""
        with self._lock, device.current(self.device_id):
            if self.limit_nbytes is not None and self._pool is not None:
                left = self.limit_nbytes - self.aside_nbytes - nbytes
                if left < max(1, self._pool.used_bytes()):
                    return False
                if left < self._pool.total_bytes():
                    self._pool.free_all_blocks()
                if left < self._pool.total_bytes():
                    return False
                self._pool.set_limit(size=left)
            self.aside_nbytes += nbytes
            return True

    def give_back(self, nbytes: int) -> None:
        """Of what was set aside."""
        with self._lock, device.current(self.device_id):
            self.aside_nbytes -= nbytes
            if self.limit_nbytes is not None and self._pool is not None:
                self._pool.set_limit(size=self.limit_nbytes - self.aside_nbytes)

    @contextmanager
    def used(self) -> Iterator[None]:
        """The pool's device is the current one, and all that CuPy allocates in the block is of the pool."""
        import cupy

        with device.current(self.device_id), cupy.cuda.using_allocator(self.malloc):
            yield

    @property
    def used_nbytes(self) -> int:
        """What is in use; 0 with the user's own allocator, which counts for itself."""
        return self._of_device("used_bytes")

    @property
    def held_nbytes(self) -> int:
        """What the pool has of the GPU, in use or kept for later."""
        return self._of_device("total_bytes")

    def _of_device(self, figure: str) -> int:
        """CuPy's pools tell of the current device."""
        with device.current(self.device_id):
            return 0 if self._pool is None else int(getattr(self._pool, figure)())

    def shrink(self) -> None:
        """Give what is not in use back to the GPU."""
        with device.current(self.device_id):
            if self._pool is not None:
                self._pool.free_all_blocks()
            if self._empty_cache is not None:
                self._empty_cache()


class _Ending(NamedTuple):
    """A pool that nobody has any more. CuPy itself goes before it when Python ends."""

    cupy: ModuleType
    pool: Any
    device_id: int


#: of which something is still in use
_ending: list[_Ending] = []


def _let_go(ending: _Ending) -> None:
    """Give a pool that ends back to the GPU: what is free now, the rest when it is.

    What is freed after its pool is gone is lost, with all that it was cut from. So the pool stays until nothing is in
    use, which is looked at after Python's collections of garbage: what has memory is often among it.
    """
    _ending.append(ending)
    _sweep()
    if _ending and _after_collection not in gc.callbacks:
        gc.callbacks.append(_after_collection)


def _sweep() -> None:
    for ending in list(_ending):
        if _gives_back(ending):
            with suppress(ValueError):  # another thread may have done so
                _ending.remove(ending)


def _gives_back(ending: _Ending) -> bool:
    """Whether nothing is left of it."""
    cupy, pool, device_id = ending
    if sys.modules.get("cupy") is not cupy:
        return True
    try:
        with device.current(device_id):
            pool.free_all_blocks()
            return not pool.used_bytes()
    except cupy.cuda.runtime.CUDARuntimeError:  # the GPU is lost, and its memory with it
        return True


def _after_collection(phase: str, told: Mapping[str, int]) -> None:
    if phase == "stop" and told["generation"] > 0 and _ending:
        _sweep()


@contextmanager
def told(nbytes: int, device_id: int, limit_nbytes: int | None = None, aside_nbytes: int = 0) -> Iterator[None]:
    """Where the GPU has no room for ``nbytes``, the block raises OutOfMemory, which names what is wanted and free."""
    import cupy

    try:
        yield
    except cupy.cuda.memory.OutOfMemoryError as error:
        with device.current(device_id):
            free_nbytes, all_nbytes = cupy.cuda.runtime.memGetInfo()
        limited = "" if limit_nbytes is None else f"; gpu_mem_limit lets the session have {limit_nbytes}"
        if limited and aside_nbytes:
            limited += f", of which {aside_nbytes} are values for other GPUs"
        text = f"Failed to allocate memory for requested buffer of size {nbytes}: of cuda:{device_id}'s {all_nbytes} "
        text += f"bytes {free_nbytes} are free{limited}. Run smaller batches, or let go of values that stay there."
        raise OutOfMemory(text) from error


def empty(shape: Sequence[int], dtype: np.dtype[Any], device_id: int) -> Any:
    """A CuPy array, of bytes where CuPy lacks the dtype. Raises OutOfMemory; TypeError for text."""
    import cupy

    held = device_dtype(dtype)
    sizes = tuple(shape)
    with device.current(device_id), told(math.prod(sizes) * held.itemsize, device_id):
        return cupy.empty(sizes, held)


def zeros(shape: Sequence[int], dtype: np.dtype[Any], device_id: int) -> Any:
    """As :func:`empty`, of zeros, which are there when it returns."""
    import cupy

    made = empty(shape, dtype, device_id)
    with device.current(device_id):
        made.data.memset_async(0, made.nbytes)
        cupy.cuda.get_current_stream().synchronize()
    return made


def array_of(pointer: int, shape: Sequence[int], dtype: np.dtype[Any], device_id: int, owner: object = None) -> Any:
    """A CuPy array over memory that somebody else keeps alive, or that lives as long as ``owner``.

    Raises ValueError for an address that isn't in the memory of that GPU, or that no array of the dtype can have.
    """
    import cupy

    held = device_dtype(dtype)
    sizes = tuple(shape)
    nbytes = math.prod(sizes) * held.itemsize
    if not nbytes:
        return empty(sizes, dtype, device_id)
    with device.current(device_id):
        found = _attributes(pointer, device_id)
    if found.type not in (_DEVICE, _MANAGED):
        where = "pinned memory of this process" if found.type == _HOST else "no memory that CUDA knows"
        raise ValueError(f"{pointer:#x} is an address of {where}, not of cuda:{device_id}'s")
    if found.type == _DEVICE and found.device != device_id:
        raise ValueError(f"{pointer:#x} is an address of cuda:{found.device}'s memory, not of cuda:{device_id}'s")
    if pointer % held.itemsize:
        raise ValueError(f"{pointer:#x} is no multiple of {held.itemsize}, the size of an element of {dtype}")
    memory = cupy.cuda.UnownedMemory(pointer, nbytes, owner, device_id)
    return cupy.ndarray(sizes, held, cupy.cuda.MemoryPointer(memory, 0))


def is_lent(array: Any) -> bool:
    """Whether a CuPy array lies in memory that somebody else gives and takes back, and may write to."""
    import cupy

    return isinstance(array.data.mem, cupy.cuda.UnownedMemory)


def _attributes(pointer: int, device_id: int) -> Any:
    """What CUDA knows of an address. Before CuPy has used the GPU it may know nothing of other libraries' memory."""
    import cupy

    runtime = cupy.cuda.runtime
    found = runtime.pointerGetAttributes(pointer)
    if found.type in (_HOST, _DEVICE, _MANAGED):
        return found
    with cupy.cuda.Device(device_id):
        runtime.memGetInfo()  # as CuPy does before it asks
    return runtime.pointerGetAttributes(pointer)
