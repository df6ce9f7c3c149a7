"""Sessions on a GPU: runs, what crosses between it and the host, run options, what a session tells."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

import distort
from distort import OrtValue
from distort.capi import onnxruntime_pybind11_state as C
from distort.kernels.cuda import copies
from distort.kernels.cuda.executable import Executable

from .standing_in import crossed, program_of, session_of

MUL = "g (float[N,2] x) => (float[N,2] y) <float[2] w = {2.0, 3.0}> { y = Mul(x, w) }"
SAME = "g (float[2] x) => (float[2] y, float[2] z) { y = Identity(x) z = Identity(x) }"
X = np.arange(1, 7, dtype=np.float32).reshape(3, 2)
WANTED = X * np.array([2, 3], np.float32)


def on(array: np.ndarray, device_id: int = 0) -> OrtValue:
    return OrtValue.ortvalue_from_numpy(array, "cuda", device_id)


def test_a_run_gives_arrays_of_this_process(fake_cuda: Any) -> None:
    session = session_of(MUL)
    (y,) = session.run(None, {"x": X})
    assert type(y) is np.ndarray and y.tolist() == WANTED.tolist() and y.flags.writeable
    assert copies.is_pinned(y)  # copied there by the GPU, and by nobody again
    assert crossed(session) == {("x", "h2d"): 24, ("y", "d2h"): 24}
    assert session.run(None, {"x": X[:1]})[0].tolist() == WANTED[:1].tolist()
    assert y.tolist() == WANTED.tolist()


def test_feeds_are_waited_for_with_the_run(fake_cuda: Any) -> None:
    """However many there are: once, where somebody waits for the run; else those that the GPU reads by itself."""
    session = session_of("g (float[N,2] x, float[N,2] z) => (float[N,2] y) { y = Add(x, z) }")
    pinned = copies.pinned(X.shape, X.dtype)
    pinned[:] = X
    program = program_of(session)
    program.run({"x": X, "z": X})
    fake_cuda.fake.set_lazy(True)
    for x, synchronize, n_waits in ((X.copy(), True, 1), (X.copy(), False, 0), (pinned, True, 1), (pinned, False, 1)):
        fake_cuda.fake.counts().clear()
        (y,) = program.run({"x": x, "z": X}, synchronize=synchronize)
        assert fake_cuda.fake.counts()["synchronize"] == n_waits
        x[:] = 7
        program.synchronize()
        assert y.get().tolist() == (X + X).tolist()
        x[:] = X
    fake_cuda.fake.set_lazy(False)


def test_values_on_the_gpu_do_not_cross(fake_cuda: Any) -> None:
    session = session_of(MUL)
    value = on(X)
    for _ in range(2):
        assert session.run(None, {"x": value})[0].tolist() == WANTED.tolist()
    assert crossed(session) == {("y", "d2h"): 48}


def test_results_of_run_with_ort_values_are_on_the_host(fake_cuda: Any) -> None:
    session = session_of(MUL)
    (y,) = session.run_with_ort_values(None, {"x": on(X)})
    assert (y.device_name(), y.numpy().tolist()) == ("cpu", WANTED.tolist())


def test_results_of_vectors_are_on_the_devices_asked_for(fake_cuda: Any) -> None:
    session = session_of(MUL)
    feeds, gpu, cpu = C.OrtValueVector(), C.OrtDevice(1, 0, 0x10DE, 0), C.OrtDevice(0, 0, 0, 0)
    feeds.push_back(on(X))
    for place, name in ((gpu, "cuda"), (cpu, "cpu")):
        fetched = C.OrtValueVector()
        session.run_with_ortvaluevector(None, ["x"], feeds, ["y"], fetched, [place])
        assert (fetched[0].device_name(), fetched[0].numpy().tolist()) == (name, WANTED.tolist())


def test_a_result_is_nobody_elses(fake_cuda: Any) -> None:
    """Outputs that are a feed, and each other, have memory of their own."""
    session = session_of(SAME)
    x = on(np.ones(2, np.float32))
    binding = session.io_binding()
    binding.bind_ortvalue_input("x", x)
    binding.bind_output("y", "cuda")
    binding.bind_output("z", "cuda")
    session.run_with_iobinding(binding)
    assert len({x.data_ptr(), *(value.data_ptr() for value in binding.get_outputs())}) == 3
    y, z = session.run(None, {"x": x})
    y[:] = 5
    assert z.tolist() == [1, 1] == x.numpy().tolist()


def test_a_result_that_is_a_feed_from_the_host_stays(fake_cuda: Any) -> None:
    """The feed was in the plan's memory: the next one comes there too."""
    session = session_of(SAME)
    kept = []
    for number in (1, 2):
        kept.append(program_of(session).run({"x": np.full(2, number, np.float32)})[0])
    assert [y.get().tolist() for y in kept] == [[1, 1], [2, 2]]


