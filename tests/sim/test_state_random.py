"""Random plans, random interleavings of answers, losses, cancellations: every run ends once, nothing runs early."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from distort.scheduler.device import cpu
from distort.scheduler.plan import CALLER, Edge, Plan, Prediction, Stage
from distort.scheduler.state import (
    RECOVERIES,
    Cancel,
    CancelStage,
    Command,
    DeadlinePassed,
    Event,
    Execute,
    Fail,
    Fetch,
    Finish,
    Put,
    Release,
    Restart,
    RunState,
    StageBroken,
    StageDone,
    StageFailed,
    StageLost,
    StageRestored,
    Submit,
    ValueLost,
)
from distort.scheduler.units import Units


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Any acyclic wiring of up to six stages; values may go to several stages, to the caller, or to nobody."""
    n_stages = draw(st.integers(1, 6))
    values = ["x", "z"]
    stages, edges, made_by, fetched = [], [], {}, []
    for i in range(n_stages):
        inputs = tuple(draw(st.lists(st.sampled_from(values), min_size=1, max_size=3, unique=True)))
        outputs = tuple(f"v{i}.{k}" for k in range(draw(st.integers(1, 2))))
        edges += [Edge(name, made_by.get(name, CALLER), i, 8, "fake") for name in inputs]
        made_by.update(dict.fromkeys(outputs, i))
        values += outputs
        fetched += [name for name in outputs if i == n_stages - 1 or draw(st.booleans())]
        replicas = tuple(cpu(10 * i + k) for k in range(draw(st.sampled_from([0, 0, 1, 2]))))
        stages.append(Stage(f"stage{i}", i, (i,), (f"n{i}",), cpu(i), inputs, outputs, 1.0, 0, 0, replicas))
    edges += [Edge(name, made_by[name], CALLER, 8, "fake") for name in fetched]
    return Plan("random", "latency", tuple(stages), tuple(edges), (), Prediction(1.0, 1.0, 1.0, 1.0))


