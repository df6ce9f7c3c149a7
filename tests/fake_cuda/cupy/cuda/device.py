"""cupy.cuda.Device."""

from __future__ import annotations

from typing import Any

from .. import _state
from . import runtime


class Device:
    def __init__(self, device: int | Device | None = None) -> None:
        self.id: int = _state.current_device() if device is None else int(device)
        self._before: list[int] = []

    def __int__(self) -> int:
        return self.id

    def __enter__(self) -> Device:
        before = _state.current_device()
        _state.set_device(self.id)
        self._before.append(before)
        return self

    def __exit__(self, *of_error: object) -> None:
        _state.set_device(self._before.pop())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Device) and self.id == other.id

    def __hash__(self) -> int:
        return self.id

    def __repr__(self) -> str:
        return f"<CUDA Device {self.id}>"

    def use(self) -> None:
        _state.set_device(self.id)

    def synchronize(self) -> None:
        if not 0 <= self.id < _state.n_devices():
            raise runtime.CUDARuntimeError(101)
        _state.synchronize_device(self.id)

    @property
    def compute_capability(self) -> str:
        properties = runtime.getDeviceProperties(self.id)
        return f"{properties['major']}{properties['minor']}"

    @property
    def attributes(self) -> dict[str, Any]:
        properties = runtime.getDeviceProperties(self.id)
        return {
            "MultiProcessorCount": properties["multiProcessorCount"],
            "MaxThreadsPerBlock": properties["maxThreadsPerBlock"],
            "ComputeCapabilityMajor": properties["major"],
            "ComputeCapabilityMinor": properties["minor"],
        }

    @property
    def mem_info(self) -> tuple[int, int]:
        with self:
            return runtime.memGetInfo()

    @property
    def pci_bus_id(self) -> str:
        return runtime.deviceGetPCIBusId(self.id)


def get_device_id() -> int:
    return _state.current_device()
