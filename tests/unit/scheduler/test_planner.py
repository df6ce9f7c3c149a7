"""How many stages, on which devices, and what the plan says about it."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest

from distort.graph.ir import Graph, Node
from distort.graph.types import TensorType
from distort.scheduler.device import Device, Link, cpu, cuda
from distort.scheduler.errors import PlanError
from distort.scheduler.plan import CALLER, Plan
from distort.scheduler.planner import OBJECTIVES, Terms, make_plan
from distort.scheduler.simulate import simulate

GraphOf = Callable[[str], Graph]
BATCH = {"N": 1024}


def chain(n_nodes: int, width: int = 512) -> Graph:
    """MatMul after MatMul, each with a weight of its own."""
    graph = Graph("chain", ["v0"], [f"v{n_nodes}"])
    for i in range(n_nodes):
        graph.initializers[f"w{i}"] = np.zeros((width, width), np.float32)
        graph.nodes.append(Node("MatMul", "", [f"v{i}", f"w{i}"], [f"v{i + 1}"], name=f"mm{i}", opset=13))
    graph.types = {f"v{i}": TensorType(1, ("N", width)) for i in range(n_nodes + 1)}
    return graph


def fork(n_branches: int, length: int) -> Graph:
    """Branches that don't meet before their end."""
    graph = Graph("fork", ["x"], ["y"])
    ends = []
    for b in range(n_branches):
        name = "x"
        for i in range(length):
            graph.nodes.append(Node("Exp", "", [name], [f"b{b}.{i}"], name=f"exp{b}.{i}", opset=13))
            name = f"b{b}.{i}"
        ends.append(name)
    graph.nodes.append(Node("Sum", "", ends, ["y"], name="sum", opset=13))
    names = ["x", "y", *(node.outputs[0] for node in graph.nodes)]
    graph.types = dict.fromkeys(names, TensorType(1, (1_000_000,)))
    return graph


def cpus(count: int, memory_nbytes: int | None = None) -> list[Device]:
    return [cpu(i, memory_nbytes=memory_nbytes) for i in range(count)]


def check_consistent(plan: Plan, graph: Graph) -> None:
    """What consumers of a plan rely on."""
    assert sorted(node for stage in plan.stages for node in stage.nodes) == list(range(len(graph.nodes)))
    made_by = {}
    for stage in plan.stages:
        part = graph.extract(stage.nodes)
        assert stage.inputs == tuple(part.inputs)
        assert stage.outputs == tuple(part.outputs)
        assert stage.n_nodes == len(stage.node_names) == len(stage.nodes)
        assert all(plan.stage_of(node) is stage for node in stage.nodes)
        made_by.update(dict.fromkeys(stage.outputs, stage.index))
    expected = {(name, made_by.get(name, CALLER), s.index) for s in plan.stages for name in s.inputs}
    expected |= {(name, made_by[name], CALLER) for name in graph.outputs if name in made_by}
    assert {(e.value, e.producer, e.consumer) for e in plan.edges} == expected
    assert len(plan.edges) == len(expected)


def test_a_chain_stays_one_stage_for_latency_and_says_why() -> None:
    graph = chain(8)
    plan = make_plan(graph, cpus(4), Terms(dims=BATCH), n_stages=None)
    assert len(plan.stages) == 1
    check_consistent(plan, graph)
    assert {edge.transport for edge in plan.edges} == {"inproc"}
    assert any("no cut can take less than" in note for note in plan.notes)
    assert plan.predicted.latency_us == plan.predicted.single_latency_us


def test_a_chain_is_spread_for_throughput() -> None:
    graph = chain(8)
    plan = make_plan(graph, cpus(4), Terms(objective="throughput", dims=BATCH), n_stages=0, replicas=1)
    assert [stage.n_nodes for stage in plan.stages] == [2, 2, 2, 2]
    check_consistent(plan, graph)
    assert plan.predicted.throughput_per_s > 3 * 1e6 / plan.predicted.single_latency_us


