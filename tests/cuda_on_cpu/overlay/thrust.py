"""``cupy.cuda.thrust`` by NumPy, in the current stream: sorts along the last axis."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from cupy.cuda import stream as _stream

available = True
_Work = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_enqueue = ctypes.CDLL("libcuda.so.1").cuda_on_cpu_enqueue
_enqueue.argtypes = [ctypes.c_void_p, _Work, ctypes.c_void_p]
#: a captured graph may call them again
_kept: list[Any] = []


def get_build_version() -> int:
    return 0


def sort(dtype: Any, data_start: int, keys_start: int, shape: Sequence[int]) -> None:
    sizes = tuple(shape)
    _put(lambda: _array(data_start, sizes, dtype).sort(axis=-1, kind="stable"))


def argsort(dtype: Any, idx_start: int, data_start: int, keys_start: int, shape: Sequence[int]) -> None:
    sizes = tuple(shape)

    def act() -> None:
        data = _array(data_start, sizes, dtype)
        _array(idx_start, sizes, np.uint64)[...] = data.argsort(axis=-1, kind="stable")
        data.sort(axis=-1, kind="stable")  # as the real one leaves it

    _put(act)


def lexsort(dtype: Any, idx_start: int, keys_start: int, k: int, n: int) -> None:
    def act() -> None:
        _array(idx_start, (n,), np.uint64)[...] = np.lexsort(_array(keys_start, (k, n), dtype))

    _put(act)


def _put(act: Callable[[], None]) -> None:
    work = _Work(lambda _: act())
    _kept.append(work)
    if code := _enqueue(_stream.get_current_stream().ptr, work, None):
        raise RuntimeError(f"thrust: CUDA error {code}")


def _array(address: int, shape: tuple[int, ...], dtype: Any) -> np.ndarray[Any, Any]:
    nbytes = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    return np.frombuffer((ctypes.c_char * nbytes).from_address(address), dtype).reshape(shape)
