"""A link from a GPU to one of another host: a communicator of two, and a connection over which values are asked for.

The reader asks when it has memory for a value; the sender gives the send to its GPU and says so; the reader then gives
its GPU the receive. Sends and receives are so in one order on both sides, and each has its other half: nothing is sent
that nobody asked for. A link has a thread at each end, which alone uses the communicator. When either end goes, the
other hears it by the connection and aborts: its GPU stands still no longer, and its memory is free.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from distort.cluster.errors import ClusterError, SenderLost
from distort.cluster.gpu.announced import Announced
from distort.cluster.gpu.buffers import Buffer, Buffers
from distort.cluster.gpu.control import GONE, READY, SENDING, WANT, Control, LinkCut
from distort.cluster.gpu.nccl import RECEIVER, SENDER, Communicator, NcclFailed

if TYPE_CHECKING:
    from distort.cluster.orders import FarValue, Offer

#: how long both ends may take until the first bytes have come
JOIN_TIMEOUT_S = 60.0
#: how long a value that is ready may take to be sent, besides its bytes at a rate that any network has
SEND_TIMEOUT_S = 30.0
_LEAST_NBYTES_PER_S = 1e7
#: how often a thread looks after what is under way
_TICK_S = 0.2
#: how long a receive is waited for between looks, at first and at most
_LEAST_PAUSE_S, _MOST_PAUSE_S = 2e-5, 5e-4
#: what is sent to see whether the link works
_TRIAL_NBYTES, _TRIAL_BYTE = 4096, 0x5A


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
        self.nbytes = 0  # that went

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
        buffer = self._buffers.take(_TRIAL_NBYTES)
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
        while (told := control.hear(_TICK_S)) is None:
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


@dataclass(frozen=True, slots=True)
class Waiting:
    """A value that waits to be asked for."""

    buffer: Buffer
    ready: Any  # the event behind which it is there
    nbytes: int


@dataclass(slots=True)
class _Sent:
    value: Waiting
    event: Any  # behind which it is sent
    since: float = 0.0  # when it was seen to be ready


class SendingLink(Link):
    """``announced`` has what the reader may ask for, with ``lock`` as its guard; ``listener`` is where it connects."""

    def __init__(
        self,
        offer: Offer,
        unit: int,
        peer: str,
        use: Callable[[], None],
        buffers: Buffers,
        on_end: Callable[[Link], None],
        listener: socket.socket,
        announced: Announced[Waiting],
        guard: threading.Lock,
    ) -> None:
        super().__init__(peer, use, buffers, on_end)
        self._offer, self._unit, self._listener = offer, unit, listener
        self._announced, self._guard = announced, guard
        self._under_way: list[_Sent] = []

    def _connect(self, deadline: float) -> Control:
        with self._listener:
            return Control.accepted(self._listener, self._offer.token, deadline)

    def _unique_id(self) -> bytes:
        return self._offer.unique_id

    def _try(self, control: Control, buffer: Buffer) -> None:
        runtime: Any = self._cupy.cuda.runtime
        runtime.memsetAsync(buffer.address, _TRIAL_BYTE, _TRIAL_NBYTES, self._stream.ptr)
        self._communicator.send(buffer.address, _TRIAL_NBYTES, self._stream)
        self._record(buffer)
        self._hear_ready(control)
        self._settled.set()
        control.say(READY)

    def _turn(self) -> None:
        assert self._control is not None
        told = self._control.hear(_TICK_S if self._under_way else 5 * _TICK_S)
        if told is not None and told[0] == WANT:
            self._send(self._control, told[1])
        self._look()

    def _send(self, control: Control, key: int) -> None:
        with self._guard:
            value = self._announced.take(key, self._unit)
            if value is not None:
                self._stream.wait_event(value.ready)
                self._communicator.send(value.buffer.address, value.nbytes, self._stream)
                self._under_way.append(_Sent(value, self._record(value.buffer)))
                self._announced.taken(key, self._unit)
        if value is None:
            control.say(GONE, key)
            return
        self.nbytes += value.nbytes
        control.say(SENDING, key, value.nbytes)

    def _look(self) -> None:
        """Raises LinkCut where the network takes too long, NcclFailed where it is gone."""
        self._under_way = [sent for sent in self._under_way if not sent.event.done]
        if not self._under_way:
            return
        self._communicator.check()
        first, now = self._under_way[0], time.monotonic()
        if first.value.ready.done:
            first.since = first.since or now
            nbytes = first.value.nbytes
            if now > first.since + SEND_TIMEOUT_S + nbytes / _LEAST_NBYTES_PER_S:
                raise LinkCut(f"{nbytes} bytes were not sent within {now - first.since:.0f} s")

    def close(self, why: str = "closed") -> None:
        super().close(why)
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # where it waits for the reader still

    def _ended(self) -> None:
        self._listener.close()


@dataclass(slots=True, eq=False)
class Transfer:
    """A value on its way to this GPU."""

    value: FarValue
    buffer: Buffer
    event: Any = None  # behind which it is here
    gone: bool = False  # the sender has it no more
    abandoned: bool = False  # nobody waits for it
    posted: threading.Event = field(default_factory=threading.Event)


class ReceivingLink(Link):
    rank = RECEIVER

    def __init__(
        self,
        offer: Offer,
        peer: str,
        use: Callable[[], None],
        buffers: Buffers,
        on_end: Callable[[Link], None],
    ) -> None:
        super().__init__(peer, use, buffers, on_end)
        self.offer = offer
        self._transfers: dict[int, Transfer] = {}  # asked for, by key

    def _connect(self, deadline: float) -> Control:
        return Control.connected(self.offer.address, self.offer.port, self.offer.token, deadline)

    def _unique_id(self) -> bytes:
        return self.offer.unique_id

    def _try(self, control: Control, buffer: Buffer) -> None:
        import numpy as np

        self._communicator.receive(buffer.address, _TRIAL_NBYTES, self._stream)
        self._until(control, self._record(buffer))
        found = np.empty(_TRIAL_NBYTES, np.uint8)
        runtime: Any = self._cupy.cuda.runtime
        runtime.memcpyAsync(
            found.ctypes.data, buffer.address, _TRIAL_NBYTES, runtime.memcpyDeviceToHost, self._stream.ptr
        )
        self._stream.synchronize()
        if not (found == _TRIAL_BYTE).all():
            raise NcclFailed("what was received is not what was sent")
        control.say(READY)
        self._hear_ready(control)

    # -- for the thread that runs the stage

    def ask(self, value: FarValue, buffer: Buffer) -> Transfer:
        """For a value, into a buffer that is held. Raises SenderLost."""
        transfer = Transfer(value, buffer)
        with self._lock:
            if self.obstacle:
                buffer.held = False
                raise self._lost(value)
            self._transfers[value.key] = transfer
            control = self._control
        assert control is not None
        try:
            control.say(WANT, value.key)
        except LinkCut as cut:
            self.close(str(cut))
        return transfer

    def wait_for(self, transfer: Transfer, is_cancelled: Callable[[], bool]) -> None:
        """Until the value is in its buffer. Raises SenderLost, and ClusterError where the run is cancelled."""
        while not transfer.posted.wait(_TICK_S):
            self._look_at(transfer, is_cancelled)
        pause_s = _LEAST_PAUSE_S
        while not (transfer.gone or transfer.event is None or transfer.event.done):
            self._look_at(transfer, is_cancelled)
            time.sleep(pause_s)
            pause_s = min(1.5 * pause_s, _MOST_PAUSE_S)
        # an abort ends a receive too: then the link has had its obstacle before
        if self.obstacle or transfer.gone or transfer.event is None:
            self.abandon(transfer)
            raise self._lost(transfer.value)
        self.nbytes += transfer.value.nbytes

    def _look_at(self, transfer: Transfer, is_cancelled: Callable[[], bool]) -> None:
        if self.obstacle:
            self.abandon(transfer)
            raise self._lost(transfer.value)
        if is_cancelled():
            self.abandon(transfer)
            raise ClusterError("The run was cancelled while it waited for a value of another host's GPU.")

    def abandon(self, transfer: Transfer) -> None:
        """Nobody waits for it; what was asked for comes all the same, so that sends and receives stay in step."""
        with self._lock:
            transfer.abandoned = True
            if transfer.posted.is_set():
                transfer.buffer.held = False

    def _lost(self, value: FarValue) -> SenderLost:
        why = self.obstacle or "it has let go of the value"
        return SenderLost(f"A value can't come from {self.peer} by NCCL: {why}.", value.unit)

    # -- the thread

    def _turn(self) -> None:
        assert self._control is not None
        told = self._control.hear(_TICK_S if self._transfers else 5 * _TICK_S)
        if told is None:
            self._communicator.check()
            return
        kind, key, nbytes = told
        with self._lock:
            transfer = self._transfers.pop(key, None)
        if transfer is None:
            raise LinkCut(f"the other end speaks of a value {key} that nobody asked for")
        if kind == GONE:
            transfer.gone = True
        elif nbytes != transfer.value.nbytes:
            raise LinkCut(f"the other end sends {nbytes} bytes of {transfer.value.nbytes}")
        else:
            self._communicator.receive(transfer.buffer.address, nbytes, self._stream)
            transfer.event = self._record(transfer.buffer)
        self._posted(transfer)

    def _posted(self, transfer: Transfer) -> None:
        with self._lock:
            transfer.posted.set()
            if transfer.abandoned:
                transfer.buffer.held = False

    def _ended(self) -> None:
        with self._lock:
            left, self._transfers = self._transfers, {}
        for transfer in left.values():
            self._posted(transfer)
