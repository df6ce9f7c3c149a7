"""Some thousands of rounds of the fuzzer, in processes of their own: they limit their memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.parametrize("first", [0, 1_000_000])
def test_no_damaged_model_raises_what_is_no_error_of_ours(first: int) -> None:
    command = [sys.executable, str(Path(__file__).with_name("fuzz.py")), "--rounds", "4000", "--first", str(first)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert "4000 rounds, 0 wrong" in done.stdout
