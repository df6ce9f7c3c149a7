"""What a transport does: give a value to an actor, take one from it, pass it between two of them.

A *handle* stands for a value in the transport's own terms. Handles of values that don't exist yet are fine: a
transport may chain a consumer behind its producer. Hosts are numbered by unit: a stage, or a replica of one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from distort.cluster.clocks import Reading
from distort.cluster.orders import ActorStats, ExecuteOrder, StagePayload, StageReport
from distort.cluster.resident import ResidentMeta

Handle = Any


@dataclass(slots=True)
class Answer:
    """What became of an execution: a report, or an error."""

    unit: int
    epochs: tuple[int, ...]  # of all hosts when it was asked for by a call; nothing where it was by an order
    run: int  # its number on the wire
    report: StageReport | None = None
    error: BaseException | None = None
    #: results that came along: value, bytes
    values: dict[str, tuple[Any, int]] = field(default_factory=dict)


@dataclass(slots=True)
class Fetched:
    """The value that a host was asked for, or why it has none."""

    request: int
    value: Any = None
    nbytes: int = 0
    error: BaseException | None = None


@dataclass(slots=True)
class Loss:
    """A host that is gone."""

    unit: int
    epoch: int
    reason: str


#: whoever is told; called on threads that must not be held up, or inside ``call`` and ``order``
Listener = Callable[["Answer | Loss | Fetched"], None]


News = Answer | Loss | Fetched


class StageHost(Protocol):
    """One unit's actor, as the executor sees it."""

    epoch: int

    def call(
        self, order: ExecuteOrder, run: int, oldest: int, values: Sequence[Handle], epochs: tuple[int, ...]
    ) -> list[Handle]:
        """Start a run of the stage; returns a handle for each name of ``order.returns`` at once.

        ``epochs`` of all units go back with an error, so that a loss is put down to the host that it was.
        """

    def prepare(self, number: int, order: ExecuteOrder) -> None:
        """Tell a host that is linked to this process what an order's number means."""

    def order(self, number: int, values: Sequence[Any], run: int, oldest: int) -> None:
        """Start a run of the stage by the number of its order, which has been prepared, with values themselves."""

    def export(self, key: int) -> Handle: ...

    def fetch(self, key: int, request: int) -> bool:
        """Ask a host that is linked to this process for a value that it holds; ``Fetched`` answers. False: it isn't."""

    def release(self, keys: Sequence[int]) -> None: ...

    def cancel(self, run: int) -> None: ...

    def keep_value(self, handle: Handle) -> ResidentMeta: ...

    def held(self) -> tuple[int, int]:
        """How many values the actor keeps for callers, and their bytes."""

    def stats(self, timeout_s: float) -> ActorStats | None:
        """What the actor has done; None where it doesn't answer."""

    def clock(self) -> Reading | None:
        """What the host's clock shows, and whose it is; None where it doesn't answer."""

    def close(self) -> None: ...


class Transport(Protocol):
    """Values between this process and the units' hosts."""

    #: a consumer may be started before its producers are done
    chains: bool
    #: some host is linked to this process, so that somebody has to :meth:`poll`
    polls: bool

    def open(
        self, payloads: Sequence[StagePayload], weights: Sequence[Mapping[str, Any]], listener: Listener
    ) -> list[StageHost]:
        """Hosts of all units, loaded. ``weights`` are those of each unit that neither its graph nor a file has."""

    def reopen(self, unit: int) -> StageHost:
        """A new host for a unit whose host is lost."""

    def linked(self, producer: int, consumer: int) -> bool:
        """Whether values go from one unit to another (-1: this process) by memory that both see."""

    def far(self, producer: int, consumer: int) -> bool:
        """Whether values go from one unit's GPU to another's, of another host, by NCCL."""

    def cut(self, producer: int, consumer: int, why: str) -> None:
        """They don't, from now on, until either has another host."""

    def poll(self, timeout_s: float | None) -> list[News]:
        """What linked hosts say, waiting up to ``timeout_s`` (None: as long as it takes) for the first word.

        One thread at a time. Ends early, with nothing, when :meth:`wake` is called.
        """

    def wake(self) -> None: ...

    def put(self, value: Any) -> Handle: ...

    def get(self, handle: Handle, timeout_s: float | None = None) -> Any: ...

    def lost_unit(self, cause: BaseException, unit: int) -> int | None:
        """The unit whose host is gone, where that is what an error of ``unit`` says; else None."""

    def cause(self, error: BaseException) -> BaseException:
        """The error that the stage raised, without the transport's wrapping."""

    def close(self) -> None: ...
