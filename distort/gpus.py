"""GPUs of a parallel session: devices of its plan, from the provider's entries; what actors are told of theirs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from distort import errors
from distort import providers as execution_providers
from distort.kernels.cuda import device as facts

if TYPE_CHECKING:
    from distort.cluster.orders import GpuSeat
    from distort.graph.ir import Graph
    from distort.scheduler.device import Device
    from distort.scheduler.units import Units

Entries = Sequence[tuple[str, Mapping[str, str]]]


def entries_of(providers: Entries) -> list[Mapping[str, str]]:
    """The options of each GPU that a session has, in its order: one entry a GPU."""
    found: dict[int, Mapping[str, str]] = {}
    for name, options in providers:
        if name == execution_providers.CUDA:
            found.setdefault(_number(options), options)
    return list(found.values())


def _number(options: Mapping[str, str]) -> int:
    return int(options.get("device_id", "0"))


def devices_here(providers: Entries) -> list[Device]:
    """The GPUs of this host that a session's providers name. Raises InvalidArgument for one that isn't there."""
    from distort.scheduler.device import cuda
    from distort.scheduler.gpus import figures_of

    devices = []
    for options in entries_of(providers):
        index = _number(options)
        try:
            known = facts.properties(index)
        except ValueError as error:
            raise errors.make("INVALID_ARGUMENT", f"{execution_providers.CUDA}: {error}") from error
        figures = figures_of(known.name, known.capability)
        devices.append(cuda(index, known.memory_nbytes, figures=figures, tf32=_tf32(options)))
    return devices


def devices_of_cluster(providers: Entries, address: str, n_actors: int) -> list[Device]:
    """GPUs of a cluster's nodes: as many as ``n_actors``, else as providers' entries, else all (of one entry).

    Raises AddressError where the cluster doesn't answer, ClusterError where it has too few.
    """
    from distort.cluster.nodes import answering, gpus_of, nodes
    from distort.cluster.resources import attach

    attach(address)
    entries = entries_of(providers)
    wanted = n_actors or (len(entries) if len(entries) > 1 else 0)
    return list(gpus_of(answering(nodes()), wanted, tf32=_tf32(entries[0])))


def _tf32(options: Mapping[str, str]) -> bool:
    return str(options.get("use_tf32", "1")) not in ("0", "False", "false")


def nodes_on_host(graph: Graph) -> frozenset[int]:
    """Nodes that run on the CPU within a GPU's stage, whatever their inputs are."""
    from distort.kernels.cuda.builder import why_on_cpu

    return frozenset(i for i, node in enumerate(graph.nodes) if why_on_cpu(node, anywhere=True) is not None)


def seats_of(units: Units, providers: Entries) -> list[GpuSeat | None]:
    """The GPU of each unit; None for those on a CPU. Units of one device share it."""
    from distort.cluster.orders import GpuSeat

    options = {_number(entry): dict(entry) for entry in entries_of(providers)}
    first = next(iter(options.values()), {})
    places = [(device.host, device.index) if device.kind == "cuda" else None for device in units.device_of]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    seats: list[GpuSeat | None] = []
    for place in places:
        if place is None:
            seats.append(None)
            continue
        host, index = place
        share = int(1e4 / places.count(place)) / 1e4  # Ray counts in ten thousandths
        seats.append(GpuSeat(index, share, options.get(index, first) if not host else first, visible))
    return seats
