"""Parts of a batch: how they are cut, put together, and how many there are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from onnx import parser

from distort.engine import plan_model
from distort.graph import reader
from distort.graph.batch import BatchProof, Refusal, find_batch
from distort.graph.ir import Graph
from distort.microbatch import MicroBatches, decide, merge, part_sizes, plan_parts, split
from distort.scheduler.plan import Plan

CHAIN = """<ir_version: 9, opset_import: ["" : 18]>
g (float[n, 64] x, float[64, 64] w, float[64, 64] u) => (float[n, 64] y) {
  a = MatMul(x, w)
  b = Relu(a)
  c = MatMul(b, u)
  y = Relu(c)
}"""
MIXING = CHAIN.replace("b = Relu(a)", "b = Softmax<axis = 0>(a)")


def planned(text: str, n_stages: int = 2) -> tuple[Graph, Plan]:
    plan, graph = plan_model(reader.read_model(parser.parse_model(text)), n_stages)
    return graph, plan


def feeds_of(n_samples: int) -> dict[str, Any]:
    random = np.random.default_rng(0)
    shapes = {"x": (n_samples, 64), "w": (64, 64), "u": (64, 64)}
    return {name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def proof_of(graph: Graph, feeds: dict[str, Any]) -> BatchProof:
    proof = find_batch(graph, {name: value.shape for name, value in feeds.items()})
    assert isinstance(proof, BatchProof)
    return proof


def test_parts_differ_by_at_most_one_sample() -> None:
    assert part_sizes(16, 4) == (4, 4, 4, 4)
    assert part_sizes(10, 4) == (3, 3, 2, 2)
    assert part_sizes(3, 8) == (1, 1, 1)
    assert part_sizes(5, 0) == (5,)


def test_parts_are_views_and_shared_feeds_are_in_each() -> None:
    graph, _ = planned(CHAIN)
    feeds = feeds_of(6)
    parts = split(proof_of(graph, feeds), feeds, 4)
    assert [part["x"].shape for part in parts] == [(2, 64), (2, 64), (1, 64), (1, 64)]
    assert all(np.shares_memory(part["x"], feeds["x"]) for part in parts)
    assert all(part["w"] is feeds["w"] for part in parts)


def test_merging_undoes_splitting() -> None:
    values = np.arange(24).reshape(2, 6, 2)
    proof = BatchProof({"x": 1}, {"y": 1, "z": None, "maps": 0}, {})
    parts = split(proof, {"x": values}, 3)
    table = np.ones(3)
    y, z, maps = merge(proof, ["y", "z", "maps"], [[part["x"], table, [{1: i}]] for i, part in enumerate(parts)])
    np.testing.assert_array_equal(y, values)
    assert z is table
    assert maps == [{1: 0}, {1: 1}, {1: 2}]


def test_one_part_is_handed_on_as_it_is() -> None:
    proof = BatchProof({"x": 0}, {"y": 0}, {})
    value = np.ones(3)
    assert merge(proof, ["y"], [[value]])[0] is value


def test_feeds_that_disagree_are_refused() -> None:
    proof = BatchProof({"x": 0, "z": 0}, {"y": 0}, {})
    with pytest.raises(ValueError, match=r"\[2, 3\] samples"):
        split(proof, {"x": np.ones(2), "z": np.ones(3)}, 2)


class TestPlanParts:
    """The pipeline's time: the first part through all stages, then the slowest stage for each other part."""

    @staticmethod
    def elapsed(parts: Sequence[Sequence[float]]) -> float:
        return sum(parts[0]) + sum(max(part) for part in parts[1:])

    def test_the_fewest_parts_that_are_about_as_fast_as_the_best(self) -> None:
        choice = plan_parts(16, lambda n: [n * 100.0, n * 100.0], self.elapsed)
        assert choice.n_parts == 8  # 16 would take 1700 us
        assert choice.whole_us == 3200
        assert choice.parts_us == 400 + 7 * 200

    def test_a_call_that_costs_more_wants_fewer_parts(self) -> None:
        def counted(call_us: float) -> int:
            return plan_parts(16, lambda n: [call_us + n * 100.0] * 2, self.elapsed).n_parts

        parts = [counted(call_us) for call_us in (1.0, 100.0, 10_000.0)]
        assert parts == sorted(parts, reverse=True)
        assert parts[0] > parts[1] > 1
        assert parts[-1] == 1

    def test_one_stage_is_not_split(self) -> None:
        assert plan_parts(16, lambda n: [n * 100.0], self.elapsed).n_parts == 1

    def test_an_uneven_stage_bounds_the_gain(self) -> None:
        choice = plan_parts(16, lambda n: [n * 1000.0, n * 1.0], self.elapsed)
        assert choice.n_parts == 1  # 0.1 % of the time may be saved


