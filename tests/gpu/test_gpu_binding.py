"""IOBinding on a GPU: the five scenarios of onnxruntime's API page with "cuda", other ends, and what crosses."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

import distort
from distort import OrtValue

from .standing_in import crossed, program_of, session_of

MUL = "g (float[3,2] x) => (float[3,2] y) <float[2] w = {2.0, 3.0}> { y = Mul(x, w) }"
RELU = "g (float[N,2] x) => (float[N,2] y) { y = Relu(x) }"
X = np.arange(1, 7, dtype=np.float32).reshape(3, 2)
WANTED = X * np.array([2, 3], np.float32)


@pytest.fixture
def session(fake_cuda: Any) -> distort.InferenceSession:
    return session_of(MUL)


def on(array: np.ndarray, device_id: int = 0) -> OrtValue:
    return OrtValue.ortvalue_from_numpy(array, "cuda", device_id)


def test_input_and_output_on_the_cpu(session: distort.InferenceSession) -> None:
    """Scenario 1: the input goes over once, when it is bound; the output comes back once a run."""
    binding = session.io_binding()
    x = X.copy()
    binding.bind_cpu_input("x", x)
    x[:] = 0  # onnxruntime too has copied it
    assert crossed(session) == {("x", "h2d"): 24}
    binding.bind_output("y")
    for _ in range(2):
        session.run_with_iobinding(binding)
    assert crossed(session) == {("x", "h2d"): 24, ("y", "d2h"): 48}
    assert binding.copy_outputs_to_cpu()[0].tolist() == WANTED.tolist()
    assert binding.get_outputs()[0].device_name() == "cpu"
    assert crossed(session) == {("x", "h2d"): 24, ("y", "d2h"): 48}


def test_input_on_the_gpu_by_address(session: distort.InferenceSession) -> None:
    """Scenario 2, with an address inside a larger allocation, as of a view of another library's tensor."""
    whole = on(np.concatenate([np.zeros(2, np.float32), X.reshape(-1)]))
    binding = session.io_binding()
    binding.bind_input("x", whole.device_name(), 0, np.float32, X.shape, whole.data_ptr() + 8)
    binding.bind_output("y")
    session.run_with_iobinding(binding)
    assert binding.copy_outputs_to_cpu()[0].tolist() == WANTED.tolist()
    whole.update_inplace(np.ones(8, np.float32))
    session.run_with_iobinding(binding)  # it is the memory that is bound
    assert binding.copy_outputs_to_cpu()[0].tolist() == [[2, 3]] * 3
    assert crossed(session) == {("y", "d2h"): 48}


def test_input_and_output_on_the_gpu_by_address(session: distort.InferenceSession) -> None:
    """Scenario 3: nothing crosses."""
    x, y = on(X), OrtValue.ortvalue_from_shape_and_type([3, 2], np.float32, "cuda", 0)
    binding = session.io_binding()
    binding.bind_input("x", "cuda", 0, np.float32, [3, 2], x.data_ptr())
    binding.bind_output("y", "cuda", 0, np.float32, [3, 2], y.data_ptr())
    for _ in range(3):
        session.run_with_iobinding(binding)
    assert crossed(session) == {}
    assert y.numpy().tolist() == WANTED.tolist()
    assert binding.get_outputs()[0].data_ptr() == y.data_ptr()


def test_output_that_the_run_allocates_on_the_gpu(session: distort.InferenceSession) -> None:
    """Scenario 4: it stays there, and later runs write into the same memory."""
    binding = session.io_binding()
    binding.bind_ortvalue_input("x", on(X))
    binding.bind_output("y", "cuda")
    session.run_with_iobinding(binding)
    (y,) = binding.get_outputs()
    pointer = y.data_ptr()
    assert (y.device_name(), y.shape()) == ("cuda", [3, 2])
    binding.bind_ortvalue_input("x", on(X + 1))
    session.run_with_iobinding(binding)
    assert y.data_ptr() == pointer == binding.get_outputs()[0].data_ptr()
    assert crossed(session) == {}
    assert y.numpy().tolist() == ((X + 1) * [2, 3]).tolist()
    assert crossed(session) == {("y", "d2h"): 24}
    assert binding.copy_outputs_to_cpu()[0].tolist() == ((X + 1) * [2, 3]).tolist()
    assert crossed(session) == {("y", "d2h"): 48}


