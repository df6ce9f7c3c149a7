"""Cuts against exhaustive search: balanced as the best partition is, and within memory where any partition is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from distort.graph.ir import Graph, Node
from distort.graph.types import TensorType
from distort.scheduler.cost import CostModel
from distort.scheduler.dag import Dag
from distort.scheduler.device import Link, cpu
from distort.scheduler.downsets import MOST_SETS
from distort.scheduler.errors import PlanError
from distort.scheduler.partition import Partitioner
from distort.scheduler.planner import Terms, make_plan
from distort.scheduler.sweep import Seat

#: what the balance may fall short of the best partition's
WITHIN = 1.10
#: the same, where all cuts can be listed: no better one is looked for
NEARLY = 1.05


@st.composite
def graphs(draw: st.DrawFn, most: int = 9) -> Graph:
    """Any shape of graph: chains, branches, islands, skips; with weights, some shared."""
    graph, values = Graph("g", ["x"]), ["x"]
    graph.types["x"] = TensorType(1, (draw(st.sampled_from((1, 1000, 50_000))),))
    for i in range(draw(st.integers(2, most))):
        reads = draw(st.lists(st.sampled_from(values), min_size=1, max_size=3, unique=True))
        weight = f"w{draw(st.integers(0, i))}"
        if weight not in graph.initializers:
            graph.initializers[weight] = np.zeros(draw(st.sampled_from((1, 100, 1000))), np.float32)
        outputs = [f"v{i}.{k}" for k in range(draw(st.integers(1, 2)))]
        graph.nodes.append(Node("Op", "test", [*reads, weight], outputs, name=f"n{i}", opset=1))
        for name in outputs:
            graph.types[name] = TensorType(1, (draw(st.sampled_from((1, 1000, 50_000))),))
        values += outputs
    graph.outputs = draw(st.lists(st.sampled_from(values[1:]), min_size=1, max_size=2, unique=True))
    return graph


def partitions(dag: Dag, n_stages: int) -> Iterator[list[int]]:
    """Every one there is, with no stage empty."""

    def extend(stage_of: list[int]) -> Iterator[list[int]]:
        if len(stage_of) == dag.n_nodes:
            if len(set(stage_of)) == n_stages:
                yield stage_of
            return
        lowest = max((stage_of[other] for other in dag.predecessors[len(stage_of)]), default=0)
        for stage in range(lowest, n_stages):
            yield from extend([*stage_of, stage])

    return extend([])


def slowest_us(graph: Graph, stage_of: Sequence[int], n_stages: int, times: Sequence[float], link: Link) -> float:
    """By what ``Graph.extract`` says of the stages, and nothing of the planner's."""
    slowest = 0.0
    for stage in range(n_stages):
        nodes = [node for node, where in enumerate(stage_of) if where == stage]
        shapes = [getattr(graph.types[name], "shape", ()) for name in graph.extract(nodes).inputs]
        received = sum(4 * int(np.prod(shape)) for shape in shapes)
        time_us = sum(times[node] for node in nodes) + (link.transfer_us(received) if shapes else 0.0)
        slowest = max(slowest, time_us)
    return slowest


def near_chain(random: Random) -> Graph:
    """33 to 60 nodes, one after the other, with skips, short branches, and nodes that may run long before they are
    read.
    """
    graph, last, passed = Graph("g", ["x"]), "x", ["x"]
    sizes = (1, 1000, 50_000)
    graph.types["x"] = TensorType(1, (random.choice(sizes),))

    def add(*reads: str) -> str:
        name = f"v{len(graph.nodes)}"
        graph.nodes.append(Node("Op", "test", list(dict.fromkeys(reads)), [name], name=f"n{name}", opset=1))
        graph.types[name] = TensorType(1, (random.choice(sizes),))
        return name

    n_nodes = random.randint(33, 60)
    while len(graph.nodes) < n_nodes:
        kind = random.choice(("link", "link", "skip", "branches", "early")) if n_nodes - len(graph.nodes) > 4 else ""
        if kind == "skip":
            last = add(last, random.choice(passed))
        elif kind == "early":
            last = add(last, add(random.choice(passed)))
        elif kind == "branches":
            left, right = add(last), last
            for _ in range(random.randint(0, 1)):
                left, right = add(left), add(right)
            last = add(left, right)
        else:
            last = add(last)
        passed.append(last)
    graph.outputs = [last]
    return graph


def prefixes(dag: Dag, most: int) -> list[int] | None:
    """Every set of nodes that may come first, as bits, by size; None where they are more than ``most``."""
    found = [0]
    for bits in found:
        for node in range(dag.n_nodes):
            more = bits | 1 << node
            if more != bits and all(bits >> p & 1 for p in dag.predecessors[node]) and more not in found:
                found.append(more)
        if len(found) > most:
            return None
    return found


