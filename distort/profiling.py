"""onnxruntime's profile: a JSON array of complete events ("ph": "X"), times in microseconds since the profile began.

A parallel session's has the events of all actors, on this process's clock: "Node" and "Stage" events by the actor's
process, and what :mod:`distort.trace` makes of them. Perfetto and chrome://tracing open it.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from distort import trace
from distort.graph.ir import Graph, Node
from distort.kernels.events import describe

if TYPE_CHECKING:
    from distort.cluster.orders import StageReport

_PROVIDER = "CPUExecutionProvider"


class Profiler:
    """Collects the events of one session and writes them once."""

    def __init__(self, prefix: str) -> None:
        self.start_ns = time.time_ns()
        stamp = time.strftime("%Y-%m-%d_%H-%M-%S", time.localtime(self.start_ns / 1e9))
        self.path = f"{prefix}_{stamp}_{self.start_ns // 1_000_000 % 1000:03d}.json"
        self._events: list[dict[str, Any]] | None = []
        self._positions: dict[str, int] = {}
        self._weights: frozenset[str] = frozenset()
        self._stage_names: list[str] = []
        self._lock = threading.Lock()
        self._runs: list[trace.CallerRun] = []
        self._of_thread = threading.local()  # executions of the run that the thread waits for
        self._rows: dict[tuple[int, int], int] = {}  # unit, its process -> the number of its row

    def watch(self, graph: Graph) -> None:
        """Number the nodes and know the weights of the graph that runs."""
        self._positions = {name: i for name, i in graph.producers().items()}
        self._weights = frozenset(graph.initializers)

    def name_stages(self, names: Sequence[str]) -> None:
        self._stage_names = list(names)

    def add(
        self,
        category: str,
        name: str,
        start_ns: int,
        end_ns: int,
        args: dict[str, Any] | None = None,
        *,
        pid: int = 0,
        thread: int = 0,
    ) -> dict[str, Any]:
        """A complete event; of this process and thread unless others are named."""
        # both ends are rounded, so that what lies within another still does
        ts = max(0, start_ns - self.start_ns) // 1000
        event = {
            "cat": category,
            "pid": pid or os.getpid(),
            "tid": thread or threading.get_native_id(),
            "dur": max(ts, (end_ns - self.start_ns) // 1000) - ts,
            "ts": ts,
            "ph": "X",
            "name": name,
            "args": args or {},
        }
        with self._lock:
            if self._events is not None:
                self._events.append(event)
        return event

    @contextmanager
    def span(self, name: str) -> Iterator[None]:
        """A Session event over a block."""
        start_ns = time.time_ns()
        try:
            yield
        finally:
            self.add("Session", name, start_ns, time.time_ns())

    def observe(self, node: Node, start_ns: int, end_ns: int, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
        """A Node event; called after each step of a run."""
        output = next(filter(None, node.outputs), "")
        name, index = self._numbered(node.name, node.op_type, output)
        args = describe(node, inputs, outputs, self._weights, _PROVIDER) | index
        self.add("Node", name, start_ns, end_ns, args)

    def report(self, report: StageReport) -> None:
        """Events of a stage's execution on its actor, for the run that this thread waits for."""
        where = {"pid": self._row(report.unit, report.pid), "thread": report.thread}
        edges = [
            {
                "value": value,
                "from": "driver" if producer < 0 else f"stage{producer}",
                "nbytes": nbytes,
                "transport": transport,
            }
            for value, producer, nbytes, transport in report.edges
        ]
        args: dict[str, Any] = {
            "run": report.run,
            "stage": report.stage,
            "nbytes_in": sum(edge[2] for edge in report.edges),
            "edges": edges,
        }
        if report.clock_error_ns:  # another host's: -1 where its clock could not be read
            args["clock_error_us"] = max(-1, report.clock_error_ns // 1000)
        event = self.add("Stage", f"stage{report.stage}_execute", report.start_ns, report.end_ns, args, **where)
        execution = trace.Execution(report.run, report.stage, event, tuple(report.edges), tuple(report.returned))
        self._of_thread.__dict__.setdefault("executions", []).append(execution)
        for step in report.events:
            name, index = self._numbered(step.node, step.op_type, step.output)
            of = {"stage": str(report.stage), "run": str(report.run)}
            self.add("Node", name, step.start_ns, step.end_ns, step.args | index | of, **where)

    def end_run(self, executor_name: str, start_ns: int, end_ns: int) -> None:
        """Session events of a run that this thread waited for."""
        self.add("Session", executor_name, start_ns, end_ns)
        event = self.add("Session", "model_run", start_ns, end_ns)
        executions = self._of_thread.__dict__.pop("executions", None)
        if executions:
            with self._lock:
                self._runs.append(trace.CallerRun(event, executions))

    def _row(self, unit: int, pid: int) -> int:
        """The number of an actor's row: its process's, or another where two hosts have processes of that number."""
        with self._lock:
            taken = {os.getpid(), *self._rows.values()}
            row = self._rows.get((unit, pid))
            if row is None:
                row = self._rows[unit, pid] = pid if pid not in taken else max(taken) + 1
            return row

    def _numbered(self, name: str, op_type: str, output: str) -> tuple[str, dict[str, str]]:
        """An event's name, and the node's place in the graph."""
        position = self._positions.get(output)
        if position is None:  # in a body
            return f"{name or op_type}_kernel_time", {}
        return f"{name or f'{op_type}_{position}'}_kernel_time", {"node_index": str(position)}

    def end(self) -> str:
        """Write the file; its path, or nothing where it was written before."""
        with self._lock:
            if self._events is None:
                return ""
            events, self._events = self._events, None
        events += trace.events_of(self._runs)
        events = [*self._names(events), *events]
        lines = ",\n".join(map(_line, events))
        with open(self.path, "w", encoding="utf-8") as file:
            file.write(f"[\n{lines}\n]\n")
        return self.path

    def _names(self, events: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """What viewers call the rows of a parallel session, and their order: that of the stages."""
        stages = {event["pid"]: event["args"]["stage"] for event in events if event["cat"] == "Stage"}
        if not stages:
            return
        names = {os.getpid(): "driver"} | {row: self._stage_names[stage] for row, stage in stages.items()}
        units = {row: unit for (unit, _), row in self._rows.items()}
        alike = [stages[row] for row in stages]
        for row, name in sorted(names.items(), key=lambda item: units.get(item[0], -1)):
            if row in stages and alike.count(stages[row]) > 1:  # a replica's, or one that was restarted
                name += f" (unit {units[row]}, process {row})"
            yield trace.metadata("process_name", row, name=name)
            yield trace.metadata("process_sort_index", row, sort_index=units.get(row, -1))


def _line(event: dict[str, Any]) -> str:
    """An event with onnxruntime's spaces, which some parsers count on."""
    spaced = {"cat", "ph", "args"}
    pairs = (
        f'"{key}" :{" " * (key in spaced)}{json.dumps(value, separators=(",", " : "))}' for key, value in event.items()
    )
    return "{" + ",".join(pairs) + "}"