def test_small_work_is_not_spread_for_throughput_either() -> None:
    plan = make_plan(chain(8, width=8), cpus(4), Terms(objective="throughput", dims={"N": 1}), n_stages=None)
    assert len(plan.stages) == 1
    assert plan.in_process
    assert any("one stage in this process: the best of the alternatives on actors" in note for note in plan.notes)


def test_branches_worth_an_actor_become_stages_for_latency() -> None:
    graph = fork(2, 40)
    plan = make_plan(graph, cpus(2), n_stages=None)
    check_consistent(plan, graph)
    sides = [{node.split(".")[0] for node in stage.node_names} - {"sum"} for stage in plan.stages]
    assert sorted(map(sorted, sides)) in ([["exp0"], ["exp1"]], [[], ["exp0"], ["exp1"]])
    assert plan.predicted.latency_us < 0.8 * plan.predicted.single_latency_us
    assert simulate(plan).latencies_us[0] == pytest.approx(plan.predicted.latency_us)
    assert any("branches side by side" in note for note in plan.notes)


def test_branches_of_a_few_transfers_time_stay_together() -> None:
    assert len(make_plan(fork(2, 1), cpus(2), n_stages=None).stages) == 1


def test_memory_is_spread_where_that_is_asked_for() -> None:
    graph = chain(8)
    plan = make_plan(graph, cpus(4), Terms(objective="memory", dims={"N": 4}), n_stages=None)
    assert [stage.n_nodes for stage in plan.stages] == [2, 2, 2, 2]
    uneven = chain(6)
    uneven.initializers["w0"] = np.zeros((512, 2048), np.float32)
    split = make_plan(uneven, cpus(2), Terms(objective="memory", dims={"N": 4}), n_stages=2)
    # 4 + 1 + 1 … 1: half of the bytes is in the first two
    assert max(s.peak_nbytes for s in split.stages) < 5.2 * 512 * 512 * 4


@pytest.mark.parametrize("n_stages", [1, 2, 3, 8])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_number_of_stages_is_obeyed(n_stages: int, objective: str) -> None:
    graph = chain(8, width=16)
    plan = make_plan(graph, cpus(3), Terms(objective=objective, dims={"N": 2}), n_stages=n_stages)
    assert len(plan.stages) == n_stages
    check_consistent(plan, graph)
    assert any("asked for" in note for note in plan.notes)
    if n_stages == 8:
        assert any("8 stages on 3 devices" in note for note in plan.notes)


def test_fewer_nodes_than_stages() -> None:
    plan = make_plan(chain(2), cpus(4), Terms(dims=BATCH), n_stages=4)
    assert len(plan.stages) == 2
    assert any("just 2 nodes" in note for note in plan.notes)
    with pytest.raises(PlanError, match=r"just 2 nodes.*stage2"):
        make_plan(chain(2), cpus(4), Terms(dims=BATCH, strict=True), n_stages=4)


def test_strict_refuses_stages_that_share_a_device() -> None:
    with pytest.raises(PlanError, match="stage2 would share cpu:1"):
        make_plan(chain(4), cpus(2), Terms(dims=BATCH, strict=True), n_stages=3)


def test_a_model_too_large_for_one_device_is_spread() -> None:
    weight = 512 * 512 * 4
    graph = chain(8)
    plan = make_plan(graph, cpus(4, memory_nbytes=5 * weight), Terms(dims={"N": 1}), n_stages=None)
    assert len(plan.stages) == 2
    assert any("one stage wants" in note for note in plan.notes)
    check_consistent(plan, graph)


def test_a_plan_that_fits_nowhere_names_stage_bytes_budget_and_remedy() -> None:
    with pytest.raises(PlanError) as raised:
        make_plan(chain(2), cpus(2, memory_nbytes=1000), Terms(dims={"N": 1}), n_stages=2)
    text = str(raised.value)
    for part in ("stage0", str(512 * 512 * 4 + 2 * 4 * 512), "cpu:0", "1000 bytes", "more memory"):
        assert part in text
    with pytest.raises(PlanError, match="stage0, stage1 share the device"):
        make_plan(chain(2), cpus(1, memory_nbytes=1_500_000), Terms(dims={"N": 1}), n_stages=2)


