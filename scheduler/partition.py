"""Graph -> stages: dynamic programming over cuts of a topological order that makes the slowest stage fastest.

A partition gives each node a stage so that no edge goes back to a lower one. Every prefix of a topological order is
such a cut, so stages are intervals of an order. The time of an interval is its nodes' time and the transfer of the
values that cross into it; what it holds are the weights that it reads and its activations. All of that is kept up to
date while the left end sweeps over the order, O(nodes + edges) in all; the minimum over left ends is one numpy row
for each. Which order is best isn't known, so several are tried, and the best result is improved by moving nodes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from distort.scheduler.dag import Dag, Order, orders
from distort.scheduler.device import Device, Link

Floats = np.ndarray[Any, np.dtype[np.float64]]
_Bound = Literal["all", "weights", "nothing"]
_BOUNDS: tuple[_Bound, ...] = ("all", "weights", "nothing")

#: cuts considered in one order; a longer order offers its cheapest ones, spread evenly over its time
MAX_CUTS = 640
#: evaluations that moving single nodes between stages may take
MOVE_BUDGET = 40_000
#: graphs with more nodes than this get fewer alternatives
LARGE = 1000


@dataclass(frozen=True, slots=True)
class StageLoad:
    """What one stage of a partition costs."""

    cost_us: float  # its nodes
    receive_us: float  # values that cross into it
    receive_nbytes: int
    weights_nbytes: int
    activations_nbytes: int  # at their peak

    @property
    def time_us(self) -> float:
        return self.cost_us + self.receive_us

    @property
    def peak_nbytes(self) -> int:
        return self.weights_nbytes + self.activations_nbytes


@dataclass(frozen=True, slots=True)
class Partition:
    stage_of: tuple[int, ...]  # by node
    order: Order  # nodes; each stage is a run of it
    order_name: str
    n_stages: int
    loads: tuple[StageLoad, ...]  # by stage
    fits: bool  # every stage within the memory of its device

    @property
    def bottleneck_us(self) -> float:
        return max((load.time_us for load in self.loads), default=0.0)

    @property
    def receive_us(self) -> float:
        return sum(load.receive_us for load in self.loads)

    def nodes_of(self, stage: int) -> tuple[int, ...]:
        return tuple(node for node, where in enumerate(self.stage_of) if where == stage)


def is_valid(dag: Dag, stage_of: Sequence[int]) -> bool:
    """Whether every edge goes from a stage to the same or a later one."""
    return len(stage_of) == dag.n_nodes and all(
        stage_of[before] <= stage_of[node] for node in range(dag.n_nodes) for before in dag.predecessors[node]
    )


class Partitioner:
    """Partitions of one graph for devices in the order of stages. ``node_us[d][n]`` is node n's time on device d."""

    def __init__(self, dag: Dag, devices: Sequence[Device], node_us: Sequence[Sequence[float]], link: Link) -> None:
        self.dag = dag
        self.devices = tuple(devices)
        self.node_us: Floats = np.asarray(node_us, dtype=np.float64).reshape(len(self.devices), dag.n_nodes)
        self.link = link
        self._node_us: list[list[float]] = self.node_us.tolist()

    @cached_property
    def _orders(self) -> dict[str, Order]:
        return orders(self.dag)

    def device_of(self, stage: int, n_stages: int) -> int:
        """Stage k runs on device k; more stages than devices share them, neighbours together."""
        return stage if n_stages <= len(self.devices) else stage * len(self.devices) // n_stages

    def best(self, n_stages: int) -> list[Partition]:
        """Partitions into exactly ``n_stages`` (no more than there are nodes), from several orders, the best first."""
        return self._ranked(n_stages, self._sweeps(n_stages))

    def best_up_to(self, n_stages: int) -> dict[int, list[Partition]]:
        """The same for 1 … ``n_stages`` stages, which must not be more than the devices."""
        sweeps = self._sweeps(n_stages)
        return {count: self._ranked(count, sweeps) for count in range(1, n_stages + 1)}

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
        fits = all(
            limit is None or load.peak_nbytes <= limit
            for load, limit in zip(loads, (self._memory(stage, n_stages) for stage in range(n_stages)), strict=True)
        )
        return Partition(tuple(stage_of), settled, order_name, n_stages, loads, fits)

    def _load(self, inside: Sequence[int], stage_of: Sequence[int], stage: int, n_stages: int) -> StageLoad:
        """Of one stage, exactly. ``inside`` are its nodes in the order that they run."""
        values = self.dag.values
        cost_us, receive_us, received = self._times(inside, stage_of, stage, n_stages)
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
        receive_nbytes = sum(values[v].size for v in received)
        return StageLoad(cost_us, receive_us, receive_nbytes, weights_nbytes, peak)

    def _times(
        self, inside: Collection[int], stage_of: Sequence[int], stage: int, n_stages: int
    ) -> tuple[float, float, set[int]]:
        """Time of a stage's nodes, of what it receives, and the values that it receives."""
        values, node_us = self.dag.values, self._node_us[self.device_of(stage, n_stages)]
        received: set[int] = set()
        for node in inside:
            for v in self.dag.reads[node]:
                value = values[v]
                if not value.weight and (value.producer < 0 or stage_of[value.producer] != stage):
                    received.add(v)
        cost_us = sum(node_us[node] for node in inside)
        if n_stages == 1 or not received:
            return cost_us, 0.0, received
        return cost_us, self.link.transfer_us(sum(values[v].size for v in received)), received

    def _leaves(self, v: int, stage_of: Sequence[int], stage: int) -> bool:
        """Whether a value that ``stage`` makes is kept for another stage, or for the caller."""
        value = self.dag.values[v]
        return value.fetched or any(stage_of[user] != stage for user in value.consumers)

    def _memory(self, stage: int, n_stages: int) -> int | None:
        """Memory of the device for one stage; stages that share a device share its memory evenly."""
        index = self.device_of(stage, n_stages)
        limit = self.devices[index].memory_nbytes
        if limit is None:
            return None
        return limit // sum(1 for other in range(n_stages) if self.device_of(other, n_stages) == index)

    def _sweeps(self, n_stages: int) -> list[tuple[str, Order, _Sweep]]:
        devices = [self.device_of(stage, n_stages) for stage in range(n_stages)]
        limits = [self._memory(stage, n_stages) for stage in range(n_stages)]
        return [(name, order, _Sweep(self, order, devices, limits)) for name, order in self._orders.items()]

    def _ranked(self, n_stages: int, sweeps: list[tuple[str, Order, _Sweep]]) -> list[Partition]:
        promising = sorted(sweeps, key=lambda item: item[2].slowest(n_stages))
        if self.dag.n_nodes > LARGE:
            promising = promising[:3]
        found: dict[tuple[int, ...], Partition] = {}
        for name, order, sweep in promising:
            stage_of = _stages_of(order, sweep.boundaries(n_stages))
            if stage_of not in found:
                found[stage_of] = self.partition(stage_of, n_stages, name, order)
        for start in sorted(found.values(), key=_rank)[:2]:
            moved = self._improve(start)
            found.setdefault(moved.stage_of, moved)
        return sorted(found.values(), key=_rank)

    def _improve(self, start: Partition) -> Partition:
        """Move single nodes out of the slowest stage while it gets faster, and no other stage as slow."""
        dag, n_stages = self.dag, start.n_stages
        stage_of = list(start.stage_of)
        inside = [set(start.nodes_of(stage)) for stage in range(n_stages)]
        times = [load.time_us for load in start.loads]
        budget = MOVE_BUDGET // max(1, dag.n_nodes // n_stages)

        def moves_of(stage: int) -> Iterator[tuple[int, int]]:
            for node in [n for n in start.order if stage_of[n] == stage]:
                low = max((stage_of[p] for p in dag.predecessors[node]), default=0)
                high = min((stage_of[s] for s in dag.successors[node]), default=n_stages - 1)
                yield from ((node, target) for target in range(low, high + 1) if target != stage)

        def moved(node: int, source: int, target: int) -> bool:
            inside[source].remove(node)
            inside[target].add(node)
            stage_of[node] = target
            # stages that read what the node makes receive differently now
            concerned = {source, target}
            concerned.update(stage_of[user] for v in dag.makes[node] for user in dag.values[v].consumers)
            changed = {stage: sum(self._times(inside[stage], stage_of, stage, n_stages)[:2]) for stage in concerned}
            if inside[source] and max(changed.values()) < max(times[source], times[target]) * (1 - 1e-9):
                for stage, time_us in changed.items():
                    times[stage] = time_us
                return True
            inside[target].remove(node)
            inside[source].add(node)
            stage_of[node] = source
            return False

        improved = n_stages > 1
        while improved:
            improved = False
            slowest = max(range(n_stages), key=times.__getitem__)
            for node, target in moves_of(slowest):
                budget -= 1
                if budget < 0:
                    break
                if moved(node, slowest, target):
                    improved = True
                    break
        result = self.partition(stage_of, n_stages, f"{start.order_name}, nodes moved", start.order)
        return result if _rank(result) < _rank(start) else start


