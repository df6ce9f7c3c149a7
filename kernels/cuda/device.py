"""The GPUs that this process sees, and why it sees none.

What is asked first costs little: the driver's library and CuPy's folder are looked for, and CuPy (0.5 s) is imported
only where both are there. The answer is kept: neither comes or goes while a process runs.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

_DRIVER = "libcuda.so.1"
#: packages that install the module ``cupy``, each over the files of the others -> the CUDA that it was built for
_DISTRIBUTIONS = {"cupy-cuda12x": 12, "cupy-cuda13x": 13, "cupy-cuda11x": 11, "cupy": None}
_INSTALL = "pip install 'distort[cuda12]'"
_INSTALL_EITHER = "Install distort[cuda12], or distort[cuda13] where the driver runs CUDA 13."


class Obstacle(NamedTuple):
    """Why no GPU can be used."""

    what: str  # a sentence
    remedy: str  # another one
    command: str = ""  # what does it, where a command does

    def __str__(self) -> str:
        return f"{self.what} {self.remedy}"


class DeviceProperties(NamedTuple):
    """What a GPU is."""

    name: str
    memory_nbytes: int  # all of it, used or not
    capability: tuple[int, int]  # of computing: (9, 0) is an H100's
    n_multiprocessors: int
    #: whether it reads memory of the host's that is not page-locked by itself, perhaps after a copy was enqueued
    reads_pageable: bool = False


def why_not() -> str:
    """Nothing where there is a GPU that can be used, else why not, and what to do about it. Never raises."""
    found = obstacle()
    return "" if found is None else str(found)


def count() -> int:
    """GPUs that can be used."""
    return _examined()[0]


def obstacle() -> Obstacle | None:
    """As :func:`why_not`, in parts."""
    return _examined()[1]


@functools.cache
def properties(device_id: int) -> DeviceProperties:
    """What a GPU is. Raises ValueError for one that isn't there."""
    if not 0 <= device_id < count():
        raise ValueError(f"there is no GPU {device_id}: {why_not() or f'they are 0 to {count() - 1}'}")
    import cupy

    told = cupy.cuda.runtime.getDeviceProperties(device_id)
    name = told["name"]
    return DeviceProperties(
        name.decode(errors="replace") if isinstance(name, bytes) else str(name),
        int(told["totalGlobalMem"]),
        (int(told["major"]), int(told["minor"])),
        int(told["multiProcessorCount"]),
        bool(told.get("pageableMemoryAccess", 0)),
    )


@contextmanager
def current(device_id: int) -> Iterator[None]:
    """The GPU is this thread's current one in the block.

    It stays so afterwards where the thread has used none before: to go back, as ``cupy.cuda.Device`` does, would open a
    context on GPU 0, which takes hundreds of megabytes of its memory.
    """
    import cupy

    runtime = cupy.cuda.runtime
    before = runtime.getDevice()
    if before == device_id:
        yield
        return
    goes_back = _has_context(cupy)
    runtime.setDevice(device_id)
    try:
        yield
    finally:
        if goes_back:
            runtime.setDevice(before)


def _has_context(cupy: Any) -> bool:
    """Whether this thread has used a GPU: then that one's context is there already."""
    driver = cupy.cuda.driver
    try:
        return bool(driver.ctxGetCurrent())
    except driver.CUDADriverError:  # nobody has begun to use CUDA
        return False


def forget() -> None:
    """Look anew when next asked: for tests, which take GPUs away and bring them back."""
    _examined.cache_clear()
    properties.cache_clear()


@functools.cache
def _examined() -> tuple[int, Obstacle | None]:
    """How many GPUs there are, and what keeps them from being used: one of the two is nothing."""
    if "cupy" not in sys.modules:  # who has imported it has paid for it
        missing = _missing()
        if missing is not None:
            return 0, missing
        try:
            importlib.import_module("cupy")
        except PermissionError as error:  # it makes the folder of its cache
            return 0, Obstacle(
                f"CuPy can't be imported: {_line(error)}.", "Set CUPY_CACHE_DIR to a folder of your own."
            )
        except (ImportError, OSError, RuntimeError, AttributeError) as error:
            return 0, Obstacle(f"CuPy is installed, and can't be imported: {_line(error)}.", _INSTALL_EITHER, _INSTALL)
    try:
        return _count(sys.modules["cupy"])
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        return 0, Obstacle(f"CuPy can't reach a GPU: {_line(error)}.", "`nvidia-smi` shows whether the driver works.")


