"""What the values of a session's runs go by, and how much of it went: inside a host, by calls, by device."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from distort.cluster.actor import nbytes_of
from distort.cluster.orders import ActorStats, Held, StageReport
from distort.cluster.resident import Resident
from distort.cluster.run import Run
from distort.cluster.traffic import Edge, Traffic
from distort.scheduler.plan import CALLER, Plan


class Ways:
    """Of one plan's edges. Thread-safe, as :class:`Traffic` is."""

    def __init__(self, plan: Plan) -> None:
        #: value -> the stage that makes it
        self.producer = {name: i for i, stage in enumerate(plan.stages) for name in stage.outputs}
        self._on_gpus = frozenset(i for i, stage in enumerate(plan.stages) if stage.device.kind == "cuda")
        self.traffic = Traffic()

    def inside(self, producer: int, consumer: int, by_device: bool = True) -> str:
        """What values inside a host go by, between stages (-1: this process). ``by_device``: GPUs share memory."""
        if not self._on_gpus:
            return "shm"
        source, target = producer in self._on_gpus, consumer in self._on_gpus
        if source and target:
            return "cuda_ipc" if by_device else "shm"
        return "d2h" if source else "h2d" if target else "shm"

    def count_feeds(self, run: Run, stage: int, feeds: Iterable[tuple[str, Any]]) -> None:
        """What went with an order."""
        for name, value in feeds:
            if type(value) is Held:
                if stage in self._on_gpus:  # it lies on the stage's GPU already
                    self.traffic.count(name, stage, stage, "pointer", 0)
            else:
                nbytes = nbytes_of(value)
                self.traffic.count(name, CALLER, stage, self.inside(CALLER, stage), nbytes)
                if run.crossings is not None:
                    run.crossings.sent.setdefault(stage, []).append((name, nbytes))

    def count_result(self, run: Run, name: str, nbytes: int, transport: str = "") -> None:
        """A value that came to this process; without ``transport`` inside its host."""
        producer = self.producer[name]
        transport = transport or self.inside(producer, CALLER)
        self.traffic.count(name, producer, CALLER, transport, nbytes)
        if run.crossings is not None:
            run.crossings.returned.append((producer, (name, nbytes, transport)))

    def add_edges(self, run: Run, stage: int, report: StageReport) -> None:
        """Into a stage's report: what it read, from whom, by what."""
        direct = run.legs[stage].direct
        for name, nbytes in report.received.items():
            fed = run.feeds.get(name)
            producer = fed.stage if isinstance(fed, Resident) else self.producer.get(name, CALLER)
            by_call = "nccl" if name in report.by_nccl else "object_store"
            if not direct:
                self.traffic.count(name, producer, stage, by_call, nbytes)
            report.edges.append((name, producer, nbytes, self.inside(producer, stage) if direct else by_call))
        for name, nbytes in report.mail.items():
            producer = self.producer[name]
            report.edges.append((name, producer, nbytes, self.inside(producer, stage)))
        sent = run.crossings.sent.get(stage, ()) if run.crossings is not None else ()
        report.edges += [(name, CALLER, nbytes, self.inside(CALLER, stage)) for name, nbytes in sent]

    def tell(self, unit: int, stage: int, epoch: int, stats: ActorStats) -> None:
        """What an actor has received from others since it was there."""
        edges: dict[Edge, tuple[int, int]] = {}
        for name, sums in stats.received.items():
            producer = self.producer[name]
            edges[name, producer, stage, self.inside(producer, stage, name in stats.by_device)] = sums
        self.traffic.tell(unit, epoch, edges)


__all__ = ["Ways"]
