"""OrtValues on a GPU: made, read, written, copied, handed to other libraries, pickled."""

from __future__ import annotations

import pickle
import re
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import distort
from distort import OrtValue
from distort.capi import onnxruntime_pybind11_state as C
from distort.kernels.cuda import device
from distort.ortvalue import copy_tensors

X = np.arange(1, 7, dtype=np.float32).reshape(3, 2)


def on(array: np.ndarray, device_id: int = 0) -> OrtValue:
    return OrtValue.ortvalue_from_numpy(array, "cuda", device_id)


def test_what_a_tensor_on_a_gpu_tells(fake_cuda: Any) -> None:
    value = on(X, 1)
    assert (value.device_name(), value.shape(), value.data_type(), value.element_type()) == (
        "cuda",
        [3, 2],
        "tensor(float)",
        1,
    )
    assert (value.is_tensor(), value.has_value(), value.tensor_size_in_bytes()) == (True, True, 24)
    assert value.__dlpack_device__() == (2, 1)
    assert fake_cuda.cuda.runtime.pointerGetAttributes(value.data_ptr()).device == 1
    assert value.numpy().tolist() == X.tolist()
    assert np.asarray(value).tolist() == X.tolist()


def test_it_is_a_copy(fake_cuda: Any) -> None:
    array = X.copy()
    value = on(array)
    array[:] = 0
    first = value.numpy()
    assert first.tolist() == X.tolist() and first.flags.writeable
    first[:] = 9
    assert value.numpy().tolist() == X.tolist()
    assert on(X.T).numpy().tolist() == X.T.tolist()


@pytest.mark.parametrize(
    ("element_type", "name"),
    [(np.float16, "float16"), (16, "bfloat16"), (17, "float8e4m3fn"), (22, "int4"), (np.bool_, "bool"), (7, "int64")],
)
def test_zeros_of_each_kind_of_type(fake_cuda: Any, element_type: Any, name: str) -> None:
    value = OrtValue.ortvalue_from_shape_and_type([2, 3], element_type, "cuda", 0)
    assert (value.data_type(), value.device_name(), value.shape()) == (f"tensor({name})", "cuda", [2, 3])
    assert value.numpy().astype(np.float32).tolist() == [[0] * 3] * 2


def test_types_that_cupy_lacks_keep_their_name(fake_cuda: Any) -> None:
    array = np.array([1.5, -2, 0.25]).astype(ml_dtypes.float8_e4m3fn)
    value = on(array)
    assert value.data_type() == "tensor(float8e4m3fn)"
    assert value._get_c_value()._value.dtype == np.uint8
    assert value.numpy().dtype == array.dtype and value.numpy().tolist() == [1.5, -2, 0.25]
    value.update_inplace(array[::-1])
    assert value.numpy().tolist() == [0.25, -2, 1.5]
    target = OrtValue.ortvalue_from_shape_and_type([3], 17)
    target.update_inplace(value)
    assert target.numpy().tolist() == [0.25, -2, 1.5]


def test_memory_by_its_info(fake_cuda: Any) -> None:
    memory = C.OrtMemoryInfo("Cuda", C.OrtAllocatorType.ORT_DEVICE_ALLOCATOR, 1, C.OrtMemType.DEFAULT)
    value = OrtValue.ortvalue_from_shape_and_type([2], np.float32, memory_info=memory)
    assert value.__dlpack_device__() == (2, 1)
    pinned = C.OrtMemoryInfo("CudaPinned", C.OrtAllocatorType.ORT_DEVICE_ALLOCATOR, 0, C.OrtMemType.CPU_OUTPUT)
    value = OrtValue.ortvalue_from_shape_and_type([2], np.float32, memory_info=pinned)
    assert (value.device_name(), value.numpy().tolist()) == ("cpu", [0, 0])
    assert fake_cuda.cuda.runtime.pointerGetAttributes(value.data_ptr()).type == 1


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: on(X, 7), RuntimeError, "There is no cuda:7: they are 0 to 1."),
        (lambda: on(np.array(["a"])), RuntimeError, "only supported from non-string numpy arrays"),
        (lambda: OrtValue.ortvalue_from_shape_and_type([-1], 1, "cuda"), RuntimeError, "must be >= 0"),
        (lambda: OrtValue.ortvalue_from_shape_and_type([2], 8, "cuda"), RuntimeError, "non-string numpy arrays"),
        (
            lambda: OrtValue.ortvalue_from_shape_and_type([10**14], 1, "cuda"),
            C.RuntimeException,
            "6 : RUNTIME_EXCEPTION : Failed to allocate memory for requested buffer of size 400000000000000: of cuda:0",
        ),
        (lambda: on(X).update_inplace(X[:1]), RuntimeError, "The input size of numpy arrays does not match"),
        (lambda: on(X).update_inplace(X.astype(np.float64)), RuntimeError, "does not match the type"),
        (lambda: on(X).update_inplace(on(X.astype(np.int32))), RuntimeError, "must have the same data type"),
    ],
)
def test_what_can_not_be_done(fake_cuda: Any, make: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=re.escape(text)):
        make()


