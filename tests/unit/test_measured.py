"""What nodes take on this machine, and how that is kept."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx.parser
import pytest

from distort import cost_cache, measured, planning
from distort.cost_cache import Measurement
from distort.graph.inference import infer
from distort.graph.ir import Graph, Model
from distort.graph.reader import read_model

SHAPES = {"x": ("float32", (1, 64))}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("DISTORT_CACHE_DIR", str(tmp_path / "cache"))
    yield tmp_path / "cache" / "costs"


def model_of(text: str) -> Model:
    model = read_model(onnx.parser.parse_model(f'<ir_version: 9, opset_import: ["": 18]> {text}'))
    infer(model)
    return model


def chain() -> Model:
    return model_of("g (float[N, W] x) => (float[N, W] y) { a = Exp(x) b = Sqrt(a) y = Neg(b) }")


def quiet(n_threads: int) -> None:
    """Threads stay as they are."""


def costs(graph: Graph, mode: str = "auto", **more: object) -> measured.Costs:
    return measured.costs(graph, [1], quiet, mode=mode, **more)  # type: ignore[arg-type]  # the test's own shorthand


def test_nodes_are_measured_once_and_then_known(cache: Path) -> None:
    graph = chain().graph
    assert costs(graph).node_us == {}
    assert any("never measured" in note for note in costs(graph).notes)
    first = costs(graph, "measured")
    assert sorted(first.node_us[1]) == [0, 1, 2]
    assert all(us > 0 for us in first.node_us[1].values())
    assert first.dims == {"N": 1, "W": 64}
    assert costs(graph) == costs(graph, "measured") == first
    assert costs(graph, "estimated").node_us == {}
    assert len(list(cache.iterdir())) == 1


def test_a_longer_node_takes_longer() -> None:
    graph = model_of(
        "g (float[1, 1] x, float[700, 700] m) => (float[700, 700] y) { a = Exp(x) b = Exp(m) y = Add(b, a) }"
    )
    times = costs(graph.graph, "measured").node_us[1]
    assert times[1] > 5 * times[0]


def test_threads_are_set_for_each_measurement_and_put_back() -> None:
    asked: list[int] = []
    found = measured.costs(chain().graph, [2, 1], asked.append, mode="measured")
    assert sorted(found.node_us) == [1, 2]
    assert asked == [1, 0, 2, 0]


def test_own_feeds_and_their_sizes(cache: Path) -> None:
    graph = chain().graph
    feeds = {"x": np.ones((3, 5), np.float32)}
    assert costs(graph, "measured", feeds=feeds).dims == {"N": 3, "W": 5}
    # without feeds, whatever was measured last serves; with dims, what agrees with them
    assert costs(graph).dims == {"N": 3, "W": 5}
    assert costs(graph, dims={"N": 3}).dims["W"] == 5
    assert costs(graph, dims={"N": 4}).node_us == {}


def test_bytes_that_no_shape_tells_are_measured() -> None:
    model = model_of("g (float[N] x) => (int64[1, K] y, float[N] z) { y = NonZero(x) z = Exp(x) }")
    feeds = {"x": np.array([0, 1, 1, 0, 1], np.float32)}
    plan, _ = planning.plan_model(model, 1, costs="measured", feeds=feeds, typed=True)
    assert {edge.value: edge.nbytes for edge in plan.edges} == {"x": 20, "y": 24, "z": 20}
    assert "nobody gave a size" not in plan.explain()


def test_nodes_of_bodies_count_for_their_node() -> None:
    graph = model_of(
        """g (bool c, float[4] x) => (float[4] y) {
            a = Exp(x)
            y = If (c) <
                then_branch = t () => (float[4] p) { p = Neg(a) },
                else_branch = e () => (float[4] q) { q = Exp(a) }
            >
        }"""
    ).graph
    times = costs(graph, "measured").node_us[1]
    assert sorted(times) == [0, 1]


def test_what_cannot_be_measured_is_said() -> None:
    sequence = model_of("g (seq(float[2]) s) => (float[2] y) <int64 i = {0}> { y = SequenceAt(s, i) }").graph
    said = costs(sequence, "measured")
    assert said.node_us == {} and any("'s' is seq" in note for note in said.notes)
    fails = model_of("g (float[2] x) => (float[3] y) <int64[1] s = {3}> { y = Reshape(x, s) }").graph
    said = costs(fails, "measured")
    assert any("could not be measured" in note and "Reshape" in note for note in said.notes)


def test_structure_names_a_model_and_values_of_large_weights_do_not() -> None:
    def graph(value: float, shape: tuple[int, ...] = (100,), op: str = "Add") -> Graph:
        made = model_of(f"g (float[100] x) => (float[100] y) {{ y = {op}(x, w) }}".replace("(x, w)", "(x, x)")).graph
        made.initializers["w"] = np.full(shape, value, np.float32)
        made.nodes[0].inputs[1] = "w"
        return made

    key = cost_cache.key_of(graph(1.0), "1")
    assert cost_cache.key_of(graph(2.0), "1") == key
    different = [graph(1.0, (1, 100)), graph(1.0, op="Mul")]
    assert len({key, *(cost_cache.key_of(g, "1") for g in different), cost_cache.key_of(graph(1.0), "2")}) == 4


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'{"format": 1}',
        b'{"format": 0, "threads": 1, "n_runs": 1, "shapes": {}, "value_nbytes": {}, "node_us": [1, 1, 1]}',
        b'{"format": 1, "threads": 1, "n_runs": 1, "shapes": {}, "value_nbytes": {}, "node_us": [1, 1]}',
        b'{"format": 1, "threads": 1, "n_runs": 1, "shapes": {}, "value_nbytes": {}, "node_us": [1, -1, NaN]}',
        b'{"format": 1, "threads": 1, "n_runs": 1, "shapes": {"x": 3}, "value_nbytes": {}, "node_us": [1, 1, 1]}',
        b"\xff\xfe\x00",
    ],
)
def test_what_cannot_be_read_is_not_there(cache: Path, content: bytes) -> None:
    graph = chain().graph
    costs(graph, "measured")
    (file,) = cache.iterdir()
    file.write_bytes(content)
    assert costs(graph).node_us == {}
    assert costs(graph, "measured").node_us  # measured anew, and the file replaced
    assert costs(graph).node_us


def test_a_folder_that_cannot_be_written_is_a_note(cache: Path) -> None:
    cache.parent.mkdir()
    cache.write_text("a file where the folder should be")
    said = costs(chain().graph, "measured")
    assert said.node_us and any("could not be kept" in note for note in said.notes)


def test_the_cache_is_bounded_and_leftovers_go(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost_cache, "MOST_FILES", 3)
    cache.mkdir(parents=True)
    leftover = cache / ".half.json.0123"
    leftover.write_text("{")
    os.utime(leftover, (0, 0))
    young = cache / ".half.json.4567"
    young.write_text("{")
    for number in range(6):
        cost_cache.store(f"key{number}", Measurement(1, (1.0,), SHAPES, 1))
        for file in cache.glob(f"key{number}-*"):
            os.utime(file, (1000 + number, 1000 + number))
    assert not leftover.exists() and young.exists()
    assert sorted(path.name[:4] for path in cache.glob("key*")) == ["key3", "key4", "key5"]
    monkeypatch.setattr(cost_cache, "MOST_NBYTES", 1)
    cost_cache.store("key9", Measurement(1, (1.0,), SHAPES, 1))
    assert [path.name[:4] for path in cache.glob("key*")] == ["key9"]


def test_many_writers_and_readers_at_once() -> None:
    failures: list[str] = []

    def work(number: int) -> None:
        for turn in range(20):
            cost_cache.store("key", Measurement(1, (float(number), float(turn)), SHAPES, 1))
            seen = cost_cache.load("key", 1, SHAPES, 2)
            if seen is None or len(seen.node_us) != 2:
                failures.append(f"{number}: {seen}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_a_writer_killed_at_any_moment_leaves_whole_files(cache: Path) -> None:
    code = """
