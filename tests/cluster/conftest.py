"""Scenarios run in processes of their own, which leave nothing behind."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Scenario = Callable[..., dict[str, Any]]


@pytest.fixture
def scenario(tmp_path: Path) -> Scenario:
    """Runs a function of a module beside this one; what it found."""

    def run(module: str, name: str, timeout_s: float = 180) -> dict[str, Any]:
        done = subprocess.run(
            [sys.executable, str(Path(__file__).with_name(f"{module}.py")), name, str(tmp_path / "scenario")],
            capture_output=True,
            text=True,
            timeout=timeout_s,
            cwd=tmp_path,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found

    (tmp_path / "scenario").mkdir()
    return run
