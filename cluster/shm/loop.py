"""The resident loop of a stage's actor: takes orders and mail from sockets, runs what is complete, passes values on.

One thread does it all, beside the actor's ordinary methods. Orders are run in the order in which they came, but one
whose mail is not complete lets the next go first. What a run is sent before its order is kept; what comes for a run
that is over (the order tells the oldest under way) is let go.
"""

from __future__ import annotations

import os
import pickle
import select
import struct
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from distort.cluster.errors import ClusterError
from distort.cluster.orders import ExecuteOrder, StageReport
from distort.cluster.shm.channel import FIRST_KIND, Channel, PeerGone, connect, listen
from distort.cluster.shm.rooms import Rooms
from distort.cluster.shm.slots import Reading, SlotPool
from distort.cluster.shm.spinning import Spinner
from distort.cluster.shm.wire import Message, Staged, inline_limit, read_values, stage
from distort.kernels.program import Room

HELLO, TEMPLATE, RUN, CANCEL, RELEASE, MAIL, DONE, FAILED, BYE, FETCH, FETCHED, MISSING = range(
    FIRST_KIND, FIRST_KIND + 12
)

RUN_HEAD = struct.Struct("<BIQQH")  # kind, template, run, oldest run under way, values
MAIL_HEAD = struct.Struct("<BQHIQ")  # kind, run, values; number of an order that goes along (0: none), oldest run
DONE_HEAD = struct.Struct("<BQHI")  # kind, run, values; bytes of the report that follows them
KEYS_HEAD = struct.Struct("<BI")  # kind, number of keys
NUMBER_HEAD = struct.Struct("<BQ")  # kind, run
FETCH_HEAD = struct.Struct("<BQQ")  # kind, number of the request, key
TEMPLATE_HEAD = struct.Struct("<BI")  # kind, template
KEY = struct.Struct("<Q")

#: who the caller is, among units
CALLER = -1

#: the program behind the loop: order, run, inputs by name, room -> outputs by name, report
Compute = Callable[[ExecuteOrder, int, Mapping[str, Any], dict[str, int], Room], tuple[dict[str, Any], StageReport]]


