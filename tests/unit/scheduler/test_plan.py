"""Plans as text, as a page, simulated."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from distort.graph.ir import Graph, Node
from distort.graph.types import TensorType
from distort.scheduler.device import Link, cpu
from distort.scheduler.layout import draw
from distort.scheduler.plan import CALLER, Edge, Plan
from distort.scheduler.planner import Terms, make_plan
from distort.scheduler.simulate import simulate

PlanOf = Callable[..., Plan]
VOID = {"meta", "rect"}


class Page(HTMLParser):
    """Checks that elements are closed, and collects the text and what could be fetched from elsewhere."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.count: dict[str, int] = {}
        self.links: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.count[tag] = self.count.get(tag, 0) + 1
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def ladder(n_nodes: int, skip: int = 0) -> Graph:
    """A chain; with ``skip``, every so many nodes read what was made that many before."""
    graph = Graph("ladder", ["v0"], [f"v{n_nodes}"])
    for i in range(n_nodes):
        inputs = [f"v{i}"]
        if skip and i >= skip and i % skip == 0:
            inputs.append(f"v{i - skip}")
        graph.nodes.append(Node("Sum", "", inputs, [f"v{i + 1}"], name=f"n{i}", opset=13))
    graph.types = {f"v{i}": TensorType(1, (1000,)) for i in range(n_nodes + 1)}
    return graph


def plan_ladder(n_nodes: int, n_stages: int, skip: int = 0) -> tuple[Plan, Graph]:
    graph = ladder(n_nodes, skip)
    return make_plan(graph, [cpu(i) for i in range(4)], Terms(model_name="ladder.onnx"), n_stages=n_stages), graph


def test_text_has_a_line_for_each_stage_and_edge() -> None:
    plan, _ = plan_ladder(6, 2)
    text = plan.to_text()
    assert text.startswith("ladder.onnx: 2 stages of 6 nodes, for latency")
    for wanted in (r"stage0 +cpu:0 \(1 thread\) +3 ", r"caller → stage0 +v0 +4 KB", r"stage0 → stage1 +v3 +4 KB"):
        assert re.search(wanted, text), wanted
    assert len(text.splitlines()) == 2 + 4 + 1 + 2 + 3


def test_explain_tells_cost_gain_decisions_and_unknown_sizes() -> None:
    graph = ladder(4)
    del graph.types["v2"]
    text = make_plan(graph, [cpu(0), cpu(1)], n_stages=2).explain()
    assert "2 stages were asked for" in text
    assert "a loss" in text  # two actors for some µs of work
    assert "cut by the order" in text
    assert "values of unknown type or rank count as nothing: v2" in text
    assert "as one stage in this process" in text
    assert "Sizes not known, counted as nothing: v2" in text and "at least" in text


def test_dimensions_without_a_size_are_told() -> None:
    graph = ladder(2)
    graph.types["v1"] = TensorType(1, ("batch", 8))
    assert "count as 1: batch" in make_plan(graph, [cpu()], n_stages=None).explain()
    assert "count as 1" not in make_plan(graph, [cpu()], Terms(dims={"batch": 2}), n_stages=None).explain()


def test_long_names_and_many_values_stay_readable(plan_of: PlanOf) -> None:
    names = [f"model/{'block/' * 20}{i}" for i in range(30)]
    plan = plan_of([(["x"], names), (names, ["y"])], ["y"])
    text = plan.explain()
    assert max(map(len, [*text.splitlines(), *plan.to_text().splitlines()])) < 150
    assert "Crossing between stages: 30 values, 3 KB" in text and "and 18 more" in text
    assert names[7] in plan.to_json()


def test_a_plan_survives_pickling_and_refuses_to_go_back() -> None:
    plan, _ = plan_ladder(4, 2)
    assert pickle.loads(pickle.dumps(plan)) == plan
    with pytest.raises(ValueError, match="goes back"):
        replace(plan, edges=(Edge("v", 1, 0, None, "object_store"),))
    with pytest.raises(KeyError, match="node 9"):
        plan.stage_of(9)


def test_the_page_is_self_contained_and_complete() -> None:
    plan, graph = plan_ladder(12, 3, skip=4)
    page = Page(plan.to_html(graph))
    assert page.links == []
    assert "@import" not in page.text and "url(" not in page.text
    assert page.count["rect"] == 12 + 2 + 3 * 4  # nodes, the feed, the output; stages in the schedule of four runs
    assert "2F3" in page.text
    assert page.count["tr"] == 1 + 3 + 1 + len(plan.edges)
    for wanted in ("stage2 on cpu:2", "v0", "Decisions:", "4 KB"):
        assert wanted in page.text


