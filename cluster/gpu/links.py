"""A link from a GPU to one of another host: a communicator of two, and a connection over which values are asked for.

The reader asks when it has memory for a value; the sender gives the send to its GPU and says so; the reader then gives
its GPU the receive. Sends and receives are so in one order on both sides, and each has its other half: nothing is sent
that nobody asked for. A link has a thread at each end, which alone uses the communicator. When either end goes, the
other hears it by the connection and aborts: its GPU stands still no longer, and its memory is free.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from distort.cluster.gpu.buffers import Buffer, Buffers
from distort.cluster.gpu.control import READY, Control, LinkCut
from distort.cluster.gpu.nccl import SENDER, Communicator, NcclFailed

#: how long both ends may take until the first bytes have come
JOIN_TIMEOUT_S = 60.0
#: how often a thread looks after what is under way
TICK_S = 0.2
#: what is sent to see whether the link works
TRIAL_NBYTES, TRIAL_BYTE = 4096, 0x5A


class Link:
    """One end. ``use`` makes the GPU the calling thread's; ``peer`` is what people call the unit at the other."""

    rank = SENDER

    def __init__(self, peer: str, use: Callable[[], None], buffers: Buffers, on_end: Callable[[Link], None]) -> None:
        import cupy

        self.peer = peer
        self._cupy: Any = cupy
        self._use, self._buffers, self._on_end = use, buffers, on_end
        self._control: Control | None = None
        self._communicator: Any = None
        self._stream: Any = None
        self._settled = threading.Event()  # it works, or never will
        self._over = threading.Event()  # its communicator is ended
        self._lock = threading.Lock()
        #: why it does not work (any more)
        self.obstacle = ""

    def start(self) -> None:
        threading.Thread(target=self._go, name="distort-nccl", daemon=True).start()

    @property
    def works(self) -> bool:
        return self._settled.is_set() and not self.obstacle

    def wait(self, timeout_s: float) -> str:
        """Why it does not work, after up to ``timeout_s``; nothing where it does."""
        if not self._settled.wait(timeout_s):
            # the thread may be inside NCCL, which waits for the other end; it ends the link where it comes out
            self.close(f"no link within {timeout_s:g} s: look at NCCL_SOCKET_IFNAME, and at NCCL_DEBUG=INFO's lines")
        return self.obstacle

    def close(self, why: str = "closed") -> None:
        """From any thread; the link's own then ends the communicator."""
        with self._lock:
            self.obstacle = self.obstacle or why
            control = self._control
        if control is not None:
            control.shut()
        self._settled.set()

    def wait_for_end(self, timeout_s: float) -> bool:
        """After :meth:`close`: whether the communicator is ended. A thread inside NCCL may stay there."""
        return self._over.wait(timeout_s)

    # -- the thread

    def _go(self) -> None:
        runtime: Any = self._cupy.cuda.runtime
        try:
            self._use()
            self._join()
            while not self.obstacle:
                self._turn()
        except (
            LinkCut,
            NcclFailed,
            OSError,
            runtime.CUDARuntimeError,
            self._cupy.cuda.memory.OutOfMemoryError,
        ) as error:
            self.close(str(error))
        finally:
            self.close()
            if self._communicator is not None:
                self._communicator.abort()
            if self._control is not None:
                self._control.close()
            self._ended()
            self._on_end(self)
            self._over.set()

    def _join(self) -> None:
        control = self._connect(time.monotonic() + JOIN_TIMEOUT_S)
        with self._lock:
            self._control = control
        self._stream = self._cupy.cuda.Stream(non_blocking=True)
        self._communicator = Communicator(self._unique_id(), self.rank)
        buffer = self._buffers.take(TRIAL_NBYTES)
        if buffer is None:
            raise NcclFailed("no memory on the GPU to begin with")
        try:
            self._try(control, buffer)
        finally:
            buffer.held = False
        self._settled.set()

    def _until(self, control: Control, event: Any) -> None:
        """Wait for the trial. Raises LinkCut, NcclFailed."""
        while not event.done and not self.obstacle:
            if (told := control.hear(0.001)) is not None:
                raise LinkCut(f"the other end says {told} out of turn")
            self._communicator.check()
        if self.obstacle:
            raise LinkCut(self.obstacle)

    def _hear_ready(self, control: Control) -> None:
        """Raises LinkCut, NcclFailed."""
        deadline = time.monotonic() + JOIN_TIMEOUT_S
        while (told := control.hear(TICK_S)) is None:
            if self.obstacle or time.monotonic() > deadline:
                raise LinkCut(self.obstacle or "the other end does not say that it works")
            self._communicator.check()
        if told[0] != READY:
            raise LinkCut(f"the other end says {told} out of turn")

    def _record(self, buffer: Buffer) -> Any:
        event = self._cupy.cuda.Event(disable_timing=True)
        event.record(self._stream)
        buffer.events.append(event)
        return event

    def _connect(self, deadline: float) -> Control:
        raise NotImplementedError

    def _unique_id(self) -> bytes:
        raise NotImplementedError

    def _try(self, control: Control, buffer: Buffer) -> None:
        """One value goes, and is looked at."""
        raise NotImplementedError

    def _turn(self) -> None:
        """Hear what the other end says, for a while, and look after what is under way."""
        raise NotImplementedError

    def _ended(self) -> None:
        """The communicator is aborted."""
