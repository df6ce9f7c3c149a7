"""What a type checker makes of a typical program."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
WRONG = """
import distort

session = distort.InferenceSession("m.onnx", distort.SessionOptions(), providers=3)
session.nothing()
"""


def _check(folder: Path, name: str) -> str:
    """What strict mypy prints, away from the project's own configuration."""
    command = [sys.executable, "-m", "mypy", "--strict", "--no-incremental", "--follow-imports=silent", name]
    environment = os.environ | {"MYPYPATH": str(folder / "installed")}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    return done.stdout


def test_mypy_accepts_a_users_script(tmp_path: Path) -> None:
    # the tree as a wheel installs it: the four folders are one package
    shutil.copytree(ROOT / "distort", tmp_path / "installed" / "distort")
    for name in ("kernels", "scheduler", "cluster"):
        shutil.copytree(ROOT / name, tmp_path / "installed" / "distort" / name)
    shutil.copy(Path(__file__).with_name("user_script.py"), tmp_path / "script.py")
    (tmp_path / "wrong.py").write_text(WRONG)
    assert _check(tmp_path, "script.py").startswith("Success")
    found = _check(tmp_path, "wrong.py")
    assert '"InferenceSession" has no attribute "nothing"' in found
    assert 'Argument "providers" to "InferenceSession" has incompatible type "int"' in found