def test_names_are_escaped() -> None:
    graph = Graph("<b>", ["<script>"], ["&amp;"])
    graph.nodes = [Node("Relu", "", ["<script>"], ["&amp;"], name="\"><img src='x'>")]
    html = make_plan(graph, [cpu()], Terms(model_name="a<i>b"), n_stages=1).to_html(graph)
    page = Page(html)
    assert {"script", "img", "i", "b"}.isdisjoint(page.count)
    assert "<img src='x'>" in page.text


def test_a_page_of_another_graph_is_refused() -> None:
    plan, _ = plan_ladder(4, 2)
    for other in (3, 5):
        with pytest.raises(ValueError, match="not the plan's graph"):
            plan.to_html(ladder(other))


def test_a_large_graph_is_drawn_with_chains_collapsed() -> None:
    plan, graph = plan_ladder(2000, 4, skip=20)
    html = plan.to_html(graph)
    page = Page(html)
    assert page.count["rect"] < 320
    assert "chains of nodes are drawn as one box" in page.text
    assert len(html) < 500_000


def test_boxes_do_not_overlap_and_wires_go_down() -> None:
    plan, graph = plan_ladder(60, 3, skip=5)
    graph.nodes += [Node("Neg", "", ["v0"], [f"w{i}"]) for i in range(9)]
    picture = draw(graph, [*(plan.stage_of(i).index for i in range(60)), *([0] * 9)])
    places = [(box.x, box.y) for box in picture.boxes]
    for i, (x, y) in enumerate(places):
        assert 0 < x < picture.width and 0 < y < picture.height
        for other_x, other_y in places[:i]:
            assert abs(x - other_x) >= picture.box_width or abs(y - other_y) >= picture.box_height
    assert all(places[wire.source][1] < places[wire.target][1] for wire in picture.wires)


def test_a_chain_is_not_collapsed_across_stages_or_over_an_output() -> None:
    graph = ladder(6)
    graph.outputs.append("v2")
    groups = [box.nodes for box in draw(graph, [0, 0, 0, 0, 1, 1], collapse=True).boxes if box.nodes]
    assert groups == [(0, 1), (2, 3), (4, 5)]


def test_simulated_runs_overlap_as_far_as_they_may(plan_of: PlanOf) -> None:
    plan = plan_of([(["x"], ["a"]), (["a"], ["b"]), (["b"], ["y"])], ["y"], cost_us=100.0)
    free = {"object_store": Link(0.0, 1e9)}
    one = simulate(plan, links=free)
    assert one.makespan_us == pytest.approx(300)
    assert [(e.stage, round(e.begin_us)) for e in one.executions] == [(0, 0), (1, 100), (2, 200)]
    assert simulate(plan, n_runs=10, max_in_flight=1, links=free).makespan_us == pytest.approx(3000)
    full = simulate(plan, n_runs=10, max_in_flight=3, links=free)
    assert full.makespan_us == pytest.approx(1200)
    assert full.busy == pytest.approx({"cpu:0": 1000 / 1200, "cpu:1": 1000 / 1200, "cpu:2": 1000 / 1200})
    spaced = simulate(plan, n_runs=4, interval_us=500.0, links=free)
    assert spaced.latencies_us == pytest.approx((300,) * 4)
    assert "10 runs in 1.2 ms" in full.to_text()


def test_simulated_memory_counts_weights_work_and_what_is_kept(plan_of: PlanOf) -> None:
    # 1000 of weights, 500 at work, 100 for each value that waits for its reader
    plan = plan_of([(["x"], ["a"]), (["a"], ["y"])], ["y"])
    assert simulate(plan).peak_nbytes == {"cpu:0": 1500, "cpu:1": 1500}
    slow = replace(plan, stages=(plan.stages[0], replace(plan.stages[1], cost_us=10_000.0)))
    piled = simulate(slow, n_runs=6, max_in_flight=4)
    assert piled.peak_nbytes["cpu:0"] == 1000 + 500 + 300
    assert simulate(slow, n_runs=6, max_in_flight=1).peak_nbytes["cpu:0"] == 1500


def test_stages_on_one_device_take_turns(plan_of: PlanOf) -> None:
    plan = plan_of([(["x"], ["a"]), (["x"], ["b"]), (["a", "b"], ["y"])], ["y"])
    free = {"object_store": Link(0.0, 1e9)}
    assert simulate(plan, links=free).makespan_us == pytest.approx(200)
    shared = replace(plan, stages=tuple(replace(stage, device=cpu(0)) for stage in plan.stages))
    assert simulate(shared, links=free).makespan_us == pytest.approx(300)
    assert plan.producers_of(2) == (0, 1) and plan.end_name(CALLER) == "caller"
