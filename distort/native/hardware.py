"""What there is to run on: hardware, execution providers on it, and which nodes a session gave to which."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from distort import __version__, errors, providers
from distort.enums import (
    OrtCompiledModelCompatibility,
    OrtDeviceMemoryType,
    OrtDeviceVendorId,
    OrtHardwareDeviceType,
)
from distort.kernels.cuda import device
from distort.native.base import Made, native
from distort.native.devices import OrtMemoryInfo, cuda_memory

#: as CPUs name their makers -> (name, PCI vendor)
_CPU_VENDORS = {
    "GenuineIntel": ("Intel", 0x8086),
    "AuthenticAMD": ("AMD", 0x1022),
    "0x41": ("ARM", 0x13B5),
    "Apple": ("Apple", 0x106B),
}


@native
class OrtHardwareDevice(Made):
    """A processor."""

    _type: OrtHardwareDeviceType
    _vendor: str
    _vendor_id: int

    @property
    def type(self) -> OrtHardwareDeviceType:
        return self._type

    @property
    def vendor(self) -> str:
        return self._vendor

    @property
    def vendor_id(self) -> int:
        """The vendor's PCI number."""
        return self._vendor_id

    @property
    def device_id(self) -> int:
        """The kind of device by its vendor's count; 0 for a CPU."""
        return 0

    @property
    def metadata(self) -> dict[str, str]:
        return {}


@native
class OrtSyncStream(Made):
    """A queue of a GPU's work; the CPU has none."""

    _stream: Any = None

    def get_handle(self) -> int:
        """The address of the ``cudaStream_t``."""
        return 0 if self._stream is None else int(self._stream.ptr)


@native
class OrtEpDevice(Made):
    """An execution provider on a processor."""

    _device: OrtHardwareDevice
    _gpu: int | None = None  # its number

    @property
    def ep_name(self) -> str:
        return providers.CPU if self._gpu is None else providers.CUDA

    @property
    def ep_vendor(self) -> str:
        return "distort"

    @property
    def ep_metadata(self) -> dict[str, str]:
        return {"version": __version__}

    @property
    def ep_options(self) -> dict[str, str]:
        """What makes the provider use this processor."""
        return {} if self._gpu is None else {"device_id": str(self._gpu)}

    @property
    def device(self) -> OrtHardwareDevice:
        return self._device

    def memory_info(self, arg0: OrtDeviceMemoryType, /) -> OrtMemoryInfo | None:
        """Memory of the device's own, or what it reads of the process's; a CPU's is the process's, and has no entry."""
        if self._gpu is None:
            return None
        return cuda_memory(self._gpu, pinned=arg0 == OrtDeviceMemoryType.HOST_ACCESSIBLE)

    def create_sync_stream(self) -> OrtSyncStream:
        """A new stream of a GPU. Raises RuntimeError for a CPU."""
        if self._gpu is None:
            raise RuntimeError("ep_device does not use DEFAULT memory of a non-CPU device.")
        import cupy

        made: OrtSyncStream = OrtSyncStream.__new__(OrtSyncStream)
        with device.current(self._gpu):
            made._stream = cupy.cuda.Stream(non_blocking=True)
        return made


@functools.cache
def _cpu() -> OrtHardwareDevice:
    made: OrtHardwareDevice = OrtHardwareDevice.__new__(OrtHardwareDevice)
    made._type = OrtHardwareDeviceType.CPU
    made._vendor, made._vendor_id = _cpu_vendor()
    return made


def _cpu_vendor() -> tuple[str, int]:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                key, _, value = line.partition(":")
                if key.strip() in ("vendor_id", "CPU implementer"):
                    return _CPU_VENDORS.get(value.strip(), (value.strip(), 0))
    except OSError:
        pass
    import platform

    return ("Apple", 0x106B) if platform.system() == "Darwin" else ("", 0)


@functools.cache
def cpu_provider() -> OrtEpDevice:
    """The CPU's provider."""
    made: OrtEpDevice = OrtEpDevice.__new__(OrtEpDevice)
    made._device = _cpu()
    return made


@functools.cache
def _gpu_provider(index: int) -> OrtEpDevice:
    made: OrtEpDevice = OrtEpDevice.__new__(OrtEpDevice)
    made._gpu = index
    made._device = OrtHardwareDevice.__new__(OrtHardwareDevice)
    made._device._type = OrtHardwareDeviceType.GPU
    made._device._vendor, made._device._vendor_id = "NVIDIA", int(OrtDeviceVendorId.NVIDIA)
    return made