def test_ort_values_on_both_sides(session: distort.InferenceSession) -> None:
    """Scenario 5."""
    y = OrtValue.ortvalue_from_shape_and_type([3, 2], np.float32, "cuda", 0)
    binding = session.io_binding()
    binding.bind_ortvalue_input("x", on(X))
    binding.bind_ortvalue_output("y", y)
    session.run_with_iobinding(binding)
    assert crossed(session) == {}
    assert y.numpy().tolist() == WANTED.tolist()


def test_an_output_is_the_next_runs_input(fake_cuda: Any) -> None:
    """A loop of decoding: the state goes round on the GPU."""
    session = session_of("g (float[2] s) => (float[2] t) { t = Add(s, s) }")
    binding = session.io_binding()
    binding.bind_cpu_input("s", np.ones(2, np.float32))
    for _ in range(4):
        binding.bind_output("t", "cuda")
        session.run_with_iobinding(binding)
        binding.bind_ortvalue_input("s", binding.get_outputs()[0])
    assert crossed(session) == {("s", "h2d"): 8}
    assert binding.copy_outputs_to_cpu()[0].tolist() == [16, 16]


def test_bound_memory_is_written_by_the_run_itself(session: distort.InferenceSession) -> None:
    """But memory that is an input too, that lies askew, or that is another's."""
    x, y, askew = on(X), on(X), on(np.zeros(7, np.float32))
    binding = session.io_binding()
    binding.bind_ortvalue_input("x", x)
    binding.bind_ortvalue_output("y", y)
    session.run_with_iobinding(binding)
    assert list(program_of(session).runs[-1]["into"]) == ["y"]
    binding.bind_ortvalue_output("y", x)
    session.run_with_iobinding(binding)
    assert not program_of(session).runs[-1]["into"]
    assert x.numpy().tolist() == y.numpy().tolist() == WANTED.tolist()
    binding.bind_output("y", "cuda", 0, np.float32, [3, 2], askew.data_ptr() + 4)
    session.run_with_iobinding(binding)
    assert askew.numpy()[1:].tolist() == (WANTED * np.array([2, 3])).reshape(-1).tolist()


def test_two_outputs_in_the_same_memory(fake_cuda: Any) -> None:
    session = session_of("g (float[2] x) => (float[2] y, float[2] z) { y = Neg(x) z = Relu(x) }")
    both = on(np.zeros(2, np.float32))
    binding = session.io_binding()
    binding.bind_cpu_input("x", np.ones(2, np.float32))
    binding.bind_ortvalue_output("y", both)
    binding.bind_ortvalue_output("z", both)
    session.run_with_iobinding(binding)
    assert both.numpy().tolist() == [1, 1]  # the last one's


def test_host_memory_on_both_sides(session: distort.InferenceSession) -> None:
    y = OrtValue.ortvalue_from_shape_and_type([3, 2], np.float32)
    binding = session.io_binding()
    binding.bind_input("x", "cpu", 0, np.float32, [3, 2], X.ctypes.data)
    binding.bind_ortvalue_output("y", y)
    session.run_with_iobinding(binding)
    assert y.numpy().tolist() == WANTED.tolist()
    assert crossed(session) == {("x", "h2d"): 24, ("y", "d2h"): 24}


def test_another_gpus_memory_on_both_sides(session: distort.InferenceSession) -> None:
    binding = session.io_binding()
    binding.bind_ortvalue_input("x", on(X, 1))
    binding.bind_output("y", "cuda", 1)
    for _ in range(2):
        session.run_with_iobinding(binding)
    (y,) = binding.get_outputs()
    assert (y.__dlpack_device__(), y.numpy().tolist()) == ((2, 1), WANTED.tolist())


def test_feeds_on_another_gpu(session: distort.InferenceSession) -> None:
    """As onnxruntime does, a run copies what lies on another GPU; it is told of."""
    for _ in range(3):
        [y] = session.run_with_ort_values(["y"], {"x": on(X, 1)})
        assert y.numpy().tolist() == WANTED.tolist()
    assert crossed(session)["x", "p2p"] == 3 * 24
    assert "GPU → GPU: x" in session.explain()