def test_arguments_that_make_no_sense() -> None:
    with pytest.raises(ValueError, match="unknown objective 'speed'; known are latency, throughput, memory"):
        make_plan(chain(1), cpus(1), Terms(objective="speed"), n_stages=None)
    with pytest.raises(ValueError, match="at least one device"):
        make_plan(chain(1), [], n_stages=None)
    with pytest.raises(ValueError, match="negative"):
        make_plan(chain(1), cpus(1), n_stages=-1)


def test_outputs_that_no_node_makes_belong_to_no_stage(graph_of: GraphOf) -> None:
    graph = graph_of("g (float[2] x) => (float[2] y, float[2] x, float[2] w) <float[2] w = {1, 2}> { y = Add(x, w) }")
    plan = make_plan(graph, cpus(2), n_stages=2)
    check_consistent(plan, graph)
    assert any("belong to no stage: x, w" in note for note in plan.notes)
    empty = graph_of("g (float[2] x) => (float[2] x) { }")
    assert make_plan(empty, cpus(2), n_stages=None).stages == ()
    assert "no nodes" in make_plan(empty, cpus(2), n_stages=None).explain()


def test_captured_values_and_overridable_initializers_are_inputs(graph_of: GraphOf) -> None:
    graph = graph_of(
        """g (bool c, float[2] x, float[2] d) => (float[2] y) <float[2] w = {1, 2}, float[2] d = {3, 4}> {
            a = Exp(x)
            y = If (c) <
                then_branch = t () => (float[2] p) { p = Add(a, w) },
                else_branch = e () => (float[2] q) { q = Add(a, d) }
            >
        }"""
    )
    assert graph.defaults == ["d"]
    plan = make_plan(graph, cpus(2), n_stages=2)
    check_consistent(plan, graph)
    assert set(plan.stages[1].inputs) == {"c", "a", "d"}
    assert plan.stages[1].weights_nbytes == 8


def test_weights_that_stages_share_are_told(graph_of: GraphOf) -> None:
    graph = graph_of("g (float[2] x) => (float[2] y) <float[2] w = {1, 2}> { a = Mul(x, w) y = Mul(a, w) }")
    plan = make_plan(graph, cpus(2), n_stages=2)
    assert any("8 B more: w" in note for note in plan.notes)


def test_the_preferred_device_is_not_taken_where_another_is_much_faster() -> None:
    plan = make_plan(chain(4), [cpu(0), cuda(0)], Terms(dims=BATCH), n_stages=None)
    assert [stage.device.id for stage in plan.stages] == ["cuda:0"]


@pytest.mark.parametrize("graph", [chain(5), fork(3, 2)], ids=["chain", "fork"])
@pytest.mark.parametrize("n_stages", [1, 2, 3])
def test_predictions_are_what_the_simulation_measures(graph: Graph, n_stages: int) -> None:
    link = Link(100.0, 1.0)
    plan = make_plan(graph, cpus(3), Terms(dims=BATCH, link=link), n_stages=n_stages)
    links = {"object_store": link}
    assert simulate(plan, links=links).latencies_us[0] == pytest.approx(plan.predicted.latency_us)
    full = simulate(plan, n_runs=200, max_in_flight=8, links=links)
    assert full.throughput_per_s == pytest.approx(plan.predicted.throughput_per_s, rel=0.05)


def test_plans_are_deterministic_and_plain_data() -> None:
    first = make_plan(fork(3, 3), cpus(3), Terms(model_name="fork.onnx"), n_stages=3)
    assert first == make_plan(fork(3, 3), cpus(3), Terms(model_name="fork.onnx"), n_stages=3)
    read = json.loads(first.to_json())
    assert read == first.as_dict()
    assert read["stages"][1]["device"]["id"] == "cpu:1"
    assert read["predicted"]["latency_us"] == first.predicted.latency_us
