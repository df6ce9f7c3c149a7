"""What nodes cost: flops, bytes, overhead; sizes of values; control flow."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from distort.graph.ir import Graph
from distort.scheduler.cost import NODE_OVERHEAD_US, STRING_NBYTES, CostModel
from distort.scheduler.device import Device, cpu, format_nbytes, format_us, parse_devices

GraphOf = Callable[[str], Graph]


def test_matmul_and_relu(graph_of: GraphOf) -> None:
    zeros = ", ".join(["0"] * 64 * 32)
    graph = graph_of(
        f"g (float[N, 64] x) => (float[N, 32] y) <float[64, 32] w = {{{zeros}}}> {{ h = MatMul(x, w) y = Relu(h) }}"
    )
    costs = CostModel(graph, {"N": 10})
    matmul, relu = costs.work
    assert matmul.flops == 2 * 10 * 64 * 32
    assert matmul.nbytes == 4 * (10 * 64 + 64 * 32 + 10 * 32)
    assert relu.flops == 10 * 32
    assert costs.value_nbytes("h") == 4 * 10 * 32
    assert costs.weights_nbytes(["w", "x", "w"]) == 4 * 64 * 32


def test_a_node_takes_the_slower_of_arithmetic_and_memory(graph_of: GraphOf) -> None:
    graph = graph_of("g (float[1000] x) => (float[1000] y) { y = Relu(x) }")
    costs = CostModel(graph)
    slow_memory = Device("cpu:0", "cpu", 0, 1, None, gflops=1000.0, gbytes_per_s=0.001)
    slow_arithmetic = Device("cpu:0", "cpu", 0, 1, None, gflops=0.001, gbytes_per_s=1000.0)
    overhead = NODE_OVERHEAD_US["cpu"]
    assert costs.node_cost_us(0, slow_memory) == pytest.approx(8000 / 1.0 + overhead)
    assert costs.node_cost_us(0, slow_arithmetic) == pytest.approx(1000 / 1.0 + overhead)


def test_measured_time_wins(graph_of: GraphOf) -> None:
    graph = graph_of("g (float[10] x) => (float[10] y) { y = Relu(x) }")
    costs = CostModel(graph, measured={1: {0: 77.0}, 4: {0: 20.0}})
    assert costs.node_cost_us(0, cpu()) == 77.0
    assert costs.node_cost_us(0, cpu(threads=4)) == 20.0
    # between the two, no slower than with fewer threads; with one thread more, no faster than the estimates are
    assert costs.node_cost_us(0, cpu(threads=2)) <= 77.0
    assert 10.0 <= costs.node_cost_us(0, cpu(threads=8)) <= 20.0
    # a machine that was busy while more threads were measured
    busy = CostModel(graph, measured={1: {0: 77.0}, 2: {0: 900.0}})
    assert busy.node_cost_us(0, cpu(threads=2)) == 77.0
    assert "measured on this machine with 1, 4 threads, and scaled to 8" in costs.basis(cpu(threads=8))


def test_measured_bytes_win(graph_of: GraphOf) -> None:
    graph = graph_of("g (float[N] x) => (float[N] y) { y = Relu(x) }")
    costs = CostModel(graph, measured_nbytes={"y": 4000})
    assert (costs.value_nbytes("x"), costs.value_nbytes("y")) == (4, 4000)


def test_unknown_dimensions_count_as_one_and_are_named(graph_of: GraphOf) -> None:
    graph = graph_of("g (float[N, 8] x) => (float[N, 8] y) { y = Relu(x) }")
    costs = CostModel(graph)
    assert costs.value_nbytes("x") == 32
    assert costs.unknown_values == ("x",)
    assert costs.value_nbytes("nothing of that name") is None


def test_strings_count_a_guess_each(graph_of: GraphOf) -> None:
    graph = graph_of("g (string[5] x) => (string[5] y) { y = Identity(x) }")
    assert CostModel(graph).value_nbytes("x") == 5 * STRING_NBYTES


def test_a_loop_costs_its_trips_and_an_if_its_dearer_branch(graph_of: GraphOf) -> None:
    loop = graph_of(
        """g (float[100] x) => (float[100] y) <int64 n = {50}, bool go = {1}> {
            y = Loop (n, go, x) <body = b (int64 i, bool c, float[100] a) => (bool d, float[100] o) {
                d = Identity(c)
                o = Exp(a)
            }>
        }"""
    )
    once = CostModel(graph_of("g (float[100] x) => (float[100] y) { y = Exp(x) }")).work[0]
    assert CostModel(loop).work[0].flops == pytest.approx(50 * once.flops)
    branches = graph_of(
        """g (bool c, float[100] x) => (float[100] y) {
            y = If (c) <
                then_branch = t () => (float[100] p) { p = Exp(x) },
                else_branch = e () => (float[100] q) { q = Relu(x) }
            >
        }"""
    )
    assert CostModel(branches).work[0].flops == pytest.approx(once.flops)


def test_devices_from_text() -> None:
    found = parse_devices("2xcpu:4:16GB, cuda:80GB")
    assert [d.id for d in found] == ["cpu:0", "cpu:1", "cuda:0"]
    assert found[0].threads == 4 and found[0].memory_nbytes == 16 * 10**9
    assert found[2].memory_nbytes == 80 * 10**9
    for wrong in ("tpu", "2xcpu:4;cpu", "cuda:4", "cpu:0", ""):
        with pytest.raises(ValueError, match="devices"):
            parse_devices(wrong)


def test_figures_for_people() -> None:
    assert [format_us(t) for t in (850, 1200, 3e6)] == ["850 µs", "1.2 ms", "3 s"]
    assert [format_nbytes(n) for n in (None, 12, 1500, 2.5e9)] == ["?", "12 B", "1.5 KB", "2.5 GB"]