def test_inputs_that_only_the_host_reads_stay_there(fake_cuda: Any) -> None:
    text = "g (float[3,2] x, int64[1] s) => (float[6] y) { y = Reshape(x, s) }"
    session = session_of(text)
    binding = session.io_binding()
    binding.bind_ortvalue_input("x", on(X))
    binding.bind_cpu_input("s", np.array([6]))
    binding.bind_output("y", "cuda")
    session.run_with_iobinding(binding)
    assert crossed(session) == {}
    binding.bind_ortvalue_input("s", on(np.array([-1])))
    session.run_with_iobinding(binding)
    assert crossed(session) == {("s", "d2h"): 8}
    assert binding.copy_outputs_to_cpu()[0].tolist() == X.reshape(-1).tolist()


def test_a_session_on_the_cpu_with_memory_of_a_gpu(fake_cuda: Any) -> None:
    import onnx.parser

    text = f'<ir_version: 10, opset_import: ["" : 21]> {MUL}'
    session = distort.InferenceSession(onnx.parser.parse_model(text).SerializeToString())
    x, y = on(X), OrtValue.ortvalue_from_shape_and_type([3, 2], np.float32, "cuda", 0)
    binding = session.io_binding()
    binding.bind_input("x", "cuda", 0, np.float32, [3, 2], x.data_ptr())
    binding.bind_ortvalue_output("y", y)
    session.run_with_iobinding(binding)
    assert crossed(session) == {("x", "d2h"): 24, ("y", "h2d"): 24}
    assert y.numpy().tolist() == WANTED.tolist()
    binding.bind_output("y", "cuda", 1)
    session.run_with_iobinding(binding)
    assert binding.get_outputs()[0].__dlpack_device__() == (2, 1)
    assert binding.copy_outputs_to_cpu()[0].tolist() == WANTED.tolist()


@pytest.mark.parametrize(
    ("bind", "text"),
    [
        (
            lambda b: b.bind_input("x", "cuda", 0, np.float32, [3, 2], X.ctypes.data),
            "an address of no memory that CUDA",
        ),
        (
            lambda b: b.bind_input("x", "cuda", 1, np.float32, [3, 2], on(X).data_ptr()),
            "is an address of cuda:0's memory",
        ),
        (lambda b: b.bind_input("x", "cuda", 9, np.float32, [3, 2], 64), "There's no data transfer registered"),
        (lambda b: b.bind_output("y", "cuda", 0, np.float32, [3, 2], X.ctypes.data), "no memory that CUDA knows"),
        (lambda b: b.bind_input("x", "cuda", 0, np.float32, [-3, 2], 64), "shape.Size() must >=0"),
    ],
)
def test_addresses_that_are_not_the_gpus(session: distort.InferenceSession, bind: Any, text: str) -> None:
    with pytest.raises(RuntimeError, match=re.escape(text)):
        bind(session.io_binding())


@pytest.mark.parametrize(
    ("shape", "text"),
    [((2, 2), r"has shape \{2,2\} but the computed output shape for this run is \{3,2\}")],
)
def test_a_buffer_of_the_wrong_shape(fake_cuda: Any, shape: tuple[int, ...], text: str) -> None:
    session = session_of(RELU)
    binding = session.io_binding()
    binding.bind_cpu_input("x", X)
    binding.bind_ortvalue_output("y", OrtValue.ortvalue_from_shape_and_type(shape, np.float32, "cuda", 0))
    with pytest.raises(RuntimeError, match=text):
        session.run_with_iobinding(binding)


def test_a_buffer_of_the_wrong_type(session: distort.InferenceSession) -> None:
    binding = session.io_binding()
    binding.bind_cpu_input("x", X)
    binding.bind_ortvalue_output("y", OrtValue.ortvalue_from_shape_and_type([3, 2], np.int32, "cuda", 0))
    with pytest.raises(RuntimeError, match=r"Unexpected output data type. Actual: \(tensor\(int32\)\)"):
        session.run_with_iobinding(binding)


