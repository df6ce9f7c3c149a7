"""Stages on several devices that take runs in turn: whole replicas of the model, or of its slowest stages."""

from __future__ import annotations

from collections.abc import Sequence

from distort.scheduler.candidate import Candidate, Evaluator
from distort.scheduler.device import Device
from distort.scheduler.partition import LARGE
from distort.scheduler.placement import alike, overflow_nbytes

#: orders of the nodes that are spread over devices with replicas, the most promising ones
SPREAD_ORDERS = 2
#: rounds of handing out devices and cutting anew
ROUNDS = 4


def groups(devices: Sequence[Device]) -> list[list[Device]]:
    """Devices that may take turns at a stage, together."""
    found: list[list[Device]] = []
    for device in devices:
        for group in found:
            if alike(group[0], device):
                group.append(device)
                break
        else:
            found.append([device])
    return found


def seats(devices: Sequence[Device], n_replicas: int) -> list[list[Device]]:
    """Devices in groups of ``n_replicas`` that are alike; those that are left over have no seat."""
    return [
        group[first : first + n_replicas]
        for group in groups(devices)
        for first in range(0, len(group) - n_replicas + 1, n_replicas)
    ]


def seated(evaluator: Evaluator, places: Sequence[Sequence[Device]], n_stages: int) -> list[Candidate]:
    """``n_stages`` stages on the first places, each with all devices of its place."""
    partitioner = evaluator.partitioner([place[0] for place in places], [place[1:] for place in places])
    return [evaluator.candidate(partitioner, partition) for partition in partitioner.best(n_stages)]


def whole(evaluator: Evaluator, devices: Sequence[Device]) -> list[Candidate]:
    """The whole model on each device of a group, where it fits them."""
    candidates = []
    for group in groups(devices):
        partitioner = evaluator.partitioner(group[:1])
        load = partitioner.partition([0] * evaluator.dag.n_nodes, 1).loads[0]
        fitting = [device for device in group if not overflow_nbytes([load], [device])]
        if len(fitting) > 1:
            candidates += seated(evaluator, [fitting], 1)
    return candidates


def spread(evaluator: Evaluator, devices: Sequence[Device]) -> list[Candidate]:
    """Cuts in which stages get as many devices as they need: one dynamic programming over cuts and devices."""
    if len(devices) < 2:
        return []
    partitioner = evaluator.partitioner(devices)
    n_devices = len(devices)
    like = [[alike(one, other) for other in devices] for one in devices]
    together = [[all(like[first][first : last + 1]) for last in range(n_devices)] for first in range(n_devices)]
    names = list(evaluator.dag.orders)[: SPREAD_ORDERS if evaluator.dag.n_nodes > LARGE else None]
    candidates = []
    for name in names:
        order = evaluator.dag.orders[name]
        found = partitioner.sweep(order, n_devices).spread(together, 1.0)
        if found is None:
            continue
        stage_of, counts = found
        ends = [sum(counts[: i + 1]) for i in range(len(counts))]
        places = [devices[end - count : end] for count, end in zip(counts, ends, strict=True)]
        seating = evaluator.partitioner([place[0] for place in places], [place[1:] for place in places])
        partition = seating.partition(stage_of, len(counts), name, order)
        candidates.append(evaluator.candidate(seating, seating.improved(partition)))
    return candidates


def bottleneck(evaluator: Evaluator, start: Candidate, devices: Sequence[Device]) -> list[Candidate]:
    """The same number of stages, with devices that are left over as replicas of the slowest ones; cut anew for them."""
    candidates: list[Candidate] = []
    taken = start
    for _ in range(ROUNDS):
        places = [[device] for device in taken.placed]
        if len({device.id for device in taken.placed}) < len(places):
            return candidates  # stages share devices: none is left over
        spare = [device for device in devices if device.id not in {d.id for d in taken.placed}]
        loads = taken.partition.loads
        while spare:
            slowest = max(range(len(places)), key=lambda stage: loads[stage].time_us / len(places[stage]))
            load = loads[slowest]
            fit = [d for d in spare if alike(d, places[slowest][0]) and not overflow_nbytes([load], [d])]
            if not fit:
                break
            places[slowest].append(fit[0])
            spare.remove(fit[0])
        if all(len(place) == 1 for place in places):
            return candidates
        seating = evaluator.partitioner([place[0] for place in places], [place[1:] for place in places])
        same = seating.partition(taken.partition.stage_of, taken.n_stages, taken.partition.order_name)
        found = [evaluator.candidate(seating, same), *seated(evaluator, places, taken.n_stages)]
        best = min(found, key=lambda candidate: candidate.rank("throughput"))
        candidates.append(best)
        if best.partition.stage_of == taken.partition.stage_of:
            return candidates
        taken = best
    return candidates
