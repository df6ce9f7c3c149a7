"""Cuts against exhaustive search: balanced as the best partition is, and within memory where any partition is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from distort.graph.ir import Graph, Node
from distort.graph.types import TensorType
from distort.scheduler.cost import CostModel
from distort.scheduler.dag import Dag
from distort.scheduler.device import Link, cpu
from distort.scheduler.errors import PlanError
from distort.scheduler.partition import Partitioner
from distort.scheduler.planner import Terms, make_plan

#: what the balance may fall short of the best partition's
WITHIN = 1.10


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
