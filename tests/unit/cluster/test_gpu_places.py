"""Where actors with GPUs go, what Ray is told of them, and which GPU is whose. Pure."""

from __future__ import annotations

import pytest

from distort.cluster.errors import ClusterError
from distort.cluster.gpu.visible import ALL_SEEN, NONE_SEEN, environment_of, own_device
from distort.cluster.nodes import Node, gpus_of, resource_options, share_out
from distort.cluster.orders import GpuSeat


def node(name: str, cpus: int, gpus: int, *, here: bool = False, free: float | None = None, kind: str = "") -> Node:
    free_gpus = float(gpus if free is None else free)
    return Node(name, f"10.0.0.{len(name)}", 1, name, cpus, cpus, gpus, 10**9, here, free_gpus, kind)


NODES = (node("head", 2, 0, here=True), node("one", 4, 2, kind="A100"), node("three", 4, 4, kind="H100"))


def test_gpus_of_a_cluster_are_devices_with_hosts_and_figures() -> None:
    found = gpus_of(NODES)
    assert [(device.id, device.host) for device in found] == [
        *((f"cuda:{i}", "three") for i in range(4)),
        *((f"cuda:{i}", "one") for i in (4, 5)),
    ]
    assert found[0].memory_nbytes == 80 * 10**9 and found[0].gflops > found[4].gflops
    assert len(gpus_of(NODES, 3)) == 3
    (own,) = gpus_of((node("here", 1, 1, here=True),))
    assert (own.host, own.memory_nbytes) == ("", None)


def test_too_few_gpus_say_what_there_is() -> None:
    with pytest.raises(ClusterError, match=r"no room for 7 actors on 7 GPUs.*one \(10\.0\.0\.3\) 2 GPUs.*num_gpus"):
        gpus_of(NODES, 7)
    with pytest.raises(ClusterError, match=r"1 GPU:"):
        gpus_of((node("head", 2, 0),))


def test_an_actor_with_a_gpu_takes_no_cpu() -> None:
    places = share_out(NODES, [1, 1, 4, 4, 2], hosts=["one", "one", "one", None, None], gpus=[1, 1, 0, 0, 0])
    assert [(place.node_id, place.gpus) for place in places] == [
        ("one", 1),
        ("one", 1),
        ("one", 0),
        ("three", 0),
        ("head", 0),
    ]
    assert resource_options(places[0]) == {"num_cpus": 0, "num_gpus": 1}
    assert resource_options(places[0], granted=False) == {"num_cpus": 0, "num_gpus": 0}
    assert resource_options(places[2]) == {"num_cpus": 4}


def test_free_gpus_go_before_those_that_others_use() -> None:
    found = (node("busy", 4, 2, free=0), node("idle", 4, 1))
    assert [place.node_id for place in share_out(found, [1, 1], gpus=[1, 1])] == ["idle", "busy"]


def test_parts_of_gpus_fill_them() -> None:
    found = (node("one", 0, 1),)
    third = 0.3333
    assert len(share_out(found, [1, 1, 1], gpus=[third] * 3)) == 3
    with pytest.raises(ClusterError, match=r"4 actors on 1\.33"):
        share_out(found, [1] * 4, gpus=[third] * 4)
    taken = share_out(found, [1], gpus=[1])
    with pytest.raises(ClusterError, match=r"an actor on 1 GPU: there is one .*, 1 of them for this session's other"):
        share_out(found, [1], gpus=[1], taken=taken)


def test_an_actor_sees_all_gpus_of_its_node_or_none() -> None:
    with_gpu, without = share_out(NODES, [1, 1], gpus=[1, 0])
    assert environment_of(with_gpu, [with_gpu, without]) == ALL_SEEN
    assert environment_of(without, [with_gpu, without]) == NONE_SEEN
    assert environment_of(without, [without]) == {}


@pytest.mark.parametrize(
    ("granted", "visible", "expected"),
    [
        ([], None, 1),  # nobody granted anything: as the plan says
        (["3"], None, 3),
        (["3"], "2,3", 1),  # the second of those that the process sees
        (["GPU-aa"], "GPU-bb, GPU-aa", 1),
        (["GPU-aa"], None, 1),
    ],
)
def test_the_gpu_that_is_an_actors_own(granted: list[str], visible: str | None, expected: int) -> None:
    assert own_device(GpuSeat(1), granted, visible) == expected
