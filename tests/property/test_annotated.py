"""Random graphs, annotated in part: stages survive optimization, edges go forward, answers stay."""

from __future__ import annotations

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from distort.engine import optimize
from distort.graph import pipeline, reader, writer
from distort.graph.annotations import Configuration, annotated, annotation
from distort.graph.ir import Model
from distort.kernels.program import Program
from distort.scheduler.annotated import plan_annotated
from distort.scheduler.cost import CostModel
from distort.scheduler.dag import Dag
from distort.scheduler.device import cpu
from distort.scheduler.partition import is_valid

from .test_partitions import OPSET, SIDE, graphs, partitions

FEEDS = {
    "x": np.arange(SIDE * SIDE, dtype=np.float32).reshape(SIDE, SIDE) / 7 - 1,
    "y": np.eye(SIDE, dtype=np.float32)[::-1] - np.float32(0.25),
}


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_what_is_annotated_runs_as_annotated(data: st.DataObject) -> None:
    graph = data.draw(graphs())
    stage_of = data.draw(partitions(Dag(graph, CostModel(graph))))
    told = data.draw(st.lists(st.booleans(), min_size=len(stage_of), max_size=len(stage_of)))
    assume(any(told))
    model = annotated(
        Model(graph, {"": OPSET}),
        Configuration("p", 4),
        [(stage, [stage]) if known else (0, []) for stage, known in zip(stage_of, told, strict=True)],
    )
    for node, known in zip(model.graph.nodes, told, strict=True):
        if not known:
            node.device_configurations = ()
    want = Program(model.graph).run(FEEDS)
    read = reader.load(writer.to_proto(model).SerializeToString())
    read.graph.types = dict(graph.types)

    pinned = pipeline.pin(read, "annotations")
    for node, stage, wanted, known in zip(read.graph.nodes, pinned.stage_of, stage_of, told, strict=True):
        assert annotation(node, "p") is not None
        assert stage == wanted or not known
    assert is_valid(Dag(read.graph, CostModel(read.graph)), pinned.stage_of)
    stages = {
        (node.op_type, node.outputs[0]): stage for node, stage in zip(read.graph.nodes, pinned.stage_of, strict=True)
    }

    optimize(read, "all")
    assume(read.graph.nodes)
    left = pipeline.after_optimization(read.graph, pinned)
    for node, stage in zip(read.graph.nodes, left.stage_of, strict=True):
        assert stage == stages.get((node.op_type, node.outputs[0]), stage)
    plan = plan_annotated(read.graph, left, [cpu(i) for i in range(4)])
    known_values = {**read.graph.initializers, **FEEDS}
    for stage in plan.stages:
        part = read.graph.extract(stage.nodes)
        known_values.update(zip(part.outputs, Program(part).run(known_values), strict=True))
    for name, value in zip(graph.outputs, want, strict=True):
        np.testing.assert_allclose(known_values[name], value, rtol=1e-5, atol=1e-6)
