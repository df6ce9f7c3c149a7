"""The actor of one stage: its program, its threads, the values that it keeps.

Plain Python, so that it runs without Ray too; ``pool.py`` makes it a Ray actor. Ray resolves the object references
among ``execute``'s inputs before the call, so values go from actor to actor and never through the driver.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from distort.cluster.errors import StaleResident
from distort.cluster.resident import ResidentMeta
from distort.graph.ir import Graph, Node
from distort.graph.types import element_of
from distort.kernels.events import describe
from distort.kernels.program import Cancellation, Paths, Program, StepObserver


@dataclass(frozen=True, slots=True)
class StagePayload:
    """A stage as it travels: the graph without its weights, and what is asked of it."""

    session: str
    stage: int
    graph: Graph
    outputs: tuple[str, ...]
    threads: int  # 0: the library's default
    custom_kernels: bytes = b""  # kernels that the user registered, pickled


@dataclass(frozen=True, slots=True)
class ResidentKey:
    """Stands for an input that the actor already holds."""

    key: str


@dataclass(frozen=True, slots=True)
class ExecuteOrder:
    """Which of the stage's inputs come with the call and which outputs go where."""

    run: int
    inputs: tuple[str, ...]  # names of the values passed along, in order
    returns: tuple[str, ...]  # outputs handed back
    keep: tuple[str, ...]  # outputs that stay here
    profile: bool = False
    path_only: bool = False  # run only the nodes that returns and keep depend on


@dataclass(frozen=True, slots=True)
class NodeEvent:
    """A node's step in a profile."""

    node: str
    op_type: str
    output: str  # its first output, which is known by the whole graph
    start_ns: int  # time.time_ns() of the actor's host
    end_ns: int
    args: dict[str, Any]


@dataclass(slots=True)
class StageReport:
    """What an execution tells beside its values."""

    run: int
    stage: int
    start_ns: int
    end_ns: int
    received: dict[str, int]  # value -> bytes that crossed into this actor
    kept: dict[str, ResidentMeta]
    events: list[NodeEvent] = field(default_factory=list)
    pid: int = 0
    thread: int = 0
    edges: list[tuple[str, int, int]] = field(default_factory=list)  # value, producing stage (-1: driver), bytes