def test_update_inplace_in_all_directions(fake_cuda: Any) -> None:
    value, host = on(X), OrtValue.ortvalue_from_numpy(np.zeros((3, 2), np.float32))
    pointer = value.data_ptr()
    value.update_inplace(X + 1)
    assert value.numpy().tolist() == (X + 1).tolist()
    value.update_inplace(OrtValue.ortvalue_from_numpy(X + 2))
    assert value.numpy().tolist() == (X + 2).tolist()
    value.update_inplace(on(X + 3))
    assert value.numpy().tolist() == (X + 3).tolist()
    value.update_inplace(on(X + 4, 1))
    assert value.numpy().tolist() == (X + 4).tolist()
    host.update_inplace(value)
    assert host.numpy().tolist() == (X + 4).tolist()
    assert value.data_ptr() == pointer


def test_copy_tensors(fake_cuda: Any) -> None:
    targets = [OrtValue.ortvalue_from_shape_and_type([3, 2], np.float32, *where) for where in [("cuda", 1), ("cpu",)]]
    copy_tensors([OrtValue.ortvalue_from_numpy(X), on(X)], targets)
    assert [value.numpy().tolist() for value in targets] == [X.tolist()] * 2


def test_a_pickled_value_comes_back_in_host_memory(fake_cuda: Any) -> None:
    value = pickle.loads(pickle.dumps(on(X)))
    assert (value.device_name(), value.numpy().tolist()) == ("cpu", X.tolist())
    eight = pickle.loads(pickle.dumps(OrtValue.ortvalue_from_shape_and_type([2], 17, "cuda")))
    assert eight.data_type() == "tensor(float8e4m3fn)"


def test_numbas_interface(fake_cuda: Any) -> None:
    value = on(X)
    found = value.__cuda_array_interface__
    assert (found["data"], found["shape"], found["typestr"]) == ((value.data_ptr(), False), (3, 2), "<f4")
    assert found["strides"] is None and found["stream"] is None
    assert not hasattr(OrtValue.ortvalue_from_numpy(X), "__cuda_array_interface__")


class Taker:
    """A library that hands out a tensor on a GPU by DLPack, and notes which stream it was told."""

    def __init__(self, value: OrtValue) -> None:
        self._value = value
        self.streams: list[Any] = []

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._value.__dlpack_device__()

    def __dlpack__(self, *, stream: Any = None) -> Any:
        self.streams.append(stream)
        return self._value.__dlpack__(stream=stream)


@pytest.mark.parametrize("array", [X, X.astype(ml_dtypes.bfloat16), X.astype(ml_dtypes.float8_e5m2), X > 3])
def test_dlpack_shares_memory(fake_cuda: Any, array: np.ndarray) -> None:
    source = on(array, 1)
    other = Taker(source)
    value = OrtValue.from_dlpack(other)
    assert (value.data_ptr(), value.data_type(), value.device_name()) == (
        source.data_ptr(),
        source.data_type(),
        "cuda",
    )
    assert value.__dlpack_device__() == (2, 1)
    assert other.streams == [1]  # CUDA's legacy default stream, which is waited for
    expected = source.numpy().tolist()
    del source, other
    assert value.numpy().tolist() == expected


def test_dlpack_of_a_capsule(fake_cuda: Any) -> None:
    source = on(X)
    value = OrtValue.from_dlpack(source.__dlpack__())
    assert value.data_ptr() == source.data_ptr()


def test_dlpack_lives_as_long_as_its_taker(fake_cuda: Any) -> None:
    before = fake_cuda.get_default_memory_pool().used_bytes()
    value = on(X)
    capsule = value.__dlpack__()
    del value
    assert fake_cuda.get_default_memory_pool().used_bytes() > before
    del capsule
    assert fake_cuda.get_default_memory_pool().used_bytes() == before


