"""A plan as one self-contained page: the graph as SVG coloured by stage, the tables, the explanation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from distort.graph.ir import Graph
from distort.scheduler.device import format_nbytes, format_us
from distort.scheduler.gantt import draw_schedule, hue
from distort.scheduler.layout import Box, Picture, Wire, draw
from distort.scheduler.plan import Plan, Stage, devices_text, span
from distort.scheduler.simulate import simulate

#: names that a tooltip or a cell lists
_LISTED = 40
#: runs whose simulated schedule is drawn
_RUNS = 4
_STYLE = """
:root { color-scheme: light dark; --back: #fff; --text: #1c1e21; --faint: #d5d8dd; --wire: #8a9099; --cross: #c0392b;
  --light: 84%; --rim: 42%; }
@media (prefers-color-scheme: dark) { :root { --back: #16181c; --text: #e4e6ea; --faint: #3a3f47; --wire: #707883;
  --cross: #ff7b6b; --light: 27%; --rim: 60%; } }
body { margin: 1.5rem; background: var(--back); color: var(--text); font: 14px/1.45 system-ui, sans-serif; }
h1 { font-size: 1.3rem; } h2 { font-size: 1.05rem; margin-top: 1.6rem; }
table { border-collapse: collapse; } .scroll { overflow: auto; max-width: 100%; max-height: 80vh; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid var(--faint); text-align: left; vertical-align: top; }
td.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.picture { border: 1px solid var(--faint); border-radius: 6px; }
.chip { display: inline-block; padding: .1rem .6rem; margin: 0 .4rem .3rem 0; border-radius: 4px; border: 1px solid; }
.stage { background: hsl(var(--hue) 60% var(--light)); border-color: hsl(var(--hue) 50% var(--rim)); }
.caller { background: transparent; border-color: var(--wire); border-style: dashed; }
svg text { fill: var(--text); text-anchor: middle; dominant-baseline: central; }
svg .stage rect { fill: hsl(var(--hue) 60% var(--light)); stroke: hsl(var(--hue) 50% var(--rim)); }
svg .caller rect { fill: var(--back); stroke: var(--wire); stroke-dasharray: 3 2; }
svg path { fill: none; stroke: var(--wire); } svg path.cross { stroke: var(--cross); stroke-width: 2.5; }
svg g:hover > rect { stroke-width: 3; } svg path:hover { stroke-width: 4; }
pre { white-space: pre-wrap; }
"""


def render(plan: Plan, graph: Graph) -> str:
    """The page. ``graph`` is the one that the plan was made of; raises ValueError where it isn't."""
    stage_of = [-1] * len(graph.nodes)
    for stage in plan.stages:
        for node in stage.nodes:
            if node >= len(stage_of):
                raise ValueError(f"{stage.id} has node {node}, and the graph has {len(stage_of)}: not the plan's graph")
            stage_of[node] = stage.index
    if -1 in stage_of:
        raise ValueError(f"node {stage_of.index(-1)} belongs to no stage: not the plan's graph")
    picture = draw(graph, stage_of)
    title = escape(f"Plan of {plan.model_name or graph.name or 'a model'}")
    collapsed = sum(1 for box in picture.boxes if len(box.nodes) > 1)
    hint = f" {collapsed} chains of nodes are drawn as one box each." if collapsed else ""
    parts = [
        "<!DOCTYPE html>",
        f'<html lang="en"><head><meta charset="utf-8"><title>{title}</title>',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<style>{_STYLE}</style></head><body>",
        f"<h1>{title}</h1>",
        f"<p>{_legend(plan)}</p>",
        f"<p>Thick lines cross between stages. Names and bytes are in the tooltips.{hint}</p>",
        f'<div class="scroll picture">{_svg(picture, plan, graph)}</div>',
        f"<h2>Simulated: {_RUNS} runs at once</h2><p>2F0 is stage 2, forward, run 0.</p>",
        f"<div class='scroll'>{draw_schedule(simulate(plan, n_runs=_RUNS))}</div>",
        f"<h2>Stages</h2><div class='scroll'>{_stages(plan.stages)}</div>",
        f"<h2>Edges</h2><div class='scroll'>{_edges(plan)}</div>",
        f"<h2>Why</h2><pre>{escape(plan.explain())}</pre>",
        "</body></html>",
    ]
    return "\n".join(parts)


def _kind(stage: int) -> str:
    return 'class="caller"' if stage < 0 else f'class="stage" style="{hue(stage)}"'


def _legend(plan: Plan) -> str:
    chips = []
    for stage in plan.stages:
        devices = ", ".join(device.id for device in stage.devices)
        text = escape(f"{stage.id} on {devices}")
        chips.append(f'<span class="chip stage" style="{hue(stage.index)}">{text}</span>')
    return "".join([*chips, '<span class="chip caller">caller: feeds and fetches</span>'])


def _svg(picture: Picture, plan: Plan, graph: Graph) -> str:
    nbytes = {edge.value: edge.nbytes for edge in plan.edges}
    width, height = f"{picture.width:.0f}", f"{picture.height:.0f}"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-size="{9 if picture.small else 12}" role="img" '
        f'aria-label="the graph, coloured by stage">'
    ]
    parts += [_wire(wire, picture, plan, nbytes) for wire in picture.wires]
    parts += [_box(box, picture, plan, graph) for box in picture.boxes]
    return "\n".join([*parts, "</svg>"])


def _box(box: Box, picture: Picture, plan: Plan, graph: Graph) -> str:
    room = int(picture.box_width / (5.4 if picture.small else 7.2))
    text = box.title if len(box.title) <= room else f"{box.title[: room - 1]}…"
    about = [box.title]
    if box.nodes:
        about = [f"{graph.nodes[n].op_type} {graph.nodes[n].label()}" for n in box.nodes[:_LISTED]]
        if len(box.nodes) > _LISTED:
            about.append(f"and {len(box.nodes) - _LISTED} more")
        about.append(plan.stages[box.stage].id)
    left, top = box.x - picture.box_width / 2, box.y - picture.box_height / 2
    return (
        f"<g {_kind(box.stage)}><title>{escape(chr(10).join(about))}</title>"
        f'<rect x="{left:.0f}" y="{top:.0f}" width="{picture.box_width:.0f}" height="{picture.box_height:.0f}" rx="4"/>'
        f'<text x="{box.x:.0f}" y="{box.y:.0f}">{escape(text)}</text></g>'
    )


def _wire(wire: Wire, picture: Picture, plan: Plan, nbytes: dict[str, int | None]) -> str:
    source, target = picture.boxes[wire.source], picture.boxes[wire.target]
    begin, end = source.y + picture.box_height / 2, target.y - picture.box_height / 2
    bend = max(8.0, (end - begin) / 2)
    crosses = source.stage != target.stage and source.stage >= 0 and target.stage >= 0
    about = [f"{name}: {format_nbytes(nbytes[name])}" if name in nbytes else name for name in wire.values[:_LISTED]]
    if crosses:
        about.insert(0, f"{plan.end_name(source.stage)} → {plan.end_name(target.stage)}")
    return (
        f'<path{" class=cross" if crosses else ""} d="M{source.x:.0f} {begin:.0f}C{source.x:.0f} {begin + bend:.0f} '
        f'{target.x:.0f} {end - bend:.0f} {target.x:.0f} {end:.0f}"><title>{escape(chr(10).join(about))}</title></path>'
    )


def _stages(stages: Iterable[Stage]) -> str:
    head = ("stage", "device", "nodes", "time", "weights", "activations", "names")
    rows = []
    for stage in stages:
        names = escape(", ".join(stage.node_names))
        rows.append(
            f'<tr><td><span class="chip stage" style="{hue(stage.index)}">{escape(stage.id)}</span></td>'
            f"<td>{escape(devices_text(stage))}</td>"
            f'<td class="n">{stage.n_nodes}</td><td class="n">{escape(format_us(stage.cost_us))}</td>'
            f'<td class="n">{escape(format_nbytes(stage.weights_nbytes))}</td>'
            f'<td class="n">{escape(format_nbytes(stage.activations_nbytes))}</td>'
            f"<td><details><summary>{escape(span(stage.node_names))}</summary>{names}</details></td></tr>"
        )
    return _table(head, rows)


def _edges(plan: Plan) -> str:
    rows = [
        f"<tr><td>{escape(edge.value)}</td><td>{escape(plan.end_name(edge.producer))}</td>"
        f'<td>{escape(plan.end_name(edge.consumer))}</td><td class="n">{escape(format_nbytes(edge.nbytes))}</td>'
        f"<td>{escape(edge.transport)}</td></tr>"
        for edge in plan.edges
    ]
    return _table(("value", "from", "to", "bytes", "transport"), rows)


def _table(head: Sequence[str], rows: Sequence[str]) -> str:
    cells = "".join(f"<th>{escape(name)}</th>" for name in head)
    return f"<table><thead><tr>{cells}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