class StageActor:
    def __init__(self) -> None:
        self._payload: StagePayload | None = None
        self._program: Program | None = None
        self._resident: dict[str, Any] = {}
        self._n_kept = 0
        self._cancellations: dict[int, Cancellation] = {}
        self._cancelled: set[int] = set()
        self._lock = threading.Lock()  # one execution at a time; control methods don't take it

    def load(self, payload: StagePayload, *weights: dict[str, Any]) -> dict[str, Any]:
        """Lower the stage. ``weights`` are mapped read-only from the object store. Returns the actor's facts."""
        if payload.custom_kernels:
            from distort.cluster.custom_kernels import unpack

            unpack(payload.custom_kernels)
        if payload.threads:
            from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # it ships no types

            threadpool_limits(payload.threads)
        graph = payload.graph
        for group in weights:
            graph.initializers.update({name: group[name] for name in group if name not in graph.initializers})
        self._program = Program(graph, outputs=payload.outputs)
        self._paths = Paths(graph)
        self._payload = payload
        return {"pid": os.getpid(), "node_ip": _node_ip(), "threads": payload.threads}

    def execute(self, order: ExecuteOrder, *values: Any) -> Any:
        """Run the stage once. Returns the report, then one value for each name of ``order.returns``."""
        with self._lock:
            results = self._execute(order, values)
        return results[0] if len(results) == 1 else results

    def _execute(self, order: ExecuteOrder, values: Sequence[Any]) -> tuple[Any, ...]:
        assert self._program is not None and self._payload is not None, "load() comes first"
        start_ns = time.time_ns()
        cancellation = self._cancellations[order.run] = Cancellation()
        cancellation.requested = order.run in self._cancelled
        received: dict[str, int] = {}
        feeds: dict[str, Any] = {}
        for name, value in zip(order.inputs, values, strict=True):
            if isinstance(value, ResidentKey):
                feeds[name] = self._held(value.key, name)
            else:
                feeds[name] = value
                received[name] = nbytes_of(value)
        events: list[NodeEvent] = []
        observer: StepObserver | None = None
        if order.profile:
            weights = self._payload.graph.initializers

            def observer(node: Node, begin: int, end: int, ins: Sequence[Any], outs: Sequence[Any]) -> None:
                args = describe(node, ins, outs, weights, "CPUExecutionProvider")
                output = next(filter(None, node.outputs), "")
                events.append(NodeEvent(node.name, node.op_type, output, begin, end, args))

        program = self._program
        if order.path_only:
            program = self._paths.to((*order.returns, *order.keep))
        try:
            outputs = dict(zip(program.outputs, program.run(feeds, observer, cancellation), strict=True))
        finally:
            del self._cancellations[order.run]
            self._cancelled.discard(order.run)
        kept = {name: self._keep(outputs[name]) for name in order.keep}
        report = StageReport(order.run, self._payload.stage, start_ns, time.time_ns(), received, kept, events)
        report.pid, report.thread = os.getpid(), threading.get_native_id()
        return (report, *(outputs[name] for name in order.returns))

    def _held(self, key: str, name: str) -> Any:
        try:
            return self._resident[key]
        except KeyError:
            raise StaleResident(f"The value bound to '{name}' is not on this actor any more. Make it again.") from None

    def _keep(self, value: Any) -> ResidentMeta:
        if value is None:
            return ResidentMeta("", 0, (), 0, empty=True)
        self._n_kept += 1
        key = f"{os.getpid()}-{self._n_kept}"
        # a copy where it is a view of something larger, or of memory that the object store may take back
        if isinstance(value, np.ndarray) and (value.base is not None or not value.flags.owndata):
            value = value.copy()
        self._resident[key] = value
        if isinstance(value, np.ndarray):
            return ResidentMeta(key, element_of(value.dtype), value.shape, nbytes_of(value))
        return ResidentMeta(key, 0, (), nbytes_of(value))

    def keep_value(self, value: Any) -> ResidentMeta:
        """Take a value in and hold it."""
        return self._keep(np.array(value) if isinstance(value, np.ndarray) else value)

    def export(self, key: str) -> Any:
        """Hand a held value out."""
        return self._held(key, key)

    def release(self, keys: Sequence[str]) -> None:
        for key in keys:
            self._resident.pop(key, None)

    def cancel(self, run: int) -> None:
        """Stop ``run`` before its next node, whether it has begun or is still to come."""
        cancellation = self._cancellations.get(run)
        if cancellation is not None:
            cancellation.requested = True
        else:
            self._cancelled.add(run)
            if len(self._cancelled) > 1024:  # runs that ended before their cancellation arrived
                self._cancelled = {r for r in self._cancelled if r > run - 1024}

    def held(self) -> tuple[int, int]:
        """How many values this actor keeps, and their bytes."""
        return len(self._resident), sum(nbytes_of(value) for value in self._resident.values())

    def ping(self) -> int:
        return os.getpid()


def nbytes_of(value: Any) -> int:
    """Bytes that moving a value moves: arrays by their buffer, strings by their text, containers by their items."""
    if isinstance(value, np.ndarray):
        if value.dtype == object:
            return sum(len(str(item).encode()) for item in value.reshape(-1))
        return value.nbytes
    if isinstance(value, (list, tuple)):
        return sum(nbytes_of(item) for item in value)
    if isinstance(value, dict):
        return sum(nbytes_of(k) + nbytes_of(v) for k, v in value.items())
    if isinstance(value, str):
        return len(value.encode())
    if isinstance(value, (int, float)):
        return 8
    return 0


def _node_ip() -> str:
    import sys

    ray = sys.modules.get("ray")
    return str(ray.util.get_node_ip_address()) if ray is not None and ray.is_initialized() else "127.0.0.1"
