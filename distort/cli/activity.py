"""Tables of what a session's actors did in a period; the live ones of `bench` and `top`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from distort.cli.console import Block
from distort.cluster.activity import Period, lanes, percentiles
from distort.scheduler.device import format_nbytes, format_us

if TYPE_CHECKING:
    from distort.cluster.activity import Lane, UnitPeriod

#: the percentiles that are told
PERCENTILES = (50, 90, 99)
_UNIT_COLUMNS = ("stage", "device", "runs/s", "busy", "bubble", "queue", "held", "held bytes", "shared memory")
_EDGE_COLUMNS = ("edge", "values", "bytes a run", "bytes/s", "transport")


def blocks(heading: str, period: Period, latencies_s: Sequence[float], queued: Sequence[float] = ()) -> list[Block]:
    """Throughput and latencies, actors, edges. ``queued``: by unit, where there is better than the last moment's."""
    units = [_unit_row(unit, period.seconds, _at(queued, i)) for i, unit in enumerate(period.units)]
    edges = [_lane_row(lane, period) for lane in lanes(period.edges)]
    return [
        Block(heading, [rate_line(period.runs_per_s, latencies_s), *_troubles(period)]),
        Block("Actors", (), _UNIT_COLUMNS, units, frozenset(range(2, len(_UNIT_COLUMNS)))),
        Block("Edges", (), _EDGE_COLUMNS, edges, frozenset({1, 2, 3})),
    ]


def rate_line(runs_per_s: float, latencies_s: Sequence[float]) -> str:
    times = percentiles(latencies_s, PERCENTILES)
    told = "".join(f", p{of} {format_us(s * 1e6)}" for of, s in zip(PERCENTILES, times, strict=False))
    return f"{runs_per_s:.4g} runs/s{told}"


def _troubles(period: Period) -> list[str]:
    found = []
    if period.failed:
        found.append(f"{period.failed} runs failed")
    if period.restarts:
        found.append(f"{period.restarts} actors were lost and restarted")
    return found


def _at(values: Sequence[float], position: int) -> float | None:
    return values[position] if position < len(values) else None


def _unit_row(unit: UnitPeriod, seconds: float, queued: float | None) -> tuple[str, ...]:
    now = unit.now
    if not now.answers:
        return (now.name, now.device, *["no answer"] * 2, *[""] * 5)
    rate = f"{unit.executions / seconds:.4g}" if seconds > 0 else ""
    queue = f"{now.queued if queued is None else queued:.3g}"
    held = (str(now.held), format_nbytes(now.held_nbytes), format_nbytes(now.slots_nbytes))
    return (now.name, now.device, rate, _share(unit.busy), _share(unit.bubble), queue, *held)


def _share(part: float | None) -> str:
    return "" if part is None else f"{part:.0%}"


def _lane_row(lane: Lane, period: Period) -> tuple[str, ...]:
    a_run = format_nbytes(round(lane.nbytes / max(1, period.done + period.failed)))
    a_second = format_nbytes(round(lane.nbytes / period.seconds)) if period.seconds > 0 else ""
    return (f"{_end(lane.producer)} → {_end(lane.consumer)}", str(lane.values), a_run, a_second, lane.transport)


def _end(stage: int) -> str:
    return "caller" if stage < 0 else f"stage{stage}"


def as_dict(period: Period, queued: Sequence[float] = ()) -> dict[str, Any]:
    """The same for JSON."""
    units = [
        {
            "name": unit.now.name,
            "device": unit.now.device,
            "answers": unit.now.answers,
            "executions": unit.executions,
            "busy": unit.busy,
            "bubble": unit.bubble,
            "queue": unit.now.queued if (mean := _at(queued, i)) is None else mean,
            "held": unit.now.held,
            "held_nbytes": unit.now.held_nbytes,
            "slots_nbytes": unit.now.slots_nbytes,
        }
        for i, unit in enumerate(period.units)
    ]
    edges = [
        {
            "value": item.edge.value,
            "producer": item.edge.producer,
            "consumer": item.edge.consumer,
            "transport": item.edge.transport,
            "nbytes": item.nbytes,
            "messages": item.messages,
        }
        for item in period.edges
        if item.messages
    ]
    return {"actors": units, "edges": edges, "failed": period.failed, "restarts": period.restarts}
