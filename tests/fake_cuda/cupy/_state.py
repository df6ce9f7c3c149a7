"""What the fake's parts share: devices with their memory, streams with what waits on them, captures, counters.

Work on a stream is a callable. It is called at once, unless ``lazy`` (FAKE_CUDA_LAZY=1): then it waits until something
synchronizes with it, so that who forgets to wait sees that. While a stream captures, its work is kept for a graph.
"""

from __future__ import annotations

import atexit
import contextvars
import itertools
import os
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ._errors import CUDARuntimeError
from ._heap import Heap

NULL_STREAM = 0
PER_THREAD_STREAM = 2


class Pending:
    """Work that is done elsewhere: begun when its stream comes to it, which goes on when it is done."""

    def begin(self) -> None:
        """Called each time that somebody looks."""

    @property
    def done(self) -> bool:
        raise NotImplementedError

    def wait(self) -> None:
        raise NotImplementedError

    def __call__(self) -> None:
        """What is left to be done when it is done."""


Work = Callable[[], None]
#: "synchronize", "get", "boolean index", "nonzero", "scalar", "upload", "launch": how often each happened
counts: Counter[str] = Counter()
#: whether work waits until something synchronizes with it
lazy = os.environ.get("FAKE_CUDA_LAZY", "") not in ("", "0")
#: whether GPUs read memory of the host's that isn't pinned by themselves, when the stream comes to it
reads_pageable = False
#: how many blocks and threads a launch is made of, at most; 0: as many as it asks for
blocks = int(os.environ.get("FAKE_CUDA_BLOCKS", "1"))
threads = int(os.environ.get("FAKE_CUDA_THREADS", "1"))


@dataclass
class Capture:
    """What is launched while a stream captures, in an order that can be replayed."""

    origin: int
    thread: int
    work: list[Work] = field(default_factory=list)
    unjoined: set[int] = field(default_factory=set)  # streams with work that the origin does not wait for yet
    broken: bool = False


@dataclass
class StreamState:
    handle: int
    device_id: int
    flags: int
    priority: int = 0
    capture: Capture | None = None
    queue: deque[Work] = field(default_factory=deque)
    n_done: int = 0  # pieces of work
    lock: threading.RLock = field(default_factory=threading.RLock)

    @property
    def n_given(self) -> int:
        return self.n_done + len(self.queue)

    def drain(self, upto: int | None = None, wait: bool = True) -> None:
        """Do what waits, up to a piece of work; without ``wait`` up to what is not done elsewhere yet."""
        while True:
            with self.lock:
                pending = self._advance(upto)
            if pending is None:
                return
            pending.begin()
            if not pending.done:
                if not wait:
                    return
                pending.wait()
            with self.lock:
                if self.queue and self.queue[0] is pending:
                    self.queue.popleft()
                    self.n_done += 1
                    pending()

    def _advance(self, upto: int | None) -> Pending | None:
        """Called with the lock. What is in the way, if anything."""
        while self.queue and (upto is None or self.n_done < upto):
            if isinstance(self.queue[0], Pending):
                return self.queue[0]
            work = self.queue.popleft()
            self.n_done += 1
            # Memory that goes drains, and garbage may be collected anywhere: in CPython 3.11 even where a context is
            # being changed, which work that changes the same one (np.errstate does) would break
            contextvars.copy_context().run(work)
        return None

    @property
    def is_live(self) -> bool:
        """Whether it goes on by itself, nobody synchronizing with it: something waits that is done elsewhere."""
        return any(isinstance(work, Pending) and type(work) is not _OtherStream for work in list(self.queue))


class _OtherStream(Pending):
    """A stream waits for another."""

    def __init__(self, source: StreamState, position: int) -> None:
        self._source, self._position = source, position

    @property
    def done(self) -> bool:
        self._source.drain(self._position, wait=False)
        return self._source.n_done >= self._position

    def wait(self) -> None:
        self._source.drain(self._position)


@dataclass
class EventState:
    flags: int
    device_id: int
    stream: StreamState | None = None  # where it was recorded
    position: int = 0
    capture: Capture | None = None
    time_s: float = 0.0


