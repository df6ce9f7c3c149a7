"""A partition with its devices, and what it is predicted to take."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from distort.graph.ir import Graph
from distort.scheduler.cost import CostModel
from distort.scheduler.dag import Dag, Order
from distort.scheduler.device import LOCAL, Device, Link, Network
from distort.scheduler.partition import Partition, Partitioner
from distort.scheduler.placement import device_peak_nbytes, overflow_nbytes, shares


@dataclass(frozen=True, slots=True)
class Candidate:
    partition: Partition
    placed: tuple[Device, ...]  # by stage
    replicas: tuple[tuple[Device, ...], ...]  # further devices, by stage
    latency_us: float
    bottleneck_us: float
    peak_nbytes: int  # of the fullest device
    over_nbytes: int
    in_process: bool = False

    @property
    def n_stages(self) -> int:
        return self.partition.n_stages

    @property
    def n_devices(self) -> int:
        return len({device.id for devices in (self.placed, *self.replicas) for device in devices})

    @property
    def replicated(self) -> bool:
        return any(self.replicas)

    @property
    def throughput_per_s(self) -> float:
        return 1e6 / max(self.bottleneck_us, 1e-9)

    def score(self, objective: str) -> float:
        """What the objective makes small."""
        if objective == "memory":
            return float(self.peak_nbytes)
        return self.latency_us if objective == "latency" else self.bottleneck_us

    def rank(self, objective: str) -> tuple[int, float, float]:
        """Better ones first: what fits the devices, then the objective, then latency."""
        return (self.over_nbytes, self.score(objective), self.latency_us)


class Evaluator:
    """Makes candidates of one graph. ``cores`` is what the CPU devices of the caller's host share; None: nothing."""

    def __init__(self, graph: Graph, costs: CostModel, links: Network, cores: int | None = None) -> None:
        self.cores = cores
        self.graph = graph
        self.costs = costs
        self.links = links
        self.dag = Dag(graph, costs)
        self.dag.check_order()

    def node_us(self, devices: Sequence[Device]) -> list[list[float]]:
        """Times of all nodes, by device."""
        return [self.costs.node_costs_us(device) for device in devices]

    def partitioner(
        self,
        devices: Sequence[Device],
        replicas: Sequence[Sequence[Device]] = (),
        orders: Collection[Order] = (),
    ) -> Partitioner:
        """Of the devices in the order of stages, each with its replicas."""
        return Partitioner(self.dag, devices, self.node_us(devices), self.links, replicas, orders)

    def single(self, device: Device) -> Candidate:
        """Everything as one stage: in this process where the device is on the caller's host."""
        here = device.host == ""
        partitioner = Partitioner(self.dag, (device,), self.node_us((device,)), LOCAL if here else self.links)
        return self.candidate(partitioner, partitioner.partition([0] * self.dag.n_nodes, 1), in_process=here)

    def candidate(
        self,
        partitioner: Partitioner,
        partition: Partition,
        real: Mapping[str, Device] | None = None,
        in_process: bool = False,
    ) -> Candidate:
        """A partition as its partitioner places it; ``real`` gives devices their true memory by id."""
        n_stages = partition.n_stages
        seats = [partitioner.device_of(stage, n_stages) for stage in range(n_stages)]
        placed = tuple(partitioner.devices[seat] for seat in seats)
        replicas = tuple(partitioner.replicas[seat] for seat in seats)
        if real is not None:
            placed = tuple(real[device.id] for device in placed)
        busy_us = [sum(partition.loads[stage].turn_us for stage in stages) for stages in shares(placed).values()]
        return Candidate(
            partition,
            placed,
            replicas,
            self._latency_us(partitioner, partition, placed),
            max(*busy_us, self._caller_us(partitioner, partition), self._cores_us(partition, placed)),
            max(device_peak_nbytes(partition.loads, placed, replicas).values()),
            overflow_nbytes(partition.loads, placed, replicas),
            in_process,
        )

    def _cores_us(self, partition: Partition, placed: Sequence[Device]) -> float:
        """What one run takes of this host's cores, if devices with more threads than those share them."""
        if self.cores is None:
            return 0.0
        local = [(load, d) for load, d in zip(partition.loads, placed, strict=True) if d.kind == "cpu" and not d.host]
        return sum(load.time_us * min(device.threads, self.cores) for load, device in local) / self.cores

    def _caller_us(self, partitioner: Partitioner, partition: Partition) -> float:
        """What the caller's process does for one run: a message for each stage that it feeds or fetches from."""
        ends: set[tuple[int, int]] = set()
        for value in self.dag.values:
            if value.producer < 0 and not value.weight:
                ends.update((-1, partition.stage_of[node]) for node in value.consumers)
            elif value.producer >= 0 and value.fetched:
                ends.add((partition.stage_of[value.producer], -1))
        return sum(partitioner.link_of(*end, partition.n_stages).latency_us for end in ends)

    def _latency_us(self, partitioner: Partitioner, partition: Partition, placed: Sequence[Device]) -> float:
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
        fetched: dict[Link, int] = {}
        for value in self.dag.values:
            if value.fetched and value.producer >= 0:
                link = partitioner.link_of(partition.stage_of[value.producer], -1, partition.n_stages)
                fetched[link] = fetched.get(link, 0) + value.size
        return max(ended) + sum(link.transfer_us(nbytes) for link, nbytes in fetched.items())
