"""What became of a session since it was made, in words: the second half of ``InferenceSession.explain``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distort.scheduler.device import format_nbytes, format_us

if TYPE_CHECKING:
    from distort.cluster.activity import Snapshot, UnitPeriod
    from distort.engine import Engine
    from distort.scheduler.plan import Plan


def explain(snapshot: Snapshot, plan: Plan) -> str:
    """Lines about runs, actors, edges and restarts of a parallel session."""
    from distort.cluster.activity import lanes, percentiles

    period = snapshot.since()
    lines = ["Measured since the session was made:"]
    if not snapshot.done and not snapshot.failed:
        lines.append(f"  no run has ended yet, {snapshot.in_flight} in flight")
    else:
        failed = f", {snapshot.failed} failed" if snapshot.failed else ""
        lines.append(f"  {_count(snapshot.done, 'run')} on actors{failed}, {snapshot.in_flight} in flight")
    if snapshot.recent_s:
        times = percentiles(snapshot.recent_s)
        told = ", ".join(f"p{of} {format_us(s * 1e6)}" for of, s in zip((50, 90, 99), times, strict=True))
        rate = f"{period.runs_per_s:.4g} runs/s while any was in flight"
        lines.append(f"  a run: {told} (the last {len(snapshot.recent_s)}); {rate}")
    for unit in period.units:
        lines += [f"  {_unit(unit)}", *(f"    {line}" for line in unit.now.program.splitlines())]
    for lane in lanes(period.edges):
        ends = f"{plan.end_name(lane.producer)} → {plan.end_name(lane.consumer)}"
        a_run = format_nbytes(round(lane.nbytes / max(1, snapshot.done + snapshot.failed)))
        values, total = _count(lane.values, "value"), format_nbytes(lane.nbytes)
        lines.append(f"  {ends}: {a_run} a run, {total} in all; {values} by {lane.transport}")
    if snapshot.restarts:
        who = ", ".join(f"{unit.name} {unit.epoch}" for unit in snapshot.units if unit.epoch)
        lines.append(f"  actors were lost and restarted: {who}")
    return "\n".join(lines)


def of_program(engine: Engine) -> str:
    """Lines about the program in this process: what is compiled, what is not and why."""
    from distort.kernels.compiler.choice import describe_program

    if engine.program is None or not engine.model.graph.nodes:
        return "CPU program: none."
    return "\n  ".join(["CPU program:", *describe_program(engine.program)])


def _unit(period: UnitPeriod) -> str:
    now = period.now
    if not now.answers:
        return f"{now.name} on {now.device}: its actor does not answer"
    text = f"{now.name} on {now.device}: {_count(now.executions, 'execution')}"
    if period.busy is not None and period.bubble is not None:
        text += f", busy {period.busy:.0%} and waiting {period.bubble:.0%} of the time that runs were in flight"
    if now.held:
        text += f"; holds {_count(now.held, 'value')} of {format_nbytes(now.held_nbytes)}"
    if now.slots_nbytes:
        text += f"; {format_nbytes(now.slots_nbytes)} of shared memory"
    return text


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
