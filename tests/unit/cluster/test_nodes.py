"""How actors are shared out among nodes."""

from __future__ import annotations

import pytest

from distort.cluster.errors import ClusterError
from distort.cluster.nodes import Node, Place, devices_of, share_out, threads_of


def node(name: str, n_cpus: float, free: float | None = None, host: str = "", here: bool = False) -> Node:
    return Node(
        name, f"10.0.0.{ord(name[0])}", 1, host or f"host-{name}", n_cpus, n_cpus if free is None else free, 0, 0, here
    )


def ids(places: tuple[Place, ...]) -> str:
    return "".join(place.node_id for place in places)


@pytest.mark.parametrize(
    ("nodes", "n_actors", "threads", "expected"),
    [
        ([node("a", 2), node("b", 4, here=True)], 3, 1, "bbb"),  # the driver's first
        ([node("a", 2), node("b", 2, here=True)], 3, 1, "bba"),
        ([node("a", 2), node("b", 4), node("c", 0, here=True)], 3, 2, "bba"),  # a driver that is no worker
        ([node("a", 4), node("b", 2, host="h", here=True), node("c", 1, host="h")], 3, 1, "bbc"),  # its host's next
        ([node("a", 4, 1), node("b", 4, 2)], 3, 1, "bba"),  # where most is free
        ([node("a", 4, 1), node("b", 4, 0, here=True)], 2, 1, "ab"),  # free ones before those that others use
        ([node("a", 3), node("b", 3)], 2, 2, "ab"),  # an actor's threads are of one node
    ],
)
def test_the_order_of_nodes(nodes: list[Node], n_actors: int, threads: int, expected: str) -> None:
    places = share_out(nodes, [threads] * n_actors)
    assert ids(places) == expected
    assert {place.threads for place in places} == {threads}
    assert {(place.node_id, place.host) for place in places} <= {(n.node_id, n.host) for n in nodes}


@pytest.mark.parametrize(
    ("nodes", "n_actors", "threads"),
    [
        ([node("a", 4), node("b", 4)], 2, 4),
        ([node("a", 4), node("b", 4)], 3, 2),
        ([node("a", 3), node("b", 3)], 4, 1),  # 6 CPUs are 1.5 each
        ([node("a", 5), node("b", 1)], 3, 1),  # 2 each would leave b without
    ],
)
def test_threads_are_shared_out(nodes: list[Node], n_actors: int, threads: int) -> None:
    assert threads_of(nodes, n_actors) == threads
    places = share_out(nodes, [threads] * n_actors)
    for each in nodes:
        assert sum(place.threads for place in places if place.node_id == each.node_id) <= each.n_cpus


def test_actors_may_differ() -> None:
    assert ids(share_out([node("a", 4, here=True), node("b", 2)], [3, 2, 1])) == "aba"


def test_devices_for_a_plan() -> None:
    nodes = [node("a", 4), node("b", 2, here=True)]
    devices = devices_of(nodes, 3, 2)
    assert [(device.id, device.threads, device.host) for device in devices] == [
        ("cpu:0", 2, ""),
        ("cpu:1", 2, "host-a"),
        ("cpu:2", 2, "host-a"),
    ]
    assert len(devices_of(nodes, 5, 2)) == 3  # no room for more
    assert {device.threads for device in devices_of(nodes, 6)} == {1}
    with pytest.raises(ClusterError, match="no room for an actor of 8 CPUs"):
        devices_of(nodes, 2, 8)
    hosts = [device.host for device in devices]
    assert ids(share_out(nodes, [2, 2, 2], hosts=hosts)) == "baa"


def test_a_host_that_is_asked_for() -> None:
    nodes = [node("a", 2), node("b", 2, here=True)]
    assert ids(share_out(nodes, [1, 1, 1], hosts=["host-a", "", None])) == "abb"
    with pytest.raises(ClusterError, match="Host host-a has no room for 2 actors of 2 CPUs"):
        share_out(nodes, [2, 2], hosts=["host-a", "host-a"])
    with pytest.raises(ClusterError, match="The driver's host has no room"):
        share_out(nodes, [3], hosts=[""])


def test_beside_actors_that_are_there() -> None:
    nodes = [node("a", 2, 0), node("b", 2, 1)]
    taken = [Place("a", "host-a", 2), Place("b", "host-b", 1)]
    assert ids(share_out(nodes, [1], taken=taken)) == "b"
    with pytest.raises(ClusterError, match="2 CPUs, 3 of them for this session's other actors"):
        share_out(nodes, [2], taken=taken)


def test_what_does_not_fit_says_what_there_is() -> None:
    with pytest.raises(ClusterError, match=r"no room for 3 actors of 2 CPUs.*host-a \(10.0.0.97\) 4 CPUs.*add nodes"):
        share_out([node("a", 4)], [2, 2, 2])
    with pytest.raises(ClusterError, match="there is no node"):
        share_out([], [1])


def test_where_cpus_are_not_counted_more_fit() -> None:
    assert ids(share_out([node("a", 2), node("b", 1, here=True)], [1] * 5, granted=False)) == "baaab"
    assert ids(share_out([node("a", 0, here=True)], [1, 1], granted=False)) == "aa"
