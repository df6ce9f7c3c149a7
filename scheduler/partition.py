"""Graph -> stages: dynamic programming over cuts of a topological order that makes the slowest stage fastest.

A partition gives each node a stage so that no edge goes back to a lower one. Every prefix of a topological order is
such a cut, so stages are intervals of an order (sweep.py). Which order is best isn't known, so several are tried, and
the best results are improved by moving nodes; a small graph is searched to the end (refine.py). Then the best is cut
anew where no order would cut it (downsets.py).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from distort.scheduler.dag import Dag, Order
from distort.scheduler.device import Device, Link, Network
from distort.scheduler.downsets import MOST_NODES, near
from distort.scheduler.fit import fitted
from distort.scheduler.gpus import slot_nbytes
from distort.scheduler.intervals import Floats, line_of
from distort.scheduler.refine import least_us, refined
from distort.scheduler.sweep import Seat, Sweep

#: graphs with more nodes than this get fewer alternatives
LARGE = 300
#: times that the best partition's cuts are looked at for better ones near them, unless it is as good as this already
_ROUNDS = 5
_GOOD = 1.05


@dataclass(frozen=True, slots=True)
class StageLoad:
    """What one stage of a partition costs."""

    cost_us: float  # its nodes
    receive_us: float  # values that cross into it
    receive_nbytes: int
    weights_nbytes: int
    activations_nbytes: int  # at their peak
    replicas: int = 1  # devices that take turns at it
    exported_nbytes: int = 0  # copies of values that other GPUs read, where all of them have room on the device
    crowded: bool = False  # they haven't: what has none goes by the host's memory

    @property
    def time_us(self) -> float:
        """Of one run."""
        return self.cost_us + self.receive_us

    @property
    def turn_us(self) -> float:
        """Between two runs, with every replica busy."""
        return self.time_us / self.replicas

    @property
    def least_nbytes(self) -> int:
        """What it can't do without."""
        return self.weights_nbytes + self.activations_nbytes

    @property
    def peak_nbytes(self) -> int:
        return self.least_nbytes + self.exported_nbytes


@dataclass(frozen=True, slots=True)
class Partition:
    stage_of: tuple[int, ...]  # by node
    order: Order  # nodes; each stage is a run of it
    source: Order  # the order that was cut
    order_name: str
    n_stages: int
    loads: tuple[StageLoad, ...]  # by stage
    fits: bool  # every stage within the memory of its device

    @property
    def bottleneck_us(self) -> float:
        return max((load.turn_us for load in self.loads), default=0.0)

    @property
    def receive_us(self) -> float:
        return sum(load.receive_us for load in self.loads)

    def nodes_of(self, stage: int) -> tuple[int, ...]:
        return tuple(node for node, where in enumerate(self.stage_of) if where == stage)


def slowest_link(links: Network, producers: Sequence[Device], consumers: Sequence[Device]) -> Link:
    """Between the replicas of two stages, no matter which of them meet. No devices: the caller."""
    found = [links.between(a, b) for a in producers or (None,) for b in consumers or (None,)]
    return max(found, key=lambda link: link.transfer_us(1e6))


def is_valid(dag: Dag, stage_of: Sequence[int]) -> bool:
    """Whether every edge goes from a stage to the same or a later one."""
    return len(stage_of) == dag.n_nodes and all(
        stage_of[before] <= stage_of[node] for node in range(dag.n_nodes) for before in dag.predecessors[node]
    )