def test_asynchronous_runs(fake_cuda: Any) -> None:
    import threading

    session = session_of(MUL)
    done = threading.Event()
    found: list[Any] = []

    def callback(results: list[Any], data: Any, text: str) -> None:
        found.append((results, text))
        done.set()

    session.run_async(None, {"x": X}, callback, None)
    assert done.wait(30)
    assert found[0][1] == "" and found[0][0][0].tolist() == WANTED.tolist()


def test_inputs_that_only_the_host_reads_stay(fake_cuda: Any) -> None:
    text = "g (float[3,2] x, int64[1] s) => (float[6] y) { y = Reshape(x, s) }"
    session = session_of(text)
    feeds = {"x": X, "s": np.array([6])}
    assert session.run(None, feeds)[0].tolist() == X.reshape(-1).tolist()
    assert crossed(session) == {("x", "h2d"): 24, ("y", "d2h"): 24}


def test_memory_infos_name_the_gpu(fake_cuda: Any) -> None:
    session = session_of(MUL, 1)
    for info in (*session.get_input_memory_infos(), *session.get_output_memory_infos()):
        assert (info.name, info.device_id) == ("Cuda", 1)


# -- run options


def with_entries(**entries: str) -> distort.RunOptions:
    made = distort.RunOptions()
    for name, value in entries.items():
        made.add_run_config_entry(name.replace("__", "."), value)
    return made


def test_run_options_reach_the_program(fake_cuda: Any) -> None:
    session = session_of(MUL)
    program = program_of(session)
    session.run(None, {"x": X}, distort.RunOptions())
    session.run(None, {"x": X}, with_entries(gpu_graph_id="-1"))
    session.run(None, {"x": X}, with_entries(gpu_graph_id="7"))
    assert [run["graph_id"] for run in program.runs] == [0, -1, 7]
    assert all(run["synchronize"] for run in program.runs) and not program.n_shrunk
    session.run(None, {"x": X}, with_entries(memory__enable_memory_arena_shrinkage="cpu:0"))
    assert not program.n_shrunk
    session.run(None, {"x": X}, with_entries(memory__enable_memory_arena_shrinkage="cpu:0;gpu:0"))
    assert program.n_shrunk == 1


@pytest.mark.parametrize(
    ("entries", "text"),
    [
        ({"gpu_graph_id": "x"}, "Failed to parse the cuda graph annotation id: x"),
        ({"gpu_graph_id": "--1"}, "Failed to parse the cuda graph annotation id: --1"),
        ({"memory__enable_memory_arena_shrinkage": "gpu:1"}, "memory arena shrink list: gpu:1"),
        ({"memory__enable_memory_arena_shrinkage": "tpu:0"}, "memory arena shrink list: tpu:0"),
    ],
)
def test_run_options_that_can_not_be_obeyed(fake_cuda: Any, entries: dict[str, str], text: str) -> None:
    session = session_of(MUL)
    with pytest.raises(C.InvalidArgument, match=re.escape(text)):
        session.run(None, {"x": X}, with_entries(**entries))


