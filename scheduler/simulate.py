"""A plan on devices that need not exist: discrete events driven by the same state machine that drives real runs."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from distort.scheduler.device import INPROC, LOCAL, Link, format_nbytes, format_us
from distort.scheduler.device import LINKS as NETWORK
from distort.scheduler.plan import CALLER, Plan
from distort.scheduler.state import Command, Execute, Fetch, Finish, Release, RunState, StageDone, Submit
from distort.scheduler.units import Units

#: by the transport that an edge names: between actors, and within the caller's process
LINKS: Mapping[str, Link] = {
    link.transport: link
    for link in (
        NETWORK.across_hosts,
        NETWORK.same_host,
        NETWORK.to_gpu,
        NETWORK.from_gpu,
        NETWORK.between_gpus,
        NETWORK.between_far_gpus,
        INPROC,
    )
}
_LOCAL_LINKS: Mapping[str, Link] = {link.transport: link for link in (LOCAL.to_gpu, LOCAL.from_gpu, INPROC)}


#: moments that a grid shows
MOST_ROWS = 60


@dataclass(frozen=True, slots=True)
class Execution:
    """A stage at work on a run, from when it begins to receive."""

    run: int
    stage: int
    device: str
    begin_us: float
    end_us: float

    @property
    def action(self) -> str:
        """In the notation of pipelines: 2F0 is stage 2, forward, run 0."""
        return f"{self.stage}F{self.run}"


@dataclass(frozen=True, slots=True)
class Simulation:
    executions: tuple[Execution, ...]  # in the order of their ends
    latencies_us: tuple[float, ...]  # by run, from its submission
    makespan_us: float
    peak_nbytes: Mapping[str, int]  # by device: weights, activations, values kept for others

    @property
    def throughput_per_s(self) -> float:
        return 1e6 * len(self.latencies_us) / self.makespan_us if self.makespan_us > 0 else 0.0

    @property
    def busy(self) -> dict[str, float]:
        """Part of the time that each device works."""
        total = dict.fromkeys(self.peak_nbytes, 0.0)
        for execution in self.executions:
            total[execution.device] += execution.end_us - execution.begin_us
        return {device: time_us / (self.makespan_us or 1.0) for device, time_us in total.items()}

    def to_text(self) -> str:
        n_runs = len(self.latencies_us)
        mean_us = sum(self.latencies_us) / max(n_runs, 1)
        lines = [
            f"{n_runs} run{'' if n_runs == 1 else 's'} in {format_us(self.makespan_us)}: {self.throughput_per_s:.4g} "
            f"runs/s, {format_us(mean_us)} a run on average, {format_us(max(self.latencies_us, default=0.0))} at most"
        ]
        lines += [
            f"  {device}: busy {100 * part:.0f} %, at most {format_nbytes(self.peak_nbytes[device])}"
            for device, part in self.busy.items()
        ]
        return "\n".join(lines)

    def grid(self) -> str:
        """When each device begins what: a row for each moment, a column for each device; ``|`` goes on, ``.`` waits."""
        devices = list(self.peak_nbytes)
        moments = sorted({_rounded(execution.begin_us) for execution in self.executions})
        shown = moments[:MOST_ROWS]
        rows = [["time", *devices]]
        for moment in shown:
            cells = dict.fromkeys(devices, ".")
            for execution in self.executions:
                if _rounded(execution.begin_us) == moment:
                    cells[execution.device] = execution.action
                elif execution.begin_us < moment < _rounded(execution.end_us):
                    cells[execution.device] = "|"
            rows.append([format_us(moment), *cells.values()])
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines = ["  ".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True)) for row in rows]
        if len(moments) > len(shown):
            lines.append(f"and {len(moments) - len(shown)} more moments")
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """Plain data of strings, numbers, lists and dicts."""
        return {
            "makespan_us": self.makespan_us,
            "throughput_per_s": self.throughput_per_s,
            "latencies_us": list(self.latencies_us),
            "peak_nbytes": dict(self.peak_nbytes),
            "busy": self.busy,
            "actions": [
                {"action": e.action, "device": e.device, "begin_us": e.begin_us, "end_us": e.end_us}
                for e in self.executions
            ],
        }


def _rounded(time_us: float) -> float:
    """Moments that are the same but for rounding count as one."""
    return round(time_us, 3)


def simulate(
    plan: Plan,
    *,
    n_runs: int = 1,
    max_in_flight: int = 8,
    interval_us: float = 0.0,
    links: Mapping[str, Link] | None = None,
) -> Simulation:
    """``n_runs`` that want every output, submitted ``interval_us`` apart (0: all at once).

    A device executes one stage at a time, first come first served; what a stage reads it receives before it starts. A
    stage with replicas gives each run to the device with the fewest of them.
    """
    if n_runs < 0 or interval_us < 0:
        raise ValueError("n_runs and interval_us must not be negative")
    world = _World(plan, max_in_flight, links or (_LOCAL_LINKS if plan.in_process else LINKS))
    free_us = 0.0  # when the caller's process has dealt with the runs before
    for run in range(n_runs):
        begin_us = max(run * interval_us, free_us)
        world.at(begin_us, Submit(run, world.wanted))
        free_us = begin_us + world.caller_us
    world.go()
    latencies = tuple(world.ended_us[run] - run * interval_us for run in range(n_runs))
    return Simulation(
        tuple(world.executions), latencies, max(world.ended_us.values(), default=0.0), dict(world.peak_nbytes)
    )


class _World:
    def __init__(self, plan: Plan, max_in_flight: int, links: Mapping[str, Link]) -> None:
        self._stages = plan.stages
        self._units = Units(plan.stages)
        self._state = RunState(plan, max_in_flight=max_in_flight)
        self._agenda: list[tuple[float, int, Submit | StageDone]] = []
        self._n_planned = 0
        self._now = 0.0
        self.wanted = frozenset(edge.value for edge in plan.edges if edge.consumer == CALLER)
        self._duration_us = [
            _receive_us(((e.transport, e.nbytes) for e in plan.edges if e.consumer == s.index), links) + s.cost_us
            for s in plan.stages
        ]
        self._links = links
        ends = {(e.producer, e.consumer): e.transport for e in plan.edges if not e.between_stages}
        #: what the caller's process does for one run: a message for each stage that it feeds or fetches from
        self.caller_us = sum(links[transport].latency_us for transport in ends.values() if transport in links)
        self._fetched = {e.value: (e.transport, e.nbytes) for e in plan.edges if e.consumer == CALLER}
        self._nbytes = {edge.value: edge.nbytes or 0 for edge in plan.edges}
        devices = [device.id for stage in plan.stages for device in stage.devices]
        self._waiting: dict[str, deque[tuple[int, int]]] = {device: deque() for device in devices}
        self._begun: dict[str, tuple[int, int, float]] = {}  # run, stage, since
        self._where: dict[tuple[int, int], str] = {}  # the device that has a run's stage
        self._resting: dict[str, int] = dict.fromkeys(self._waiting, 0)  # weights, and values kept
        for stage in plan.stages:
            for device in stage.devices:
                self._resting[device.id] += stage.weights_nbytes
        self.peak_nbytes = dict(self._resting)
        self._kept: dict[int, set[tuple[str, int]]] = {}  # run -> values and who made them
        self._fetches: dict[int, list[tuple[str, int | None]]] = {}
        self.executions: list[Execution] = []
        self.ended_us: dict[int, float] = {}

    def at(self, time_us: float, event: Submit | StageDone) -> None:
        heapq.heappush(self._agenda, (time_us, self._n_planned, event))
        self._n_planned += 1

    def go(self) -> None:
        while self._agenda:
            self._now, _, event = heapq.heappop(self._agenda)
            if isinstance(event, StageDone):
                self._ended(event)
            for command in self._state.step(event):
                self._carry_out(command)
            for device in self._waiting:
                self._begin(device)

    def _carry_out(self, command: Command) -> None:
        if isinstance(command, Execute):
            device = self._units.device_of[command.unit].id
            self._where[command.run, command.stage] = device
            self._waiting[device].append((command.run, command.stage))
        elif isinstance(command, Fetch):
            self._fetches.setdefault(command.run, []).append(self._fetched[command.value])
        elif isinstance(command, Release):
            self._let_go(command.run, {(command.value, command.stage)})
        elif isinstance(command, Finish):
            self.ended_us[command.run] = self._now + _receive_us(self._fetches.pop(command.run, ()), self._links)
            self._let_go(command.run, set(self._kept.pop(command.run, ())))
            for stage in range(len(self._stages)):
                self._where.pop((command.run, stage), None)

    def _begin(self, device: str) -> None:
        if device in self._begun or not self._waiting[device]:
            return
        run, stage = self._waiting[device].popleft()
        self._begun[device] = (run, stage, self._now)
        working = self._resting[device] + (self._stages[stage].activations_nbytes or 0)
        self.peak_nbytes[device] = max(self.peak_nbytes[device], working)
        self.at(self._now + self._duration_us[stage], StageDone(run, stage))

    def _ended(self, event: StageDone) -> None:
        stage, device = self._stages[event.stage], self._where[event.run, event.stage]
        _, _, since = self._begun.pop(device)
        self.executions.append(Execution(event.run, event.stage, device, since, self._now))
        self._kept.setdefault(event.run, set()).update((name, event.stage) for name in stage.outputs)
        self._resting[device] += sum(self._nbytes[name] for name in stage.outputs)
        self.peak_nbytes[device] = max(self.peak_nbytes[device], self._resting[device])

    def _let_go(self, run: int, values: set[tuple[str, int]]) -> None:
        for name, stage in values:
            if stage != CALLER:
                self._resting[self._where[run, stage]] -= self._nbytes[name]
        if run in self._kept:
            self._kept[run] -= values


def _receive_us(values: Iterable[tuple[str, int | None]], links: Mapping[str, Link]) -> float:
    """One call a transport, with all the bytes that come by it."""
    nbytes: dict[str, int] = {}
    for transport, size in values:
        if transport in links:
            nbytes[transport] = nbytes.get(transport, 0) + (size or 0)
    return sum(links[transport].transfer_us(total) for transport, total in nbytes.items())
