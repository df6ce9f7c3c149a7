"""Large graphs are planned in seconds."""

from __future__ import annotations

import random
import time

import pytest

from distort.graph.ir import Graph, Node
from distort.graph.types import TensorType
from distort.scheduler.device import cpu
from distort.scheduler.planner import Terms, make_plan

N_NODES = 10_000
#: of this process's time; a quiet machine takes half of it at most
MOST_S = 10.0


def braided(n_nodes: int) -> Graph:
    """A graph in which nodes read what was made shortly before: many small branches."""
    rng = random.Random(1)
    graph, values = Graph("braided", ["x"], []), ["x"]
    graph.types["x"] = TensorType(1, (64, 64))
    for i in range(n_nodes):
        reads = [values[max(0, len(values) - 1 - int(rng.expovariate(1 / 8)))] for _ in range(1 + i % 2)]
        graph.nodes.append(Node("MatMul" if i % 2 else "Relu", "", reads, [f"v{i}"], name=f"n{i}", opset=13))
        graph.types[f"v{i}"] = TensorType(1, (64, 64))
        values.append(f"v{i}")
    read = {name for node in graph.nodes for name in node.inputs}
    graph.outputs = [name for name in values[1:] if name not in read]
    return graph


@pytest.mark.parametrize(
    ("objective", "n_stages"), [("latency", None), ("latency", 4), ("throughput", None), ("memory", 4)]
)
def test_ten_thousand_nodes(objective: str, n_stages: int | None) -> None:
    graph = braided(N_NODES)
    devices = [cpu(i, memory_nbytes=10**10) for i in range(8)]
    began = time.process_time()
    plan = make_plan(graph, devices, Terms(objective=objective), n_stages=n_stages)
    assert time.process_time() - began < MOST_S
    assert sum(stage.n_nodes for stage in plan.stages) == N_NODES
    if n_stages:
        assert len(plan.stages) == n_stages
    if objective == "latency" and n_stages:
        times = [stage.cost_us for stage in plan.stages]
        assert max(times) < 1.1 * sum(times) / len(times)