@dataclass
class Cluster:
    """Hosts that answer in any order, die, come back or don't. Checks each command against what may be."""

    plan: Plan
    state: RunState
    wanted: dict[int, frozenset[str]] = field(default_factory=dict)
    resident: dict[int, dict[str, int]] = field(default_factory=dict)
    ended: Counter[int] = field(default_factory=Counter)
    finished: set[int] = field(default_factory=set)
    #: executions that have not answered: (run, stage) -> (unit, attempt)
    open: dict[tuple[int, int], tuple[int, int]] = field(default_factory=dict)
    #: executions of attempts that were called off, which may answer all the same
    stale: list[tuple[int, int, int]] = field(default_factory=list)
    done: dict[int, set[int]] = field(default_factory=dict)
    fetched: dict[int, set[str]] = field(default_factory=dict)
    restarting: list[int] = field(default_factory=list)
    broken: set[int] = field(default_factory=set)
    begun: set[int] = field(default_factory=set)
    attempts: dict[int, int] = field(default_factory=dict)
    #: stages that were done and said nothing, by run
    silent: dict[int, set[int]] = field(default_factory=dict)
    units: Units = field(init=False)

    def __post_init__(self) -> None:
        self.units = Units(self.plan.stages)

    def send(self, event: Event) -> None:
        if isinstance(event, Submit):
            self.wanted[event.run] = event.wanted
            self.resident[event.run] = dict(event.resident)
            self.done[event.run] = set()
            self.fetched[event.run] = set()
        for command in self.state.step(event):
            self.carry_out(command)
        alive = self.begun - set(self.ended)
        assert len(alive) <= self.state.max_in_flight
        assert alive == set(self.state.in_flight)
        assert set(self.state.queued) == set(self.wanted) - self.begun - set(self.ended)

    def carry_out(self, command: Command) -> None:
        if isinstance(command, Restart):
            assert command.unit not in self.restarting and command.unit not in self.broken
            self.restarting.append(command.unit)
            return
        assert not self.ended[command.run], f"{command} after the end of the run"
        if isinstance(command, Execute):
            self.execute(command)
        elif isinstance(command, Put):
            assert command.value not in self.resident[command.run]
            self.begun.add(command.run)
        elif isinstance(command, CancelStage):
            known = self.open.pop((command.run, command.stage), None)
            # a stage that was done and said nothing looks as if it were at work
            assert known == (command.unit, command.attempt) or command.stage in self.done[command.run]
            assert command.unit not in self.restarting
            self.stale.append((command.run, command.stage, command.attempt))
        elif isinstance(command, Fetch):
            assert command.value in self.wanted[command.run] & set(self.plan.stages[command.stage].outputs)
            self.fetched[command.run].add(command.value)
        elif isinstance(command, Release):
            assert command.value not in self.wanted[command.run]
        else:
            assert isinstance(command, (Finish, Fail))
            self.ended[command.run] += 1
            left = {stage for number, stage in self.open if number == command.run}
            if isinstance(command, Finish):
                assert not left or self.state.eager
            elif command.kind == "failed":
                left -= {command.stage}
                assert not left, "a run that ended is executed"
            if isinstance(command, Finish):
                made = {name for stage in self.plan.stages for name in stage.outputs}
                assert self.fetched[command.run] == self.wanted[command.run] & made
                self.finished.add(command.run)

    def execute(self, command: Execute) -> None:
        run, stage = command.run, command.stage
        self.begun.add(run)
        assert command.unit not in self.restarting and command.unit not in self.broken
        assert command.unit in self.units.of_stage[stage]
        assert stage in self.needed(run), "a stage that nobody needs"
        if command.attempt != self.attempts.get(run, 0):  # the run begins anew
            assert command.attempt == self.attempts.get(run, 0) + 1
            self.attempts[run] = command.attempt
            self.silent.pop(run, None)
            self.done[run].clear()
            assert not any(number == run for number, _ in self.open), "two attempts at once"
        if not self.state.eager:
            assert set(self.plan.producers_of(stage)) <= self.done[run], "executed before its producers"
        else:
            on_the_way = self.done[run] | {other for number, other in self.open if number == run}
            assert set(self.plan.producers_of(stage)) <= on_the_way, "chained to something that doesn't run"
        assert (run, stage) not in self.open and stage not in self.done[run]
        self.open[run, stage] = (command.unit, command.attempt)

    def needed(self, run: int) -> set[int]:
        open_ends = [s.index for s in self.plan.stages if self.wanted[run] & set(s.outputs)]
        found = set(open_ends)
        while open_ends:
            new = set(self.plan.producers_of(open_ends.pop())) - found
            found |= new
            open_ends += new
        return found

    def answerable(self) -> list[tuple[int, int]]:
        """Executions whose inputs are there. A chained consumer answers after its producers."""
        return [
            (run, stage)
            for (run, stage), (unit, _) in self.open.items()
            if unit not in self.restarting and set(self.plan.producers_of(stage)) <= self.done[run]
        ]

    def answer(
        self,
        run: int,
        stage: int,
        error: str | None,
        *,
        told: bool = True,
        kind: type[StageFailed | ValueLost] = StageFailed,
    ) -> None:
        """``told`` False: a stage that hands its values on says nothing, those after it will."""
        attempt = self.open.pop((run, stage))[1]
        if error is None:
            self.done[run].add(stage)
            if told:
                silent = self.silent.get(run, set()) & self.before(stage)
                self.send(StageDone(run, stage, attempt, tuple(silent)))
            else:
                self.silent.setdefault(run, set()).add(stage)
        else:
            self.send(kind(run, stage, error, attempt))

    def before(self, stage: int) -> set[int]:
        """Stages that a stage depends on."""
        found = set(self.plan.producers_of(stage))
        return found.union(*map(self.before, found))

    def may_be_silent(self, run: int, stage: int) -> bool:
        """Whether a stage chained after this one will answer."""
        return self.state.eager and any(
            number == run and stage in self.plan.producers_of(other) for number, other in self.open
        )

    def lose(self, unit: int) -> None:
        """The host dies, with what it was doing."""
        if unit in self.restarting or unit in self.broken:
            self.send(StageLost(unit, "said again"))
            return
        for execution in [key for key, (at, _) in self.open.items() if at == unit]:
            del self.open[execution]
        self.send(StageLost(unit, "killed"))
        self.send(StageLost(unit, "killed"))

    def settle(self) -> None:
        """Answer everything that is open, until nothing is."""
        for _ in range(10_000):
            if self.restarting:
                self.send(StageRestored(self.restarting.pop()))
            elif (ready := self.answerable()) != []:
                self.answer(*ready[0], None)
            else:
                return
        raise AssertionError("the machine does not come to rest")