def test_dlpack_waits_in_the_takers_stream(fake_cuda: Any) -> None:
    """Work of this thread's stream that is not done yet is waited for by the stream of who takes the tensor."""
    fake_cuda.fake.set_lazy(True)
    value = on(np.zeros(4, np.float32))
    mine, theirs = (fake_cuda.cuda.Stream(non_blocking=True) for _ in range(2))
    with mine:
        value._get_c_value()._value.fill(7)
        value.__dlpack__(stream=theirs.ptr)
    with theirs:
        copied = value._get_c_value()._value.copy()
    theirs.synchronize()
    assert copied.get(stream=theirs).tolist() == [7] * 4
    fake_cuda.fake.set_lazy(False)


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: on(X).__dlpack__(stream=0), ValueError, "0 is ambiguous"),
        (lambda: OrtValue.ortvalue_from_shape_and_type([2], 22, "cuda").__dlpack__(), RuntimeError, "no packed type"),
    ],
)
def test_what_dlpack_can_not_do(fake_cuda: Any, make: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        make()


def test_dlpack_to_the_host_and_copied(fake_cuda: Any) -> None:
    value = on(X)
    assert C.OrtValue.from_dlpack(value.__dlpack__(dl_device=(1, 0))).device_name() == "cpu"
    same = OrtValue.from_dlpack(value.__dlpack__(dl_device=(2, 0), max_version=(1, 0)))
    copied = OrtValue.from_dlpack(value.__dlpack__(copy=True))
    assert same.data_ptr() == value.data_ptr() != copied.data_ptr()
    assert copied.numpy().tolist() == X.tolist()
    for wanted in ({"dl_device": (2, 1)}, {"dl_device": (1, 0), "copy": False}):
        with pytest.raises(BufferError, match="lies on DLPack's device"):
            value.__dlpack__(**wanted)  # type: ignore[arg-type]
    assert np.from_dlpack(OrtValue.ortvalue_from_numpy(X.copy()), copy=True).tolist() == X.tolist()


def test_an_allocator_for_a_gpu_is_told_to_be_of_no_use(fake_cuda: Any) -> None:
    lines: list[str] = []
    distort.set_default_logger_callback(lambda *line: lines.append(line[4]), 2)
    memory = C.OrtMemoryInfo("Cuda", C.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, C.OrtMemType.DEFAULT)
    try:
        C.create_and_register_allocator_v2("CUDAExecutionProvider", memory, {"device_id": "0"}, C.OrtArenaCfg({}))
    finally:
        distort.set_default_logger_callback(None)
    assert any("each session has a pool of memory of its own" in line for line in lines)


def test_vectors_of_values(fake_cuda: Any) -> None:
    vector = C.OrtValueVector()
    source = on(X)
    vector.push_back(source.__dlpack__())
    place = C.OrtDevice(1, 0, 0x10DE, 0)
    vector.push_back_batch([source], [source.data_ptr()], [np.float32], [[6]], [place])
    assert [value.device_name() for value in vector] == ["cuda", "cuda"]
    assert vector[1].numpy().tolist() == X.reshape(-1).tolist()
    assert type(vector.dlpack_at(0)).__name__ == "PyCapsule"


def test_without_a_gpu_the_error_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "_examined", lambda: (0, device.Obstacle("No GPU.", "Buy one.")))
    text = "Please use the appropriate package of OnnxRuntime for your hardware to use this feature. No GPU. Buy one."
    with pytest.raises(RuntimeError, match=re.escape(text)):
        on(X)
    with pytest.raises(RuntimeError, match=re.escape(text)):
        OrtValue.ortvalue_from_shape_and_type([2], 1, "cuda")


def test_a_session_on_the_cpu_reads_values_on_a_gpu(fake_cuda: Any) -> None:
    import onnx.parser

    text = '<ir_version: 10, opset_import: ["" : 21]> g (float[3,2] x) => (float[3,2] y) { y = Neg(x) }'
    session = distort.InferenceSession(onnx.parser.parse_model(text).SerializeToString())
    assert session.run(None, {"x": on(X)})[0].tolist() == (-X).tolist()
    (y,) = session.run_with_ort_values(None, {"x": on(X)})
    assert (y.device_name(), y.numpy().tolist()) == ("cpu", (-X).tolist())
    (row,) = session.get_transfer_stats()
    assert (row["value"], row["transport"], row["nbytes"], row["messages"]) == ("x", "d2h", 48, 2)


def test_nothing_leaks(fake_cuda: Any) -> None:
    """Sessions, bindings, values and capsules give back what they took, run after run."""
    import gc

    from distort.native import dlpack

    from .standing_in import session_of

    def once() -> None:
        value = on(X)
        session = session_of("g (float[N,2] x) => (float[N,2] y) { y = Neg(x) }")
        for _ in range(3):
            session.run(None, {"x": value})
            session.run(None, {"x": X})
        binding = session.io_binding()
        binding.bind_cpu_input("x", X)
        binding.bind_output("y", "cuda")
        session.run_with_iobinding(binding)
        OrtValue.from_dlpack(Taker(binding.get_outputs()[0])).numpy()
        session.close()

    once()
    gc.collect()
    before = fake_cuda.get_default_memory_pool().used_bytes(), fake_cuda.fake.live_nbytes(), len(dlpack._exported)
    for _ in range(5):
        once()
    gc.collect()
    after = fake_cuda.get_default_memory_pool().used_bytes(), fake_cuda.fake.live_nbytes(), len(dlpack._exported)
    assert after == before


def test_a_value_of_another_gpu_than_the_threads_is_waited_for(fake_cuda: Any) -> None:
    """The default stream of a GPU is that of whoever is current: the wait is for the other one's."""
    value = OrtValue.ortvalue_from_numpy(np.zeros(4, np.float32), "cuda", 1)
    fake_cuda.cuda.Device(0).use()
    fake_cuda.fake.set_lazy(True)
    with fake_cuda.cuda.Device(1):
        value._get_c_value()._value.fill(3)
    found = value.numpy().tolist()
    fake_cuda.fake.set_lazy(False)
    assert found == [3] * 4
