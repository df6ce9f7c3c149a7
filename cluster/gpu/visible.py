"""Which GPUs an actor's process sees, and which of them is its own. Pure, but for :func:`adopt`."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distort.cluster.nodes import Place
    from distort.cluster.orders import GpuSeat

VISIBLE = "CUDA_VISIBLE_DEVICES"
#: an actor sees all GPUs of its node, so that it can read its neighbours'
ALL_SEEN = {"RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES": "1"}
#: an actor without a GPU sees none
NONE_SEEN = {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1"}


def environment_of(place: Place, places: Sequence[Place]) -> Mapping[str, str]:
    """What Ray is told of an actor's process, on a cluster that grants GPUs; nothing where no actor has one."""
    if not any(other.gpus for other in places):
        return {}
    return ALL_SEEN if place.gpus else NONE_SEEN


def own_device(seat: GpuSeat, granted: Sequence[str], visible: str | None) -> int:
    """The number of an actor's GPU, as CUDA counts in its process: what Ray granted, else what the plan says.

    ``granted`` are Ray's ids, which are those of ``visible`` (the process's CUDA_VISIBLE_DEVICES) where that is set.
    """
    if not granted:
        return seat.device_id
    first = str(granted[0])
    seen = [entry.strip() for entry in visible.split(",")] if visible else []
    if first in seen:
        return seen.index(first)
    return int(first) if first.isdecimal() else seat.device_id


def adopt(seat: GpuSeat) -> int:
    """The number of this process's GPU. To be called before CUDA is first used here.

    Where Ray granted nothing (the cluster is on the caller's host, and the caller's alone), the process sees the GPUs
    that the caller sees, by the same numbers.
    """
    granted = _granted()
    if not granted and "cupy" not in sys.modules:
        if seat.visible is None:
            os.environ.pop(VISIBLE, None)
        else:
            os.environ[VISIBLE] = seat.visible
    return own_device(seat, granted, os.environ.get(VISIBLE))


def _granted() -> list[str]:
    ray: Any = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return []
    return [str(given) for given in ray.get_runtime_context().get_accelerator_ids().get("GPU", [])]
