"""A session's plan: the devices that there are, what nodes take on them, and the planner's or the model's own cut."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from distort import providers as execution_providers
from distort.blas import use_threads
from distort.graph.inference import infer
from distort.graph.ir import Graph, Model

if TYPE_CHECKING:
    from distort.engine import EngineConfig
    from distort.graph.pipeline import Pipeline
    from distort.scheduler.device import Device
    from distort.scheduler.plan import Plan


def session_plan(model: Model, config: EngineConfig, pipeline: Pipeline | None) -> Plan:
    """The plan of a parallel session, by its options. The types of the model's values are inferred."""
    from distort.scheduler.device import parse_nbytes

    keys = config.distort_keys
    replicas = keys.get("replicas")
    memory = keys.get("device_memory")
    objective = keys.get("objective", "latency")
    gpus = _gpu_devices(config)
    n_stages = int(keys["stages"]) if "stages" in keys else config.n_actors
    if gpus is not None and len(gpus) > 1 and not n_stages and replicas is None and objective != "throughput":
        n_stages = len(gpus)  # who names several GPUs wants them used
    employs = config.n_actors > 0 or (gpus is not None and len(gpus) > 1)
    return plan_model(
        model,
        n_stages,
        threads=config.intra_op_threads,
        objective=objective,
        # a number of actors is no number of stages where throughput is asked for: replicas may answer more runs
        employ=objective == "throughput" and replicas is None and "stages" not in keys and employs,
        strict=keys.get("strict_placement", "0") == "1",
        model_name=config.model_name,
        typed=True,
        replicas=None if replicas is None else 0 if replicas == "auto" else int(replicas),
        device_nbytes=None if memory is None else parse_nbytes(memory),
        costs=keys.get("costs", "auto"),
        compiled=keys.get("compile", "1"),
        pipeline=pipeline,
        devices=_cluster_devices(config) if gpus is None else gpus,
        providers=config.providers,
    )[0]


#: actors that are planned for on a cluster, where nobody says how many
_MOST_CHOSEN = 16


def _gpu_devices(config: EngineConfig) -> Sequence[Device] | None:
    """The GPUs that a session's providers name, here or on a cluster; None where they name none."""
    if execution_providers.CUDA not in [name for name, _ in config.providers]:
        return None
    from distort import gpus

    address = config.distort_keys.get("address", "")
    if not address:
        return gpus.devices_here(config.providers)
    wanted = int(config.distort_keys.get("stages", config.n_actors)) * max(1, _number(config, "replicas"))
    return gpus.devices_of_cluster(config.providers, address, wanted)


def _cluster_devices(config: EngineConfig) -> Sequence[Device] | None:
    """CPU shares of the nodes of a cluster at an address; None where there is none but this machine.

    Raises AddressError where it doesn't answer, ClusterError where it has no room.
    """
    address = config.distort_keys.get("address", "")
    if not address:
        return None
    from distort.cluster.nodes import answering, devices_of, nodes
    from distort.cluster.resources import attach

    attach(address)
    found = answering(nodes())
    n_cpus = int(sum(node.n_cpus for node in found))
    wanted = int(config.distort_keys.get("stages", config.n_actors)) * max(1, _number(config, "replicas"))
    return devices_of(found, wanted or max(1, min(n_cpus, _MOST_CHOSEN)), config.intra_op_threads)


def _number(config: EngineConfig, key: str) -> int:
    text = config.distort_keys.get(key, "")
    return int(text) if text.isdecimal() else 0


