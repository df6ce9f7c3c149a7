"""Stage -> device: in which order devices take stages, and whether each stage fits the memory of its device."""

from __future__ import annotations

from collections.abc import Sequence

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
    return (device.kind, device.threads, device.memory_nbytes, device.gflops, device.gbytes_per_s)


def shares(placed: Sequence[Device]) -> dict[str, list[int]]:
    """Stages by the id of the device that they are placed on."""
    stages: dict[str, list[int]] = {}
    for stage, device in enumerate(placed):
        stages.setdefault(device.id, []).append(stage)
    return stages


def device_peak_nbytes(loads: Sequence[StageLoad], placed: Sequence[Device]) -> dict[str, int]:
    """Bytes that each device holds at most: the weights of all its stages, and all of their activations at once."""
    return {device: sum(loads[stage].peak_nbytes for stage in stages) for device, stages in shares(placed).items()}


def overflow_nbytes(loads: Sequence[StageLoad], placed: Sequence[Device]) -> int:
    """By how many bytes the fullest device goes over its memory; 0 where everything fits."""
    limits = {device.id: device.memory_nbytes for device in placed}
    over = [0]
    for device, nbytes in device_peak_nbytes(loads, placed).items():
        limit = limits[device]
        if limit is not None:
            over.append(nbytes - limit)
    return max(over)


def check_memory(loads: Sequence[StageLoad], placed: Sequence[Device]) -> None:
    """Raises PlanError where stages need more memory than their device has: names the largest of them."""
    held = device_peak_nbytes(loads, placed)
    for device_id, stages in shares(placed).items():
        device = placed[stages[0]]
        limit = device.memory_nbytes
        if limit is None or held[device_id] <= limit:
            continue
        largest = max(stages, key=lambda stage: loads[stage].peak_nbytes)
        load = loads[largest]
        shared = ""
        if len(stages) > 1:
            together = ", ".join(f"stage{stage}" for stage in stages)
            shared = f" {together} share the device and want {format_nbytes(held[device_id])} together."
        raise PlanError(
            f"stage{largest} wants {load.peak_nbytes} bytes ({format_nbytes(load.weights_nbytes)} of weights, "
            f"{format_nbytes(load.activations_nbytes)} of activations), and {device_id} has {limit} bytes "
            f"({format_nbytes(limit)}).{shared} Give the plan more devices or more stages, a device with more memory, "
            "or smaller inputs."
        )
