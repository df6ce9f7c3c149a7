"""cupy.cuda.Stream and Event."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from typing import Any

from .. import _state
from . import runtime
from .graph import Graph


class Event:
    ptr = 0

    def __init__(self, block: bool = False, disable_timing: bool = False, interprocess: bool = False) -> None:
        if interprocess and not disable_timing:
            raise ValueError("Timing must be disabled for interprocess events")
        flags = (1 if block else 0) | (2 if disable_timing else 0) | (4 if interprocess else 0)
        self.ptr = runtime.eventCreateWithFlags(flags)

    def __del__(self) -> None:
        if self.ptr:
            _state.events.pop(self.ptr, None)

    @property
    def done(self) -> bool:
        return _state.event_done(self.ptr)

    def record(self, stream: Any = None) -> None:
        runtime.eventRecord(self.ptr, _state.current_stream() if stream is None else stream.ptr)

    def synchronize(self) -> None:
        runtime.eventSynchronize(self.ptr)


def get_elapsed_time(start_event: Event, end_event: Event) -> float:
    """Milliseconds."""
    return runtime.eventElapsedTime(start_event.ptr, end_event.ptr)


class _BaseStream:
    def __init__(self, ptr: int, device_id: int) -> None:
        self.ptr = ptr
        self.device_id = device_id

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _BaseStream) and self.ptr == other.ptr

    def __hash__(self) -> int:
        return self.ptr

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.ptr} (device {self.device_id})>"

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self.ptr

    def _device(self) -> int:
        current = _state.current_device()
        if self.device_id not in (-1, current):
            raise RuntimeError(
                f"The device that the stream is created on ({self.device_id})"
                f" does not match with the current device ({current})"
            )
        return current

    def __enter__(self) -> _BaseStream:
        device_id = self._device()
        _stack().append((device_id, get_current_stream(device_id)))
        _set_current(self, device_id)
        return self

    def __exit__(self, *of_error: object) -> None:
        device_id, before = _stack().pop()
        _set_current(before, device_id)

    def use(self) -> _BaseStream:
        _set_current(self, self._device())
        return self

    @property
    def done(self) -> bool:
        return not _state.stream_of(self.ptr).queue

    def synchronize(self) -> None:
        runtime.streamSynchronize(self.ptr)

    def add_callback(self, callback: Callable[[Any, int, Any], None], arg: Any) -> None:
        _state.forbid_in_capture(self.ptr)
        _state.enqueue(self.ptr, lambda: callback(self, 0, arg))

    def launch_host_func(self, callback: Callable[[Any], None], arg: Any) -> None:
        _state.enqueue(self.ptr, lambda: callback(arg))

    def record(self, event: Event | None = None) -> Event:
        event = event or Event()
        runtime.eventRecord(event.ptr, self.ptr)
        return event

    def wait_event(self, event: Event) -> None:
        runtime.streamWaitEvent(self.ptr, event.ptr)

    def begin_capture(self, mode: int | None = None) -> None:
        if self.ptr in (0, 1):
            raise RuntimeError("cannot capture on the default (legacy) stream")
        runtime.streamBeginCapture(self.ptr, runtime.streamCaptureModeRelaxed if mode is None else mode)

    def end_capture(self) -> Graph:
        return Graph._of(_state.end_capture(self.ptr))

    def is_capturing(self) -> bool:
        return _state.capturing(self.ptr) is not None

    @property
    def is_non_blocking(self) -> bool:
        return bool(_state.stream_of(self.ptr).flags & 1)

    @property
    def priority(self) -> int:
        return _state.stream_of(self.ptr).priority


class Stream(_BaseStream):
    null: Stream
    ptds: Stream

    def __init__(
        self, null: bool = False, non_blocking: bool = False, ptds: bool = False, priority: int | None = None
    ) -> None:
        self._owned = not null and not ptds
        if self._owned:
            state = _state.new_stream(1 if non_blocking else 0, priority or 0)
            super().__init__(state.handle, state.device_id)
        else:
            super().__init__(_state.NULL_STREAM if null else _state.PER_THREAD_STREAM, -1)

    def __del__(self) -> None:
        if getattr(self, "_owned", False):
            state = _state.streams.pop(self.ptr, None)
            if state is not None:
                state.drain(wait=False)  # destroying a stream lets its work finish

    @classmethod
    def from_external(cls, obj: Any) -> Stream:
        version, ptr = obj.__cuda_stream__()
        if type(ptr) is not int or version != 0:
            raise TypeError("__cuda_stream__() must return (0, int)")
        stream = cls.__new__(cls)
        stream._owned = False
        _BaseStream.__init__(stream, ptr, -1)
        return stream


class ExternalStream(_BaseStream):
    def __init__(self, ptr: int, device_id: int = -1) -> None:
        warnings.warn("ExternalStream is deprecated. Use Stream.from_external() instead", DeprecationWarning, 2)
        super().__init__(ptr, device_id)


Stream.null = Stream(null=True)
Stream.ptds = Stream(ptds=True)
_of_thread = threading.local()


def _stack() -> list[tuple[int, _BaseStream]]:
    if not hasattr(_of_thread, "stack"):
        _of_thread.stack = []
    found: list[tuple[int, _BaseStream]] = _of_thread.stack
    return found


def _set_current(stream: _BaseStream, device_id: int) -> None:
    if not hasattr(_of_thread, "current"):
        _of_thread.current = {}
    _of_thread.current[device_id] = stream
    _state.set_current_stream(stream.ptr, device_id)


def get_current_stream(device_id: int = -1) -> Any:
    device_id = _state.current_device() if device_id == -1 else device_id
    return getattr(_of_thread, "current", {}).get(device_id, Stream.null)
