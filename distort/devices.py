"""Devices by name, as users write them."""

from __future__ import annotations

from distort import errors
from distort.enums import OrtDeviceVendorId
from distort.native import devices
from distort.native.base import public

#: name -> (device type, vendor)
_DEVICES: dict[str, tuple[int, OrtDeviceVendorId]] = {
    "cpu": (devices.CPU, OrtDeviceVendorId.NONE),
    "cuda": (devices.GPU, OrtDeviceVendorId.NVIDIA),
    "gpu": (devices.GPU, OrtDeviceVendorId.NONE),
    "npu": (devices.NPU, OrtDeviceVendorId.NONE),
    "dml": (devices.GPU, OrtDeviceVendorId.MICROSOFT),
    "cann": (devices.NPU, OrtDeviceVendorId.HUAWEI),
    "webgpu": (devices.GPU, OrtDeviceVendorId.NONE),
}


def get_ort_device_type(device_type: str) -> int:
    """onnxruntime's number of a device's name."""
    if device_type not in _DEVICES:
        raise Exception(f"Unsupported device type: {device_type}")
    return _DEVICES[device_type][0]


def get_vendor_id_for_device_type(device_type: str) -> OrtDeviceVendorId:
    """The vendor whose devices a name means."""
    get_ort_device_type(device_type)
    return _DEVICES[device_type][1]


@public
class OrtDevice:
    """A device: its type, number, vendor and kind of memory."""

    def __init__(self, c_ort_device: devices.OrtDevice) -> None:
        if not isinstance(c_ort_device, devices.OrtDevice):
            raise ValueError(f"`Provided object` needs to be of type `{errors.MODULE}.OrtDevice`")
        self._ort_device = c_ort_device

    def _get_c_device(self) -> devices.OrtDevice:
        return self._ort_device

    @staticmethod
    def make(ort_device_name: str, device_id: int, vendor_id: int | OrtDeviceVendorId = -1) -> OrtDevice:
        """The device ``device_id`` of a kind: cpu, cuda, gpu, npu, …"""
        kind = get_ort_device_type(ort_device_name)
        vendor = get_vendor_id_for_device_type(ort_device_name) if vendor_id == -1 else vendor_id
        return OrtDevice(devices.OrtDevice(kind, devices.OrtDevice.default_memory(), vendor, device_id))

    def device_type(self) -> int:
        return self._ort_device.device_type()

    def device_id(self) -> int:
        return self._ort_device.device_id()

    def device_vendor_id(self) -> int:
        return self._ort_device.vendor_id()

    def device_mem_type(self) -> int:
        return self._ort_device.mem_type()