@dataclass(slots=True)
class _Mail:
    """What has come for one run."""

    values: dict[str, Any] = field(default_factory=dict)
    nbytes: dict[str, int] = field(default_factory=dict)
    readings: list[Reading] = field(default_factory=list)

    def release(self) -> None:
        for reading in self.readings:
            reading.release()
        self.readings.clear()


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
    ) -> None:
        self.unit = unit
        self.endpoint = endpoint
        self._names = names
        self._number = {name: number for number, name in enumerate(names)}
        self._token = token
        self._compute, self._release, self._export, self._cancel = compute, release, export, cancel
        self._on_caller_gone = on_caller_gone
        self.pool = SlotPool()
        self._templates: dict[int, ExecuteOrder] = {}  # by number
        self._early: dict[int, list[tuple[int, int]]] = {}  # runs whose order's number is not known yet, oldest then
        self._orders: OrderedDict[int, tuple[ExecuteOrder, _Mail]] = OrderedDict()  # by run
        self._mail: dict[int, _Mail] = {}
        self._oldest = 0
        self._cancelled: set[int] = set()
        self._caller: Channel | None = None
        self._channels: dict[int, Channel] = {}  # by descriptor, those that are read
        self._strangers: set[int] = set()  # of them, those that have not said who they are
        self._endpoints: dict[int, str] = {}  # of other units
        self._peers: dict[int, Channel] = {}  # of other units, those that were written to
        self._peers_lock = threading.Lock()
        #: mail, by name: bytes, messages
        self.received: dict[str, tuple[int, int]] = {}
        self._complete = threading.Condition()  # mail that a method of the actor waits for
        self._waited_for: dict[int, frozenset[str]] = {}
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

    @property
    def queued(self) -> int:
        return len(self._orders)

    # -- the thread

    def _go(self) -> None:
        try:
            self._loop()
        finally:
            if not self._stopped:  # an error of ours: better gone, and started anew, than deaf
                self._on_caller_gone()
            self._clean_up()

    def _loop(self) -> None:
        while not self._stopped:
            ready = self._ready()
            for fd, event in self._epoll.poll(0) if ready is not None else self._spinner.poll():
                if fd == self._wake:
                    os.eventfd_read(fd)
                    for other, channel in list(self._channels.items()):  # others add to them
                        if channel.gone:
                            self._drop(other, channel)
                elif fd == self._listener.fileno():
                    self._accept()
                else:
                    self._serve(fd, event)
            ready = self._ready()
            if ready is not None:
                self._run(*ready)

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError:
            return
        channel = Channel(sock)
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
        self.pool.lose_reader(channel)
        channel.close()
        if channel is self._caller:
            self._caller = None
            self._on_caller_gone()

    def _take(self, channel: Channel, fd: int, data: memoryview) -> None:
        kind = data[0]
        if fd in self._strangers:
            # "token unit": who doesn't know the token is not answered
            if kind != HELLO or bytes(data[1:]).split(b" ")[0] != self._token.encode():
                raise PeerGone
            self._strangers.discard(fd)
            if int(bytes(data[1:]).split(b" ")[1]) == CALLER:
                self._caller = channel
                self._send(channel, Message(bytes([HELLO])))
        elif kind == RUN:
            self._take_order(channel, data)
        elif kind == MAIL:
            self._take_mail(channel, data)
        elif kind == TEMPLATE:
            _, number = TEMPLATE_HEAD.unpack_from(data)
            self._templates[number] = pickle.loads(data[TEMPLATE_HEAD.size :])
            for run, oldest in self._early.pop(number, ()):
                self._enter(run, number, oldest)
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
        _, number, run, oldest, count = RUN_HEAD.unpack_from(data)
        mail = self._enter(run, number, oldest)
        values, _ = read_values(data, RUN_HEAD.size, count, channel.find_slot, mail.readings)
        if run in self._cancelled:
            mail.release()
        for name, value, _nbytes in values:
            mail.values[self._names[name]] = value

    def _enter(self, run: int, number: int, oldest: int) -> _Mail:
        """An order joins those that wait."""
        self.forget_before(oldest)
        with self._complete:
            mail = self._mail.pop(run, None) or _Mail()
            if run in self._cancelled:
                mail.release()
            else:
                self._orders[run] = (self._templates[number], mail)
        return mail

    def _take_mail(self, channel: Channel, data: memoryview) -> None:
        _, run, count, number, oldest = MAIL_HEAD.unpack_from(data)
        entry = self._orders.get(run)
        readings: list[Reading] = []
        values, _ = read_values(data, MAIL_HEAD.size, count, channel.find_slot, readings)
        with self._complete:
            for name, _, nbytes in values:
                before = self.received.get(self._names[name], (0, 0))
                self.received[self._names[name]] = (before[0] + nbytes, before[1] + 1)
            if run < self._oldest or run in self._cancelled:
                for reading in readings:
                    reading.release()
                return
            mail = entry[1] if entry is not None else self._mail.setdefault(run, _Mail())
            mail.readings += readings
            for name, value, nbytes in values:
                mail.values[self._names[name]] = value
                mail.nbytes[self._names[name]] = nbytes
            self._complete.notify_all()
        if number in self._templates:
            self._enter(run, number, oldest)
        elif number:  # the caller's word on what it means is on its way
            self._early.setdefault(number, []).append((run, oldest))

    def forget_before(self, oldest: int) -> None:
        """Runs with a lower number are over."""
        with self._complete:
            if oldest <= self._oldest:
                return
            self._oldest = oldest
            for run in [run for run in self._mail if run < oldest]:
                self._mail.pop(run).release()
            if self._cancelled:
                self._cancelled = {run for run in self._cancelled if run >= oldest}

    def cancel(self, run: int) -> None:
        """Stop a run, whether it has begun, waits, or is still to come."""
        with self._complete:
            self._cancelled.add(run)
            entry = self._orders.pop(run, None)
            mail = entry[1] if entry is not None else self._mail.pop(run, None)
            if mail is not None:
                mail.release()
            self._complete.notify_all()
        self._cancel(run)

    def wait_for_mail(self, order: ExecuteOrder, run: int, oldest: int) -> tuple[dict[str, Any], dict[str, int], Any]:
        """For an order that came as a call: its mail, the bytes of each value, and what to call when it was read.

        Raises ClusterError where the run was cancelled.
        """
        self.forget_before(oldest)
        wanted = frozenset(order.mail)
        with self._complete:
            self._complete.wait_for(
                lambda: run in self._cancelled or self._stopped or wanted <= self._mail.get(run, _NO_MAIL).values.keys()
            )
            mail = self._mail.pop(run, None)
            if mail is None or not wanted <= mail.values.keys():
                if mail is not None:
                    mail.release()
                raise ClusterError("The run was cancelled while it waited for values of another stage.")
        return mail.values, mail.nbytes, mail.release

    def _ready(self) -> tuple[int, ExecuteOrder, _Mail] | None:
        for run, (order, mail) in self._orders.items():
            if all(name in mail.values for name in order.mail):
                return run, order, mail
        return None

    def _run(self, run: int, order: ExecuteOrder, mail: _Mail) -> None:
        del self._orders[run]
        rooms = self._rooms(order, () if order.silent else order.results)
        try:
            outputs, report = self._compute(order, run, mail.values, mail.nbytes, rooms.room)
            self._hand_out(order, run, outputs, report, mail, rooms)
        except Exception as error:  # noqa: BLE001  # the actor boundary: every error travels to the run that asked
            self._tell(FAILED, run, _picklable(error))
        finally:
            mail.values.clear()
            mail.release()
            rooms.close()

    # -- what goes out

    def _hand_out(
        self, order: ExecuteOrder, run: int, outputs: Mapping[str, Any], report: StageReport, mail: _Mail, rooms: Rooms
    ) -> None:
        parcel = rooms.pack(outputs)
        mail.release()  # before others hear of it: a slot that is free is taken again while it is in a cache
        self._post(order, run, parcel)
        caller = self._caller
        if order.silent or caller is None:
            return
        body = b""
        if report.kept or order.profile:
            body = pickle.dumps(report, pickle.HIGHEST_PROTOCOL)
        message = Message(DONE_HEAD.pack(DONE, run, len(order.results) + (len(body) > _REPORT_NBYTES), len(body)))
        for name in order.results:
            value, readers = parcel[name]
            self._announce(caller, value)
            message.add(self._number[name], value, readers.index(caller))
        if len(body) > _REPORT_NBYTES:
            value = stage(body, self.pool, (caller,))
            self._announce(caller, value)
            message.add(_REPORT_NAME, value, 0)
        else:
            message.parts.append(body)
        self._send(caller, message)

    def send_mail(self, order: ExecuteOrder, run: int, outputs: Mapping[str, Any]) -> None:
        """Send what other units of this host read.

        A unit that is gone is left out: the caller hears of its end by itself.
        """
        self._post(order, run, self._rooms(order, ()).pack(outputs))

    def _rooms(self, order: ExecuteOrder, results: Sequence[str]) -> Rooms:
        """For what others are to read; of ``results`` the caller is one who does."""
        readers: dict[str, list[Channel]] = {}
        for unit, names in order.sends:
            channel = self._peer(unit)
            if channel is not None:
                for name in names:
                    readers.setdefault(name, []).append(channel)
        caller = self._caller
        if caller is not None:
            for name in results:
                readers.setdefault(name, []).append(caller)
        limit = inline_limit(max(len(results), *(len(names) for _, names in order.sends), 1))
        return Rooms(self.pool, {name: tuple(of) for name, of in readers.items()}, limit, kept=order.keep)

    def _post(self, order: ExecuteOrder, run: int, parcel: Mapping[str, tuple[Staged, tuple[Channel, ...]]]) -> None:
        """Send each unit what it reads."""
        forwards = dict(order.forwards)
        for unit, names in order.sends:
            channel = self._peers.get(unit)
            if channel is None or any(name not in parcel or channel not in parcel[name][1] for name in names):
                continue
            message = Message(MAIL_HEAD.pack(MAIL, run, len(names), forwards.get(unit, 0), self._oldest))
            for name in names:
                value, readers = parcel[name]
                self._announce(channel, value)
                message.add(self._number[name], value, readers.index(channel))
            self._send(channel, message)

    def _answer_fetch(self, request: int, key: int) -> None:
        try:
            self._tell(FETCHED, request, self._export(key))
        except Exception as error:  # noqa: BLE001  # the actor boundary: the error travels to who asked
            self._tell(MISSING, request, _picklable(error))

    def _tell(self, kind: int, number: int, what: Any) -> None:
        """One value for the caller: of a run, or of a request."""
        caller = self._caller
        if caller is None:
            return
        value = stage(what, self.pool, (caller,))
        message = Message(MAIL_HEAD.pack(kind, number, 1, 0, 0))
        self._announce(caller, value)
        message.add(0, value, 0)
        self._send(caller, message)

    def _announce(self, channel: Channel, staged: Staged) -> None:
        if staged.slot is None:
            return
        try:
            channel.announce(staged.slot)
            if numbers := self.pool.take_forgotten(channel):
                channel.forget(numbers)
        except PeerGone:
            self._lose(channel)

    def _send(self, channel: Channel, message: Message) -> None:
        try:
            channel.send(message)
        except PeerGone:
            self._lose(channel)
            return
        if channel.waiting:
            self._watch(channel)

    def _watch(self, channel: Channel) -> None:
        """See to it that the thread sends what the socket did not take."""
        fd = channel.fileno()
        if fd in self._channels:
            self._epoll.modify(fd, select.EPOLLIN | select.EPOLLOUT)
        self._nudge()

    def _lose(self, channel: Channel) -> None:
        self.pool.lose_reader(channel)
        with self._peers_lock:
            for unit in [unit for unit, other in self._peers.items() if other is channel]:
                del self._peers[unit]

    # -- other units

    def set_peers(self, endpoints: Mapping[int, str]) -> None:
        """Where other units listen. A channel to one that has moved is closed."""
        with self._peers_lock:
            for unit, endpoint in endpoints.items():
                if self._endpoints.get(unit) != endpoint:
                    self._endpoints[unit] = endpoint
                    channel = self._peers.pop(unit, None)
                    if channel is not None:
                        self.pool.lose_reader(channel)
                        self._retire(channel)

    def _retire(self, channel: Channel) -> None:
        """Close a channel on the thread that reads it."""
        channel.gone = True
        self._nudge()

    def _peer(self, unit: int) -> Channel | None:
        channel = self._peers.get(unit)
        if channel is not None:
            return channel
        with self._peers_lock:
            try:
                channel = connect(self._endpoints[unit])
                channel.send(Message(bytes([HELLO]) + f"{self._token} {self.unit}".encode()))
            except (OSError, PeerGone, KeyError):
                return None
            self._peers[unit] = channel
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
        with self._complete:
            self._complete.notify_all()
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
        self.pool.close()


