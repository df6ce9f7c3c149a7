"""`distort bench` in this process: feeds, figures, errors."""

from __future__ import annotations

import importlib
import json
import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from distort.cli import bench, console
from distort.cli.workload import Stretch, keep_running

from .conftest import Ran

Distort = Callable[..., Ran]
#: an index into a table of three rows, and a condition
LOOKUP = """lookup (int64[N] ids, bool b) => (float[N,2] y) <float[3,2] table = {1, 2, 3, 4, 5, 6}> {
    rows = Gather (table, ids)
    y = If (b) <then_branch = t () => (float[N,2] r) { r = Neg (rows) },
                else_branch = e () => (float[N,2] r) { r = Identity (rows) }>
}"""


def test_json_has_rates_and_times(distort: Distort, write_model: Callable[..., str]) -> None:
    ran = distort("bench", write_model(), "--seconds", "0.05", "--dim", "N=3", "--json")
    assert (ran.code, ran.err) == (0, "")
    told = json.loads(ran.out)
    assert (told["stages"], told["actors"], told["in_flight"]) == (1, 0, 1)
    assert told["made_feeds"] == ["x", "bias"]
    times = told["latency_ms"]
    assert 0 < times["p50"] <= times["p90"] <= times["p99"]
    assert told["runs"] >= 1 and told["runs_per_s"] > 1
    assert "rival" not in told and "nodes" not in told


def test_several_in_flight_and_a_feed_of_ones_own(
    distort: Distort, write_model: Callable[..., str], tmp_path: Any
) -> None:
    np.save(tmp_path / "x.npy", np.ones((4, 2), np.float32))
    given = ("--input", f"x={tmp_path}/x.npy", "--in-flight", "3", "--seconds", "0.05")
    ran = distort("bench", write_model(), *given, "--json")
    told = json.loads(ran.out)
    assert (told["in_flight"], told["made_feeds"]) == (3, ["bias"])
    assert told["runs"] >= 3


def test_a_profile_has_each_node_once_and_bodies_as_part_of_theirs(
    distort: Distort, write_model: Callable[..., str]
) -> None:
    ran = distort("bench", write_model(LOOKUP), "--seconds", "0.05", "--profile", "--json")
    told = json.loads(ran.out)
    assert {node["operator"] for node in told["nodes"]} == {"Gather", "If"}
    assert sum(node["share"] for node in told["nodes"]) == pytest.approx(1)
    plain = distort("bench", write_model(LOOKUP), "--seconds", "0.05", "--profile").out
    assert "Nodes that take the time" in plain and "By operator" in plain and "\x1b" not in plain


def test_a_rival_runs_in_turns(distort: Distort, write_model: Callable[..., str]) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    ran = distort("bench", write_model(), "--seconds", "0.1", "--against", "onnxruntime", "--json")
    told = json.loads(ran.out)
    rival = told["rival"]
    assert rival["name"] == f"onnxruntime {onnxruntime.__version__}"
    assert rival["ratio"] == pytest.approx(told["runs_per_s"] / rival["runs_per_s"])


def test_a_rival_that_is_not_installed(
    distort: Distort, write_model: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import_module = importlib.import_module

    def without(name: str, package: str | None = None) -> ModuleType:
        if name == "onnxruntime":
            raise ModuleNotFoundError(name)
        return import_module(name, package)

    monkeypatch.setattr(importlib, "import_module", without)
    ran = distort("bench", write_model(), "--against", "onnxruntime")
    assert ran.code == 1 and "pip install onnxruntime" in ran.err and ran.err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("--dim", "M=3"), 2, "They have: N"),
        (("--dim", "N"), 2, "NAME=SIZE"),
        (("--address", "auto"), 2, "--parallel"),
        (("--seconds", "0"), 2, "no number of seconds"),
        (("--in-flight", "0"), 2, "less than 1"),
        (("--config", "distort.replicas"), 2, "KEY=VALUE"),
        (("--config", "distort.colour=red"), 1, "distort.colour"),
        (("--input", "z=none.npy"), 1, "no such file"),
    ],
)
def test_what_is_wrong_is_said(
    distort: Distort, write_model: Callable[..., str], arguments: tuple[str, ...], code: int, text: str
) -> None:
    ran = distort("bench", write_model(), *arguments)
    assert (ran.code, ran.out) == (code, "") and text in ran.err


def test_feeds_that_a_model_does_not_take_are_said_to_be_made(
    distort: Distort, write_model: Callable[..., str]
) -> None:
    model = write_model("g (float[N] x, int64[M] shape) => (float[A,B] y) { y = Reshape (x, shape) }")
    ran = distort("bench", model, "--dim", "N=6", "--dim", "M=2", "--seconds", "0.05")
    assert ran.code == 1
    assert "feeds made of declared shapes (x, shape)" in ran.err and "--input" in ran.err


def test_actors_that_would_not_pay_are_said_not_to(distort: Distort, write_model: Callable[..., str]) -> None:
    given = ("bench", write_model(), "--parallel", "0", "--seconds", "0.05")
    assert "Why there are no actors" in distort(*given).out
    assert json.loads(distort(*given, "--json").out)["notes"]


def test_a_live_table_in_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[Any] = []

    class Live:
        def __enter__(self) -> Any:
            return shown.append

        def __exit__(self, *exc_info: object) -> None:
            shown.append("closed")

    screen = console.Screen()
    monkeypatch.setattr(console.Screen, "live", lambda self: Live())
    watch = bench.Watch(screen, None, "model.onnx", quiet=False)
    ticked = threading.Event()

    def on_tick(stretch: Stretch) -> None:
        watch.tick(stretch)
        ticked.set()

    monkeypatch.setattr("distort.cli.workload._TICK_S", 0.001)
    with watch:
        keep_running(lambda: ticked.wait(10), 1, 0.0, on_tick=on_tick)
    (table,), last = shown[0], shown[-1]
    assert last == "closed" and ticked.is_set()
    assert table.heading == "model.onnx" and "0 runs/s" in table.lines[0]


def test_so_many_are_in_flight_as_were_asked_for_and_an_error_ends_all() -> None:
    together = threading.Barrier(3, timeout=5)
    assert len(keep_running(together.wait, 3, 0.0, at_least=6).latencies_s) == 6
    with pytest.raises(ZeroDivisionError):
        keep_running(lambda: 1 // 0, 2, 5.0)
    whole = Stretch(1.0, [0.5])
    whole.add(Stretch(1.0, [0.5, 0.5]))
    assert whole.runs_per_s == 1.5
