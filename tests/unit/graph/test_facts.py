"""What onnx said once is not asked again, and what is on the disk is never taken for something else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import onnx
import onnx.parser
import pytest

from distort.graph import facts

MODEL = """<ir_version: 9, opset_import: ["" : 17]>
g (float[N,4] x) => (float[N,4] y) { a = Add (x, x) b = Relu (a) y = Softmax (b) }"""
SCRIPT = """
import sys
from distort.engine import load_model, optimize
from distort.graph.operators import latest_opsets, operator
model = load_model(sys.argv[1])
optimize(model, "all")
print("onnx.onnx_cpp2py_export" in sys.modules)
print([operator("", name, 17) for name in ("Add", "Relu", "Softmax")], sorted(latest_opsets().items()))
"""


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A cache of this test's own, in a process that seems not to have imported ``onnx``."""
    monkeypatch.setenv("DISTORT_CACHE_DIR", str(tmp_path / "cache"))
    for name in [name for name in sys.modules if name.startswith("onnx.defs")]:
        monkeypatch.delitem(sys.modules, name)
    return tmp_path / "cache" / "onnx"


def test_a_second_process_doesnt_load_onnx(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(onnx.parser.parse_model(MODEL), path)
    environment = {**os.environ, "DISTORT_CACHE_DIR": str(tmp_path / "cache"), "PYTHONHASHSEED": "0"}
    command = [sys.executable, "-c", SCRIPT, str(path)]
    first, second = (
        subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout.splitlines()
        for _ in range(2)
    )
    assert (first[0], second[0]) == ("True", "False")
    assert first[1] == second[1]


def test_an_answer_is_kept(own: Path) -> None:
    assert facts.known("kind", b"asked", lambda: b"answer") == b"answer"
    assert facts.known("kind", b"asked", lambda: b"other") == b"answer"
    assert facts.known("kind", b"else", lambda: b"other") == b"other"


def test_a_damaged_answer_is_asked_for_again(own: Path) -> None:
    facts.known("kind", b"asked", lambda: b"answer")
    (path,) = own.iterdir()
    path.write_bytes(path.read_bytes()[:-1])
    assert facts.known("kind", b"asked", lambda: b"new") == b"new"


def test_an_error_is_not_kept(own: Path) -> None:
    def fail() -> bytes:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        facts.known("kind", b"asked", fail)
    assert facts.known("kind", b"asked", lambda: b"answer") == b"answer"


def test_onnx_is_asked_where_the_process_may_have_own_schemas(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx.defs", onnx.defs)
    assert facts.known("kind", b"asked", lambda: b"answer") == b"answer"
    assert not own.exists()
