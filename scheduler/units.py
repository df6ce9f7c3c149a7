"""Units: a stage and its replicas, each of which is one host. Unit s is stage s itself; replicas are numbered after."""

from __future__ import annotations

from collections.abc import Sequence

from distort.scheduler.device import Device
from distort.scheduler.plan import Stage


class Units:
    """The units of a plan's stages."""

    def __init__(self, stages: Sequence[Stage]) -> None:
        #: of each unit
        self.stage_of: list[int] = list(range(len(stages)))
        self.device_of: list[Device] = [stage.device for stage in stages]
        #: of each stage
        self.of_stage: list[tuple[int, ...]] = []
        for stage in stages:
            units = [stage.index]
            for device in stage.replicas:
                units.append(len(self.stage_of))
                self.stage_of.append(stage.index)
                self.device_of.append(device)
            self.of_stage.append(tuple(units))

    def __len__(self) -> int:
        return len(self.stage_of)

    def name(self, unit: int) -> str:
        """How a unit is called: stage2, or stage2.1 for its first replica."""
        stage = self.stage_of[unit]
        position = self.of_stage[stage].index(unit)
        return f"stage{stage}.{position}" if position else f"stage{stage}"
