"""Graph and devices -> plan: how many stages, cut where, on which devices, and the reasons for people to read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from distort.graph.ir import Graph
from distort.scheduler.branches import BranchClusters
from distort.scheduler.cost import CostModel
from distort.scheduler.dag import Dag
from distort.scheduler.device import RAY_CALLS, Device, Link, format_nbytes, format_us
from distort.scheduler.errors import PlanError
from distort.scheduler.partition import Partition, Partitioner
from distort.scheduler.placement import (
    check_memory,
    device_orders,
    device_peak_nbytes,
    distinct,
    overflow_nbytes,
    shares,
)
from distort.scheduler.plan import Plan, Prediction
from distort.scheduler.stages import cut_notes, gap_notes, make_edges, make_stages

OBJECTIVES = ("latency", "throughput", "memory")
#: more stages than this are made only where somebody asks for them
MOST_STAGES = 16
#: stages that the planner chooses itself must be predicted to take less than this part of one stage's time
WORTH = 0.9
#: alternatives this close to the best count as equal, and the one with the fewest stages wins
NEAR = 1.02
#: steps of the search for the smallest memory
MEMORY_STEPS = 6


def make_plan(
    graph: Graph,
    devices: Sequence[Device],
    *,
    n_stages: int | None,
    objective: str = "latency",
    dims: Mapping[str, int] | None = None,
    strict: bool = False,
    model_name: str = "",
    measured: Mapping[int, float] | None = None,
    link: Link = RAY_CALLS,
    here: Device | None = None,
) -> Plan:
    """The plan of a graph for ``devices``, in their order of preference.

    ``here`` is what one stage in the caller's process has: all of the machine's threads, where ``devices`` share them
    out. Without it, that is the best of ``devices``.

    ``n_stages`` None or 0: the planner decides; a number is obeyed while the graph has that many nodes. ``dims``
    gives symbolic dimensions their sizes, ``measured`` nodes their µs. ``strict`` refuses what would otherwise be a
    note: fewer stages than asked for, or several on one device.

    Raises ValueError for arguments that make no sense, PlanError where no plan fits.
    """
    if objective not in OBJECTIVES:
        raise ValueError(f"unknown objective {objective!r}; known are {', '.join(OBJECTIVES)}")
    if n_stages is not None and n_stages < 0:
        raise ValueError(f"the number of stages must not be negative, and is {n_stages}")
    if not devices:
        raise ValueError("a plan needs at least one device")
    if not graph.nodes:
        nothing = ("the graph has no nodes: its outputs are feeds and initializers, and belong to no stage",)
        return Plan(model_name, objective, (), (), nothing, Prediction(0.0, 0.0, 0.0, 0.0), strict)
    planner = _Planner(graph, tuple(devices), objective, CostModel(graph, dims, measured), link, here)
    chosen = planner.decide() if not n_stages else planner.obey(n_stages, strict)
    check_memory(chosen.partition.loads, chosen.placed)
    return planner.plan(chosen, strict, model_name)


def plan_of_stages(
    graph: Graph,
    stage_of: Sequence[int],
    placed: Sequence[Device],
    *,
    why: str,
    replicas: Sequence[Sequence[Device]] = (),
    notes: Sequence[str] = (),
    objective: str = "latency",
    dims: Mapping[str, int] | None = None,
    strict: bool = False,
    model_name: str = "",
    measured: Mapping[int, float] | None = None,
    link: Link = RAY_CALLS,
    here: Device | None = None,
) -> Plan:
    """The plan of stages that somebody else chose: ``stage_of`` by node, the device of each stage in ``placed``.

    ``replicas`` are further devices of each stage. ``why`` says who, after "2 stages". Raises PlanError where a stage
    doesn't fit its device.
    """
    devices = tuple(dict.fromkeys(placed))
    planner = _Planner(graph, devices, objective, CostModel(graph, dims, measured), link, here)
    planner.notes += notes
    chosen = planner.given(stage_of, placed, why)
    check_memory(chosen.partition.loads, chosen.placed)
    plan = planner.plan(chosen, strict, model_name)
    if not any(replicas):
        return plan
    stages = [replace(stage, replicas=tuple(more)) for stage, more in zip(plan.stages, replicas, strict=True)]
    return replace(plan, stages=tuple(stages))


@dataclass(frozen=True, slots=True)
class _Candidate:
    partition: Partition
    placed: tuple[Device, ...]  # by stage
    latency_us: float
    bottleneck_us: float
    peak_nbytes: int  # of the fullest device
    over_nbytes: int

    @property
    def n_stages(self) -> int:
        return self.partition.n_stages

    def score(self, objective: str) -> float:
        if objective == "memory":
            return float(self.peak_nbytes)
        return self.latency_us if objective == "latency" else self.bottleneck_us


class _Planner:
    def __init__(
        self,
        graph: Graph,
        devices: tuple[Device, ...],
        objective: str,
        costs: CostModel,
        link: Link,
        here: Device | None,
    ) -> None:
        self.graph = graph
        self.devices = devices
        self.objective = objective
        self.costs = costs
        self.link = link
        self.dag = Dag(graph, costs)
        self.dag.check_order()
        self.notes: list[str] = []
        self._fetched_nbytes = sum(v.size for v in self.dag.values if v.fetched and v.producer >= 0)
        self._unlike = distinct(devices)
        alone = [self._single(device) for device in (self._unlike if here is None else [here])]
        #: everything as one stage, on the device that does it best
        self.single = min(alone, key=self._rank)

    # -- how many stages

    def obey(self, n_stages: int, strict: bool) -> _Candidate:
        """The best plan of as many stages as asked for."""
        n_nodes, n_devices = len(self.graph.nodes), len(self.devices)
        if n_stages > n_nodes:
            text = f"{n_stages} stages were asked for, and the graph has just {_count(n_nodes, 'node')}"
            if strict:
                raise PlanError(f"{text}: stage{n_nodes} would be empty. Ask for {n_nodes} or fewer.")
            self.notes.append(f"{text}: {_count(n_nodes, 'stage')}")
            n_stages = n_nodes
        if n_stages == 1:
            self.notes.append("one stage was asked for" if not self.notes else "one stage is all there can be")
            return self.single
        if n_stages > n_devices:
            text = f"{n_stages} stages on {_count(n_devices, 'device')}"
            if strict:
                raise PlanError(
                    f"{text}: stage{n_stages - 1} would share {self.devices[-1].id} with another stage. Give the plan "
                    "more devices, or ask for fewer stages."
                )
            self.notes.append(f"{text}: neighbours share one, and wait for each other")
        candidates = [c for order in device_orders(self.devices) for c in self._of(order, n_stages)]
        candidates += [c for c in self._branches(n_stages) if c.n_stages == n_stages]
        chosen = self._best(candidates)
        self._compare(chosen, "were asked for")
        return chosen

    def decide(self) -> _Candidate:
        """The best plan of as many stages as are predicted to pay."""
        most = min(len(self.devices), len(self.graph.nodes), MOST_STAGES)
        single = self.single
        if most == 1:
            which = "device" if len(self.devices) == 1 else "node"
            self.notes.append(f"one stage: there is one {which}")
            return single
        if self.objective == "latency" and not single.over_nbytes:
            least_us = self._critical_path_us() + self.link.latency_us
            if least_us >= WORTH * single.latency_us:
                self.notes.append(
                    f"one stage in this process, predicted {format_us(single.latency_us)} a run: no cut can take less "
                    f"than {format_us(least_us)}, the longest path of the graph and one transfer by "
                    f"{self.link.transport} ({format_us(self.link.latency_us)})"
                )
                self._suggest_throughput()
                return single
        candidates = self._branches(MOST_STAGES)
        for order in device_orders(self.devices):
            if self.objective == "memory":
                candidates += self._of(order, most)
                continue
            partitioner = self._partitioner(order)
            for partitions in partitioner.best_up_to(most).values():
                candidates += [self._candidate(partitioner, p) for p in partitions if p.n_stages > 1]
        chosen = self._best(candidates)
        if single.over_nbytes and not chosen.over_nbytes:
            needed, has = format_nbytes(single.peak_nbytes), format_nbytes(single.placed[0].memory_nbytes)
            self.notes.append(f"one stage wants {needed}, and {single.placed[0].id} has {has}")
        elif single.over_nbytes <= chosen.over_nbytes and (
            chosen.score(self.objective) > WORTH * single.score(self.objective)
        ):
            self.notes.append(
                f"one stage in this process: the best of 2 to {most} stages is predicted "
                f"{self._figures(chosen)}, and one stage {self._figures(single)}"
            )
            self._suggest_throughput()
            return single
        self._compare(chosen, f"are best for {self.objective} of 1 to {most}")
        return chosen

    def given(self, stage_of: Sequence[int], placed: Sequence[Device], why: str) -> _Candidate:
        """The stages that somebody else chose."""
        partitioner = self._partitioner(placed)
        chosen = self._candidate(partitioner, partitioner.partition(stage_of, len(placed), order_name=""))
        self._compare(chosen, why)
        return chosen

    def _suggest_throughput(self) -> None:
        if self.objective == "latency":
            self.notes.append("stages may still pay for many runs in flight: ask for them, or for throughput")

    def _compare(self, chosen: _Candidate, why: str) -> None:
        ratio = self.single.score(self.objective) / (chosen.score(self.objective) or 1.0)
        verdict = "a gain" if ratio >= 1 else "a loss"
        self.notes.append(
            f"{_count(chosen.n_stages, 'stage')} {why}: predicted {self._figures(chosen)}; one stage in this process "
            f"{self._figures(self.single)} ({verdict}: {ratio:.2f} times as good for {self.objective})"
        )

    def _figures(self, candidate: _Candidate) -> str:
        text = f"{format_us(candidate.latency_us)} a run, {1e6 / max(candidate.bottleneck_us, 1e-9):.4g} runs/s"
        return f"{text}, {format_nbytes(candidate.peak_nbytes)} on a device" if self.objective == "memory" else text

    # -- candidates

    def _single(self, device: Device) -> _Candidate:
        partitioner = self._partitioner((device,))
        return self._candidate(partitioner, partitioner.partition([0] * len(self.graph.nodes), 1))

    def _of(self, order: Sequence[Device], n_stages: int) -> Iterator[_Candidate]:
        """Plans of ``n_stages`` that take the devices in ``order``."""
        partitioner = self._partitioner(order)
        found = [self._candidate(partitioner, partition) for partition in partitioner.best(n_stages)]
        yield from found
        if self.objective == "memory":
            yield from self._smaller(order, n_stages, min(c.peak_nbytes for c in found))

    def _smaller(self, order: Sequence[Device], n_stages: int, peak_nbytes: int) -> Iterator[_Candidate]:
        """The fastest plans under ever smaller bounds of memory, by bisection below ``peak_nbytes``."""
        low, high = 0, peak_nbytes
        for _ in range(MEMORY_STEPS):
            middle = (low + high) // 2
            if middle in (low, high):
                return
            bounded = [replace(d, memory_nbytes=min(middle, d.memory_nbytes or middle)) for d in order]
            partitioner = self._partitioner(bounded)
            real = {device.id: device for device in order}
            found = [self._candidate(partitioner, p, real) for p in partitioner.best(n_stages)]
            yield from found
            reached = min(c.peak_nbytes for c in found)
            if reached <= middle:
                high = reached
            else:
                low = middle

    def _branches(self, n_stages: int) -> list[_Candidate]:
        """Plans of up to ``n_stages`` that let branches of one run work side by side. Just for latency."""
        if self.objective != "latency" or len(self.devices) < 2:
            return []
        candidates = []
        for clustering in BranchClusters(self.dag, self._node_us(self.devices), self.link).up_to(n_stages):
            placed = [self.devices[device] for device in clustering.devices]
            partitioner = self._partitioner(placed)
            partition = partitioner.partition(clustering.stage_of, len(placed), "branches side by side")
            candidates.append(self._candidate(partitioner, partition))
        return candidates

    def _partitioner(self, devices: Sequence[Device]) -> Partitioner:
        return Partitioner(self.dag, devices, self._node_us(devices), self.link)

    def _node_us(self, devices: Sequence[Device]) -> list[list[float]]:
        nodes = range(len(self.graph.nodes))
        return [[self.costs.node_cost_us(node, device) for node in nodes] for device in devices]

    def _candidate(
        self, partitioner: Partitioner, partition: Partition, real: Mapping[str, Device] | None = None
    ) -> _Candidate:
        n_stages = partition.n_stages
        placed = tuple(partitioner.devices[partitioner.device_of(stage, n_stages)] for stage in range(n_stages))
        if real is not None:
            placed = tuple(real[device.id] for device in placed)
        busy_us = [sum(partition.loads[stage].time_us for stage in stages) for stages in shares(placed).values()]
        return _Candidate(
            partition,
            placed,
            self._latency_us(partition, placed),
            max(busy_us),
            max(device_peak_nbytes(partition.loads, placed).values()),
            overflow_nbytes(partition.loads, placed),
        )

    def _latency_us(self, partition: Partition, placed: Sequence[Device]) -> float:
        """One run: a stage starts when its producers are done and its device is free."""
        before: list[set[int]] = [set() for _ in placed]
        for node, stage in enumerate(partition.stage_of):
            before[stage].update(partition.stage_of[other] for other in self.dag.predecessors[node])
        ended = [0.0] * len(placed)
        free: dict[str, float] = {}
        for stage, device in enumerate(placed):
            ready = max((ended[other] for other in before[stage] if other != stage), default=0.0)
            ended[stage] = max(ready, free.get(device.id, 0.0)) + partition.loads[stage].time_us
            free[device.id] = ended[stage]
        fetch_us = self._fetched_nbytes / (self.link.gbytes_per_s * 1e3) if len(placed) > 1 else 0.0
        return max(ended) + fetch_us

    def _rank(self, candidate: _Candidate) -> tuple[int, float, float]:
        return (candidate.over_nbytes, candidate.score(self.objective), candidate.latency_us)

    def _best(self, candidates: Sequence[_Candidate]) -> _Candidate:
        best = min(candidates, key=self._rank)
        limit = best.score(self.objective) * NEAR
        near = [c for c in candidates if c.over_nbytes <= best.over_nbytes and c.score(self.objective) <= limit]
        return min(near, key=lambda c: (c.n_stages, *self._rank(c)))

    def _critical_path_us(self) -> float:
        """The longest path through the graph, each node on the device that is fastest for it."""
        ended: list[float] = []
        for node, before in enumerate(self.dag.predecessors):
            fastest = min(self.costs.node_cost_us(node, device) for device in self._unlike)
            ended.append(max((ended[other] for other in before), default=0.0) + fastest)
        return max(ended)

    # -- the result

    def plan(self, chosen: _Candidate, strict: bool, model_name: str) -> Plan:
        partition, placed = chosen.partition, chosen.placed
        stages = make_stages(self.graph, self.dag, partition, placed)
        edges = make_edges(self.graph, self.costs, stages, self.link)
        notes = list(self.notes)
        if len(stages) > 1:
            notes += cut_notes(partition, self.dag)
        notes += gap_notes(self.graph, self.costs, self.dag)
        bottleneck_us = chosen.bottleneck_us
        predicted = Prediction(
            latency_us=chosen.latency_us,
            bottleneck_us=bottleneck_us,
            throughput_per_s=1e6 / bottleneck_us if bottleneck_us > 0 else 0.0,
            single_latency_us=self.single.latency_us,
        )
        return Plan(model_name, self.objective, stages, edges, tuple(notes), predicted, strict)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