def _missing() -> Obstacle | None:
    """What can be told without importing CuPy."""
    installed = importlib.util.find_spec("cupy") is not None
    if not _has_driver():
        also = "" if installed else " CuPy isn't installed either: distort[cuda12] and distort[cuda13] bring it."
        return Obstacle(f"There is no NVIDIA driver ({_DRIVER}).", f"Install NVIDIA's driver.{also}")
    if not installed:
        return Obstacle("CuPy isn't installed.", _INSTALL_EITHER, _INSTALL)
    from importlib import metadata

    found = []
    for name in _DISTRIBUTIONS:
        try:
            metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        found.append(name)
    if len(found) > 1:
        both = " and ".join(found)
        return Obstacle(
            f"{both} are both installed, and own the same files.",
            "Uninstall them, and install distort[cuda12] or distort[cuda13].",
            f"pip uninstall -y {' '.join(found)} && {_INSTALL}",
        )
    return None


def _has_driver() -> bool:
    try:
        ctypes.CDLL(_DRIVER)
    except OSError:
        return False
    return True


def _count(cupy: Any) -> tuple[int, Obstacle | None]:
    runtime = cupy.cuda.runtime
    built, driver = runtime.runtimeGetVersion(), runtime.driverGetVersion()
    if not driver:
        return 0, Obstacle(f"There is no NVIDIA driver ({_DRIVER}).", "Install NVIDIA's driver.")
    if driver // 1000 < built // 1000:
        older = _DISTRIBUTION_OF.get(driver // 1000)
        instead = f", or install distort[{older}] instead" if older else ""
        return 0, Obstacle(
            f"The NVIDIA driver is too old: it runs CUDA {_version(driver)}, and CuPy was built for {_version(built)}.",
            f"Update the driver{instead}.",
        )
    try:
        n_devices = int(runtime.getDeviceCount())
    except RuntimeError as error:
        if "NoDevice" not in str(error):
            raise
        n_devices = 0
    if not n_devices:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        if visible is None:
            return 0, Obstacle("The NVIDIA driver shows no GPU.", "`nvidia-smi -L` lists those that there are.")
        return 0, Obstacle(
            f"No GPU is visible to this process: CUDA_VISIBLE_DEVICES is '{visible}'.",
            "Unset it, or name GPUs that `nvidia-smi -L` lists, as CUDA_VISIBLE_DEVICES=0.",
        )
    try:
        cupy.cuda.nvrtc.getVersion()
    except (ImportError, OSError, RuntimeError) as error:
        extra = _DISTRIBUTION_OF.get(built // 1000, "cuda12")
        return 0, Obstacle(
            f"NVRTC, which compiles the kernels, isn't there: {_line(error)}.",
            f"Install distort[{extra}], which brings it.",
            f"pip install 'distort[{extra}]'",
        )
    if not _has_headers():
        extra = _DISTRIBUTION_OF.get(built // 1000, "cuda12")
        return 0, Obstacle(
            "CUDA's headers, without which CuPy compiles nothing, aren't there.",
            f"Install distort[{extra}], which brings them, or name CUDA's folder in CUDA_PATH.",
            f"pip install 'distort[{extra}]'",
        )
    return n_devices, None


def _has_headers() -> bool:
    """Whether CuPy finds them: it asks the same, and compiles nothing otherwise, whether or not they are included."""
    try:
        find = importlib.import_module("cuda.pathfinder").find_nvidia_header_directory
        return find("cudart") is not None
    except (ImportError, AttributeError, RuntimeError, OSError):
        return True  # another version of it: CuPy will say


#: CUDA's major version -> the extra for it
_DISTRIBUTION_OF = {12: "cuda12", 13: "cuda13"}


def _version(number: int) -> str:
    """12080 as 12.8."""
    return f"{number // 1000}.{number % 1000 // 10}"


def _line(error: BaseException) -> str:
    """The first line that an error has, without its full stop."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip(" =")]
    return (lines[0] if lines else type(error).__name__).rstrip(".")