class TestDecide:
    def test_a_number_is_obeyed(self) -> None:
        graph, plan = planned(CHAIN)
        decision = decide(graph, feeds_of(16), "4", plan)
        assert decision.parts is not None
        assert decision.parts.sizes == (4, 4, 4, 4)
        assert "asks for 4 parts" in decision.reason

    def test_no_more_parts_than_samples(self) -> None:
        graph, plan = planned(CHAIN)
        decision = decide(graph, feeds_of(3), "8", plan)
        assert decision.parts is not None
        assert decision.parts.sizes == (1, 1, 1)
        assert "no more than 3" in decision.reason

    def test_zero_is_off(self) -> None:
        graph, plan = planned(CHAIN)
        assert decide(graph, feeds_of(16), "0", plan).parts is None

    def test_a_graph_that_mixes_is_refused_with_its_node(self) -> None:
        graph, plan = planned(MIXING)
        decision = decide(graph, feeds_of(16), "4", plan)
        assert decision.parts is None
        assert isinstance(decision.refusal, Refusal)
        assert "(Softmax): it mixes the batch axis" in decision.reason

    def test_auto_weighs_the_calls_against_the_work(self) -> None:
        graph, plan = planned(CHAIN)
        feeds = feeds_of(16)
        few = MicroBatches(graph, plan, measured=(16, [10.0, 10.0])).decide(feeds, ["y"])
        graph, plan = planned(CHAIN.replace("float[n, 64]", "float[n, 512, 64]"))
        feeds = {**feeds_of(16), "x": np.ones((16, 512, 64), np.float32)}
        much = MicroBatches(graph, plan, measured=(16, [1e6, 1e6])).decide(feeds, ["y"])
        assert few.parts is None
        assert "no number of parts is predicted to be clearly faster" in few.reason
        assert much.parts is not None
        assert len(much.parts.sizes) > 2
        assert "predicted" in much.reason

    def test_auto_with_one_stage_is_whole(self) -> None:
        graph, plan = planned(CHAIN, 1)
        assert decide(graph, feeds_of(16), "auto", plan).parts is None

    def test_a_value_of_another_process_is_not_cut(self) -> None:
        class Away:
            shape = (16, 64)

        graph, plan = planned(CHAIN)
        decision = decide(graph, {**feeds_of(16), "x": Away()}, "4", plan)
        assert decision.parts is None
        assert "'x' is no array of this process" in decision.reason

    def test_a_small_feed_may_decide(self) -> None:
        """A branch that mixes is not taken at this rate."""
        graph, plan = planned(
            """<ir_version: 9, opset_import: ["" : 18]>
            g (float[n, 4] x, int64 rate) => (float[n, 4] y) <int64 high = {16000}> {
              fast = Equal(rate, high)
              z = Neg(x)
              y = If(fast) <
                then_branch = a () => (float[n, 4] u) { u = Relu(z) },
                else_branch = b () => (float[n, 4] v) { v = Softmax<axis = 0>(z) }
              >
            }"""
        )
        from distort.kernels.program import evaluate_node

        batches = MicroBatches(graph, plan, "2", evaluate_node)
        feeds = {"x": np.ones((6, 4), np.float32)}
        taken = batches.decide({**feeds, "rate": np.array(16000)}, ["y"])
        other = batches.decide({**feeds, "rate": np.array(8000)}, ["y"])
        assert taken.parts is not None
        assert other.parts is None
        assert "mixes the batch axis" in other.reason

    def test_a_proof_serves_all_sizes_that_the_model_leaves_open(self) -> None:
        graph, plan = planned(CHAIN.replace("float[n, 64]", "float[n, s, 64]"))
        batches = MicroBatches(graph, plan, "2")
        weights = feeds_of(1)
        first, again, other = (
            batches.proof({**weights, "x": np.ones((8, steps, width), np.float32)}, ["y"])
            for steps, width in ((5, 64), (6, 64), (6, 32))
        )
        assert isinstance(first, BatchProof)
        assert first is again
        assert first is not other

    def test_a_reshape_by_a_size_that_is_left_open_is_proved_by_what_is_fed(self) -> None:
        """[n, s] as [-1, 2] keeps samples apart where s is even."""
        graph, plan = planned(
            """<ir_version: 9, opset_import: ["" : 18]>
            g (float[n, s] x) => (float[m, 2] y) <int64[2] t = {-1, 2}> { z = Neg(x)\n y = Reshape(z, t) }"""
        )
        batches = MicroBatches(graph, plan, "2")
        assert batches.decide({"x": np.ones((4, 6), np.float32)}, ["y"]).parts is not None
        assert batches.decide({"x": np.ones((4, 3), np.float32)}, ["y"]).parts is None
