"""Actors are killed at random while runs are under way. ``tests/faults/kills.py`` does it as often as one likes."""

from __future__ import annotations

import pytest

from ..faults import kills


@pytest.mark.slow
@pytest.mark.parametrize(("name", "seed"), [("chain", 1), ("diamond", 2), ("state", 3)])
def test_runs_survive_kills(name: str, seed: int) -> None:
    tally = kills.hammer(name, 8, seed)
    assert not tally.wrong
    assert tally.outcomes["kills"] >= 8
    assert tally.outcomes["right"] >= 3
    assert tally.slowest_s < kills.DEADLINE_S
