"""The resident loop of a stage's actor: takes orders and mail from sockets, runs what is complete, passes values on.

One thread does it all, beside the actor's ordinary methods. What waits is in a mailroom (``mailroom.py``); what goes
out, and to whom, is in ``outgoing.py``.
"""

from __future__ import annotations

import os
import pickle
import select
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from distort.cluster.orders import ExecuteOrder, StageReport
from distort.cluster.shm.channel import Channel, PeerGone, connect, listen
from distort.cluster.shm.mailroom import Mail, Mailroom
from distort.cluster.shm.messages import (
    BYE,
    CALLER,
    CANCEL,
    FAILED,
    FETCH,
    FETCH_HEAD,
    FETCHED,
    HELLO,
    KEY,
    KEYS_HEAD,
    MAIL,
    MAIL_HEAD,
    MISSING,
    NUMBER_HEAD,
    RELEASE,
    RUN,
    RUN_HEAD,
    TEMPLATE,
    TEMPLATE_HEAD,
)
from distort.cluster.shm.outgoing import Outgoing, Template, picklable
from distort.cluster.shm.slots import Reading
from distort.cluster.shm.spinning import Spinner
from distort.cluster.shm.wire import read_values
from distort.kernels.program import Room

if TYPE_CHECKING:
    from distort.cluster.gpu.stage import GpuStage

#: how often a loop with nothing else to do looks whether its GPU has read what it was given
_GPU_POLL_S = 0.001
#: the program behind the loop: order, run, inputs by name, bytes of those that came as mail, room -> outputs by name,
#: and a report where the order asks for one
Compute = Callable[
    [ExecuteOrder, int, Mapping[str, Any], dict[str, int], Room], tuple[dict[str, Any], StageReport | None]
]


