"""Devices and their memory as numbers: OrtDevice, OrtMemoryInfo."""

from __future__ import annotations

import operator
import sys
from collections.abc import Iterable
from typing import Any

from distort import errors
from distort.enums import (
    OrtAllocatorType,
    OrtDeviceMemoryType,
    OrtDeviceVendorId,
    OrtMemoryInfoDeviceType,
    OrtMemType,
)
from distort.native.base import native

CPU, GPU, FPGA, NPU = 0, 1, 2, 3
_DML = 4
_DEFAULT_MEMORY = 0
_HOST_ACCESSIBLE = 5

_INT = "typing.SupportsInt | typing.SupportsIndex"
_DEVICE_INIT = (
    f"1. {errors.MODULE}.OrtDevice(arg0: {_INT}, arg1: {_INT}, arg2: {_INT}, arg3: {_INT})",
    f"2. {errors.MODULE}.OrtDevice(arg0: {_INT}, arg1: {_INT}, arg2: {_INT})",
)

#: where each device number's memory is, in words
_NAMES = {CPU: "cpu", GPU: "gpu", FPGA: "fpga", NPU: "npu"}
_VENDOR_NAMES = {
    (GPU, int(OrtDeviceVendorId.NVIDIA)): "cuda",
    (GPU, int(OrtDeviceVendorId.MICROSOFT)): "dml",
    (NPU, int(OrtDeviceVendorId.HUAWEI)): "cann",
}


@native
class OrtDevice:
    """A device: (type, memory type, vendor, number), or (type, memory type, number) of no vendor."""

    __slots__ = ("_id", "_memory", "_type", "_vendor")

    def __init__(self, *args: Any) -> None:
        try:
            numbers = [operator.index(arg) for arg in args]
        except TypeError:
            numbers = []
        if len(numbers) == 4:
            self._type, self._memory, self._vendor, self._id = numbers
        elif len(numbers) == 3:
            self._type, self._memory, self._id = numbers
            self._vendor = int(OrtDeviceVendorId.NONE)
        else:
            lines = "\n    ".join(_DEVICE_INIT)
            raise TypeError(
                "__init__(): incompatible constructor arguments. The following argument types are supported:\n    "
                f"{lines}\n\nInvoked with: {', '.join(map(repr, args))}"
            )

    def device_type(self) -> int:
        return self._type

    def mem_type(self) -> int:
        return self._memory

    def vendor_id(self) -> int:
        return self._vendor

    def device_id(self) -> int:
        return self._id

    def _text(self) -> str:
        """The device's name, as ``OrtValue.device_name`` has it."""
        return _VENDOR_NAMES.get((self._type, self._vendor)) or _NAMES.get(self._type, "unknown")

    @staticmethod
    def cpu() -> int:
        return CPU

    @staticmethod
    def gpu() -> int:
        return GPU

    @staticmethod
    def cuda() -> int:
        return GPU

    @staticmethod
    def dml() -> int:
        return _DML

    @staticmethod
    def webgpu() -> int:
        return GPU

    @staticmethod
    def fpga() -> int:
        return FPGA

    @staticmethod
    def npu() -> int:
        return NPU

    @staticmethod
    def cann() -> int:
        return NPU

    @staticmethod
    def default_memory() -> int:
        return _DEFAULT_MEMORY


def is_host(device: OrtDevice) -> bool:
    """Whether this process can read and write there."""
    return device.device_type() == CPU or device.mem_type() == _HOST_ACCESSIBLE


def is_cuda(device: OrtDevice) -> bool:
    """Whether this is an NVIDIA GPU by its name, or a GPU of nobody's in particular, be it here or not."""
    vendors = (int(OrtDeviceVendorId.NVIDIA), int(OrtDeviceVendorId.NONE))
    return device.device_type() == GPU and device.vendor_id() in vendors and not is_host(device)


def require_here(device: OrtDevice) -> None:
    """Raise unless this process can allocate there; actors' memory is reached through runs, not by name."""
    if is_host(device):
        return
    why = ""
    if is_cuda(device):
        from distort.kernels.cuda import device as gpus

        if device.device_id() < gpus.count():
            return
        why = f" {gpus.why_not() or f'There is no cuda:{device.device_id()}: they are 0 to {gpus.count() - 1}.'}"
    raise RuntimeError(
        "Can't allocate memory on the device using this package of OnnxRuntime. Please use the appropriate package "
        f"of OnnxRuntime for your hardware to use this feature.{why}"
    )


def on_gpu(value: Any) -> bool:
    """Whether a value lies on a GPU of this process: is CuPy's array. Costs nothing where CuPy is not imported."""
    cupy = sys.modules.get("cupy")
    return cupy is not None and isinstance(value, cupy.ndarray)


def any_on_gpu(values: Iterable[Any]) -> bool:
    """Whether some value lies on a GPU of this process."""
    return "cupy" in sys.modules and any(map(on_gpu, values))


@native
class OrtMemoryInfo:
    """Where an allocator's memory is: name, kind of allocator, device number, kind of memory."""

    def __init__(self, arg0: str, arg1: OrtAllocatorType, arg2: int, arg3: OrtMemType, /) -> None:
        if not isinstance(arg0, str) or not isinstance(arg1, OrtAllocatorType) or not isinstance(arg3, OrtMemType):
            raise errors.incompatible(
                "__init__",
                f"C.OrtMemoryInfo(arg0: str, arg1: C.OrtAllocatorType, arg2: {_INT}, arg3: C.OrtMemType)",
                *(arg0, arg1, arg2, arg3),
                constructor=True,
            )
        self._name = arg0
        self._allocator_type = arg1
        self._device_id = operator.index(arg2)
        self._mem_type = arg3
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


def cuda_memory(device_id: int, *, pinned: bool = False) -> OrtMemoryInfo:
    """A GPU's memory, or the memory of this process that it copies from and to by itself."""
    kind = OrtMemType.CPU_OUTPUT if pinned else OrtMemType.DEFAULT
    name = "CudaPinned" if pinned else "Cuda"
    made = OrtMemoryInfo(name, OrtAllocatorType.ORT_ARENA_ALLOCATOR, device_id, kind)
    made._device_mem_type = OrtDeviceMemoryType.HOST_ACCESSIBLE if pinned else OrtDeviceMemoryType.DEFAULT
    made._vendor = int(OrtDeviceVendorId.NVIDIA)
    return made


def cpu_memory(allocator: OrtAllocatorType = OrtAllocatorType.ORT_ARENA_ALLOCATOR) -> OrtMemoryInfo:
    """This process's memory."""
    return OrtMemoryInfo("Cpu", allocator, 0, OrtMemType.DEFAULT)
