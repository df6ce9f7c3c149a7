"""The end of a link that receives: asks for values, and posts a receive for each that the other end sends."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from distort.cluster.errors import ClusterError, SenderLost
from distort.cluster.gpu.buffers import Buffer, Buffers
from distort.cluster.gpu.control import GONE, READY, WANT, Control, LinkCut
from distort.cluster.gpu.links import TICK_S, TRIAL_BYTE, TRIAL_NBYTES, Link
from distort.cluster.gpu.nccl import RECEIVER, NcclFailed

if TYPE_CHECKING:
    from distort.cluster.orders import FarValue, Offer

#: how long a receive is waited for between looks, at first and at most
_LEAST_PAUSE_S, _MOST_PAUSE_S = 2e-5, 5e-4


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

        self._communicator.receive(buffer.address, TRIAL_NBYTES, self._stream)
        self._until(control, self._record(buffer))
        found = np.empty(TRIAL_NBYTES, np.uint8)
        runtime: Any = self._cupy.cuda.runtime
        runtime.memcpyAsync(
            found.ctypes.data, buffer.address, TRIAL_NBYTES, runtime.memcpyDeviceToHost, self._stream.ptr
        )
        self._stream.synchronize()
        if not (found == TRIAL_BYTE).all():
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
        while not transfer.posted.wait(TICK_S):
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
        told = self._control.hear(TICK_S if self._transfers else 5 * TICK_S)
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
