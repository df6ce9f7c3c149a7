"""What a transport does: give a value to an actor, take one from it, pass it between two of them.

A *handle* stands for a value in the transport's own terms. Handles of values that don't exist yet are fine: a
transport may chain a consumer behind its producer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from distort.cluster.actor import ExecuteOrder, StagePayload, StageReport
from distort.cluster.resident import ResidentMeta

Handle = Any
#: (report, None) or (None, error); called once, on a thread that must not be blocked
OnDone = Callable[[StageReport | None, BaseException | None], None]


class StageHost(Protocol):
    """One stage's actor, as the executor sees it."""

    epoch: int

    def execute(self, order: ExecuteOrder, values: Sequence[Handle], on_done: OnDone) -> list[Handle]:
        """Start a run of the stage; returns a handle for each name of ``order.returns`` at once."""

    def export(self, key: str) -> Handle: ...

    def release(self, keys: Sequence[str]) -> None: ...

    def cancel(self, run: int) -> None: ...

    def keep_value(self, handle: Handle) -> ResidentMeta: ...

    def held(self) -> tuple[int, int]:
        """How many values the actor keeps for callers, and their bytes."""

    def close(self) -> None: ...


class Transport(Protocol):
    """Values between this process and the stages' hosts."""

    name: str
    #: a consumer may be started before its producers are done
    chains: bool

    def open(self, payloads: Sequence[StagePayload], weights: dict[str, Any]) -> list[StageHost]:
        """Hosts of all stages, loaded. Each gets the weights that its graph reads and does not hold."""

    def reopen(self, stage: int) -> StageHost:
        """A new host for a stage whose host is lost."""

    def put(self, value: Any) -> Handle: ...

    def get(self, handle: Handle, timeout_s: float | None = None) -> Any: ...

    def lost_stage(self, cause: BaseException, stage: int) -> int | None:
        """The stage whose host is gone, where that is what an error of ``stage`` says; else None."""

    def cause(self, error: BaseException) -> BaseException:
        """The error that the stage raised, without the transport's wrapping."""

    def close(self) -> None: ...


def weight_groups(payloads: Sequence[StagePayload], weights: dict[str, Any]) -> dict[tuple[int, ...], dict[str, Any]]:
    """Weights by the set of stages that read them, so that each travels once and a stage takes only its own."""
    readers: dict[str, list[int]] = {}
    for position, payload in enumerate(payloads):
        for name in dict.fromkeys(payload.graph.captures()):
            if name in weights:
                readers.setdefault(name, []).append(position)
    groups: dict[tuple[int, ...], dict[str, Any]] = {}
    for name, positions in readers.items():
        groups.setdefault(tuple(positions), {})[name] = weights[name]
    return groups
