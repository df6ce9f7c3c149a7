"""cupy.cuda.runtime: the functions of CUDA's runtime that stages use, and its constants."""

from __future__ import annotations

import os
import struct
import zlib
from typing import Any

from .. import _heap, _state
from .._data import INTEGERS
from .._errors import CUDARuntimeError

globals().update(INTEGERS)
streamCaptureModeRelaxed = INTEGERS["streamCaptureModeRelaxed"]
memcpyHostToDevice = INTEGERS["memcpyHostToDevice"]
memcpyDeviceToHost = INTEGERS["memcpyDeviceToHost"]
memcpyDeviceToDevice = INTEGERS["memcpyDeviceToDevice"]
memcpyDefault = INTEGERS["memcpyDefault"]
cudaIpcMemLazyEnablePeerAccess = 1
is_hip = False

#: memory that is none of the heaps' but a device's all the same: address -> (bytes, device)
foreign: dict[int, tuple[int, int]] = {}
_opened: dict[bytes, list[int]] = {}  # IPC handle -> [address, mapped from, mapped bytes, how often open]
_peers: set[tuple[int, int]] = set()
_MAGIC = b"fakecuda"
_HANDLE = struct.Struct("<8sIIIQQ")
_IPC_GRANULE = 2 << 20


def check_status(status: int) -> None:
    if status:
        raise CUDARuntimeError(status)


def runtimeGetVersion() -> int:
    return 12090


def driverGetVersion() -> int:
    return int(os.environ.get("FAKE_CUDA_DRIVER", "12090"))


def getDevice() -> int:
    return _state.current_device()


def setDevice(device: int) -> None:
    _state.set_device(device)


def getDeviceCount() -> int:
    n = _state.n_devices()
    if n == 0:
        raise CUDARuntimeError(100)
    return n


def getDeviceProperties(device: int) -> dict[str, Any]:
    if not 0 <= device < _state.n_devices():
        raise CUDARuntimeError(101)
    major, minor = os.environ.get("FAKE_CUDA_CAPABILITY", "8.0").split(".")
    return {
        "name": b"Fake GPU",
        "totalGlobalMem": _state.heap(device).nbytes,
        "major": int(major),
        "minor": int(minor),
        "multiProcessorCount": 4,
        "pageableMemoryAccess": int(_state.reads_pageable),
        "warpSize": 32,
        "maxThreadsPerBlock": 1024,
        "maxThreadsPerMultiProcessor": 2048,
        "maxGridSize": (2147483647, 65535, 65535),
        "maxThreadsDim": (1024, 1024, 64),
        "sharedMemPerBlock": 48 << 10,
        "sharedMemPerBlockOptin": 99 << 10,
        "sharedMemPerMultiprocessor": 100 << 10,
        "regsPerBlock": 65536,
        "l2CacheSize": 4 << 20,
        "memoryClockRate": 1000000,
        "memoryBusWidth": 256,
        "clockRate": 1000000,
        "concurrentKernels": 1,
        "cooperativeLaunch": 1,
        "unifiedAddressing": 1,
        "integrated": 0,
        "computeMode": 0,
        "pciBusID": device + 1,
        "pciDeviceID": 0,
        "pciDomainID": 0,
        "uuid": b"fake gpu" + device.to_bytes(4, "little") + _host().to_bytes(4, "little"),
    }


def _host() -> int:
    """Processes with another FAKE_CUDA_HOST are on another host: their GPUs are others."""
    return zlib.crc32(os.environ.get("FAKE_CUDA_HOST", "").encode())


def deviceGetAttribute(attrib: int, device: int) -> int:
    properties = getDeviceProperties(device)
    names = {
        INTEGERS["cudaDevAttrMultiProcessorCount"]: "multiProcessorCount",
        INTEGERS["cudaDevAttrMaxThreadsPerBlock"]: "maxThreadsPerBlock",
        INTEGERS["cudaDevAttrMaxSharedMemoryPerBlock"]: "sharedMemPerBlock",
        INTEGERS["cudaDevAttrMaxSharedMemoryPerBlockOptin"]: "sharedMemPerBlockOptin",
        INTEGERS["cudaDevAttrComputeCapabilityMajor"]: "major",
        INTEGERS["cudaDevAttrComputeCapabilityMinor"]: "minor",
        INTEGERS["cudaDevAttrL2CacheSize"]: "l2CacheSize",
    }
    if attrib not in names:
        raise NotImplementedError(f"attribute {attrib} of a fake device")
    return int(properties[names[attrib]])


