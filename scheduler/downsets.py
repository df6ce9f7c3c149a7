"""Dynamic programming over cuts that no single order has.

A downset is a set of nodes with all that come before them; of any two, one within the other, what lies between is a
stage. A graph that is nearly a chain has few, and the result is the best partition there is. Of a wider graph those are
taken that lie near the cuts of a partition which is good already.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from distort.scheduler.dag import Dag
    from distort.scheduler.intervals import Floats
    from distort.scheduler.sweep import Indices, Seat

Flags = np.ndarray[Any, np.dtype[np.bool_]]

#: downsets that are looked at; the work grows with their square
MOST_SETS = 400
#: the largest graph that they are looked for in
MOST_NODES = 128


class Downsets:
    """Some downsets of a graph, by size, the first without nodes, the last with all; and what crosses between them."""

    def __init__(self, dag: Dag, sets: Sequence[int]) -> None:
        self.n_sets = len(sets)
        #: [sets, nodes]
        self._holds: Flags = np.array([[bits >> node & 1 for node in range(dag.n_nodes)] for bits in sets], np.bool_)
        held = self._holds.astype(np.float32)
        #: [sets, sets]: whether the first lies within the second
        self._within: Flags = held @ (1 - held).T == 0
        np.fill_diagonal(self._within, False)
        #: [sets, sets]: of the stage between two
        self._received_nbytes: Floats = np.zeros(self._within.shape)
        self._crossed: Flags = np.zeros(self._within.shape, np.bool_)
        for value in dag.values:
            if value.consumers and not value.weight:
                n_readers = self._holds[:, list(value.consumers)].sum(axis=1, dtype=np.int16)
                alive = n_readers < n_readers[-1]
                if value.producer >= 0:
                    alive &= self._holds[:, value.producer]
                begins = np.flatnonzero(alive)
                crosses = n_readers[None, :] > n_readers[begins, None]
                self._received_nbytes[begins] += crosses * float(value.size)
                self._crossed[begins] |= crosses

    def stages_of(self, seats: Sequence[Seat], below_us: float) -> tuple[int, ...] | None:
        """Stages by node, one a seat: of the partitions as fast as the best, the one that moves the fewest bytes.

        None where the slowest stage of none takes less than ``below_us``. Memory is not looked at.
        """
        slowest_us = float(self._solve(seats)[0][-1])
        if slowest_us >= below_us:
            return None
        _, came_from = self._solve(seats, slowest_us * (1 + 1e-9))
        stage_of = np.zeros(self._holds.shape[1], np.int64)
        end = -1
        for stage in range(len(seats) - 1, -1, -1):
            begin = int(came_from[stage][end])
            stage_of[self._holds[end] & ~self._holds[begin]] = stage
            end = begin
        return tuple(stage_of.tolist())

    def _solve(self, seats: Sequence[Seat], slowest_us: float | None = None) -> tuple[Floats, list[Indices]]:
        """By set, the slowest stage up to it; with ``slowest_us`` given, the transfers. Where each stage's begins."""
        best: Floats = np.full(self.n_sets, np.inf)
        best[0] = 0.0
        came_from = []
        for seat in seats:
            elapsed = self._holds @ seat.node_us
            receive_us = seat.link.latency_us * self._crossed + 1e-3 / seat.link.gbytes_per_s * self._received_nbytes
            time_us = (elapsed - elapsed[:, None] + receive_us) / seat.replicas
            if slowest_us is None:
                offered = np.where(self._within, np.maximum(best[:, None], time_us), np.inf)
            else:
                offered = np.where(self._within & (time_us <= slowest_us), best[:, None] + receive_us, np.inf)
            came_from.append(offered.argmin(axis=0))
            best = offered.min(axis=0)
        return best, came_from


def every(dag: Dag) -> Downsets | None:
    """All that there are; None where they are more than MOST_SETS."""
    before = _bits(dag.predecessors)
    level = found = [0]
    for _ in range(dag.n_nodes):
        ready = (
            bits | 1 << node
            for bits in level
            for node, needed in enumerate(before)
            if not bits >> node & 1 and not needed & ~bits
        )
        level = list(dict.fromkeys(ready))
        found = found + level
        if len(found) > MOST_SETS:
            return None
    return Downsets(dag, found)


def near(dag: Dag, stage_of: Sequence[int], n_stages: int) -> Downsets:
    """Those that differ from a partition's cuts by one node, by two, … while there is room."""
    before, after = _bits(dag.predecessors), _bits(dag.successors)
    cuts = [sum(1 << node for node, at in enumerate(stage_of) if at < stage) for stage in range(n_stages + 1)]
    found = dict.fromkeys(cuts)
    waiting = list(found)
    for bits in waiting:
        for node in range(dag.n_nodes):
            other = bits ^ 1 << node
            # in after all that it reads, out before all that read it
            if not (after[node] & bits if bits >> node & 1 else before[node] & ~bits) and other not in found:
                found[other] = None
                waiting.append(other)
        if len(found) > MOST_SETS:
            break
    return Downsets(dag, sorted(found, key=int.bit_count))


def _bits(nodes: Iterable[Iterable[int]]) -> list[int]:
    return [sum(1 << node for node in group) for group in nodes]
