"""How long work on a stream takes, by CUDA's events."""

from __future__ import annotations

from collections.abc import Callable

#: runs that are timed, after one that isn't
_REPEATS = 5


def milliseconds(enqueue: Callable[[int], None], stream: int) -> float:
    """Of one run, in the mean. ``enqueue`` puts one on a stream. Waits for the device: not while it is captured."""
    from cupy.cuda import runtime

    begin, end = runtime.eventCreate(), runtime.eventCreate()
    try:
        enqueue(stream)
        runtime.eventRecord(begin, stream)
        for _ in range(_REPEATS):
            enqueue(stream)
        runtime.eventRecord(end, stream)
        runtime.eventSynchronize(end)
        return float(runtime.eventElapsedTime(begin, end)) / _REPEATS
    finally:
        runtime.eventDestroy(begin)
        runtime.eventDestroy(end)


__all__ = ["milliseconds"]