def deviceGetPCIBusId(device: int) -> str:
    return f"0000:{getDeviceProperties(device)['pciBusID']:02X}:00.0"


def deviceSynchronize() -> None:
    _state.need_context()
    _state.synchronize_device()


def deviceCanAccessPeer(device: int, peerDevice: int) -> int:
    known = range(_state.n_devices())
    if device not in known or peerDevice not in known:
        raise CUDARuntimeError(101)
    return int(device != peerDevice and os.environ.get("FAKE_CUDA_PEERS", "1") != "0")


def deviceEnablePeerAccess(peerDevice: int) -> None:
    device = _state.current_device()
    if not deviceCanAccessPeer(device, peerDevice):
        raise CUDARuntimeError(101)
    if (device, peerDevice) in _peers:
        raise CUDARuntimeError(704)
    _peers.add((device, peerDevice))


def deviceDisablePeerAccess(peerDevice: int) -> None:
    pair = (_state.current_device(), peerDevice)
    if pair not in _peers:
        raise CUDARuntimeError(705)
    _peers.remove(pair)


def may_access(device: int, of: int) -> bool:
    """Whether kernels of a device may touch another's memory."""
    return device == of or (device, of) in _peers


# -- memory


def malloc(size: int) -> int:
    _state.need_context()
    device = _state.current_device()
    address = _state.heap(device).allocate(size)
    if address is None:
        raise CUDARuntimeError(2)
    return address


def free(ptr: int) -> None:
    if ptr:
        heap = _state.heap_of(ptr)
        if heap is None or ptr not in heap.live:
            raise CUDARuntimeError(1)
        _state.drain_device(heap.device_id)  # cudaFree waits for the device
        heap.free(ptr)


def free_if_there(ptr: int) -> None:
    """For objects that go away, perhaps after the device did."""
    if _state.closing:
        return
    heap = _state.heap_of(ptr)
    if heap is not None and ptr in heap.live:
        free(ptr)


def mallocAsync(size: int, stream: int) -> int:
    return malloc(size)


def freeAsync(ptr: int, stream: int) -> None:
    _state.enqueue(stream, lambda: free_if_there(ptr))


def memGetInfo() -> tuple[int, int]:
    """(free, total) bytes."""
    _state.need_context()
    heap = _state.heap(_state.current_device())
    return heap.nbytes - heap.used_nbytes, heap.nbytes


def device_of(ptr: int) -> int:
    """The device of an address; -1 for the host's."""
    heap = _state.heap_of(ptr)
    if heap is not None:
        return heap.device_id
    for start, (nbytes, device) in list(foreign.items()):
        if start <= ptr < start + nbytes:
            return device
    return -1


class PointerAttributes:
    def __init__(self, device: int, devicePointer: int, hostPointer: int, type: int = -1) -> None:
        self.device, self.devicePointer, self.hostPointer, self.type = device, devicePointer, hostPointer, type


def pointerGetAttributes(ptr: int) -> PointerAttributes:
    _state.need_context()
    device = device_of(ptr)
    if device >= 0:
        return PointerAttributes(device, ptr, 0, 2)
    kind = 1 if _state.is_pinned(ptr) else 0
    return PointerAttributes(-1, ptr if kind else 0, ptr, kind)


def _extent(address: int, size: int) -> None:
    """A copy must not leave an allocation."""
    heap = _state.heap_of(address)
    if heap is None or size == 0:
        return
    found = heap.allocation_of(address)
    if found is None or address + size > found[0] + found[1]:
        raise CUDARuntimeError(1)


