"""Sessions over two and three nodes: where actors go, what comes back, and what happens when a node goes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

Scenario = Callable[..., dict[str, Any]]


@pytest.mark.slow
def test_two_nodes_and_the_loss_of_one(scenario: Scenario) -> None:
    found = scenario("scenarios", "two_nodes")
    assert found["right"]
    assert len(set(found["nodes"])) == 2
    crossed = {(edge["value"], edge["transport"]) for edge in found["moved"] if edge["producer"] != edge["consumer"]}
    assert ("looped", "object_store") in crossed  # from node to node there is no shared memory
    assert found["too_many"]["error"] == "Fail" and "no room for 3 actors of 1 CPUs" in found["too_many"]["text"]
    # the run under way is replayed where there is room, within its deadline
    assert found["under way"]
    assert found["during"]["error"] is None, found["during"]
    assert found["during"]["text"] == found["want"] and found["during"]["seconds"] < 20
    assert found["after"]["text"] == "True"
    assert found["nodes_after"][0] == found["nodes"][0] and found["nodes_after"][1] not in found["nodes"]


@pytest.mark.slow
def test_three_nodes_of_which_the_drivers_hosts_nothing_and_one_lacks_distort(scenario: Scenario) -> None:
    found = scenario("scenarios", "three_nodes")
    assert found["right"]
    assert len({found["here"], *found["nodes"]}) == 3
    assert found["old"]["error"] == "Fail"
    for word in ("has onnx 1.2.3", "stages want", "distort.runtime_env"):
        assert word in found["old"]["text"]


@pytest.mark.slow
@pytest.mark.models
@pytest.mark.usefixtures("models")
def test_real_models_over_two_nodes(scenario: Scenario) -> None:
    found = scenario("scenarios", "real_models", timeout_s=120)  # it compares the answers itself
    assert len(found) == 4
    for name, told in found.items():
        assert len(set(told["nodes"])) == 2, name
        assert told["nbytes"] > 0, name
