"""Stages in this process, one after the other: the executor without actors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from distort.cluster.actor import StageActor
from distort.cluster.clocks import Reading
from distort.cluster.errors import StageLost
from distort.cluster.orders import ActorStats, ExecuteOrder, StagePayload
from distort.cluster.resident import ResidentMeta
from distort.cluster.transport.base import Answer, Handle, Listener, News, StageHost


class InprocHost:
    def __init__(
        self, unit: int, payload: StagePayload, weights: dict[str, Any], listener: Listener, epoch: int = 0
    ) -> None:
        self.unit = unit
        self.epoch = epoch
        self._listener = listener
        self._actor = StageActor()
        # threads are the process's own business here, and there is nobody to share weights with
        self._actor.load(replace(payload, threads=0, pool=""), weights)

    def call(
        self, order: ExecuteOrder, run: int, oldest: int, values: Sequence[Handle], epochs: tuple[int, ...]
    ) -> list[Handle]:
        try:
            result = self._actor.execute(order, run, oldest, *values)
        except Exception as error:  # noqa: BLE001  # the actor boundary: every error travels to the run that asked
            self._listener(Answer(self.unit, epochs, run, None, error))
            return [None] * len(order.returns)
        report, *outputs = result if isinstance(result, tuple) else (result,)
        self._listener(Answer(self.unit, epochs, run, report))
        return outputs

    def prepare(self, number: int, order: ExecuteOrder) -> None:
        return None

    def order(self, number: int, values: Sequence[Any], run: int, oldest: int) -> None:
        raise AssertionError("nothing is linked to this process, which is the host itself")

    def export(self, key: int) -> Handle:
        return self._actor.export(key)

    def fetch(self, key: int, request: int) -> bool:
        return False

    def release(self, keys: Sequence[int]) -> None:
        self._actor.release(keys)

    def cancel(self, run: int) -> None:
        self._actor.cancel(run)

    def keep_value(self, handle: Handle) -> ResidentMeta:
        return self._actor.keep_value(handle)

    def held(self) -> tuple[int, int]:
        return self._actor.held()

    def stats(self, timeout_s: float) -> ActorStats | None:
        return self._actor.stats()

    def clock(self) -> Reading | None:
        return self._actor.clock()

    def close(self) -> None:
        return None


class InprocTransport:
    chains = False
    polls = False

    def __init__(self) -> None:
        self._payloads: list[StagePayload] = []
        self._weights: list[dict[str, Any]] = []
        self._epochs: list[int] = []

    def open(
        self, payloads: Sequence[StagePayload], weights: Sequence[Mapping[str, Any]], listener: Listener
    ) -> list[StageHost]:
        self._payloads = list(payloads)
        self._listener = listener
        self._weights = [dict(own) for own in weights]
        self._epochs = [0] * len(payloads)
        return [self._host(unit) for unit in range(len(payloads))]

    def _host(self, unit: int) -> InprocHost:
        return InprocHost(unit, self._payloads[unit], self._weights[unit], self._listener, self._epochs[unit])

    def reopen(self, unit: int) -> StageHost:
        self._epochs[unit] += 1
        return self._host(unit)

    def linked(self, producer: int, consumer: int) -> bool:
        return False

    def far(self, producer: int, consumer: int) -> bool:
        return False

    def cut(self, producer: int, consumer: int, why: str) -> None:
        return None

    def poll(self, timeout_s: float | None) -> list[News]:
        return []

    def wake(self) -> None:
        return None

    def put(self, value: Any) -> Handle:
        return value

    def get(self, handle: Handle, timeout_s: float | None = None) -> Any:
        return handle

    def lost_unit(self, cause: BaseException, unit: int) -> int | None:
        return unit if isinstance(cause, StageLost) else None

    def cause(self, error: BaseException) -> BaseException:
        return error

    def close(self) -> None:
        self._payloads, self._weights = [], []
