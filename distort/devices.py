"""Devices as onnxruntime names them: OrtDevice, OrtMemoryInfo, and what may be allocated where."""

from __future__ import annotations

from typing import Any

from distort import errors
from distort.enums import (
    OrtAllocatorType,
    OrtDeviceMemoryType,
    OrtDeviceVendorId,
    OrtMemoryInfoDeviceType,
    OrtMemType,
)

#: name -> (device type, vendor)
_DEVICES: dict[str, tuple[int, int]] = {
    "cpu": (0, OrtDeviceVendorId.NONE),
    "cuda": (1, OrtDeviceVendorId.NVIDIA),
    "gpu": (1, OrtDeviceVendorId.NONE),
    "npu": (3, OrtDeviceVendorId.NONE),
    "dml": (1, OrtDeviceVendorId.MICROSOFT),
    "cann": (3, OrtDeviceVendorId.HUAWEI),
    "webgpu": (1, OrtDeviceVendorId.NONE),
}


def get_ort_device_type(device_type: str) -> int:
    """onnxruntime's number of a device's name."""
    if device_type not in _DEVICES:
        raise Exception(f"Unsupported device type: {device_type}")
    return _DEVICES[device_type][0]


def require_cpu(device_type: str) -> None:
    """Raise unless this process can allocate there; actors' memory is reached through runs, not by name."""
    if get_ort_device_type(device_type) != 0:
        raise RuntimeError(
            "Can't allocate memory on the device using this package of OnnxRuntime. Please use the appropriate package "
            "of OnnxRuntime for your hardware to use this feature."
        )


class OrtDevice:
    """A device: its type, number, vendor and kind of memory."""

    _fields: tuple[int, int, int, int]

    def __init__(self, c_ort_device: Any) -> None:
        if not isinstance(c_ort_device, OrtDevice):
            raise ValueError(f"`Provided object` needs to be of type `{errors.MODULE}.OrtDevice`")
        self._fields = c_ort_device._fields

    @staticmethod
    def make(ort_device_name: str, device_id: int, vendor_id: int | OrtDeviceVendorId = -1) -> OrtDevice:
        """The device ``device_id`` of a kind: cpu, cuda, gpu, npu, …"""
        kind = get_ort_device_type(ort_device_name)
        vendor = _DEVICES[ort_device_name][1] if vendor_id == -1 else vendor_id
        made = OrtDevice.__new__(OrtDevice)
        made._fields = (kind, int(device_id), int(vendor), 0)
        return made

    def device_type(self) -> int:
        return self._fields[0]

    def device_id(self) -> int:
        return self._fields[1]

    def device_vendor_id(self) -> int:
        return self._fields[2]

    def device_mem_type(self) -> int:
        return self._fields[3]


class OrtMemoryInfo:
    """Where an allocator's memory is."""

    def __init__(self, arg0: str, arg1: OrtAllocatorType, arg2: int, arg3: OrtMemType, /) -> None:
        self._name = arg0
        self._allocator_type = OrtAllocatorType(arg1)
        self._device_id = int(arg2)
        self._mem_type = OrtMemType(arg3)
        self._device_mem_type = OrtDeviceMemoryType.DEFAULT
        self._vendor = 0

    @staticmethod
    def create_v2(
        arg0: str,
        arg1: OrtMemoryInfoDeviceType,
        arg2: int,
        arg3: int,
        arg4: OrtDeviceMemoryType,
        arg5: int,
        arg6: OrtAllocatorType,
        /,
    ) -> OrtMemoryInfo:
        """Name, kind of device, vendor, device number, kind of memory, alignment, kind of allocator."""
        made = OrtMemoryInfo(arg0, arg6, arg3, OrtMemType.DEFAULT)
        made._device_mem_type = OrtDeviceMemoryType(arg4)
        made._vendor = int(arg2)
        return made

    @property
    def name(self) -> str:
        return self._name

    @property
    def device_id(self) -> int:
        return self._device_id

    @property
    def mem_type(self) -> OrtMemType:
        return self._mem_type

    @property
    def allocator_type(self) -> OrtAllocatorType:
        return self._allocator_type

    @property
    def device_mem_type(self) -> OrtDeviceMemoryType:
        return self._device_mem_type

    @property
    def device_vendor_id(self) -> int:
        return self._vendor
