"""This process's ends of the channels to stages of its host: orders go out, answers come in."""

from __future__ import annotations

import contextlib
import os
import pickle
import select
import threading
import time
from collections.abc import Sequence
from typing import Any

from distort.cluster.orders import ExecuteOrder, Held
from distort.cluster.shm import messages
from distort.cluster.shm.channel import Channel, PeerGone, connect
from distort.cluster.shm.slots import SlotPool
from distort.cluster.shm.spinning import Spinner
from distort.cluster.shm.wire import Message, inline_limit, small_message, stage
from distort.cluster.transport.base import Answer, Fetched, Loss, News
from distort.kernels.compiler.choice import available_threads

#: how long a host may take to say that it is there
_HELLO_TIMEOUT_S = 10.0
_OUT = int(select.EPOLLOUT)


class Line:
    """The channel to one unit's host."""

    def __init__(self, unit: int, epoch: int, channel: Channel, names: Sequence[str], pool: SlotPool) -> None:
        self.unit = unit
        self.epoch = epoch
        self.channel = channel
        self.names = names
        self._number = {name: number for number, name in enumerate(names)}
        self._numbers: dict[int, tuple[int, ...]] = {}  # by order: of the values that come along
        self._pool = pool
        self._to_release: list[int] = []
        self._release_lock = threading.Lock()
        self._leases: set[int] = set()  # results that lie where the unit wrote them

    def prepare(self, number: int, order: ExecuteOrder) -> None:
        """Raises PeerGone."""
        self._numbers[number] = tuple(map(self._number.__getitem__, order.inputs))
        head = messages.TEMPLATE_HEAD.pack(messages.TEMPLATE, number)
        self.channel.send(head + pickle.dumps(order, pickle.HIGHEST_PROTOCOL))

    def order(self, number: int, values: Sequence[Any], run: int, oldest: int) -> None:
        """Raises PeerGone, and OSError where there is no memory."""
        channel = self.channel
        if self._to_release:
            self.flush_releases()
        limit, names, fields = inline_limit(len(values)), self._numbers[number], (messages.RUN, number, run, oldest)
        small = small_message(messages.RUN_HEAD, fields, names, values, limit)
        if small is not None:
            channel.send(small)
            return
        message = Message(messages.RUN_HEAD, *fields)
        for name, value in zip(names, values, strict=True):
            if type(value) is Held:
                message.add_held(name, value)
                continue
            staged = stage(value, self._pool, (channel,), limit)
            if staged.slot is not None:
                channel.announce(staged.slot)
                if numbers := self._pool.take_forgotten(channel):
                    channel.forget(numbers)
            message.add(name, staged, 0)
        channel.send(message.packed())

    def cancel(self, run: int) -> None:
        """Raises PeerGone."""
        self.channel.send(messages.NUMBER_HEAD.pack(messages.CANCEL, run))

    def release(self, keys: Sequence[int]) -> None:
        """Values that stay are let go with the next order, or when there are many."""
        with self._release_lock:
            self._to_release += keys

    @property
    def n_to_release(self) -> int:
        return len(self._to_release)

    def flush_releases(self) -> None:
        """Raises PeerGone."""
        with self._release_lock:
            keys, self._to_release = self._to_release, []
        for start in range(0, len(keys), 4096):
            part = keys[start : start + 4096]
            head = messages.KEYS_HEAD.pack(messages.RELEASE, len(part))
            self.channel.send(head + b"".join(messages.KEY.pack(key) for key in part))

    def fetch(self, key: int, request: int) -> None:
        """Raises PeerGone."""
        self.channel.send(messages.FETCH_HEAD.pack(messages.FETCH, request, key))

    def read(self, data: memoryview) -> News | None:
        """What a message says."""
        if data[0] == messages.DONE:
            run, values, report = messages.read_done(data, self.channel.find_slot, self.names, self._leases)
            return Answer(self.unit, (), run, report, None, values)
        if data[0] == messages.FAILED:
            run, error, _ = messages.read_told(data, self.channel.find_slot)
            return Answer(self.unit, (), run, None, error)
        if data[0] in (messages.FETCHED, messages.MISSING):
            request, value, nbytes = messages.read_told(data, self.channel.find_slot)
            return Fetched(request, value, nbytes) if data[0] == messages.FETCHED else Fetched(request, error=value)
        return None


class Switchboard:
    """All lines of one session."""

    def __init__(self, spin_s: float = 0.0) -> None:
        self.pool = SlotPool()
        self._lines: dict[int, Line] = {}  # by descriptor
        self._all: tuple[Line, ...] = ()
        self._lock = threading.Lock()
        self._epoll = select.epoll()
        self._spin_s = spin_s
        self._spinner = Spinner(self._epoll, spin_s)
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self._wake, select.EPOLLIN)
        self._closed = False

    def leave_cores(self, n_threads: int) -> None:
        """So many threads of actors are at work on this host. Where they can fill it, who waits for them sleeps."""
        self._spinner.most_s = self._spin_s if n_threads < available_threads() else 0.0

    def connect(self, unit: int, epoch: int, endpoint: str, token: str, names: Sequence[str]) -> Line:
        """Raises OSError where the host can't be reached by shared memory."""
        channel = connect(endpoint)
        try:
            channel.send(bytes([messages.HELLO]) + f"{token} {messages.CALLER}".encode())
            deadline = time.monotonic() + _HELLO_TIMEOUT_S
            while channel.receive() is None:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"nobody answers at {endpoint}")
                select.select([channel], [], [], 0.1)
        except PeerGone as error:
            channel.close()
            raise ConnectionError(f"the stage at {endpoint} does not take this process's word") from error
        except BaseException:
            channel.close()
            raise
        line = Line(unit, epoch, channel, names, self.pool)
        with self._lock:
            self._lines[channel.fileno()] = line
            self._all = tuple(self._lines.values())
            self._epoll.register(channel.fileno(), select.EPOLLIN)
        return line

    def drop(self, line: Line) -> None:
        """Close a line, from this side."""
        with self._lock:
            fd = line.channel.fileno()
            if self._lines.pop(fd, None) is None:
                return
            self._all = tuple(self._lines.values())
            if not self._closed:
                self._epoll.unregister(fd)
        self.pool.lose_reader(line.channel)
        line.channel.close()

    def poll(self, timeout_s: float | None) -> list[News]:
        for behind in self._all:
            if behind.channel.waiting:
                self._epoll.modify(behind.channel.fileno(), select.EPOLLIN | select.EPOLLOUT)
        news: list[News] = []
        for fd, event in self._spinner.poll(timeout_s):
            line = self._lines.get(fd)
            if line is None:
                if fd == self._wake:
                    os.eventfd_read(fd)
                continue
            try:
                if event & _OUT and line.channel.flush():
                    self._epoll.modify(fd, select.EPOLLIN)
                data = line.channel.receive()  # one at a time: the next poll tells of more
                answer = None if data is None else line.read(data)
                if answer is not None:
                    news.append(answer)
            except PeerGone:
                self.drop(line)
                news.append(Loss(line.unit, line.epoch, "its process has ended"))
        return news

    def wake(self) -> None:
        """End a poll that waits, or the next one."""
        with self._lock:
            if not self._closed:
                os.eventfd_write(self._wake, 1)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            lines, self._lines, self._all = self._all, {}, ()
        for line in lines:
            with contextlib.suppress(PeerGone):
                line.channel.send(bytes([messages.BYE]))
            line.channel.close()
        self._epoll.close()
        os.close(self._wake)
        self.pool.close()
