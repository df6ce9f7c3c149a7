"""Branches side by side: valid stages, devices that are kept busy."""

from __future__ import annotations

import random

import pytest

from distort.graph.ir import Graph, Node
from distort.graph.types import TensorType
from distort.scheduler.branches import FEW, BranchClusters
from distort.scheduler.cost import CostModel
from distort.scheduler.dag import Dag
from distort.scheduler.device import Link, cpu
from distort.scheduler.partition import is_valid

LINK = Link(latency_us=10.0, gbytes_per_s=1.0)
CPUS = [cpu(0), cpu(1), cpu(2)]


def dag_of(reads: list[list[int]]) -> Dag:
    """Node i reads the results of ``reads[i]``, or the feed where there are none."""
    graph = Graph("g", ["x"], [f"v{len(reads) - 1}"])
    for i, sources in enumerate(reads):
        graph.nodes.append(Node("Op", "test", [f"v{s}" for s in sources] or ["x"], [f"v{i}"]))
    graph.types = dict.fromkeys(["x", *(f"v{i}" for i in range(len(reads)))], TensorType(1, (1,)))
    return Dag(graph, CostModel(graph))


@pytest.mark.parametrize("seed", range(15))
def test_any_graph_gives_valid_stages(seed: int) -> None:
    rng = random.Random(seed)
    n_nodes = rng.choice([2, 5, 15, 40, 90])
    dag = dag_of([rng.sample(range(i), min(i, rng.randint(0, 3))) for i in range(n_nodes)])
    times = [rng.choice([1.0, 50.0, 200.0]) for _ in range(n_nodes)]
    clusterings = list(BranchClusters(dag, [times] * 3, CPUS, LINK).up_to(8))
    counts = [len(clustering.devices) for clustering in clusterings]
    assert counts == sorted(set(counts), reverse=True)
    assert all(2 <= count <= 8 for count in counts)
    for clustering in clusterings:
        assert is_valid(dag, clustering.stage_of)
        assert set(clustering.stage_of) == set(range(len(clustering.devices)))
        assert set(clustering.devices) <= {0, 1, 2}


def test_a_stem_its_branches_and_what_joins_them() -> None:
    # 0 → (1 → 2 | 3 → 4 | 5) → 6
    dag = dag_of([[], [0], [1], [0], [3], [0], [2, 4, 5]])
    times = [100.0, 300.0, 300.0, 200.0, 400.0, 600.0, 100.0]
    found = {len(c.devices): c for c in BranchClusters(dag, [times] * 3, CPUS, LINK).up_to(5)}
    five = found[5]
    branches = [{1, 2}, {3, 4}, {5}]
    assert [len({five.stage_of[n] for n in branch}) for branch in branches] == [1, 1, 1]
    assert {five.devices[five.stage_of[node]] for node in (1, 3, 5)} == {0, 1, 2}
    assert five.stage_of[0] == 0 and five.stage_of[6] == 4


def test_a_branch_goes_to_the_device_that_is_faster_for_it() -> None:
    dag = dag_of([[], [], [0, 1]])
    times = [[100.0, 100.0, 30.0], [400.0, 50.0, 30.0]]
    (three, *_) = BranchClusters(dag, times, CPUS, LINK).up_to(3)
    assert three.devices[three.stage_of[0]] == 0 and three.devices[three.stage_of[1]] == 1


def test_a_chain_offers_nothing() -> None:
    dag = dag_of([[], *([i] for i in range(FEW + 5))])
    assert list(BranchClusters(dag, [[100.0] * (FEW + 6)] * 2, CPUS, LINK).up_to(4)) == []
