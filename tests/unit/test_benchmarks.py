"""The scripts in benchmarks/: what they make of figures, and that they run."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx.parser
import pytest

ROOT = Path(__file__).resolve().parents[2]
MODEL = """<ir_version: 10, opset_import: ["" : 21]> g (float[1,N,4] x, float[1,N] mask) => (float[1,N,4] y) {
    a = Relu (x)
    y = Softmax (a)
}"""


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module


@pytest.fixture
def models(tmp_path: Path) -> Path:
    folder = tmp_path / "models" / "small"
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(onnx.parser.parse_model(MODEL).SerializeToString())
    feeds = {"x": np.arange(20, dtype=np.float32).reshape(1, 5, 4), "mask": np.ones((1, 5), np.float32)}
    np.savez(folder / "inputs.npz", **feeds)
    return folder.parent


def test_tables_and_means(script: Callable[[str], Any]) -> None:
    latency = script("latency")
    rows = [
        latency.Row("a", 1, {"distort": 1.0, "onnxruntime": 2.0}),
        latency.Row("a", 2, {"distort": 1.0, "onnxruntime": 1.0, "openvino": 3.0}),
        latency.Row("b", 1, {"distort": 2.0, "onnxruntime": 1.0}),
        latency.Row("b", 2, {"distort": 1.0}),
        latency.Row("c", 1, {"distort": 1.0, "onnxruntime": 9.0}, wrong="off"),
    ]
    one, two, other = latency.summary(rows)
    assert one == "1 thread, against onnxruntime: geometric mean 1.00, lowest 0.50 (b), 2 models"
    assert two.startswith("2 threads, against onnxruntime: geometric mean 1.00") and "OpenVINO" in other
    short = latency.short_table(rows).splitlines()
    assert [cell.strip() for cell in short[2].split("|")[1:-1]] == ["a", "1.000", "2.000", "2.00", "1.00"]
    assert "wrong" in short[4] and "**0.50**" in short[-1]
    assert "wrong: off" in latency.long_table(rows)


def test_latency_from_end_to_end(
    script: Callable[[str], Any], models: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxruntime")
    latency = script("latency")
    monkeypatch.setattr(latency, "RIVALS", ("onnxruntime",))
    given = ["latency.py", "--models", str(models), "--threads", "1", "2", "--seconds", "0.01", "--profile"]
    monkeypatch.setattr(sys, "argv", given)
    latency.main()
    told = capsys.readouterr().out
    assert re.search(r"\| small +\| 1 +\| 0\.\d{3} ", told) and "1 thread, against onnxruntime" in told


def test_sides_take_turns_and_are_warmed_alike(script: Callable[[str], Any]) -> None:
    calls: list[str] = []
    sides = {name: (lambda name=name: calls.append(name)) for name in ("one", "two")}
    medians = script("side_by_side").medians_ms(sides, 0.0)
    assert calls[:10] == ["one"] * 5 + ["two"] * 5 and set(medians) == {"one", "two"}


def test_a_table_takes_the_place_of_the_one_before(
    script: Callable[[str], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    side_by_side = script("side_by_side")
    monkeypatch.setattr(side_by_side, "__file__", str(tmp_path / "benchmarks" / "side_by_side.py"))
    document = tmp_path / "page.md"
    document.write_text("before\n<!-- t -->\nold\n<!-- /t -->\nafter\n")
    side_by_side.publish("page.md", "t", "new")
    assert document.read_text() == "before\n<!-- t -->\nnew\n<!-- /t -->\nafter\n"
    with pytest.raises(SystemExit, match="no place for 'u'"):
        side_by_side.publish("page.md", "u", "new")


def test_the_places_of_tables_are_there() -> None:
    for path in (ROOT / "benchmarks").glob("*.py"):
        for document, name in re.findall(r'publish\("([\w./]+)", "(\w+)"', path.read_text()):
            text = (ROOT / document).read_text()
            assert f"<!-- {name} -->\n" in text and f"<!-- /{name} -->" in text, (path.name, document, name)


def test_feeds_of_other_lengths(script: Callable[[str], Any], models: Path) -> None:
    lengths, side_by_side = script("lengths"), script("side_by_side")
    session = side_by_side.open_session(str(models / "small" / "model.onnx"))
    symbol = lengths.symbol_of(session, "")
    made = lengths.resized(session, side_by_side.load_feeds(models / "small"), symbol, 7)
    assert symbol == "N" and made["x"].shape == (1, 7, 4) and made["mask"].shape == (1, 7)
    np.testing.assert_array_equal(made["x"][:, 5], made["x"][:, 0])


def test_the_machine_has_peaks(script: Callable[[str], Any]) -> None:
    peaks = script("peaks")
    assert 1 < peaks.peak_gflop_per_s(0.01) < 10_000
    copying = peaks.Copying()
    assert copying.gb_per_s(60_000) == copying.gb_per_s(65_536) > 0.1