class Partitioner:
    """Partitions of one graph for devices in the order of stages. ``node_us[d][n]`` is node n's time on device d.

    ``replicas[d]`` are further devices like device d that run the same stage. ``orders`` are those to cut; none: all
    that are known to be good at times.
    """

    def __init__(
        self,
        dag: Dag,
        devices: Sequence[Device],
        node_us: Sequence[Sequence[float]],
        links: Network,
        replicas: Sequence[Sequence[Device]] = (),
        orders: Collection[Order] = (),
    ) -> None:
        self.dag = dag
        self.devices = tuple(devices)
        self.links = links
        self.replicas = tuple(map(tuple, replicas)) or ((),) * len(self.devices)
        self._node_us: Floats = np.asarray(node_us, dtype=np.float64).reshape(len(self.devices), dag.n_nodes)
        self._orders = {name: order for name, order in dag.orders.items() if not orders or order in orders}
        self._links: dict[tuple[int, int, int], Link] = {}

    def device_of(self, stage: int, n_stages: int) -> int:
        """Stage k runs on device k; more stages than devices share them, neighbours together."""
        return stage if n_stages <= len(self.devices) else stage * len(self.devices) // n_stages

    def node_us(self, stage: int, n_stages: int) -> list[float]:
        """The times of all nodes on the device of a stage."""
        times: list[float] = self._node_us[self.device_of(stage, n_stages)].tolist()
        return times

    def link_of(self, producer: int, consumer: int, n_stages: int) -> Link:
        """The link from one stage (-1: the caller) to another."""
        key = (producer, consumer, n_stages)
        link = self._links.get(key)
        if link is None:
            ends = [self._devices(stage, n_stages) if stage >= 0 else () for stage in (producer, consumer)]
            link = self._links[key] = slowest_link(self.links, ends[0], ends[1])
        return link

    def _devices(self, stage: int, n_stages: int) -> tuple[Device, ...]:
        index = self.device_of(stage, n_stages)
        return (self.devices[index], *self.replicas[index])

    def n_replicas(self, stage: int, n_stages: int) -> int:
        """Devices that run a stage."""
        return len(self._devices(stage, n_stages))

    def best(self, n_stages: int, fit: bool = True) -> list[Partition]:
        """Partitions into exactly ``n_stages`` (no more than there are nodes), from several orders, the best first.

        ``fit``: where none is within memory, look harder.
        """
        return self._ranked(n_stages, self._sweeps(n_stages), 3, fit)

    def best_up_to(self, n_stages: int) -> dict[int, list[Partition]]:
        """The same for 1 … ``n_stages`` stages, which must not be more than the devices."""
        sweeps = self._sweeps(n_stages)
        n_orders = 3 if n_stages <= 3 else 1
        return {count: self._ranked(count, sweeps, n_orders) for count in range(1, n_stages + 1)}

    def partition(
        self, stage_of: Sequence[int], n_stages: int, order_name: str = "given", order: Order | None = None
    ) -> Partition:
        """The partition that ``stage_of`` describes, with its loads."""
        sequence = order or tuple(range(self.dag.n_nodes))
        settled = tuple(sorted(sequence, key=lambda node: stage_of[node]))  # stable: the order within a stage stays
        inside: list[list[int]] = [[] for _ in range(n_stages)]
        for node in settled:
            inside[stage_of[node]].append(node)
        loads = tuple(self._load(inside[stage], stage_of, stage, n_stages) for stage in range(n_stages))
        limits = [self.memory_nbytes(stage, n_stages) for stage in range(n_stages)]
        fits = all(limit is None or load.peak_nbytes <= limit for load, limit in zip(loads, limits, strict=True))
        return Partition(tuple(stage_of), settled, sequence, order_name, n_stages, loads, fits)

    def _load(self, inside: Sequence[int], stage_of: Sequence[int], stage: int, n_stages: int) -> StageLoad:
        """Of one stage, exactly. ``inside`` are its nodes in the order that they run."""
        values = self.dag.values
        received = {
            v
            for node in inside
            for v in self.dag.reads[node]
            if not values[v].weight and (values[v].producer < 0 or stage_of[values[v].producer] != stage)
        }
        last_use = {v: position for position, node in enumerate(inside) for v in self.dag.reads[node]}
        weights_nbytes = sum(values[v].size for v in last_use if values[v].weight)
        live = peak = sum(values[v].size for v in received)
        dies: list[int] = [0] * len(inside)  # bytes without a reader after the node at a position
        for v, position in last_use.items():
            if not values[v].weight and (v in received or not self._leaves(v, stage_of, stage)):
                dies[position] += values[v].size
        for position, node in enumerate(inside):
            for v in self.dag.makes[node]:
                live += values[v].size
                if v not in last_use and not self._leaves(v, stage_of, stage):
                    dies[position] += values[v].size
            peak = max(peak, live)
            live -= dies[position]
        node_us = self._node_us[self.device_of(stage, n_stages)]
        nbytes: dict[Link, int] = {}  # one message a link, with all that comes by it
        for v in received:
            producer = values[v].producer
            link = self.link_of(stage_of[producer] if producer >= 0 else -1, stage, n_stages)
            nbytes[link] = nbytes.get(link, 0) + values[v].size
        exported_nbytes = self._exported_nbytes(inside, stage_of, stage, n_stages)
        limit = self.memory_nbytes(stage, n_stages)
        crowded = bool(exported_nbytes) and limit is not None and weights_nbytes + peak + exported_nbytes > limit
        return StageLoad(
            cost_us=float(node_us[list(inside)].sum()),
            receive_us=sum(link.transfer_us(size) for link, size in nbytes.items()),
            receive_nbytes=sum(nbytes.values()),
            weights_nbytes=weights_nbytes,
            activations_nbytes=peak,
            replicas=self.n_replicas(stage, n_stages),
            exported_nbytes=0 if crowded else exported_nbytes,
            crowded=crowded,
        )

    def _exported_nbytes(self, inside: Sequence[int], stage_of: Sequence[int], stage: int, n_stages: int) -> int:
        """Of copies of values, in memory of their own, that GPUs of other stages read."""
        devices = self._devices(stage, n_stages)
        if devices[0].kind != "cuda":
            return 0
        readers: dict[int, bool] = {}  # by stage: whether it is on another GPU of the same host
        for other in range(n_stages):
            pairs = [(mine, its) for mine in devices for its in self._devices(other, n_stages)]
            readers[other] = any(its.kind == "cuda" and its.host == mine.host and its != mine for mine, its in pairs)
        values = self.dag.values
        return sum(
            slot_nbytes(values[v].size)
            for node in inside
            for v in self.dag.makes[node]
            if any(stage_of[user] != stage and readers[stage_of[user]] for user in values[v].consumers)
        )

    def _leaves(self, v: int, stage_of: Sequence[int], stage: int) -> bool:
        """Whether a value that ``stage`` makes is kept for another stage, or for the caller."""
        value = self.dag.values[v]
        return value.fetched or any(stage_of[user] != stage for user in value.consumers)

    def memory_nbytes(self, stage: int, n_stages: int) -> int | None:
        """Memory of the device for one stage; stages that share a device share its memory evenly."""
        index = self.device_of(stage, n_stages)
        limits = [d.memory_nbytes for d in self._devices(stage, n_stages) if d.memory_nbytes is not None]
        if not limits:
            return None
        return min(limits) // sum(1 for other in range(n_stages) if self.device_of(other, n_stages) == index)

    def sweep(self, order: Order, n_stages: int) -> Sweep:
        """The intervals of an order, for up to ``n_stages`` stages."""
        return Sweep(line_of(self.dag, order), order, self._seats(n_stages))

    def _seats(self, n_stages: int) -> list[Seat]:
        return [
            Seat(
                self._node_us[self.device_of(stage, n_stages)],
                self.n_replicas(stage, n_stages),
                # most of what a stage receives comes from the one before it
                self.link_of(stage - 1, stage, n_stages),
                self.memory_nbytes(stage, n_stages),
            )
            for stage in range(n_stages)
        ]

    def _sweeps(self, n_stages: int) -> list[tuple[str, Order, Sweep]]:
        return [(name, order, self.sweep(order, n_stages)) for name, order in self._orders.items()]

    def _ranked(
        self, n_stages: int, sweeps: list[tuple[str, Order, Sweep]], n_orders: int, fit: bool = True
    ) -> list[Partition]:
        """From all orders, or the ``n_orders`` most promising ones of a large graph."""
        promising = sorted(sweeps, key=lambda item: item[2].slowest(n_stages))
        n_improved = 2
        if self.dag.n_nodes > LARGE:
            promising, n_improved = promising[:n_orders], 1
        found: dict[tuple[int, ...], Partition] = {}
        for name, order, sweep in promising:
            for bound in sweep.bounds(n_stages):
                stage_of = sweep.stages_of(n_stages, bound)
                if stage_of not in found:
                    found[stage_of] = self.partition(stage_of, n_stages, name, order)
                if found[stage_of].fits:
                    break
        for place, start in enumerate(sorted(found.values(), key=rank)[:n_improved]):
            moved = self.improved(start, search=place == 0)
            found.setdefault(moved.stage_of, moved)
        for better in self._cut_anew(min(found.values(), key=rank)):
            found.setdefault(better.stage_of, better)
        if fit and not any(partition.fits for partition in found.values()):
            for start in sorted(found.values(), key=rank)[:2]:
                fitting = fitted(self, start)
                if fitting is not None:
                    found[fitting.stage_of] = fitting
                    break
        return sorted(found.values(), key=rank)

    def _cut_anew(self, start: Partition) -> Iterator[Partition]:
        """Partitions that are better and better, by cuts that no single order has."""
        n_stages = start.n_stages
        if n_stages < 2 or self.dag.n_nodes > MOST_NODES or len(self._orders) < 2 or not start.fits:
            return
        best, enough_us = start, least_us(self, n_stages) * _GOOD
        for _ in range(_ROUNDS):
            if best.bottleneck_us <= enough_us:
                return
            downsets = self.dag.downsets or near(self.dag, best.stage_of, n_stages)
            stage_of = downsets.stages_of(self._seats(n_stages), best.bottleneck_us * (1 - 1e-9))
            if stage_of is None:
                return
            found = self.partition(stage_of, n_stages, f"{start.order_name}, cut anew", start.source)
            found = self.improved(found, search=False)
            if rank(found) >= rank(best):
                return
            yield found
            best = found

    def improved(self, start: Partition, search: bool = True) -> Partition:
        """The partition, or a better one that moves of nodes lead to, or a search where the graph is small."""
        stage_of, how = refined(self, start, search)
        if stage_of == start.stage_of:
            return start
        result = self.partition(stage_of, start.n_stages, f"{start.order_name}, {how}", start.source)
        return result if rank(result) < rank(start) else start


def rank(partition: Partition) -> tuple[bool, float, float]:
    """Better ones first."""
    return (not partition.fits, partition.bottleneck_us, partition.receive_us)
