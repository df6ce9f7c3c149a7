"""Hosts with a network between them: namespaces, which are the test's own. Skipped without the right to make them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

Scenario = Callable[..., dict[str, Any]]


def _may_make_namespaces() -> bool:
    name = f"ds{os.getpid()}"
    if shutil.which("ip") is None or os.geteuid() != 0:
        return False
    made = subprocess.run(["ip", "netns", "add", name], check=False, capture_output=True).returncode == 0
    if made:
        subprocess.run(["ip", "netns", "del", name], check=True, capture_output=True)
    return made


@pytest.mark.slow
def test_a_link_that_is_cut_and_a_raylet_that_is_killed(scenario: Scenario) -> None:
    if not _may_make_namespaces():
        pytest.skip("making network namespaces wants root and iproute2")
    timeout_s = 15  # distort.timeout_s of the sessions
    found = scenario("hosts", "two_workers", timeout_s=150)
    assert all(found[name]["under way"] for name in ("cut", "cut, with a reserve", "raylet killed"))
    # a session by address, from a driver whose node hosts no actor
    assert sorted(found["addresses"]) == ["10.213.77.2", "10.213.77.3"]
    assert found["right"] and found["edges"] == ["object_store"]
    # the link is cut in the middle of a run, and no other node has room: an error that says so, long before Ray's own
    assert found["cut"]["error"] in ("Fail", "EPFail") and found["cut"]["seconds"] < timeout_s
    assert "no room for an actor" in found["cut"]["text"] and "10.213.77.2" in found["cut"]["text"]
    assert found["cut again"]["error"] in ("Fail", "EPFail") and found["cut again"]["seconds"] < 1
    assert found["closing"] < 5
    # with a node in reserve, the run is replayed there, and is right
    assert sorted(found["before"]) == ["10.213.77.2", "10.213.77.3"]
    assert (found["cut, with a reserve"]["error"], found["cut, with a reserve"]["text"]) == (None, "True")
    assert found["moved"] == ["10.213.77.2", "10.213.77.2"]
    # the raylet beneath one of the two is killed, while the other worker is back
    assert (found["raylet killed"]["error"], found["raylet killed"]["text"]) == (None, "True")
    assert sorted(found["moved again"]) == ["10.213.77.2", "10.213.77.3"]
    assert found["right again"]
    for name in ("cut, with a reserve", "raylet killed"):
        assert found[name]["seconds"] < timeout_s
