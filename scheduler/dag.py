"""A graph as the planner sees it: numbered nodes, the values between them, their bytes. Topological orders of it."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from distort.graph.ir import Graph
from distort.scheduler.cost import CostModel, weight_nbytes
from distort.scheduler.downsets import Downsets, every

if TYPE_CHECKING:
    from distort.scheduler.intervals import Line

Order = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class DagValue:
    """Something nodes read: a result, a feed, or (``weight``) an initializer that every stage reading it holds."""

    name: str
    nbytes: int | None
    producer: int  # node; -1: a feed or an initializer
    consumers: tuple[int, ...]  # nodes, ascending
    weight: bool
    fetched: bool  # it is one of the graph's outputs

    @property
    def size(self) -> int:
        """Bytes, unknown ones counted as none."""
        return self.nbytes or 0


class Dag:
    """Built once for a graph in O(nodes + edges).

    An overridable initializer counts as a feed: whoever runs the model may replace it.
    """

    def __init__(self, graph: Graph, costs: CostModel) -> None:
        self.graph = graph
        self.n_nodes = len(graph.nodes)
        reads = [node.reads() for node in graph.nodes]
        producer = graph.producers()
        consumers: dict[str, list[int]] = {}
        for index, names in enumerate(reads):
            for name in names:
                consumers.setdefault(name, []).append(index)
        overridable, fetched = set(graph.defaults), set(graph.outputs)
        weights = {name for name in graph.initializers if name not in overridable}
        every = dict.fromkeys((*graph.inputs, *producer, *consumers))
        self.values: list[DagValue] = []
        for name in every:
            is_weight = name in weights
            nbytes = weight_nbytes(graph.initializers[name]) if is_weight else costs.value_nbytes(name)
            made_by = -1 if is_weight else producer.get(name, -1)
            users = tuple(consumers.get(name, ()))
            self.values.append(DagValue(name, nbytes, made_by, users, is_weight, name in fetched))
        number = {value.name: i for i, value in enumerate(self.values)}
        #: value numbers by node
        self.reads: list[list[int]] = [[number[name] for name in names] for names in reads]
        self.makes: list[list[int]] = [[] for _ in range(self.n_nodes)]
        self.predecessors: list[list[int]] = [[] for _ in range(self.n_nodes)]
        self.successors: list[list[int]] = [[] for _ in range(self.n_nodes)]
        for i, value in enumerate(self.values):
            if value.producer >= 0:
                self.makes[value.producer].append(i)
                for consumer in value.consumers:
                    self.successors[value.producer].append(consumer)
                    self.predecessors[consumer].append(value.producer)
        #: orders of the nodes that were laid out (intervals.py)
        self.lines: dict[Order, Line] = {}
        for neighbours in (self.predecessors, self.successors):
            for i, nodes in enumerate(neighbours):
                neighbours[i] = sorted(set(nodes))

    @cached_property
    def orders(self) -> dict[str, Order]:
        """Topological orders in which cuts may be cheap, by name."""
        return orders(self)

    @cached_property
    def downsets(self) -> Downsets | None:
        """What cuts may leave behind them; None where that is too much to list."""
        return every(self)

    def check_order(self) -> None:
        """Raises ValueError where a node reads what a later one makes."""
        for node, before in enumerate(self.predecessors):
            if before and before[-1] >= node:
                label = self.graph.nodes[node].label()
                raise ValueError(f"the graph is not in topological order: {label!r} reads a value made later")


def orders(dag: Dag) -> dict[str, Order]:
    """Topological orders in which cuts may be cheap, by name; the graph's own first, repetitions left out."""
    depth = _levels(dag.predecessors, range(dag.n_nodes))
    height = _levels(dag.successors, range(dag.n_nodes - 1, -1, -1))
    found: dict[str, Order] = {"given": tuple(range(dag.n_nodes))}
    candidates: dict[str, Callable[[], Order]] = {
        "breadth first": lambda: _by_priority(dag, [(level, i) for i, level in enumerate(depth)]),
        "as late as possible": lambda: _by_priority(dag, [(-level, i) for i, level in enumerate(height)]),
        "depth first": lambda: _depth_first(dag.predecessors, dag.successors, 1),
        "depth first, last branch first": lambda: _depth_first(dag.predecessors, dag.successors, -1),
        "depth first from the end": lambda: _depth_first(dag.successors, dag.predecessors, -1)[::-1],
        "least live bytes": lambda: _least_live(dag),
    }
    for name, make in candidates.items():
        order = make()
        if order not in found.values():
            found[name] = order
    return found


def _levels(before: Sequence[Sequence[int]], nodes: Sequence[int]) -> list[int]:
    level = [0] * len(before)
    for node in nodes:
        level[node] = 1 + max((level[other] for other in before[node]), default=-1)
    return level


def _by_priority(dag: Dag, priority: Sequence[tuple[int, int]]) -> Order:
    waiting = [len(before) for before in dag.predecessors]
    ready = [(priority[i], i) for i, count in enumerate(waiting) if count == 0]
    heapq.heapify(ready)
    order = []
    while ready:
        _, node = heapq.heappop(ready)
        order.append(node)
        for follower in dag.successors[node]:
            waiting[follower] -= 1
            if waiting[follower] == 0:
                heapq.heappush(ready, (priority[follower], follower))
    return tuple(order)


def _depth_first(before: Sequence[Sequence[int]], after: Sequence[Sequence[int]], direction: int) -> Order:
    """A branch to its end before the next one; ``direction`` says whether its first or last sibling comes first."""
    waiting = [len(nodes) for nodes in before]
    stack = [i for i, count in enumerate(waiting) if count == 0][::-direction]
    order = []
    while stack:
        node = stack.pop()
        order.append(node)
        for follower in after[node][::-direction]:
            waiting[follower] -= 1
            if waiting[follower] == 0:
                stack.append(follower)
    return tuple(order)


def _least_live(dag: Dag) -> Order:
    """Greedy: of the nodes that are ready, the one that adds the fewest live bytes."""
    unread = [len(value.consumers) for value in dag.values]
    waiting = [len(before) for before in dag.predecessors]

    def added_nbytes(node: int) -> int:
        made = sum(dag.values[v].size for v in dag.makes[node])
        freed = sum(dag.values[v].size for v in dag.reads[node] if unread[v] == 1 and not dag.values[v].weight)
        return made - freed

    ready = [(added_nbytes(i), i) for i, count in enumerate(waiting) if count == 0]
    heapq.heapify(ready)
    order = []
    while ready:
        expected, node = heapq.heappop(ready)
        now = added_nbytes(node)
        if now < expected and ready and (now, node) > ready[0]:
            heapq.heappush(ready, (now, node))
            continue
        order.append(node)
        for value in dag.reads[node]:
            unread[value] -= 1
        for follower in dag.successors[node]:
            waiting[follower] -= 1
            if waiting[follower] == 0:
                heapq.heappush(ready, (added_nbytes(follower), follower))
    return tuple(order)
