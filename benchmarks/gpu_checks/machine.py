"""What else is there: the GPU's properties, page-locked memory, rivals, tools. A row each; what is missing says so."""

from __future__ import annotations

import importlib
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable

from gpu_checks.report import FIGURE, Report, Skipped


def run(report: Report) -> None:
    if report.small:
        importlib.import_module("cupy")  # what stands in for it has no driver to be found
    rows: dict[str, Callable[[], str]] = {
        "Python": lambda: f"{platform.python_version()} {sys.executable}",
        "nvidia-smi": _smi,
        "properties": _facts,
        "IPC handles of memory": _ipc,
        "shared memory is page-locked": _pinning,
    }
    for name in ("torch", "jax", "ray", "onnx", "numpy", "ml_dtypes", "llvmlite", "triton"):
        rows[f"package {name}"] = _version_of(name)
    for tool in ("g++", "nvcc", "compute-sanitizer", "ncu"):
        rows[f"tool {tool}"] = _path_of(tool)
    for what, tell in rows.items():
        with report.part(what):
            report.add(what, FIGURE, tell())


def _smi() -> str:
    if shutil.which("nvidia-smi") is None:
        raise Skipped("not on PATH")
    query = "--query-gpu=name,driver_version,memory.total,clocks.sm,clocks.mem,temperature.gpu,utilization.gpu"
    done = subprocess.run(
        ["nvidia-smi", query, "--format=csv,noheader"], capture_output=True, text=True, timeout=30, check=True
    )
    return done.stdout.strip().replace("\n", "; ")


def _facts() -> str:
    import cupy

    told = cupy.cuda.runtime.getDeviceProperties(0)
    wanted = (
        "totalGlobalMem sharedMemPerBlockOptin sharedMemPerMultiprocessor l2CacheSize ECCEnabled pageableMemoryAccess "
        "pageableMemoryAccessUsesHostPageTables concurrentManagedAccess canUseHostPointerForRegisteredMem computeMode"
    )
    return ", ".join(f"{name} {told[name]}" for name in wanted.split() if name in told)


def _ipc() -> str:
    import cupy

    runtime = cupy.cuda.runtime
    memory = cupy.cuda.Memory(2 << 20)
    handle = runtime.ipcGetMemHandle(memory.ptr)
    return f"handles of {len(bytes(handle))} bytes, bus id {runtime.deviceGetPCIBusId(0)}"


def _pinning() -> str:
    import mmap

    from distort.cluster.gpu.pinning import Pinning

    memory, pins = mmap.mmap(-1, 1 << 20), Pinning()
    pins.lock(memory)
    if pins.obstacle:
        raise RuntimeError(pins.obstacle)
    pins.unlock(memory)
    return "1 MiB"


def _version_of(name: str) -> Callable[[], str]:
    def tell() -> str:
        try:
            module = importlib.import_module(name)
        except ImportError as error:
            raise Skipped(str(error)) from error
        text = str(getattr(module, "__version__", "?"))
        if name == "torch":
            text += f", CUDA {module.version.cuda}, cuDNN {module.backends.cudnn.version()}"
            text += f", sees {module.cuda.device_count()} GPUs"
        return text

    return tell


def _path_of(tool: str) -> Callable[[], str]:
    def tell() -> str:
        found = shutil.which(tool)
        if found is None:
            raise Skipped("not on PATH")
        return found

    return tell
