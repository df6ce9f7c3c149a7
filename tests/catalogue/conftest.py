"""What the rows run in: a folder, a mode, and for the parallel ones a cluster that no actor outlives."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ..conftest import wait_until
from ..local.conftest import actor_pids, cluster
from .table import Env

__all__ = ["cluster"]


@pytest.fixture
def make_env(tmp_path: Path) -> Iterator[Callable[..., Env]]:
    """Makes the one Env of a test; its sessions end with the test."""
    made: list[Env] = []

    def make(ort: Any, parallel: bool = False) -> Env:
        made.append(Env(ort, tmp_path, parallel))
        return made[0]

    yield make
    for env in made:
        env.close()


@pytest.fixture
def no_actor_outlives(cluster: None) -> Iterator[None]:
    yield
    gc.collect()
    wait_until(lambda: not actor_pids(), 10)
    assert not actor_pids(), f"stage actors left behind: {actor_pids()}"
