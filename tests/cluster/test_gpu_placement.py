"""Actors with GPUs on real Ray clusters whose GPUs are none: what Ray grants, what processes see, where they go."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Scenario = Callable[..., dict[str, Any]]


def test_actors_with_gpus_take_no_cpus_and_see_all_gpus_and_others_see_none(scenario: Scenario) -> None:
    found = scenario("gpu_scenarios", "a_programs_own")
    whole, *halves, _, _ = found["five"]
    assert len(whole["granted"]) == 1
    assert halves[0]["granted"] == halves[1]["granted"] != whole["granted"]
    assert {actor["visible"] for actor in (whole, *halves)} == {"4,7"}
    for actor in found["five"][3:]:
        assert (actor["granted"], actor["visible"]) == ([], "")
    assert "no room for 3 actors on 3 GPUs" in found["too many"] and "2 GPUs" in found["too many"]


def test_over_nodes_each_goes_where_a_gpu_is(scenario: Scenario) -> None:
    found = scenario("gpu_scenarios", "several_nodes")
    assert sorted(found["gpus"][:3]) == [1, 2, 2]
    assert all(len(actor["granted"]) == 1 for actor in found["told"][:3])
    assert found["told"][3]["granted"] == []
    assert found["devices"] == ["cuda:0", "cuda:1", "cuda:2"]
    # a session, whose driver has neither a GPU nor CuPy
    assert found["right"] and not found["here"]
    assert found["devices of stages"] == ["cuda:0", "cuda:1", "cuda:2"]
    assert len({tuple(own) for own in found["gpus of actors"]}) == 3 and found["free"] == 0
    # from node to node there is no memory that both see
    assert "object_store" in found["moved"]
