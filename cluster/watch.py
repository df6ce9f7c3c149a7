"""Watches the nodes that host a session's actors: Ray takes a minute to find that a link is cut.

A node that doesn't answer this process twice in a row is lost, for this session: actors there can't be reached either.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

from distort.cluster.nodes import ANSWER_TIMEOUT_S, Node, answering

INTERVAL_S = 0.5
_MISSES = 2


class NodeWatch:
    """``nodes_of`` gives the node of each unit; ``on_loss`` is told of units, once for each time that they are lost."""

    def __init__(
        self,
        nodes_of: Callable[[], Mapping[int, Node]],
        on_loss: Callable[[int, str], None],
        *,
        interval_s: float = INTERVAL_S,
    ) -> None:
        self._nodes_of = nodes_of
        self._on_loss = on_loss
        self._interval_s = interval_s
        self._closed = threading.Event()
        self._misses: dict[str, int] = {}
        self._told: set[tuple[int, str]] = set()
        self._thread = threading.Thread(target=self._run, name="distort-watch", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._closed.wait(self._interval_s):
            self.look()

    def look(self) -> None:
        """Ask every node once."""
        units = dict(self._nodes_of())
        asked = {node.node_id: node for node in units.values()}
        there = {node.node_id for node in answering(list(asked.values()))}
        for node_id in asked:
            self._misses[node_id] = 0 if node_id in there else self._misses.get(node_id, 0) + 1
        for unit, node in units.items():
            if self._misses[node.node_id] < _MISSES:
                self._told.discard((unit, node.node_id))
            elif (unit, node.node_id) not in self._told and not self._closed.is_set():
                self._told.add((unit, node.node_id))
                self._on_loss(unit, f"its node {node.host} ({node.address}) does not answer")

    def close(self) -> None:
        self._closed.set()
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout=ANSWER_TIMEOUT_S + 1)
