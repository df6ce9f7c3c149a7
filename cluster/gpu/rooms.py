"""What a run on a GPU made, ready for its readers: device slots for other GPUs, shared memory for everybody else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from distort.cluster.gpu.stage import GpuStage
from distort.cluster.shm.rooms import Rooms
from distort.cluster.shm.slots import SlotPool
from distort.cluster.shm.wire import Staged, in_slot, stage

Readers = tuple[Any, ...]


class Both(NamedTuple):
    """A value that GPUs read, and others too."""

    device: tuple[Staged, Readers]
    host: tuple[Staged, Readers]

    def of(self, channel: Any) -> tuple[Staged, Readers]:
        """As one of the readers is sent it."""
        return self.device if channel in self.device[1] else self.host


class GpuRooms(Rooms):
    """Of one run. Kernels don't write into slots: results are copied there, by the stream."""

    def __init__(
        self,
        pool: SlotPool,
        readers: Mapping[str, Readers],
        inline_nbytes: int,
        kept: Sequence[str],
        gpu: GpuStage,
    ) -> None:
        super().__init__(pool, readers, inline_nbytes, kept)
        self._gpu = gpu

    def pack(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Waits for the stream where somebody reads on the host, and only there. Raises OSError without memory."""
        gpu = self._gpu
        on_device: dict[str, tuple[Staged, Readers]] = {}
        downloads: dict[str, tuple[Any, Any, Readers]] = {}  # value on its way, its slot, who reads it
        with gpu.current():
            for name, readers in self._readers.items():
                value = values[name]
                direct = gpu.is_on_gpu(value) and gpu.dtype_of(name, value) == value.dtype
                near = tuple(reader for reader in readers if reader.takes_pages) if direct else ()
                staged = gpu.slots.stage(value, near, gpu.stream) if near else None
                if staged is not None:
                    on_device[name] = (staged, near)
                    readers = tuple(reader for reader in readers if reader not in near)
                if readers or staged is None:
                    downloads[name] = (*self._download(name, value, readers), readers)
            if downloads:
                gpu.finish()
        parcel: dict[str, Any] = dict(on_device)
        for name, (value, slot, readers) in downloads.items():
            made = stage(value, self._pool, readers, self._inline_nbytes) if slot is None else in_slot(value, slot)
            parcel[name] = Both(on_device[name], (made, readers)) if name in on_device else (made, readers)
        return parcel

    def _download(self, name: str, value: Any, readers: Readers) -> tuple[Any, Any]:
        """Into a slot where the value is large enough for one."""
        gpu = self._gpu
        if not gpu.is_on_gpu(value) or value.nbytes <= self._inline_nbytes or not readers:
            return gpu.start_download(name, value), None
        slot = self._pool.take(value.nbytes, readers)
        try:
            out = slot.payload(value.nbytes).view(gpu.dtype_of(name, value)).reshape(value.shape)
            return gpu.start_download(name, value, out), slot
        except BaseException:
            slot.flags[: len(slot.readers)] = bytes(len(slot.readers))
            raise
