"""What this machine has: cores, memory, shared memory, NVIDIA GPUs. Reads, changes nothing."""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Gpu:
    index: int
    name: str
    memory_nbytes: int


def n_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def memory_nbytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def shared_memory_nbytes() -> int | None:
    """What is free in /dev/shm, where Ray keeps its object store; None where there is none."""
    try:
        status = os.statvfs("/dev/shm")
    except OSError:
        return None
    return status.f_bavail * status.f_frsize


class Cuda:
    """The NVIDIA driver, asked through its own library. ``version`` is the newest CUDA it runs, as (12, 8)."""

    def __init__(self, driver: ctypes.CDLL) -> None:
        self._driver = driver
        number = ctypes.c_int(0)
        driver.cuDriverGetVersion(ctypes.byref(number))
        self.version = (number.value // 1000, number.value % 1000 // 10)

    def gpus(self) -> list[Gpu]:
        count = ctypes.c_int(0)
        if self._driver.cuInit(0) or self._driver.cuDeviceGetCount(ctypes.byref(count)):
            return []
        return [self._gpu(index) for index in range(count.value)]

    def _gpu(self, index: int) -> Gpu:
        handle, total = ctypes.c_int(0), ctypes.c_size_t(0)
        name = ctypes.create_string_buffer(256)
        self._driver.cuDeviceGet(ctypes.byref(handle), index)
        self._driver.cuDeviceGetName(name, len(name), handle)
        self._driver.cuDeviceTotalMem_v2(ctypes.byref(total), handle)
        return Gpu(index, name.value.decode(errors="replace"), total.value)


def cuda() -> Cuda | None:
    """The NVIDIA driver; None where there is none."""
    try:
        return Cuda(ctypes.CDLL("libcuda.so.1"))
    except (OSError, AttributeError):
        return None
