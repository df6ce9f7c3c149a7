"""The frozen plan: which nodes make a stage, on which device, what crosses between stages, and why."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from distort.scheduler.device import Device, format_nbytes, format_us

if TYPE_CHECKING:
    from distort.graph.ir import Graph, Model

#: letters of a name in a table
_NAME_WIDTH = 41
#: crossing values that an explanation lists, the largest ones
_LISTED = 12
#: who feeds and fetches, where an edge names a stage
CALLER = -1


@dataclass(frozen=True, slots=True)
class Stage:
    """Nodes that run together on one device. ``inputs`` and ``outputs`` are those of ``Graph.extract(nodes)``."""

    id: str  # "stage0"
    index: int
    nodes: tuple[int, ...]  # in the graph's order
    node_names: tuple[str, ...]
    device: Device
    inputs: tuple[str, ...]  # feeds, and values of other stages
    outputs: tuple[str, ...]
    cost_us: float  # its nodes, without what it waits for
    weights_nbytes: int
    activations_nbytes: int | None  # at their peak; None: the size of some value isn't known
    replicas: tuple[Device, ...] = ()  # further devices that run the same stage, as fast as the first

    @property
    def devices(self) -> tuple[Device, ...]:
        """All that run it, each a run of its own."""
        return (self.device, *self.replicas)

    @property
    def n_nodes(self) -> int:
        return len(self.nodes)

    @property
    def peak_nbytes(self) -> int:
        """Weights and activations, unknown ones counted as none."""
        return self.weights_nbytes + (self.activations_nbytes or 0)


@dataclass(frozen=True, slots=True)
class Edge:
    """A value on its way from one stage to another, or from and to the caller (-1)."""

    value: str
    producer: int
    consumer: int
    nbytes: int | None  # None: its type or rank isn't known
    transport: str

    @property
    def between_stages(self) -> bool:
        return self.producer != CALLER and self.consumer != CALLER


@dataclass(frozen=True, slots=True)
class Prediction:
    """Estimates for the plan; ``single_latency_us`` is all nodes as one stage in the caller's process."""

    latency_us: float
    bottleneck_us: float  # between two runs' ends: the busiest device, transfers into its stages included
    throughput_per_s: float
    single_latency_us: float


