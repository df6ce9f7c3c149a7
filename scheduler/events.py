"""What the run state machine hears (events) and says (commands). Plain data; stages are indices of the plan.

A unit is a stage or one of its replicas (``units.py``): what dies and comes back is a unit. ``attempt`` counts the
times that a run began anew; answers of earlier attempts mean nothing. Nobody changes them once they are made: that
they aren't frozen is because each run makes several, and a frozen one takes three times as long to make.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

FailKind = Literal["failed", "cancelled", "deadline", "lost"]


@dataclass(slots=True)
class Submit:
    """A run begins; its number is new. Wanted values that no stage makes need no stage."""

    run: int
    wanted: frozenset[str]
    #: feeds that lie on an actor already, by name -> unit
    resident: Mapping[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class StageDone:
    """A stage has made its values."""

    run: int
    stage: int
    attempt: int = 0
    implied: tuple[int, ...] = ()  # stages before it that say nothing themselves, and are done too


@dataclass(slots=True)
class StageFailed:
    """A stage raised, or could not be started, for one run."""

    run: int
    stage: int
    error: str
    attempt: int = 0


@dataclass(slots=True)
class ValueLost:
    """A stage can't have a value that another made: the way between them is cut. Every unit may be there."""

    run: int
    stage: int
    error: str
    attempt: int = 0


@dataclass(slots=True)
class StageLost:
    """The unit's host is gone, with all that it was doing. Repetitions until it is restored say nothing new."""

    unit: int
    reason: str


@dataclass(slots=True)
class StageRestored:
    """The host that Restart asked for is there."""

    unit: int


@dataclass(slots=True)
class StageBroken:
    """The host that Restart asked for can't be had: every run that needs it fails, later ones too."""

    unit: int
    reason: str


@dataclass(slots=True)
class Cancel:
    run: int


@dataclass(slots=True)
class DeadlinePassed:
    run: int


Event = Submit | StageDone | StageFailed | ValueLost | StageLost | StageRestored | StageBroken | Cancel | DeadlinePassed


@dataclass(slots=True)
class Put:
    """Make a feed available to the stages that read it."""

    run: int
    value: str
    stages: tuple[int, ...]


@dataclass(slots=True)
class Execute:
    run: int
    stage: int
    unit: int
    attempt: int = 0


@dataclass(slots=True)
class Fetch:
    """A wanted value is there. Comes again where a replay makes it anew."""

    run: int
    value: str
    stage: int


@dataclass(slots=True)
class Release:
    """Nothing reads the value any more, long before the run's end. What is left is released by Finish and Fail."""

    run: int
    value: str
    stage: int  # who made it; -1: a feed


@dataclass(slots=True)
class CancelStage:
    run: int
    stage: int
    unit: int
    attempt: int = 0


@dataclass(slots=True)
class Finish:
    """The run's end: every wanted value is there."""

    run: int


@dataclass(slots=True)
class Fail:
    """The run's end: ``stage`` is the one to blame, where there is one."""

    run: int
    error: str
    stage: int | None
    kind: FailKind


@dataclass(slots=True)
class Restart:
    """Start a new host for the unit; StageRestored or StageBroken answers."""

    unit: int


Command = Put | Execute | Fetch | Release | CancelStage | Finish | Fail | Restart