_handles = itertools.count(0x5000)
_thread = threading.local()
heaps: list[Heap] = []
_heaps_lock = threading.Lock()
streams: dict[int, StreamState] = {}
events: dict[int, EventState] = {}
_null_streams: dict[int, StreamState] = {}
_captures: list[Capture] = []
pinned: dict[int, int] = {}  # address -> bytes
at_shutdown: list[Callable[[], None]] = []  # what ends what works in the background
closing = False  # the process ends: nothing is given back any more


@atexit.register
def _close() -> None:
    global closing
    closing = True


def n_devices() -> int:
    return int(os.environ.get("FAKE_CUDA_DEVICES", "2"))


class OpenedContext(AssertionError):
    """Something opened a context on a GPU that a test forbids."""


#: GPUs with a context in this process, which takes memory of them: whatever needs one opens it on the current GPU
opened: set[int] = set()
#: GPUs that may have one; None: any
allowed: set[int] | None = None


def need_context() -> None:
    """Called by all that CUDA opens a context of the current device for."""
    device_id = current_device()
    if allowed is not None and device_id not in allowed:
        raise OpenedContext(f"a context is opened on cuda:{device_id}; allowed are {sorted(allowed)}")
    opened.add(device_id)
    _thread.has_context = True


def has_context() -> bool:
    """Whether this thread has needed one."""
    return bool(getattr(_thread, "has_context", False))


def heap(device_id: int) -> Heap:
    with _heaps_lock:
        while len(heaps) <= device_id:
            heaps.append(Heap(len(heaps), int(os.environ.get("FAKE_CUDA_MEMORY", str(4 << 30)))))
    return heaps[device_id]


def heap_of(address: int) -> Heap | None:
    return next((heap for heap in heaps if heap.contains(address)), None)


def current_device() -> int:
    return int(getattr(_thread, "device_id", 0))


def set_device(device_id: int) -> None:
    if not 0 <= device_id < n_devices():
        raise CUDARuntimeError(101)
    _thread.device_id = device_id
    need_context()  # at once, from CUDA 12 on


def new_handle() -> int:
    return next(_handles) * 16


def new_stream(flags: int, priority: int) -> StreamState:
    need_context()
    state = StreamState(new_handle(), current_device(), flags, priority)
    streams[state.handle] = state
    return state


def stream_of(handle: int) -> StreamState:
    """A stream by its handle; 0 is the null stream of the current device."""
    need_context()
    if handle in (NULL_STREAM, 1, PER_THREAD_STREAM):
        device_id = current_device()
        if device_id not in _null_streams:
            _null_streams[device_id] = StreamState(NULL_STREAM, device_id, 0)
        return _null_streams[device_id]
    state = streams.get(handle)
    if state is None:
        raise CUDARuntimeError(400)
    return state


def event_of(handle: int) -> EventState:
    need_context()
    event = events.get(handle)
    if event is None:
        raise CUDARuntimeError(400)
    return event


def capturing(handle: int) -> Capture | None:
    return stream_of(handle).capture


def _captures_here() -> bool:
    me = threading.get_ident()
    return any(capture.thread == me for capture in _captures)


def launch(handle: int, work: Work) -> None:
    """Give a stream a kernel: it must be one of the current device's."""
    if stream_of(handle).device_id != current_device():
        raise CUDARuntimeError(400)
    enqueue(handle, work)


def enqueue(handle: int, work: Work) -> None:
    """Give a stream work. A launch on the null stream while this thread captures is an error: it would be lost."""
    stream = stream_of(handle)
    if stream.capture is not None:
        stream.capture.work.append(work)
        if stream.handle != stream.capture.origin:
            stream.capture.unjoined.add(stream.handle)
        return
    if stream.handle == NULL_STREAM and _captures_here():
        for capture in _captures:
            capture.broken = True
        raise CUDARuntimeError(906)
    _after_legacy(stream)
    with stream.lock:
        stream.queue.append(work)
    if not lazy or stream.is_live:
        stream.drain(wait=False)


def _after_legacy(stream: StreamState) -> None:
    """The null stream waits for all blocking streams of its device, and they for it."""
    if stream.flags & 1:
        return
    if stream.handle == NULL_STREAM:
        others = [s for s in streams.values() if s.device_id == stream.device_id and not s.flags & 1]
    else:
        others = [s for s in _null_streams.values() if s.device_id == stream.device_id]
    for other in others:
        if other.queue:
            stream.queue.append(_OtherStream(other, other.n_given))


