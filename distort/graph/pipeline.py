"""The pipeline that one of a model's device configurations describes: each node's stage, each stage's devices.

The rules, as IR 11 leaves them open:

- Nodes of a body belong to the stage of the node around them; nodes of a function to that of the call, if it has one.
- A node without a stage goes to the earliest one that has all it reads; one that reads nothing of any other node, to
  the earliest one that reads it. Constants have no stage: what a model says of Constant nodes is not looked at.
- Values may go to a later stage, never back to an earlier one.
- A stage runs on one device, or is copied whole to each of several. A tensor that is split over several is tensor
  parallelism, which is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from .annotations import Annotation, Configuration, annotation, configurations, id_of, stated
from .errors import ModelError
from .ir import Graph, Model, Node

#: how an option asks for the stages that a model is annotated with
ANNOTATIONS = "annotations"
#: nodes that a note names before it just counts them
_LISTED = 8


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Stages by the numbers that the model gives them, which may have gaps."""

    configuration: Configuration
    stage_of: tuple[int, ...]  # by node of the graph
    #: stage -> the devices that all of its nodes agree on (several are copies); missing where nothing is said
    devices: dict[int, tuple[int, ...]]
    notes: tuple[str, ...] = ()

    @property
    def stages(self) -> tuple[int, ...]:
        return tuple(sorted(set(self.stage_of)))


def choose(model: Model, request: str) -> Configuration:
    """The configuration that ``annotations`` (the model's only one) or ``annotations:NAME`` asks for.

    Raises ModelError (INVALID_ARGUMENT) that lists those there are.
    """
    known = configurations(model)
    name = request.partition(":")[2]
    found = [item for item in known if item.name == name] if name else list(known)
    if len(found) == 1:
        return found[0]
    names = ", ".join(item.name for item in known)
    if not known:
        text = "the model has no device configuration. Write one with distort plan --write, or let the planner cut it"
    elif name:
        text = f"the model has no device configuration '{name}'. It has: {names}"
    else:
        text = f"the model has several device configurations. Name one, as {ANNOTATIONS}:{known[0].name}, of: {names}"
    raise ModelError("INVALID_ARGUMENT", f"partition={request}: {text}")


def pin(model: Model, request: str, *, strict: bool = False) -> Pipeline:
    """The pipeline that is asked for, checked, and stated by every node of the model from now on.

    To be called before the graph is optimized: passes keep apart what is stated to be in two places. ``strict``
    refuses what else would be a note. Raises ModelError that names the node.
    """
    configuration = choose(model, request)
    graph = model.graph
    pipeline = resolve(graph, configuration, strict=strict, exact=True)
    for node, stage in zip(graph.nodes, pipeline.stage_of, strict=True):
        told = annotation(node, configuration.name)
        if told is None or told.stage is None or node.op_type == "Constant":
            others = tuple(c for c in node.device_configurations if id_of(c) != configuration.name)
            devices = () if told is None else told.devices(node.outputs)
            first = next((name for name in node.outputs if name), "")
            node.device_configurations = (*others, stated(configuration.name, stage, devices, first))
    return pipeline


def after_optimization(graph: Graph, before: Pipeline, *, strict: bool = False) -> Pipeline:
    """The same pipeline of the graph that passes left: with its notes, and one for stages that lost all their nodes."""
    found = resolve(graph, before.configuration)
    notes = list(before.notes)
    gone = sorted(set(before.stages) - set(found.stages))
    if gone:
        which = ", ".join(map(str, gone))
        text = f"graph optimization left no node of pipeline stage {which}"
        if strict:
            raise ModelError("INVALID_GRAPH", f"{text}. Lower graph_optimization_level, or annotate fewer stages.")
        notes.append(f"{text}: {len(found.stages)} of {len(before.stages)} stages remain")
    return replace(found, notes=tuple(notes))


