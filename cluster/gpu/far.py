"""Values between this actor's GPU and those of other hosts, by NCCL."""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from distort.cluster.errors import ClusterError, SenderLost
from distort.cluster.gpu.announced import Announced
from distort.cluster.gpu.buffers import Buffer, Buffers
from distort.cluster.gpu.control import listen
from distort.cluster.gpu.links import JOIN_TIMEOUT_S, Link
from distort.cluster.gpu.nccl import make_unique_id, measure
from distort.cluster.gpu.receiving import ReceivingLink
from distort.cluster.gpu.sending import SendingLink, Waiting
from distort.cluster.orders import FarValue, NcclFacts, Offer
from distort.cluster.shm.wire import element_that_travels
from distort.graph.types import DTYPE_OF

if TYPE_CHECKING:
    from distort.cluster.gpu.stage import GpuStage

#: how long an actor that is to end waits for its links
_END_TIMEOUT_S = 2.0


class Received:
    """A tensor from another host's GPU, in a buffer of this one's until it is released."""

    __slots__ = ("buffer", "dims", "dtype")

    def __init__(self, buffer: Buffer, dtype: np.dtype[Any], dims: tuple[int, ...]) -> None:
        self.buffer, self.dtype, self.dims = buffer, dtype, dims

    def array(self) -> Any:
        import cupy

        return cupy.ndarray(self.dims, self.dtype, cupy.cuda.MemoryPointer(self.buffer.block, 0))


