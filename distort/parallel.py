"""The parallel half of an engine: a plan's stages on actors.

Actors take seconds to come where no cluster is warm, and nobody waits for them: until they are there, runs are
answered by a program in this process (``distort.start=overlap``). ``wait`` waits, with a bar in a terminal.
"""

from __future__ import annotations

import contextlib
import json
import sys
import threading
import uuid
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from weakref import WeakMethod

from distort.cluster.errors import SessionClosed
from distort.cluster.executor import Executor
from distort.cluster.orders import StagePayload
from distort.cluster.resources import attach
from distort.cluster.transport.actors import ActorTransport
from distort.cluster.weights import take_weights
from distort.gpus import seats_of
from distort.scheduler.units import Units

if TYPE_CHECKING:
    from distort.cluster.orders import GpuSeat
    from distort.cluster.publisher import Publisher
    from distort.gpus import Entries
    from distort.graph.ir import Graph
    from distort.scheduler.plan import Plan

#: a start that takes less shows no bar
_BAR_AFTER_S = 0.5


class Actors:
    """The executor of a plan, as soon as it is there. ``keys`` are the session's, without the prefix ``distort.``."""

    def __init__(
        self,
        graph: Graph,
        plan: Plan,
        keys: Mapping[str, str],
        spin_us: int,
        on_ready: Callable[[], None],
        providers: Entries = (),
    ) -> None:
        """``on_ready``, a method, is called when the actors are there, on the thread that starts them.

        ``providers`` have the options of the plan's GPUs.
        """
        self._spin_us = spin_us
        self._seats = seats_of(Units(plan.stages), providers)
        has_gpus = any(seat is not None for seat in self._seats)
        self._keys = keys
        self._executor: Executor | None = None
        self._error: BaseException | None = None
        self._closed = False
        self._lock = threading.Lock()
        self._there = threading.Event()
        self._on_ready = WeakMethod(on_ready)  # it holds this
        address = keys.get("address", "")
        if address:
            attach(address)  # what is wrong with an address is said at once
        wanted = keys.get("metrics", "0")
        self.publisher: Publisher | None = None
        if wanted != "0":
            from distort.cluster.publisher import Publisher

            self.publisher = Publisher(wanted, plan.model_name)
            weakref.finalize(self, self.publisher.stop)
        start = threading.Thread(target=self._start, args=(graph, plan), name="distort-start")
        start.start()
        # a model for GPUs may be too large for this process, and would answer much later on its CPU
        if keys.get("start", "wait" if has_gpus else "overlap") == "wait":
            with _bar(f"Starting {len(plan.stages)} actors", self._there):
                self.wait()

    def _start(self, graph: Graph, plan: Plan) -> None:
        try:
            executor = open_executor(graph, plan, self._keys, self._spin_us, self._given_up, self._seats)
        except Exception as error:  # noqa: BLE001  # the next run raises it, whatever it is
            self._error = error
        else:
            with self._lock:
                closed = self._closed
                if not closed:
                    self._executor = executor
            if closed:
                executor.close()
            else:
                if self.publisher is not None:
                    self.publisher.follow(executor)
                tell = self._on_ready()
                if tell is not None:
                    tell()
        self._there.set()

    def _given_up(self) -> bool:
        return self._closed or not threading.main_thread().is_alive()

    @property
    def ready(self) -> Executor | None:
        """The executor; None while its actors are on their way. Raises what kept them from coming."""
        executor = self._executor
        if executor is None and self._error is not None:
            raise self._error
        return executor

    def wait(self, timeout_s: float | None = None) -> Executor:
        """The executor, when its actors are there. Raises TimeoutError, and what kept them from coming."""
        if not self._there.wait(timeout_s):
            raise TimeoutError(f"The actors were not there within {timeout_s:g} s.")
        executor = self.ready
        if executor is None:
            raise SessionClosed("The session is closed.")
        return executor

    def close(self) -> None:
        """End the actors; those on their way end when they come. Safe to call twice."""
        with self._lock:
            self._closed = True
            executor = self._executor
        if self.publisher is not None:
            self.publisher.close()
        if executor is not None:
            executor.close()


def open_executor(
    graph: Graph,
    plan: Plan,
    keys: Mapping[str, str],
    spin_us: int,
    given_up: Callable[[], bool],
    seats: Sequence[GpuSeat | None] = (),
) -> Executor:
    """Start a plan's actors; ``seats`` are the GPUs of its units. Raises ClusterError."""
    connection = attach(keys.get("address", ""))
    if given_up():
        raise SessionClosed("The session was closed while its actors were being started.")
    payloads, weights = stage_payloads(graph, plan, keys, seats)
    if keys.get("address"):  # the plan is one for the cluster's hosts
        units = Units(plan.stages)
        payloads = [replace(payload, host=units.device_of[payload.unit].host) for payload in payloads]
    return Executor(
        plan,
        payloads,
        weights,
        ActorTransport(
            connection,
            keys.get("transport", "auto"),
            json.loads(keys.get("runtime_env", "{}")),
            spin_us,
            strict=keys.get("strict_placement", "0") == "1",
        ),
        max_in_flight=int(keys.get("max_in_flight", 8)),
        recovery=keys.get("recovery", "replay"),
    )


def stage_payloads(
    graph: Graph, plan: Plan, keys: Mapping[str, str] | None = None, seats: Sequence[GpuSeat | None] = ()
) -> tuple[list[StagePayload], list[dict[str, Any]]]:
    """What each unit's actor is sent, and its weights that travel by themselves. ``keys``: of the session's config.

    ``seats``: the GPU of each unit, where there are any.
    """
    from distort.cluster.custom_kernels import pack

    session = uuid.uuid4().hex[:12]
    names = tuple(sorted({name for stage in plan.stages for name in (*stage.inputs, *stage.outputs)}))
    by_stage = []
    weights = []
    for stage in plan.stages:
        part = graph.extract(stage.nodes, name=f"{graph.name or 'graph'}.{stage.id}")
        # a GPU holds some elements as bytes, and is to say what they are
        on_gpu = stage.device.kind == "cuda"
        part.types = {name: graph.types[name] for name in part.outputs if name in graph.types} if on_gpu else {}
        payload = StagePayload(session, stage.index, part, tuple(part.outputs), 0, pack(part), 0, names)
        weights.append(take_weights(payload))
        by_stage.append(payload)
    units = Units(plan.stages)
    keys = keys or {}
    payloads = [
        replace(
            by_stage[stage],
            unit=unit,
            threads=units.device_of[unit].threads,
            compile=keys.get("compile", "1"),
            pool=f"distort-{session}-weights-{stage}" if units.stage_of.count(stage) > 1 else "",
            compute_precision=keys.get("compute_precision", "float32"),
            keep_qdq=keys.get("keep_qdq") == "1",
            gpu=seats[unit] if seats else None,
        )
        for unit, stage in enumerate(units.stage_of)
    ]
    return payloads, [weights[stage] for stage in units.stage_of]


@contextlib.contextmanager
def _bar(text: str, there: threading.Event) -> Iterator[None]:
    """A moving bar on stderr, where that is a terminal and the wait is not over at once."""
    if not sys.stderr.isatty() or there.wait(_BAR_AFTER_S):
        yield
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        progress.add_task(text, total=None)
        yield