@dataclass(frozen=True, slots=True)
class Plan:
    """Stages in topological order: every edge between stages goes to a higher index."""

    model_name: str
    objective: str
    stages: tuple[Stage, ...]
    edges: tuple[Edge, ...]
    notes: tuple[str, ...]  # decisions, fallbacks, what isn't known
    predicted: Prediction
    strict: bool = False
    in_process: bool = False  # one stage, in the caller's process: it needs no actor

    def __post_init__(self) -> None:
        for position, stage in enumerate(self.stages):
            if stage.index != position:
                raise ValueError(f"{stage.id} has the index {stage.index} at position {position}")
        if self.in_process and (len(self.stages) > 1 or any(stage.replicas for stage in self.stages)):
            raise ValueError("only one stage without replicas runs in the caller's process")
        for edge in self.edges:
            if edge.between_stages and edge.producer >= edge.consumer:
                raise ValueError(f"{edge.value!r} goes back from stage {edge.producer} to stage {edge.consumer}")

    @property
    def crossing_nbytes(self) -> int:
        """Bytes between stages in one run, unknown ones counted as none."""
        return sum(edge.nbytes or 0 for edge in self.edges if edge.between_stages)

    def stage_of(self, node_index: int) -> Stage:
        """The stage of a node of the graph. Raises KeyError where no stage has it."""
        for stage in self.stages:
            if node_index in stage.nodes:
                return stage
        raise KeyError(f"node {node_index} belongs to no stage of the plan")

    def producers_of(self, stage: int) -> tuple[int, ...]:
        """Stages whose values ``stage`` reads, ascending."""
        return tuple(sorted({e.producer for e in self.edges if e.consumer == stage and e.producer != CALLER}))

    def to_text(self) -> str:
        """Stages and edges as plain tables."""
        lines = [self._headline(), ""]
        lines += _table(
            ("stage", "device", "nodes", "time", "weights", "activations", "first node … last node"),
            [
                (
                    stage.id,
                    devices_text(stage),
                    str(stage.n_nodes),
                    format_us(stage.cost_us),
                    format_nbytes(stage.weights_nbytes),
                    format_nbytes(stage.activations_nbytes),
                    span(stage.node_names),
                )
                for stage in self.stages
            ],
            numbers={2, 3, 4, 5},
        )
        if self.edges:
            lines.append("")
            lines += _table(
                ("edge", "value", "bytes", "transport"),
                [
                    (
                        f"{self.end_name(e.producer)} → {self.end_name(e.consumer)}",
                        short(e.value),
                        format_nbytes(e.nbytes),
                        e.transport,
                    )
                    for e in self.edges
                ],
                numbers={2},
            )
        return "\n".join(lines)

    def explain(self) -> str:
        """Why the plan is as it is: what it is predicted to cost and gain, its decisions, what isn't known."""
        lines = [self._headline(), "", "Predicted:"]
        lines += [f"  {line}" for line in self._prediction_lines()]
        if self.stages:
            lines += ["", "Stages:"]
            lines += [
                f"  {s.id} on {devices_text(s)}: {_count(s.n_nodes, 'node')}, {span(s.node_names)}; "
                f"{format_us(s.cost_us)}, weights {format_nbytes(s.weights_nbytes)}, "
                f"activations {format_nbytes(s.activations_nbytes)}"
                for s in self.stages
            ]
        crossing = [edge for edge in self.edges if edge.between_stages]
        if crossing:
            lines += ["", f"Crossing between stages: {_count(len(crossing), 'value')}, {self._crossing_text()} a run"]
            crossing.sort(key=lambda edge: -(edge.nbytes or 0))
            lines += [
                f"  {short(e.value)}: {self.end_name(e.producer)} → {self.end_name(e.consumer)}, "
                f"{format_nbytes(e.nbytes)} by {e.transport}"
                for e in crossing[:_LISTED]
            ]
            if len(crossing) > _LISTED:
                lines.append(f"  and {len(crossing) - _LISTED} more")
        if self.notes:
            lines += ["", "Decisions:"]
            lines += [f"  - {note}" for note in self.notes]
        unknown = list(dict.fromkeys(edge.value for edge in self.edges if edge.nbytes is None))
        if unknown:
            some = ", ".join(map(short, unknown[:_LISTED]))
            more = f" and {len(unknown) - _LISTED} more" if len(unknown) > _LISTED else ""
            lines += ["", f"Sizes not known, counted as nothing: {some}{more}"]
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """Plain data of strings, numbers, lists and dicts."""
        return {
            "model_name": self.model_name,
            "objective": self.objective,
            "strict": self.strict,
            "in_process": self.in_process,
            "predicted": {name: getattr(self.predicted, name) for name in Prediction.__slots__},
            "stages": [{name: _plain(getattr(stage, name)) for name in Stage.__slots__} for stage in self.stages],
            "edges": [{name: getattr(edge, name) for name in Edge.__slots__} for edge in self.edges],
            "notes": list(self.notes),
        }

    def to_json(self) -> str:
        return json.dumps(self.as_dict(), indent=2, ensure_ascii=False)

    def to_html(self, graph: Graph) -> str:
        """A self-contained page: the graph coloured by stage, the tables, the explanation."""
        from distort.scheduler.html import render

        return render(self, graph)

    def to_onnx(self, model: Model | Any, *, configuration: str = "distort") -> Any:
        """The plan inside its model: a ModelProto with the stages and devices as IR 11's annotations.

        ``model`` is the optimized model that the plan was made of, ours or a ModelProto. ``configuration`` names the
        device configuration; one that the model has of that name is replaced. The IR version becomes 11 where it is
        less. Raises ValueError for a model that the plan is not of.
        """
        from distort.graph import reader, writer
        from distort.graph.ir import Model
        from distort.scheduler.annotated import annotated_model

        ours = model if isinstance(model, Model) else reader.read_model(model)
        return writer.to_proto(annotated_model(self, ours, configuration))

    def end_name(self, stage: int) -> str:
        """How an end of an edge is called."""
        return "caller" if stage == CALLER else self.stages[stage].id

    def _headline(self) -> str:
        nodes = _count(sum(stage.n_nodes for stage in self.stages), "node")
        stages = _count(len(self.stages), "stage")
        n_devices = len({device.id for stage in self.stages for device in stage.devices})
        if any(stage.replicas for stage in self.stages):
            stages += f" on {_count(n_devices, 'device')}"
        return f"{self.model_name or 'model'}: {stages} of {nodes}, for {self.objective}"

    def _prediction_lines(self) -> list[str]:
        p = self.predicted
        lines = [f"one run takes {format_us(p.latency_us)}"]
        several = len(self.stages) > 1 or any(stage.replicas for stage in self.stages)
        if several and p.latency_us > 0:
            lines[0] += f"; as one stage in this process {format_us(p.single_latency_us)}"
            lines[0] += f" ({p.single_latency_us / p.latency_us:.2f} times as fast)"
        if p.bottleneck_us > 0:
            line = f"{p.throughput_per_s:.4g} runs/s with the stages kept full: one every {format_us(p.bottleneck_us)}"
            if several:
                line += f" ({p.single_latency_us / p.bottleneck_us:.2f} times one stage's throughput)"
            lines.append(line)
        return lines

    def _crossing_text(self) -> str:
        unknown = any(edge.nbytes is None for edge in self.edges if edge.between_stages)
        return f"{'at least ' if unknown else ''}{format_nbytes(self.crossing_nbytes)}"


def _plain(value: Any) -> Any:
    if isinstance(value, Device):
        return {name: getattr(value, name) for name in Device.__slots__}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def device_text(device: Device) -> str:
    """A device for people: with its host where that isn't the caller's, a CPU share with its threads."""
    name = f"{device.id}@{device.host}" if device.host else device.id
    return f"{name} ({_count(device.threads, 'thread')})" if device.kind == "cpu" else name


def devices_text(stage: Stage) -> str:
    """The devices of a stage for people: the first, and its replicas."""
    more = ", ".join(f"{device.id}@{device.host}" if device.host else device.id for device in stage.replicas)
    return f"{device_text(stage.device)}, replicas on {more}" if more else device_text(stage.device)


def span(names: Sequence[str]) -> str:
    """The first and the last of some names."""
    if not names:
        return ""
    return short(names[0]) if len(names) == 1 else f"{short(names[0])} … {short(names[-1])}"


def short(name: str) -> str:
    """A name with its middle left out where it is too long for a table: the ends tell names apart."""
    if len(name) <= _NAME_WIDTH:
        return name
    half = (_NAME_WIDTH - 1) // 2
    return f"{name[:half]}…{name[-half:]}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], numbers: set[int]) -> list[str]:
    """Lines with columns padded; those in ``numbers`` to the right."""
    every = [head, *rows]
    widths = [max(len(row[i]) for row in every) for i in range(len(head))]

    def line(row: Sequence[str]) -> str:
        cells = (c.rjust(w) if i in numbers else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
        return "  ".join(cells).rstrip()

    return [line(head), "  ".join("-" * width for width in widths), *(line(row) for row in every[1:])]