def resolve(graph: Graph, configuration: Configuration, *, strict: bool = False, exact: bool = False) -> Pipeline:
    """Each node's stage. ``exact``: annotations may name no tensor that the node doesn't have."""
    told = [_told(node, configuration, exact) for node in graph.nodes]
    if not any(item is not None and item.stage is not None for item in told):
        raise ModelError(
            "INVALID_GRAPH", f"No node has a pipeline stage for device configuration '{configuration.name}'."
        )
    known = [None if item is None or node.op_type == "Constant" else item.stage for item, node in _pairs(told, graph)]
    stage_of, open_choices = _Stages(graph, known, configuration.name).settle()
    notes = []
    found = [i for i, item in enumerate(told) if known[i] is None and graph.nodes[i].op_type != "Constant"]
    if found:
        if strict and open_choices:
            node = graph.nodes[open_choices[0]]
            raise ModelError(
                "INVALID_GRAPH",
                f"Node '{node.label()}' has no pipeline stage for device configuration '{configuration.name}'; what it "
                "reads and what reads it are in different stages. Annotate it, or set distort.strict_placement=0: it "
                "then goes to the earliest one.",
            )
        named = ", ".join(f"{graph.nodes[i].label()} in {stage_of[i]}" for i in found[:_LISTED])
        more = f" and {len(found) - _LISTED} more" if len(found) > _LISTED else ""
        notes.append(
            f"nodes without a pipeline stage went to the earliest stage that has what they read: {named}{more}"
        )
    return Pipeline(configuration, tuple(stage_of), _devices(graph, told, stage_of, configuration), tuple(notes))


# -- one node


def _told(node: Node, configuration: Configuration, exact: bool) -> Annotation | None:
    """What a node and its bodies say, checked; the bodies' stage where the node itself says none."""
    own = _checked(node, node, configuration, exact)
    inner = [(item, told) for item in _body_nodes(node) if (told := _checked(item, node, configuration, exact))]
    stage, said_by = (own.stage, node) if own is not None else (None, node)
    shardings = list(own.shardings) if own is not None else []
    for item, told in inner:
        if told.stage is None:
            continue
        if stage is None:
            stage, said_by = told.stage, item
        elif told.stage != stage:
            raise _invalid(
                f"Node '{item.label()}' in a body of node '{node.label()}' is annotated for pipeline stage "
                f"{told.stage}, and node '{said_by.label()}' for {stage}, in device configuration "
                f"'{configuration.name}'. A node and its bodies run in one stage."
            )
    if own is None and stage is None:
        return None
    return Annotation(configuration.name, stage, tuple(shardings))


def _checked(node: Node, outer: Node, configuration: Configuration, exact: bool) -> Annotation | None:
    told = annotation(node, configuration.name)
    if told is None:
        return None
    where = f"Node '{node.label()}'" + (f" in a body of node '{outer.label()}'" if node is not outer else "")
    of = f"device configuration '{configuration.name}'"
    if told.stage is not None and told.stage < 0:
        raise _invalid(f"{where} has the pipeline stage {told.stage} in {of}; stages are counted from 0.")
    for sharding in told.shardings:
        for device in sharding.devices:
            if not 0 <= device < configuration.n_devices:
                raise _invalid(
                    f"{where} puts '{sharding.tensor}' on device {device} of {of}, which has {configuration.n_devices} "
                    f"(0 to {configuration.n_devices - 1})."
                )
        if exact and sharding.tensor not in node.inputs and sharding.tensor not in node.outputs:
            raise _invalid(f"{where} has a sharding of '{sharding.tensor}' in {of}, and neither reads nor makes it.")
        if sharding.splits:
            axis, n_shards = sharding.splits[0]
            raise ModelError(
                "NOT_IMPLEMENTED",
                f"{where} splits '{sharding.tensor}' along axis {axis} into {n_shards} shards in {of}: tensor "
                "parallelism is not supported. Annotate pipeline stages of whole tensors instead.",
            )
    return told


def _body_nodes(node: Node) -> Iterator[Node]:
    for body in node.subgraphs():
        for item in body.nodes:
            yield item
            yield from _body_nodes(item)


def _pairs(told: Sequence[Annotation | None], graph: Graph) -> Iterator[tuple[Annotation | None, Node]]:
    return zip(told, graph.nodes, strict=True)


