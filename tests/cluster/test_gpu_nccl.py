"""Values from GPU to GPU over hosts by NCCL, on real Ray clusters of two nodes whose GPUs are none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

Scenario = Callable[..., dict[str, Any]]


def test_between_gpus_of_two_nodes_values_go_by_nccl(scenario: Scenario) -> None:
    found = scenario("nccl_scenarios", "two_hosts")
    assert found["stages"] == 2 and all(found["right"])
    nbytes, messages = found["moved"]["nccl"]
    # sizes that change; what is empty needs no GPU
    assert messages == 4 and nbytes == found["sizes"] * 64 * 4
    assert found["moved"]["object_store"][0] == 0
    assert "values go to stage1 by NCCL 2.32.3" in found["explained"]


@pytest.mark.slow
def test_a_value_for_two_hosts_with_many_runs_in_flight(scenario: Scenario) -> None:
    found = scenario("nccl_scenarios", "three_gpus_over_two_hosts")
    assert found["wrong"] == []
    assert found["moved"]["nccl"][1] and found["moved"]["cuda_ipc"][1] and "object_store" not in found["moved"]
    assert "nccl" in found["traced"]
    # for each run in flight a buffer for each value that comes or goes, and no more
    assert all(0 < nbytes <= 6 * 4 * (2 << 20) for nbytes in found["buffers"])


@pytest.mark.slow
def test_either_side_is_killed_and_the_one_in_its_place_has_a_link_again(scenario: Scenario) -> None:
    found = scenario("nccl_scenarios", "killed")
    assert found["outcomes"] == [["right"], ["right"]]
    assert found["epochs"] == [[1, 0], [1, 1]] and found["by nccl again"] == [True, True]


@pytest.mark.slow
def test_where_nccl_can_not_be_values_go_by_the_object_store_and_it_is_said_why(scenario: Scenario) -> None:
    found = scenario("nccl_scenarios", "other_ways")
    reasons = {
        "missing": "NCCL is not installed: pip install nvidia-nccl-cu12",
        "one gpu": "stage0 and stage1 are on one GPU",
        "refused": "NCCL's result 7",
    }
    for name, reason in reasons.items():
        told = found[name]
        assert told["right"] and list(told["moved"]) == ["object_store"], name
        (line,) = told["explained"]
        assert line.strip().startswith("values go to stage1 by the hosts' memory and Ray:") and reason in line, line
    assert "distort.strict_placement" in found["strict"] and reasons["missing"] in found["strict"]


@pytest.mark.slow
def test_a_network_that_is_silent_ends_runs_in_time(scenario: Scenario) -> None:
    first, _, second, _, third, seconds = scenario("nccl_scenarios", "stalled")["told"]
    assert first == second == "right"
    assert "did not end within its deadline" in third and int(seconds) <= 6