def best_us(graph: Graph, sets: Sequence[int], n_stages: int, times: Sequence[float], link: Link) -> float:
    """The slowest stage of the best partition whose cuts are among ``sets``, by dynamic programming."""
    producer = {name: i for i, node in enumerate(graph.nodes) for name in node.outputs}
    readers: dict[str, int] = {}
    for i, node in enumerate(graph.nodes):
        for name in node.inputs:
            readers[name] = readers.get(name, 0) | 1 << i
    values = [
        (1 << producer[name] if name in producer else 0, by, 4 * int(np.prod(getattr(graph.types[name], "shape", ()))))
        for name, by in readers.items()
    ]
    elapsed = {bits: sum(us for i, us in enumerate(times) if bits >> i & 1) for bits in sets}

    def stage_us(begin: int, end: int) -> float:
        inside = end & ~begin
        crossing = [size for made, by, size in values if by & inside and not made & inside]
        return elapsed[end] - elapsed[begin] + (link.transfer_us(sum(crossing)) if crossing else 0.0)

    reached = {0: 0.0}
    for stage in range(n_stages):
        following: dict[int, float] = {}
        for end in sets if stage < n_stages - 1 else sets[-1:]:
            best = np.inf
            for begin, us in reached.items():
                # nodes alone are a bound, and transfers cost time to look at
                if begin != end and not begin & ~end and max(us, elapsed[end] - elapsed[begin]) < best:
                    best = min(best, max(us, stage_us(begin, end)))
            if best < np.inf:
                following[end] = best
        reached = following
    return reached[sets[-1]]


@settings(max_examples=40, deadline=None)
@example(97)  # cuts of single orders, with nodes moved, are 8.6 % off
@given(st.integers(0, 2**32))
def test_long_graphs_that_are_nearly_chains_are_balanced_as_well_as_can_be(seed: int) -> None:
    random = Random(seed)
    graph = near_chain(random)
    n_stages = random.randint(2, 6)
    spread = random.choice((0.0, 1.0, 2.0))
    times = [10 ** random.uniform(0, spread) for _ in graph.nodes]
    link = random.choice((Link(0.0, 1e6), Link(40.0, 6.0), Link(10.0, 1.0)))
    dag = Dag(graph, CostModel(graph))
    sets = prefixes(dag, MOST_SETS)
    assume(sets is not None)
    assert sets is not None
    found = Partitioner(dag, [cpu(i) for i in range(n_stages)], [times] * n_stages, link).best(n_stages)[0]
    slowest = slowest_us(graph, found.stage_of, n_stages, times, link)
    assert slowest <= NEARLY * best_us(graph, sets, n_stages, times, link)


@settings(max_examples=120, deadline=None)
@given(st.data())
def test_the_slowest_stage_is_within_ten_percent_of_the_best_there_is(data: st.DataObject) -> None:
    graph = data.draw(graphs())
    n_stages = data.draw(st.integers(2, min(3, len(graph.nodes))))
    kinds = st.sampled_from((1.0, 10.0, 50.0)) | st.floats(0.5, 200.0)
    times = data.draw(st.lists(kinds, min_size=len(graph.nodes), max_size=len(graph.nodes)))
    link = data.draw(st.sampled_from((Link(0.0, 1e6), Link(40.0, 6.0), Link(10.0, 1.0))))
    dag = Dag(graph, CostModel(graph))
    found = Partitioner(dag, [cpu(i) for i in range(n_stages)], [times] * n_stages, link).best(n_stages)[0]
    every = (slowest_us(graph, stage_of, n_stages, times, link) for stage_of in partitions(dag, n_stages))
    assert slowest_us(graph, found.stage_of, n_stages, times, link) <= WITHIN * min(every)


@settings(max_examples=60, deadline=None)
@given(graphs(), st.integers(2, 3), st.sampled_from((Link(0.0, 1e6), Link(40.0, 6.0))), st.integers(0, 2**32))
def test_all_cuts_together_give_the_best_partition(graph: Graph, n_stages: int, link: Link, seed: int) -> None:
    assume(n_stages <= len(graph.nodes))
    random = Random(seed)
    times = [random.uniform(1, 100) for _ in graph.nodes]
    dag = Dag(graph, CostModel(graph))
    assume(dag.downsets is not None)
    assert dag.downsets is not None
    seats = [Seat(np.asarray(times), 1, link, None) for _ in range(n_stages)]
    found = dag.downsets.stages_of(seats, float("inf"))
    assert found is not None
    every = (slowest_us(graph, stage_of, n_stages, times, link) for stage_of in partitions(dag, n_stages))
    best = min(every)
    assert slowest_us(graph, found, n_stages, times, link) == pytest.approx(best)
    assert dag.downsets.stages_of(seats, best * (1 - 1e-9)) is None


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_a_partition_within_memory_is_found_where_there_is_one(data: st.DataObject) -> None:
    graph = data.draw(graphs(most=7))
    n_devices = data.draw(st.integers(2, 3))
    limit = data.draw(st.sampled_from((5_000, 12_000, 210_000, 410_000, 620_000)))
    devices = [cpu(i, memory_nbytes=limit) for i in range(n_devices)]
    dag = Dag(graph, CostModel(graph))
    partitioner = Partitioner(dag, devices, [[1.0] * dag.n_nodes] * n_devices, Link(1.0, 1.0))
    any_fits = any(
        partitioner.partition(stage_of, n_stages).fits
        for n_stages in range(1, min(n_devices, dag.n_nodes) + 1)
        for stage_of in partitions(dag, n_stages)
    )
    objective = data.draw(st.sampled_from(("latency", "throughput", "memory")))
    try:
        plan = make_plan(graph, devices, Terms(objective=objective), n_stages=None)
    except PlanError:
        assert not any_fits
    else:
        assert all(stage.peak_nbytes <= limit for stage in plan.stages)