def test_a_run_that_does_not_wait(fake_cuda: Any) -> None:
    """Its results are waited for where they are read: with this process's copies at once, on the GPU later."""
    session = session_of(MUL)
    fake_cuda.fake.set_lazy(True)
    options = with_entries(disable_synchronize_execution_providers="1")
    assert session.run(None, {"x": on(X)}, options)[0].tolist() == WANTED.tolist()
    binding = session.io_binding()
    binding.bind_ortvalue_input("x", on(X))
    binding.bind_output("y", "cuda")
    for _ in range(2):  # the second into the buffer of the first
        session.run_with_iobinding(binding, options)
        assert not program_of(session).stream.done
    (y,) = binding.get_outputs()
    assert y.numpy().tolist() == WANTED.tolist()
    session.run_with_iobinding(binding, options)
    binding.synchronize_outputs()
    assert program_of(session).stream.done
    session.run_with_iobinding(binding, options)
    binding.synchronize_inputs()
    assert program_of(session).stream.done
    fake_cuda.fake.set_lazy(False)


def test_what_a_run_made_and_did_not_wait_for_feeds_others(fake_cuda: Any) -> None:
    fake_cuda.fake.set_lazy(True)
    options = with_entries(disable_synchronize_execution_providers="1")
    first, second = session_of(MUL), session_of(MUL)
    binding = first.io_binding()
    binding.bind_ortvalue_input("x", on(X))
    binding.bind_output("y", "cuda")
    first.run_with_iobinding(binding, options)
    (y,) = binding.get_outputs()
    again = second.io_binding()
    again.bind_ortvalue_input("x", y)
    assert program_of(first).stream.done  # another session's stream doesn't wait for this one's
    again.bind_output("y", "cuda")
    second.run_with_iobinding(again, options)
    assert again.copy_outputs_to_cpu()[0].tolist() == (WANTED * np.array([2, 3])).tolist()
    first.run_with_iobinding(binding, options)
    assert second.run(None, {"x": binding.get_outputs()[0]})[0].tolist() == (WANTED * np.array([2, 3])).tolist()
    fake_cuda.fake.set_lazy(False)


def test_what_a_run_under_way_reads_is_kept(fake_cuda: Any) -> None:
    """A feed that its owner drops before the GPU has read it is not another value's memory in the meantime."""
    session = session_of(MUL)
    session.run(None, {"x": X})
    fake_cuda.fake.set_lazy(True)
    options = with_entries(disable_synchronize_execution_providers="1")
    binding = session.io_binding()
    binding.bind_output("y", "cuda")
    x = on(X)
    binding.bind_ortvalue_input("x", x)
    session.run_with_iobinding(binding, options)
    binding.clear_binding_inputs()
    pointer = x.data_ptr()
    del x
    program_of(session).runs.clear()
    other = on(X + 100)
    assert other.data_ptr() != pointer
    assert binding.get_outputs()[0].numpy().tolist() == WANTED.tolist()
    del other
    assert pointer in {on(X).data_ptr() for _ in range(1)}  # the run is done: it is free
    fake_cuda.fake.set_lazy(False)


# -- graphs


def test_captured_graphs_are_by_number_and_can_be_released(fake_cuda: Any) -> None:
    session = session_of(MUL, enable_cuda_graph="1")
    binding = session.io_binding()
    binding.bind_ortvalue_input("x", on(X))
    binding.bind_output("y", "cuda")

    def graph_runs(number: str, n_runs: int) -> int:
        before = program_of(session).n_graph_runs
        for _ in range(n_runs):
            session.run_with_iobinding(binding, with_entries(gpu_graph_id=number))
        return program_of(session).n_graph_runs - before

    session.run_with_iobinding(binding)  # it makes the output
    assert graph_runs("3", 3) == 2
    assert graph_runs("-1", 3) == 0
    assert graph_runs("4", 1) == 0
    assert graph_runs("3", 1) == 1
    session.release_captured_graph(3)
    assert graph_runs("3", 2) == 1
    assert binding.copy_outputs_to_cpu()[0].tolist() == WANTED.tolist()


