"""The run state machine: ``step(event) -> commands``. No clock, no IO, no threads; the same events, the same commands.

A run is queued, then admitted (in flight), and ends with exactly one Finish or Fail. Of an admitted run each needed
stage is waiting, executing or done, on a unit that was chosen for it. Events of runs that have ended, of earlier
attempts and of stages that don't execute, are late answers, and mean nothing. A run that is replayed begins anew from
its feeds: values go straight from producer to consumer, and nobody else has them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

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
    ValueLost,
)
from distort.scheduler.needs import Needs, NeedsOfPlan
from distort.scheduler.plan import Plan
from distort.scheduler.units import Units

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
    "ValueLost",
]

RECOVERIES = ("raise", "replay")
#: losses that one run survives by replay: an input that kills its stage must not kill it for ever
MOST_REPLAYS = 7


class _Phase(Enum):
    WAITING = auto()
    EXECUTING = auto()
    DONE = auto()


# each run asks several times, and a member is found sooner by its own name
_WAITING, _EXECUTING, _DONE = _Phase


@dataclass(slots=True, eq=False)
class _Run:
    number: int
    needs: Needs
    resident: dict[str, int]  # feed -> unit that holds it
    phases: dict[int, _Phase]  # of the needed stages, in topological order
    #: stage -> the unit that runs it; empty until the run is admitted, and while it waits to be replayed. Others are
    #: shown it: it is replaced, and not changed
    units: dict[int, int] = field(default_factory=dict)
    #: how often it began anew
    attempt: int = 0
    #: resident feeds whose holder was lost
    gone: set[str] = field(default_factory=set)

    def is_done(self, stage: int) -> bool:
        return self.phases[stage] is _DONE

    def still_needs(self, stage: int) -> bool:
        return stage in self.phases and not self.is_done(stage)


class RunState:
    """Runs over the stages of one plan.

    ``eager``: all needed stages of a run are executed at once, in topological order, because the transport makes
    consumers wait for producers; else a stage is executed when its producers are done. ``recovery``: "raise" fails
    the runs that still need a lost unit, "replay" begins them anew from their feeds, on a replica or once the unit is
    restored. Of a stage with replicas, a run takes the unit with the fewest executions. Without ``values`` no command
    says what becomes of values (Put, Fetch, Release): for transports that see to it by themselves.
    """

    def __init__(
        self, plan: Plan, *, max_in_flight: int = 8, eager: bool = False, recovery: str = "replay", values: bool = True
    ) -> None:
        if max_in_flight < 1:
            raise ValueError(f"max_in_flight must be at least 1, and is {max_in_flight}")
        if recovery not in RECOVERIES:
            raise ValueError(f"unknown recovery {recovery!r}; known are {', '.join(RECOVERIES)}")
        self.max_in_flight = max_in_flight
        self.eager = eager
        self.recovery = recovery
        self.values = values
        self._units = Units(plan.stages)
        self._needs = NeedsOfPlan(plan)
        self._queue: dict[int, _Run] = {}  # in the order of submission
        self._active: dict[int, _Run] = {}
        self._restarting: set[int] = set()  # units
        self._broken: dict[int, str] = {}  # unit -> why it can't be had any more
        self._load = [0] * len(self._units)  # executions under way, by unit

    @property
    def in_flight(self) -> tuple[int, ...]:
        """Runs admitted and not ended, in the order of their admission."""
        return tuple(self._active)

    @property
    def queued(self) -> tuple[int, ...]:
        """Runs that wait for admission, in the order of their submission."""
        return tuple(self._queue)

    def executions(self, unit: int) -> int:
        """How many runs in flight have work for a unit."""
        return self._load[unit]

    def units_of(self, number: int) -> Mapping[int, int]:
        """The unit of each stage that a run in flight needs; nothing while the run waits to begin anew."""
        return self._active[number].units

    def step(self, event: Event) -> list[Command]:
        """What an event leads to, in the order in which it is to be done.

        Raises ValueError for a number that can't be.
        """
        commands = _REACTIONS[type(event)](self, event)
        if self._queue:
            commands += self._admit()
        return commands

    def _checked(self, stage: int) -> int:
        if not 0 <= stage < len(self._units.of_stage):
            raise ValueError(f"there is no stage {stage} in a plan of {len(self._units.of_stage)}")
        return stage

    def _checked_unit(self, unit: int) -> int:
        if not 0 <= unit < len(self._units):
            raise ValueError(f"there is no unit {unit} in a plan of {len(self._units)}")
        return unit

    # -- the life of a run

    def _submit(self, number: int, wanted: frozenset[str], resident: Mapping[str, int]) -> list[Command]:
        if number in self._queue or number in self._active:
            raise ValueError(f"run {number} is under way already")
        needs = self._needs.of(wanted)
        held: dict[str, int] = {}
        if resident:
            held = {name: self._checked_unit(unit) for name, unit in resident.items() if name in needs.feeds}
        if not needs.stages:
            return [Finish(number)]
        for stage in needs.stages if self._broken else ():
            broken = self._broken_stage(stage)
            if broken is not None:
                return [Fail(number, broken, stage, "failed")]
        for name, unit in held.items():
            if unit in self._restarting or unit in self._broken:
                stage = self._units.stage_of[unit]
                return [
                    Fail(number, f"the value fed as {name!r} was lost with {self._units.name(unit)}", stage, "lost")
                ]
        run = _Run(number, needs, held, dict.fromkeys(needs.stages, _WAITING))
        if not self._queue and len(self._active) < self.max_in_flight and self._take_units(run):
            return self._begin(run)
        self._queue[number] = run
        return []

    def _broken_stage(self, stage: int) -> str | None:
        """Why a stage can't be had: all of its units are broken."""
        reasons = [self._broken.get(unit) for unit in self._units.of_stage[stage]]
        return None if None in reasons else reasons[0]

    def _admit(self) -> list[Command]:
        """First come, first served: a run that waits for a restart holds up those behind it."""
        commands: list[Command] = []
        while self._queue and len(self._active) < self.max_in_flight:
            number, run = next(iter(self._queue.items()))
            if not self._take_units(run):
                break
            del self._queue[number]
            commands += self._begin(run)
        return commands

    def _begin(self, run: _Run) -> list[Command]:
        """Admit a run that has its units."""
        number = run.number
        self._active[number] = run
        if not self.values:
            return self._execute(run)
        feeds = run.needs.feeds.items()
        puts = [Put(number, name, readers) for name, readers in feeds if name not in run.resident]
        return [*puts, *self._execute(run)]

    def _take_units(self, run: _Run) -> bool:
        """Choose a unit for each stage of a run. False where a stage has none at the moment: then none is taken."""
        chosen: dict[int, int] = {}
        away, of_stage, load = self._restarting or self._broken, self._units.of_stage, self._load
        for stage in run.needs.stages:
            every = units = of_stage[stage]
            if away:
                units = tuple(unit for unit in every if unit not in self._restarting and unit not in self._broken)
                if not units:
                    return False
            chosen[stage] = units[0] if len(every) == 1 else self._least_busy(run, stage, units)
        run.units = chosen
        for unit in chosen.values():
            load[unit] += 1
        return True

    def _least_busy(self, run: _Run, stage: int, units: Sequence[int]) -> int:
        """The unit that holds what the run was fed, else the one with the fewest executions, in turns."""
        held = [run.resident[name] for name in run.needs.reads[stage] if run.resident.get(name) in units]
        if held:
            return max(units, key=held.count)
        turn = run.number % len(units)
        return min((*units[turn:], *units[:turn]), key=self._load.__getitem__)

    def _execute(self, run: _Run) -> list[Command]:
        """The stages whose turn it is."""
        commands: list[Command] = []
        phases, units, number, attempt = run.phases, run.units, run.number, run.attempt
        for stage, phase in phases.items():
            if phase is _WAITING and (self.eager or all(run.is_done(p) for p in run.needs.producers[stage])):
                phases[stage] = _EXECUTING
                commands.append(Execute(number, stage, units[stage], attempt))
        return commands

    def _stage_done(self, number: int, stages: Sequence[int], attempt: int) -> list[Command]:
        run = self._active.get(number)
        if run is None or attempt != run.attempt:
            return []
        commands: list[Command] = []
        phases = run.phases
        done = [stage for stage in stages if phases.get(stage) is _EXECUTING]
        if not done:
            return []
        for one in done:
            phases[one] = _DONE
            self._load[run.units[one]] -= 1
            if self.values:
                commands += [Fetch(number, name, one) for name in run.needs.fetched[one]]
        if all([phase is _DONE for phase in phases.values()]):
            del self._active[number]
            return [*commands, Finish(number)]
        for one in done if self.values else ():
            commands += self._releases(run, one)
        return commands if self.eager else [*commands, *self._execute(run)]

    def _releases(self, run: _Run, stage: int) -> list[Command]:
        """Values that nobody reads after ``stage``. A run that may be replayed keeps its feeds."""
        return [
            Release(run.number, value, producer)
            for value, producer, readers in run.needs.released[stage]
            if all(map(run.is_done, readers)) and not (producer < 0 and self.recovery == "replay")
        ]

    def _stage_failed(self, number: int, error: str, stage: int, attempt: int) -> list[Command]:
        run = self._active.get(number)
        if run is not None and attempt != run.attempt:
            return []
        return self._end(number, error, stage, "failed")

    def _value_lost(self, number: int, error: str, stage: int, attempt: int) -> list[Command]:
        run = self._active.get(number)
        if run is None or attempt != run.attempt or not run.units:
            return []
        commands = self._call_off(run, stage)
        if self.recovery != "replay" or run.attempt == MOST_REPLAYS or run.gone:
            del self._active[number]
            return [*commands, Fail(number, error, stage, "lost")]
        self._begin_anew(run)
        return [*commands, *self._resume()]

    def _begin_anew(self, run: _Run) -> None:
        """When its stages all have a unit."""
        run.attempt += 1
        run.phases = dict.fromkeys(run.phases, _WAITING)

    def _end(self, number: int, error: str, stage: int | None, kind: FailKind) -> list[Command]:
        """Fail a run that is under way; its stages on hosts that are there are cancelled."""
        run = self._queue.pop(number, None)
        if run is not None:
            return [Fail(number, error, stage, kind)]
        run = self._active.pop(number, None)
        if run is None:
            return []
        failed = stage if kind == "failed" else None
        return [*self._call_off(run, failed), Fail(number, error, stage, kind)]

    def _call_off(self, run: _Run, failed: int | None = None) -> list[Command]:
        """Cancel what a run executes, but on the stage that failed by itself."""
        commands: list[Command] = []
        for stage, unit in run.units.items():
            if run.is_done(stage):
                continue
            self._load[unit] -= 1
            if run.phases[stage] is _EXECUTING and unit not in self._restarting and stage != failed:
                commands.append(CancelStage(run.number, stage, unit, run.attempt))
        run.units = {}
        return commands

    def _progress(self, number: int) -> str:
        run = self._active.get(number)
        if run is None:
            return f"the run was not started, {len(self._active)} runs before it are in flight"
        done = sum(map(run.is_done, run.phases))
        at = ", ".join(str(stage) for stage, phase in run.phases.items() if phase is _EXECUTING)
        return f"{done} of {len(run.phases)} stages were done" + (f"; executing: stage {at}" if at else "")

    # -- units that go and come

    def _lost(self, unit: int, reason: str) -> list[Command]:
        if unit in self._restarting or unit in self._broken:
            return []
        self._restarting.add(unit)
        stage = self._units.stage_of[unit]
        commands: list[Command] = []
        for run in [*self._active.values(), *self._queue.values()]:
            lost = {name for name, holder in run.resident.items() if holder == unit}
            run.gone |= lost
            unread = any(not run.is_done(reader) for name in lost for reader in run.needs.feeds[name])
            # a queued run has begun nothing: it just waits for a unit
            hit = run.units.get(stage) == unit and run.still_needs(stage)
            if unread or (hit and (self.recovery != "replay" or run.attempt == MOST_REPLAYS)):
                commands += self._end(run.number, reason, stage, "lost")
            elif hit and run.gone:
                error = f"{reason}; the run was fed a resident value that is lost too, so it can't be replayed"
                commands += self._end(run.number, error, stage, "lost")
            elif hit:
                commands += self._call_off(run)
                self._begin_anew(run)
        return [*commands, Restart(unit), *self._resume()]

    def _resume(self) -> list[Command]:
        """Begin anew the runs that wait for it and whose stages all have a unit again."""
        commands: list[Command] = []
        for run in self._active.values():
            if not run.units and self._take_units(run):
                commands += self._execute(run)
        return commands

    def _restored(self, unit: int) -> list[Command]:
        if unit not in self._restarting:
            return []
        self._restarting.remove(unit)
        return self._resume()

    def _gave_up(self, unit: int, reason: str) -> list[Command]:
        if unit in self._broken:
            return []
        self._restarting.discard(unit)
        self._broken[unit] = reason
        stage = self._units.stage_of[unit]
        commands: list[Command] = []
        if self._broken_stage(stage) is None:
            return self._resume()
        for run in [*self._active.values(), *self._queue.values()]:
            if run.still_needs(stage):
                commands += self._end(run.number, reason, stage, "failed")
        return commands


_Reaction = Callable[[RunState, Any], list[Command]]
_REACTIONS: dict[type[Event], _Reaction] = {
    Submit: lambda state, event: state._submit(event.run, event.wanted, event.resident),
    StageDone: lambda state, event: state._stage_done(
        event.run, (*event.implied, state._checked(event.stage)), event.attempt
    ),
    StageFailed: lambda state, event: state._stage_failed(
        event.run, event.error, state._checked(event.stage), event.attempt
    ),
    ValueLost: lambda state, event: state._value_lost(
        event.run, event.error, state._checked(event.stage), event.attempt
    ),
    StageLost: lambda state, event: state._lost(state._checked_unit(event.unit), event.reason),
    StageRestored: lambda state, event: state._restored(state._checked_unit(event.unit)),
    StageBroken: lambda state, event: state._gave_up(state._checked_unit(event.unit), event.reason),
    Cancel: lambda state, event: state._end(event.run, "the run was cancelled", None, "cancelled"),
    DeadlinePassed: lambda state, event: state._end(event.run, state._progress(event.run), None, "deadline"),
}
