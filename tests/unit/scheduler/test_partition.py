"""Cuts: valid, balanced, exact about what crosses and what a stage holds."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from distort.graph.ir import Graph, Node
from distort.graph.types import TensorType
from distort.scheduler.cost import CostModel
from distort.scheduler.dag import Dag, orders
from distort.scheduler.device import Link, cpu
from distort.scheduler.partition import Partition, Partitioner, is_valid

GraphOf = Callable[[str], Graph]
LINK = Link(latency_us=10.0, gbytes_per_s=1.0)


def partitioner_of(
    graph: Graph, n_devices: int, node_us: Sequence[float] | None = None, memory_nbytes: int | None = None
) -> Partitioner:
    devices = [cpu(i, memory_nbytes=memory_nbytes) for i in range(n_devices)]
    costs = CostModel(graph)
    times = node_us or [costs.node_cost_us(i, devices[0]) for i in range(len(graph.nodes))]
    return Partitioner(Dag(graph, costs), devices, [times] * n_devices, LINK)


def random_graph(rng: random.Random, n_nodes: int) -> Graph:
    graph, values = Graph("g", ["x"]), ["x"]
    graph.types["x"] = TensorType(1, (rng.randint(1, 50),))
    for i in range(n_nodes):
        inputs = rng.sample(values, min(len(values), rng.randint(1, 3)))
        outputs = [f"v{i}.{k}" for k in range(rng.randint(1, 2))]
        graph.nodes.append(Node("Op", "test", inputs, outputs, name=f"n{i}"))
        for name in outputs:
            graph.types[name] = TensorType(1, (rng.randint(1, 500),))
        values += outputs
    graph.outputs = rng.sample(values[1:], 2)
    return graph


def test_a_chain_is_cut_as_well_as_brute_force_does() -> None:
    rng = random.Random(3)
    for _ in range(5):
        times = [float(rng.randint(1, 100)) for _ in range(9)]
        graph = Graph("chain", ["v0"], ["v9"])
        graph.nodes = [Node("Op", "test", [f"v{i}"], [f"v{i + 1}"]) for i in range(9)]
        graph.types = {f"v{i}": TensorType(1, (rng.randint(1, 20000),)) for i in range(10)}
        partitioner = partitioner_of(graph, 3, times)
        every = []
        for cuts in itertools.combinations(range(1, 9), 2):
            stage_of = [sum(node >= cut for cut in cuts) for node in range(9)]
            every.append(partitioner.partition(stage_of, 3).bottleneck_us)
        assert partitioner.best(3)[0].bottleneck_us == pytest.approx(min(every))


@pytest.mark.parametrize("seed", range(12))
def test_any_graph_is_cut_validly_into_as_many_stages_as_asked(seed: int) -> None:
    rng = random.Random(seed)
    graph = random_graph(rng, rng.randint(3, 25))
    partitioner = partitioner_of(graph, 4)
    for order in orders(partitioner.dag).values():
        assert sorted(order) == list(range(len(graph.nodes)))
        at = {node: position for position, node in enumerate(order)}
        assert all(at[p] < at[n] for n, before in enumerate(partitioner.dag.predecessors) for p in before)
    for n_stages in range(1, min(6, len(graph.nodes)) + 1):
        for partition in partitioner.best(n_stages):
            assert is_valid(partitioner.dag, partition.stage_of)
            assert set(partition.stage_of) == set(range(n_stages))
            check_transfers(graph, partition)


def check_transfers(graph: Graph, partition: Partition) -> None:
    """Against ``Graph.extract``, which says what a stage really reads."""
    for stage, load in enumerate(partition.loads):
        nbytes = 0
        for name in graph.extract(partition.nodes_of(stage)).inputs:
            value_type = graph.types[name]
            assert isinstance(value_type, TensorType) and value_type.shape is not None
            size = value_type.shape[0]
            assert isinstance(size, int)
            nbytes += 4 * size
        assert load.receive_nbytes == nbytes
        if partition.n_stages > 1:
            assert load.receive_us == pytest.approx(LINK.transfer_us(nbytes))


def test_a_skip_connection_crosses_once_for_each_stage_that_reads_it(graph_of: GraphOf) -> None:
    graph = graph_of(
        """g (float[100] x) => (float[100] y) {
            a = Relu(x)
            b = Exp(a)
            c = Exp(b)
            d = Add(a, c)
            e = Add(a, d)
            y = Exp(e)
        }"""
    )
    partition = partitioner_of(graph, 3).partition([0, 0, 1, 2, 2, 2], 3)
    assert [load.receive_nbytes for load in partition.loads] == [400, 400, 800]  # x; b; a and c


def test_branches_become_stages_beside_each_other(graph_of: GraphOf) -> None:
    graph = graph_of(
        """g (float[10] x) => (float[10] y) {
            a0 = Exp(x)
            b0 = Log(x)
            a1 = Exp(a0)
            b1 = Log(b0)
            a2 = Exp(a1)
            b2 = Log(b1)
            y = Add(a2, b2)
        }"""
    )
    best = partitioner_of(graph, 2, [100.0] * 6 + [1.0]).best(2)[0]
    assert {best.stage_of[0], best.stage_of[2], best.stage_of[4]} != {best.stage_of[1]}
    assert best.loads[0].receive_nbytes + best.loads[1].receive_nbytes == 40 + 40 + 40  # x twice, one branch's result


def test_each_stage_holds_the_shared_weights_that_it_reads(graph_of: GraphOf) -> None:
    graph = graph_of(
        """g (float[4] x) => (float[4] y) <float[4] w = {1, 2, 3, 4}, float[4] v = {1, 2, 3, 4}> {
            a = Mul(x, w)
            b = Mul(a, w)
            y = Mul(b, v)
        }"""
    )
    partition = partitioner_of(graph, 2).partition([0, 1, 1], 2)
    assert [load.weights_nbytes for load in partition.loads] == [16, 32]
    assert [load.receive_nbytes for load in partition.loads] == [16, 16]


def test_values_captured_by_subgraphs_cross(graph_of: GraphOf) -> None:
    graph = graph_of(
        """g (bool c, float[100] x) => (float[100] y) {
            a = Exp(x)
            b = Not(c)
            y = If (b) <
                then_branch = t () => (float[100] p) { p = Exp(a) },
                else_branch = e () => (float[100] q) { q = Add(a, x) }
            >
        }"""
    )
    partition = partitioner_of(graph, 2).partition([0, 0, 1], 2)
    assert partition.loads[1].receive_nbytes == 1 + 400 + 400  # b, and a and x by capture
    assert not is_valid(partitioner_of(graph, 2).dag, [1, 0, 0])


def test_activations_are_counted_at_their_peak(graph_of: GraphOf) -> None:
    graph = graph_of(
        """g (float[100] x) => (float[100] y, float[100] z) {
            a = Exp(x)
            z = Exp(a)
            b = Exp(a)
            y = Exp(b)
        }"""
    )
    # z is kept for the caller while b and y are made; x and a are gone by then
    load = partitioner_of(graph, 1).partition([0, 0, 0, 0], 1).loads[0]
    assert load.activations_nbytes == 3 * 400


def test_memory_bounds_win_over_balance() -> None:
    graph = Graph("g", ["v0"], ["v6"])
    graph.nodes = [Node("Op", "test", [f"v{i}", f"w{i}"], [f"v{i + 1}"]) for i in range(6)]
    graph.types = {f"v{i}": TensorType(1, (1,)) for i in range(7)}
    graph.initializers = {f"w{i}": np.zeros(1000 if i < 2 else 1, np.float32) for i in range(6)}
    times = [1.0, 1.0, 100.0, 100.0, 100.0, 100.0]
    assert partitioner_of(graph, 2, times).best(2)[0].stage_of == (0, 0, 0, 0, 1, 1)
    # the two large weights don't fit together
    tight = partitioner_of(graph, 2, times, memory_nbytes=6000).best(2)[0]
    assert tight.fits and tight.stage_of == (0, 1, 1, 1, 1, 1)
    assert not partitioner_of(graph, 2, times, memory_nbytes=3000).best(2)[0].fits


def test_an_unordered_graph_is_refused() -> None:
    graph = Graph("g", ["x"], ["y"])
    graph.nodes = [Node("Op", "test", ["a"], ["y"], name="late"), Node("Op", "test", ["x"], ["a"])]
    with pytest.raises(ValueError, match="'late' reads a value made later"):
        Dag(graph, CostModel(graph)).check_order()


def test_what_may_come_first_is_listed_while_it_is_little() -> None:
    graph = Graph("chain", ["v0"], ["v5"])
    graph.nodes = [Node("Op", "test", [f"v{i}"], [f"v{i + 1}"]) for i in range(5)]
    assert downsets_of(graph) == 6
    graph.nodes.append(Node("Op", "test", ["v0"], ["w"]))  # before or after any of the others
    assert downsets_of(graph) == 12
    graph.nodes += [Node("Op", "test", ["v0"], [f"w{i}"]) for i in range(6)]
    assert downsets_of(graph) is None


def downsets_of(graph: Graph) -> int | None:
    found = Dag(graph, CostModel(graph)).downsets
    return None if found is None else found.n_sets
