"""A partition made better: nodes moved and exchanged between stages; small graphs searched to the end.

Cuts of an order are good where the graph is a chain with branches. What has many islands is a packing problem instead,
which no order solves; these searches do, within a budget. Times of stages are kept up to date move by move, in
O(neighbours of the node).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from distort.scheduler.partition import Partition, Partitioner

#: changes that the local search may try
MOVE_BUDGET = 12_000
#: nodes of a stage that the local search looks at between two improvements: the first and the last ones
MOST_MOVED = 400
#: partial partitions that the exhaustive search may visit, and the largest graph that it is tried on
SEARCH_BUDGET = 6_000
SEARCHED_NODES = 32
#: nothing is searched for where the best partition there can be is at most so much faster
_CLOSE = 1.01
#: a change must gain more than rounding does
_LESS = 1 - 1e-9


def refined(partitioner: Partitioner, start: Partition, search: bool = True) -> tuple[tuple[int, ...], str]:
    """Stages by node, at least as fast at the slowest stage, and what was done. Memory is not looked at.

    ``search``: to the end, where the graph is small.
    """
    if start.n_stages < 2:
        return start.stage_of, ""
    state = _Stages(partitioner, start.stage_of, start.n_stages)
    moved = _descend(state, start.order)
    how = "nodes moved" if moved else ""
    if search and start.fits and len(start.stage_of) <= SEARCHED_NODES:
        tree = _Search(partitioner, start.n_stages, max(state.times), start.order)
        found = tree.best() if least_us(partitioner, start.n_stages) * _CLOSE < max(state.times) else None
        if found is not None:
            return found, "searched"
    return tuple(state.stage_of), how


def least_us(partitioner: Partitioner, n_stages: int) -> float:
    """No partition is faster: an even split without transfers, or the longest node alone."""
    shares = [partitioner.n_replicas(stage, n_stages) for stage in range(n_stages)]
    by_node = list(zip(*(partitioner.node_us(stage, n_stages) for stage in range(n_stages)), strict=True))
    longest = max(min(us / share for us, share in zip(row, shares, strict=True)) for row in by_node)
    return float(max(sum(map(min, by_node)) / sum(shares), longest))


class _Stages:
    """The time of every stage, kept up to date while nodes change theirs."""

    def __init__(self, partitioner: Partitioner, stage_of: Sequence[int], n_stages: int) -> None:
        self.dag = partitioner.dag
        self.n_stages = n_stages
        self.stage_of = [-1] * len(stage_of)
        self._node_us = [partitioner.node_us(stage, n_stages) for stage in range(n_stages)]
        self._shares = [partitioner.n_replicas(stage, n_stages) for stage in range(n_stages)]
        found = [[partitioner.link_of(a, b, n_stages) for b in range(n_stages)] for a in range(-1, n_stages)]
        kinds = list(dict.fromkeys(link for row in found for link in row))
        self._kinds = [(link.latency_us, 1e-3 / link.gbytes_per_s) for link in kinds]
        #: kind of link by producer + 1 and consumer
        self._kind = [[kinds.index(link) for link in row] for row in found]
        values = self.dag.values
        self._reads = [[v for v in reads if not values[v].weight] for reads in self.dag.reads]
        self._producer = [-1 if value.producer < 0 else -2 for value in values]  # stage; -2: not placed yet
        self._readers: list[dict[int, int]] = [{} for _ in values]  # number of a stage's nodes that read a value
        self._cost = [0.0] * n_stages
        self._messages = [[0] * len(kinds) for _ in range(n_stages)]
        self._nbytes = [[0] * len(kinds) for _ in range(n_stages)]
        self.n_nodes = [0] * n_stages
        self.times = [0.0] * n_stages
        for node, stage in enumerate(stage_of):
            if stage >= 0:
                self.add(node, stage)

    def _cross(self, v: int, stage: int, sign: int) -> None:
        """Count a value that crosses into a stage, or no longer does."""
        producer = self._producer[v]
        if producer == stage or producer == -2:
            return
        kind = self._kind[producer + 1][stage]
        self._messages[stage][kind] += sign
        self._nbytes[stage][kind] += sign * self.dag.values[v].size

    def _update(self, stage: int) -> None:
        time_us = self._cost[stage]
        for (latency_us, us_per_byte), n, nbytes in zip(
            self._kinds, self._messages[stage], self._nbytes[stage], strict=True
        ):
            if n:
                time_us += latency_us + nbytes * us_per_byte
        self.times[stage] = time_us / self._shares[stage]

    def add(self, node: int, stage: int) -> None:
        """Place a node that has no stage; its readers may be placed already."""
        concerned = {stage}
        self.stage_of[node] = stage
        self._cost[stage] += self._node_us[stage][node]
        self.n_nodes[stage] += 1
        for v in self._reads[node]:
            readers = self._readers[v]
            count = readers.get(stage, 0)
            readers[stage] = count + 1
            if not count:
                self._cross(v, stage, 1)
        for v in self.dag.makes[node]:
            self._producer[v] = stage
            for reader in self._readers[v]:
                self._cross(v, reader, 1)
                concerned.add(reader)
        for other in concerned:
            self._update(other)

    def remove(self, node: int) -> set[int]:
        """Take a node's stage away. Returns the stages whose times may have changed."""
        stage = self.stage_of[node]
        concerned = {stage}
        for v in self.dag.makes[node]:
            for reader in self._readers[v]:
                self._cross(v, reader, -1)
                concerned.add(reader)
            self._producer[v] = -2
        for v in self._reads[node]:
            readers = self._readers[v]
            readers[stage] -= 1
            if not readers[stage]:
                self._cross(v, stage, -1)
                del readers[stage]
        self._cost[stage] -= self._node_us[stage][node]
        self.n_nodes[stage] -= 1
        self.stage_of[node] = -1
        for other in concerned:
            self._update(other)
        return concerned

    def bounds(self, node: int) -> tuple[int, int]:
        """The lowest and the highest stage that a node may have, the others being where they are."""
        low = max((self.stage_of[p] for p in self.dag.predecessors[node]), default=0)
        high = min((self.stage_of[s] for s in self.dag.successors[node]), default=self.n_stages - 1)
        return low, high

    def try_moves(self, moves: Sequence[tuple[int, int]]) -> bool:
        """Move nodes to stages where that makes the slowest of the stages concerned faster; else leave all alone."""
        before = self.times.copy()
        home = [(node, self.stage_of[node]) for node, _ in moves]
        for node, stage in moves:
            self.remove(node)
            self.add(node, stage)
        changed = [s for s in range(self.n_stages) if self.times[s] != before[s]]
        if (
            changed
            and max(self.times[s] for s in changed) < max(before[s] for s in changed) * _LESS
            and all(self.n_nodes)
        ):
            return True
        for node, stage in reversed(home):
            self.remove(node)
            self.add(node, stage)
        self.times = before
        return False


