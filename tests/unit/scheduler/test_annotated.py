"""Plans from annotations, annotations from plans."""

from __future__ import annotations

from typing import Any

import onnx
import pytest

from distort.graph import pipeline, reader
from distort.graph.annotations import Configuration
from distort.graph.inference import infer
from distort.graph.ir import Model
from distort.scheduler.annotated import annotated_model, device_ids, n_cpus, plan_annotated
from distort.scheduler.device import cpu, cuda
from distort.scheduler.errors import PlanError
from distort.scheduler.plan import Plan
from distort.scheduler.planner import Terms, make_plan

from ...annotated_models import annotate

CHAIN = "g (float[2,64] x) => (float[2,64] y) { [a] b = Sqrt(x) [c] d = Exp(b) [e] f = Neg(d) [h] y = Exp(f) }"
DEVICES = (cpu(0), cpu(1), cuda(0))


def read(proto: Any) -> Model:
    model = reader.load(proto.SerializeToString())
    infer(model)
    return model


def planned(model: Model, request: str = "annotations", strict: bool = False, **more: Any) -> Plan:
    devices = more.pop("devices", DEVICES)
    return plan_annotated(model.graph, pipeline.pin(model, request), devices, Terms(strict=strict), **more)


def placed(plan: Plan) -> list[tuple[tuple[str, ...], str]]:
    return [(stage.node_names, stage.device.id) for stage in plan.stages]


def test_stages_and_devices_are_the_model_s() -> None:
    model = read(annotate(CHAIN, {"a": 0, "c": 0, "e": 0, "h": 1}, on={"a": [1], "h": [0]}))
    plan = planned(model)
    assert placed(plan) == [(("a", "c", "e"), "cpu:1"), (("h",), "cpu:0")]
    assert [(e.value, e.producer, e.consumer) for e in plan.edges if e.between_stages] == [("f", 0, 1)]
    assert "2 stages are what the model is annotated with (device configuration 'two')" in plan.explain()
    assert "the best of those tried" not in plan.explain()
    assert plan.predicted.latency_us > plan.predicted.single_latency_us > 0


def test_stages_are_numbered_without_gaps() -> None:
    plan = planned(read(annotate(CHAIN, {"a": 2, "c": 2, "e": 5, "h": 5})))
    assert placed(plan) == [(("a", "c"), "cpu:0"), (("e", "h"), "cpu:1")]
    assert any("pipeline stages 2, 5 are numbered from 0" in note for note in plan.notes)


def test_branches_of_one_stage_each() -> None:
    text = "g (float[2] x) => (float[2] y) { [a] b = Exp(x) [c] d = Sqrt(x) [e] f = Neg(b) [h] y = Add(f, d) }"
    plan = planned(read(annotate(text, {"a": 1, "c": 0, "e": 1, "h": 1})))
    assert [stage.node_names for stage in plan.stages] == [("c",), ("a", "e", "h")]


@pytest.mark.parametrize(
    ("names", "ids"),
    [
        (("cpu:0", "cuda:1"), ("cpu:0", "cuda:1")),
        (("CPU:3", "GPU:0"), ("cpu:3", "cuda:0")),
        (("CPU", "CUDA", "CPU"), ("cpu:0", "cuda:0", "cpu:1")),
        (("left", "cpu:0"), ("", "cpu:0")),
        ((), ("", "")),
    ],
)
def test_names_of_devices(names: tuple[str, ...], ids: tuple[str, ...]) -> None:
    assert device_ids(Configuration("p", len(names) or 2, names)) == ids


@pytest.mark.parametrize(
    ("devices", "wanted", "n"),
    [(("cuda:0", "cpu:3"), ["cuda:0", "cpu:3"], 4), (("left", "right"), ["cpu:0", "cpu:1"], 2)],
)
def test_devices_by_name_else_by_position(devices: tuple[str, ...], wanted: list[str], n: int) -> None:
    model = read(annotate(CHAIN, {"a": 0, "h": 1}, devices=devices))
    found = pipeline.pin(model, "annotations")
    assert n_cpus(found) == n
    plan = plan_annotated(model.graph, found, [*(cpu(i) for i in range(n)), cuda(0)])
    assert [stage.device.id for stage in plan.stages] == wanted


@pytest.mark.parametrize(
    ("devices", "text"),
    [
        (
            ("cpu:0", "cuda:7"),
            r"stage1 \(pipeline stage 1 of .*'two'\) is annotated for cuda:7.*not here.*cpu:0, cpu:1, cuda:0",
        ),
        (("a", "b", "c", "d"), "annotated for d, and the device at position 3 is not here"),
    ],
)
def test_a_device_that_is_not_here(devices: tuple[str, ...], text: str) -> None:
    with pytest.raises(PlanError, match=text):
        planned(read(annotate(CHAIN, {"a": 0, "h": 1}, devices=devices, on={"h": [len(devices) - 1]})))