def test_replays_read_what_is_bound_now(fake_cuda: Any) -> None:
    session = session_of(MUL, enable_cuda_graph=True)
    x = on(X)
    binding = session.io_binding()
    binding.bind_ortvalue_input("x", x)
    binding.bind_output("y", "cuda")
    for step in range(5):
        x.update_inplace(X + step)
        session.run_with_iobinding(binding)
        assert binding.copy_outputs_to_cpu()[0].tolist() == ((X + step) * [2, 3]).tolist()
    assert program_of(session).n_graph_runs >= 2


def test_what_cannot_be_captured_runs_without(fake_cuda: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As work that waits: a graph that nobody asked for is given up, one that was asked for is an error."""
    enqueue_all = Executable.enqueue_all

    def waiting(self: Executable, *of_run: Any) -> None:
        enqueue_all(self, *of_run)
        fake_cuda.cuda.runtime.streamSynchronize(self._context.stream.ptr)

    monkeypatch.setattr(Executable, "enqueue_all", waiting)
    session = session_of(MUL)
    for step in range(5):
        assert session.run(None, {"x": X + step})[0].tolist() == ((X + step) * [2, 3]).tolist()
    assert program_of(session).n_graph_runs == 0
    assert "runs are no captured graphs: cudaErrorStreamCapture" in session.explain()
    session = session_of(MUL, enable_cuda_graph="1")
    session.run(None, {"x": X})
    for _ in range(2):
        with pytest.raises(C.Fail, match="enable_cuda_graph: runs of this model can't be captured: cudaErr"):
            session.run(None, {"x": X})
    assert session.run(None, {"x": X}, with_entries(gpu_graph_id="-1"))[0].tolist() == WANTED.tolist()


def test_what_libraries_do_not_do_is_told(fake_cuda: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is missing, and what another has no engine for."""
    import sys

    import cudnn

    text = "g (float[1,2,3,3] x) => (float[1,1,2,2] y) <float[1,2,2,2] w = {1,1,1,1,1,1,1,1}> { y = Conv(x, w) }"
    monkeypatch.setattr(cudnn, "decline", lambda graph: "No valid engine configs")
    session = session_of(text)
    assert session.run(None, {"x": np.ones((1, 2, 3, 3), np.float32)})[0].tolist() == [[[[8, 8], [8, 8]]]]
    assert "not by NVIDIA's libraries: cuDNN has no engine for convolution of float32 [1, 2, 3, 3]" in session.explain()
    monkeypatch.setitem(sys.modules, "cudnn", None)
    session = session_of(text)
    session.run(None, {"x": np.ones((1, 2, 3, 3), np.float32)})
    assert "not by NVIDIA's libraries: cuDNN can't be used" in session.explain()


def test_sequences_come_home(fake_cuda: Any) -> None:
    text = """g (float[4] x, int64 n) => (seq(float[2]) s, float[2] y) <int64 zero = {0}> {
        s = SplitToSequence <axis = 0> (x, n)
        y = SequenceAt(s, zero)
    }"""
    session = session_of(text)
    feeds = {"x": on(np.arange(4, dtype=np.float32)), "n": np.array(2)}
    s, y = session.run(None, feeds)
    assert [part.tolist() for part in s] == [[0, 1], [2, 3]] and y.tolist() == [0, 1]
    binding = session.io_binding()
    binding.bind_ortvalue_input("x", feeds["x"])
    binding.bind_cpu_input("n", feeds["n"])
    binding.bind_output("s")
    session.run_with_iobinding(binding)
    assert [part.tolist() for part in binding.copy_outputs_to_cpu()[0]] == [[0, 1], [2, 3]]


def test_what_bodies_pass_on_outlives_the_plan(fake_cuda: Any) -> None:
    """A sequence has its tensors for itself, though a plan's memory of them is used again in the same run."""
    text = """g (float[1,4] x, float[4,4] w) => (seq(float[1,4]) s, float[1,4] y) <int64 zero = {0}> {
        a = Softmax (x)
        s = SequenceConstruct (a)
        b = SequenceAt (s, zero)
        c = MatMul (b, w)
        d = Softmax (c)
        e = MatMul (d, w)
        y = Softmax (e)
    }"""
    session = session_of(text)
    x, w = np.array([[1, 2, 3, 4]], np.float32), np.eye(4, dtype=np.float32)
    for _ in range(3):
        (a,), _ = session.run(None, {"x": on(x), "w": on(w)})
        np.testing.assert_allclose(a, np.exp(x) / np.exp(x).sum(), 1e-5)


def test_text_stays_on_the_host(fake_cuda: Any) -> None:
    session = session_of("g (string[2] x) => (string[2] y) { y = Identity(x) }")
    assert session.run(None, {"x": np.array(["a", "b"])})[0].tolist() == ["a", "b"]
    assert crossed(session) == {}


def test_a_session_that_is_closed_lets_its_runs_end(fake_cuda: Any) -> None:
    session = session_of(MUL)
    fake_cuda.fake.set_lazy(True)
    binding = session.io_binding()
    binding.bind_ortvalue_input("x", on(X))
    binding.bind_output("y", "cuda")
    session.run_with_iobinding(binding, with_entries(disable_synchronize_execution_providers="1"))
    (y,) = binding.get_outputs()
    session.close()
    assert crossed(session) == {}
    assert y.numpy().tolist() == WANTED.tolist()
    assert crossed(session) == {("y", "d2h"): 24}
    with pytest.raises(C.Fail, match="The session is closed"):
        session.run(None, {"x": X})
    fake_cuda.fake.set_lazy(False)


def test_a_result_that_is_a_feed_is_copied_when_it_is_there(fake_cuda: Any) -> None:
    session = session_of(SAME)
    fake_cuda.fake.set_lazy(True)
    binding = session.io_binding()
    binding.bind_ortvalue_input("x", on(np.ones(2, np.float32)))
    binding.bind_output("y", "cuda")
    binding.bind_output("z", "cuda")
    session.run_with_iobinding(binding, with_entries(disable_synchronize_execution_providers="1"))
    assert [array.tolist() for array in binding.copy_outputs_to_cpu()] == [[1, 1], [1, 1]]
    fake_cuda.fake.set_lazy(False)


def test_what_actors_do_not_obey_is_told(fake_cuda: Any) -> None:
    """As if the session's GPU was an actor's."""
    session = session_of(MUL)
    lines: list[str] = []
    distort.set_default_logger_callback(lambda *line: lines.append(line[4]), 2)
    try:
        session._sess._tell_idle(with_entries(gpu_graph_id="-1", disable_synchronize_execution_providers="0"))
    finally:
        distort.set_default_logger_callback(None)
    assert lines == ["Run config key 'gpu_graph_id' has no effect: the session's GPUs are those of its actors."]


def test_a_weight_that_is_handed_out_sparse(fake_cuda: Any) -> None:
    values = onnx.numpy_helper.from_array(np.array([1.5, 2.5], np.float32), "w")
    sparse = helper.make_sparse_tensor(values, onnx.numpy_helper.from_array(np.array([2, 5])), [3, 3])
    w = helper.make_sparse_tensor_value_info("w", onnx.TensorProto.FLOAT, [3, 3])
    graph = helper.make_graph([], "g", [], [w], sparse_initializer=[sparse])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = distort.InferenceSession(model.SerializeToString(), providers=["CUDAExecutionProvider"])
    for _ in range(2):
        [found] = session.run(None, {})
        assert found.values().tolist() == [1.5, 2.5]