#: reports up to this size lie behind the values; larger ones are a value of their own
_REPORT_NBYTES = 32768
#: the number of that value
_REPORT_NAME = 0xFFFF
_NO_MAIL = _Mail()


def read_done(
    data: memoryview, find: Callable[[int], Any], names: Sequence[str], leases: set[int]
) -> tuple[int, dict[str, tuple[Any, int]], StageReport | None]:
    """A DONE message: the run, its values with their bytes, the report where it has one.

    The values are the caller's own, copies or leased.
    """
    _, run, count, report_nbytes = DONE_HEAD.unpack_from(data)
    readings: list[Reading] = []
    found, offset = read_values(data, DONE_HEAD.size, count, find, readings, leases)
    report: StageReport | None = None
    values: dict[str, tuple[Any, int]] = {}
    for name, value, nbytes in found:
        if name == _REPORT_NAME:
            report = pickle.loads(value)
        else:
            borrowed = isinstance(value, np.ndarray) and not value.flags.writeable
            values[names[name]] = (value.copy() if borrowed else value, nbytes)
    if report is None and report_nbytes:
        report = pickle.loads(data[offset : offset + report_nbytes])
    del found
    for reading in readings:
        reading.release()
    return run, values, report


def read_told(data: memoryview, find: Callable[[int], Any]) -> tuple[int, Any, int]:
    """A message of one value: the number of its run or request, a copy of the value, its bytes."""
    number = MAIL_HEAD.unpack_from(data)[1]
    readings: list[Reading] = []
    ((_, value, nbytes),), _ = read_values(data, MAIL_HEAD.size, 1, find, readings)
    if readings:
        value = value.copy()
        readings[0].release()
    return number, value, nbytes


def _picklable(error: Exception) -> Exception:
    """The error, or one that says the same where it can't travel."""
    try:
        copy = pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001  # whatever a stranger's class does when it is pickled
        return ClusterError(f"{type(error).__name__}: {error}")
    return error if type(copy) is type(error) and str(copy) == str(error) else ClusterError(str(error))


def _nothing() -> None:
    return None
