"""The intervals of one topological order, whatever devices they go to: what crosses into each, and what it holds.

All of that is kept up to date while the left end sweeps over the order, O(nodes + edges) in all. Orders and their
intervals are remembered, for many partitions are made of the same ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from distort.scheduler.dag import Dag, Order

Floats = np.ndarray[Any, np.dtype[np.float64]]

#: cuts considered in one order; a longer order offers its cheapest ones, spread evenly over its time
MAX_CUTS = 640


@dataclass(frozen=True, slots=True)
class Row:
    """Intervals with the same left end, by right end."""

    received_nbytes: Floats
    crossed: Floats  # 1 where anything is received
    weights_nbytes: Floats
    activations_nbytes: Floats  # an upper bound: all that is alive then, read in the interval or not


@dataclass(frozen=True, slots=True)
class Intervals:
    """Between the cuts of an order: row ``left`` has those that begin at cut ``left``."""

    order: Order
    cuts: tuple[int, ...]  # positions in the order, the first 0, the last its length
    rows: tuple[Row, ...]


class Line:
    """A topological order laid out: where its nodes are, what is alive along it."""

    def __init__(self, dag: Dag, order: Order) -> None:
        self._dag = dag
        self._order = order
        self._position = [0] * len(order)
        for position, node in enumerate(order):
            self._position[node] = position
        self._live = self._live_nbytes()
        self._known: dict[tuple[int, ...], Intervals] = {}

    def intervals(self, node_us: Floats, n_stages: int) -> Intervals:
        """Between cuts for that many stages; ``node_us`` is the time of each node, in the order."""
        cuts = tuple(self._choose_cuts(node_us, max(MAX_CUTS, 4 * n_stages)))
        if cuts not in self._known:
            self._known[cuts] = Intervals(self._order, cuts, tuple(self._sweep(cuts)))
        return self._known[cuts]

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

    def _sweep(self, cuts: tuple[int, ...]) -> list[Row]:
        """For each cut as the left end, the intervals to every later cut."""
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
            crossed = (np.cumsum(counts[left + 1 : n_cuts]) > 0).astype(np.float64)
            held = np.cumsum(weights[left + 1 : n_cuts])
            rows.append(Row(received, crossed, held, np.maximum.accumulate(live[left:])))
            touched: set[int] = set()
            for position in range(cuts[left], cuts[left + 1]):
                node = self._order[position]
                touched.update(self._dag.reads[node], self._dag.makes[node])
            for v in touched:
                expect(v, left + 1)
        return rows


def line_of(dag: Dag, order: Order) -> Line:
    """The line of an order of ``dag``, made once."""
    if order not in dag.lines:
        dag.lines[order] = Line(dag, order)
    return dag.lines[order]
