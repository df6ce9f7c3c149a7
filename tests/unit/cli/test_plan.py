"""``distort plan``: the cut and its price, for devices that need not exist."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from .conftest import Ran

Distort = Callable[..., Ran]
CHAIN = """chain (float[batch,64] x) => (float[batch,64] y) {
    [first] a = Sqrt(x)
    [second] b = Exp(a)
    [third] c = Sqrt(b)
    [fourth] y = Exp(c)
}"""


@pytest.fixture
def model(write_model: Callable[..., str]) -> str:
    return write_model(CHAIN)


def plan(distort: Distort, *arguments: str) -> dict:
    ran = distort("plan", *arguments, "--json")
    assert (ran.code, ran.err) == (0, "")
    return json.loads(ran.out)


def test_as_many_stages_as_actors_and_every_node_in_one(distort: Distort, model: str) -> None:
    told = plan(distort, model, "--actors", "2")
    assert len(told["stages"]) == 2
    assert sorted(name for stage in told["stages"] for name in stage["node_names"]) == [
        "first",
        "fourth",
        "second",
        "third",
    ]
    assert told["no_kernel"] == []


def test_bytes_follow_the_dimensions(distort: Distort, model: str) -> None:
    told = plan(distort, model, "--actors", "2", "--dim", "batch=10")
    assert {edge["nbytes"] for edge in told["edges"]} == {10 * 64 * 4}


def test_devices_need_not_exist(distort: Distort, model: str) -> None:
    told = plan(distort, model, "--actors", "2", "--devices", "1xcuda:80GB,1xcpu:4")
    assert {stage["device"]["id"] for stage in told["stages"]} == {"cuda:0", "cpu:0"}


def test_hosts_and_replicas(distort: Distort, model: str) -> None:
    told = plan(distort, model, "--actors", "2", "--devices", "cpu@a,cpu@b")
    assert [stage["device"]["host"] for stage in told["stages"]] == ["a", "b"]
    assert {edge["transport"] for edge in told["edges"]} == {"object_store"}
    twice = plan(distort, model, "--actors", "2", "--devices", "4xcpu:1", "--replicas", "2")
    assert [len(stage["replicas"]) for stage in twice["stages"]] == [1, 1]
    auto = plan(distort, model, "--devices", "4xcpu:1", "--replicas", "auto", "--objective", "throughput")
    assert any(note.startswith("compared for throughput") for note in auto["notes"])


def test_a_simulated_schedule_comes_along(distort: Distort, model: str) -> None:
    ran = distort("plan", model, "--actors", "2", "--runs", "2")
    assert "Simulated: 2 runs at once" in ran.out and "0F1" in ran.out and "1F1" in ran.out
    told = plan(distort, model, "--actors", "2", "--runs", "3")
    actions = {action["action"] for action in told["simulated"]["actions"]}
    assert actions == {"0F0", "0F1", "0F2", "1F0", "1F1", "1F2"}
    assert "simulated" not in plan(distort, model, "--runs", "0")


def test_memory_makes_stages(distort: Distort, write_model: Callable[..., str]) -> None:
    zeros = ", ".join(["0"] * 1000)
    weights = ", ".join(f"float[1000] w{i} = {{{zeros}}}" for i in range(4))
    steps = " ".join(f"v{i + 1} = Add(v{i}, w{i})" for i in range(4))
    path = write_model(f"g (float[1000] v0) => (float[1000] v4) <{weights}> {{ {steps} }}")
    told = plan(distort, path, "--memory", "21KB")
    assert len(told["stages"]) > 1
    assert all(stage["weights_nbytes"] + stage["activations_nbytes"] <= 21_000 for stage in told["stages"])
    ran = distort("plan", path, "--memory", "5KB")
    assert ran.code == 1 and "alone wants" in ran.err and "the largest device has 5 KB" in ran.err


def test_measured_costs(distort: Distort, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTORT_CACHE_DIR", str(tmp_path / "cache"))
    np.save(tmp_path / "x.npy", np.ones((5, 64), np.float32))
    told = plan(distort, model, "--actors", "2", "--measure", "--input", f"x={tmp_path / 'x.npy'}")
    assert any("measured on this machine" in note for note in told["notes"])
    assert {edge["nbytes"] for edge in told["edges"]} == {5 * 64 * 4}
    again = plan(distort, model, "--actors", "2")
    assert any("batch=5" in note for note in again["notes"])


def test_tables_say_where_and_why(distort: Distort, model: str) -> None:
    ran = distort("plan", model, "--actors", "2")
    assert ran.code == 0 and "\x1b" not in ran.out
    assert "stage0 → stage1" in ran.out
    assert "Why" in ran.out and "2 stages were asked for" in ran.out
    assert "Predicted" in ran.out


def test_the_page_is_written_whole(distort: Distort, model: str, tmp_path: Path) -> None:
    target = tmp_path / "plan.html"
    ran = distort("plan", model, "--actors", "2", "--html", str(target))
    assert ran.code == 0
    page = target.read_text()
    assert page.rstrip().endswith("</html>") and "stage1" in page
    assert sorted(tmp_path.iterdir()) == sorted([target, Path(model)])


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("--devices", "2xfoo"), 2, "2xfoo"),
        (("--replicas", "0"), 2, "write auto"),
        (("--memory", "lots"), 2, "can't read 'lots'"),
        (("--input", "x=x.npy"), 2, "goes with --measure"),
        (("--dim", "batch"), 2, "NAME=SIZE"),
        (("--dim", "rows=3"), 2, "It has: batch"),
        (("--actors", "-1"), 2, "negative"),
        (("--actors", "two"), 2, "--actors"),
        (("--devices", "1xcpu:1:16B"), 1, "memory"),
        (("--html", "/no/such/folder/plan.html"), 1, "no folder"),
    ],
)
def test_what_is_wrong_is_said(distort: Distort, model: str, arguments: tuple[str, ...], code: int, text: str) -> None:
    ran = distort("plan", model, *arguments)
    assert ran.code == code
    assert ran.out == ""
    assert text in ran.err and "Traceback" not in ran.err


def test_operators_without_code_are_named(distort: Distort, write_model: Callable[..., str]) -> None:
    path = write_model("g (float[N,2,2] x) => (float[N,2,2] y) { a = Det (x) y = Mul (x, a) }")
    assert plan(distort, path)["not_compiled"] == ["Det"]
    assert "run by NumPy kernels there: Det" in distort("plan", path).out


def test_an_operator_without_a_kernel_is_named(distort: Distort, write_model: Callable[..., str]) -> None:
    header = '<ir_version: 10, opset_import: ["" : 21, "com.acme" : 1]>\n'
    path = write_model("g (float[2] x) => (float[2] y) { y = com.acme.Warp(x) }", header=header)
    ran = distort("plan", path, "--json")
    said = ran.out + ran.err
    assert "Warp" in said and "Traceback" not in said


def test_a_written_plan_is_planned_again(distort: Distort, model: str, tmp_path: Path) -> None:
    target = tmp_path / "annotated.onnx"
    ran = distort("plan", model, "--actors", "2", "--write", str(target))
    assert ran.code == 0
    assert "with the device configuration 'distort'; its IR version is 11, and was 10" in ran.out
    first, again = plan(distort, model, "--actors", "2"), plan(distort, str(target), "--partition", "annotations")
    assert [stage["node_names"] for stage in again["stages"]] == [stage["node_names"] for stage in first["stages"]]
    assert any("device configuration 'distort'" in note for note in again["notes"])
    told = json.loads(distort("inspect", str(target), "--json").out)["configurations"]
    assert told == [
        {"name": "distort", "n_devices": 2, "devices": ["cpu:0", "cpu:1"], "stages": [0, 1], "n_annotated": 4}
    ]
    assert "cpu:0, cpu:1" in distort("inspect", str(target)).out


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("--partition", "annotations:other"), 1, "no device configuration 'other'. It has: distort"),
        (("--partition", "annotations", "--actors", "3"), 1, "3 stages are asked for"),
        (("--partition", "annotations", "--devices", "1xcpu"), 1, "cpu:1 is not here; there are: cpu:0"),
        (("--partition", "mine"), 2, "annotations:NAME"),
        (("--write", "/no/such/folder/out.onnx"), 1, "no folder"),
    ],
)
def test_what_is_wrong_with_annotations_is_said(
    distort: Distort, model: str, tmp_path: Path, arguments: tuple[str, ...], code: int, text: str
) -> None:
    target = tmp_path / "annotated.onnx"
    assert distort("plan", model, "--actors", "2", "--write", str(target)).code == 0
    ran = distort("plan", str(target), *arguments)
    assert (ran.code, ran.out) == (code, "")
    assert text in ran.err and "Traceback" not in ran.err
