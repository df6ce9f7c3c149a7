"""Bytes and messages by edge: what this process sees pass, and what actors say they sent each other."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

#: messages that are noted before they are added up
_MOST_UNCOUNTED = 4096


@dataclass(slots=True)
class EdgeTraffic:
    nbytes: int = 0
    messages: int = 0


#: value, producing stage, consuming stage (-1: this process), transport
Edge = tuple[str, int, int, str]


class Traffic:
    """Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: dict[Edge, EdgeTraffic] = {}
        self._uncounted: deque[tuple[Edge, int]] = deque()
        #: by unit and epoch: what the host said last
        self._told: dict[tuple[int, int], dict[Edge, tuple[int, int]]] = {}

    def count(self, name: str, producer: int, consumer: int, transport: str, nbytes: int) -> None:
        """Somebody waits for what is counted here, so it is only noted."""
        self._uncounted.append(((name, producer, consumer, transport), nbytes))
        if len(self._uncounted) > _MOST_UNCOUNTED:
            with self._lock:
                self._add_up()

    def _add_up(self) -> None:
        """Called with the lock."""
        uncounted = self._uncounted
        for _ in range(len(uncounted)):
            edge, nbytes = uncounted.popleft()
            traffic = self._seen.get(edge)
            if traffic is None:
                traffic = self._seen[edge] = EdgeTraffic()
            traffic.nbytes += nbytes
            traffic.messages += 1

    def tell(self, unit: int, epoch: int, edges: Mapping[Edge, tuple[int, int]]) -> None:
        """What a host has received since it was there."""
        with self._lock:
            self._told[unit, epoch] = dict(edges)

    def rows(self) -> list[dict[str, Any]]:
        with self._lock:
            self._add_up()
            total = {edge: [traffic.nbytes, traffic.messages] for edge, traffic in self._seen.items()}
            for told in self._told.values():
                for edge, (nbytes, messages) in told.items():
                    sums = total.setdefault(edge, [0, 0])
                    sums[0] += nbytes
                    sums[1] += messages
        return [
            {
                "value": name,
                "producer": producer,
                "consumer": consumer,
                "nbytes": nbytes,
                "messages": messages,
                "transport": transport,
            }
            for (name, producer, consumer, transport), (nbytes, messages) in sorted(total.items())
        ]
