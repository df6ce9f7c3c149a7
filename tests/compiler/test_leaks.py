"""What compiled sessions leave behind: nothing. What a run leaves: its results."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

#: what an allocator keeps for itself
SLACK_KB = 4096
SCRIPT = Path(__file__).with_name("leaks.py")


@pytest.fixture(scope="module")
def states(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, int]]:
    """Of a process: after sessions, after as many more, after runs, after as many more."""
    command = [sys.executable, str(SCRIPT), str(tmp_path_factory.mktemp("leaks")), "100", "10000"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    found: list[dict[str, int]] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("before", [0, 2], ids=["sessions", "runs"])
def test_nothing_grows(states: list[dict[str, int]], before: int) -> None:
    first, second = states[before : before + 2]
    assert second["files"] <= first["files"]
    assert second["threads"] <= first["threads"]
    assert second["objects"] <= first["objects"] * 1.02
    assert second["resident_kb"] <= first["resident_kb"] + SLACK_KB
