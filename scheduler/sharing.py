"""Stages of one GPU made one, and nodes that no GPU can run on a CPU share of their own, where that pays."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from distort.graph.ir import Graph
from distort.scheduler.candidate import Candidate, Evaluator
from distort.scheduler.device import Device
from distort.scheduler.plan import Edge, Stage


def merged(evaluator: Evaluator, candidate: Candidate) -> Candidate:
    """The candidate with stages of one GPU joined: one process a GPU, in which a value is handed over as a pointer.

    Two stages stay apart where a stage of another device lies between them, and where either has replicas.
    """
    stage_of, placed = list(candidate.partition.stage_of), list(candidate.placed)
    replicas = list(candidate.replicas) or [()] * len(placed)
    found = False
    while (pair := _mergeable(evaluator, stage_of, placed, replicas)) is not None:
        one, other = pair
        stage_of = [one if stage == other else stage for stage in stage_of]
        found = True
    return _placed(evaluator, candidate, stage_of, placed, replicas) if found else candidate


def _mergeable(
    evaluator: Evaluator, stage_of: Sequence[int], placed: Sequence[Device], replicas: Sequence[Sequence[Device]]
) -> tuple[int, int] | None:
    after = _after(evaluator, stage_of)
    stages = sorted(set(stage_of))
    for position, one in enumerate(stages):
        for other in stages[position + 1 :]:
            alone = not replicas[one] and not replicas[other]
            if alone and placed[one].kind == "cuda" and placed[one].id == placed[other].id:
                between = {stage for stage in after[one] if stage not in (one, other) and other in after[stage]}
                backwards = {stage for stage in after[other] if stage not in (one, other) and one in after[stage]}
                if not between and not backwards:
                    return one, other
    return None


def _after(evaluator: Evaluator, stage_of: Sequence[int]) -> dict[int, set[int]]:
    """Stages that a stage's values reach, by however many others."""
    reached: dict[int, set[int]] = {stage: set() for stage in stage_of}
    for node, before in enumerate(evaluator.dag.predecessors):
        for other in before:
            if stage_of[other] != stage_of[node]:
                reached[stage_of[other]].add(stage_of[node])
    grown = True
    while grown:
        grown = False
        for stages in reached.values():
            more = set().union(*(reached[stage] for stage in stages)) - stages if stages else set()
            if more:
                stages |= more
                grown = True
    return reached


def offloaded(evaluator: Evaluator, candidate: Candidate, host: Device) -> Iterator[Candidate]:
    """The candidate with what GPUs can't run, before or after all that they can, as stages on ``host``."""
    on_host = evaluator.costs.on_host
    n_nodes = evaluator.dag.n_nodes
    front, back = _front(evaluator, on_host), _back(evaluator, on_host)
    replicas = list(candidate.replicas) or [()] * len(candidate.placed)
    last = candidate.n_stages + 1
    nothing: set[int] = set()
    ways = [(first, behind) for first, behind in ((front, nothing), (nothing, back), (front, back)) if first or behind]
    for first, behind in ways:
        if len(first | behind) == n_nodes:
            continue
        before = enumerate(candidate.partition.stage_of)
        stage_of = [0 if node in first else last if node in behind else stage + 1 for node, stage in before]
        placed = [host, *candidate.placed, replace(host, index=host.index + 1, id=f"cpu:{host.index + 1}")]
        yield _placed(evaluator, candidate, stage_of, placed, [(), *replicas, ()])


def _front(evaluator: Evaluator, on_host: frozenset[int]) -> set[int]:
    """Nodes on the host that read nothing a GPU makes."""
    found: set[int] = set()
    for node in evaluator.dag.orders[next(iter(evaluator.dag.orders))]:
        if node in on_host and all(before in found for before in evaluator.dag.predecessors[node]):
            found.add(node)
    return found


def _back(evaluator: Evaluator, on_host: frozenset[int]) -> set[int]:
    """Nodes on the host that make nothing a GPU reads."""
    after: list[list[int]] = [[] for _ in range(evaluator.dag.n_nodes)]
    for node, before in enumerate(evaluator.dag.predecessors):
        for other in before:
            after[other].append(node)
    found: set[int] = set()
    for node in reversed(evaluator.dag.orders[next(iter(evaluator.dag.orders))]):
        if node in on_host and all(reader in found for reader in after[node]):
            found.add(node)
    return found


def _placed(
    evaluator: Evaluator,
    candidate: Candidate,
    stage_of: Sequence[int],
    placed: Sequence[Device],
    replicas: Sequence[tuple[Device, ...]],
) -> Candidate:
    """Stages numbered anew, without gaps and so that no value goes back."""
    after = _after(evaluator, stage_of)
    order: list[int] = []
    left = sorted(set(stage_of))
    while left:
        ready = next(stage for stage in left if not any(stage in after[other] for other in left if other != stage))
        order.append(ready)
        left.remove(ready)
    number = {stage: position for position, stage in enumerate(order)}
    partitioner = evaluator.partitioner([placed[stage] for stage in order], [replicas[stage] for stage in order])
    name = candidate.partition.order_name
    partition = partitioner.partition([number[stage] for stage in stage_of], len(order), name)
    return evaluator.candidate(partitioner, partition)


def on_host_note(graph: Graph, nodes: Sequence[int]) -> str:
    """What runs on the CPU though its stage has a GPU."""
    kinds = ", ".join(sorted({graph.nodes[node].op_type for node in nodes}))
    count = f"{len(nodes)} node{'' if len(nodes) == 1 else 's'}"
    return f"{count} that no GPU runs here are on the CPU within GPUs' stages, with copies of what they read: {kinds}"


def far_note(stages: Sequence[Stage], edges: Sequence[Edge]) -> str:
    """How values go between GPUs of different hosts, where any do; else nothing."""
    far = {
        (stages[e.producer].id, stages[e.consumer].id)
        for e in edges
        if e.between_stages
        and all(stages[end].device.kind == "cuda" for end in (e.producer, e.consumer))
        and len({device.host for end in (e.producer, e.consumer) for device in stages[end].devices}) > 1
    }
    if not far:
        return ""
    pairs = ", ".join(f"{producer} → {consumer}" for producer, consumer in sorted(far))
    way = "by NCCL where both actors have it, else by the hosts' memory and Ray's object store"
    return f"between GPUs of different hosts values go {way}: {pairs}"
