"""Skips what is here where CUDA of the CPU isn't built and in the environment: see README.md."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    if os.environ.get("CUDA_ON_CPU"):
        return
    skip = pytest.mark.skip(reason="CUDA of the CPU isn't in the environment (tests/cuda_on_cpu/README.md)")
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(skip)
