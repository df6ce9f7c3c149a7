"""What is there: driver, CuPy, NVRTC, NVIDIA's libraries, rivals. A row each; what is missing says so."""

from __future__ import annotations

import importlib
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from gpu_checks.report import FIGURE, Report, Skipped


def run(report: Report) -> None:
    if report.small:
        importlib.import_module("cupy")  # what stands in for it has no driver to be found
    rows: dict[str, Callable[[], str]] = {
        "Python": lambda: f"{platform.python_version()} {sys.executable}",
        "nvidia-smi": _smi,
        "GPU as distort sees it": _gpu,
        "CuPy": _cupy,
        "NVRTC compiles a kernel": _nvrtc,
        "cuBLASLt opens": _blaslt,
        "cudnn-frontend and cuDNN": _cudnn,
        "IPC handles of memory": _ipc,
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


def _gpu() -> str:
    from distort.kernels.cuda import device

    if why := device.why_not():
        raise RuntimeError(why)
    found = device.properties(0)
    return f"{found.name}, sm_{found.capability[0]}{found.capability[1]}, {found.n_multiprocessors} multiprocessors"


def _cupy() -> str:
    import cupy

    runtime = cupy.cuda.runtime
    made = cupy.arange(5, dtype=cupy.float32)
    if float((made * 2).sum().get()) != 20.0:
        raise RuntimeError("CuPy's own kernels don't compute")
    return f"{cupy.__version__}, runtime {runtime.runtimeGetVersion()}, driver {runtime.driverGetVersion()}"


def _nvrtc() -> str:
    import cupy

    from distort.kernels.cuda.launch import Kernel
    from distort.kernels.cuda.modules import modules_of

    source = 'extern "C" __global__ void gpu_check_probe(float* x) { x[threadIdx.x] = threadIdx.x; }'
    function = modules_of(0).get([Kernel("gpu_check_probe", source)])["gpu_check_probe"]
    made = cupy.zeros(1, cupy.float32)
    function((1,), (1,), (made.data.ptr,))
    if made.get().tolist() != [0.0]:
        raise RuntimeError("it was compiled and computes wrongly")
    return f"NVRTC {'.'.join(map(str, cupy.cuda.nvrtc.getVersion()))}"


def _blaslt() -> str:
    from distort.kernels.cuda.libraries import open_library

    found = _libraries()
    if found.products is None:
        raise RuntimeError(found.missing["cuBLASLt"])
    version = getattr(open_library("cublasLt"), "cublasLtGetVersion", lambda: "?")()
    return f"version {version}, workspaces of {found.products.workspace_nbytes >> 20} MiB"


def _cudnn() -> str:
    found = _libraries()
    if found.networks is None:
        raise RuntimeError(found.missing["cuDNN"])
    cudnn = found.networks.cudnn
    backend = getattr(cudnn, "backend_version", lambda: "?")()
    return f"frontend {getattr(cudnn, '__version__', '?')}, cuDNN {backend}, {cudnn.__file__}"


def _libraries() -> Any:
    from distort.kernels.cuda.context import Context
    from distort.kernels.cuda.options import CudaOptions

    return Context(CudaOptions()).libraries


def _ipc() -> str:
    import cupy

    runtime = cupy.cuda.runtime
    memory = cupy.cuda.Memory(2 << 20)
    handle = runtime.ipcGetMemHandle(memory.ptr)
    return f"handles of {len(bytes(handle))} bytes, bus id {runtime.deviceGetPCIBusId(0)}"


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
