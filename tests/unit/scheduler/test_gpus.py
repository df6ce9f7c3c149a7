"""GPUs in plans: what they can do, the links between them, one stage each, nodes that they can't run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from distort.graph.ir import Graph
from distort.scheduler.cost import CostModel
from distort.scheduler.dag import Dag
from distort.scheduler.device import (
    CUDA_IPC,
    GPU_TO_HOST,
    HOST_TO_GPU,
    INPROC,
    LINKS,
    NCCL,
    RAY_CALLS,
    SHARED_MEMORY,
    cpu,
    cuda,
    parse_devices,
)
from distort.scheduler.gpus import SLOT_NBYTES, USUAL, figures_of
from distort.scheduler.partition import Partitioner
from distort.scheduler.planner import Terms, make_plan, plan_of_stages
from distort.scheduler.simulate import simulate

GraphOf = Callable[[str], Graph]
WEIGHT = 2048


def products(graph_of: GraphOf, n: int, element: str = "float", rows: int = 512) -> Graph:
    """A chain of products with weights of WEIGHT × WEIGHT."""
    nodes = " ".join(f"v{i + 1} = MatMul(v{i}, w{i})" for i in range(n))
    feeds = ", ".join(f"{element}[{WEIGHT},{WEIGHT}] w{i}" for i in range(n))
    graph = graph_of(f"g ({element}[{rows},{WEIGHT}] v0, {feeds}) => ({element}[{rows},{WEIGHT}] v{n}) {{ {nodes} }}")
    dtype = np.float16 if element == "float16" else np.float32
    for i in range(n):
        graph.inputs.remove(f"w{i}")
        graph.initializers[f"w{i}"] = np.zeros((WEIGHT, WEIGHT), dtype)
    return graph


@pytest.mark.parametrize(
    ("name", "memory"),
    [
        ("NVIDIA H200", 141),
        ("NVIDIA H100 80GB HBM3", 80),
        ("NVIDIA A100-SXM4-40GB", 40),
        ("NVIDIA A10G", 24),
        ("NVIDIA A10", 24),
        ("NVIDIA L40S", 48),
        ("NVIDIA L4", 24),
        ("Tesla T4", 16),
        ("NVIDIA GeForce RTX 4090", 24),
        ("H100", 80),
    ],
)
def test_a_gpu_is_known_by_its_name(name: str, memory: int) -> None:
    assert figures_of(name).memory_gbytes == memory


def test_names_that_begin_alike_are_told_apart() -> None:
    assert figures_of("NVIDIA H100 PCIe") != figures_of("NVIDIA H100 80GB HBM3")
    assert figures_of("A100").tflops == 19.5 != figures_of("A10").tflops != figures_of("L40").tflops


def test_an_unknown_name_counts_by_its_capability_and_nothing_as_a_usual_gpu() -> None:
    assert figures_of("NVIDIA X1", (9, 0)) == figures_of("H100")._replace(peer_gbytes_per_s=25)
    assert figures_of("NVIDIA X1", (8, 7)) == figures_of("A10")
    assert figures_of("NVIDIA X1", (3, 5)) == figures_of() == USUAL


def test_products_take_the_roof_of_their_element(graph_of: GraphOf) -> None:
    device = cuda(figures=figures_of("H100"))
    exact = cuda(figures=figures_of("H100"), tf32=False)
    single = CostModel(products(graph_of, 1)).node_cost_us(0, device)
    half = CostModel(products(graph_of, 1, "float16")).node_cost_us(0, device)
    flops = 2 * 512 * WEIGHT * WEIGHT
    assert single == pytest.approx(flops / (0.5 * 494e6) + 8, rel=0.01)
    assert half == pytest.approx(flops / (0.5 * 989e6) + 8, rel=0.01)
    assert CostModel(products(graph_of, 1)).node_cost_us(0, exact) == pytest.approx(flops / (0.5 * 67e6) + 8, rel=0.01)


def test_what_moves_memory_takes_the_memorys_roof_and_a_view_nothing(graph_of: GraphOf) -> None:
    graph = graph_of("g (float[4096,4096] x, int64[1] s) => (float[16777216] y) { a = Relu(x) y = Reshape(a, s) }")
    costs = CostModel(graph)
    device = cuda(figures=figures_of("H100"))
    assert costs.node_cost_us(0, device) == pytest.approx(2 * 4 * 4096**2 / (0.8 * 3350e3) + 8)
    assert costs.node_cost_us(1, device) == 0


def test_links_are_by_kind_and_host() -> None:
    one, other, far = cuda(0), cuda(1), cuda(2, host="b")
    share = cpu(0)
    assert LINKS.between(one, one) is INPROC
    assert LINKS.between(one, other) == CUDA_IPC
    assert LINKS.between(one, far) is LINKS.between(far, one) is NCCL
    assert LINKS.between(share, far) is RAY_CALLS is LINKS.between(None, far)
    assert replace(LINKS, between_far_gpus=RAY_CALLS).between(one, far) is RAY_CALLS
    assert LINKS.between(None, one) is HOST_TO_GPU is LINKS.between(share, one)
    assert LINKS.between(one, None) is GPU_TO_HOST is LINKS.between(one, share)
    assert LINKS.between(share, None) is SHARED_MEMORY
    joined = [cuda(i, figures=figures_of("H100")) for i in range(2)]
    assert LINKS.between(*joined).gbytes_per_s == 450
    assert LINKS.between(joined[0], other).gbytes_per_s == min(450, other.peer_gbytes_per_s)


def test_a_cut_over_gpus_takes_one_of_each_and_says_how_values_go(graph_of: GraphOf) -> None:
    plan = make_plan(products(graph_of, 8, rows=8), [cuda(0), cuda(1)], n_stages=2)
    assert [stage.device.id for stage in plan.stages] == ["cuda:0", "cuda:1"]
    assert [stage.n_nodes for stage in plan.stages] == [4, 4]
    assert [edge.transport for edge in plan.edges] == ["h2d", "cuda_ipc", "d2h"]
    assert simulate(plan).latencies_us[0] == pytest.approx(plan.predicted.latency_us)


def test_more_stages_than_gpus_are_as_many_as_gpus(graph_of: GraphOf) -> None:
    plan = make_plan(products(graph_of, 8, rows=8), [cuda(0), cuda(1)], n_stages=5)
    assert [stage.n_nodes for stage in plan.stages] == [4, 4]
    assert any("what a GPU runs is one stage, so there are 2" in note for note in plan.notes)


def test_one_gpu_in_this_process_pays_for_copies(graph_of: GraphOf) -> None:
    plan = make_plan(products(graph_of, 2), [cuda(0)], n_stages=None)
    assert plan.in_process
    assert [edge.transport for edge in plan.edges] == ["h2d", "d2h"]
    assert plan.predicted.latency_us > plan.stages[0].cost_us + 2 * 15
    assert simulate(plan).latencies_us[0] == pytest.approx(plan.predicted.latency_us)


def test_stages_that_somebody_put_on_one_gpu_are_joined_but_around_another_device(graph_of: GraphOf) -> None:
    graph = products(graph_of, 4)
    plan = plan_of_stages(graph, [0, 1, 2, 2], [cuda(0), cuda(0), cuda(1)], why="were given")
    assert [(stage.device.id, stage.n_nodes) for stage in plan.stages] == [("cuda:0", 2), ("cuda:1", 2)]
    assert any("3 stages are 2: those of one GPU are joined" in note for note in plan.notes)
    plan = plan_of_stages(graph, [0, 1, 2, 2], [cuda(0), cpu(0), cuda(0)], why="were given")
    assert [stage.device.id for stage in plan.stages] == ["cuda:0", "cpu:0", "cuda:0"]
    plan = plan_of_stages(graph, [0, 1, 2, 2], [cuda(0), cuda(0), cuda(1)], Terms(strict=True), why="were given")
    assert len(plan.stages) == 3


def test_branches_on_one_gpu_are_joined_past_a_stage_that_depends_on_neither(graph_of: GraphOf) -> None:
    graph = graph_of("g (float[8] x) => (float[8] a, float[8] b, float[8] c) { a = Exp(x) b = Sin(x) c = Cos(x) }")
    plan = plan_of_stages(graph, [0, 1, 2], [cuda(0), cpu(0), cuda(0)], why="were given")
    assert {stage.device.id: stage.n_nodes for stage in plan.stages} == {"cuda:0": 2, "cpu:0": 1}


def strange(graph_of: GraphOf) -> Graph:
    """Work that no GPU is said to run before, amid and after a product."""
    size = f"float[4096,{WEIGHT}]"
    graph = graph_of(
        f"g ({size} x, float[{WEIGHT},{WEIGHT}] w) => ({size} y) "
        "{ a = Exp(x) b = MatMul(a, w) c = Sin(b) d = MatMul(c, w) y = Cos(d) }"
    )
    graph.inputs.remove("w")
    graph.initializers["w"] = np.zeros((WEIGHT, WEIGHT), np.float32)
    return graph


def test_nodes_that_no_gpu_runs_cost_what_the_host_takes_and_two_copies(graph_of: GraphOf) -> None:
    graph = strange(graph_of)
    costs = CostModel(graph, on_host=frozenset({0}))
    nbytes = 4096 * WEIGHT * 4
    copies_us = 2 * 15 + nbytes / 12e3 + nbytes / 8e3
    assert costs.node_cost_us(0, cuda(0)) == pytest.approx(costs.node_cost_us(0, cpu()) + copies_us)
    assert costs.node_cost_us(2, cuda(0)) < 1000


def test_what_no_gpu_runs_is_on_the_cpu_before_and_after_for_throughput(graph_of: GraphOf) -> None:
    graph = strange(graph_of)
    terms = Terms("throughput", on_host=frozenset({0, 2, 4}), host=cpu(0))
    plan = make_plan(graph, [cuda(0)], terms, n_stages=1)
    assert [stage.device.id for stage in plan.stages] == ["cpu:0", "cuda:0", "cpu:1"]
    assert plan.stages[0].nodes == (0,) and plan.stages[2].nodes == (4,)
    assert any("1 node that no GPU runs here are on the CPU" in note and "Sin" in note for note in plan.notes)


def test_what_no_gpu_runs_stays_in_its_stage_where_there_is_no_gain(graph_of: GraphOf) -> None:
    graph = graph_of("g (float[8] x) => (float[8] y) { a = Exp(x) y = Sin(a) }")
    terms = Terms("latency", on_host=frozenset({0}), host=cpu(0))
    plan = make_plan(graph, [cuda(0)], terms, n_stages=1)
    assert [stage.device.id for stage in plan.stages] == ["cuda:0"]
    assert any("Exp" in note for note in plan.notes)


def test_devices_as_text_are_usual_gpus() -> None:
    first, second, third = parse_devices("2xcuda:80GB,1xcpu:4")
    assert (first.id, first.memory_nbytes, first.gflops) == ("cuda:0", 80 * 10**9, USUAL.gflops)
    assert second.id == "cuda:1" and third.threads == 4


def test_between_gpus_of_different_hosts_values_go_by_nccl_as_the_plan_has_it(graph_of: GraphOf) -> None:
    plan = make_plan(products(graph_of, 4, rows=8), [cuda(0, host="a"), cuda(1, host="b")], n_stages=2)
    (edge,) = [edge for edge in plan.edges if edge.between_stages]
    assert edge.transport == "nccl"
    assert any("stage0 → stage1" in note and "NCCL" in note and "object store" in note for note in plan.notes)
    assert simulate(plan).latencies_us[0] > NCCL.latency_us
    near = make_plan(products(graph_of, 4, rows=8), [cuda(0, host="a"), cuda(1, host="a")], n_stages=2)
    assert not any("different hosts" in note for note in near.notes)


def test_devices_as_text_may_be_known_gpus() -> None:
    first, second, third = parse_devices("2xh100,1xa10g:8GB@b")
    assert (first.id, second.id, first.memory_nbytes) == ("cuda:0", "cuda:1", 80 * 10**9)
    assert first.gflops == figures_of("H100").gflops
    assert (third.id, third.memory_nbytes, third.host) == ("cuda:2", 8 * 10**9, "b")
    assert parse_devices("2xa100-40g")[0].memory_nbytes == 40 * 10**9
    with pytest.raises(ValueError, match="can't read '2xh99'"):
        parse_devices("2xh99")


def test_values_for_other_gpus_count_as_memory_of_their_own(graph_of: GraphOf) -> None:
    """As much again, in pieces of 2 MiB, where there is room: but not what goes to a CPU, or to the caller."""
    graph = products(graph_of, 2, rows=1000)
    dag = Dag(graph, CostModel(graph))
    value = 1000 * WEIGHT * 4
    exported = {}
    for name, second in {"gpu": cuda(1), "cpu": cpu(0)}.items():
        partition = Partitioner(dag, [cuda(0), second], [[1.0, 1.0]] * 2, LINKS).partition((0, 1), 2)
        exported[name] = [load.peak_nbytes - load.least_nbytes for load in partition.loads]
    assert exported == {"gpu": [-(-value // SLOT_NBYTES) * SLOT_NBYTES, 0], "cpu": [0, 0]}


def test_a_plan_says_where_values_have_no_room_for_other_gpus(graph_of: GraphOf) -> None:
    graph = products(graph_of, 2, rows=1024)
    needed = WEIGHT * WEIGHT * 4 + 2 * 1024 * WEIGHT * 4
    told = {}
    for memory in (needed, 2 * needed):
        devices = [cuda(index, memory_nbytes=memory) for index in (0, 1)]
        notes = plan_of_stages(graph, [0, 1], devices, why="were given").notes
        told[memory] = [note for note in notes if "by the host's memory" in note]
    assert len(told[needed]) == 1 and told[needed][0].startswith("cuda:0: ") and not told[2 * needed]
