"""What a program and its parts share: the slab and the stream, at which their runs take turns, and constants."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from distort.kernels.compiler.constants import Constants
from distort.kernels.cuda.context import Context
from distort.kernels.cuda.slab import Slab


class Workspace:
    """One run at a time has it; on the stream the next may follow while the GPU is at the last one."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._lock = threading.RLock()
        doubles = context.options.arena_extend_strategy == "kNextPowerOfTwo"
        self.slab = Slab(context.pool, doubles=doubles)
        #: weights as kernels want them, for all plans
        self.constants = Constants()
        #: what runs under way use, each with an event that says when it is done
        self._held: deque[tuple[Any, tuple[Any, ...]]] = deque()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """This thread's alone; the GPU, its stream and its memory are those that CuPy uses."""
        with self._lock, self._context.using():
            yield

    def settle(self) -> None:
        """Wait for all runs. Called in a turn."""
        self._context.stream.synchronize()
        self._held.clear()

    def hold(self, *what: Any) -> None:
        """Keep what a run that nobody waits for reads and writes: its memory may be other values' otherwise."""
        import cupy

        while self._held and self._held[0][0].done:
            self._held.popleft()
        done = cupy.cuda.Event(disable_timing=True)
        self._context.stream.record(done)
        self._held.append((done, what))


__all__ = ["Workspace"]
