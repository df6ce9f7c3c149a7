"""Where the actors of one session live: the nodes, and what Ray is told so that each is there and has what it needs."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from distort.cluster.gpu.visible import environment_of
from distort.cluster.nodes import Node, Place, actor_options, answering, nodes, share_out
from distort.cluster.requirements import prepare
from distort.cluster.resources import Connection


class Grounds:
    """On a cluster that runs on this machine in this environment, Ray is told nothing; else each actor has a node."""

    def __init__(self, connection: Connection, runtime_env: Mapping[str, Any] | None = None) -> None:
        self._connection = connection
        self._runtime_env = dict(runtime_env or {})
        self._places: list[Place] = []
        self._nodes: dict[str, Node] = {}  # that places are on

    @property
    def elsewhere(self) -> dict[int, Node]:
        """Units on other nodes than this process's, and those nodes."""
        found = {unit: self._nodes[place.node_id] for unit, place in enumerate(self._places)}
        return {unit: node for unit, node in found.items() if not node.here}

    @property
    def places(self) -> tuple[Place, ...]:
        """By unit; empty where Ray is told nothing."""
        return tuple(self._places)

    @property
    def _known(self) -> bool:
        return not (self._connection.grants_cpus or self._runtime_env)

    def settle(self, threads: Sequence[int], hosts: Sequence[str | None], gpus: Sequence[float] | None = None) -> None:
        """Choose a node for each unit, given its threads, the host that a plan has it on, and its part of a GPU.

        Raises :class:`ClusterError` where there is no room, or where a node lacks what actors need.
        """
        if self._known:
            return
        found = answering(nodes())
        granted = self._connection.grants_cpus
        self._places = list(share_out(found, threads, granted=granted, hosts=hosts, gpus=gpus or ()))
        self._prepare(found)

    def _prepare(self, found: Sequence[Node]) -> None:
        chosen = {place.node_id for place in self._places}
        self._nodes.update((node.node_id, node) for node in found if node.node_id in chosen)
        self._environment = prepare([node for node in found if node.node_id in chosen], self._runtime_env)

    def move(self, unit: int) -> None:
        """Choose another node for a unit whose node is gone; one that is there keeps it."""
        if self._known:
            return
        found = answering(nodes())
        place = self._places[unit]
        if any(node.node_id == place.node_id for node in found):
            return
        others = [*self._places[:unit], *self._places[unit + 1 :]]
        granted = self._connection.grants_cpus
        (other,) = share_out(found, [place.threads], granted=granted, taken=others, gpus=[place.gpus])
        logging.getLogger("distort.cluster").warning(
            "Node %s is gone; unit %d goes to node %s (%s).", place.node_id[:8], unit, other.node_id[:8], other.host
        )
        self._nodes[other.node_id] = next(node for node in found if node.node_id == other.node_id)
        self._places[unit] = other
        self._prepare(found)

    def options(self, unit: int) -> dict[str, Any]:
        """What ``ray.remote`` takes."""
        if self._known:
            return {"num_cpus": 0}
        options = actor_options(self._places[unit], granted=self._connection.grants_cpus)
        variables = environment_of(self._places[unit], self._places) if self._connection.grants_cpus else {}
        environment = dict(self._environment)
        if variables:
            environment["env_vars"] = {**variables, **environment.get("env_vars", {})}
        return {**options, "runtime_env": environment} if environment else options
