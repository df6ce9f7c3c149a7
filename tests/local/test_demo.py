"""``distort demo`` and ``distort run --parallel`` on real actors."""

from __future__ import annotations

import json
import re
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
import onnx.parser
import pytest

from distort.cli import digits, main

ROOT = Path(__file__).resolve().parents[2]


def test_the_demo_agrees_and_tells_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["n_images"] == 450
    assert told["identical"] or told["largest_difference"] <= 1e-5
    assert told["same_digits"]
    assert told["in_process"]["accuracy"] == told["on_actors"]["accuracy"] >= 0.97
    assert (told["in_process"]["n_stages"], told["on_actors"]["n_stages"]) == (1, 2)
    # the plan's bytes are those that moved
    predicted = {(e["value"], e["producer"], e["consumer"]): e["nbytes"] for e in told["on_actors"]["plan"]["edges"]}
    moved = {
        (e["value"], e["producer"], e["consumer"]): e["nbytes"] / e["messages"] for e in told["on_actors"]["transfers"]
    }
    assert moved == predicted


def test_the_demo_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo"]) == 0
    captured = capsys.readouterr()
    assert captured.err == "" and "\x1b" not in captured.out
    assert "agree to the last bit" in captured.out or "differ by" in captured.out
    assert "stage0 → stage1" in captured.out
    assert "on two actors" in captured.out and "98." in captured.out
    assert "█" in captured.out


def test_run_on_actors_gives_what_one_process_gives(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    np.save(tmp_path / "image.npy", digits.held_out().images[:7])
    with as_file(files("distort.cli").joinpath("digits.onnx")) as model:
        for name, extra in (("one", []), ("two", ["--parallel", "2"])):
            feeds = ["--input", f"image={tmp_path}/image.npy", "--output", f"{tmp_path}/{name}.npz"]
            assert main(["run", str(model), *feeds, "--json", *extra]) == 0
            told = json.loads(capsys.readouterr().out)
    assert told["stages"] == 2
    assert {edge["value"] for edge in told["transfers"]} >= {"image", "probabilities"}
    with np.load(tmp_path / "one.npz") as one, np.load(tmp_path / "two.npz") as two:
        np.testing.assert_allclose(one["probabilities"], two["probabilities"], rtol=1e-5)


@pytest.mark.parametrize("document", ["README.md", "docs/usage.md"])
def test_documented_code_for_actors_runs(
    document: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (code,) = [
        block
        for block in re.findall(r"^```python\n(.*?)^```", (ROOT / document).read_text(), re.MULTILINE | re.DOTALL)
        if "ORT_PARALLEL" in block
    ]
    text = '<ir_version: 10, opset_import: ["" : 21]> g (float[N,3] x) => (float[N,3] y) { a = Relu(x)  y = Neg(a) }'
    (tmp_path / "model.onnx").write_bytes(onnx.parser.parse_model(text).SerializeToString())
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(compile(code, document, "exec"), names)
    np.testing.assert_array_equal(names["y"], -np.ones((2, 3), np.float32))
    assert "2 stages of 2 nodes" in capsys.readouterr().out


def test_an_address_nobody_answers_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with as_file(files("distort.cli").joinpath("digits.onnx")) as model:
        assert main(["run", str(model), "--parallel", "2", "--address", "127.0.0.1:1"]) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("distort run: error: ") and captured.err.count("\n") == 1
