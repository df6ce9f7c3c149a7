"""The nodes of the cluster that this process is connected to, and how actors are shared out among them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from distort.cluster.errors import ClusterError
from distort.cluster.processes import boot_id


@dataclass(frozen=True, slots=True)
class Node:
    node_id: str
    address: str  # of the node, as the others reach it
    host: str  # the machine's name
    n_cpus: float
    n_free_cpus: float
    n_gpus: float
    memory_nbytes: int  # what Ray may grant there
    here: bool  # whether the driver is attached to it


@dataclass(frozen=True, slots=True)
class StageActorState:
    actor_id: str
    node_id: str
    state: str
    pid: int


@dataclass(frozen=True, slots=True)
class Place:
    """One actor's share of a node."""

    node_id: str
    host: str
    threads: int


def nodes() -> tuple[Node, ...]:
    """Ray's nodes that are alive, the driver's first, then by address. Needs a connection (``resources.attach``)."""
    ray: Any = import_module("ray")  # it has no types
    state: Any = import_module("ray._private.state")
    here = ray.get_runtime_context().get_node_id()
    free: dict[str, dict[str, float]] = state.available_resources_per_node()
    found = [_node(entry, free.get(entry["NodeID"], {}), here) for entry in ray.nodes() if entry["Alive"]]
    return tuple(sorted(found, key=lambda node: (not node.here, node.address, node.node_id)))


def _node(entry: dict[str, Any], free: dict[str, float], here: str) -> Node:
    offered = entry["Resources"]
    return Node(
        entry["NodeID"],
        entry["NodeManagerAddress"],
        entry["NodeManagerHostname"],
        float(offered.get("CPU", 0)),
        float(free.get("CPU", 0)),
        float(offered.get("GPU", 0)),
        int(offered.get("memory", 0)),
        entry["NodeID"] == here,
    )


def share_out(found: Sequence[Node], n_actors: int, threads: int = 0, *, granted: bool = True) -> tuple[Place, ...]:
    """Which node each of ``n_actors`` goes to: the driver's host first, then where most is free.

    ``threads`` of each (0: the CPUs of all nodes shared out among the actors). ``granted``: Ray grants CPUs, so that a
    node takes as many actors as it has CPUs for; those that are free now before those that others use. Raises
    :class:`ClusterError` where they don't fit, with what each node has.
    """
    here = {node.host for node in found if node.here}
    order = sorted(found, key=lambda node: (node.host not in here, not node.here, -node.n_free_cpus, node.node_id))
    order = [node for node in order if node.n_cpus >= 1] or (order if not granted else [])
    if not threads:
        threads = max(1, int(sum(node.n_cpus for node in order)) // max(1, n_actors))
        # as many threads as let every actor have a node's CPUs
        while threads > 1 and sum(int(node.n_cpus) // threads for node in order) < n_actors:
            threads -= 1
    places: list[Place] = []
    for free_ones in (True, False):
        for node in order:
            taken = sum(place.node_id == node.node_id for place in places)
            fit = int(node.n_free_cpus if free_ones else node.n_cpus) // threads - taken
            places += [Place(node.node_id, node.host, threads)] * min(max(fit, 0), n_actors - len(places))
    if len(places) < n_actors and not granted and order:
        places += [
            Place(order[i % len(order)].node_id, order[i % len(order)].host, threads)
            for i in range(n_actors - len(places))
        ]
    if len(places) < n_actors:
        offers = ", ".join(f"{n.host} ({n.address}) {n.n_cpus:g} CPUs" for n in found) or "no node"
        raise ClusterError(
            f"{n_actors} actors of {threads} threads don't fit on the cluster: it has {offers}. Ask for fewer actors "
            "(inter_op_num_threads) or threads (intra_op_num_threads), or add nodes."
        )
    return tuple(places)


def share_again(found: Sequence[Node], place: Place, *, granted: bool = True) -> Place:
    """Where an actor whose process or node is lost goes: its node if that is alive, else one with room."""
    if any(node.node_id == place.node_id for node in found):
        return place
    (other,) = share_out(found, 1, place.threads, granted=granted)
    return other


def actor_options(place: Place, *, granted: bool = True) -> dict[str, Any]:
    """What ``ray.remote`` takes to put an actor there, and nowhere else."""
    strategies: Any = import_module("ray.util.scheduling_strategies")
    return {
        "num_cpus": place.threads if granted else 0,
        "scheduling_strategy": strategies.NodeAffinitySchedulingStrategy(place.node_id, soft=False),
    }


def neighbourhood() -> str:
    """Processes of which this is the same can share memory and abstract sockets.

    Nodes of one machine may be containers: it names the boot, the network namespace, and the mounted /dev/shm.
    """
    try:
        shared = os.stat("/dev/shm").st_dev
    except OSError:
        shared = 0
    return f"{boot_id()}:{os.stat('/proc/self/ns/net').st_ino}:{shared}"


def stage_actors() -> tuple[StageActorState, ...]:
    """Actors of all sessions, of whatever process, that have not ended."""
    state: Any = import_module("ray._private.state")
    found = []
    for actor_id, entry in state.actors().items():
        if entry["State"] != "DEAD" and "StageActor" in str(entry.get("ActorClassName", "")):
            at = entry["Address"]
            found.append(StageActorState(actor_id, at["NodeID"], entry["State"], int(entry.get("Pid", 0) or 0)))
    return tuple(sorted(found, key=lambda actor: actor.actor_id))
