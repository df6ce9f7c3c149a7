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


def _of_gpu(engine: Engine) -> str:
    """Lines about a program on a GPU: its plans, what runs on the CPU and why, what crossed."""
    from distort.kernels.cuda import fallback

    gpu = engine.gpu
    lines = [f"GPU program, on cuda:{gpu.device_id}:"]
    lines.append(f"{_count(len(gpu.plans), 'plan')} made in {format_us(gpu.compile_s * 1e6)}; ")
    lines[-1] += f"{_count(gpu.n_graph_runs, 'run')} of one captured graph"
    lines += [f"no plan for some feeds, whose nodes run one at a time: {why}" for why in gpu.refused.values()]
    lines += [f"runs are no captured graphs: {why}" for why in gpu.not_captured]
    lines += [f"not by NVIDIA's libraries: {why}" for why in gpu.context.libraries.obstacles()]
    if (tuning := gpu.context.libraries.tuning) is not None:
        lines += [f"{problem}: {told}" for problem, told in tuning.told.items()]
    by_body = {id(step.host.origin): step.host.origin for _, plan in gpu.plans for step in plan.steps if step.host}
    for node in by_body.values():
        why = fallback.reason(node.domain, node.op_type)
        where = f"on the CPU: {node.label()} ({why})" if why else f"over CuPy, by itself: {node.label()}"
        lines.append(f"{where}; its plan is no captured graph")
    names = {"h2d": "host → GPU", "d2h": "GPU → host", "p2p": "GPU → GPU"}
    for row in engine.transfer_stats():
        what = f"{row['value']}, {format_nbytes(row['nbytes'])} in {_count(row['messages'], 'message')}"
        lines.append(f"{names.get(row['transport'], row['transport'])}: {what}")
    return "\n  ".join(lines)


def of_program(engine: Engine) -> str:
    """Lines about the program in this process: what is compiled, what is not and why."""
    if engine.gpu is not None:
        return _of_gpu(engine)
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
