"""A plan from the stages and devices that a model is annotated with (IR 11), and the annotations of a plan."""

from __future__ import annotations

import re
from collections.abc import Sequence

from distort.graph.annotations import DEFAULT_NAME, Configuration, annotated
from distort.graph.ir import Graph, Model
from distort.graph.pipeline import Pipeline
from distort.scheduler.device import Device
from distort.scheduler.errors import PlanError
from distort.scheduler.plan import Plan
from distort.scheduler.planner import USUAL, Terms, plan_of_stages

_DEVICE_NAME = re.compile(r"(cpu|cuda|gpu)(?::(\d+))?", re.IGNORECASE)


def device_ids(configuration: Configuration) -> tuple[str, ...]:
    """What we call the devices of a configuration: ``cpu:0`` for ``CPU:0``, ``cuda:1`` for ``GPU:1``.

    A kind without a number is the next of its kind; a name that says no kind counts by its position, as ``""``.
    """
    counts: dict[str, int] = {}
    found = []
    for name in configuration.devices or [""] * configuration.n_devices:
        match = _DEVICE_NAME.fullmatch(name.strip())
        if match is None:
            found.append("")
            continue
        kind = "cpu" if match.group(1).lower() == "cpu" else "cuda"
        index = int(match.group(2)) if match.group(2) else counts.get(kind, 0)
        counts[kind] = max(counts.get(kind, 0), index + 1)
        found.append(f"{kind}:{index}")
    return tuple(found)


def n_cpus(pipeline: Pipeline) -> int:
    """How many CPU shares the pipeline's devices call for: what it names, and what it counts by position."""
    wanted = 1
    for position, name in enumerate(device_ids(pipeline.configuration)):
        if not name:
            wanted = max(wanted, position + 1)
        elif name.startswith("cpu:"):
            wanted = max(wanted, int(name.partition(":")[2]) + 1)
    return wanted


def plan_annotated(
    graph: Graph,
    pipeline: Pipeline,
    devices: Sequence[Device],
    terms: Terms = USUAL,
    *,
    n_stages: int | None = None,
    replicas: int | None = None,
) -> Plan:
    """The plan that a pipeline describes, on those of ``devices`` that it names.

    Its stages are numbered anew without gaps; a single one, on a CPU here, needs no actor. ``n_stages`` and
    ``replicas`` are what somebody asked for besides; None or 0: nothing. Raises PlanError where that differs, where a
    device is not among ``devices``, or where a stage doesn't fit.
    """
    numbers = pipeline.stages
    name = pipeline.configuration.name
    if n_stages and n_stages != len(numbers):
        raise PlanError(
            f"{n_stages} stages are asked for, and device configuration '{name}' of the model has {len(numbers)} "
            f"(pipeline stages {', '.join(map(str, numbers))}). Ask for {len(numbers)}, or leave inter_op_num_threads "
            "and distort.stages unset, or let the planner cut: distort.partition=auto."
        )
    notes = list(pipeline.notes)
    if numbers != tuple(range(len(numbers))):
        notes.append(f"pipeline stages {', '.join(map(str, numbers))} are numbered from 0 here, without gaps")
    placed = _Placement(pipeline, devices, terms.strict, notes).placed()
    if replicas and any(len(copies) != replicas for copies in placed):
        counts = ", ".join(str(len(copies)) for copies in placed)
        raise PlanError(
            f"{replicas} replicas are asked for, and device configuration '{name}' of the model has {counts} by stage. "
            "Leave distort.replicas unset, or let the planner cut: distort.partition=auto."
        )
    alone = placed[0][0] if len(placed) == 1 and len(placed[0]) == 1 and not n_stages else None
    position = {number: i for i, number in enumerate(numbers)}
    return plan_of_stages(
        graph,
        [position[number] for number in pipeline.stage_of],
        [copies[0] for copies in placed],
        terms,
        replicas=[copies[1:] for copies in placed],
        why=f"{'is' if len(numbers) == 1 else 'are'} what the model is annotated with (device configuration '{name}')",
        notes=notes,
        in_process=alone is not None and alone.kind == "cpu" and alone.host == "",
    )


