"""The nodes of the cluster that this process is connected to, and how actors are shared out among them."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any


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


def stage_actors() -> tuple[StageActorState, ...]:
    """Actors of all sessions, of whatever process, that have not ended."""
    state: Any = import_module("ray._private.state")
    found = []
    for actor_id, entry in state.actors().items():
        if entry["State"] != "DEAD" and "StageActor" in str(entry.get("ActorClassName", "")):
            at = entry["Address"]
            found.append(StageActorState(actor_id, at["NodeID"], entry["State"], int(entry.get("Pid", 0) or 0)))
    return tuple(sorted(found, key=lambda actor: actor.actor_id))
