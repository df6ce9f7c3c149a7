"""Any valid partition of a graph of real operators answers as one stage does.

To the bit where NumPy kernels run it. Compiled stages are fused in other ways than the whole: as near as floats are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from distort.cluster.executor import Executor
from distort.cluster.transport.inproc import InprocTransport
from distort.graph.ir import Graph, Node
from distort.graph.types import TensorType
from distort.kernels.compiler.choice import mode_of
from distort.kernels.program import Program
from distort.parallel import stage_payloads
from distort.scheduler.cost import CostModel
from distort.scheduler.dag import Dag
from distort.scheduler.device import RAY_CALLS, cpu
from distort.scheduler.partition import Partitioner, is_valid
from distort.scheduler.plan import Plan, Prediction
from distort.scheduler.stages import make_edges, make_stages

OPSET = 17
SIDE = 4  # every value is a SIDE x SIDE matrix
_NEAR = np.float32(1 + 1e-5)
UNARY = ("Relu", "Sigmoid", "Tanh", "Neg", "Abs", "Erf", "Softmax", "Identity")
BINARY = ("Add", "Sub", "Mul", "MatMul", "Max", "Min")


def node(op_type: str, inputs: list[str], outputs: list[str], **attributes: Any) -> Node:
    return Node(op_type, "", inputs, outputs, attributes, name=f"{op_type} {outputs[0]}", opset=OPSET)


def conditional(draw: st.DrawFn, known: Sequence[str], output: str) -> Node:
    """An If whose branches capture values of the graph around them."""

    def branch(which: str) -> Graph:
        inner = f"{output} {which}"
        operation = node(draw(st.sampled_from(BINARY)), [draw(st.sampled_from(known)) for _ in range(2)], [inner])
        return Graph(name=which, outputs=[inner], nodes=[operation])

    return node("If", ["condition"], [output], then_branch=branch("then"), else_branch=branch("else"))


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    graph = Graph(name="random", inputs=["x", "y"])
    graph.initializers = {
        "w": np.linspace(-1, 1, SIDE * SIDE, dtype=np.float32).reshape(SIDE, SIDE),
        "condition": np.array(draw(st.booleans())),
        "sizes": np.array([1, SIDE - 1]),
    }
    known = ["x", "y", "w"]
    for i in range(draw(st.integers(2, 12))):
        output = f"v{i}"
        pick = st.sampled_from(known)
        kind = draw(st.sampled_from(("unary", "binary", "binary", "halves", "transpose", "if")))
        if kind == "unary":
            graph.nodes.append(node(draw(st.sampled_from(UNARY)), [draw(pick)], [output]))
        elif kind == "binary":
            graph.nodes.append(node(draw(st.sampled_from(BINARY)), [draw(pick), draw(pick)], [output]))
        elif kind == "transpose":
            graph.nodes.append(node("Transpose", [draw(pick)], [output], perm=[1, 0]))
        elif kind == "halves":  # a node with two outputs, and one that joins them the other way round
            graph.nodes.append(node("Split", [draw(pick), "sizes"], [f"{output} a", f"{output} b"], axis=0))
            graph.nodes.append(node("Concat", [f"{output} b", f"{output} a"], [output], axis=0))
        else:
            graph.nodes.append(conditional(draw, known, output))
        known.append(output)
    made = [name for item in graph.nodes for name in item.outputs]
    graph.outputs = draw(st.lists(st.sampled_from([*made, "x", "w"]), min_size=1, max_size=4, unique=True))
    graph.types = {name: TensorType(1, (SIDE, SIDE)) for name in known}
    return graph


@st.composite
def partitions(draw: st.DrawFn, dag: Dag) -> list[int]:
    """A stage for each node, never before one that it depends on; stages numbered without gaps."""
    n_stages = draw(st.integers(1, 4))
    stage_of: list[int] = []
    for before in dag.predecessors:
        lowest = max((stage_of[other] for other in before), default=0)
        stage_of.append(draw(st.integers(lowest, n_stages - 1)))
    used = sorted(set(stage_of))
    return [used.index(stage) for stage in stage_of]


def plan_of(graph: Graph, dag: Dag, costs: CostModel, stage_of: Sequence[int]) -> Plan:
    n_stages = max(stage_of) + 1
    devices = [cpu(i) for i in range(n_stages)]
    node_us = [[costs.node_cost_us(i, device) for i in range(len(graph.nodes))] for device in devices]
    partition = Partitioner(dag, devices, node_us, RAY_CALLS).partition(list(stage_of), n_stages)
    stages = make_stages(graph, dag, partition, devices)
    edges = make_edges(graph, costs, stages, RAY_CALLS)
    return Plan("random", "latency", stages, edges, (), Prediction(0.0, 0.0, 0.0, 0.0))


def tolerance_of(graph: Graph, feeds: dict[str, Any]) -> float:
    """How far results may be from each other: a part of the largest value, or what a small change of feeds does."""
    made = list(graph.producers())
    with np.errstate(all="ignore"):
        runs = [Program(graph, outputs=made).run({n: v * f for n, v in feeds.items()}) for f in (1, _NEAR)]
        values, near = (np.concatenate([value.ravel() for value in run]) for run in runs)
        largest, change = (np.nanmax(np.abs(x), initial=0) for x in (values, near - values))
    return float(1e-5 * max(1, largest) + 10 * change)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_valid_partition_answers_as_one_stage(data: st.DataObject) -> None:
    graph = data.draw(graphs())
    costs = CostModel(graph)
    dag = Dag(graph, costs)
    stage_of = data.draw(partitions(dag))
    assert is_valid(dag, stage_of)
    plan = plan_of(graph, dag, costs, stage_of)
    feeds = {
        "x": np.arange(SIDE * SIDE, dtype=np.float32).reshape(SIDE, SIDE) / 7 - 1,
        "y": np.eye(SIDE, dtype=np.float32)[::-1] - np.float32(0.25),
    }
    want = dict(zip(graph.outputs, Program(graph).run(feeds), strict=True))
    tolerance = 0.0 if mode_of("1") == "0" else tolerance_of(graph, feeds)
    payloads, weights = stage_payloads(graph, plan)
    executor = Executor(plan, payloads, weights, InprocTransport())
    try:
        remote = [name for name in graph.outputs if name in graph.producers()]
        for _ in range(2):
            got, reports = executor.run(remote, feeds)
            for name, value in zip(remote, got, strict=True):
                np.testing.assert_allclose(value, want[name], rtol=tolerance, atol=tolerance)
        assert len(reports) <= len(plan.stages)
    finally:
        executor.close()
