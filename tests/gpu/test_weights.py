"""Weights on their way to a GPU: together, through little of the host's memory, and gone with who needs them."""

from __future__ import annotations

import gc
from typing import Any

import ml_dtypes
import numpy as np
import onnx.helper
import pytest

from distort.engine import load_model
from distort.kernels.cuda import plans, staging
from distort.kernels.cuda.memory import Pool
from distort.kernels.cuda.options import CudaOptions
from distort.kernels.cuda.program import CudaProgram
from distort.kernels.cuda.weights import Weights
from distort.kernels.errors import OutOfMemory

from .standing_in import session_of


def kept(array: Any) -> bool:
    return True


def arrays_of(rng: np.random.Generator, n_large: int = 2) -> list[np.ndarray[Any, Any]]:
    """Of all sorts of sizes and types; some turned, one without elements."""
    small = [rng.integers(0, 9, size).astype(dtype) for size in (1, 3, 100, 4096) for dtype in (np.int8, np.float32)]
    large = [rng.random((1100, 512), np.float32).T for _ in range(n_large)]
    return [*small, *large, np.empty((0, 3), np.float16), np.arange(5).astype(ml_dtypes.bfloat16), np.float64(3)[None]]


@pytest.mark.parametrize("block_nbytes", [512, 4 << 20])
def test_weights_are_there(fake_cuda: Any, monkeypatch: pytest.MonkeyPatch, block_nbytes: int) -> None:
    """Work waits in the fake's streams until somebody synchronizes: a block that is filled too early shows."""
    monkeypatch.setattr(staging, "BLOCK_NBYTES", block_nbytes)
    pool = Pool(CudaOptions(device_id=1))
    weights = Weights(pool)
    arrays = arrays_of(np.random.default_rng(0), 1 if block_nbytes < 1 << 20 else 3)
    fake_cuda.fake.set_lazy(True)
    sent = weights.send(arrays, kept)
    fake_cuda.fake.set_lazy(False)
    for array, weight in zip(arrays, sent, strict=True):
        assert weight.array is array and weight.there.device.id == 1
        assert weight.there.shape == array.shape and weight.there.dtype == array.dtype
        assert weight.there.data.ptr % 256 == 0 or not array.size
        np.testing.assert_array_equal(weight.there.get(), array)
        assert weights.of(array) is weight.there
        assert weights.has(weight.there)
    with pool.used():
        assert not weights.has(fake_cuda.zeros(3))


def test_many_small_weights_are_one_copy(fake_cuda: Any) -> None:
    weights = Weights(Pool(CudaOptions()))
    arrays = [np.full(100, i, np.float32) for i in range(500)]
    counts = fake_cuda.fake.counts()
    counts.clear()
    weights.send(arrays, kept)
    assert counts["upload"] == 1 and counts["pinned"] == 1
    assert sum(weights.of(array).get()[0] for array in arrays) == sum(range(500))


def test_large_weights_take_no_more_of_the_host_than_a_ring(fake_cuda: Any) -> None:
    weights = Weights(Pool(CudaOptions()))
    arrays = [np.ones(5 << 20, np.uint8) for _ in range(6)]
    counts = fake_cuda.fake.counts()
    counts.clear()
    weights.send(arrays, kept)
    assert counts["pinned"] == staging.N_BLOCKS
    assert counts["upload"] == 12 and counts["upload bytes"] == 30 << 20


def test_what_is_there_is_not_sent_again(fake_cuda: Any) -> None:
    weights = Weights(Pool(CudaOptions()))
    first, second = np.ones(7, np.float32), np.zeros(9, np.float32)
    weights.send([first], kept)
    counts = fake_cuda.fake.counts()
    counts.clear()
    weights.send([first, second, second], kept)
    assert counts["upload bytes"] == 36
    weights.send([first, second], kept)
    assert counts["upload bytes"] == 36 and weights.nbytes == 64


def test_what_does_not_stay_goes_with_who_asked(fake_cuda: Any) -> None:
    pool = Pool(CudaOptions())
    weights = Weights(pool)
    mine, common = np.ones(1 << 20, np.float32), np.ones(1 << 19, np.float32)
    sent = weights.send([mine, common], lambda array: array is common)
    assert weights.nbytes == mine.nbytes + common.nbytes
    del sent
    gc.collect()
    assert weights.nbytes == common.nbytes
    assert pool.used_nbytes == common.nbytes


def test_no_room_for_weights_says_how_much_they_are(fake_cuda: Any) -> None:
    weights = Weights(Pool(CudaOptions(gpu_mem_limit=6 << 20)))
    arrays = [np.ones(2 << 20, np.uint8) for _ in range(4)]
    wanted = f"size {2 << 20}: of cuda:0's .* are free; gpu_mem_limit lets the session have {6 << 20}.*"
    with pytest.raises(OutOfMemory, match=rf"{wanted}weights, {8 << 20} bytes of them, of which {6 << 20} had their"):
        weights.send(arrays, kept)
    assert weights.nbytes == 0
    weights.send(arrays[:3], kept)