def test_the_engine_is_given_what_is_on_the_gpu(session: distort.InferenceSession, fake_cuda: Any) -> None:
    binding = session.io_binding()
    binding.bind_cpu_input("x", X)
    binding.bind_output("y", "cuda")
    session.run_with_iobinding(binding)
    (run,) = program_of(session).runs
    assert isinstance(run["feeds"]["x"], fake_cuda.ndarray)


def test_other_libraries_streams_are_waited_for(session: distort.InferenceSession, fake_cuda: Any) -> None:
    """What is bound may still be in the making, in a stream that the session doesn't know."""
    x = on(np.zeros((3, 2), np.float32))
    binding = session.io_binding()
    binding.bind_ortvalue_input("x", x)
    binding.bind_output("y", "cuda")
    fake_cuda.fake.set_lazy(True)
    theirs = fake_cuda.cuda.Stream(non_blocking=True)
    with theirs:
        x._get_c_value()._value.fill(1)
    assert not theirs.done
    binding.synchronize_inputs()
    assert theirs.done
    session.run_with_iobinding(binding)
    assert binding.copy_outputs_to_cpu()[0].tolist() == [[2, 3]] * 3
    fake_cuda.fake.set_lazy(False)


@pytest.mark.parametrize("bound", ["input", "output"])
def test_what_is_under_way_on_the_default_stream_comes_first(
    session: distort.InferenceSession, fake_cuda: Any, bound: str
) -> None:
    """Other libraries work there, and lend memory in which their work isn't done yet."""
    x, y = on(X), on(np.zeros((3, 2), np.float32))
    binding = session.io_binding()
    binding.bind_input("x", "cuda", 0, np.float32, [3, 2], x.data_ptr())
    binding.bind_output("y", "cuda", 0, np.float32, [3, 2], y.data_ptr())
    session.run_with_iobinding(binding)
    fake_cuda.fake.set_lazy(True)
    written = (x if bound == "input" else y)._get_c_value()._value
    with fake_cuda.cuda.Device(0), fake_cuda.cuda.Stream.null:
        written.fill(1)
    assert not fake_cuda.cuda.Stream.null.done
    session.run_with_iobinding(binding)
    found = y.numpy().tolist()
    fake_cuda.fake.set_lazy(False)
    assert found == ([[2, 3]] * 3 if bound == "input" else WANTED.tolist())


def test_inputs_bound_anew_go_where_the_last_ones_lay(fake_cuda: Any) -> None:
    """So that a captured graph is replayed, whatever arrays a caller has."""
    session = session_of(RELU, enable_cuda_graph=1)
    binding = session.io_binding()
    binding.bind_output("y", "cuda")
    for step in range(6):
        binding.bind_cpu_input("x", X - step)
        session.run_with_iobinding(binding)
        assert binding.copy_outputs_to_cpu()[0].tolist() == np.maximum(X - step, 0).tolist()
    assert len({run["feeds"]["x"].data.ptr for run in program_of(session).runs}) == 1
    assert program_of(session).n_graph_runs >= 2
    binding.bind_cpu_input("x", X[:1])
    binding.bind_output("y", "cuda")
    session.run_with_iobinding(binding)
    assert binding.copy_outputs_to_cpu()[0].tolist() == X[:1].tolist()
    before = fake_cuda.get_default_memory_pool().used_bytes()
    program_of(session).runs.clear()
    binding.clear_binding_inputs()
    assert fake_cuda.get_default_memory_pool().used_bytes() < before


def test_a_stream_of_the_users(fake_cuda: Any) -> None:
    stream = fake_cuda.cuda.Stream(non_blocking=True)
    session = session_of(MUL, user_compute_stream=str(stream.ptr))
    assert session.get_provider_options()["CUDAExecutionProvider"]["has_user_compute_stream"] == "1"
    binding = session.io_binding()
    x = on(np.zeros((3, 2), np.float32))
    binding.bind_ortvalue_input("x", x)
    binding.bind_output("y", "cuda")
    fake_cuda.fake.set_lazy(True)
    with stream:
        x._get_c_value()._value.fill(1)  # the run comes after it, in the same stream
    session.run_with_iobinding(binding)
    assert binding.copy_outputs_to_cpu()[0].tolist() == [[2, 3]] * 3
    fake_cuda.fake.set_lazy(False)