def _descend(state: _Stages, order: Sequence[int]) -> bool:
    """Relieve the slowest stage until nothing does within the budget."""
    budget = MOVE_BUDGET
    moved = False
    while budget > 0:
        slowest = max(range(state.n_stages), key=state.times.__getitem__)
        for moves in _ways(state, slowest, order):
            budget -= len(moves)
            if state.try_moves(moves):
                moved = True
                break
            if budget <= 0:
                break
        else:
            break
    return moved


def _ways(state: _Stages, stage: int, order: Sequence[int]) -> Iterator[list[tuple[int, int]]]:
    """Changes that may relieve a stage: one node moved; a node with what must go along; two exchanged."""
    inside = [node for node in order if state.stage_of[node] == stage]
    if len(inside) > MOST_MOVED:
        # what can leave without company is near the ends of the stage's part of the order
        inside = inside[: MOST_MOVED // 2] + inside[-(MOST_MOVED // 2) :]
    free: list[tuple[int, int]] = []
    for node in inside:
        low, high = state.bounds(node)
        free += [(node, target) for target in range(low, high + 1) if target != stage]
    for move in free:
        yield [move]
    for node in inside:
        for target in (stage - 1, stage + 1):
            company = _company(state, node, target) if 0 <= target < state.n_stages else []
            if len(company) > 1:
                yield company
    if len(order) <= SEARCHED_NODES * 4:
        for node, target in free:
            for other in [n for n in order if state.stage_of[n] == target]:
                low, high = state.bounds(other)
                neighbours = (*state.dag.successors[node], *state.dag.predecessors[node])
                if low <= stage <= high and other not in neighbours:
                    yield [(node, target), (other, stage)]


def _company(state: _Stages, node: int, target: int) -> list[tuple[int, int]]:
    """A node and those of its stage that must move with it to a neighbouring one."""
    stage = state.stage_of[node]
    neighbours = state.dag.successors if target > stage else state.dag.predecessors
    seen = {node}
    open_ends = [node]
    while open_ends and len(seen) <= 32:
        for other in neighbours[open_ends.pop()]:
            if state.stage_of[other] == stage and other not in seen:
                seen.add(other)
                open_ends.append(other)
    return [] if open_ends else [(member, target) for member in seen]


class _Search:
    """Branch and bound over the stages of the nodes, in topological order.

    The time of a stage only grows as nodes join it, so a stage as slow as the best partition's ends the branch; so does
    an average of what is placed and what is left that is as slow.
    """

    def __init__(self, partitioner: Partitioner, n_stages: int, best_us: float, order: Sequence[int]) -> None:
        self._state = _Stages(partitioner, [-1] * len(order), n_stages)
        self._order = order
        self._n_stages = n_stages
        self._best_us = best_us
        self._best: tuple[int, ...] | None = None
        self._budget = SEARCH_BUDGET
        times = [partitioner.node_us(stage, n_stages) for stage in range(n_stages)]
        self._shares = [partitioner.n_replicas(stage, n_stages) for stage in range(n_stages)]
        #: by position in the order: time of the nodes from there on, each where it takes least
        self._left_us = [0.0] * (len(order) + 1)
        for position in range(len(order) - 1, -1, -1):
            self._left_us[position] = self._left_us[position + 1] + min(row[order[position]] for row in times)

    def best(self) -> tuple[int, ...] | None:
        """Stages by node of the fastest partition; None where none faster was found."""
        self._visit(0)
        return self._best

    def _visit(self, position: int) -> None:
        state = self._state
        if position == len(self._order):
            self._best_us, self._best = max(state.times), tuple(state.stage_of)
            return
        node = self._order[position]
        lowest = max((state.stage_of[p] for p in state.dag.predecessors[node]), default=0)
        n_left = len(self._order) - position - 1
        # the emptiest stages first: good partitions early cut off more
        for stage in sorted(range(lowest, self._n_stages), key=lambda s: (state.times[s], s)):
            self._budget -= 1
            if self._budget < 0:
                return
            state.add(node, stage)
            placed_us = sum(time_us * share for time_us, share in zip(state.times, self._shares, strict=True))
            average_us = (placed_us + self._left_us[position + 1]) / sum(self._shares)
            if (
                max(state.times) < self._best_us * _LESS
                and average_us < self._best_us * _LESS
                and state.n_nodes.count(0) <= n_left
            ):
                self._visit(position + 1)
            state.remove(node)