def _check_kind(dst: int, src: int, size: int, kind: int) -> None:
    _extent(dst, size)
    _extent(src, size)
    wanted = {memcpyHostToDevice: (False, True), memcpyDeviceToHost: (True, False), memcpyDeviceToDevice: (True, True)}
    if size and kind in wanted and wanted[kind] != (device_of(src) >= 0, device_of(dst) >= 0):
        raise CUDARuntimeError(1)


def _count(dst: int, src: int, size: int) -> None:
    to_device, of_device = device_of(dst) >= 0, device_of(src) >= 0
    kind = "device to device" if to_device and of_device else "upload" if to_device else "download"
    _state.counts[kind] += 1
    _state.counts[f"{kind} bytes"] += size


def memcpy(dst: int, src: int, size: int, kind: int) -> None:
    _state.need_context()
    _check_kind(dst, src, size, kind)
    _state.forbid_in_capture()
    _count(dst, src, size)
    _state.counts["synchronize"] += 1
    _state.stream_of(_state.NULL_STREAM).drain()
    for device in range(len(_state.heaps)):
        _state.drain_device(device)
    _heap.bytes_at(dst, size)[:] = _heap.bytes_at(src, size)


def memcpyAsync(dst: int, src: int, size: int, kind: int, stream: int) -> None:
    """From and to host memory that is not pinned, the caller waits, as on a GPU."""
    _check_kind(dst, src, size, kind)
    _count(dst, src, size)

    def work() -> None:
        _heap.bytes_at(dst, size)[:] = _heap.bytes_at(src, size)

    _state.enqueue(stream, work)
    pageable = any(device_of(end) < 0 and not _state.is_pinned(end) for end in (dst, src))
    by_itself = _state.reads_pageable and kind == memcpyHostToDevice
    if pageable and not by_itself and _state.capturing(stream) is None:
        _state.stream_of(stream).drain()


def memcpyPeer(dst: int, dstDevice: int, src: int, srcDevice: int, size: int) -> None:
    memcpy(dst, src, size, memcpyDefault)


def memcpyPeerAsync(dst: int, dstDevice: int, src: int, srcDevice: int, size: int, stream: int) -> None:
    if size and (device_of(dst), device_of(src)) != (dstDevice, srcDevice):
        raise CUDARuntimeError(1)
    memcpyAsync(dst, src, size, memcpyDefault, stream)


def memset(ptr: int, value: int, size: int) -> None:
    memsetAsync(ptr, value, size, _state.NULL_STREAM)


def memsetAsync(ptr: int, value: int, size: int, stream: int) -> None:
    _extent(ptr, size)

    def work() -> None:
        _heap.bytes_at(ptr, size)[:] = value & 0xFF

    _state.enqueue(stream, work)


def hostRegister(ptr: int, size: int, flags: int) -> None:
    _state.need_context()
    if ptr in _state.pinned:
        raise CUDARuntimeError(712)
    _state.pinned[ptr] = size


def hostUnregister(ptr: int) -> None:
    _state.need_context()
    if _state.pinned.pop(ptr, None) is None:
        raise CUDARuntimeError(713)


# -- between processes


def ipcGetMemHandle(devPtr: int) -> bytes:
    """A handle of the 2 MiB granule that the allocation begins in, as CUDA's: smaller ones share it with others."""
    heap = _state.heap_of(devPtr)
    found = heap.allocation_of(devPtr) if heap is not None else None
    if heap is None or found is None:
        raise CUDARuntimeError(1)
    start, nbytes = found
    offset = start - heap.base
    if nbytes % _IPC_GRANULE:
        offset -= _heap.ALIGNMENT  # the handle is of more than this allocation, and does not begin where it does
        nbytes += _heap.ALIGNMENT
    packed = _HANDLE.pack(_MAGIC, os.getpid(), heap.descriptor, heap.device_id, offset, nbytes)
    return packed.ljust(64, b"\0")