def _n_gpus() -> int:
    from distort.kernels.cuda import device

    return device.count()


def get_hardware_devices() -> list[OrtHardwareDevice]:
    return [device.device for device in get_ep_devices()]


def get_ep_devices() -> list[OrtEpDevice]:
    """Each provider on each processor that it runs on."""
    return [cpu_provider(), *map(_gpu_provider, range(_n_gpus()))]


def provider_on_gpu(index: int) -> OrtEpDevice:
    """The CUDA provider on a GPU."""
    return _gpu_provider(index)


def get_hardware_device_ep_incompatibility_details(arg0: str, arg1: OrtHardwareDevice, /) -> dict[str, Any]:
    """Why a provider can't use a processor: nothing, for the CPU. Raises InvalidArgument for other providers."""
    _require_provider(arg0)
    return {"reasons_bitmask": 0, "notes": None, "error_code": 0}


def _require_provider(name: str) -> None:
    if name not in providers.available_providers():
        raise errors.make("INVALID_ARGUMENT", f"No valid factory found for execution provider '{name}'.")


def get_compatibility_info_from_model(arg0: str, arg1: str, /) -> str | None:
    """What a provider noted in a compiled model about where it runs; None where it noted nothing."""
    return _compatibility(arg0, arg1)


def get_compatibility_info_from_model_bytes(arg0: Any, arg1: str, /) -> str | None:
    """As above, of a model's bytes."""
    return _compatibility(bytes(arg0), arg1)


def _compatibility(source: str | bytes, provider: str) -> str | None:
    from distort.graph import reader
    from distort.graph.errors import ModelError

    try:
        proto, _ = reader.parse(source)
    except ModelError as error:
        raise RuntimeError(error.text) from error
    key = f"ep_compatibility_info.{provider}"
    return next((entry.value for entry in proto.metadata_props if entry.key == key), None)


def get_model_compatibility_for_ep_devices(arg0: Sequence[OrtEpDevice], arg1: str, /) -> OrtCompiledModelCompatibility:
    """Whether a compiled model runs on devices of one provider; the CPU compiles none."""
    if not arg0:
        raise RuntimeError("Invalid argument provided to GetModelCompatibilityForEpDevices.")
    return OrtCompiledModelCompatibility.EP_NOT_APPLICABLE


def register_execution_provider_library(arg0: str, arg1: str, /) -> None:
    """Libraries of providers are compiled against onnxruntime's C API, which is not here. Raises Fail."""
    import os

    reason = "cannot open shared object file: No such file or directory"
    if os.path.exists(arg1):
        reason = "it needs onnxruntime's C API, which distort doesn't have"
    raise errors.make("FAIL", f"Failed to load library {arg1} with error: {arg1}: {reason}")


def unregister_execution_provider_library(arg0: str, /) -> None:
    """Raises Fail: none is registered."""
    raise errors.make("FAIL", f"Execution provider library: {arg0} was not registered.")


@native
class OrtEpAssignedNode(Made):
    """A node that a provider runs."""

    _name: str
    _domain: str
    _op_type: str

    @classmethod
    def _of(cls, name: str, domain: str, op_type: str) -> OrtEpAssignedNode:
        made: OrtEpAssignedNode = cls.__new__(cls)
        made._name, made._domain, made._op_type = name, domain, op_type
        return made

    @property
    def name(self) -> str:
        return self._name

    @property
    def domain(self) -> str:
        return self._domain

    @property
    def op_type(self) -> str:
        return self._op_type


@native
class OrtEpAssignedSubgraph(Made):
    """Nodes that a provider runs together."""

    _ep_name: str
    _nodes: list[OrtEpAssignedNode]

    @classmethod
    def _of(cls, ep_name: str, nodes: list[OrtEpAssignedNode]) -> OrtEpAssignedSubgraph:
        made: OrtEpAssignedSubgraph = cls.__new__(cls)
        made._ep_name, made._nodes = ep_name, nodes
        return made

    @property
    def ep_name(self) -> str:
        return self._ep_name

    def get_nodes(self) -> list[OrtEpAssignedNode]:
        return list(self._nodes)
