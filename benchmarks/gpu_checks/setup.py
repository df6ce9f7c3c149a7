"""Whether everything that other checks stand on works at all: a row for each thing, in seconds, before anything else.

Sizes are small, and nothing but NumPy is needed beside what a session needs. A row that failed has its traceback.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gpu_checks import libraries, programs, sketch
from gpu_checks.arrays import TOLERANCES, error, kind, random_of, to_host
from gpu_checks.report import FAILED, FIGURE, Report

_SOURCE = """extern "C" __global__ void gpu_check_add(float* x, long long n) {
    for (long long i = threadIdx.x; i < n; i += blockDim.x) x[i] += 1;
}
"""


def run(report: Report) -> None:
    if report.small:
        __import__("cupy")  # what stands in for it has no driver to be found
    rows: dict[str, Callable[[], str]] = {
        "GPU as distort sees it": _gpu,
        "CuPy": _cupy,
        "NVRTC compiles a kernel": _nvrtc,
        "a captured graph is launched": _graph,
        "cuBLASLt opens": _blaslt,
        "cudnn-frontend and cuDNN": _cudnn,
    }
    for what, tell in rows.items():
        with report.part(what):
            report.add(what, FIGURE, tell())
        if report.rows[-1].result == FAILED and tell is _gpu:
            return
    with report.part("libraries"):
        _libraries(report)
    for name in ("float32", "float16"):
        with report.part(f"a model of {name}"):
            _model(report, np.dtype(name))


def _gpu() -> str:
    from distort.kernels.cuda import device

    if why := device.why_not():
        raise RuntimeError(why)
    found = device.properties(0)
    told = f"{found.name}, sm_{found.capability[0]}{found.capability[1]}, {found.n_multiprocessors} multiprocessors"
    return told + (", reads pageable memory by itself" if found.reads_pageable else "")


def _cupy() -> str:
    import cupy

    runtime = cupy.cuda.runtime
    made = cupy.arange(5, dtype=cupy.float32)
    if float((made * 2).sum().get()) != 20.0:
        raise RuntimeError("CuPy's own kernels don't compute")
    return f"{cupy.__version__}, runtime {runtime.runtimeGetVersion()}, driver {runtime.driverGetVersion()}"


def _function() -> Any:
    from distort.kernels.cuda.launch import Kernel
    from distort.kernels.cuda.modules import modules_of

    return modules_of(0).get([Kernel("gpu_check_add", _SOURCE)])["gpu_check_add"]


def _nvrtc() -> str:
    import cupy

    function, made = _function(), cupy.zeros(3, cupy.float32)
    function((1,), (32,), (made.data.ptr, 2))
    if made.get().tolist() != [1.0, 1.0, 0.0]:
        raise RuntimeError(f"it was compiled and computes {made.get().tolist()}")
    return f"NVRTC {'.'.join(map(str, cupy.cuda.nvrtc.getVersion()))}"


def _graph() -> str:
    import cupy

    function, stream = _function(), cupy.cuda.Stream(non_blocking=True)
    with stream:
        made = cupy.full(2, 7, cupy.float32)
    stream.synchronize()
    stream.begin_capture()
    cupy.cuda.runtime.memsetAsync(made.data.ptr, 0, 4, stream.ptr)
    function((1,), (32,), (made.data.ptr, 2), stream=stream)
    graph = stream.end_capture()
    for _ in range(3):
        graph.launch(stream)
    stream.synchronize()
    if made.get(stream=stream).tolist() != [1.0, 10.0]:
        raise RuntimeError(f"three launches made {made.get().tolist()}")
    return "three launches, with a memset"


def _opened() -> Any:
    from distort.kernels.cuda.context import Context
    from distort.kernels.cuda.options import CudaOptions

    return Context(CudaOptions()).libraries


def _blaslt() -> str:
    from distort.kernels.cuda.libraries import open_library

    found = _opened()
    if found.products is None:
        raise RuntimeError(found.missing["cuBLASLt"])
    version = getattr(open_library("cublasLt"), "cublasLtGetVersion", lambda: "?")()
    return f"version {version}, workspaces of {found.products.workspace_nbytes >> 20} MiB"


def _cudnn() -> str:
    found = _opened()
    if found.networks is None:
        raise RuntimeError(found.missing["cuDNN"])
    cudnn = found.networks.cudnn
    backend = getattr(cudnn, "backend_version", lambda: "?")()
    return f"frontend {getattr(cudnn, '__version__', '?')}, cuDNN {backend}, {cudnn.__file__}"


def _libraries(report: Report) -> None:
    from gpu.dnn_problems import attention, conv

    from distort.kernels.cuda.blaslt import Matrix, ProductProblem

    context = programs.context_of(cudnn_conv_algo_search="HEURISTIC")
    m, n, k = 48, 64, 32
    for name in ("float32", "float16"):
        plain = ProductProblem(name, m, n, k, Matrix(k), Matrix(n), Matrix(n))
        wide = ProductProblem(name, m, n, k, Matrix(k), Matrix(k, True), Matrix(n), bias=True, activation="relu")
        for what, p in ((f"a product of {name}", plain), (f"and one with bias and ReLU, {name}", wide)):
            with report.part(what):
                libraries.product(report, context, what, p, name, 1, rival=False)
    for name, last in (("float32", False), ("float16", False), ("float16", True)):
        what = f"a convolution of {name}{', channels last' * last}"
        with report.part(what):
            _convolution(report, context, what, conv(name, (2, 16, 8, 8), (32, 16, 1, 1), last=last))
    for name in ("float16", "bfloat16"):
        what = f"attention of {name}"
        with report.part(what):
            sizes: dict[str, Any] = {"depth": 64, "columns": 64, "queries": 64, "keys": 128}
            libraries.attention(report, context, what, attention(name, **sizes), 2, rival=False)


def _convolution(report: Report, context: Any, what: str, p: Any) -> None:
    """Of windows of one element: a product."""
    plan = context.libraries.networks.convolution(p)
    if plan is None:
        raise RuntimeError(context.libraries.networks.reasons[p])
    rng, memory, dtype = np.random.default_rng(3), libraries.Memory(), kind(p.dtype)
    for name, shape, strides in (("x", p.x, p.x_strides), ("w", p.w, p.w_strides), ("y", p.y, p.y_strides)):
        memory.add(name, shape, strides, dtype, None if name == "y" else random_of(shape, dtype, rng))
    libraries.run_graph(context, plan, memory)
    x, w = (memory.view(name).astype(np.float64) for name in "xw")
    report.within(what, error(memory.fetched("y"), np.einsum("nchw,kc->nkhw", x, w[:, :, 0, 0])), TOLERANCES[p.dtype])


def _model(report: Report, dtype: np.dtype[Any]) -> None:
    model = sketch.mixed(dtype, batch=1, channels=16, side=4, heads=2)
    program = programs.program_of(model, cudnn_conv_algo_search="HEURISTIC")
    feed = sketch.feed_of(model)
    (want,) = programs.reference_of(model).run(feed)
    errors = [error(to_host(program.run(feed)[0], dtype), want) for _ in range(4)]
    told = ", ".join(f"{n} {name}" for name, n in programs.steps_of(program).items())
    extra = f"{program.n_graph_runs} of 4 runs were graphs; {told}"
    report.within(f"a model of {dtype}", max(errors), {"float32": 5e-3, "float16": 2e-2}[dtype.name], extra)
    report.faults(f"a model of {dtype}", program)
    if not program.n_graph_runs:
        report.add(f"graphs of {dtype}", FAILED, programs.obstacles(program) or "the plan could be one")
    for why in program.context.libraries.obstacles():
        report.add(f"not by NVIDIA's libraries, {dtype}", FIGURE, why[:300])
