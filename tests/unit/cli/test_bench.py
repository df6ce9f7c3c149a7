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

from distort.cli import bench, console, rivals
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
    document = json.loads(ran.out)
    assert (document["in_flight"], document["made_feeds"]) == (1, ["x", "bias"])
    (told,) = document["measured"]
    assert (told["stages"], told["actors"], told["threads"]) == (1, 0, 0)
    times = told["latency_ms"]
    assert 0 < times["p50"] <= times["p90"] <= times["p99"]
    assert told["runs"] >= 1 and told["runs_per_s"] > 1
    assert told["rivals"] == [] and "profile" not in told


def test_several_in_flight_and_a_feed_of_ones_own(
    distort: Distort, write_model: Callable[..., str], tmp_path: Any
) -> None:
    np.save(tmp_path / "x.npy", np.ones((4, 2), np.float32))
    given = ("--input", f"x={tmp_path}/x.npy", "--in-flight", "3", "--seconds", "0.05")
    ran = distort("bench", write_model(), *given, "--json")
    told = json.loads(ran.out)
    assert (told["in_flight"], told["made_feeds"]) == (3, ["bias"])
    assert told["measured"][0]["runs"] >= 3


def test_each_number_of_threads_is_measured(distort: Distort, write_model: Callable[..., str]) -> None:
    given = ("bench", write_model(), "--seconds", "0.05", "--threads", "1,2,1")
    assert [told["threads"] for told in json.loads(distort(*given, "--json").out)["measured"]] == [1, 2]
    lines = distort(*given).out.splitlines()
    assert [line.split()[:2] for line in lines[3:5]] == [["1", "distort"], ["2", "distort"]]


def test_a_profile_of_numpy_kernels_has_bodies_as_part_of_their_nodes(
    distort: Distort, write_model: Callable[..., str]
) -> None:
    given = ("--seconds", "0.05", "--profile", "--config", "distort.compile=0")
    ran = distort("bench", write_model(LOOKUP), *given, "--json")
    profile = json.loads(ran.out)["measured"][0]["profile"]
    assert {operation["operators"] for operation in profile["operations"]} == {"Gather", "If"}
    assert sum(operation["share"] for operation in profile["operations"]) == pytest.approx(1)
    assert profile["operations"][-1]["cumulative"] == pytest.approx(1)
    plain = distort("bench", write_model(LOOKUP), *given).out
    assert "Operations that take the time" in plain and "By operators" in plain and "\x1b" not in plain


def test_a_profile_of_a_compiled_run_has_operations(distort: Distort, write_model: Callable[..., str]) -> None:
    """The branch of an If is part of the plan, and a product counts with what joined it."""
    text = (
        """g (float[N,32] x, bool b) => (float[N,32] y)
        <float[32,32] w = {%s}> {
        z = MatMul (x, w)
        [last] r = Relu (z)
        y = If (b) <then_branch = t () => (float[N,32] c) { c = CumSum (r, axis) },
                    else_branch = e () => (float[N,32] d) { d = Neg (r) }>
    }""".replace("<float", "<int64 axis = {0}, float")
        % ", ".join(["1.5"] * 32 * 32)
    )
    given = ("--seconds", "0.05", "--dim", "N=16", "--profile", "--config", "distort.compile=1", "--threads", "1")
    profile = json.loads(distort("bench", write_model(text), *given, "--json").out)["measured"][0]["profile"]
    by_type = {operation["operators"]: operation for operation in profile["operations"]}
    assert {"MatMul+Relu", "CumSum"} <= set(by_type)
    product = by_type["MatMul+Relu"]
    assert (product["node"], product["outputs"][0][-2:]) == ("last", [16, 32])
    assert product["gflop_per_s"] == pytest.approx(2 * 16 * 32 * 32 / product["us"] / 1e3)
    assert by_type["CumSum"]["gflop_per_s"] is None
    assert profile["kernels_us"] > 0 and profile["run_us"] > 0


def test_rivals_run_in_turns_and_their_outputs_are_compared(
    distort: Distort, write_model: Callable[..., str], monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    given = ("bench", write_model(), "--seconds", "0.1", "--against", "onnxruntime")
    (told,) = json.loads(distort(*given, "--json").out)["measured"]
    (rival,) = told["rivals"]
    assert rival["name"] == f"onnxruntime {onnxruntime.__version__}"
    assert rival["ratio"] == pytest.approx(rival["latency_ms"]["p50"] / told["latency_ms"]["p50"])
    assert rival["difference"] == {"output": "", "absolute": 0.0, "relative": 0.0}
    assert "the same values" in distort(*given).out

    def off(module: Any, model: str, threads: int) -> rivals.Rival:
        return rivals.Rival("off by one", lambda feeds: [feeds["x"] + 1, 2 * feeds["x"] + 2])

    monkeypatch.setitem(rivals._OPENERS, "onnxruntime", off)
    zeros = {"x": np.zeros((3, 2), np.float32), "bias": np.zeros(2, np.float32)}
    np.savez(tmp_path / "zeros.npz", **zeros)
    many = ("--in-flight", "2", "--input", f"{tmp_path}/zeros.npz", "--json")
    told = json.loads(distort(*given, *many).out)["measured"][0]
    assert told["rivals"][0]["ratio"] == pytest.approx(told["runs_per_s"] / told["rivals"][0]["runs_per_s"])
    assert told["rivals"][0]["difference"] == {"output": "doubled", "absolute": 2.0, "relative": 1.0}


def test_differences_between_outputs() -> None:
    names = ["a", "b"]
    a, b = np.array([1.0, np.nan, np.inf], np.float32), np.array(["x"], object)
    assert rivals.difference(names, [a, b], [a, b]) == rivals.Difference()
    found = rivals.difference(names, [a, b], [a + np.float32(0.5), b])
    assert (found.output, found.absolute, found.relative) == ("a", 0.5, pytest.approx(1 / 3))
    assert "at most 5.0e-01 off, in 'a'" in found.text()
    assert rivals.difference(names, [a, b], [a[::-1], b]).absolute is None
    assert rivals.difference(names, [a, b], [a, np.array(["y"], object)]).text() == "'b' is another value"
    assert rivals.difference(["s"], [[a, a]], [[a, a - 1]]).absolute == 1


def test_a_rival_that_is_not_installed(
    distort: Distort, write_model: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import_module = importlib.import_module

    def without(name: str, package: str | None = None) -> ModuleType:
        if name in rivals.NAMES:
            raise ModuleNotFoundError(name)
        return import_module(name, package)

    monkeypatch.setattr(rivals, "import_module", without)
    ran = distort("bench", write_model(), "--against", "openvino", "--against", "onnxruntime")
    assert ran.code == 1 and "pip install openvino" in ran.err and ran.err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("--dim", "M=3"), 2, "They have: N"),
        (("--dim", "N"), 2, "NAME=SIZE"),
        (("--address", "auto"), 2, "--parallel"),
        (("--seconds", "0"), 2, "no number of seconds"),
        (("--in-flight", "0"), 2, "less than 1"),
        (("--threads", "1,-2"), 2, "is negative"),
        (("--against", "torch"), 2, "invalid choice"),
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
    assert json.loads(distort(*given, "--json").out)["measured"][0]["notes"]


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