def _rank(partition: Partition) -> tuple[bool, float, float]:
    return (not partition.fits, partition.bottleneck_us, partition.receive_us)


def _stages_of(order: Order, boundaries: Sequence[int]) -> tuple[int, ...]:
    stage_of = [0] * len(order)
    for stage, (begin, end) in enumerate(pairwise(boundaries)):
        for node in order[begin:end]:
            stage_of[node] = stage
    return tuple(stage_of)


@dataclass(frozen=True, slots=True)
class _Row:
    """Intervals with the same left end, by right end."""

    receive_us: Floats
    weights_nbytes: Floats
    activations_nbytes: Floats  # an upper bound: all that is alive then, read in the interval or not


class _Sweep:
    """The intervals of one order: their times and memory as rows, and the dynamic programming over them."""

    def __init__(
        self, partitioner: Partitioner, order: Order, devices: Sequence[int], limits: Sequence[int | None]
    ) -> None:
        self._dag = partitioner.dag
        self._link = partitioner.link
        self._order = order
        self._n_stages = len(devices)
        self._position = [0] * len(order)
        for position, node in enumerate(order):
            self._position[node] = position
        node_us = partitioner.node_us[list(devices)][:, list(order)]
        self._live = self._live_nbytes()
        self._cuts = self._choose_cuts(node_us[0], max(MAX_CUTS, 4 * self._n_stages))
        elapsed: Floats = np.concatenate([np.zeros((self._n_stages, 1)), np.cumsum(node_us, axis=1)], axis=1)
        self._elapsed = elapsed[:, self._cuts]  # [stages, cuts]: time of everything before a cut
        self._limits: Floats = np.array([np.inf if limit is None else float(limit) for limit in limits])
        self._rows = self._sweep()
        self._tables: dict[_Bound, Floats] = {}

    def _live_nbytes(self) -> Floats:
        """[nodes + 1]: bytes of the results and feeds alive while the node at a position runs."""
        n = len(self._order)
        change = np.zeros(n + 1)
        for value in self._dag.values:
            if value.weight or not (value.consumers or value.producer >= 0):
                continue
            begin = self._position[value.producer] if value.producer >= 0 else 0
            end = max((self._position[user] for user in value.consumers), default=begin)
            change[begin] += value.size
            if value.fetched and value.producer >= 0:
                continue
            change[end + 1] -= value.size
        return np.cumsum(change)

    def _choose_cuts(self, node_us: Floats, n_most: int) -> list[int]:
        n = len(self._order)
        if n + 1 <= n_most:
            return list(range(n + 1))
        # one cut for each slice of time, and some for slices of nodes: the one that fewest bytes cross
        elapsed = np.concatenate([[0.0], np.cumsum(node_us)])
        total = float(elapsed[-1]) or 1.0
        by_time = np.minimum((elapsed / total * (n_most // 2)).astype(np.int64), n_most // 2 - 1)
        by_count = np.arange(n + 1) * (n_most // 2 - 2) // (n + 1)
        chosen = {0, n}
        for slices in (by_time, by_count):
            # sorted by slice, then bytes: the first of each slice
            ranked = np.lexsort((self._live, slices))
            first = np.concatenate([[True], np.diff(slices[ranked]) > 0])
            chosen.update(int(cut) for cut in ranked[first])
        return sorted(chosen)

    def _sweep(self) -> list[_Row]:
        """For each cut as the left end, the intervals to every later cut."""
        cuts = self._cuts
        n_cuts = len(cuts)
        segment = np.searchsorted(np.asarray(cuts), np.arange(len(self._order)), side="right") - 1
        segments: list[int] = segment.tolist()
        uses = [sorted({segments[self._position[user]] for user in value.consumers}) for value in self._dag.values]
        # bytes, number and weights that an interval receives, at the cut after the first segment that reads them
        nbytes, counts, weights = np.zeros(n_cuts + 1), np.zeros(n_cuts + 1), np.zeros(n_cuts + 1)

        def expect(v: int, after: int) -> None:
            value = self._dag.values[v]
            following = next((s for s in uses[v] if s >= after), None)
            if following is None:
                return
            if value.weight:
                weights[following + 1] += value.size
            else:
                nbytes[following + 1] += value.size
                counts[following + 1] += 1

        for v, value in enumerate(self._dag.values):
            if value.producer < 0:
                expect(v, 0)
        live = np.array([self._live[begin:end].max() for begin, end in pairwise(cuts)] or [0.0])
        rows = []
        for left in range(n_cuts - 1):
            received = np.cumsum(nbytes[left + 1 : n_cuts])
            crossing = np.cumsum(counts[left + 1 : n_cuts]) > 0
            receive_us = crossing * self._link.latency_us + received / (self._link.gbytes_per_s * 1e3)
            rows.append(_Row(receive_us, np.cumsum(weights[left + 1 : n_cuts]), np.maximum.accumulate(live[left:])))
            touched: set[int] = set()
            for position in range(cuts[left], cuts[left + 1]):
                node = self._order[position]
                touched.update(self._dag.reads[node], self._dag.makes[node])
            for v in touched:
                expect(v, left + 1)
        return rows

    def slowest(self, n_stages: int) -> tuple[int, float]:
        """How much of the memory bounds had to be given up, and the slowest stage in µs, of the best partition.

        Memory bounds weights and activations; where no partition is within it, weights; else nothing, and whoever
        places the stages finds out which one is too large.
        """
        for given_up, bound in enumerate(_BOUNDS):
            if bound not in self._tables:
                self._tables[bound] = self._solve(bound)[0]
            slowest_us = float(self._tables[bound][n_stages, -1])
            if np.isfinite(slowest_us):
                return given_up, slowest_us
        raise ValueError(f"{len(self._order)} nodes can't make {n_stages} stages")

    def boundaries(self, n_stages: int) -> list[int]:
        """Of the partitions that are as fast as the best, the one that moves the fewest bytes: where stages begin."""
        given_up, slowest_us = self.slowest(n_stages)
        _, came_from = self._solve(_BOUNDS[given_up], n_stages, slowest_us * (1 + 1e-9))
        cut = len(self._cuts) - 1
        boundaries = [self._cuts[cut]]
        for stage in range(n_stages, 0, -1):
            cut = int(came_from[stage, cut])
            boundaries.append(self._cuts[cut])
        return boundaries[::-1]

    def _solve(
        self, bound: _Bound, n_stages: int | None = None, slowest_us: float | None = None
    ) -> tuple[Floats, np.ndarray[Any, np.dtype[np.int64]]]:
        """best[k, c] of k stages up to cut c: their slowest; with ``slowest_us`` given, the transfers into them."""
        n_stages = n_stages or self._n_stages
        n_cuts = len(self._cuts)
        best = np.full((n_stages + 1, n_cuts), np.inf)
        best[0, 0] = 0.0
        came_from = np.zeros((n_stages + 1, n_cuts), dtype=np.int64)
        elapsed, limits = self._elapsed[:n_stages], self._limits[:n_stages, None]
        for left, row in enumerate(self._rows):
            time_us = elapsed[:, left + 1 :] - elapsed[:, left : left + 1] + row.receive_us
            if bound == "all":
                time_us = np.where(row.weights_nbytes + row.activations_nbytes <= limits, time_us, np.inf)
            elif bound == "weights":
                time_us = np.where(row.weights_nbytes <= limits, time_us, np.inf)
            reached = best[:n_stages, left : left + 1]
            if slowest_us is None:
                offered = np.maximum(reached, time_us)
            else:
                offered = np.where(time_us <= slowest_us, reached + row.receive_us, np.inf)
            better = offered < best[1:, left + 1 :]
            best[1:, left + 1 :] = np.where(better, offered, best[1:, left + 1 :])
            came_from[1:, left + 1 :] = np.where(better, left, came_from[1:, left + 1 :])
        return best, came_from
