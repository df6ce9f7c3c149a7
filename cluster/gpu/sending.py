"""The end of a link that sends: what is asked for, in the order in which it is."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from distort.cluster.gpu.announced import Announced
from distort.cluster.gpu.buffers import Buffer, Buffers
from distort.cluster.gpu.control import GONE, READY, SENDING, WANT, Control, LinkCut
from distort.cluster.gpu.links import TICK_S, TRIAL_BYTE, TRIAL_NBYTES, Link

if TYPE_CHECKING:
    from distort.cluster.orders import Offer

#: how long a value that is ready may take to be sent, besides its bytes at a rate that any network has
SEND_TIMEOUT_S = 30.0
_LEAST_NBYTES_PER_S = 1e7


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
        runtime.memsetAsync(buffer.address, TRIAL_BYTE, TRIAL_NBYTES, self._stream.ptr)
        self._communicator.send(buffer.address, TRIAL_NBYTES, self._stream)
        self._record(buffer)
        self._hear_ready(control)
        self._settled.set()
        control.say(READY)

    def _turn(self) -> None:
        assert self._control is not None
        told = self._control.hear(TICK_S if self._under_way else 5 * TICK_S)
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
