"""Tests on real Ray actors: one embedded cluster a test run, and no actor outlives its test."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator

import psutil
import pytest

from distort.cluster.resources import attach


def actor_pids() -> set[int]:
    """Processes of stage actors below this process."""
    found = set()
    for process in psutil.Process().children(recursive=True):
        try:
            if "StageActor" in " ".join(process.cmdline()):
                found.add(process.pid)
        except psutil.NoSuchProcess:
            continue
    return found


@pytest.fixture(scope="session")
def cluster() -> Iterator[None]:
    attach()
    yield


@pytest.fixture(autouse=True)
def no_actor_outlives_its_test(cluster: None) -> Iterator[None]:

    yield
    gc.collect()
    deadline = time.monotonic() + 10
    while actor_pids() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not actor_pids(), f"stage actors left behind: {actor_pids()}"