class StageLoop:
    """``compute`` runs the stage; ``release`` drops kept values; ``on_caller_gone`` is called when the caller dies."""

    def __init__(
        self,
        unit: int,
        names: Sequence[str],
        endpoint: str,
        token: str,
        compute: Compute,
        *,
        release: Callable[[Sequence[int]], None],
        export: Callable[[int], Any],
        cancel: Callable[[int], None],
        on_caller_gone: Callable[[], None],
        spin_s: float = 0.0,
        gpu: GpuStage | None = None,
    ) -> None:
        self.unit = unit
        self.endpoint = endpoint
        self._token = token
        self._compute, self._release, self._export, self._cancel = compute, release, export, cancel
        self._on_caller_gone = on_caller_gone
        self.mail = Mailroom(names)
        self._gpu = gpu
        self.out = Outgoing(names, self._peer, self._watch, gpu)
        self._templates: dict[int, Template] = {}  # by number
        self._early: dict[int, list[tuple[int, int]]] = {}  # runs whose order's number is not known yet, oldest then
        self._channels: dict[int, Channel] = {}  # by descriptor, those that are read
        self._strangers: set[int] = set()  # of them, those that have not said who they are
        self._endpoints: dict[int, str] = {}  # of other units
        self._near: frozenset[int] = frozenset()  # of them, those that read this one's GPU
        self._peers_lock = threading.Lock()
        self._listener = listen(endpoint)
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._wake_lock = threading.Lock()
        self._epoll = select.epoll()
        for fd in (self._listener.fileno(), self._wake):
            self._epoll.register(fd, select.EPOLLIN)
        self._spinner = Spinner(self._epoll, spin_s)
        self._stopped = False
        self._thread = threading.Thread(target=self._go, name="distort-stage", daemon=True)
        self._thread.start()

    # -- the thread

    def _go(self) -> None:
        try:
            self._loop()
        finally:
            if not self._stopped:  # an error of ours: better gone, and started anew, than deaf
                self._on_caller_gone()
            self._clean_up()

    def _loop(self) -> None:
        mail, gpu = self.mail, self._gpu
        if gpu is not None:
            gpu.use()
        while not self._stopped:
            pause = None if gpu is None or not gpu.releases.poll() else _GPU_POLL_S
            for fd, event in self._epoll.poll(0) if mail.is_busy else self._spinner.poll(pause):
                if fd == self._wake:
                    os.eventfd_read(fd)
                    for other, channel in list(self._channels.items()):  # others add to them
                        if channel.gone:
                            self._drop(other, channel)
                elif fd == self._listener.fileno():
                    self._accept()
                else:
                    self._serve(fd, event)
            taken = mail.take()
            if taken is not None:
                self._run(taken)

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError:
            return
        channel = Channel(sock)
        if self._gpu is not None:
            channel.pins = self._gpu.pins
        self._channels[channel.fileno()] = channel
        self._strangers.add(channel.fileno())
        self._epoll.register(channel.fileno(), select.EPOLLIN)

    def _serve(self, fd: int, event: int) -> None:
        channel = self._channels.get(fd)
        if channel is None:
            return
        try:
            if event & select.EPOLLOUT and channel.flush():
                self._epoll.modify(fd, select.EPOLLIN)
            # one at a time: the poll tells of more, and an empty socket is an error that takes as long as a message
            data = channel.receive()
            if data is not None:
                self._take(channel, fd, data)
        except PeerGone:
            self._drop(fd, channel)

    def _drop(self, fd: int, channel: Channel) -> None:
        self._epoll.unregister(fd)
        del self._channels[fd]
        self._strangers.discard(fd)
        self.out.lose(channel)
        channel.close()
        if channel is self.out.caller:
            self.out.set_caller(None)
            self._on_caller_gone()

    def _take(self, channel: Channel, fd: int, data: memoryview) -> None:
        kind = data[0]
        if self._strangers and fd in self._strangers:
            # "token unit": who doesn't know the token is not answered
            if kind != HELLO or bytes(data[1:]).split(b" ")[0] != self._token.encode():
                raise PeerGone
            self._strangers.discard(fd)
            if int(bytes(data[1:]).split(b" ")[1]) == CALLER:
                self.out.set_caller(channel)
                self.out.send(channel, bytes([HELLO]))
        elif kind == RUN:
            self._take_order(channel, data)
        elif kind == MAIL:
            self._take_mail(channel, data)
        elif kind == TEMPLATE:
            _, number = TEMPLATE_HEAD.unpack_from(data)
            template = self._templates[number] = Template(pickle.loads(data[TEMPLATE_HEAD.size :]))
            for run, oldest in self._early.pop(number, ()):
                self.mail.enter(run, template, template.order.mail, oldest, (), [])
        elif kind == CANCEL:
            self.cancel(NUMBER_HEAD.unpack_from(data)[1])
        elif kind == RELEASE:
            _, count = KEYS_HEAD.unpack_from(data)
            self._release([KEY.unpack_from(data, KEYS_HEAD.size + KEY.size * i)[0] for i in range(count)])
        elif kind == FETCH:
            self._answer_fetch(*FETCH_HEAD.unpack_from(data)[1:])
        elif kind == BYE:
            self._on_caller_gone = _nothing

    # -- orders and mail

    def _take_order(self, channel: Channel, data: memoryview) -> None:
        _, number, run, oldest, layout_nbytes = RUN_HEAD.unpack_from(data)
        readings: list[Reading] = []
        values, _ = read_values(data, RUN_HEAD.size, layout_nbytes, channel.find_slot, readings)
        template = self._templates[number]
        self.mail.enter(run, template, template.order.mail, oldest, values, readings)

    def _take_mail(self, channel: Channel, data: memoryview) -> None:
        _, run, number, oldest, layout_nbytes = MAIL_HEAD.unpack_from(data)
        readings: list[Reading] = []
        values, _ = read_values(data, MAIL_HEAD.size, layout_nbytes, channel.find_slot, readings)
        template = self._templates.get(number) if number else None
        if template is not None:
            self.mail.put_with_order(run, template, template.order.mail, oldest, values, readings)
            return
        self.mail.put(run, values, readings)
        if number:  # the caller's word on what it means is on its way
            self._early.setdefault(number, []).append((run, oldest))

    def cancel(self, run: int) -> None:
        """Stop a run, whether it has begun, waits, or is still to come."""
        self.mail.cancel(run)
        self._cancel(run)

    def _run(self, mail: Mail) -> None:
        template: Template = mail.order
        rooms = self.out.rooms(template)
        try:
            outputs, report = self._compute(template.order, mail.run, mail.values, mail.nbytes, rooms.room)
            # what is read is let go before others hear of it: a slot that is free is taken again while it is in a cache
            letters = self.out.letters(template, mail.run, outputs, self.mail.oldest) if report is None else None
            if letters is not None:
                self.release(mail)
                for channel, letter in letters:
                    self.out.send(channel, letter)
                return
            parcel = rooms.pack(outputs)
            self.release(mail)
            self.out.post(template, mail.run, parcel, self.mail.oldest)
            self.out.answer(template, mail.run, parcel, report)
        except Exception as error:  # noqa: BLE001  # the actor boundary: every error travels to the run that asked
            self.out.tell(FAILED, mail.run, picklable(error))
            if self._gpu is not None and not self._gpu.is_alive():
                self._on_caller_gone()  # a process anew has a GPU again
        finally:
            mail.values.clear()
            self.release(mail)
            rooms.close()

    def release(self, mail: Mail) -> None:
        """What a run has read: at once, or when a GPU has read it too."""
        if self._gpu is not None:
            self._gpu.release_after(mail.readings)
        elif mail.readings:
            mail.release()

    def send_mail(self, order: ExecuteOrder, run: int, outputs: Mapping[str, Any]) -> None:
        """Send what other units of this host read, of a run that came as a call.

        A unit that is gone is left out: the caller hears of its end by itself.
        """
        template = Template(replace(order, results=()))
        self.out.post(template, run, self.out.rooms(template).pack(outputs), self.mail.oldest)

    def _answer_fetch(self, request: int, key: int) -> None:
        try:
            self.out.tell(FETCHED, request, self._export(key))
        except Exception as error:  # noqa: BLE001  # the actor boundary: the error travels to who asked
            self.out.tell(MISSING, request, picklable(error))

    def _watch(self, channel: Channel) -> None:
        """See to it that the thread sends what the socket did not take."""
        fd = channel.fileno()
        if fd in self._channels:
            self._epoll.modify(fd, select.EPOLLIN | select.EPOLLOUT)
        self._nudge()

    # -- other units

    def set_peers(self, endpoints: Mapping[int, str], near: Collection[int] = ()) -> None:
        """Where other units listen. A channel to one that has moved is closed. ``near``: those that read this GPU."""
        with self._peers_lock:
            self._near = (self._near - endpoints.keys()) | frozenset(near)
            for unit, endpoint in endpoints.items():
                if self._endpoints.get(unit) != endpoint:
                    self._endpoints[unit] = endpoint
                    channel = self.out.remove(unit)
                    if channel is not None:  # it is closed on the thread that reads it
                        channel.gone = True
                        self._nudge()

    def _peer(self, unit: int) -> Channel | None:
        with self._peers_lock:
            try:
                channel = connect(self._endpoints[unit])
                channel.send(bytes([HELLO]) + f"{self._token} {self.unit}".encode())
            except (OSError, PeerGone, KeyError):
                return None
            channel.takes_pages = unit in self._near
            self.out.add(unit, channel)
            # nothing is read from it but its end, and the room for what waits to be sent
            self._channels[channel.fileno()] = channel
            self._epoll.register(channel.fileno(), select.EPOLLIN)
        return channel

    # -- the end

    def stop(self) -> None:
        """End the thread, and with it every channel. Safe to call twice."""
        if self._stopped:
            return
        self._stopped = True
        self.mail.close()
        self._nudge()
        if threading.current_thread() is not self._thread:
            self._thread.join(5)

    def _nudge(self) -> None:
        """Wake the thread, if it is still there: its descriptor may be another's by then."""
        with self._wake_lock:
            if self._wake >= 0:
                os.eventfd_write(self._wake, 1)

    def _clean_up(self) -> None:
        for channel in self._channels.values():
            channel.close()
        self._channels.clear()
        self._listener.close()
        self._epoll.close()
        with self._wake_lock:
            os.close(self._wake)
            self._wake = -1
        self.out.pool.close()
        if self._gpu is not None:
            self._gpu.close()


def _nothing() -> None:
    return None
