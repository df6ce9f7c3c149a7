"""What a trace of a parallel session shows beside its executions: bubbles, flows, the critical path of each run.

Events are those of Chrome's trace format (Perfetto and chrome://tracing open it): "s" and "f" events are the ends of an
arrow, which start and end within a slice of their process and thread. The critical path is a track of its own in this
process's row: which stage a run was in, and for how long it was on its way to the next or waited for its actor.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Event = dict[str, Any]

#: numbers of the critical path's tracks: above those that a system gives its threads
_FIRST_TRACK = 10_000_000


@dataclass(slots=True, eq=False)
class Execution:
    """A stage at work on a run, with its event in the trace."""

    run: int
    stage: int
    event: Event
    edges: Sequence[tuple[str, int, int, str]]  # value, producing stage (-1: the caller), bytes, transport
    returned: Sequence[tuple[str, int, str]]  # to the caller: value, bytes, transport

    @property
    def start_us(self) -> int:
        return int(self.event["ts"])

    @property
    def end_us(self) -> int:
        return int(self.event["ts"] + self.event["dur"])


@dataclass(slots=True, eq=False)
class CallerRun:
    """What a caller waited for: its event, and the executions of it (of several runs where it was split)."""

    event: Event
    executions: list[Execution] = field(default_factory=list)

    @property
    def start_us(self) -> int:
        return int(self.event["ts"])

    @property
    def end_us(self) -> int:
        return int(self.event["ts"] + self.event["dur"])


def events_of(runs: Sequence[CallerRun]) -> list[Event]:
    """All that is added to the events of callers and executions, which are marked where they are critical."""
    by_actor: dict[int, list[Execution]] = {}
    for run in runs:
        for execution in run.executions:
            by_actor.setdefault(execution.event["pid"], []).append(execution)
    for executions in by_actor.values():
        executions.sort(key=lambda execution: execution.start_us)
    numbers = itertools.count(1)
    arrows = [event for run in runs for event in _flows(run, numbers)]
    return [*_bubbles(by_actor, runs), *arrows, *_critical_paths(runs, by_actor)]


# -- bubbles


def _bubbles(by_actor: Mapping[int, list[Execution]], runs: Sequence[CallerRun]) -> Iterator[Event]:
    """The time between two executions of an actor, and for how much of it runs were in flight."""
    active = _Spans([(run.start_us, run.end_us) for run in runs])
    for executions in by_actor.values():
        for before, after in itertools.pairwise(executions):
            start, end = before.end_us, after.start_us
            if end > start:
                args = {"stage": after.stage, "before_run": after.run, "in_flight_us": active.within(start, end)}
                changed = {"cat": "Bubble", "name": "bubble", "ts": start, "dur": end - start, "args": args}
                yield after.event | changed


class _Spans:
    """The union of some spans of time."""

    def __init__(self, spans: Sequence[tuple[int, int]]) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        for start, end in sorted(spans):
            if self._ends and start <= self._ends[-1]:
                self._ends[-1] = max(self._ends[-1], end)
            else:
                self._starts.append(start)
                self._ends.append(end)

    def within(self, start: int, end: int) -> int:
        """How much of them lies from ``start`` to ``end``."""
        total = 0
        for i in range(bisect.bisect_right(self._ends, start), len(self._starts)):
            if self._starts[i] >= end:
                break
            total += max(0, min(end, self._ends[i]) - max(start, self._starts[i]))
        return total


# -- flows


def _flows(run: CallerRun, numbers: Iterator[int]) -> Iterator[Event]:
    """Arrows from the caller to stages, from stage to stage, and back."""
    made = {(execution.run, execution.stage): execution for execution in run.executions}
    for execution in run.executions:
        for value, producer, nbytes, transport in execution.edges:
            source: CallerRun | Execution | None = run if producer < 0 else made.get((execution.run, producer))
            # a value that stayed on an actor was made by an earlier run
            if source is None or source is execution or source.start_us > execution.start_us:
                continue
            leaves_us = source.start_us if source is run else _last_us(source)
            args = {"nbytes": nbytes, "transport": transport}
            arrives_us = execution.start_us
            yield from _arrow(value, next(numbers), source, min(leaves_us, arrives_us), execution, arrives_us, args)
        for value, nbytes, transport in execution.returned:
            arrives_us = max(_last_us(run), run.start_us)
            args = {"nbytes": nbytes, "transport": transport}
            leaves_us = max(execution.start_us, min(_last_us(execution), arrives_us))
            if leaves_us <= arrives_us:
                yield from _arrow(value, next(numbers), execution, leaves_us, run, arrives_us, args)


def _last_us(slice_of: CallerRun | Execution) -> int:
    """The last moment that lies within."""
    return max(slice_of.start_us, slice_of.end_us - 1)


def _arrow(
    value: str,
    number: int,
    source: CallerRun | Execution,
    leaves_us: int,
    target: CallerRun | Execution,
    arrives_us: int,
    args: dict[str, Any],
) -> Iterator[Event]:
    for phase, of, ts in (("s", source, leaves_us), ("f", target, arrives_us)):
        where = {"pid": of.event["pid"], "tid": of.event["tid"], "ts": ts}
        event = {"cat": "Edge", **where, "ph": phase, "id": number, "name": value, "args": args}
        # an arrow ends in the slice around it, and not in the next one
        yield event | {"bp": "e"} if phase == "f" else event


# -- the critical path


def critical_path(run: CallerRun) -> list[Execution]:
    """The executions that a run waited for, one after the other: each with the last of those that it read from."""
    made = {(execution.run, execution.stage): execution for execution in run.executions}
    last = [execution for execution in run.executions if execution.returned] or run.executions
    path: list[Execution] = []
    here = max(last, key=lambda execution: execution.end_us, default=None)
    while here is not None:
        path.append(here)
        read = {made.get((here.run, producer)) for _, producer, _, _ in here.edges}
        before = [other for other in read if other is not None and other.start_us < here.start_us]
        here = max(before, key=lambda execution: execution.end_us, default=None)
    return path[::-1]


def _critical_paths(runs: Sequence[CallerRun], by_actor: Mapping[int, list[Execution]]) -> Iterator[Event]:
    """Slices for each run, on as many tracks as runs overlap."""
    busy = {pid: _Spans([(e.start_us, e.end_us) for e in executions]) for pid, executions in by_actor.items()}
    tracks: list[tuple[int, int]] = []  # of each: in which process, until when it is taken
    for run in sorted(runs, key=lambda run: run.start_us):
        path = critical_path(run)
        if not path:
            continue
        pid = run.event["pid"]
        free = next((i for i, (of, end) in enumerate(tracks) if of == pid and end <= run.start_us), len(tracks))
        tracks[free : free + 1] = [(pid, run.end_us)]
        where = {"pid": pid, "tid": _FIRST_TRACK + free}
        at = run.start_us
        for execution in path:
            execution.event["args"]["critical"] = True
            wait = {"actor_busy_us": busy[execution.event["pid"]].within(at, execution.start_us)}
            yield from _span(where, f"→ stage{execution.stage}", at, execution.start_us, {"run": execution.run, **wait})
            args = {"run": execution.run, "stage": execution.stage}
            start = max(at, min(execution.start_us, run.end_us))
            at = max(start, min(execution.end_us, run.end_us))
            yield from _span(where, f"stage{execution.stage}", start, at, args)
        yield from _span(where, "→ caller", at, run.end_us, {"run": path[-1].run})
    for track, (pid, _) in enumerate(tracks):
        yield metadata("thread_name", pid, _FIRST_TRACK + track, name="critical path")


def _span(where: Mapping[str, int], name: str, start: int, end: int, args: dict[str, Any]) -> Iterator[Event]:
    if end > start:
        shape = {"dur": end - start, "ts": start, "ph": "X", "name": name, "args": args}
        yield {"cat": "CriticalPath", **where, **shape}


def metadata(what: str, pid: int, tid: int = 0, **args: Any) -> Event:
    """What viewers call a row, or where they put it."""
    return {"ph": "M", "name": what, "cat": "__metadata", "pid": pid, "tid": tid, "ts": 0, "args": args}
