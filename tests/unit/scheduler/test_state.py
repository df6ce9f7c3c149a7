"""The run state machine, event by event."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from distort.scheduler.device import cpu
from distort.scheduler.plan import Plan
from distort.scheduler.state import (
    MOST_REPLAYS,
    Cancel,
    CancelStage,
    DeadlinePassed,
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

PlanOf = Callable[..., Plan]
DIAMOND = [(["x"], ["a"]), (["a"], ["b"]), (["a", "z"], ["c"]), (["b", "c"], ["y"])]
CHAIN = [(["x"], ["a"]), (["a"], ["b"]), (["b"], ["y"])]


def submit(run: int, wanted: str = "y", **resident: int) -> Submit:
    return Submit(run, frozenset(wanted), resident)


def execute(run: int, stage: int, attempt: int = 0, unit: int | None = None) -> Execute:
    return Execute(run, stage, stage if unit is None else unit, attempt)


def cancel_stage(run: int, stage: int, attempt: int = 0) -> CancelStage:
    return CancelStage(run, stage, stage, attempt)


@pytest.fixture
def diamond(plan_of: PlanOf) -> Plan:
    return plan_of(DIAMOND, ["y", "c"])


@pytest.fixture
def chain(plan_of: PlanOf) -> Plan:
    return plan_of(CHAIN, ["y"])


def test_a_stage_executes_when_its_producers_are_done(diamond: Plan) -> None:
    state = RunState(diamond, recovery="raise")
    assert state.step(submit(0)) == [Put(0, "x", (0,)), Put(0, "z", (2,)), execute(0, 0)]
    assert state.step(StageDone(0, 0)) == [Release(0, "x", -1), execute(0, 1), execute(0, 2)]
    assert state.step(StageDone(0, 2)) == [Release(0, "z", -1)]
    assert state.step(StageDone(0, 1)) == [Release(0, "a", 0), execute(0, 3)]
    assert state.step(StageDone(0, 3)) == [Fetch(0, "y", 3), Finish(0)]
    assert state.in_flight == ()


def test_eager_executes_all_at_once_in_topological_order(diamond: Plan) -> None:
    commands = RunState(diamond, eager=True).step(submit(0))
    assert [c for c in commands if isinstance(c, Execute)] == [execute(0, stage) for stage in range(4)]


def test_only_what_the_wanted_values_need_is_executed(diamond: Plan) -> None:
    state = RunState(diamond, eager=True, recovery="raise")
    assert state.step(submit(0, "c")) == [Put(0, "x", (0,)), Put(0, "z", (2,)), execute(0, 0), execute(0, 2)]
    assert state.step(StageDone(0, 0)) == [Release(0, "x", -1)]
    assert state.step(StageDone(0, 2)) == [Fetch(0, "c", 2), Finish(0)]
    assert state.step(Submit(1, frozenset(["x"]))) == [Finish(1)]
    assert state.step(Submit(2, frozenset())) == [Finish(2)]


def test_a_stage_that_is_done_speaks_for_silent_ones_before_it(diamond: Plan) -> None:
    state = RunState(diamond, eager=True, recovery="raise")
    state.step(submit(0))
    assert state.step(StageDone(0, 2, 0, (0,))) == [Release(0, "x", -1), Release(0, "z", -1)]
    assert state.step(StageDone(0, 0)) == []
    assert state.step(StageDone(0, 3))[0] == Fetch(0, "y", 3)
    assert state.step(StageDone(0, 1))[-1] == Finish(0)


def test_what_nobody_wants_is_released_when_it_is_made(plan_of: PlanOf) -> None:
    state = RunState(plan_of([(["x"], ["a", "extra"]), (["a"], ["y"])], ["y", "extra"]))
    state.step(submit(0))
    assert Release(0, "extra", 0) in state.step(StageDone(0, 0))


def test_runs_beyond_the_bound_wait_their_turn(chain: Plan) -> None:
    state = RunState(chain, max_in_flight=2)
    for run in range(4):
        commands = state.step(submit(run))
        assert (execute(run, 0) in commands) == (run < 2)
    assert (state.in_flight, state.queued) == ((0, 1), (2, 3))
    assert state.step(Cancel(2)) == [Fail(2, "the run was cancelled", None, "cancelled")]
    assert state.step(Cancel(0))[-2:] == [Put(3, "x", (0,)), execute(3, 0)]


def test_a_failure_cancels_what_the_run_still_executes(diamond: Plan) -> None:
    state = RunState(diamond, eager=True)
    state.step(submit(0))
    state.step(StageDone(0, 0))
    assert state.step(StageFailed(0, 1, "bad shape")) == [
        cancel_stage(0, 2),
        cancel_stage(0, 3),
        Fail(0, "bad shape", 1, "failed"),
    ]
    # answers that come late mean nothing
    for event in (StageDone(0, 2), StageFailed(0, 3, "upstream"), Cancel(0), DeadlinePassed(0)):
        assert state.step(event) == []


def test_cancel_and_deadline_end_a_run_at_once(chain: Plan) -> None:
    state = RunState(chain, max_in_flight=2)
    for run in range(3):
        state.step(submit(run))
    assert state.step(Cancel(0))[:2] == [cancel_stage(0, 0), Fail(0, "the run was cancelled", None, "cancelled")]
    state.step(StageDone(1, 0))
    late = state.step(DeadlinePassed(1))
    assert late == [cancel_stage(1, 1), Fail(1, "1 of 3 stages were done; executing: stage 1", None, "deadline")]


def test_a_loss_fails_the_runs_that_still_need_the_stage(chain: Plan) -> None:
    state = RunState(chain, max_in_flight=3, recovery="raise")
    for run in range(4):
        state.step(submit(run))
    state.step(StageDone(0, 0))
    state.step(StageDone(1, 0))
    state.step(StageDone(1, 1))
    # run 1 is past stage 1, run 3 has begun nothing
    assert state.step(StageLost(1, "killed")) == [
        Fail(0, "killed", 1, "lost"),
        cancel_stage(2, 0),
        Fail(2, "killed", 1, "lost"),
        Restart(1),
    ]
    assert state.step(StageLost(1, "killed")) == []
    assert state.step(submit(4)) == []
    assert state.queued == (3, 4)
    assert state.step(StageDone(1, 2))[-1] == Finish(1)
    restored = state.step(StageRestored(1))
    assert [c for c in restored if isinstance(c, Execute)] == [execute(3, 0), execute(4, 0)]
    assert state.step(StageRestored(1)) == []


def test_a_replay_begins_anew_from_the_feeds(diamond: Plan) -> None:
    state = RunState(diamond)
    state.step(submit(0))
    for stage in (0, 2):
        state.step(StageDone(0, stage))
    assert state.step(StageLost(1, "killed")) == [Restart(1)]
    assert state.step(StageRestored(1)) == [execute(0, 0, 1)]
    assert state.step(StageDone(0, 0, 1)) == [execute(0, 1, 1), execute(0, 2, 1)]
    assert state.step(StageDone(0, 1, 1)) == []
    assert state.step(StageDone(0, 2, 1)) == [Release(0, "a", 0), execute(0, 3, 1)]
    assert state.step(StageDone(0, 3, 1))[-1] == Finish(0)


def test_a_replay_calls_off_the_attempt_before(chain: Plan) -> None:
    state = RunState(chain, eager=True)
    state.step(submit(0))
    assert state.step(StageLost(1, "killed")) == [cancel_stage(0, 0), cancel_stage(0, 2), Restart(1)]
    for stage in (0, 2):  # answers of the attempt before
        assert state.step(StageDone(0, stage)) == []
        assert state.step(StageFailed(0, stage, "cancelled")) == []
    assert state.step(StageRestored(1)) == [execute(0, 0, 1), execute(0, 1, 1), execute(0, 2, 1)]
    assert state.step(StageFailed(0, 2, "cancelled")) == []
    assert state.step(StageDone(0, 2, 1, (0, 1)))[-1] == Finish(0)


def test_a_value_that_can_not_come_begins_its_run_anew_and_no_other(chain: Plan) -> None:
    state = RunState(chain, max_in_flight=2, eager=True)
    for run in (0, 1):
        state.step(submit(run))
    state.step(StageDone(0, 0))  # whose value is not coming
    anew = [execute(0, stage, 1) for stage in range(3)]
    assert state.step(ValueLost(0, 1, "cut")) == [cancel_stage(0, 2), *anew]
    assert state.step(ValueLost(0, 1, "cut")) == []  # of the attempt before
    assert state.step(StageDone(0, 2, 1, (0, 1)))[-1] == Finish(0)
    assert state.step(StageDone(1, 2, 0, (0, 1)))[-1] == Finish(1)


def test_a_value_that_can_not_come_fails_its_run_where_there_is_no_replay(chain: Plan) -> None:
    state = RunState(chain, eager=True, recovery="raise")
    state.step(submit(0))
    assert state.step(ValueLost(0, 1, "cut"))[-1] == Fail(0, "cut", 1, "lost")
    state = RunState(chain, eager=True)
    state.step(submit(0))
    for attempt in range(MOST_REPLAYS):
        assert execute(0, 1, attempt + 1) in state.step(ValueLost(0, 1, "cut", attempt))
    assert state.step(ValueLost(0, 1, "cut", MOST_REPLAYS))[-1] == Fail(0, "cut", 1, "lost")


def test_a_run_whose_value_can_not_come_waits_for_a_unit_that_is_away(chain: Plan) -> None:
    state = RunState(chain, eager=True)
    state.step(submit(0))
    state.step(StageDone(0, 0))
    state.step(StageLost(0, "killed"))  # the run needs it no more
    assert state.step(ValueLost(0, 1, "cut")) == [cancel_stage(0, 2)]
    assert state.step(StageRestored(0)) == [execute(0, stage, 1) for stage in range(3)]


def test_an_input_that_kills_its_stage_is_not_replayed_for_ever(chain: Plan) -> None:
    state = RunState(chain, eager=True)
    state.step(submit(0))
    for _ in range(MOST_REPLAYS):
        assert Restart(0) in state.step(StageLost(0, "killed"))
        state.step(StageRestored(0))
    assert Fail(0, "killed", 0, "lost") in state.step(StageLost(0, "killed"))


def test_a_stage_that_cannot_be_had_fails_the_runs_that_need_it(diamond: Plan) -> None:
    state = RunState(diamond)
    state.step(submit(0))
    state.step(StageLost(1, "killed"))
    state.step(submit(1))
    state.step(submit(2, "c"))
    assert state.queued == (1, 2)
    commands = state.step(StageBroken(1, "no memory"))
    assert [c for c in commands if isinstance(c, Fail)] == [Fail(run, "no memory", 1, "failed") for run in (0, 1)]
    assert execute(2, 0) in commands
    assert state.step(submit(3)) == [Fail(3, "no memory", 1, "failed")]
    assert state.step(StageLost(1, "again")) == []


def test_a_failed_restart_told_run_by_run_ends_them_all(chain: Plan) -> None:
    state = RunState(chain, max_in_flight=1)
    for run in range(3):
        state.step(submit(run))
    state.step(StageLost(0, "killed"))
    for run in range(3):
        assert Fail(run, "no restart", 0, "failed") in state.step(StageFailed(run, 0, "no restart", int(run == 0)))
    assert (state.in_flight, state.queued) == ((), ())


def test_resident_feeds_are_not_put_and_die_with_their_unit(diamond: Plan) -> None:
    state = RunState(diamond, max_in_flight=1)
    assert state.step(submit(0, z=2)) == [Put(0, "x", (0,)), execute(0, 0)]
    state.step(submit(1, z=3))
    lost = state.step(StageLost(2, "killed"))
    assert Fail(0, "killed", 2, "lost") in lost and Restart(2) in lost
    assert state.step(submit(2, z=2)) == [Fail(2, "the value fed as 'z' was lost with stage2", 2, "lost")]
    assert state.queued == (1,)


def test_a_run_whose_resident_feed_is_gone_cannot_be_replayed(diamond: Plan) -> None:
    state = RunState(diamond)
    state.step(submit(0, x=2))
    state.step(StageDone(0, 0))
    state.step(StageDone(0, 2))
    assert state.step(StageLost(2, "killed")) == [Restart(2)]  # x is read already
    failed = state.step(StageLost(1, "killed too"))[0]
    assert isinstance(failed, Fail) and failed.kind == "lost" and "resident" in failed.error


def test_runs_take_turns_on_replicas(plan_of: PlanOf) -> None:
    state = RunState(replicated(plan_of), eager=True)
    units = [state.step(submit(run))[-1] for run in range(4)]
    assert units == [execute(0, 1, unit=1), execute(1, 1, unit=2), execute(2, 1, unit=1), execute(3, 1, unit=2)]
    state.step(StageDone(1, 1))
    state.step(StageDone(3, 1))
    assert state.step(submit(4))[-1] == execute(4, 1, unit=2)  # the one with less to do
    assert state.step(submit(5, a=1))[-1] == execute(5, 1, unit=2)


def test_a_run_goes_to_the_replica_that_holds_its_feed(plan_of: PlanOf) -> None:
    plan = plan_of([(["x"], ["a"]), (["a", "state"], ["y"])], ["y"])
    plan = replace(plan, stages=(plan.stages[0], replace(plan.stages[1], replicas=(cpu(2),))))
    state = RunState(plan, eager=True)
    for run in range(3):
        assert state.step(submit(run, state=2))[-1] == execute(run, 1, unit=2)


def test_a_lost_replica_leaves_the_runs_to_the_others(plan_of: PlanOf) -> None:
    state = RunState(replicated(plan_of), eager=True)
    state.step(submit(0))
    assert state.step(StageLost(1, "killed")) == [
        cancel_stage(0, 0),
        Restart(1),
        execute(0, 0, 1),
        execute(0, 1, 1, unit=2),
    ]
    assert state.step(submit(1))[-1] == execute(1, 1, unit=2)
    assert state.step(StageBroken(1, "no memory")) == []
    assert state.step(StageDone(0, 1, 1, (0,)))[-1] == Finish(0)
    lost = state.step(StageLost(2, "killed"))
    assert lost == [cancel_stage(1, 0), Restart(2)]
    assert state.step(StageBroken(2, "no memory")) == [Fail(1, "no memory", 1, "failed")]


def replicated(plan_of: PlanOf) -> Plan:
    """Two stages, the second on two devices: units 1 and 2."""
    plan = plan_of([(["x"], ["a"]), (["a"], ["y"])], ["y"])
    return replace(plan, stages=(plan.stages[0], replace(plan.stages[1], replicas=(cpu(2),))))


def test_what_cannot_be(chain: Plan) -> None:
    with pytest.raises(ValueError, match="unknown recovery 'hope'; known are raise, replay"):
        RunState(chain, recovery="hope")
    with pytest.raises(ValueError, match="at least 1"):
        RunState(chain, max_in_flight=0)
    state = RunState(chain)
    state.step(submit(0))
    with pytest.raises(ValueError, match="run 0 is under way"):
        state.step(submit(0))
    with pytest.raises(ValueError, match="no unit 3"):
        state.step(StageLost(3, "killed"))
