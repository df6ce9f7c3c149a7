"""Slots of shared memory page-locked, so that a GPU copies from and to them by itself: they are the pinned buffers."""

from __future__ import annotations

import contextlib
import mmap
from typing import Any

import numpy as np


class Pinning:
    """Of one process. Where the system doesn't lock (a limit of locked memory), copies are right and take longer."""

    def __init__(self) -> None:
        import cupy

        self._runtime: Any = cupy.cuda.runtime
        self._locked: dict[int, int] = {}  # id of the mapping -> its address
        #: why memory is not locked; nothing while it is
        self.obstacle = ""

    @property
    def n_locked(self) -> int:
        return len(self._locked)

    def lock(self, memory: Any) -> None:
        if self.obstacle or not isinstance(memory, mmap.mmap):
            return
        address = int(np.frombuffer(memory, np.uint8, 1).ctypes.data)
        try:
            self._runtime.hostRegister(address, len(memory), 0)
        except self._runtime.CUDARuntimeError as error:
            self.obstacle = str(error)
            return
        self._locked[id(memory)] = address

    def unlock(self, memory: Any) -> None:
        """Before the mapping ends. What the GPU was given to copy is done first."""
        address = self._locked.pop(id(memory), None)
        if address is not None:
            with contextlib.suppress(self._runtime.CUDARuntimeError):
                self._runtime.deviceSynchronize()
                self._runtime.hostUnregister(address)