def cpu_devices(n_devices: int, threads: int, memory_nbytes: int | None = None) -> list[Device]:
    """This machine's CPU as ``n_devices`` devices of ``threads`` threads (0: its cores shared out).

    They share the machine's memory, so without ``memory_nbytes`` each may use all of it; weights that several hold are
    mapped once.
    """
    from distort.scheduler.device import cpu

    cores = len(os.sched_getaffinity(0))
    memory = memory_nbytes or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    share = threads or max(1, cores // max(1, n_devices))
    return [cpu(i, threads=share, memory_nbytes=memory) for i in range(n_devices)]


def _budgeted(
    devices: Sequence[Device], device_nbytes: int | None, providers: Sequence[tuple[str, Mapping[str, str]]]
) -> tuple[list[Device], list[str]]:
    """Devices with the memory that a plan may use of them, and notes: ``device_nbytes``, else what providers say."""
    from distort.scheduler.device import format_nbytes

    limits = execution_providers.memory_limits(providers)
    whose = f"gpu_mem_limit of {execution_providers.CUDA}"
    if device_nbytes is not None:
        unused = [f"the {whose} is not used: each device is to have {format_nbytes(device_nbytes)}"]
        return [replace(d, memory_nbytes=device_nbytes) for d in devices], unused if limits else []
    found: list[Device] = []
    limited: dict[int, list[str]] = {}
    for device in devices:
        limit = limits.get(device.index, limits.get(None)) if device.kind == "cuda" else None
        if limit is not None and limit < (device.memory_nbytes or limit + 1):
            device = replace(device, memory_nbytes=limit)
            limited.setdefault(limit, []).append(device.id)
        found.append(device)
    return found, [f"memory of {', '.join(ids)}: {format_nbytes(n)}, the {whose}" for n, ids in limited.items()]


def plan_model(
    model: Model,
    n_actors: int,
    *,
    threads: int = 0,
    devices_text: str | None = None,
    dims: Mapping[str, int] | None = None,
    objective: str = "latency",
    strict: bool = False,
    model_name: str = "",
    typed: bool = False,
    replicas: int | None = None,
    device_nbytes: int | None = None,
    costs: str = "auto",
    compiled: str = "1",
    feeds: Mapping[str, Any] | None = None,
    in_process: bool = False,
    pipeline: Pipeline | None = None,
    devices: Sequence[Device] | None = None,
    employ: bool = False,
    providers: Sequence[tuple[str, Mapping[str, str]]] = (),
) -> tuple[Plan, Graph]:
    """The cut of a model for ``n_actors`` (0: as many as pay). Starts nothing.

    ``typed``: the types of its values were inferred before. ``replicas`` is what ``make_plan`` says, ``device_nbytes``
    the memory of each device, ``costs`` one of ``measured.MODES``, ``feeds`` what a measurement runs with, and
    ``compiled`` how (``distort.compile``).
    ``in_process``: one stage, and no actor. ``pipeline``: what :func:`pin_annotations` found before the model was
    optimized; its stages are the plan's. ``devices`` are what there is, instead of this machine's CPU. ``providers``
    have options that may limit their devices' memory; ``device_nbytes`` counts more. Raises PlanError where nothing
    fits, ValueError for ``devices_text``, InvalidArgument for an option of ``providers``.
    """
    from distort import measured
    from distort.gpus import nodes_on_host
    from distort.graph.pipeline import after_optimization
    from distort.scheduler.annotated import n_cpus, plan_annotated
    from distort.scheduler.device import parse_devices
    from distort.scheduler.errors import PlanError
    from distort.scheduler.planner import Terms, make_plan

    if not typed:
        infer(model)
    if pipeline is not None:
        pipeline = after_optimization(model.graph, pipeline, strict=strict)
    here: Device | None
    if devices_text:
        here = None
        choices: list[Sequence[Device]] = [parse_devices(devices_text)]
    elif devices is not None:
        on_gpus = all(device.kind == "cuda" for device in devices)
        here = None if on_gpus else cpu_devices(1, threads, device_nbytes)[0]
        choices = [devices]
    else:
        here = cpu_devices(1, threads, device_nbytes)[0]
        counts = _device_counts(model.graph, n_actors, replicas, device_nbytes)
        choices = [cpu_devices(count, threads, device_nbytes) for count in ([n_cpus(pipeline)] if pipeline else counts)]
    choices, notes = map(list, zip(*(_budgeted(chosen, device_nbytes, providers) for chosen in choices), strict=True))
    cores = len(os.sched_getaffinity(0))
    n_threads = {min(d.threads, cores) for d in (*choices[0], *([here] if here else [])) if d.kind == "cpu"}
    gpus_alone = not n_threads  # nobody measures on those
    known = measured.Costs({}, {}, {}, ())
    if not gpus_alone:
        known = measured.costs(
            model.graph, sorted(n_threads), use_threads, mode=costs, dims=dims, feeds=feeds, compiled=compiled
        )
    if strict and costs == "measured" and not known.node_us and not gpus_alone:
        raise PlanError("; ".join(known.notes))
    has_gpus = any(device.kind == "cuda" for device in choices[0])
    terms = Terms(
        objective,
        {**known.dims, **(dims or {})},
        strict,
        model_name,
        known.node_us,
        known.value_nbytes,
        here=here,
        cores=None if devices_text else cores,
        on_host=nodes_on_host(model.graph) if has_gpus else frozenset(),
        host=cpu_devices(1, threads)[0] if devices is not None and gpus_alone else None,
    )
    n_stages = n_actors or None
    for position, chosen in enumerate(choices):
        try:
            if pipeline is not None:
                plan = plan_annotated(model.graph, pipeline, chosen, terms, n_stages=n_stages, replicas=replicas)
            else:
                plan = make_plan(
                    model.graph,
                    chosen,
                    terms,
                    n_stages=None if employ else n_stages,
                    replicas=replicas,
                    in_process=in_process,
                    employ=employ,
                )
            break
        except PlanError:
            if position == len(choices) - 1:
                raise
    return replace(
        plan, notes=(*plan.notes, *notes[position], *execution_providers.notes(providers), *known.notes)
    ), model.graph


#: actors that a budget of memory may call for
_MOST_ACTORS = 64


def _device_counts(graph: Graph, n_actors: int, replicas: int | None, device_nbytes: int | None) -> list[int]:
    """How many actors to plan for: those asked for; else one a core, and more where memory calls for them."""
    cores = len(os.sched_getaffinity(0))
    if n_actors:
        return [max(n_actors, cores) if replicas == 0 else n_actors * (replicas or 1)]
    least = max(cores, replicas or 1)
    if device_nbytes is None:
        return [least]
    from distort.scheduler.cost import weight_nbytes

    weights = sum(map(weight_nbytes, graph.initializers.values()))
    first = min(_MOST_ACTORS, max(least, -(-weights // device_nbytes)))
    return [
        first,
        *(count for count in (first + 2, 2 * first, 4 * first, _MOST_ACTORS) if first < count <= _MOST_ACTORS),
    ]


def pin_annotations(model: Model, partition: str, *, strict: bool = False) -> Pipeline | None:
    """The pipeline that ``distort.partition`` asks the model's annotations for; None where the planner is to cut.

    To be called before the model is optimized, so that passes keep its stages apart. Raises ModelError.
    """
    from distort.graph import pipeline

    if partition.partition(":")[0] != pipeline.ANNOTATIONS:
        return None
    return pipeline.pin(model, partition, strict=strict)
