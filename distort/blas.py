"""Threads of the BLAS beneath numpy. They are the process's: sessions that differ set them anew on each run."""

from __future__ import annotations

import threading
from typing import Any

_lock = threading.Lock()
_threads_in_use = 0
_blas: list[tuple[Any, int]] = []  # each library, and the threads that it had before any session chose


def use_threads(n_threads: int) -> None:
    """Threads of the BLAS in this process; 0: what it had."""
    global _threads_in_use  # noqa: PLW0603  # the library's setting is the process's
    if _threads_in_use == n_threads:
        return
    with _lock:
        if _threads_in_use == n_threads:
            return
        if not _blas:
            from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]  # it ships no types

            _blas.extend((library, library.num_threads) for library in ThreadpoolController().lib_controllers)
        for library, default in _blas:
            library.set_num_threads(n_threads or default)
        _threads_in_use = n_threads
