"""Stages for the latency of one run: branches side by side, where they are worth their transfers.

Cuts of an order that balance the stages make a pipeline; one run passes through it in single file. Here nodes are
merged into ever fewer clusters instead (edge zeroing, as Sarkar's clustering for multiprocessors does), each time the
two whose merging leaves the fastest schedule. A device may get several clusters: what forks and joins again has one
before and one after its branches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import inf

from distort.scheduler.dag import Dag
from distort.scheduler.device import Device, Link, Network

#: clusters from which on every pair is tried
FEW = 20
#: a graph with more of them after the obvious merges has too many branches to try
MANY = 300


@dataclass(frozen=True, slots=True)
class Clustering:
    """Stages in the order that they start, and the position of the device of each."""

    stage_of: tuple[int, ...]  # by node
    devices: tuple[int, ...]  # by stage


@dataclass(slots=True, eq=False)
class _Cluster:
    nodes: list[int]
    cost_us: list[float]  # by device
    received: set[int]  # values from outside
    makes: set[int]

    def merged(self, other: _Cluster) -> _Cluster:
        makes = self.makes | other.makes
        costs = [a + b for a, b in zip(self.cost_us, other.cost_us, strict=True)]
        return _Cluster(self.nodes + other.nodes, costs, (self.received | other.received) - makes, makes)


class BranchClusters:
    """Clusterings of one graph; ``node_us[d][n]`` is node n's time on device d. ``links`` are between ``devices``."""

    def __init__(self, dag: Dag, node_us: Sequence[Sequence[float]], devices: Sequence[Device], links: Network) -> None:
        self._dag = dag
        self._n_devices = len(node_us)
        #: by producer + 1 (0: the caller) and consumer
        self._links = [[links.between(one, other) for other in devices] for one in (None, *devices)]
        self._latency_us = max(link.latency_us for row in self._links for link in row)
        self._clusters: dict[int, _Cluster] = {}
        self._owner = [value.producer for value in dag.values]  # cluster that makes a value; -1: none
        for node in range(dag.n_nodes):
            received = {v for v in dag.reads[node] if not dag.values[v].weight}
            costs = [times[node] for times in node_us]
            self._clusters[node] = _Cluster([node], costs, received, set(dag.makes[node]))

    def up_to(self, n_stages: int) -> Iterator[Clustering]:
        """The best clusterings found of ``n_stages``, of one fewer, … of two. None where there's nothing to gain."""
        self._merge_obvious()
        if len(self._clusters) > MANY:
            return
        while len(self._clusters) > max(FEW, n_stages):
            if not self._merge_cheapest():
                return
        while len(self._clusters) > 1:
            if len(self._clusters) <= n_stages:
                yield self._scheduled()
            trials = [(self._makespan_us(self._trial(a, b)), a, b) for a, b in combinations(self._clusters, 2)]
            fastest_us, a, b = min(trials)
            if fastest_us == inf:
                return
            self._merge(a, b)

    # -- merging

    def _merge(self, a: int, b: int) -> None:
        """b becomes part of a."""
        joined = self._clusters.pop(b)
        for v in joined.makes:
            self._owner[v] = a
        self._clusters[a] = self._clusters[a].merged(joined)

    def _trial(self, a: int, b: int) -> dict[int, _Cluster]:
        """The clusters with b in a. Owners are not told: who asks for b's values looks for b, and finds none."""
        trial = dict(self._clusters)
        trial[a] = trial[b] = trial[a].merged(trial[b])
        return trial

    def _neighbours(self) -> tuple[dict[int, set[int]], dict[int, set[int]]]:
        before: dict[int, set[int]] = {c: set() for c in self._clusters}
        after: dict[int, set[int]] = {c: set() for c in self._clusters}
        for c, cluster in self._clusters.items():
            for v in cluster.received:
                producer = self._owner[v]
                if producer >= 0:
                    before[c].add(producer)
                    after[producer].add(c)
        return before, after

    def _merge_obvious(self) -> None:
        """What is no branch, and branches that take less time than a transfer: into their only neighbour."""
        small_us = self._latency_us
        changed = True
        while changed:
            changed = False
            before, after = self._neighbours()
            for c in list(self._clusters):
                # neighbours are kept up to date only for what this sweep left alone
                if len(after[c]) != 1:
                    continue
                (reader,) = after[c]
                if before[reader] == {c} or max(self._clusters[c].cost_us) < small_us:
                    self._merge(reader, c)
                    changed = True
                    before[reader].discard(c)
                    before[reader] |= before[c]
                    for producer in before[c]:
                        after[producer].discard(c)
                        after[producer].add(reader)
                    after[c] = set()
            before, after = self._neighbours()
            for c in list(self._clusters):
                if len(before[c]) == 1 and max(self._clusters[c].cost_us) < small_us:
                    (producer,) = before[c]
                    self._merge(producer, c)
                    changed = True
                    after[producer].discard(c)
                    after[producer] |= after[c]
                    for reader in after[c]:
                        before[reader].discard(c)
                        before[reader].add(producer)
                    before[c] = set()

    def _merge_cheapest(self) -> bool:
        """Merge the neighbours of which one costs least, where that makes no cycle."""
        before, after = self._neighbours()
        edges = sorted(
            (min(max(self._clusters[p].cost_us), max(self._clusters[c].cost_us)), p, c)
            for c in before
            for p in before[c]
        )
        for _, producer, reader in edges:
            if not _another_way(after, producer, reader):
                self._merge(producer, reader)
                return True
        # no edges, just islands: the two cheapest
        cheapest = sorted(self._clusters, key=lambda c: max(self._clusters[c].cost_us))
        if edges or len(cheapest) < 2:
            return False
        self._merge(cheapest[0], cheapest[1])
        return True

    # -- scheduling

    def _makespan_us(self, clusters: dict[int, _Cluster]) -> float:
        schedule = self._schedule(clusters)
        return max(end for _, _, _, end in schedule) if schedule else inf

    def _schedule(self, clusters: dict[int, _Cluster]) -> list[tuple[float, int, int, float]]:
        """List scheduling, the longest way to the end first: (start, cluster, device, end). Empty: a cycle."""
        distinct = {id(cluster): c for c, cluster in clusters.items()}
        number = {c: distinct[id(cluster)] for c, cluster in clusters.items()}
        names = list(dict.fromkeys(number.values()))
        before = {c: {number[self._owner[v]] for v in clusters[c].received if self._owner[v] >= 0} - {c} for c in names}
        after: dict[int, list[int]] = {c: [] for c in names}
        for c in names:
            for producer in before[c]:
                after[producer].append(c)
        order = _topological(before, after)
        if len(order) < len(names):
            return []
        # before devices are chosen, a transfer takes what the slowest link does
        height: dict[int, float] = {}
        for c in reversed(order):
            longest = max((height[other] for other in after[c]), default=0.0)
            height[c] = min(clusters[c].cost_us) + (self._latency_us if before[c] else 0.0) + longest
        free = [0.0] * self._n_devices
        ended: dict[int, float] = {}
        placed: dict[int, int] = {}
        waiting = {c: len(before[c]) for c in names}
        ready = [c for c in order if not waiting[c]]
        schedule = []
        while ready:
            c = max(ready, key=lambda c: (height[c], -c))
            ready.remove(c)
            arrived = max((ended[producer] for producer in before[c]), default=0.0)
            received = self._received(clusters[c], number, placed)
            options = (
                (max(arrived, free[d]) + self._receive_us(received, d) + clusters[c].cost_us[d], d)
                for d in range(self._n_devices)
            )
            end, device = min(options)
            schedule.append((max(arrived, free[device]), c, device, end))
            ended[c] = free[device] = end
            placed[c] = device
            for reader in after[c]:
                waiting[reader] -= 1
                if not waiting[reader]:
                    ready.append(reader)
        return schedule

    def _received(self, cluster: _Cluster, number: dict[int, int], placed: dict[int, int]) -> list[tuple[int, int]]:
        """Bytes that come to a cluster, by the device that they come from (-1: the caller's process)."""
        nbytes: dict[int, int] = {}
        for v in cluster.received:
            owner = self._owner[v]
            device = placed[number[owner]] if owner >= 0 else -1
            nbytes[device] = nbytes.get(device, 0) + self._dag.values[v].size
        return list(nbytes.items())

    def _receive_us(self, received: Sequence[tuple[int, int]], device: int) -> float:
        """One message a link, with all that comes by it."""
        nbytes: dict[Link, int] = {}
        for source, size in received:
            link = self._links[source + 1][device]
            nbytes[link] = nbytes.get(link, 0) + size
        return sum(link.transfer_us(size) for link, size in nbytes.items())

    def _scheduled(self) -> Clustering:
        # by start; the sort is stable, and what is scheduled later depends on nothing scheduled after it
        schedule = sorted(self._schedule(self._clusters), key=lambda item: item[0])
        stage_of = [0] * self._dag.n_nodes
        for stage, (_, c, _, _) in enumerate(schedule):
            for node in self._clusters[c].nodes:
                stage_of[node] = stage
        return Clustering(tuple(stage_of), tuple(device for _, _, device, _ in schedule))


def _another_way(after: dict[int, set[int]], start: int, goal: int) -> bool:
    """Whether something between the two would be before and after both of them merged."""
    seen: set[int] = set()
    open_ends = [c for c in after[start] if c != goal]
    while open_ends:
        c = open_ends.pop()
        if c == goal:
            return True
        if c not in seen:
            seen.add(c)
            open_ends += after[c]
    return False


def _topological(before: dict[int, set[int]], after: dict[int, list[int]]) -> list[int]:
    waiting = {c: len(sources) for c, sources in before.items()}
    order = [c for c, count in waiting.items() if not count]
    for c in order:
        for reader in after[c]:
            waiting[reader] -= 1
            if not waiting[reader]:
                order.append(reader)
    return order
