"""A session on the second GPU opens no context on the first, which would take memory of it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import onnx.parser
import pytest

import distort
from distort import OrtValue
from distort.capi import onnxruntime_pybind11_state as C
from distort.kernels.cuda import device
from distort.kernels.cuda.memory import Pool
from distort.kernels.cuda.options import CudaOptions

from .standing_in import CUDA, session_of

MIXED = """g (float[N,16] x, float[16,16] w, float[1,2,8,8] i, float[4,2,3,3] k)
    => (float[N,16] y, int64[2,M] p, float[1,4,6,6] c)
{
    h = MatMul(x, w)
    r = Relu(h)
    y = Softmax(r)
    p = NonZero(h)
    c = Conv(i, k)
}"""


def on_a_thread(call: Callable[[], None]) -> None:
    """On one that has used no GPU yet."""
    with ThreadPoolExecutor(1) as threads:
        threads.submit(call).result()


def feeds() -> dict[str, np.ndarray[Any, Any]]:
    rng = np.random.default_rng(0)
    shapes = {"x": (3, 16), "w": (16, 16), "i": (1, 2, 8, 8), "k": (4, 2, 3, 3)}
    return {name: rng.random(shape, np.float32) for name, shape in shapes.items()}


def session_life() -> None:
    """All that a program does with a session, on several threads."""
    session = session_of(MIXED, device_id=1, gpu_mem_limit=1 << 26)
    want = session.run(None, feeds())
    for _ in range(4):
        for mine, first in zip(session.run(None, feeds()), want, strict=True):
            np.testing.assert_array_equal(mine, first)
    on_a_thread(lambda: session.run(["y"], feeds()) and None)
    options = distort.RunOptions()
    options.only_execute_path_to_fetches = True
    options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "gpu:1")
    on_a_thread(lambda: session.run(["y"], feeds(), options) and None)
    done = threading.Event()
    session.run_async(None, feeds(), lambda results, data, text: done.set(), None)
    assert done.wait(60)
    on_a_thread(lambda: session.explain() and None)
    with pytest.raises(C.RuntimeException, match="cuda:1"):
        session.run(None, {**feeds(), "x": np.zeros((4_000_000, 16), np.float32)})
    session._sess._close()


def values_life() -> None:
    session = session_of(MIXED, device_id=1)
    binding = session.io_binding()
    for name, array in feeds().items():
        binding.bind_ortvalue_input(name, OrtValue.ortvalue_from_numpy(array, "cuda", 1))
    binding.bind_output("y", "cuda", 1)
    buffer = OrtValue.ortvalue_from_shape_and_type([1, 4, 6, 6], np.float32, "cuda", 1)
    binding.bind_ortvalue_output("c", buffer)
    for _ in range(4):
        session.run_with_iobinding(binding)
    binding.synchronize_inputs()
    binding.synchronize_outputs()
    y, c = (value.numpy() for value in binding.get_outputs())
    assert y.shape == (3, 16) and c.shape == (1, 4, 6, 6)
    taken = OrtValue.from_dlpack(binding.get_outputs()[0])
    on_a_thread(lambda: taken.numpy() is None)
    buffer.update_inplace(np.ones((1, 4, 6, 6), np.float32))
    assert buffer.numpy().sum() == 144


@pytest.mark.parametrize("life", [session_life, values_life])
def test_nothing_is_opened_on_another_gpu(fake_cuda: Any, life: Callable[[], None]) -> None:
    with fake_cuda.fake.only(1):
        on_a_thread(life)
    assert fake_cuda.fake.opened() == {1}


def test_pinned_values_are_of_their_gpu(fake_cuda: Any) -> None:
    def make() -> None:
        pinned = C.OrtMemoryInfo("CudaPinned", C.OrtAllocatorType.ORT_DEVICE_ALLOCATOR, 1, C.OrtMemType.CPU_OUTPUT)
        assert OrtValue.ortvalue_from_shape_and_type([2], np.float32, memory_info=pinned).numpy().tolist() == [0, 0]

    with fake_cuda.fake.only(1):
        on_a_thread(make)


def test_who_has_used_a_gpu_has_it_back(fake_cuda: Any) -> None:
    def check() -> None:
        with device.current(1):
            assert fake_cuda.cuda.runtime.getDevice() == 1
        assert fake_cuda.cuda.runtime.getDevice() == 1  # it had none, and has this one now
        with device.current(0), device.current(1):
            pass
        assert fake_cuda.cuda.runtime.getDevice() == 1

    on_a_thread(check)


def test_the_alarm_rings(fake_cuda: Any) -> None:
    def forgetful() -> None:
        Pool(CudaOptions(device_id=1)).malloc(512)

    with fake_cuda.fake.only(1), pytest.raises(AssertionError, match="a context is opened on cuda:0"):
        on_a_thread(forgetful)

    def elsewhere() -> None:
        with device.current(1):
            stream = fake_cuda.cuda.Stream(non_blocking=True)
        with device.current(0):
            kernel = fake_cuda.RawKernel('extern "C" __global__ void k(long long n) {}', "k")
            kernel((1,), (1,), (np.int64(1),), stream=stream)

    with pytest.raises(fake_cuda.cuda.runtime.CUDARuntimeError, match="InvalidResourceHandle"):
        on_a_thread(elsewhere)


def test_a_session_on_each_gpu_goes_to_its_own(fake_cuda: Any) -> None:
    proto = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 21]> {MIXED}').SerializeToString()
    sessions = [
        distort.InferenceSession(proto, providers=[(CUDA, {"device_id": number})], enable_fallback=0)
        for number in (0, 1)
    ]
    for _ in range(4):
        mine = [session.run(None, feeds()) for session in sessions]
        for one, other in zip(*mine, strict=True):
            np.testing.assert_array_equal(one, other)
