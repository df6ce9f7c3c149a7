"""The fake's devices: streams, events, captured graphs, memory and its limits, kernels, other processes."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from .conftest import FOLDER

CODE = r"""
extern "C" __global__ void add(const float* __restrict__ a, float* out, long long n, float s) {
  for (long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x; i < n; i += (long long)gridDim.x * blockDim.x)
    out[i] = a[i] + s;
}
extern "C" __global__ void row_sums(const float* a, float* out, int rows, int cols) {
  extern __shared__ float part[];
  for (int r = blockIdx.x; r < rows; r += gridDim.x) {
    float sum = 0;
    for (int i = threadIdx.x; i < cols; i += blockDim.x) sum += a[r * cols + i];
    if (blockDim.x % 32 == 0)
      for (int d = 16; d; d >>= 1) sum += __shfl_xor_sync(0xffffffffu, sum, d);
    part[threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.x == 0) {
      float total = 0;
      for (int i = 0; i < blockDim.x; i += blockDim.x % 32 == 0 ? 32 : 1) total += part[i];
      out[r] = total;
    }
    __syncthreads();
  }
}
template <typename T> __global__ void twice(T* a) { *a = *a + *a; }
extern "C" __global__ void halves(const __half* a, __nv_bfloat16* b, int n) {
  for (int i = 0; i < n; i++) b[i] = __float2bfloat16(__half2float(a[i]) * 2.0f);
}
extern "C" __global__ void stuck() { if (threadIdx.x < 7) __syncthreads(); else __syncwarp(); }
"""


def _add(cupy: Any) -> Any:
    return cupy.RawModule(code=CODE).get_function("add")


def test_kernels_run_on_the_arrays(fake_cuda: Any) -> None:
    a = fake_cuda.arange(5, dtype=np.float32)
    out = fake_cuda.empty_like(a)
    _add(fake_cuda)((4,), (256,), (a, out, 5, np.float32(2)))
    assert out.tolist() == [2, 3, 4, 5, 6]


@pytest.mark.parametrize(("blocks", "threads"), [(1, 1), (0, 1), (2, 32), (0, 0)])
def test_threads_meet_at_barriers_and_in_warps(fake_cuda: Any, blocks: int, threads: int) -> None:
    fake_cuda.fake.set_launch(blocks, threads)
    a = fake_cuda.arange(700, dtype=np.float32).reshape(7, 100)
    out = fake_cuda.zeros(7, np.float32)
    kernel = fake_cuda.RawModule(code=CODE).get_function("row_sums")
    kernel((7,), (128,), (a, out, np.int32(7), np.int32(100)), shared_mem=512)
    np.testing.assert_array_equal(out.get(), a.sum(axis=1).get())


def test_a_barrier_that_not_all_reach(fake_cuda: Any) -> None:
    fake_cuda.fake.set_launch(0, 0)
    kernel = fake_cuda.RawModule(code=CODE).get_function("stuck")
    with pytest.raises(RuntimeError, match="wait for each other"):
        kernel((1,), (40,), ())


def test_templates_and_sixteen_bits(fake_cuda: Any) -> None:
    import ml_dtypes

    module = fake_cuda.RawModule(code=CODE, name_expressions=["twice<double>", "twice<int>"])
    a = fake_cuda.full(1, 21)
    module.get_function("twice<int>")((1,), (1,), (a,))
    assert a.tolist() == [42]
    values = np.arange(65536, dtype=np.uint16).view(np.float16)
    with np.errstate(invalid="ignore"):
        want = (values.astype(np.float32) * 2).astype(ml_dtypes.bfloat16)
    out = fake_cuda.empty(65536, ml_dtypes.bfloat16)
    module.get_function("halves")((1,), (1,), (fake_cuda.array(values), out, np.int32(65536)))
    np.testing.assert_array_equal(out.get().astype(np.float32), want.astype(np.float32))


@pytest.mark.parametrize(
    "arguments",
    [("a", "a", 5), ("a", "a", np.int32(5), np.float32(1)), ("a", "a", 5, 1.0), ("a", 1.5, 5, np.float32(1))],
)
def test_arguments_are_of_the_parameters_kinds(fake_cuda: Any, arguments: tuple[Any, ...]) -> None:
    a = fake_cuda.zeros(5, np.float32)
    with pytest.raises(TypeError):
        _add(fake_cuda)((1,), (1,), tuple(a if isinstance(v, str) else v for v in arguments))


def test_an_error_of_the_compiler(fake_cuda: Any) -> None:
    with pytest.raises(Exception, match="nonsense"):
        fake_cuda.RawModule(code='extern "C" __global__ void k() { nonsense; }').get_function("k")


def test_writing_behind_memory_is_found(fake_cuda: Any) -> None:
    a = fake_cuda.zeros(5, np.float32)
    _add(fake_cuda)((1,), (1,), (a, a.data + 4, 5, np.float32(2)))
    with pytest.raises(AssertionError, match="behind"):
        fake_cuda.fake.check()
    a.data.memset(0, 20)
    fake_cuda.fake.view(a.data.ptr + 20, (4,), np.uint8)[:] = 0xA5


# -- streams


def test_a_graph_runs_when_it_is_launched(fake_cuda: Any) -> None:
    a, out = fake_cuda.zeros(3, np.float32), fake_cuda.zeros(3, np.float32)
    add = _add(fake_cuda)
    stream = fake_cuda.cuda.Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        add((1,), (1,), (a, out, 3, np.float32(5)))
        doubled = out * 2
        graph = stream.end_capture()
    assert out.tolist() == [0, 0, 0], "nothing ran while it was captured"
    for value in (1, 2):
        a.fill(value)
        graph.launch(stream)
        stream.synchronize()
        assert out.tolist() == [value + 5] * 3
        assert doubled.tolist() == [2 * (value + 5)] * 3


@pytest.mark.parametrize("what", ["synchronize", "get", "mask", "null stream", "upload", "matmul"])
def test_what_no_capture_allows(fake_cuda: Any, what: str) -> None:
    a = fake_cuda.ones((2, 2), np.float32)
    stream = fake_cuda.cuda.Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        with pytest.raises((fake_cuda.cuda.runtime.CUDARuntimeError, NotImplementedError)):
            if what == "synchronize":
                stream.synchronize()
            elif what == "get":
                a.get()
            elif what == "mask":
                a[a > 0]
            elif what == "upload":
                fake_cuda.array([1, 2])
            elif what == "matmul":
                fake_cuda.matmul(a, a)
            else:
                with fake_cuda.cuda.Stream.null:
                    a + 1
        if what == "matmul":
            stream.end_capture()
        else:
            with pytest.raises(fake_cuda.cuda.runtime.CUDARuntimeError, match="previous error"):
                stream.end_capture()


def test_streams_fork_and_join_in_a_capture(fake_cuda: Any) -> None:
    a = fake_cuda.zeros(3, np.float32)
    add = _add(fake_cuda)
    main, side = (fake_cuda.cuda.Stream(non_blocking=True) for _ in range(2))
    for joins in (True, False):
        main.begin_capture()
        side.wait_event(main.record())
        add((1,), (1,), (a, a, 3, np.float32(1)), stream=side)
        if joins:
            main.wait_event(side.record())
            main.end_capture().launch(main)
        else:
            with pytest.raises(fake_cuda.cuda.runtime.CUDARuntimeError, match="unjoined"):
                main.end_capture()
    assert a.tolist() == [1, 1, 1]


def test_lazy_streams_show_who_does_not_wait(fake_cuda: Any) -> None:
    fake_cuda.fake.set_lazy(True)
    a = fake_cuda.zeros(3, np.float32)
    fake_cuda.cuda.Device().synchronize()
    add = _add(fake_cuda)
    first, second = (fake_cuda.cuda.Stream(non_blocking=True) for _ in range(2))
    add((1,), (1,), (a, a, 3, np.float32(1)), stream=first)
    event = first.record()
    assert not event.done
    assert a.tolist() == [0, 0, 0], "the null stream does not wait for others that do not block"
    second.wait_event(event)
    add((1,), (1,), (a, a, 3, np.float32(10)), stream=second)
    second.synchronize()
    assert event.done
    assert a.tolist() == [11, 11, 11]


def test_copies_from_pinned_memory_wait_with_the_stream(fake_cuda: Any) -> None:
    fake_cuda.fake.set_lazy(True)
    stream = fake_cuda.cuda.Stream(non_blocking=True)
    pinned = np.frombuffer(fake_cuda.cuda.alloc_pinned_memory(12), np.float32, 3)
    a = fake_cuda.ones(3, np.float32)
    fake_cuda.cuda.Device().synchronize()
    runtime = fake_cuda.cuda.runtime
    pinned[:] = 0
    runtime.memcpyAsync(pinned.ctypes.data, a.data.ptr, 12, runtime.memcpyDeviceToHost, stream.ptr)
    assert pinned.tolist() == [0, 0, 0]
    stream.synchronize()
    assert pinned.tolist() == [1, 1, 1]


def test_elapsed_time(fake_cuda: Any) -> None:
    stream = fake_cuda.cuda.Stream()
    start, end = stream.record(), stream.record()
    assert 0 <= fake_cuda.cuda.get_elapsed_time(start, end) < 1000


def test_libraries_launch_through_the_fake(fake_cuda: Any) -> None:
    done: list[int] = []
    stream = fake_cuda.cuda.Stream(non_blocking=True)
    stream.begin_capture()
    fake_cuda.fake.enqueue(stream.ptr, lambda: done.append(1))
    graph = stream.end_capture()
    assert done == []
    graph.launch(stream)
    graph.launch(stream)
    assert done == [1, 1]


# -- memory


def test_the_pool_has_a_limit_and_uses_memory_again(fake_cuda: Any) -> None:
    pool = fake_cuda.cuda.MemoryPool()
    pool.set_limit(size=1 << 20)
    kept = pool.malloc(600 << 10)
    with pytest.raises(fake_cuda.cuda.memory.OutOfMemoryError, match="limit set to: 1,048,576"):
        pool.malloc(600 << 10)
    address = kept.ptr
    assert pool.used_bytes() == 600 << 10
    del kept
    assert (pool.used_bytes(), pool.total_bytes(), pool.n_free_blocks()) == (0, 600 << 10, 1)
    assert pool.malloc(600 << 10).ptr == address
    pool.free_all_blocks()
    assert pool.total_bytes() == 0


def test_fresh_memory_is_not_zero(fake_cuda: Any) -> None:
    assert np.isnan(fake_cuda.empty(4, np.float32).get()).all()


def test_a_device_can_be_full(fake_cuda: Any) -> None:
    free, total = fake_cuda.cuda.runtime.memGetInfo()
    assert 0 < free <= total
    with pytest.raises(fake_cuda.cuda.memory.OutOfMemoryError):
        fake_cuda.cuda.Memory(total + 1)


def test_copies_do_not_leave_their_memory(fake_cuda: Any) -> None:
    memory = fake_cuda.cuda.Memory(100)
    runtime = fake_cuda.cuda.runtime
    host = np.zeros(200, np.uint8)
    with pytest.raises(runtime.CUDARuntimeError, match="invalid argument"):
        runtime.memcpy(memory.ptr, host.ctypes.data, 200, runtime.memcpyHostToDevice)
    with pytest.raises(runtime.CUDARuntimeError):
        runtime.memcpy(memory.ptr, host.ctypes.data, 50, runtime.memcpyDeviceToHost)


OTHER = """
import sys
import cupy, numpy as np
runtime = cupy.cuda.runtime
handle, event = bytes.fromhex(sys.argv[1]), bytes.fromhex(sys.argv[2])
address = runtime.ipcOpenMemHandle(handle)
assert runtime.device_of(address) == 1
runtime.streamWaitEvent(0, runtime.ipcOpenEventHandle(event))
memory = cupy.cuda.UnownedMemory(address, 2 << 20, None, 1)
with cupy.cuda.Device(1):
    array = cupy.ndarray((4,), np.float32, cupy.cuda.MemoryPointer(memory, 8))
    print(array.tolist())
    array += 1
runtime.ipcCloseMemHandle(address)
"""


def test_another_process_has_the_same_memory(fake_cuda: Any) -> None:
    runtime = fake_cuda.cuda.runtime
    with fake_cuda.cuda.Device(1):
        memory = fake_cuda.cuda.Memory(2 << 20)
        array = fake_cuda.ndarray((4,), np.float32, fake_cuda.cuda.MemoryPointer(memory, 8))
        array.fill(6)
        event = fake_cuda.cuda.Event(disable_timing=True, interprocess=True)
        event.record()
        handles = [runtime.ipcGetMemHandle(memory.ptr), runtime.ipcGetEventHandle(event.ptr)]
        done = subprocess.run(
            [sys.executable, "-c", OTHER, *(handle.hex() for handle in handles)],
            env={"PYTHONPATH": str(FOLDER), "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stdout.strip() == "[6.0, 6.0, 6.0, 6.0]", done.stderr
        assert array.tolist() == [7, 7, 7, 7]
        with pytest.raises(runtime.CUDARuntimeError):
            runtime.ipcOpenMemHandle(handles[0])


def test_the_fake_is_gone_after_its_test() -> None:
    assert "cupy.fake" not in sys.modules
    assert str(FOLDER) not in sys.path
