"""The nodes of the cluster that this process is connected to, and how actors are shared out among them."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from distort.cluster.errors import ClusterError
from distort.cluster.probe import NOT_RAY, probe
from distort.scheduler.device import Device, cpu, cuda
from distort.scheduler.gpus import figures_of

#: how long a node that is there may take to answer: TCP sends a first packet that is lost again after 1 s (RFC 6298),
#: and one lost packet, or a machine that computes on all its cores, does not make a node gone
ANSWER_TIMEOUT_S = 1.5
_MOST_PROBES = 32


@dataclass(frozen=True, slots=True)
class Node:
    node_id: str
    address: str  # of the node, as the others reach it
    port: int  # of its raylet
    host: str  # the machine's name
    n_cpus: float
    n_free_cpus: float
    n_gpus: float
    memory_nbytes: int  # what Ray may grant there
    here: bool  # whether the driver is attached to it
    n_free_gpus: float = 0.0
    gpu_name: str = ""  # as Ray has it: A100, H100


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
    gpus: float = 0.0  # one, or a part of one that others share; it needs no CPU then


def nodes() -> tuple[Node, ...]:
    """Ray's nodes that are alive, the driver's first, then by address. Needs a connection (``resources.attach``)."""
    ray: Any = import_module("ray")  # it has no types
    state: Any = import_module("ray._private.state")
    here = ray.get_runtime_context().get_node_id()
    free: dict[str, dict[str, float]] = state.available_resources_per_node()
    found = [_node(entry, free.get(entry["NodeID"], {}), here) for entry in ray.nodes() if entry["Alive"]]
    return tuple(sorted(found, key=lambda node: (not node.here, node.address, node.node_id)))


def answering(found: Sequence[Node], timeout_s: float = ANSWER_TIMEOUT_S) -> tuple[Node, ...]:
    """Those whose raylet answers this process: Ray takes many seconds to find that a node is gone, or cut off."""

    def answers(node: Node) -> bool:
        try:
            return probe(node.address, node.port, timeout_s) != NOT_RAY
        except OSError:
            return False

    if not found:
        return ()
    with ThreadPoolExecutor(min(len(found), _MOST_PROBES), thread_name_prefix="distort-probe") as pool:
        return tuple(node for node, there in zip(found, pool.map(answers, found), strict=True) if there)


def _node(entry: dict[str, Any], free: dict[str, float], here: str) -> Node:
    offered = entry["Resources"]
    return Node(
        entry["NodeID"],
        entry["NodeManagerAddress"],
        int(entry["NodeManagerPort"]),
        entry["NodeManagerHostname"],
        float(offered.get("CPU", 0)),
        float(free.get("CPU", 0)),
        float(offered.get("GPU", 0)),
        int(offered.get("memory", 0)),
        entry["NodeID"] == here,
        float(free.get("GPU", 0)),
        next((name.partition(":")[2] for name in offered if name.startswith("accelerator_type:")), ""),
    )


def devices_of(found: Sequence[Node], n_devices: int, threads: int = 0) -> tuple[Device, ...]:
    """CPU shares for a plan, on the nodes where :func:`share_out` puts as many actors; fewer where there is no room.

    ``threads`` of each (0: what uses the nodes best). Devices on this process's host have the host "". Those of a
    node share its memory: each may use all of it.
    """
    threads = threads or threads_of(found, n_devices)
    places: tuple[Place, ...] = ()
    for count in range(n_devices, 0, -1):
        try:
            places = share_out(found, [threads] * count)
            break
        except ClusterError:
            if count == 1:
                raise
    memory = {node.node_id: node.memory_nbytes or None for node in found}
    here = {node.host for node in found if node.here}
    return tuple(
        cpu(i, place.threads, memory[place.node_id], host="" if place.host in here else place.host)
        for i, place in enumerate(places)
    )


def gpus_of(found: Sequence[Node], n_devices: int = 0, *, tf32: bool = True) -> tuple[Device, ...]:
    """GPUs for a plan, whole ones: of the driver's host first, then where most are free. 0: all that there are.

    Those on this process's host have the host "". Raises ClusterError where there are too few.
    """
    here = {node.host for node in found if node.here}
    order = sorted(found, key=lambda node: (node.host not in here, -node.n_free_gpus, node.node_id))
    devices: list[Device] = []
    for node in order:
        figures = figures_of(node.gpu_name)
        memory_nbytes = int(figures.memory_gbytes * 1e9) if node.gpu_name else None
        host = "" if node.host in here else node.host
        devices += [cuda(len(devices) + i, memory_nbytes, host, figures, tf32) for i in range(int(node.n_gpus))]
    if len(devices) < max(1, n_devices):
        wanted = max(1, n_devices)
        raise ClusterError(_no_room("The cluster", found, [0] * wanted, (), [1.0] * wanted))
    return tuple(devices[: n_devices or len(devices)])


def share_out(
    found: Sequence[Node],
    threads: Sequence[int],
    *,
    granted: bool = True,
    taken: Sequence[Place] = (),
    hosts: Sequence[str | None] = (),
    gpus: Sequence[float] = (),
) -> tuple[Place, ...]:
    """The node of each actor, given the threads of each: the driver's host first, then where most is free.

    ``granted``: Ray grants CPUs, so a node takes no more actors than it has CPUs for; those that are free now go
    before those that others use. Otherwise what doesn't fit is spread over all. ``taken``: what the session's other
    actors have. ``hosts``: of each actor the host that it must be on ("": the driver's; None: any). ``gpus``: of each
    actor what it takes of one GPU; an actor with a GPU takes no CPU. Raises :class:`ClusterError` where actors don't
    fit, with what each node has.
    """
    here = {node.host for node in found if node.here}
    order = sorted(found, key=lambda node: (node.host not in here, not node.here, -node.n_free_cpus, node.node_id))
    free = {node.node_id: _Room(node.n_free_cpus, node.n_free_gpus) for node in order}
    room = {node.node_id: _Room(node.n_cpus, node.n_gpus) for node in order}
    for place in taken:
        if place.node_id in room:
            room[place.node_id].take(place.threads, place.gpus)
    places: list[Place] = []
    for position, wanted in enumerate(threads):
        host = hosts[position] if hosts else None
        gpu = gpus[position] if gpus else 0.0
        able = [node for node in order if host is None or node.host == host or (host == "" and node.host in here)]
        if gpu and granted:  # nodes with free GPUs first; stable, so the driver's host stays the first of those
            able = sorted((node for node in able if node.n_gpus), key=lambda n: free[n.node_id].gpus < gpu)
        fitting = [node for node in able if room[node.node_id].has(wanted, gpu)]
        node = next((node for node in fitting if free[node.node_id].has(wanted, gpu)), None)
        node = node or next(iter(fitting), None)
        if node is None and able and not granted:
            node = able[position % len(able)]
        if node is None:
            where = "The cluster" if host is None else f"Host {host}" if host else "The driver's host"
            raise ClusterError(_no_room(where, found, threads, taken, gpus if gpu else ()))
        for left in (free[node.node_id], room[node.node_id]):
            left.take(wanted, gpu)
        places.append(Place(node.node_id, node.host, wanted, gpu))
    return tuple(places)


@dataclass(slots=True)
class _Room:
    """What there is on a node."""

    cpus: float
    gpus: float

    def has(self, threads: int, gpu: float) -> bool:
        return self.gpus >= gpu - _LEAST_GPU if gpu else self.cpus >= threads

    def take(self, threads: int, gpu: float) -> None:
        if gpu:
            self.gpus -= gpu
        else:
            self.cpus -= threads


#: Ray counts in ten thousandths: parts of a GPU that are less together are none
_LEAST_GPU = 1e-3


def _no_room(
    where: str, found: Sequence[Node], threads: Sequence[int], taken: Sequence[Place], gpus: Sequence[float]
) -> str:
    kind = "GPUs" if gpus else "CPUs"
    offers = ", ".join(f"{n.host} ({n.address}) {n.n_gpus if gpus else n.n_cpus:g} {kind}" for n in found) or "no node"
    counted = sum(place.gpus if gpus else place.threads for place in taken)
    used = f", {counted:g} of them for this session's other actors" if counted else ""
    actors = "an actor" if len(threads) == 1 else f"{len(threads)} actors"
    if gpus:
        n_gpus = sum(gpus)
        return (
            f"{where} has no room for {actors} on {n_gpus:g} GPU{'' if n_gpus == 1 else 's'}: there is {offers}{used}. "
            "Give fewer CUDAExecutionProvider entries, add nodes, or start Ray with the GPUs that there are (num_gpus)."
        )
    return (
        f"{where} has no room for {actors} of {max(threads)} CPUs: there is {offers}{used}. Ask for fewer "
        "actors (inter_op_num_threads) or threads (intra_op_num_threads), or add nodes."
    )


def threads_of(found: Sequence[Node], n_actors: int) -> int:
    """Threads of each of ``n_actors``, all alike, that use the nodes' CPUs best; at least 1."""
    cpus = [int(node.n_cpus) for node in found]
    threads = max(1, sum(cpus) // max(1, n_actors))
    while threads > 1 and sum(n // threads for n in cpus) < n_actors:  # an actor's threads are of one node
        threads -= 1
    return threads


def actor_options(place: Place, *, granted: bool = True) -> dict[str, Any]:
    """What ``ray.remote`` takes to put an actor there, and nowhere else."""
    strategies: Any = import_module("ray.util.scheduling_strategies")
    return {
        **resource_options(place, granted=granted),
        "scheduling_strategy": strategies.NodeAffinitySchedulingStrategy(place.node_id, soft=False),
    }


def resource_options(place: Place, *, granted: bool = True) -> dict[str, Any]:
    """What an actor asks for: a GPU's takes no CPU, else two of them hold all CPUs and a third waits for ever."""
    if place.gpus:
        return {"num_cpus": 0, "num_gpus": place.gpus if granted else 0}
    return {"num_cpus": place.threads if granted else 0}


def stage_actors() -> tuple[StageActorState, ...]:
    """Actors of all sessions, of whatever process, that have not ended."""
    state: Any = import_module("ray._private.state")
    found = []
    for actor_id, entry in state.actors().items():
        if entry["State"] != "DEAD" and "StageActor" in str(entry.get("ActorClassName", "")):
            at = entry["Address"]
            found.append(StageActorState(actor_id, at["NodeID"], entry["State"], int(entry.get("Pid", 0) or 0)))
    return tuple(sorted(found, key=lambda actor: actor.actor_id))
