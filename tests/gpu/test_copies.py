"""Memory of GPUs and copies to and from it, on GPUs that are made up."""

from __future__ import annotations

import ctypes
import re
from typing import Any

import ml_dtypes
import numpy as np
import onnx.parser
import pytest

from distort.engine import load_model
from distort.kernels.cuda import copies, device, memory, staging
from distort.kernels.cuda.options import CudaOptions
from distort.kernels.cuda.program import CudaProgram
from distort.kernels.errors import OutOfMemory

DTYPES = [np.float32, np.float16, np.bool_, np.int64, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.int4]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0, 3), (5,), (2, 3, 4)])
def test_arrays_come_back_as_they_went(fake_cuda: Any, dtype: Any, shape: tuple[int, ...]) -> None:
    array = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)
    there = copies.to_device(array, 1)
    assert (there.device.id, there.shape) == (1, shape)
    assert there.dtype == (np.uint8 if memory.device_dtype(array.dtype) != array.dtype else array.dtype)
    (back,) = copies.to_host([there], [array.dtype])
    assert back.dtype == array.dtype and np.array_equal(back, array)


def test_what_is_not_contiguous_is_made_so(fake_cuda: Any) -> None:
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    there = copies.to_device(array.T, 0)
    (back,) = copies.to_host([there], [array.dtype])
    assert np.array_equal(back, array.T)
    (turned,) = copies.to_host([there.T], [array.dtype])
    assert np.array_equal(turned, array)