def test_fewer_devices_than_stages_are_shared_and_told() -> None:
    stages = {"a": 0, "c": 1, "e": 2, "h": 3}
    plan = planned(read(annotate(CHAIN, stages)))
    assert [stage.device.id for stage in plan.stages] == ["cpu:0", "cpu:0", "cpu:1", "cpu:1"]
    assert "stage0, stage1 share cpu:0, and wait for each other" in plan.notes
    with pytest.raises(PlanError, match="stage0, stage1 share cpu:0"):
        planned(read(annotate(CHAIN, stages)), strict=True)


def test_copies_on_several_devices_are_replicas() -> None:
    stages, on = {"a": 0, "c": 0, "e": 1, "h": 1}, {"a": [2], "e": [1, 0, 2], "h": [0, 1]}
    model = read(annotate(CHAIN, stages, on=on, devices=("cpu:0", "cpu:1", "cuda:0")))
    plan = planned(model, strict=True)
    assert [[device.id for device in stage.devices] for stage in plan.stages] == [["cuda:0"], ["cpu:1", "cpu:0"]]
    assert "stage1 is annotated for copies on cpu:1, cpu:0: runs take turns" in plan.notes
    again = planned(read(plan.to_onnx(model)), "annotations:distort")
    assert [stage.devices for stage in again.stages] == [stage.devices for stage in plan.stages]


def test_another_number_of_stages_is_refused() -> None:
    model = read(annotate(CHAIN, {"a": 0, "h": 1}))
    with pytest.raises(PlanError, match=r"3 stages are asked for.*'two' of the model has 2 \(pipeline stages 0, 1\)"):
        planned(model, n_stages=3)
    assert len(planned(model, n_stages=2).stages) == 2
    with pytest.raises(PlanError, match=r"2 replicas are asked for.*'two' of the model has 1, 1 by stage"):
        planned(model, replicas=2)
    assert len(planned(model, replicas=1).stages) == 2


def test_a_stage_that_does_not_fit_its_device() -> None:
    model = read(annotate(CHAIN, {"a": 0, "h": 1}))
    with pytest.raises(PlanError, match=r"stage0 wants .* bytes .*cpu:0 has 16 bytes"):
        planned(model, devices=(cpu(0, memory_nbytes=16), cpu(1)))


def test_a_plan_comes_back_from_its_model() -> None:
    model = read(annotate(CHAIN, {}))
    plan = make_plan(model.graph, DEVICES, Terms(model_name="chain"), n_stages=3)
    proto = plan.to_onnx(model, configuration="chosen")
    onnx.checker.check_model(proto, full_check=True)
    assert proto.ir_version == 11
    assert [item.name for item in proto.configuration] == ["two", "chosen"]
    again = planned(read(proto), "annotations:chosen")
    assert placed(again) == placed(plan)
    assert again.edges == plan.edges
    assert again.to_onnx(proto, configuration="chosen") == proto


def test_the_ir_version_is_raised_and_never_lowered() -> None:
    for version, written in ((8, 11), (12, 12)):
        model = read(annotate(f'<ir_version: {version}, opset_import: ["" : 21]> {CHAIN}', {}))
        plan = make_plan(model.graph, DEVICES, n_stages=2)
        assert annotated_model(plan, model).ir_version == written


def test_a_plan_of_another_graph_is_refused() -> None:
    model = read(annotate(CHAIN, {}))
    plan = make_plan(model.graph, DEVICES, Terms(model_name="chain"), n_stages=2)
    other = read(annotate("other (float[2] x) => (float[2] y) { [a] b = Sqrt(x) [c] y = Exp(b) }", {}))
    with pytest.raises(ValueError, match="the plan of chain cuts another graph than other"):
        plan.to_onnx(other)


def test_one_stage_needs_no_actor_unless_it_is_asked_for() -> None:
    stages, on = {"a": 0, "h": 0}, {"a": [0]}
    model = read(annotate(CHAIN, stages, on=on, devices=("cpu:0",)))
    assert planned(model).in_process
    assert not planned(model, n_stages=1).in_process
    elsewhere = (cpu(0, host="there"), cpu(1, host="there"))
    assert not planned(model, devices=elsewhere).in_process
    assert not planned(read(annotate(CHAIN, stages, devices=("cuda:0",)))).in_process
