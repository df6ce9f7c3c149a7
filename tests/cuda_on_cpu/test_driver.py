"""CUDA's rules, as CuPy meets them: what they forbid is an error here too."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

X = np.arange(1000, dtype=np.float32).reshape(10, 100)


@pytest.fixture
def cupy() -> Any:
    return pytest.importorskip("cupy")


def test_arrays(cupy: Any) -> None:
    x = cupy.asarray(X)
    np.testing.assert_array_equal((x + x[0] * 2).get(), X + X[0] * 2)
    np.testing.assert_allclose(x.sum(axis=1).get(), X.sum(axis=1))
    np.testing.assert_array_equal(x.argmax(axis=0).get(), X.argmax(axis=0))
    np.testing.assert_allclose((x @ x.T).get(), X @ X.T, rtol=1e-6)
    np.testing.assert_array_equal(cupy.argsort(-x, axis=1).get(), np.argsort(-X, axis=1, kind="stable"))
    np.testing.assert_array_equal(x.astype(cupy.float16).get(), X.astype(np.float16))


def test_a_kernel_with_shared_memory(cupy: Any) -> None:
    kernel = cupy.RawKernel(
        """extern "C" __global__ void turn(float* x, int n) {
            __shared__ float kept[256];
            kept[threadIdx.x] = x[threadIdx.x];
            __syncthreads();
            x[threadIdx.x] = kept[n - 1 - threadIdx.x];
        }""",
        "turn",
    )
    x = cupy.arange(256, dtype=cupy.float32)
    kernel((1,), (256,), (x, np.int32(256)))
    np.testing.assert_array_equal(x.get(), np.arange(256, dtype=np.float32)[::-1])
    with pytest.raises(cupy.cuda.driver.CUDADriverError, match="invalid argument"):
        kernel((1,), (2048,), (x, np.int32(256)))


def test_who_reads_too_early_reads_what_was_there_before(cupy: Any) -> None:
    stream, target = cupy.cuda.Stream(non_blocking=True), cupy.zeros(4, cupy.float32)
    cupy.cuda.Stream.null.synchronize()
    with stream:
        target.fill(1)
    assert target.get(stream=cupy.cuda.Stream.null).tolist() == [0] * 4
    stream.synchronize()
    assert target.get().tolist() == [1] * 4


def test_a_graph_runs_when_it_is_launched(cupy: Any) -> None:
    stream, x = cupy.cuda.Stream(non_blocking=True), cupy.zeros(4, cupy.float32)
    cupy.cuda.Stream.null.synchronize()
    with stream:
        x += 1  # compiled before it is captured
        stream.synchronize()
        stream.begin_capture()
        x += 1
        graph = stream.end_capture()
    assert x.get(stream=stream).tolist() == [1] * 4
    for _ in range(3):
        graph.launch(stream)
    assert x.get(stream=stream).tolist() == [4] * 4


def test_what_a_capture_forbids(cupy: Any) -> None:
    runtime = cupy.cuda.runtime
    stream = cupy.cuda.Stream(non_blocking=True)
    for forbidden in (lambda: runtime.malloc(512), stream.synchronize, runtime.deviceSynchronize):
        stream.begin_capture(runtime.streamCaptureModeGlobal)
        with pytest.raises(runtime.CUDARuntimeError, match="StreamCaptureUnsupported"):
            forbidden()
        with pytest.raises(runtime.CUDARuntimeError, match="StreamCaptureInvalidated"):
            runtime.streamEndCapture(stream.ptr)


def test_memory_that_is_not_allocated(cupy: Any) -> None:
    x = cupy.zeros(128, cupy.float32)
    with pytest.raises(cupy.cuda.runtime.CUDARuntimeError, match="InvalidValue"):
        cupy.cuda.runtime.memset(x.data.ptr, 0, 1 << 20)


def test_the_host_cannot_touch_memory_of_a_device() -> None:
    script = "import cupy, ctypes; ctypes.memset(cupy.zeros(8).data.ptr, 0, 8)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert done.returncode == -signal.SIGSEGV