def _invalid(text: str) -> ModelError:
    return ModelError("INVALID_GRAPH", text)


# -- all of them


class _Stages:
    """Stages of nodes that have none, between what they read and what reads them."""

    def __init__(self, graph: Graph, known: Sequence[int | None], name: str) -> None:
        self._graph = graph
        self._known = known
        self._name = name
        makers = graph.producers()
        #: by node: (value, the node that makes it)
        self._reads = [[(v, makers[v]) for v in node.reads() if v in makers] for node in graph.nodes]
        self._readers: list[list[int]] = [[] for _ in graph.nodes]
        for i, reads in enumerate(self._reads):
            for _, maker in reads:
                self._readers[maker].append(i)

    def settle(self) -> tuple[list[int], list[int]]:
        """The stage of each node, and those nodes that could as well be in a later one."""
        known = self._known
        n_nodes = len(known)
        #: the latest stage that the node depends on, and the node that is in it; None: on none
        latest: list[tuple[int, int] | None] = [None] * n_nodes
        for i in range(n_nodes):
            before = [(found, value) for value, maker in self._reads[i] if (found := latest[maker]) is not None]
            own = known[i]
            if before:
                (latest_stage, source), value = max(before, key=lambda item: item[0][0])
                if own is not None and latest_stage > own:
                    raise self._backwards(i, own, value, source, latest_stage)
                latest[i] = (latest_stage, source)
            if own is not None:
                latest[i] = (own, i)
        #: the earliest stage that depends on the node
        earliest: list[int | None] = [None] * n_nodes
        result = [0] * n_nodes
        open_choices = []
        for i in reversed(range(n_nodes)):
            after = [stage for reader in self._readers[i] if (stage := earliest[reader]) is not None]
            own = known[i]
            earliest[i] = own if own is not None else min(after, default=None)
            behind = latest[i]
            if behind is not None:
                result[i] = behind[0]
                if own is None and earliest[i] not in (None, behind[0]):
                    open_choices.append(i)
            else:
                result[i] = min((result[reader] for reader in self._readers[i]), default=0)
        return result, open_choices[::-1]

    def _backwards(self, reader: int, own: int, value: str, source: int, stage: int) -> ModelError:
        nodes = self._graph.nodes
        made_by = f"node '{nodes[source].label()}'"
        if value in nodes[source].outputs:
            what = f"reads '{value}' of {made_by}"
        else:
            what = f"reads '{value}', which depends on {made_by} by way of nodes without a stage,"
        return _invalid(
            f"Node '{nodes[reader].label()}' of pipeline stage {own} {what} of the later stage {stage}, in device "
            f"configuration '{self._name}'. Values may not go back to an earlier stage."
        )


def _devices(
    graph: Graph, told: Sequence[Annotation | None], stage_of: Sequence[int], configuration: Configuration
) -> dict[int, tuple[int, ...]]:
    """By stage, the devices that all its nodes name. Raises ModelError where two nodes name different ones."""
    found: dict[int, tuple[tuple[int, ...], Node]] = {}
    for (item, node), stage in zip(_pairs(told, graph), stage_of, strict=True):
        devices = () if item is None or node.op_type == "Constant" else item.devices(node.outputs)
        if not devices:
            continue
        known, first = found.setdefault(stage, (devices, node))
        common = tuple(device for device in known if device in devices)
        if not common:
            raise _invalid(
                f"Pipeline stage {stage} of device configuration '{configuration.name}' has node '{first.label()}' on "
                f"{_named(known, configuration)} and node '{node.label()}' on {_named(devices, configuration)}. "
                "A stage runs as a whole on each of its devices."
            )
        found[stage] = (common, node if len(common) < len(known) else first)
    return {stage: devices for stage, (devices, _) in sorted(found.items())}


def _named(devices: Sequence[int], configuration: Configuration) -> str:
    return " or ".join(configuration.device_name(index) for index in devices)


__all__ = ["ANNOTATIONS", "Pipeline", "after_optimization", "choose", "pin", "resolve"]
