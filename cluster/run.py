"""A run under way, as the executor has it."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from distort.cluster.orders import ATTEMPTS, StageReport
from distort.cluster.resident import Resident
from distort.cluster.routes import Leg, RunKind
from distort.cluster.transport.base import Handle


@dataclass(slots=True, eq=False)
class Crossings:
    """What a run that is profiled sends and gets, for the reports of its stages."""

    sent: dict[int, list[tuple[str, int]]] = field(default_factory=dict)  # stage -> feeds with their bytes
    #: producing stage, and a result with its bytes and transport
    returned: list[tuple[int, tuple[str, int, str]]] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Run:
    """A run under way. What :meth:`Executor.start` returns and :meth:`Executor.finish` takes."""

    kind: RunKind
    #: value -> itself, or the Resident that was fed
    feeds: dict[str, Any]
    crossings: Crossings | None = None  # of a run that is profiled
    number: int = 0
    began_ns: int = 0  # time.monotonic_ns()
    done: bool = False
    wake: threading.Event | None = None  # see waiting.py
    error: BaseException | None = None
    attempt: int = -1
    legs: Mapping[int, Leg] = field(default_factory=dict)
    units: Mapping[int, int] = field(default_factory=dict)
    #: values that calls returned or take, by name
    handles: dict[str, Handle] = field(default_factory=dict)
    #: FarValues that calls returned, by name
    far: dict[str, Handle] = field(default_factory=dict)
    #: fetches that came with answers
    results: dict[str, Any] = field(default_factory=dict)
    #: fetches that stayed on the actors that made them; None: an optional value that is empty
    kept: dict[str, Resident | None] = field(default_factory=dict)
    #: stage -> why it failed, as the exception that it raised
    errors: dict[int, BaseException] = field(default_factory=dict)
    reports: list[StageReport] = field(default_factory=list)

    @property
    def on_wire(self) -> int:
        return self.number * ATTEMPTS + self.attempt
