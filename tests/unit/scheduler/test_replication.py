"""Stages on several devices: whole replicas, replicas of the slowest stage, and what was compared."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from distort.graph.ir import Graph, Node
from distort.graph.types import TensorType
from distort.scheduler.device import SHARED_MEMORY, Device, cpu, parse_devices
from distort.scheduler.errors import PlanError
from distort.scheduler.html import render
from distort.scheduler.plan import Plan
from distort.scheduler.planner import Terms, make_plan
from distort.scheduler.simulate import simulate


def chain(times_us: Sequence[float], weight_nbytes: int = 4) -> tuple[Graph, dict[int, dict[int, float]]]:
    """A chain and what its nodes take with one thread."""
    graph = Graph("chain", ["v0"], [f"v{len(times_us)}"])
    for i in range(len(times_us)):
        graph.initializers[f"w{i}"] = np.zeros(weight_nbytes // 4, np.float32)
        graph.nodes.append(Node("Op", "test", [f"v{i}", f"w{i}"], [f"v{i + 1}"], name=f"n{i}", opset=1))
    graph.types = {f"v{i}": TensorType(1, (10,)) for i in range(len(times_us) + 1)}
    return graph, {1: dict(enumerate(times_us))}


def cpus(count: int, memory_nbytes: int | None = None) -> list[Device]:
    return [cpu(i, memory_nbytes=memory_nbytes) for i in range(count)]


def plan_of(
    times_us: Sequence[float],
    devices: Sequence[Device],
    weight_nbytes: int = 4,
    *,
    objective: str = "throughput",
    strict: bool = False,
    n_stages: int | None = None,
    replicas: int | None = None,
) -> Plan:
    graph, measured = chain(times_us, weight_nbytes)
    terms = Terms(objective=objective, strict=strict, measured=measured)
    return make_plan(graph, devices, terms, n_stages=n_stages, replicas=replicas)


def check_simulated(plan: Plan) -> None:
    full = simulate(plan, n_runs=400, max_in_flight=32)
    assert full.throughput_per_s == pytest.approx(plan.predicted.throughput_per_s, rel=0.05)


def test_whole_replicas_beat_a_cut_that_does_not_balance() -> None:
    plan = plan_of([3000.0, 1000.0, 1000.0], cpus(2))
    assert len(plan.stages) == 1
    assert [device.id for device in plan.stages[0].devices] == ["cpu:0", "cpu:1"]
    assert not plan.in_process
    assert plan.predicted.bottleneck_us == pytest.approx(5040 / 2, rel=0.01)
    (note,) = [note for note in plan.notes if note.startswith("compared for throughput")]
    for part in (
        "cut, one device a stage (2 stages on 2 devices)",
        "whole replicas of the model (1 stage on 2",
        "runs/s",
    ):
        assert part in note
    check_simulated(plan)


def test_a_model_that_fits_no_device_is_cut_and_its_slowest_stage_gets_the_devices_left() -> None:
    # 3 MB of weights, 2 MB a device: no whole replicas
    plan = plan_of([500.0, 4000.0, 500.0], cpus(4, 2_100_000), weight_nbytes=1_000_000)
    slow = plan.stage_of(1)
    assert len(slow.devices) >= 2
    assert plan.predicted.bottleneck_us < 2500
    assert len({device.id for stage in plan.stages for device in stage.devices}) == sum(
        len(stage.devices) for stage in plan.stages
    )
    check_simulated(plan)


def test_an_explicit_number_of_stages_has_no_replicas_unless_asked() -> None:
    times = [500.0, 4000.0, 500.0]
    plain = plan_of(times, cpus(5), n_stages=3)
    assert [len(stage.devices) for stage in plain.stages] == [1, 1, 1]
    auto = plan_of(times, cpus(5), n_stages=3, replicas=0)
    assert [len(stage.devices) for stage in auto.stages] == [1, 3, 1]
    assert auto.predicted.throughput_per_s > 2.5 * plain.predicted.throughput_per_s
    check_simulated(auto)


def test_a_number_of_replicas_is_obeyed() -> None:
    plan = plan_of([1000.0] * 4, cpus(6), n_stages=2, replicas=3)
    assert [len(stage.devices) for stage in plan.stages] == [3, 3]
    assert len({device.id for stage in plan.stages for device in stage.devices}) == 6
    fewer = plan_of([1000.0] * 4, cpus(5), n_stages=2, replicas=3)
    assert [len(stage.devices) for stage in fewer.stages] == [2, 2]
    assert any("there are 5 devices, so each stage has 2" in note for note in fewer.notes)
    with pytest.raises(PlanError, match="3 replicas of 2 stages want 6 devices that are alike, and there are 5"):
        plan_of([1000.0] * 4, cpus(5), n_stages=2, replicas=3, strict=True)
    with pytest.raises(ValueError, match="replicas must not be negative"):
        plan_of([1000.0], cpus(1), replicas=-1)


def test_only_like_devices_take_turns() -> None:
    plan = plan_of([1000.0] * 4, parse_devices("2xcpu:1,1xcpu:8,1xcuda:80GB"), n_stages=1, replicas=2)
    assert [device.threads for device in plan.stages[0].devices] == [1, 1]


def test_replicas_make_no_run_faster_and_the_plan_says_so() -> None:
    plan = plan_of([1000.0] * 4, cpus(4), objective="latency", replicas=0)
    assert plan.in_process
    assert any("no replicas" in note for note in plan.notes)


def test_a_replica_fits_its_device_too() -> None:
    small = [cpu(0, memory_nbytes=5_000_000), cpu(1, memory_nbytes=1_000_000), cpu(2, memory_nbytes=5_000_000)]
    plan = plan_of([1000.0] * 3, small, weight_nbytes=1_000_000, n_stages=1, replicas=0)
    assert [device.id for device in plan.stages[0].devices] == ["cpu:0", "cpu:2"]


def test_replicas_are_told_in_text_json_and_html() -> None:
    graph, measured = chain([3000.0, 1000.0, 1000.0])
    plan = make_plan(graph, cpus(2), Terms(objective="throughput", measured=measured), n_stages=None)
    assert "cpu:0 (1 thread), replicas on cpu:1" in plan.to_text()
    assert "1 stage on 2 devices" in plan.explain()
    assert [device["id"] for device in plan.as_dict()["stages"][0]["replicas"]] == ["cpu:1"]
    assert "replicas on cpu:1" in render(plan, graph)


def test_a_grid_in_the_notation_of_pipelines() -> None:
    plan = plan_of([1000.0] * 2, cpus(2), n_stages=2)
    simulation = simulate(plan, n_runs=3)
    rows = [line.split() for line in simulation.grid().splitlines()]
    assert rows[0] == ["time", "cpu:0", "cpu:1"]
    assert [row[-2:] for row in rows[1:]] == [["0F0", "."], ["0F1", "1F0"], ["0F2", "1F1"], [".", "1F2"]]
    told = simulation.as_dict()
    assert (
        sorted(action["action"] for action in told["actions"]) == ["0F0", "0F1", "0F2", "1F0", "1F1", "1F2"]
        or told["actions"][0]["action"] == "0F0"
    )
    assert told["peak_nbytes"].keys() == {"cpu:0", "cpu:1"}


def test_what_goes_on_while_others_begin_is_drawn() -> None:
    simulation = simulate(plan_of([3000.0, 1000.0], cpus(2), n_stages=2), n_runs=2)
    lines = simulation.grid().splitlines()
    assert lines[2].split()[-2:] == ["0F1", "1F0"]
    assert lines[-1].split()[-1] == "1F1"


def test_the_caller_bounds_what_many_small_runs_gain() -> None:
    plan = plan_of([1.0, 1.0, 1.0], cpus(8), n_stages=1, replicas=0)
    # two messages of the caller's for each run, however many actors there are
    assert plan.predicted.bottleneck_us == pytest.approx(2 * SHARED_MEMORY.latency_us)
    assert simulate(plan, n_runs=100, max_in_flight=100).throughput_per_s <= 1.1 * plan.predicted.throughput_per_s


def test_actors_that_share_the_cores_do_no_more_than_those_can() -> None:
    graph, measured = chain([1000.0] * 4)
    many = make_plan(graph, cpus(8), Terms(measured=measured, cores=2), n_stages=2, replicas=4)
    assert many.predicted.bottleneck_us >= 4000.0 / 2
    assert any("8 actors share the 2 cores" in note for note in many.notes)
