"""The index of families says what the registry holds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import distort.kernels.ops
from distort.kernels.ops.__main__ import index_text
from distort.kernels.table import schemas, table_text

LISTING = """
import sys
from distort.kernels.registry import find
assert find("", "Add", 14) is not None
print(sorted(name for name in sys.modules if name.startswith("distort.kernels.ops.")))
"""


def test_the_index_is_current() -> None:
    written = Path(distort.kernels.ops.__file__).with_name("index.py").read_text()
    assert written == index_text(), "run python -m distort.kernels.ops"


def test_a_process_imports_the_families_that_it_uses() -> None:
    done = subprocess.run([sys.executable, "-c", LISTING], check=True, capture_output=True, text=True)
    assert "distort.kernels.ops.arithmetic" in done.stdout
    for family in ("resize", "recurrent", "ml_trees", "randomness"):
        assert f"distort.kernels.ops.{family}" not in done.stdout


def test_the_table_of_operators_is_current() -> None:
    document = Path(__file__).resolve().parents[3] / "docs" / "operators.md"
    assert document.read_text() == table_text(), "run python -m distort.kernels.table"


def test_every_version_of_every_operator_runs() -> None:
    text = table_text()
    assert sum(len(versions) for versions in schemas().values()) >= 659
    assert "missing" not in text