def test_text_has_no_place_there(fake_cuda: Any) -> None:
    with pytest.raises(TypeError, match="text, sequences and maps"):
        Weights(Pool(CudaOptions())).send([np.array(["a"], object)], kept)


def test_a_plan_sends_all_that_it_reads_at_once(fake_cuda: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what is of its shapes alone goes with it."""
    monkeypatch.setattr(plans, "STRICT", True)
    monkeypatch.setattr(plans, "MOST_PLANS", 3)
    n_layers = 12
    nodes, weights = [], []
    for i in range(n_layers):
        nodes += [onnx.helper.make_node("MatMul", [f"h{i}", f"w{i}"], [f"m{i}"])]
        nodes += [onnx.helper.make_node("Add", [f"m{i}", f"b{i}"], [f"h{i + 1}"])]
        for name, shape in ((f"w{i}", (8, 8)), (f"b{i}", (8,))):
            value = np.full(shape, 0.125, np.float32)
            weights.append(onnx.numpy_helper.from_array(value, name))
    # a table of places, which follows from the length alone
    nodes += [onnx.helper.make_node("Shape", ["h0"], ["shape"], start=0, end=1)]
    nodes += [onnx.helper.make_node("Squeeze", ["shape"], ["n"])]
    weights += [onnx.numpy_helper.from_array(np.array(v, np.int64), name) for name, v in (("zero", 0), ("one", 1))]
    nodes += [onnx.helper.make_node("Range", ["zero", "n", "one"], ["places"])]
    nodes += [onnx.helper.make_node("Cast", ["places"], ["as_float"], to=1)]
    nodes += [onnx.helper.make_node("Unsqueeze", ["as_float", "one"], ["column"])]
    nodes += [onnx.helper.make_node("Add", [f"h{n_layers}", "column"], ["y"])]
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(nodes, "g", [value("h0", 1, ["N", 8])], [value("y", 1, ["N", 8])], weights)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10)
    program = CudaProgram(load_model(model.SerializeToString()).graph)
    counts = fake_cuda.fake.counts()
    counts.clear()
    (y,) = program.run({"h0": np.ones((2, 8), np.float32)})
    assert counts["upload"] <= 3  # the feed; what stays; what is the plan's own
    want = np.float32(1)
    for _ in range(n_layers):
        want = want + np.float32(0.125)
    np.testing.assert_allclose(y.get(), np.array([[want] * 8, [want + 1] * 8]), rtol=2e-3)
    sizes = []
    for n in range(3, 40):
        (y,) = program.run({"h0": np.ones((n, 8), np.float32)})
        assert y.get()[-1, 0] == pytest.approx(float(want) + n - 1, rel=2e-3)
        gc.collect()
        sizes.append(program.context.weights.nbytes)
    assert max(sizes) < n_layers * 72 * 4 + 4000 and sizes[-1] - sizes[10] < 3 * 30 * 8


PRODUCT = "g (float[64,64] x) => (float[64,64] y) { a = Softmax(x) b = Transpose(a) y = MatMul(a, b) }"


def used_session() -> tuple[Any, Any]:
    """A session that has run, and a value of it that stays on the GPU."""
    session, x = session_of(PRODUCT), np.ones((64, 64), np.float32)
    binding = session.io_binding()
    binding.bind_cpu_input("x", x)
    binding.bind_output("y", "cuda")
    for _ in range(3):
        session.run_with_iobinding(binding)
    return session, binding.get_outputs()[0]


def live_nbytes(fake_cuda: Any) -> int:
    """But for what CuPy's own pool keeps, where values that are bound have their copies."""
    gc.collect()
    fake_cuda.get_default_memory_pool().free_all_blocks()
    found: int = fake_cuda.fake.live_nbytes()
    return found


def test_a_session_that_is_closed_gives_its_memory_back_at_once(fake_cuda: Any) -> None:
    before = live_nbytes(fake_cuda)
    session, value = used_session()
    there = value.numpy()
    used = live_nbytes(fake_cuda)
    session._sess._close()
    assert before < live_nbytes(fake_cuda) < used
    np.testing.assert_array_equal(value.numpy(), there)  # a value is its holder's
    del session, value
    assert live_nbytes(fake_cuda) == before


def test_a_session_that_is_dropped_gives_its_memory_back(fake_cuda: Any) -> None:
    """When Python has collected it; what is in use then, later. CuPy's pools alone would keep it for ever."""
    before = live_nbytes(fake_cuda)
    for _ in range(3):
        session, value = used_session()
        del session
        gc.collect()
        assert value.numpy().shape == (64, 64)
        del value
        assert live_nbytes(fake_cuda) == before