def test_large_arrays_go_in_blocks(fake_cuda: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work waits in the fake's streams until somebody synchronizes: a block that is filled too early shows."""
    fake_cuda.fake.set_lazy(True)
    monkeypatch.setattr(staging, "BLOCK_NBYTES", 64)
    array = np.arange(1001, dtype=np.uint16)
    there = copies.to_device(array, 0)
    assert np.array_equal(copies.to_host([there], [array.dtype])[0], array)
    fake_cuda.fake.set_lazy(False)


def test_the_source_may_change_afterwards(fake_cuda: Any) -> None:
    fake_cuda.fake.set_lazy(True)
    array = copies.pinned((4,), np.dtype(np.float32))
    array[:] = 1
    there = copies.to_device(array, 0)
    array[:] = 2
    assert copies.to_host([there], [array.dtype])[0].tolist() == [1, 1, 1, 1]
    fake_cuda.fake.set_lazy(False)


def test_several_are_waited_for_once(fake_cuda: Any) -> None:
    stream = fake_cuda.cuda.Stream(non_blocking=True)
    arrays = [np.full(3, i, np.int32) for i in range(4)]
    there = [copies.to_device(array, 0) for array in arrays]
    fake_cuda.fake.counts().clear()
    found = copies.to_host(there, [array.dtype for array in arrays], stream)
    assert [array.tolist() for array in found] == [[i] * 3 for i in range(4)]
    assert fake_cuda.fake.counts()["synchronize"] == 1


def test_pinned_arrays_are_their_callers_own(fake_cuda: Any) -> None:
    array = copies.pinned((2, 3), np.dtype(np.float32))
    assert array.shape == (2, 3) and array.flags.writeable and copies.is_pinned(array[1:])
    assert not copies.is_pinned(np.zeros(3))


def test_where_nothing_can_be_pinned_arrays_are_ordinary(fake_cuda: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(nbytes: int) -> Any:
        raise fake_cuda.cuda.runtime.CUDARuntimeError(2)

    monkeypatch.setattr(fake_cuda.cuda, "alloc_pinned_memory", full)
    there = copies.to_device(np.ones(3, np.float32), 0)
    (back,) = copies.to_host([there], [np.dtype(np.float32)])
    assert back.tolist() == [1, 1, 1] and not copies.is_pinned(back)


def test_between_gpus(fake_cuda: Any) -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    there = copies.moved(copies.to_device(array, 0), 1)
    assert there.device.id == 1
    turned = copies.moved(copies.to_device(array, 0).T, 1)
    assert np.array_equal(copies.to_host([there, turned], [array.dtype] * 2)[1], array.T)
    target = np.zeros((2, 3), np.float32)
    copies.read_into(target, there)
    assert np.array_equal(target, array)


def test_memory_of_others(fake_cuda: Any) -> None:
    whole = copies.to_device(np.arange(8, dtype=np.float32), 0)
    part = memory.array_of(whole.data.ptr + 8, (2, 2), np.dtype(np.float32), 0, owner=whole)
    assert copies.to_host([part], [np.dtype(np.float32)])[0].tolist() == [[2, 3], [4, 5]]
    host = np.zeros(4, np.float32)
    float32 = np.dtype(np.float32)
    for address, device_id, text in [
        (host.ctypes.data, 0, "is an address of no memory that CUDA knows, not of cuda:0's"),
        (copies.pinned((4,), float32).ctypes.data, 0, "is an address of pinned memory of this process"),
        (whole.data.ptr, 1, "is an address of cuda:0's memory, not of cuda:1's"),
        (whole.data.ptr + 2, 0, "is no multiple of 4, the size of an element of float32"),
    ]:
        with pytest.raises(ValueError, match=re.escape(text)):
            memory.array_of(address, (2,), float32, device_id)


@pytest.mark.parametrize("dtype", [object, "U3", "datetime64[s]"])
def test_what_no_gpu_holds(dtype: Any) -> None:
    with pytest.raises(TypeError, match="a GPU has no arrays of"):
        memory.device_dtype(np.dtype(dtype))


def test_out_of_memory_names_what_is_wanted_and_free(fake_cuda: Any) -> None:
    _, all_nbytes = fake_cuda.cuda.runtime.memGetInfo()
    text = rf"requested buffer of size {4 * all_nbytes}: of cuda:0's {all_nbytes} bytes \d+ are free"
    with pytest.raises(OutOfMemory, match=text):
        memory.empty((all_nbytes,), np.dtype(np.float32), 0)


def test_a_pool_has_its_own_limit(fake_cuda: Any) -> None:
    small, other = memory.Pool(CudaOptions(gpu_mem_limit=4096)), memory.Pool(CudaOptions(device_id=1))
    with small.used():
        kept = fake_cuda.zeros(256, np.float32)
        assert (kept.device.id, small.used_nbytes) == (0, 1024)
        with pytest.raises(OutOfMemory, match=r"size 8192: .* gpu_mem_limit lets the session have 4096\. Run smaller"):
            fake_cuda.zeros(2048, np.float32)
    with other.used():
        assert fake_cuda.zeros(2048, np.float32).device.id == 1
    assert other.held_nbytes >= 8192
    del kept
    assert small.held_nbytes == 1024
    small.shrink()
    assert small.held_nbytes == 0


def test_the_users_own_allocator(fake_cuda: Any) -> None:
    live: list[int] = []
    emptied: list[bool] = []

    def allocate(nbytes: int) -> int:
        if nbytes > 4096:
            return 0
        live.append(fake_cuda.cuda.runtime.malloc(nbytes))
        return live[-1]

    def release(address: int) -> None:
        live.remove(address)
        fake_cuda.cuda.runtime.free(address)

    functions = [
        ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_size_t)(allocate),
        ctypes.CFUNCTYPE(None, ctypes.c_void_p)(release),
        ctypes.CFUNCTYPE(None)(lambda: emptied.append(True)),
    ]
    addresses = [ctypes.cast(function, ctypes.c_void_p).value for function in functions]
    names = ("gpu_external_alloc", "gpu_external_free", "gpu_external_empty_cache")
    pool = memory.Pool(CudaOptions.read(dict(zip(names, addresses, strict=True))))
    with pool.used():
        array = fake_cuda.zeros(16, np.float32)
        assert live == [array.data.ptr]
        with pytest.raises(OutOfMemory, match="requested buffer of size 8192"):
            fake_cuda.zeros(2048, np.float32)
    del array
    assert not live
    pool.shrink()
    assert emptied == [True]


def test_copies_are_counted_by_value() -> None:
    counted = copies.Copies()
    for _ in range(2):
        counted.count("x", copies.TO_DEVICE, 12)
    counted.count("y", copies.TO_HOST, 8)
    assert [(row["value"], row["transport"], row["nbytes"], row["messages"]) for row in counted.rows()] == [
        ("x", "h2d", 24, 2),
        ("y", "d2h", 8, 1),
    ]
    assert all((row["producer"], row["consumer"]) == (-1, -1) for row in counted.rows())


def test_memory_of_other_libraries_is_known_once_cupy_has_a_context(
    fake_cuda: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CUDA's runtime in CuPy knows nothing of an address before that; CuPy itself asks for free memory first."""
    runtime, ready = fake_cuda.cuda.runtime, []
    told, free = runtime.pointerGetAttributes, runtime.memGetInfo
    x = fake_cuda.arange(4, dtype=np.float32)

    def attributes(address: int) -> Any:
        return told(address) if ready else runtime.PointerAttributes(-2, 0, 0, 0)

    monkeypatch.setattr(runtime, "pointerGetAttributes", attributes)
    monkeypatch.setattr(runtime, "memGetInfo", lambda: ready.append(1) or free())
    assert memory.array_of(x.data.ptr, (4,), np.dtype(np.float32), 0).get().tolist() == [0, 1, 2, 3]


def test_a_gpu_that_reads_pageable_memory_itself_is_waited_for(fake_cuda: Any) -> None:
    """What nobody waits for may change when the run returns, and must not be read afterwards."""
    fake_cuda.fake.set_reads_pageable(True)
    fake_cuda.fake.set_lazy(True)
    try:
        device.forget()
        text = '<ir_version: 10, opset_import: ["" : 21]> g (float[N] x) => (float[N] y) { y = Abs(x) }'
        program = CudaProgram(load_model(onnx.parser.parse_model(text).SerializeToString()).graph)
        x = np.full(5, -2, np.float32)
        assert copies.may_be_read_late(x, 0) and not copies.is_read_at_once(x, 0)
        assert not copies.may_be_read_late(copies.pinned((4,), x.dtype), 0)
        (got,) = program.run({"x": x}, synchronize=False)
        x[...] = 7
        program.synchronize()
        assert got.get().tolist() == [2] * 5
    finally:
        fake_cuda.fake.set_lazy(False)
        fake_cuda.fake.set_reads_pageable(False)
        device.forget()