def ipcOpenMemHandle(handle: bytes, flags: int = cudaIpcMemLazyEnablePeerAccess) -> int:
    magic, pid, descriptor, device, offset, nbytes = _HANDLE.unpack_from(handle)
    if magic != _MAGIC or len(handle) != 64:
        raise CUDARuntimeError(1)
    if pid == os.getpid():
        raise CUDARuntimeError(201)  # not in the process that made it
    if handle in _opened:
        _opened[handle][3] += 1
        return _opened[handle][0]
    if device != _state.current_device() and not deviceCanAccessPeer(_state.current_device(), device):
        raise CUDARuntimeError(217)
    page = offset // 4096 * 4096
    try:
        file = os.open(f"/proc/{pid}/fd/{descriptor}", os.O_RDWR)
    except OSError:
        raise CUDARuntimeError(400) from None
    try:
        mapped = offset - page + nbytes
        start = _heap.map_file(file, mapped, page)
    finally:
        os.close(file)
    address = start + offset - page
    foreign[address] = (nbytes, device)
    _opened[handle] = [address, start, mapped, 1]
    return address


def ipcCloseMemHandle(devPtr: int) -> None:
    for handle, entry in _opened.items():
        if entry[0] == devPtr:
            entry[3] -= 1
            if not entry[3]:
                for device in range(len(_state.heaps)):
                    _state.drain_device(device)
                del _opened[handle], foreign[devPtr]
                _heap.unmap(entry[1], entry[2])
            return
    raise CUDARuntimeError(1)


def ipcGetEventHandle(event: int) -> bytes:
    if not _state.event_of(event).flags & 4:
        raise CUDARuntimeError(400)
    return _HANDLE.pack(b"fakeevnt", os.getpid(), 0, 0, event, 0).ljust(64, b"\0")


def ipcOpenEventHandle(handle: bytes) -> int:
    """Work recorded with such an event is done when ``eventRecord`` returns: there is nothing to wait for."""
    magic, pid, *_ = _HANDLE.unpack_from(handle)
    if magic != b"fakeevnt" or len(handle) != 64:
        raise CUDARuntimeError(1)
    if pid == os.getpid():
        raise CUDARuntimeError(201)
    if not os.path.exists(f"/proc/{pid}"):
        raise CUDARuntimeError(400)
    return eventCreateWithFlags(6)


# -- streams and events


def streamSynchronize(stream: int) -> None:
    _state.synchronize_stream(stream)


def streamQuery(stream: int) -> int:
    return 600 if _state.stream_of(stream).queue else 0


def streamWaitEvent(stream: int, event: int, flags: int = 0) -> None:
    _state.wait_event(stream, event)


def streamBeginCapture(stream: int, mode: int = streamCaptureModeRelaxed) -> None:
    _state.begin_capture(stream)


def streamIsCapturing(stream: int) -> bool:
    return _state.capturing(stream) is not None


def eventCreateWithFlags(flags: int) -> int:
    handle = _state.new_handle()
    _state.need_context()
    _state.events[handle] = _state.EventState(flags, _state.current_device())
    return handle


def eventCreate() -> int:
    return eventCreateWithFlags(0)


def eventDestroy(event: int) -> None:
    if _state.events.pop(event, None) is None:
        raise CUDARuntimeError(400)


def eventRecord(event: int, stream: int) -> None:
    _state.record_event(event, stream)


def eventQuery(event: int) -> int:
    return 0 if _state.event_done(event) else 600


def eventSynchronize(event: int) -> None:
    _state.synchronize_event(event)


def eventElapsedTime(start: int, end: int) -> float:
    """Milliseconds between two records, on the host's clock."""
    first, last = _state.event_of(start), _state.event_of(end)
    if (first.flags | last.flags) & 2 or not (first.time_s and last.time_s):
        raise CUDARuntimeError(400)
    if not (_state.event_done(start) and _state.event_done(end)):
        raise CUDARuntimeError(600)
    return (last.time_s - first.time_s) * 1e3


def profilerStart() -> None:
    _state.counts["profilerStart"] += 1


def profilerStop() -> None:
    _state.counts["profilerStop"] += 1
