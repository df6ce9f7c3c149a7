"""Where the boxes of a graph's picture go: layers from top to bottom, each box near the boxes that it reads from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from distort.graph.ir import Graph

#: graphs with more nodes than this are drawn with chains collapsed
COLLAPSE_ABOVE = 80
#: with more boxes than this they are drawn small
SMALL_ABOVE = 150


@dataclass(frozen=True, slots=True)
class Box:
    """One node, or a chain of them in one stage; a feed or an output of the graph has none. Sizes in px."""

    title: str
    nodes: tuple[int, ...]
    stage: int  # -1: the caller
    x: float  # of the centre
    y: float


@dataclass(frozen=True, slots=True)
class Wire:
    """Values from one box to another."""

    source: int  # box
    target: int
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Picture:
    boxes: tuple[Box, ...]
    wires: tuple[Wire, ...]
    width: float
    height: float
    box_width: float
    box_height: float
    small: bool


def draw(graph: Graph, stage_of: Sequence[int], collapse: bool | None = None) -> Picture:
    """The picture of a graph whose node n belongs to ``stage_of[n]``. ``collapse`` None: just large graphs."""
    if collapse is None:
        collapse = len(graph.nodes) > COLLAPSE_ABOVE
    groups = _chains(graph, stage_of) if collapse else [(node,) for node in range(len(graph.nodes))]
    box_of = {node: box for box, nodes in enumerate(groups) for node in nodes}
    titles = [_title(graph, nodes) for nodes in groups]
    stages = [stage_of[nodes[0]] for nodes in groups]
    made_by = {name: box_of[node] for name, node in graph.producers().items()}
    feeds = {name: len(groups) + i for i, name in enumerate(graph.inputs)}
    outputs = {name: len(groups) + len(feeds) + i for i, name in enumerate(dict.fromkeys(graph.outputs))}
    members = [*groups, *(() for _ in range(len(feeds) + len(outputs)))]
    titles += [*feeds, *outputs]
    stages += [-1] * (len(feeds) + len(outputs))
    carried: dict[tuple[int, int], list[str]] = {}

    def carry(name: str, target: int) -> None:
        source = made_by.get(name, feeds.get(name))
        if source is not None and source != target:
            values = carried.setdefault((source, target), [])
            if name not in values:
                values.append(name)

    for index, node in enumerate(graph.nodes):
        for name in node.reads():
            carry(name, box_of[index])
    for name, target in outputs.items():
        carry(name, target)
    wires = tuple(Wire(source, target, tuple(values)) for (source, target), values in carried.items())
    small = len(members) > SMALL_ABOVE
    box_width, box_height = (76.0, 18.0) if small else (132.0, 26.0)
    places, width, height = _place(len(members), wires, box_width + 14.0, box_height + (20.0 if small else 30.0))
    boxes = tuple(
        Box(title, nodes, stage, x, y)
        for title, nodes, stage, (x, y) in zip(titles, members, stages, places, strict=True)
    )
    return Picture(boxes, wires, width, height, box_width, box_height, small)


def _title(graph: Graph, nodes: Sequence[int]) -> str:
    first, last = graph.nodes[nodes[0]].op_type, graph.nodes[nodes[-1]].op_type
    return first if len(nodes) == 1 else f"{first} … {last} ({len(nodes)})"


def _chains(graph: Graph, stage_of: Sequence[int]) -> list[tuple[int, ...]]:
    """Runs of nodes in one stage in which each reads just the one before, and alone."""
    producers, results = graph.producers(), set(graph.outputs)
    before = [{producers[name] for name in node.reads() if name in producers} for node in graph.nodes]
    n_after = [0] * len(graph.nodes)
    for sources in before:
        for source in sources:
            n_after[source] += 1
    chain_of: dict[int, list[int]] = {}
    chains: list[list[int]] = []
    for index, sources in enumerate(before):
        previous = next(iter(sources)) if len(sources) == 1 else -1
        if (
            previous >= 0
            and n_after[previous] == 1
            and stage_of[previous] == stage_of[index]
            and results.isdisjoint(graph.nodes[previous].outputs)
        ):
            chain = chain_of[previous]
        else:
            chain = []
            chains.append(chain)
        chain.append(index)
        chain_of[index] = chain
    return [tuple(chain) for chain in chains]


def _place(
    n_boxes: int, wires: Sequence[Wire], step_x: float, step_y: float
) -> tuple[list[tuple[float, float]], float, float]:
    """Centres of the boxes, and the size of it all."""
    before: list[list[int]] = [[] for _ in range(n_boxes)]
    after: list[list[int]] = [[] for _ in range(n_boxes)]
    for wire in wires:
        before[wire.target].append(wire.source)
        after[wire.source].append(wire.target)
    layer = _layers(before, after)
    rows: list[list[int]] = [[] for _ in range(max(layer, default=-1) + 1)]
    for box, level in enumerate(layer):
        rows[level].append(box)
    x = [0.0] * n_boxes
    for row in rows:
        wish = {box: sum(x[o] for o in before[box]) / len(before[box]) if before[box] else 0.0 for box in row}
        row.sort(key=lambda box: (wish[box], box))
        for position, box in enumerate(row):
            x[box] = wish[box] if position == 0 else max(wish[box], x[row[position - 1]] + step_x)
        # pushed apart to the right only: back by as much on average
        shift = sum(x[box] - wish[box] for box in row) / len(row)
        for box in row:
            x[box] -= shift
    left = min(x, default=0.0) - step_x / 2 - 6
    width = max(x, default=0.0) + step_x / 2 + 6 - left
    return [(x[box] - left, layer[box] * step_y + step_y) for box in range(n_boxes)], width, (len(rows) + 1) * step_y


def _layers(before: Sequence[Sequence[int]], after: Sequence[Sequence[int]]) -> list[int]:
    """The longest way from the top; what nothing feeds goes right above its first reader."""
    waiting = [len(sources) for sources in before]
    layer = [0] * len(before)
    ready = [box for box, count in enumerate(waiting) if count == 0]
    for box in ready:
        for target in after[box]:
            layer[target] = max(layer[target], layer[box] + 1)
            waiting[target] -= 1
            if waiting[target] == 0:
                ready.append(target)
    for box, sources in enumerate(before):
        if not sources and after[box]:
            layer[box] = min(layer[target] for target in after[box]) - 1
    return layer
