"""A partition with its placement, as the stages and edges of a plan, and what there is to say about them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from distort.graph.ir import Graph
from distort.graph.types import SparseTensorType, TensorType
from distort.scheduler.cost import CostModel
from distort.scheduler.dag import Dag
from distort.scheduler.device import Device, Network, format_nbytes
from distort.scheduler.partition import Partition, slowest_link
from distort.scheduler.plan import CALLER, Edge, Stage, short

#: names that a note lists before it just counts them
_LISTED = 8


def make_stages(
    graph: Graph,
    dag: Dag,
    partition: Partition,
    placed: Sequence[Device],
    replicas: Sequence[Sequence[Device]] = (),
) -> tuple[Stage, ...]:
    """Stages in the order of the partition; their inputs and outputs are what ``graph.extract`` says.

    ``replicas`` are each stage's further devices.
    """
    unknown = {value.name for value in dag.values if value.nbytes is None}
    stages = []
    for index, (device, load) in enumerate(zip(placed, partition.loads, strict=True)):
        nodes = partition.nodes_of(index)
        part = graph.extract(nodes)
        touched = {dag.values[v].name for node in nodes for v in (*dag.reads[node], *dag.makes[node])}
        stages.append(
            Stage(
                id=f"stage{index}",
                index=index,
                nodes=nodes,
                node_names=tuple(node.label() for node in part.nodes),
                device=device,
                inputs=tuple(part.inputs),
                outputs=tuple(part.outputs),
                cost_us=load.cost_us,
                weights_nbytes=load.weights_nbytes,
                activations_nbytes=None if touched & unknown else load.activations_nbytes,
                replicas=tuple(replicas[index]) if replicas else (),
            )
        )
    return tuple(stages)


def make_edges(graph: Graph, costs: CostModel, stages: Sequence[Stage], links: Network) -> tuple[Edge, ...]:
    """What crosses: feeds, values between stages, fetches; each by the link between its ends' devices."""
    made_by = {name: stage.index for stage in stages for name in stage.outputs}
    ends = [(made_by.get(name, CALLER), stage.index, name) for stage in stages for name in stage.inputs]
    ends.sort(key=lambda end: end[:2])  # stable: a stage's values keep their order
    ends += [(made_by[name], CALLER, name) for name in dict.fromkeys(graph.outputs) if name in made_by]

    def transport(producer: int, consumer: int) -> str:
        devices = [stages[end].devices if end != CALLER else () for end in (producer, consumer)]
        return slowest_link(links, devices[0], devices[1]).transport

    known = {(producer, consumer): transport(producer, consumer) for producer, consumer, _ in ends}
    return tuple(
        Edge(name, producer, consumer, costs.value_nbytes(name), known[producer, consumer])
        for producer, consumer, name in ends
    )


def cut_notes(partition: Partition, dag: Dag) -> list[str]:
    """Where a partition of several stages is cut, and what the cut brings with it."""
    slowest = max(range(partition.n_stages), key=lambda stage: partition.loads[stage].turn_us)
    received = sum(load.receive_us for load in partition.loads)
    work = sum(load.cost_us for load in partition.loads)
    notes = [
        f"stage{slowest} is the slowest, and transfers are {100 * received / max(received + work, 1e-9):.0f} % of all "
        "stages' time"
    ]
    if partition.order_name:  # stages that somebody else chose follow no order of ours
        notes[0] = f"cut by the order {partition.order_name!r} of the nodes, the best of those tried; {notes[0]}"
    shared: dict[str, int] = {}
    for value in dag.values:
        readers = {partition.stage_of[node] for node in value.consumers}
        if value.weight and len(readers) > 1 and value.size:
            shared[value.name] = value.size * (len(readers) - 1)
    if shared:
        notes.append(
            f"weights that several stages read are held by each of them, {format_nbytes(sum(shared.values()))} more: "
            f"{listed(shared)}"
        )
    return notes


def gap_notes(graph: Graph, costs: CostModel, dag: Dag) -> list[str]:
    """What the estimates rest on though nobody knows it, and outputs that no stage makes."""
    notes = []
    symbols: dict[str, None] = {}
    for value in dag.values:
        value_type = graph.types.get(value.name)
        if value.name in costs.measured_nbytes:
            continue
        if isinstance(value_type, (TensorType, SparseTensorType)):
            symbols.update(dict.fromkeys(d for d in value_type.shape or () if isinstance(d, str)))
    guessed = [symbol for symbol in symbols if symbol not in costs.dims]
    if guessed:
        notes.append(f"dimensions that nobody gave a size count as 1: {listed(guessed)}")
    unknown = [value.name for value in dag.values if value.nbytes is None]
    if unknown:
        notes.append(f"values of unknown type or rank count as nothing: {listed(unknown)}")
    produced = graph.producers()
    others = [name for name in dict.fromkeys(graph.outputs) if name not in produced]
    if others:
        notes.append(f"outputs that are feeds or initializers belong to no stage: {listed(others)}")
    return notes


def listed(names: Iterable[str]) -> str:
    """The first names, and how many more there are."""
    every = list(names)
    more = f" and {len(every) - _LISTED} more" if len(every) > _LISTED else ""
    return ", ".join(map(short, every[:_LISTED])) + more
