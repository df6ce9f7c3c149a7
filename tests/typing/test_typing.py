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
#: names of submodules by way of the package alone
DOTTED = """
import distort as onnxruntime

try:
    onnxruntime.InferenceSession("m.onnx")
except onnxruntime.capi.onnxruntime_pybind11_state.NoSuchFile as error:
    print(error.args)
print(onnxruntime.datasets.get_example("mul_1.onnx"), onnxruntime.backend.supports_device("CPU"))
"""


def _check(folder: Path, name: str) -> str:
    """What strict mypy prints, away from the project's own configuration."""
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir=cache", "--follow-imports=silent", name]
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
    (tmp_path / "dotted.py").write_text(DOTTED)
    assert _check(tmp_path, "script.py").startswith("Success")
    assert _check(tmp_path, "dotted.py").startswith("Success")
    found = _check(tmp_path, "wrong.py")
    assert '"InferenceSession" has no attribute "nothing"' in found
    assert 'Argument "providers" to "InferenceSession" has incompatible type "int"' in found
