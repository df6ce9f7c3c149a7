"""What parts of a batch are predicted to cost on the stages of a plan."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from distort.graph.ir import Graph
from distort.scheduler.cost import CostModel
from distort.scheduler.plan import Plan
from distort.scheduler.simulate import LINKS

#: µs that a part takes the caller: its feeds on their way, its results put together
CALLER_US = 150.0


class PartCosts:
    """Costs by the number of samples in a part. ``sized`` is the graph with the sizes of its values for so many.

    ``measured`` has the samples of a run and µs of each stage: the estimates are scaled so that they agree there.
    ``cores`` are what the CPU devices of the caller's host share; None: they have what they need.
    """

    def __init__(
        self,
        sized: Callable[[int], Graph],
        plan: Plan,
        measured: tuple[int, Sequence[float]] | None = None,
        cores: int | None = None,
    ) -> None:
        self._cores = cores
        self._sized = sized
        self._plan = plan
        self._scale = [1.0] * len(plan.stages)
        if measured is not None:
            n_samples, measured_us = measured
            estimated = self._estimated_us(CostModel(sized(n_samples)))
            self._scale = [real / max(guess, 1e-3) for real, guess in zip(measured_us, estimated, strict=True)]

    def stage_us(self, n_samples: int) -> list[float]:
        """Each stage for one part: what it receives, then its nodes."""
        model = CostModel(self._sized(n_samples))
        works = self._estimated_us(model)
        return [
            receive + scale * work
            for receive, scale, work in zip(self._received_us(model), self._scale, works, strict=True)
        ]

    def _estimated_us(self, model: CostModel) -> list[float]:
        return [sum(model.node_cost_us(node, stage.device) for node in stage.nodes) for stage in self._plan.stages]

    def _received_us(self, model: CostModel) -> list[float]:
        received: list[float] = []
        for stage in self._plan.stages:
            nbytes: dict[str, int] = {}
            for edge in self._plan.edges:
                if edge.consumer == stage.index and edge.transport in LINKS:
                    nbytes[edge.transport] = nbytes.get(edge.transport, 0) + (model.value_nbytes(edge.value) or 0)
            received.append(sum(LINKS[transport].transfer_us(total) for transport, total in nbytes.items()))
        return received

    def elapsed_us(self, parts: Sequence[Sequence[float]]) -> float:
        """Until the last part is through, each stage on the device that is free first."""
        if not parts:
            return 0.0
        free: dict[str, float] = {}
        last_us = 0.0
        for part in parts:
            ends: list[float] = []
            for stage, cost_us in zip(self._plan.stages, part, strict=True):
                ready = max((ends[producer] for producer in self._plan.producers_of(stage.index)), default=0.0)
                device = min(stage.devices, key=lambda device: free.get(device.id, 0.0))
                end = max(ready, free.get(device.id, 0.0)) + cost_us
                free[device.id] = end
                ends.append(end)
            last_us = max(last_us, *ends)
        if self._cores is not None:
            last_us = max(last_us, self._cores_us(parts))
        return last_us + CALLER_US * len(parts)

    def _cores_us(self, parts: Sequence[Sequence[float]]) -> float:
        """What all parts take of this host's cores."""
        cores = self._cores or 1
        threads = [
            min(stage.device.threads, cores) if stage.device.kind == "cpu" and not stage.device.host else 0
            for stage in self._plan.stages
        ]
        return sum(cost_us * n for part in parts for cost_us, n in zip(part, threads, strict=True)) / cores
