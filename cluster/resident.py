"""Values that stay on the actor that made them."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from distort.cluster.errors import StaleResident


@dataclass(frozen=True, slots=True)
class ResidentMeta:
    """What an actor tells of a value it kept."""

    key: int
    element: int  # onnx.TensorProto.DataType; 0 where the value is no tensor
    shape: tuple[int, ...]
    nbytes: int
    empty: bool = False  # an optional value without one: nothing is kept
    device: str = "cpu"  # or cuda:1, as the plan calls it


class Resident:
    """A handle of a value in an actor's memory; the value is freed when its last handle is.

    ``unit`` is where it lives, a stage or a replica of one; ``epoch`` counts that unit's restarts, so that a handle
    from before one raises instead of answering wrong.
    """

    __slots__ = ("__weakref__", "_fetch", "_finalizer", "_is_current", "epoch", "meta", "owner", "stage", "unit")

    def __init__(
        self,
        owner: object,
        stage: int,
        unit: int,
        epoch: int,
        meta: ResidentMeta,
        *,
        fetch: Callable[[Resident], Any],
        is_current: Callable[[int, int], bool],
        release: Callable[[int, int, int], None],
    ) -> None:
        self.owner = owner  # the executor whose actors these are
        self.stage = stage
        self.unit = unit
        self.epoch = epoch
        self.meta = meta
        self._fetch = fetch
        self._is_current = is_current
        self._finalizer = weakref.finalize(self, release, unit, epoch, meta.key)
        self._finalizer.atexit = False  # the actors end with the process

    @property
    def shape(self) -> tuple[int, ...]:
        return self.meta.shape

    @property
    def element(self) -> int:
        return self.meta.element

    @property
    def dtype(self) -> np.dtype[Any]:
        from distort.graph.types import DTYPE_OF

        return DTYPE_OF[self.meta.element]

    @property
    def nbytes(self) -> int:
        return self.meta.nbytes

    @property
    def device(self) -> str:
        """What it lies on: cpu, or cuda:1."""
        return self.meta.device

    @property
    def alive(self) -> bool:
        return self._finalizer.alive and self._is_current(self.unit, self.epoch)

    def check(self) -> None:
        if not self.alive:
            raise StaleResident(
                f"A value of shape {list(self.shape)} lived on the actor of stage {self.stage}, which is gone, or the "
                "value was released. Make it again."
            )

    def fetch(self) -> Any:
        """A copy of the value in this process."""
        self.check()
        return self._fetch(self)

    def release(self) -> None:
        """Free the value on its actor now."""
        self._finalizer()