@settings(max_examples=150, deadline=None)
@given(
    plan=plans(),
    max_in_flight=st.integers(1, 4),
    eager=st.booleans(),
    recovery=st.sampled_from(RECOVERIES),
    data=st.data(),
)
def test_every_run_ends_once(plan: Plan, max_in_flight: int, eager: bool, recovery: str, data: st.DataObject) -> None:
    cluster = Cluster(plan, RunState(plan, max_in_flight=max_in_flight, eager=eager, recovery=recovery))
    outputs = [edge.value for edge in plan.edges if edge.consumer == CALLER]
    stages, units = st.integers(0, len(plan.stages) - 1), st.integers(0, len(cluster.units) - 1)
    numbers = itertools.count()
    for _ in range(data.draw(st.integers(1, 40), label="steps")):
        action = data.draw(st.sampled_from(["submit", "submit", "done", "done", "done", "done", "other"]))
        if action == "other":
            action = data.draw(
                st.sampled_from(
                    ["fail", "cut", "lose", "restore", "restore", "break", "cancel", "late", "stray", "stale"]
                )
            )
        ready = cluster.answerable()
        if action == "submit":
            wanted = data.draw(st.frozensets(st.sampled_from([*outputs, "x"]), max_size=3))
            resident = data.draw(st.dictionaries(st.sampled_from(["x", "z"]), units, max_size=1))
            cluster.send(Submit(next(numbers), wanted, resident))
        elif action == "cut" and ready:
            cluster.answer(*data.draw(st.sampled_from(ready)), "cut", kind=ValueLost)
        elif action in ("done", "fail") and ready:
            chosen = data.draw(st.sampled_from(ready))
            told = not cluster.may_be_silent(*chosen) or data.draw(st.booleans())
            cluster.answer(*chosen, "refused" if action == "fail" else None, told=told)
        elif action == "lose":
            cluster.lose(data.draw(units))
        elif action in ("restore", "break") and cluster.restarting:
            unit = data.draw(st.sampled_from(cluster.restarting))
            cluster.restarting.remove(unit)
            if action == "restore":
                cluster.send(StageRestored(unit))
            else:
                cluster.broken.add(unit)
                cluster.send(StageBroken(unit, "no host to be had"))
        elif action in ("cancel", "late") and cluster.wanted:
            run = data.draw(st.sampled_from(sorted(cluster.wanted)))
            cluster.send(Cancel(run) if action == "cancel" else DeadlinePassed(run))
            if action == "cancel":
                assert cluster.ended[run] == 1
        elif action == "stray":
            run = data.draw(st.integers(0, 50))
            if not any(number == run for number, _ in cluster.open):
                cluster.send(StageDone(run, data.draw(stages)))
        elif action == "stale" and cluster.stale:
            run, stage, attempt = data.draw(st.sampled_from(cluster.stale))
            if cluster.ended[run] or attempt != cluster.attempts.get(run, 0):
                late = data.draw(st.booleans())
                cluster.send(StageDone(run, stage, attempt) if late else StageFailed(run, stage, "stale", attempt))
    cluster.settle()
    assert set(cluster.ended) == set(cluster.wanted)
    assert set(cluster.ended.values()) <= {1}
    assert cluster.state.in_flight == () and cluster.state.queued == ()


@settings(max_examples=60, deadline=None)
@given(plan=plans(), max_in_flight=st.integers(1, 4), eager=st.booleans(), n_runs=st.integers(1, 8), data=st.data())
def test_undisturbed_runs_all_finish(
    plan: Plan, max_in_flight: int, eager: bool, n_runs: int, data: st.DataObject
) -> None:
    cluster = Cluster(plan, RunState(plan, max_in_flight=max_in_flight, eager=eager))
    wanted = frozenset(edge.value for edge in plan.edges if edge.consumer == CALLER)
    for run in range(n_runs):
        cluster.send(Submit(run, wanted))
    while ready := cluster.answerable():
        cluster.answer(*data.draw(st.sampled_from(ready)), None)
    assert cluster.finished == set(range(n_runs))


@settings(max_examples=60, deadline=None)
@given(plan=plans(), eager=st.booleans(), n_losses=st.integers(1, 3), data=st.data())
def test_replay_survives_losses(plan: Plan, eager: bool, n_losses: int, data: st.DataObject) -> None:
    cluster = Cluster(plan, RunState(plan, eager=eager))
    wanted = frozenset(edge.value for edge in plan.edges if edge.consumer == CALLER)
    for run in range(3):
        cluster.send(Submit(run, wanted))
    for _ in range(n_losses):
        for _ in range(data.draw(st.integers(0, 6))):
            if ready := cluster.answerable():
                cluster.answer(*data.draw(st.sampled_from(ready)), None)
        cluster.lose(data.draw(st.integers(0, len(cluster.units) - 1)))
        if data.draw(st.booleans()) and cluster.restarting:
            cluster.send(StageRestored(cluster.restarting.pop()))
    cluster.settle()
    assert cluster.finished == {0, 1, 2}
