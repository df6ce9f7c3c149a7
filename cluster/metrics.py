"""What a session's actors have done as metrics: families, samples, Prometheus' text, Ray's own registry.

Names and units are Prometheus': seconds, bytes, ``_total`` for what only grows. Ray adds ``ray_`` before a name.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from distort.cluster.activity import LATENCY_BOUNDS_S, Snapshot, lanes


@dataclass(frozen=True, slots=True)
class Family:
    name: str
    kind: str  # counter or gauge
    help: str
    labels: tuple[str, ...] = ()  # beside session and model


_OF_STAGE = ("stage", "device")
FAMILIES = (
    Family("distort_runs_total", "counter", "Runs that ended, by what became of them.", ("outcome",)),
    Family("distort_runs_in_flight", "gauge", "Runs that have begun or wait."),
    Family("distort_active_seconds_total", "counter", "Time in which some run was in flight."),
    Family("distort_stage_executions_total", "counter", "Executions of a stage's actor.", _OF_STAGE),
    Family("distort_stage_busy_seconds_total", "counter", "Time in which a stage's actor computed.", _OF_STAGE),
    Family("distort_stage_queued", "gauge", "Orders that wait at a stage's actor.", _OF_STAGE),
    Family("distort_stage_held_values", "gauge", "Values that an actor keeps for callers.", _OF_STAGE),
    Family("distort_stage_held_bytes", "gauge", "Their bytes.", _OF_STAGE),
    Family("distort_stage_shared_bytes", "gauge", "Shared memory that an actor sends from.", _OF_STAGE),
    Family("distort_stage_restarts_total", "counter", "Times that a stage's actor was lost and restarted.", _OF_STAGE),
    Family("distort_edge_bytes_total", "counter", "Bytes from stage to stage.", ("edge", "transport")),
    Family("distort_edge_messages_total", "counter", "Values from stage to stage.", ("edge", "transport")),
)
#: a histogram, which the two ways of publishing write each in its own way
LATENCY = Family("distort_run_seconds", "histogram", "How long runs took, from their call to their end.")


@dataclass(frozen=True, slots=True)
class Sample:
    family: str
    labels: tuple[str, ...]  # values, in the family's order
    value: float


def samples(snapshot: Snapshot) -> Iterator[Sample]:
    """All but latencies."""
    yield Sample("distort_runs_total", ("done",), snapshot.done)
    yield Sample("distort_runs_total", ("failed",), snapshot.failed)
    yield Sample("distort_runs_in_flight", (), snapshot.in_flight)
    yield Sample("distort_active_seconds_total", (), snapshot.active_ns / 1e9)
    for unit in snapshot.units:
        of = (unit.name, unit.device)
        yield Sample("distort_stage_restarts_total", of, unit.epoch)
        if unit.answers:
            yield Sample("distort_stage_executions_total", of, unit.executions)
            yield Sample("distort_stage_busy_seconds_total", of, unit.busy_ns / 1e9)
            yield Sample("distort_stage_queued", of, unit.queued)
            yield Sample("distort_stage_held_values", of, unit.held)
            yield Sample("distort_stage_held_bytes", of, unit.held_nbytes)
            yield Sample("distort_stage_shared_bytes", of, unit.slots_nbytes)
    for lane in lanes(snapshot.since().edges):
        along = (f"{_end(lane.producer)}->{_end(lane.consumer)}", lane.transport)
        yield Sample("distort_edge_bytes_total", along, lane.nbytes)
        yield Sample("distort_edge_messages_total", along, lane.messages)


def _end(stage: int) -> str:
    return "caller" if stage < 0 else f"stage{stage}"


def to_text(snapshot: Snapshot, labels: Mapping[str, str]) -> str:
    """Prometheus' text format, version 0.0.4. ``labels`` are those of every sample."""
    by_family: dict[str, list[Sample]] = {}
    for sample in samples(snapshot):
        by_family.setdefault(sample.family, []).append(sample)
    lines = []
    for family in FAMILIES:
        lines += [f"# HELP {family.name} {family.help}", f"# TYPE {family.name} {family.kind}"]
        for sample in by_family.get(family.name, ()):
            own = dict(zip(family.labels, sample.labels, strict=True))
            lines.append(f"{family.name}{_labels({**labels, **own})} {sample.value:.15g}")
    lines += [f"# HELP {LATENCY.name} {LATENCY.help}", f"# TYPE {LATENCY.name} {LATENCY.kind}"]
    counts = itertools.accumulate(snapshot.by_class)
    for bound, count in zip((*map("{:g}".format, LATENCY_BOUNDS_S), "+Inf"), counts, strict=True):
        lines.append(f"{LATENCY.name}_bucket{_labels({**labels, 'le': bound})} {count}")
    lines.append(f"{LATENCY.name}_sum{_labels(labels)} {snapshot.total_s:.15g}")
    lines.append(f"{LATENCY.name}_count{_labels(labels)} {snapshot.done}")
    return "\n".join(lines) + "\n"


def _labels(labels: Mapping[str, str]) -> str:
    pairs = (f'{name}="{_escaped(value)}"' for name, value in labels.items())
    return "{" + ",".join(pairs) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


class RayMetrics:
    """The same in Ray's registry (``ray.util.metrics``), which Ray's agents export where they have what it takes."""

    def __init__(self, labels: Mapping[str, str], registry: Any = None) -> None:
        """``registry`` has Counter, Gauge and Histogram; None: Ray's."""
        if registry is None:
            from ray.util import metrics as registry
        self._labels = dict(labels)
        kinds = {"counter": registry.Counter, "gauge": registry.Gauge}
        self._families = {family.name: family for family in FAMILIES}
        self._metrics = {
            # Ray's exporter adds _total itself
            f.name: kinds[f.kind](f.name.removesuffix("_total"), description=f.help, tag_keys=(*labels, *f.labels))
            for f in FAMILIES
        }
        self._latency = registry.Histogram(
            LATENCY.name, description=LATENCY.help, boundaries=list(LATENCY_BOUNDS_S), tag_keys=tuple(labels)
        )
        self._before: dict[tuple[str, tuple[str, ...]], float] = {}
        self._n_done = 0

    def record(self, snapshot: Snapshot) -> None:
        """Tell what changed. Of latencies, only the last that a snapshot has are told: 1024 from one to the next."""
        for sample in samples(snapshot):
            family = self._families[sample.family]
            tags = self._labels | dict(zip(family.labels, sample.labels, strict=True))
            if family.kind == "gauge":
                self._metrics[family.name].set(sample.value, tags)
                continue
            key = (sample.family, sample.labels)
            grown = sample.value - self._before.get(key, 0.0)
            if grown < 0:  # an actor was restarted, and counts anew
                grown = sample.value
            self._before[key] = sample.value
            if grown > 0:
                self._metrics[family.name].inc(grown, tags)
        n_new = min(snapshot.done - self._n_done, len(snapshot.recent_s))
        self._n_done = snapshot.done
        for latency_s in snapshot.recent_s[len(snapshot.recent_s) - n_new :]:
            self._latency.observe(latency_s, self._labels)
