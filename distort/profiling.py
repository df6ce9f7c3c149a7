"""onnxruntime's profile: a JSON array of complete events ("ph": "X"), times in microseconds since the profile began.

A parallel session's has the events of all actors, on one clock: "Node" and "Stage" events by the actor's process,
"Bubble" events where an actor waited between two executions, and the bytes that each edge brought among the arguments
of a stage's event. Perfetto and chrome://tracing open it.
"""

from __future__ import annotations

import itertools
import json
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

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
    ) -> None:
        """A complete event; of this process and thread unless others are named."""
        event = {
            "cat": category,
            "pid": pid or os.getpid(),
            "tid": thread or threading.get_native_id(),
            "dur": max(0, end_ns - start_ns) // 1000,
            "ts": max(0, start_ns - self.start_ns) // 1000,
            "ph": "X",
            "name": name,
            "args": args or {},
        }
        with self._lock:
            if self._events is not None:
                self._events.append(event)

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
        """Events of a stage's execution on its actor."""
        where = {"pid": report.pid, "thread": report.thread}
        edges = [
            {"value": value, "from": "driver" if producer < 0 else f"stage{producer}", "nbytes": nbytes}
            for value, producer, nbytes in report.edges
        ]
        stage = f"stage{report.stage}"
        args = {
            "run": report.run,
            "stage": report.stage,
            "nbytes_in": sum(n for _, _, n in report.edges),
            "edges": edges,
        }
        self.add("Stage", f"{stage}_execute", report.start_ns, report.end_ns, args, **where)
        for event in report.events:
            name, index = self._numbered(event.node, event.op_type, event.output)
            of = {"stage": str(report.stage), "run": str(report.run)}
            self.add("Node", name, event.start_ns, event.end_ns, event.args | index | of, **where)

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
        events += _bubbles(events)
        events = [*self._process_names(events), *events]
        lines = ",\n".join(map(_line, events))
        with open(self.path, "w", encoding="utf-8") as file:
            file.write(f"[\n{lines}\n]\n")
        return self.path

    def _process_names(self, events: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """What viewers call the processes of a parallel session."""
        stages = {event["pid"]: event["args"]["stage"] for event in events if event["cat"] == "Stage"}
        if not stages:
            return []
        named = {os.getpid(): "driver"} | {pid: self._stage_names[stage] for pid, stage in stages.items()}
        return [
            {
                "ph": "M",
                "name": "process_name",
                "cat": "__metadata",
                "pid": pid,
                "tid": 0,
                "ts": 0,
                "args": {"name": text},
            }
            for pid, text in named.items()
        ]


def _line(event: dict[str, Any]) -> str:
    """An event with onnxruntime's spaces, which some parsers count on."""
    spaced = {"cat", "ph", "args"}
    pairs = (
        f'"{key}" :{" " * (key in spaced)}{json.dumps(value, separators=(",", " : "))}' for key, value in event.items()
    )
    return "{" + ",".join(pairs) + "}"


def _bubbles(events: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The time between two executions of a stage, when its actor had nothing to do."""
    by_actor: dict[int, list[dict[str, Any]]] = {}
    for event in events:
        if event["cat"] == "Stage":
            by_actor.setdefault(event["pid"], []).append(event)
    found = []
    for executions in by_actor.values():
        executions.sort(key=lambda event: event["ts"])
        for before, after in itertools.pairwise(executions):
            start = before["ts"] + before["dur"]
            if after["ts"] > start:
                args = {"stage": after["args"]["stage"], "before_run": after["args"]["run"]}
                found.append(
                    after | {"cat": "Bubble", "name": "bubble", "ts": start, "dur": after["ts"] - start, "args": args}
                )
    return found
