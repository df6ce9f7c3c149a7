"""Where a run's time goes, by node and by operator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from distort.cli import console

if TYPE_CHECKING:
    from distort.session import InferenceSession

#: nodes that the table has
_SHOWN = 15


def measure(session: InferenceSession, feeds: dict[str, Any], seconds: float) -> list[dict[str, Any]]:
    """Nodes by the time that a run spends in them, those that take most first; a node's body counts as its own."""
    import time

    from distort.engine import RunControl
    from distort.feeds import read_feeds

    loaded = session._sess._loaded
    values, graph = read_feeds(loaded.specs, feeds), loaded.engine.model.graph
    producers = graph.producers()
    spent_ns: dict[int, int] = {}

    def add(output: str, took_ns: int) -> None:
        position = producers.get(output)
        if position is not None:
            spent_ns[position] = spent_ns.get(position, 0) + took_ns

    def observe(node: Any, start_ns: int, end_ns: int, inputs: Any, outputs: Any) -> None:
        add(next(filter(None, node.outputs), ""), end_ns - start_ns)

    def report(told: Any) -> None:
        for event in told.events:
            add(event.output, event.end_ns - event.start_ns)

    control = RunControl(observer=observe, on_report=report)
    n_runs = 0
    until = time.perf_counter() + min(seconds, 2.0)
    while not n_runs or time.perf_counter() < until:
        loaded.engine.run(loaded.output_names, values, control=control)
        n_runs += 1
    total = sum(spent_ns.values()) or 1
    return [
        {
            "node": graph.nodes[position].name or f"node {position}",
            "operator": graph.nodes[position].op_type,
            "us": ns / n_runs / 1e3,
            "share": ns / total,
        }
        for position, ns in sorted(spent_ns.items(), key=lambda item: -item[1])
    ]


def blocks(nodes: list[dict[str, Any]]) -> list[console.Block]:
    from distort.scheduler.device import format_us
    from distort.scheduler.plan import short

    total_us: dict[str, list[float]] = {}
    for node in nodes:
        total_us.setdefault(node["operator"], []).append(node["us"])
    whole = sum(node["us"] for node in nodes) or 1.0
    operators = sorted(total_us.items(), key=lambda item: -sum(item[1]))
    rows = [(name, str(len(us)), format_us(sum(us)), f"{sum(us) / whole:.1%}") for name, us in operators]
    top = [(short(n["node"]), n["operator"], format_us(n["us"]), f"{n['share']:.1%}") for n in nodes[:_SHOWN]]
    columns = ("node", "operator", "a run", "share")
    return [
        console.Block("Nodes that take the time", (), columns, top, frozenset({2, 3})),
        console.Block("By operator", (), ("operator", "nodes", "a run", "share"), rows, frozenset({1, 2, 3})),
    ]