class FarValues:
    """Of one actor, ``unit``. Links are made by calls of the caller's, and serve themselves."""

    def __init__(self, unit: int, gpu: GpuStage) -> None:
        self._unit, self._gpu = unit, gpu
        self.facts: NcclFacts = measure(gpu.device_id)
        self._process = f"{os.getpid()}-{secrets.token_hex(8)}"
        self._guard = threading.Lock()
        self._announced: Announced[Waiting] = Announced(_let_go)
        budget = gpu.program.context.pool
        with gpu.current():
            self._outgoing, self._incoming = Buffers(budget), Buffers(budget)
        self._sending: dict[int, SendingLink] = {}
        self._receiving: dict[int, ReceivingLink] = {}
        #: what people call units of other hosts, and why values go to them by another way
        self._detours: dict[str, str] = {}

    # -- links

    def offer(self, unit: int, peer: str, address: str) -> Offer:
        """Begin a link to a unit that reads this one's values, in place of one that there was.

        ``address`` is this host's, as other hosts know it. Raises ClusterError where NCCL does not work here.
        """
        if self.facts.obstacle:
            raise ClusterError(self.facts.obstacle)
        before = self._sending.pop(unit, None)
        if before is not None:
            before.close("another takes its place")
        with self._guard:
            self._announced.lose(unit)
        try:
            listener = listen(address)
        except OSError as error:
            raise ClusterError(f"can't listen at {address}: {error}") from error
        port = listener.getsockname()[1]
        try:
            offer = Offer(self._unit, self._process, address, port, secrets.token_bytes(32), make_unique_id())
        except BaseException:
            listener.close()
            raise
        link = SendingLink(
            offer, unit, peer, self._gpu.use, self._outgoing, self._sender_ended, listener, self._announced, self._guard
        )
        self._sending[unit] = link
        self._detours.pop(peer, None)
        link.start()
        return offer

    def accept(self, offer: Offer, peer: str) -> str:
        """The other end of a link. Why it does not work, which takes a while to say; nothing where it does."""
        if self.facts.obstacle:
            return self.facts.obstacle
        before = self._receiving.pop(offer.unit, None)
        if before is not None:
            before.close("another takes its place")
        link = ReceivingLink(offer, peer, self._gpu.use, self._incoming, _nothing)
        self._receiving[offer.unit] = link
        link.start()
        return link.wait(JOIN_TIMEOUT_S)

    def give_up(self, unit: int, peer: str, why: str) -> None:
        """There is no link to a unit, as its other end says."""
        link = self._sending.pop(unit, None)
        if link is not None:
            link.close(why)
        self._detours[peer] = link.obstacle if link is not None else why  # what was wrong here comes first

    def _sender_ended(self, link: Link) -> None:
        for unit, other in list(self._sending.items()):
            if other is link:
                with self._guard:
                    self._announced.lose(unit)

    # -- values

    def announce(self, run: int, name: str, value: Any, units: Sequence[int]) -> FarValue | None:
        """Let units of other hosts have a value, which is copied; None where it has to go another way.

        Called with the GPU current.
        """
        gpu = self._gpu
        if not gpu.is_on_gpu(value) or gpu.dtype_of(name, value) != value.dtype or value.nbytes == 0:
            return None
        element = element_that_travels(np.dtype(value.dtype))
        links = [self._sending.get(unit) for unit in units]
        if element is None or not all(link is not None and link.works for link in links):
            return None
        buffer = self._outgoing.take(value.nbytes)
        if buffer is None:
            return None
        import cupy

        whole = cupy.ascontiguousarray(value)  # given back to a pool of this stream's, which reads it first
        runtime: Any = cupy.cuda.runtime
        kind = runtime.memcpyDeviceToDevice
        runtime.memcpyAsync(buffer.address, whole.data.ptr, value.nbytes, kind, gpu.stream.ptr)
        ready = cupy.cuda.Event(disable_timing=True)
        ready.record(gpu.stream)
        buffer.events.append(ready)
        with self._guard:
            key = self._announced.add(run, Waiting(buffer, ready, value.nbytes), units)
        return FarValue(self._unit, self._process, key, element, tuple(value.shape), value.nbytes)

    def receive(self, values: Mapping[str, FarValue], is_cancelled: Callable[[], bool]) -> dict[str, Received]:
        """Have values sent here, and wait for them. To be released when the GPU was given what reads them.

        Raises SenderLost, and ClusterError where there is no memory, or the run is cancelled.
        """
        asked = []
        received: dict[str, Received] = {}
        try:
            for name, value in values.items():
                link = self._receiving.get(value.unit)
                if link is None or link.offer.sender != value.sender:
                    raise SenderLost("The actor that had a value is gone.", value.unit)
                buffer = self._room(value.nbytes)
                received[name] = Received(buffer, DTYPE_OF[value.element], value.dims)
                asked.append((link, link.ask(value, buffer)))
            for link, transfer in asked:
                link.wait_for(transfer, is_cancelled)
        except BaseException:
            for link, transfer in asked:
                link.abandon(transfer)
            raise
        return received

    def _room(self, nbytes: int) -> Buffer:
        self._gpu.use()
        buffer = self._incoming.take(nbytes)
        if buffer is None:
            self._gpu.finish()  # what runs before this one have read is free then
            buffer = self._incoming.take(nbytes, beyond=True)
        if buffer is None:
            raise ClusterError(
                f"GPU {self._gpu.bus_id} has no room for {nbytes} bytes from another host's GPU. Run smaller batches, "
                "or fewer runs at once (distort.max_in_flight)."
            )
        return buffer

    def release(self, received: Iterable[Received]) -> None:
        """What the stream was given so far is the last that reads them."""
        with self._gpu.current():
            import cupy

            event = cupy.cuda.Event(disable_timing=True)
            event.record(self._gpu.stream)
        for value in received:
            value.buffer.events.append(event)
            value.buffer.held = False

    def forget_before(self, oldest: int) -> None:
        """Runs with a lower number are over."""
        with self._guard:
            self._announced.forget_before(oldest)

    def cancel(self, run: int) -> None:
        with self._guard:
            self._announced.cancel(run)

    # -- the rest

    @property
    def nbytes(self) -> int:
        """Of buffers."""
        return self._outgoing.nbytes + self._incoming.nbytes

    def in_use(self) -> int:
        """Buffers that are not free."""
        return self._outgoing.in_use() + self._incoming.in_use()

    def describe(self) -> list[str]:
        lines = []
        for link in list(self._sending.values()):
            if link.works:
                lines.append(f"values go to {link.peer} by NCCL {self.facts.version}")
            elif link.obstacle:
                lines.append(f"values go to {link.peer} by the hosts' memory and Ray: {link.obstacle}")
        lines += [f"values go to {peer} by the hosts' memory and Ray: {why}" for peer, why in self._detours.items()]
        return lines

    def close(self) -> None:
        """End all links. Their threads end the communicators."""
        links: list[Link] = [*self._sending.values(), *self._receiving.values()]
        for link in links:
            link.close()
        for link in links:
            link.wait_for_end(_END_TIMEOUT_S)
        with self._guard:
            self._announced.clear()
        with contextlib.suppress(Exception):
            self._outgoing.close()
            self._incoming.close()


def _let_go(value: Waiting) -> None:
    value.buffer.held = False


def _nothing(link: Link) -> None:
    return None