import sys
from distort import cost_cache
from distort.cost_cache import Measurement
print("ready", flush=True)
n = 0
while True:
    cost_cache.store("key", Measurement(1, tuple(float(n) for _ in range(5000)), {"x": ("float32", (1,))}, 1))
    n += 1
"""
    writer = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert writer.stdout is not None
    with writer.stdout:
        writer.stdout.readline()
        while not list(cache.glob("key*")) and writer.poll() is None:
            pass
        writer.kill()
        writer.wait()
    (file,) = cache.glob("key*")
    assert len(json.loads(file.read_bytes())["node_us"]) == 5000


def test_the_folder_is_the_platforms(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert cost_cache.folder() == tmp_path / "cache" / "costs"
    monkeypatch.delenv("DISTORT_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setattr(sys, "platform", "linux")
    assert cost_cache.folder() == tmp_path / "xdg" / "distort" / "costs"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert cost_cache.folder().parts[-4:] == ("Library", "Caches", "distort", "costs")


def test_a_plan_says_what_its_costs_rest_on() -> None:
    model = chain()

    def notes(costs: str) -> str:
        plan, _ = planning.plan_model(model, 2, costs=costs, typed=True, devices_text="2xcpu:1")
        return plan.explain()

    assert "estimated from operators and shapes" in notes("auto") and "never measured" in notes("auto")
    assert "measured on this machine with 1 thread" in notes("measured")
    assert "measured on this machine with 1 thread" in notes("auto")
    assert "estimated from operators and shapes" in notes("estimated")


def test_measured_costs_decide_where_a_graph_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow_first(*arguments: object, **more: object) -> Measurement:
        return Measurement(1, (900.0, 1.0, 1.0), SHAPES, 1)

    monkeypatch.setattr(measured, "measure", slow_first)
    plan, _ = planning.plan_model(chain(), 2, costs="measured", typed=True, devices_text="2xcpu:1")
    assert [stage.nodes for stage in plan.stages] == [(0,), (1, 2)]
    assert plan.stages[0].cost_us == 900.0