class _Placement:
    """The devices of each stage: those that its nodes name, else the one at the stage's position."""

    def __init__(self, pipeline: Pipeline, devices: Sequence[Device], strict: bool, notes: list[str]) -> None:
        self._pipeline = pipeline
        self._configuration = pipeline.configuration
        self._devices = devices
        self._strict = strict
        self._notes = notes
        self._ids = device_ids(pipeline.configuration)
        self._by_id = {device.id: device for device in devices}

    def placed(self) -> list[tuple[Device, ...]]:
        placed = []
        for position, number in enumerate(self._pipeline.stages):
            found = [self._device(position, number, index) for index in self._indices(position, number)]
            placed.append(tuple({device.id: device for device in found}.values()))
        stages: dict[str, list[str]] = {}
        for position, copies in enumerate(placed):
            if len(copies) > 1:
                every = ", ".join(device.id for device in copies)
                self._notes.append(f"stage{position} is annotated for copies on {every}: runs take turns")
            for device in copies:
                stages.setdefault(device.id, []).append(f"stage{position}")
        for device_id, sharing in stages.items():
            if len(sharing) > 1:
                self._degraded(f"{', '.join(sharing)} share {device_id}, and wait for each other")
        return placed

    def _indices(self, position: int, number: int) -> tuple[int, ...]:
        """Which of the configuration's devices."""
        named = self._pipeline.devices.get(number)
        if named is not None:
            return named
        # more stages than devices share them, neighbours together
        n_stages, n_devices = len(self._pipeline.stages), self._configuration.n_devices
        return (position if n_stages <= n_devices else position * n_devices // n_stages,)

    def _device(self, position: int, number: int, index: int) -> Device:
        wanted = self._ids[index]
        found = self._by_id.get(wanted)
        if not wanted and index < len(self._devices):
            found = self._devices[index]
        if found is None:
            there = ", ".join(device.id for device in self._devices)
            what = wanted or f"the device at position {index}"
            raise PlanError(
                f"stage{position} (pipeline stage {number} of device configuration '{self._configuration.name}') is "
                f"annotated for {self._configuration.device_name(index)}, and {what} is not here; there are: {there}. "
                "Annotate it for one of them, or let the planner place it: distort.partition=auto."
            )
        return found

    def _degraded(self, text: str) -> None:
        if self._strict:
            raise PlanError(f"{text}. distort.strict_placement=0 would allow it.")
        self._notes.append(text)


def annotated_model(plan: Plan, model: Model, configuration: str = DEFAULT_NAME) -> Model:
    """A copy of the plan's model with the plan in it, as a device configuration of that name.

    Raises ValueError where the model's graph is not the one that the plan cuts.
    """
    graph = model.graph
    names = [name for stage in plan.stages for name in stage.node_names]
    nodes = [index for stage in plan.stages for index in stage.nodes]
    if sorted(nodes) != list(range(len(graph.nodes))) or any(
        graph.nodes[index].label() != name for index, name in zip(nodes, names, strict=True)
    ):
        raise ValueError(
            f"the plan of {plan.model_name or 'a model'} cuts another graph than {graph.name or 'the one given'}: give "
            "the optimized model that the plan was made of"
        )
    devices = list(dict.fromkeys(device.id for stage in plan.stages for device in stage.devices)) or ["cpu:0"]
    places: list[tuple[int, tuple[int, ...]]] = [(0, (0,))] * len(graph.nodes)
    for stage in plan.stages:
        copies = tuple(devices.index(device.id) for device in stage.devices)
        for index in stage.nodes:
            places[index] = (stage.index, copies)
    return annotated(model, Configuration(configuration, len(devices), tuple(devices)), places)
