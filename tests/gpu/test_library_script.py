"""The script that holds libraries on a GPU against NumPy: all its cases, on the libraries that are here."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("gpu_libraries")


def test_all_cases_are_right_and_done_by_libraries(script: Any, fake_cuda: Any) -> None:
    for name, case in script.cases().items():
        for dtype in ("float32", "float16"):
            outcome = script.run(case, dtype, 0)
            assert max(outcome.errors) <= script.TOLERANCES[dtype], (name, dtype, outcome)
            assert any(kind.startswith("cuda ") for kind in outcome.operations), (name, dtype, outcome)


def test_what_is_wrong_is_told(
    script: Any, fake_cuda: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script.main(["--only", "one column", "--runs", "1"]) == 0
    assert capsys.readouterr().out.count("ok ") == 3
    monkeypatch.setattr(script, "TOLERANCES", dict.fromkeys(script.TOLERANCES, -1.0))
    assert script.main(["--only", "one column", "--runs", "1"]) == 1
    assert "3 wrong" in capsys.readouterr().out
