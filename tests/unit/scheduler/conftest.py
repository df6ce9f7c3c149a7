"""Graphs from ONNX text, and plans without a graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx.parser
import onnx.shape_inference
import pytest

from distort.graph.ir import Graph
from distort.graph.reader import read_model
from distort.scheduler.device import cpu
from distort.scheduler.plan import CALLER, Edge, Plan, Prediction, Stage

GraphOf = Callable[[str], Graph]
PlanOf = Callable[..., Plan]

#: a stage that reads, and one it feeds: (inputs, outputs) by stage
Wiring = Sequence[tuple[Sequence[str], Sequence[str]]]


@pytest.fixture
def graph_of() -> GraphOf:
    """A typed graph from the text of an ONNX graph."""

    def build(text: str) -> Graph:
        proto = onnx.parser.parse_model(f'<ir_version: 9, opset_import: ["": 18]> {text}')
        return read_model(onnx.shape_inference.infer_shapes(proto, strict_mode=True)).graph

    return build


@pytest.fixture
def plan_of() -> PlanOf:
    """A plan from what its stages read and make; ``fetched`` are the outputs of the graph."""

    def build(wiring: Wiring, fetched: Sequence[str], cost_us: float = 100.0) -> Plan:
        made_by = {name: i for i, (_, outputs) in enumerate(wiring) for name in outputs}
        stages = tuple(
            Stage(f"stage{i}", i, (i,), (f"n{i}",), cpu(i), tuple(inputs), tuple(outputs), cost_us, 1000, 500)
            for i, (inputs, outputs) in enumerate(wiring)
        )
        edges = [
            Edge(name, made_by.get(name, CALLER), i, 100, "object_store")
            for i, (inputs, _) in enumerate(wiring)
            for name in inputs
        ]
        edges += [Edge(name, made_by[name], CALLER, 100, "object_store") for name in fetched]
        return Plan("wired", "latency", stages, tuple(edges), (), Prediction(1.0, 1.0, 1.0, 1.0))

    return build
