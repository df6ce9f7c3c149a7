"""Which stage each node belongs to, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from distort.engine import optimize
from distort.graph import pipeline, reader
from distort.graph.annotations import annotation
from distort.graph.errors import ModelError
from distort.graph.ir import Model
from distort.graph.pipeline import Pipeline

from ...annotated_models import annotate

CHAIN = "g (float[2] x) => (float[2] y) { [a] b = Sqrt(x) [c] d = Exp(b) [e] f = Neg(d) [h] y = Exp(f) }"
#: two branches that meet
FORK = """g (float[2] x) => (float[2] y) {
    [left] l = Exp(x)
    [right] r = Sqrt(x)
    [after] s = Neg(r)
    [join] y = Add(l, s)
}"""


def read(proto: Any) -> Model:
    return reader.load(proto.SerializeToString())


def pinned(text: str, stages: Mapping[str, int | None], **more: Any) -> tuple[Pipeline, dict[str, int]]:
    model = read(annotate(text, stages, **more))
    found = pipeline.pin(model, "annotations")
    return found, dict(zip((node.name for node in model.graph.nodes), found.stage_of, strict=True))


@pytest.mark.parametrize(
    ("text", "stages", "wanted"),
    [
        (CHAIN, {"a": 0, "c": 0, "e": 1, "h": 1}, [0, 0, 1, 1]),
        (CHAIN, {"a": 0, "e": 0, "h": 1}, [0, 0, 0, 1]),  # both sides agree
        (CHAIN, {"a": 0, "h": 2}, [0, 0, 0, 2]),  # they don't: the earliest
        (CHAIN, {"h": 2}, [2, 2, 2, 2]),  # depends on no stage: the one that reads it
        (CHAIN, {"a": 3}, [3, 3, 3, 3]),
        (CHAIN, {"c": 1, "e": 4}, [1, 1, 4, 4]),
        (FORK, {"left": 2, "join": 3}, [2, 3, 3, 3]),
        # what feeds nodes that were moved forward moves with them
        (FORK, {"right": 0, "join": 3}, [3, 0, 0, 3]),
        (FORK, {"left": 0, "right": 1}, [0, 1, 1, 1]),
    ],
)
def test_nodes_without_a_stage(text: str, stages: dict[str, int | None], wanted: list[int]) -> None:
    found, _ = pinned(text, stages)
    assert list(found.stage_of) == wanted
    assert found.stages == tuple(sorted(set(wanted)))
    assert bool(found.notes) == (len(stages) < 4)


def test_a_note_names_them() -> None:
    found, _ = pinned(CHAIN, {"a": 0, "h": 1})
    assert found.notes == (
        "nodes without a pipeline stage went to the earliest stage that has what they read: c in 0, e in 0",
    )


def test_strict_refuses_a_choice_and_nothing_else() -> None:
    with pytest.raises(ModelError, match=r"Node 'c' has no pipeline stage.*strict_placement=0"):
        pipeline.pin(read(annotate(CHAIN, {"a": 0, "h": 1})), "annotations", strict=True)
    found = pipeline.pin(read(annotate(CHAIN, {"a": 0, "e": 0, "h": 1})), "annotations", strict=True)
    assert found.stage_of == (0, 0, 0, 1)


def test_constants_have_no_stage() -> None:
    text = """g (float[2] x) => (float[2] y) {
        [late] k = Constant<value = float[2] {1, 2}>()
        [a] b = Add(x, k)
        [c] y = Mul(b, k)
    }"""
    found, by_name = pinned(text, {"late": 1, "a": 0, "c": 1})
    assert by_name == {"late": 0, "a": 0, "c": 1}
    assert not found.notes


BODY = """g (float[2] x, bool c) => (float[2] y) {
    [first] a = Exp(x)
    [if] y = If(c)<then_branch = t () => (float[2] p) { [in] p = Exp(a) },
                   else_branch = e () => (float[2] q) { [out] q = Sqrt(a) }>
}"""


def test_a_body_belongs_to_the_stage_of_the_node_around_it() -> None:
    assert pinned(BODY, {"first": 0, "if": 1})[1] == {"first": 0, "if": 1}
    assert pinned(BODY, {"first": 0, "in": 1, "out": 1})[1] == {"first": 0, "if": 1}


@pytest.mark.parametrize("stages", [{"if": 0, "in": 1}, {"in": 0, "out": 1}])
def test_a_body_in_another_stage_is_refused(stages: dict[str, int]) -> None:
    with pytest.raises(ModelError, match=r"Node '(in|out)' in a body of node 'if'.*stage 1, and node '(if|in)' for 0"):
        pinned(BODY, stages)


def test_captured_values_may_not_go_back_either() -> None:
    with pytest.raises(ModelError, match=r"Node 'if' of pipeline stage 0 reads 'a' of node 'first' of the later"):
        pinned(BODY, {"first": 1, "if": 0})


def test_an_edge_back_names_both_nodes_and_the_value() -> None:
    with pytest.raises(ModelError) as caught:
        pinned(CHAIN, {"a": 0, "c": 2, "e": 1, "h": 2})
    assert caught.value.status == "INVALID_GRAPH"
    text = str(caught.value)
    assert "Node 'e' of pipeline stage 1 reads 'd' of node 'c' of the later stage 2" in text and "'two'" in text


def test_an_edge_back_by_way_of_nodes_without_a_stage() -> None:
    with pytest.raises(ModelError, match=r"Node 'h' of pipeline stage 0 reads 'f', which depends on node 'a' by"):
        pinned(CHAIN, {"a": 1, "h": 0})


@pytest.mark.parametrize(
    ("stages", "on", "text"),
    [
        ({"a": -1}, {}, "Node 'a' has the pipeline stage -1 in device configuration 'two'"),
        ({"a": 0}, {"a": [2]}, r"Node 'a' puts 'b' on device 2 of device configuration 'two', which has 2 \(0 to 1\)"),
        ({"a": 0}, {"a": [-1]}, "device -1"),
        ({"a": None}, {"a": [0]}, "No node has a pipeline stage for device configuration 'two'"),
        ({}, {}, "No node has a pipeline stage"),
        (
            {"a": 0, "c": 0},
            {"a": [0], "c": [1]},
            "Pipeline stage 0 of device configuration 'two' has node 'a' on cpu:0 and node 'c' on cpu:1",
        ),
    ],
)
def test_what_a_node_may_not_say(stages: dict[str, int | None], on: dict[str, list[int]], text: str) -> None:
    with pytest.raises(ModelError, match=text):
        pinned(CHAIN, stages, on=on)


def test_tensor_parallelism_is_refused() -> None:
    proto = annotate(CHAIN, {"a": 0, "c": 0}, on={"c": [0, 1]})
    spec = proto.graph.node[1].device_configurations[0].sharding_spec[0]
    spec.sharded_dim.add(axis=0).simple_sharding.add(dim_value=2, num_shards=2)
    with pytest.raises(ModelError, match=r"Node 'c' splits 'd' along axis 0 into 2 shards.*tensor parallel") as caught:
        pipeline.pin(read(proto), "annotations")
    assert caught.value.status == "NOT_IMPLEMENTED"


def test_a_sharding_of_a_tensor_that_the_node_has_not() -> None:
    proto = annotate(CHAIN, {"a": 0})
    proto.graph.node[0].device_configurations[0].sharding_spec.add(tensor_name="y", device=[0])
    with pytest.raises(ModelError, match=r"Node 'a' has a sharding of 'y'.*neither reads nor makes"):
        pipeline.pin(read(proto), "annotations")


def test_devices_that_a_stage_s_nodes_agree_on() -> None:
    found, _ = pinned(CHAIN, {"a": 0, "c": 0, "e": 1, "h": 1}, on={"a": [0, 1], "c": [1], "e": [0, 1]})
    assert found.devices == {0: (1,), 1: (0, 1)}


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        ("annotations:three", r"no device configuration 'three'. It has: two, other"),
        ("annotations", r"several device configurations. Name one, as annotations:two, of: two, other"),
    ],
)
def test_an_unknown_configuration_lists_the_known(request_: str, text: str) -> None:
    proto = annotate(CHAIN, {"a": 0})
    proto.configuration.add(name="other", num_devices=1)
    with pytest.raises(ModelError, match=text) as caught:
        pipeline.choose(read(proto), request_)
    assert caught.value.status == "INVALID_ARGUMENT"
    assert pipeline.choose(read(proto), "annotations:other").name == "other"


def test_a_model_without_configurations() -> None:
    proto = annotate(CHAIN, {})
    del proto.configuration[:]
    with pytest.raises(ModelError, match="the model has no device configuration"):
        pipeline.choose(read(proto), "annotations")


def test_pinned_stages_survive_optimization() -> None:
    text = """g (float[2,3] x) => (float[2,3] y) <float[3,2] w = {1,2,3,4,5,6}, float[2] b = {1,2}> {
        [a] k = Constant<value = float {1}>()
        [b0] i = Identity(x)
        [c] p = MatMul(i, w)
        [d] q = Add(p, b)
        [e] r = Identity(q)
        [f] s = Transpose<perm = [1, 0]>(r)
        [g] t = MatMul(q, s)
        [h] y = MatMul(t, i)
    }"""
    model = read(annotate(text, {"c": 0, "e": 2, "f": 2, "h": 3}))
    before = pipeline.pin(model, "annotations")
    assert all(annotation(node, "two") is not None for node in model.graph.nodes)
    optimize(model, "all")
    after = pipeline.after_optimization(model.graph, before)
    found = dict(zip((node.outputs[0] for node in model.graph.nodes), after.stage_of, strict=True))
    assert found == {"q": 0, "s": 2, "t": 2, "y": 3}
    assert after.notes == before.notes


def test_a_stage_that_optimization_empties_is_told() -> None:
    text = "g (float[2] x) => (float[2] y) { [a] b = Sqrt(x) [c] d = Identity(b) [e] y = Exp(d) }"
    model = read(annotate(text, {"a": 0, "c": 1, "e": 2}))
    before = pipeline.pin(model, "annotations")
    optimize(model, "all")
    after = pipeline.after_optimization(model.graph, before)
    assert after.stages == (0, 2)
    assert after.notes == ("graph optimization left no node of pipeline stage 1: 2 of 3 stages remain",)
    with pytest.raises(ModelError, match="Lower graph_optimization_level"):
        pipeline.after_optimization(model.graph, before, strict=True)
