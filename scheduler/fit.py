"""Partitions that fit the memory of their devices, where dynamic programming over the cuts of an order found none.

It bounds the activations of a stage from above, and it knows only intervals of orders. Here loads are exact: a small
graph is searched to the end, in a larger one nodes leave the stages that hold too much.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from distort.scheduler.partition import Partition, Partitioner

#: partitions that the search evaluates, and the largest graph that it is tried on
SEARCH_BUDGET = 4_000
SEARCHED_NODES = 16
#: nodes that the evaluations of moves may go over, all together
MOVE_BUDGET = 100_000


def fitted(partitioner: Partitioner, start: Partition) -> Partition | None:
    """A partition into as many stages that fits; None where none was found."""
    if start.fits:
        return start
    moved = _moved(partitioner, start)
    if moved is not None or start.n_stages < 2 or partitioner.dag.n_nodes > SEARCHED_NODES:
        return moved
    return _searched(partitioner, start)


def _excess_nbytes(partitioner: Partitioner, partition: Partition) -> list[int]:
    """By how much each stage is too large."""
    n_stages = partition.n_stages
    limits = [partitioner.memory_nbytes(stage, n_stages) for stage in range(n_stages)]
    return [
        max(0, load.peak_nbytes - limit) if limit is not None else 0
        for load, limit in zip(partition.loads, limits, strict=True)
    ]


def _moved(partitioner: Partitioner, start: Partition) -> Partition | None:
    """While some stage is too large: the first move of a node that makes all of them together less so."""
    dag, n_stages = partitioner.dag, start.n_stages
    budget = MOVE_BUDGET // max(1, dag.n_nodes)
    current, excess = start, _excess_nbytes(partitioner, start)
    while sum(excess):
        fullest = max(range(n_stages), key=excess.__getitem__)
        stage_of = list(current.stage_of)
        better = None
        for node in [n for n in current.order if stage_of[n] == fullest]:
            low = max((stage_of[p] for p in dag.predecessors[node]), default=0)
            high = min((stage_of[s] for s in dag.successors[node]), default=n_stages - 1)
            for target in range(low, high + 1):
                if target == fullest or stage_of.count(fullest) < 2:
                    continue
                budget -= 1
                if budget < 0:
                    return None
                stage_of[node] = target
                trial = partitioner.partition(stage_of, n_stages, f"{start.order_name}, moved to fit", start.source)
                stage_of[node] = fullest
                if sum(_excess_nbytes(partitioner, trial)) < sum(excess):
                    better = trial
                    break
            if better is not None:
                break
        if better is None:
            return None
        current, excess = better, _excess_nbytes(partitioner, better)
    return current


def _searched(partitioner: Partitioner, start: Partition) -> Partition | None:
    """Of all partitions the fastest that fits. Weights alone cut branches off: they only grow."""
    dag, n_stages = partitioner.dag, start.n_stages
    order: Sequence[int] = start.source
    limits = [partitioner.memory_nbytes(stage, n_stages) for stage in range(n_stages)]
    stage_of = [-1] * dag.n_nodes
    held: list[dict[int, int]] = [{} for _ in range(n_stages)]  # weights by stage, and how many nodes read them
    found: list[Partition] = []
    budget = SEARCH_BUDGET

    def visit(position: int) -> None:
        nonlocal budget
        if position == len(order):
            if len(set(stage_of)) == n_stages:
                budget -= 1
                trial = partitioner.partition(stage_of, n_stages, "searched to fit", start.source)
                if trial.fits and (not found or trial.bottleneck_us < found[0].bottleneck_us):
                    found[:] = [trial]
            return
        node = order[position]
        weights = [v for v in dag.reads[node] if dag.values[v].weight]
        lowest = max((stage_of[p] for p in dag.predecessors[node]), default=0)
        for stage in range(lowest, n_stages):
            if budget <= 0:
                return
            for v in weights:
                held[stage][v] = held[stage].get(v, 0) + 1
            stage_of[node] = stage
            limit = limits[stage]
            if limit is None or sum(dag.values[v].size for v in held[stage]) <= limit:
                visit(position + 1)
            stage_of[node] = -1
            for v in weights:
                held[stage][v] -= 1
                if not held[stage][v]:
                    del held[stage][v]

    visit(0)
    return found[0] if found else None
