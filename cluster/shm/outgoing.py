"""What a stage's loop sends: values to the units that read them, results and reports to the caller."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from distort.cluster.errors import ClusterError
from distort.cluster.orders import ExecuteOrder, StageReport
from distort.cluster.shm.channel import Channel, PeerGone
from distort.cluster.shm.messages import DONE, DONE_HEAD, MAIL, MAIL_HEAD, REPORT_NAME, REPORT_NBYTES
from distort.cluster.shm.rooms import Rooms
from distort.cluster.shm.slots import SlotPool
from distort.cluster.shm.wire import DEVICE, INLINE_NBYTES, Message, Staged, inline_limit, small_message, stage

if TYPE_CHECKING:
    from distort.cluster.gpu.stage import GpuStage

#: a value's name -> it, ready to be sent, with its readers (``gpu/rooms.py`` has those that are sent two ways)
Parcel = Mapping[str, Any]
#: a unit -> the channel to it, made where there is none yet; None where it can't be reached
Reach = Callable[[int], Channel | None]


class Template:
    """An order as it is given many times, with who reads what it makes."""

    __slots__ = ("forwards", "inline_nbytes", "numbers", "order", "readers", "results", "since", "targets")

    def __init__(self, order: ExecuteOrder) -> None:
        self.order = order
        self.forwards = dict(order.forwards)
        self.results: tuple[str, ...] = () if order.silent else order.results
        self.inline_nbytes = inline_limit(max(len(order.results), *(len(names) for _, names in order.sends), 1))
        self.since = -1  # which channels these are of
        self.readers: dict[str, tuple[Channel, ...]] = {}
        #: of names that go together
        self.numbers: dict[tuple[str, ...], tuple[int, ...]] = {}
        #: other units' channels, the order that goes along, and the values
        self.targets: list[tuple[Channel, int, tuple[str, ...]]] = []


class Outgoing:
    """The channels that a loop writes to. ``watch`` sees to it that what a socket did not take is sent later."""

    def __init__(
        self, names: Sequence[str], reach: Reach, watch: Callable[[Channel], None], gpu: GpuStage | None = None
    ) -> None:
        self._number = {name: number for number, name in enumerate(names)}
        self._reach, self._watch = reach, watch
        self.pool = SlotPool()
        self.gpu = gpu
        if gpu is not None:
            self.pool.pins = gpu.pins
        self.caller: Channel | None = None
        self._lock = threading.Lock()
        self.peers: dict[int, Channel] = {}  # of other units
        self._since = 0  # counts the changes of channels

    # -- channels

    def set_caller(self, channel: Channel | None) -> None:
        self.caller = channel
        self._since += 1

    def add(self, unit: int, channel: Channel) -> None:
        with self._lock:
            self.peers[unit] = channel
            self._since += 1

    def remove(self, unit: int) -> Channel | None:
        """A unit's channel, which nobody writes to any more."""
        with self._lock:
            self._since += 1
            channel = self.peers.pop(unit, None)
        if channel is not None:
            self._lose_reader(channel)
        return channel

    def lose(self, channel: Channel) -> None:
        """Whoever is at its other end is gone, and reads no more."""
        self._lose_reader(channel)
        with self._lock:
            self._since += 1
            for unit in [unit for unit, other in self.peers.items() if other is channel]:
                del self.peers[unit]

    def _lose_reader(self, channel: Channel) -> None:
        self.pool.lose_reader(channel)
        if self.gpu is not None:
            with self.gpu.current():
                self.gpu.slots.lose_reader(channel)

    def _find_readers(self, template: Template) -> None:
        since = self._since
        readers: dict[str, list[Channel]] = {}
        template.targets = []
        is_whole = True
        for unit, names in template.order.sends:
            channel = self.peers.get(unit) or self._reach(unit)
            if channel is None:  # the caller hears of its end by itself
                is_whole = False
                continue
            template.targets.append((channel, template.forwards.get(unit, 0), names))
            for name in names:
                readers.setdefault(name, []).append(channel)
        if self.caller is not None:
            for name in template.results:
                readers.setdefault(name, []).append(self.caller)
        template.readers = {name: tuple(of) for name, of in readers.items()}
        for names in (template.results, *(names for _, names in template.order.sends)):
            template.numbers[names] = tuple(map(self._number.__getitem__, names))
        template.since = since if is_whole else -1

    # -- values

    def rooms(self, template: Template) -> Rooms:
        """Where a run's outputs may be made."""
        if template.since != self._since:
            self._find_readers(template)
        arguments = (self.pool, template.readers, template.inline_nbytes, template.order.keep)
        if self.gpu is None:
            return Rooms(*arguments)
        from distort.cluster.gpu.rooms import GpuRooms

        return GpuRooms(*arguments, self.gpu)

    def letters(
        self, template: Template, run: int, outputs: Mapping[str, Any], oldest: int
    ) -> list[tuple[Channel, bytes]] | None:
        """All that a run without a report sends, where it is small; None where it is not, or lies on a GPU."""
        if self.gpu is not None:
            return None
        letters: list[tuple[Channel, bytes]] = []
        most_nbytes = template.inline_nbytes
        for channel, number, names in template.targets:
            values, fields = [outputs[name] for name in names], (MAIL, run, number, oldest)
            message = small_message(MAIL_HEAD, fields, template.numbers[names], values, most_nbytes)
            if message is None:
                return None
            letters.append((channel, message))
        caller, names = self.caller, template.results
        if not template.order.silent and caller is not None:
            values = [outputs[name] for name in names]
            message = small_message(DONE_HEAD, (DONE, run, 0), template.numbers[names], values, most_nbytes)
            if message is None:
                return None
            letters.append((caller, message))
        return letters

    def post(self, template: Template, run: int, parcel: Parcel, oldest: int) -> None:
        """Send each unit what it reads."""
        for channel, number, names in template.targets:
            parts = [_part(parcel[name], channel) for name in names] if self.gpu else [parcel[name] for name in names]
            if any(channel not in readers for _, readers in parts):
                continue
            message = Message(MAIL_HEAD, MAIL, run, number, oldest)
            try:
                for name, (value, readers) in zip(names, parts, strict=True):
                    page = self._announce_page(channel, value) if value.kind == DEVICE else None
                    self._announce(channel, value)
                    message.add(self._number[name], value, readers.index(channel), page)
                if self.gpu is not None:
                    self._forget_pages(channel, self.gpu)
            except PeerGone:
                self.lose(channel)
                continue
            self.send(channel, message.packed())

    def answer(
        self,
        template: Template,
        run: int,
        parcel: Parcel,
        report: StageReport | None,
    ) -> None:
        """Tell the caller that a run is done, with what it asked for."""
        caller = self.caller
        if template.order.silent or caller is None:
            return
        body = b"" if report is None else pickle.dumps(report, pickle.HIGHEST_PROTOCOL)
        message = Message(DONE_HEAD, DONE, run, len(body))
        for name in template.results:
            value, readers = _part(parcel[name], caller) if self.gpu else parcel[name]
            if caller in readers:
                self._announce(caller, value)
                message.add(self._number[name], value, readers.index(caller))
        if len(body) > REPORT_NBYTES:
            value = stage(body, self.pool, (caller,))
            self._announce(caller, value)
            message.add(REPORT_NAME, value, 0)
        elif body:
            message.append(body)
        self.send(caller, message.packed())

    def tell(self, kind: int, number: int, what: Any) -> None:
        """One value for the caller: of a run, or of a request."""
        caller = self.caller
        if caller is None:
            return
        if self.gpu is not None and self.gpu.is_on_gpu(what):
            from distort.cluster.gpu.rooms import GpuRooms

            rooms = GpuRooms(self.pool, {"": (caller,)}, INLINE_NBYTES, (), self.gpu)
            value = rooms.pack({"": what})[""][0]
        else:
            value = stage(what, self.pool, (caller,))
        message = Message(MAIL_HEAD, kind, number, 0, 0)
        self._announce(caller, value)
        message.add(0, value, 0)
        self.send(caller, message.packed())

    def _announce(self, channel: Channel, staged: Staged) -> None:
        if staged.slot is None or staged.kind == DEVICE:
            return
        try:
            channel.announce(staged.slot)
            if numbers := self.pool.take_forgotten(channel):
                channel.forget(numbers)
        except PeerGone:
            self.lose(channel)

    def _announce_page(self, channel: Channel, staged: Staged) -> Any:
        """Let a reader know a slot of the GPU's memory; what they share of it. Raises PeerGone."""
        page = staged.slot.pages.get(channel)
        if page is None:  # the channel is lost since, and nobody will read the message
            raise PeerGone
        channel.announce_page(page)
        return page

    def _forget_pages(self, channel: Channel, gpu: GpuStage) -> None:
        """Tell a reader which slots of the GPU's memory are given up, so that it closes them. Raises PeerGone."""
        if numbers := gpu.slots.take_forgotten(channel):
            channel.forget(numbers)

    def send(self, channel: Channel, message: bytes) -> None:
        try:
            channel.send(message)
        except PeerGone:
            self.lose(channel)
            return
        if channel.waiting:
            self._watch(channel)


def _part(entry: Any, channel: Channel) -> tuple[Staged, tuple[Any, ...]]:
    """A value of a parcel as one of its readers is sent it, and all who are sent it so."""
    found: tuple[Staged, tuple[Any, ...]] = entry if type(entry) is tuple else entry.of(channel)
    return found


def picklable(error: Exception) -> Exception:
    """The error, or one that says the same where it can't travel: of CuPy, say, which a caller needn't have."""
    if type(error).__module__.partition(".")[0] in ("cupy", "cupy_backends"):
        return ClusterError(f"An error of the GPU's: {type(error).__name__}: {error}")
    try:
        copy = pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001  # whatever a stranger's class does when it is pickled
        return ClusterError(f"{type(error).__name__}: {error}")
    return error if type(copy) is type(error) and str(copy) == str(error) else ClusterError(str(error))


__all__ = ["Outgoing", "Template", "picklable"]
