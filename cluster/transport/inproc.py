"""Stages in this process, one after the other: the executor without actors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from distort.cluster.actor import ExecuteOrder, StageActor, StagePayload
from distort.cluster.errors import StageLost
from distort.cluster.resident import ResidentMeta
from distort.cluster.transport.base import Handle, OnDone, StageHost, weight_groups


class InprocHost:
    def __init__(self, payload: StagePayload, weights: dict[str, Any], epoch: int = 0) -> None:
        self.epoch = epoch
        self._actor = StageActor()
        # threads are the process's own business here
        self._actor.load(replace(payload, threads=0), weights)

    def execute(self, order: ExecuteOrder, values: Sequence[Handle], on_done: OnDone) -> list[Handle]:
        try:
            result = self._actor.execute(order, *values)
        except Exception as error:  # noqa: BLE001  # the actor boundary: every error travels to the run that asked
            on_done(None, error)
            return [None] * len(order.returns)
        report, *outputs = result if isinstance(result, tuple) else (result,)
        on_done(report, None)
        return outputs

    def export(self, key: str) -> Handle:
        return self._actor.export(key)

    def release(self, keys: Sequence[str]) -> None:
        self._actor.release(keys)

    def cancel(self, run: int) -> None:
        self._actor.cancel(run)

    def keep_value(self, handle: Handle) -> ResidentMeta:
        return self._actor.keep_value(handle)

    def held(self) -> tuple[int, int]:
        return self._actor.held()

    def close(self) -> None:
        return None


class InprocTransport:
    name = "inproc"
    chains = False

    def __init__(self) -> None:
        self._payloads: list[StagePayload] = []
        self._weights: list[dict[str, Any]] = []
        self._epochs: list[int] = []

    def open(self, payloads: Sequence[StagePayload], weights: dict[str, Any]) -> list[StageHost]:
        self._payloads = list(payloads)
        self._weights = [{} for _ in payloads]
        self._epochs = [0] * len(payloads)
        for positions, group in weight_groups(payloads, weights).items():
            for position in positions:
                self._weights[position].update(group)
        return [InprocHost(payload, own) for payload, own in zip(self._payloads, self._weights, strict=True)]

    def reopen(self, stage: int) -> StageHost:
        self._epochs[stage] += 1
        return InprocHost(self._payloads[stage], self._weights[stage], self._epochs[stage])

    def put(self, value: Any) -> Handle:
        return value

    def get(self, handle: Handle, timeout_s: float | None = None) -> Any:
        return handle

    def lost_stage(self, cause: BaseException, stage: int) -> int | None:
        return stage if isinstance(cause, StageLost) else None

    def cause(self, error: BaseException) -> BaseException:
        return error

    def close(self) -> None:
        self._payloads, self._weights = [], []