def forbid_in_capture(handle: int | None = None) -> None:
    """For what no capture allows: on one stream, or (None) for all that this thread captures."""
    if handle is None:
        broken = [capture for capture in _captures if capture.thread == threading.get_ident()]
    else:
        of_stream = capturing(handle)
        broken = [of_stream] if of_stream is not None else []
    for capture in broken:
        capture.broken = True
    if broken:
        raise CUDARuntimeError(900)


def synchronize_stream(handle: int) -> None:
    forbid_in_capture(handle)
    counts["synchronize"] += 1
    stream_of(handle).drain()


def synchronize_device(device_id: int | None = None) -> None:
    forbid_in_capture()
    counts["synchronize"] += 1
    drain_device(current_device() if device_id is None else device_id)


def drain_device(device_id: int, wait: bool = True) -> None:
    """Do all that waits on a device's streams; without ``wait`` what is not waiting for others."""
    for stream in [*streams.values(), *_null_streams.values()]:
        if stream.device_id == device_id:
            stream.drain(wait=wait)


def begin_capture(handle: int) -> None:
    stream = stream_of(handle)
    if stream.capture is not None:
        raise CUDARuntimeError(1)
    stream.capture = Capture(handle, threading.get_ident())
    _captures.append(stream.capture)


def end_capture(handle: int) -> list[Work]:
    capture = stream_of(handle).capture
    if capture is None or capture.origin != handle:
        raise CUDARuntimeError(1)
    _captures.remove(capture)
    for stream in streams.values():
        if stream.capture is capture:
            stream.capture = None
    if capture.broken:
        raise CUDARuntimeError(901)
    if capture.unjoined:
        raise CUDARuntimeError(904)
    return capture.work


def record_event(event_handle: int, stream_handle: int) -> None:
    event, stream = event_of(event_handle), stream_of(stream_handle)
    if event.device_id != stream.device_id:
        raise CUDARuntimeError(400)
    event.stream, event.capture, event.time_s = stream, stream.capture, time.perf_counter()
    if stream.capture is None:
        _after_legacy(stream)
        if event.flags & 4:
            stream.drain()  # another process may wait for it, and here nobody works in the background
        event.position = stream.n_given


def wait_event(stream_handle: int, event_handle: int) -> None:
    stream, event = stream_of(stream_handle), event_of(event_handle)
    if event.capture is not None:
        if event.capture not in _captures:
            raise CUDARuntimeError(907)
        if stream.capture is None:
            if stream.handle == NULL_STREAM:
                raise CUDARuntimeError(906)
            stream.capture = event.capture  # joins the capture
        if stream.handle == event.capture.origin and event.stream is not None:
            event.capture.unjoined.discard(event.stream.handle)
        return
    if stream.capture is not None and event.stream is not None:
        raise CUDARuntimeError(900)  # work outside the capture
    source = event.stream
    if source is not None and source is not stream and source.n_done < event.position:
        enqueue(stream_handle, _OtherStream(source, event.position))


def event_done(event_handle: int) -> bool:
    event = event_of(event_handle)
    if event.capture is not None:
        raise CUDARuntimeError(907)
    if event.stream is not None and event.stream.is_live:
        event.stream.drain(event.position, wait=False)
    return event.stream is None or event.stream.n_done >= event.position


def synchronize_event(event_handle: int) -> None:
    event = event_of(event_handle)
    if event.capture is not None:
        raise CUDARuntimeError(907)
    counts["synchronize"] += 1
    if event.stream is not None:
        event.stream.drain(event.position)


def is_pinned(address: int) -> bool:
    return any(start <= address < start + nbytes for start, nbytes in list(pinned.items()))


def declare(kind: str) -> None:
    """Count something that waits for the current stream; no capture allows it."""
    counts[kind] += 1
    forbid_in_capture(current_stream())
    stream_of(current_stream()).drain()


_current_streams: Any = threading.local()


def current_stream() -> int:
    """The handle of the stream in use on the current device, in this thread."""
    by_device: dict[int, int] = _current_streams.__dict__
    return by_device.get(f"s{current_device()}", NULL_STREAM)  # type: ignore[call-overload, no-any-return]


def set_current_stream(handle: int, device_id: int) -> None:
    _current_streams.__dict__[f"s{device_id}"] = handle


def shutdown() -> None:
    """Give all memory back; what still holds an address of it reads zeros."""
    for heap in heaps:
        heap.close()
    heaps.clear()
    opened.clear()
