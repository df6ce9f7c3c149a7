"""Stage -> device: in which order devices take stages, and whether each stage fits the memory of its device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from distort.scheduler.dag import Dag
from distort.scheduler.device import Device, format_nbytes
from distort.scheduler.errors import PlanError
from distort.scheduler.partition import StageLoad


def device_orders(devices: Sequence[Device]) -> list[tuple[Device, ...]]:
    """Orders in which stages may take the devices: as given (the caller's preference), and the fastest first or last.

    Devices that differ in nothing but their number give one order.
    """
    given = tuple(devices)
    fastest = tuple(sorted(given, key=lambda device: -device.gflops))
    found: dict[tuple[object, ...], tuple[Device, ...]] = {}
    for order in (given, fastest, fastest[::-1]):
        found.setdefault(tuple(_likeness(device) for device in order), order)
    return list(found.values())


def distinct(devices: Sequence[Device]) -> list[Device]:
    """One device of each sort, the first."""
    found: dict[tuple[object, ...], Device] = {}
    for device in devices:
        found.setdefault(_likeness(device), device)
    return list(found.values())


def _likeness(device: Device) -> tuple[object, ...]:
    return (*device.speeds, device.memory_nbytes, device.peer_gbytes_per_s, device.host)


def alike(one: Device, other: Device) -> bool:
    """Whether two devices take as long for the same work, so that they can take turns at a stage."""
    return one.speeds == other.speeds


def shares(placed: Sequence[Device]) -> dict[str, list[int]]:
    """Stages by the id of the device that they are placed on."""
    stages: dict[str, list[int]] = {}
    for stage, device in enumerate(placed):
        stages.setdefault(device.id, []).append(stage)
    return stages


def device_peak_nbytes(
    loads: Sequence[StageLoad], placed: Sequence[Device], replicas: Sequence[Sequence[Device]] = ()
) -> dict[str, int]:
    """Bytes that each device holds at most: the weights of all its stages, and all of their activations at once."""
    held = {device: sum(loads[stage].peak_nbytes for stage in stages) for device, stages in shares(placed).items()}
    for load, others in zip(loads, replicas, strict=False):
        held.update({device.id: load.peak_nbytes for device in others})
    return held


def overflow_nbytes(
    loads: Sequence[StageLoad], placed: Sequence[Device], replicas: Sequence[Sequence[Device]] = ()
) -> int:
    """By how many bytes the fullest device goes over its memory; 0 where everything fits."""
    limits = {device.id: device.memory_nbytes for devices in (placed, *replicas) for device in devices}
    over = [0]
    for device, nbytes in device_peak_nbytes(loads, placed, replicas).items():
        limit = limits[device]
        if limit is not None:
            over.append(nbytes - limit)
    return max(over)


def without_room_to_export(
    loads: Sequence[StageLoad], placed: Sequence[Device], replicas: Sequence[Sequence[Device]] = ()
) -> list[str]:
    """Ids of devices that have none for all that other GPUs are to read of them."""
    limits = {device.id: device.memory_nbytes for devices in (placed, *replicas) for device in devices}
    held = device_peak_nbytes(loads, placed, replicas)
    crowded = {device.id for load, device in zip(loads, placed, strict=True) if load.crowded}
    crowded.update(
        device.id for load, devices in zip(loads, replicas, strict=False) if load.crowded for device in devices
    )
    return [
        device for device, limit in limits.items() if device in crowded or (limit is not None and held[device] > limit)
    ]


def check_memory(
    dag: Dag,
    loads: Sequence[StageLoad],
    placed: Sequence[Device],
    devices: Sequence[Device],
    replicas: Sequence[Sequence[Device]] = (),
) -> None:
    """Raises PlanError where stages need more memory than their device has: names what is too large, and for what.

    ``devices`` are all that there are.
    """
    held = device_peak_nbytes([replace(load, exported_nbytes=0) for load in loads], placed, replicas)
    too_full = [
        (device, stage)
        for stage in range(len(placed))
        for device in (placed[stage], *(replicas[stage] if replicas else ()))
        if device.memory_nbytes is not None and held[device.id] > device.memory_nbytes
    ]
    if not too_full:
        return
    device, _ = too_full[0]
    stages = shares(placed).get(device.id) or [too_full[0][1]]
    largest = max(stages, key=lambda stage: loads[stage].least_nbytes)
    load = loads[largest]
    shared = ""
    if len(stages) > 1:
        together = ", ".join(f"stage{stage}" for stage in stages)
        shared = f" {together} share the device and want {format_nbytes(held[device.id])} together."
    raise PlanError(
        f"stage{largest} wants {load.least_nbytes} bytes ({format_nbytes(load.weights_nbytes)} of weights, "
        f"{format_nbytes(load.activations_nbytes)} of activations), and {device.id} has {device.memory_nbytes} bytes "
        f"({format_nbytes(device.memory_nbytes)}).{shared} {_missing(dag, devices)}"
    )


def _missing(dag: Dag, devices: Sequence[Device]) -> str:
    """What no cut could help, and the remedy."""
    limits = [device.memory_nbytes for device in devices if device.memory_nbytes is not None]
    if len(limits) < len(devices):
        return "Give the plan more stages, so that each holds less, or smaller inputs."
    largest_nbytes = max(limits)
    wants, node = max((_node_nbytes(dag, node), -node) for node in range(dag.n_nodes))
    node = -node
    if wants > largest_nbytes:
        label = dag.graph.nodes[node].label()
        touched = {v: dag.values[v] for v in (*dag.reads[node], *dag.makes[node])}
        value = max(touched.values(), key=lambda value: value.size)
        what = "weight" if value.weight else "value"
        held = f"the {what} {value.name!r} is {format_nbytes(value.size)}"
        remedy = "more memory" if value.weight else "more memory, or smaller inputs"
        return (
            f"Node {label!r} alone wants {wants} bytes, of which {held}, and the largest device has "
            f"{format_nbytes(largest_nbytes)}: no cut helps. Give the plan a device with {remedy}."
        )
    weights = sum(value.size for value in dag.values if value.weight and value.consumers)
    if weights > sum(limits):
        return (
            f"The model's weights are {format_nbytes(weights)}, and the {len(devices)} devices have "
            f"{format_nbytes(sum(limits))} together. Give the plan more devices, or devices with more memory."
        )
    return "Give the plan more devices or more stages, a device with more memory, or smaller inputs."


def _node_nbytes(dag: Dag, node: int) -> int:
    """What a node must have in memory at once: its weights, what it reads and what it makes."""
    return sum(dag.values[v].size for v in {*dag.reads[node], *dag.makes[node]})
