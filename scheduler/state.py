"""The run state machine: ``step(event) -> commands``. No clock, no IO, no threads; the same events, the same commands.

A run is queued, then admitted (in flight), and ends with exactly one Finish or Fail. Of an admitted run each needed
stage is waiting, executing or done. Events of runs that have ended, and of stages that don't execute, are late
answers, and mean nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto

from distort.scheduler.events import (
    Cancel,
    CancelStage,
    Command,
    DeadlinePassed,
    Event,
    Execute,
    Fail,
    FailKind,
    Fetch,
    Finish,
    Put,
    Release,
    Restart,
    StageBroken,
    StageDone,
    StageFailed,
    StageLost,
    StageRestored,
    Submit,
)
from distort.scheduler.needs import Needs, NeedsOfPlan
from distort.scheduler.plan import Plan

__all__ = [
    "RECOVERIES",
    "Cancel",
    "CancelStage",
    "Command",
    "DeadlinePassed",
    "Event",
    "Execute",
    "Fail",
    "Fetch",
    "Finish",
    "Put",
    "Release",
    "Restart",
    "RunState",
    "StageBroken",
    "StageDone",
    "StageFailed",
    "StageLost",
    "StageRestored",
    "Submit",
]

RECOVERIES = ("raise", "replay")
#: losses that one run survives by replay: an input that kills its stage must not kill it for ever
MOST_REPLAYS = 3


class _Phase(Enum):
    WAITING = auto()
    EXECUTING = auto()
    DONE = auto()


@dataclass(slots=True, eq=False)
class _Run:
    number: int
    needs: Needs
    resident: dict[str, int]  # feed -> stage that holds it
    phases: dict[int, _Phase]  # of the needed stages, in topological order
    n_replays: int = 0
    #: lost stages from whose ancestors to execute again
    replay: set[int] = field(default_factory=set)
    #: resident feeds whose holder was lost
    gone: set[str] = field(default_factory=set)

    def is_done(self, stage: int) -> bool:
        return self.phases[stage] is _Phase.DONE

    def still_needs(self, stage: int) -> bool:
        return stage in self.phases and not self.is_done(stage)


class RunState:
    """Runs over the stages of one plan.

    ``eager``: all needed stages of a run are executed at once, in topological order, because the transport makes
    consumers wait for producers; else a stage is executed when its producers are done. ``recovery``: "raise" fails
    the runs that still need a lost stage, "replay" executes them again from its ancestors once it is restored.
    """

    def __init__(self, plan: Plan, *, max_in_flight: int = 8, eager: bool = False, recovery: str = "raise") -> None:
        if max_in_flight < 1:
            raise ValueError(f"max_in_flight must be at least 1, and is {max_in_flight}")
        if recovery not in RECOVERIES:
            raise ValueError(f"unknown recovery {recovery!r}; known are {', '.join(RECOVERIES)}")
        self.max_in_flight = max_in_flight
        self.eager = eager
        self.recovery = recovery
        self._n_stages = len(plan.stages)
        self._needs = NeedsOfPlan(plan)
        self._queue: dict[int, _Run] = {}  # in the order of submission
        self._active: dict[int, _Run] = {}
        self._restarting: set[int] = set()
        self._broken: dict[int, str] = {}

    @property
    def in_flight(self) -> tuple[int, ...]:
        """Runs that are admitted and have not ended."""
        return tuple(self._active)

    @property
    def queued(self) -> tuple[int, ...]:
        return tuple(self._queue)

    @property
    def restarting(self) -> frozenset[int]:
        return frozenset(self._restarting)

    def step(self, event: Event) -> list[Command]:
        """What to do now, in this order. Raises ValueError for a stage or a number that can't be."""
        commands = self._react(event)
        commands += self._admit()
        return commands

    def _react(self, event: Event) -> list[Command]:
        match event:
            case Submit(number, wanted, resident):
                return self._submit(number, wanted, resident)
            case StageDone(number, stage):
                return self._stage_done(number, self._checked(stage))
            case StageFailed(number, stage, error):
                return self._end(number, error, self._checked(stage), "failed")
            case StageLost(stage, reason):
                return self._lost(self._checked(stage), reason)
            case StageRestored(stage):
                return self._restored(self._checked(stage))
            case StageBroken(stage, reason):
                return self._gave_up(self._checked(stage), reason)
            case Cancel(number):
                return self._end(number, "the run was cancelled", None, "cancelled")
            case DeadlinePassed(number):
                return self._end(number, self._progress(number), None, "deadline")

    def _checked(self, stage: int) -> int:
        if not 0 <= stage < self._n_stages:
            raise ValueError(f"there is no stage {stage} in a plan of {self._n_stages}")
        return stage

    # -- the life of a run

    def _submit(self, number: int, wanted: frozenset[str], resident: Mapping[str, int]) -> list[Command]:
        if number in self._queue or number in self._active:
            raise ValueError(f"run {number} is under way already")
        needs = self._needs.of(wanted)
        held = {name: self._checked(stage) for name, stage in resident.items() if name in needs.feeds}
        if not needs.stages:
            return [Finish(number)]
        for stage in needs.stages:
            if stage in self._broken:
                return [Fail(number, self._broken[stage], stage, "failed")]
        for name, stage in held.items():
            if stage in self._restarting or stage in self._broken:
                return [Fail(number, f"the value fed as {name!r} was lost with stage {stage}", stage, "lost")]
        self._queue[number] = _Run(number, needs, held, dict.fromkeys(needs.stages, _Phase.WAITING))
        return []

    def _admit(self) -> list[Command]:
        """First come, first served: a run that waits for a restart holds up those behind it."""
        commands: list[Command] = []
        while self._queue and len(self._active) < self.max_in_flight:
            number, run = next(iter(self._queue.items()))
            if not self._restarting.isdisjoint(run.needs.stages):
                break
            del self._queue[number]
            self._active[number] = run
            for name, readers in run.needs.feeds.items():
                if name not in run.resident:
                    commands.append(Put(number, name, readers))
            commands += self._execute(run)
        return commands

    def _execute(self, run: _Run) -> list[Command]:
        """The stages whose turn it is; none while a stage that the run still needs restarts."""
        if any(run.still_needs(stage) for stage in self._restarting):
            return []
        commands: list[Command] = []
        for stage, phase in run.phases.items():
            if phase is _Phase.WAITING and (self.eager or all(run.is_done(p) for p in run.needs.producers[stage])):
                run.phases[stage] = _Phase.EXECUTING
                commands.append(Execute(run.number, stage))
        return commands

    def _stage_done(self, number: int, stage: int) -> list[Command]:
        run = self._active.get(number)
        if run is None or run.phases.get(stage) is not _Phase.EXECUTING:
            return []
        run.phases[stage] = _Phase.DONE
        commands: list[Command] = [Fetch(number, name, stage) for name in run.needs.fetched[stage]]
        if all(map(run.is_done, run.phases)):
            del self._active[number]
            return [*commands, Finish(number)]
        return [*commands, *self._releases(run, stage), *self._execute(run)]

    def _releases(self, run: _Run, stage: int) -> list[Command]:
        """Values that nobody reads after ``stage``. A run that may be replayed keeps its feeds."""
        return [
            Release(run.number, value, producer)
            for value, producer, readers in run.needs.released[stage]
            if all(map(run.is_done, readers)) and not (producer < 0 and self.recovery == "replay")
        ]

    def _end(self, number: int, error: str, stage: int | None, kind: FailKind) -> list[Command]:
        """Fail a run that is under way; its stages on hosts that are there are cancelled."""
        run = self._queue.pop(number, None)
        if run is not None:
            return [Fail(number, error, stage, kind)]
        run = self._active.pop(number, None)
        if run is None:
            return []
        commands: list[Command] = [
            CancelStage(number, other)
            for other, phase in run.phases.items()
            if phase is _Phase.EXECUTING and other not in self._restarting and (other, kind) != (stage, "failed")
        ]
        return [*commands, Fail(number, error, stage, kind)]

    def _progress(self, number: int) -> str:
        run = self._active.get(number)
        if run is None:
            return f"the run was not started, {len(self._active)} runs before it are in flight"
        done = sum(map(run.is_done, run.phases))
        at = ", ".join(str(stage) for stage, phase in run.phases.items() if phase is _Phase.EXECUTING)
        return f"{done} of {len(run.phases)} stages were done" + (f"; executing: stage {at}" if at else "")

    # -- stages that go and come

    def _lost(self, stage: int, reason: str) -> list[Command]:
        if stage in self._restarting or stage in self._broken:
            return []
        self._restarting.add(stage)
        commands: list[Command] = []
        for run in [*self._active.values(), *self._queue.values()]:
            lost = {name for name, holder in run.resident.items() if holder == stage}
            run.gone |= lost
            unread = any(not run.is_done(reader) for name in lost for reader in run.needs.feeds[name])
            # a queued run has begun nothing: it just waits for the restart
            hit = run.number in self._active and run.still_needs(stage)
            if unread or (hit and not self._may_replay(run)):
                commands += self._end(run.number, reason, stage, "lost")
            elif hit:
                run.n_replays += 1
                run.replay.add(stage)
                for other in (stage, *run.needs.descendants[stage]):
                    if run.still_needs(other):
                        run.phases[other] = _Phase.WAITING
        return [*commands, Restart(stage)]

    def _may_replay(self, run: _Run) -> bool:
        return self.recovery == "replay" and run.n_replays < MOST_REPLAYS

    def _restored(self, stage: int) -> list[Command]:
        if stage not in self._restarting:
            return []
        self._restarting.remove(stage)
        commands: list[Command] = []
        for run in list(self._active.values()):
            if stage in run.replay:
                run.replay.remove(stage)
                again = [other for other in run.needs.ancestors[stage] if run.is_done(other)]
                if any(not run.gone.isdisjoint(run.needs.reads[other]) for other in again):
                    error = "a resident value that the run was fed is lost, so it can't be replayed"
                    commands += self._end(run.number, error, stage, "lost")
                    continue
                run.phases.update(dict.fromkeys(again, _Phase.WAITING))
            commands += self._execute(run)
        return commands

    def _gave_up(self, stage: int, reason: str) -> list[Command]:
        if stage in self._broken:
            return []
        self._restarting.discard(stage)
        self._broken[stage] = reason
        commands: list[Command] = []
        for run in [*self._active.values(), *self._queue.values()]:
            if run.still_needs(stage):
                commands += self._end(run.number, reason, stage, "failed")
        return commands
