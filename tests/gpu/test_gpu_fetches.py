"""What of a graph runs on a GPU for which fetches, and how results come home."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import distort
from distort import OrtValue
from distort.capi import onnxruntime_pybind11_state as C
from distort.kernels.cuda import copies
from distort.kernels.cuda.memory import Pool

from .standing_in import crossed, floats, program_of, session_of

BRANCHES = """g (float[2] x, float[A,B] z) => (float[2] y, float[A,C] w, float[2] v) {
    y = Relu(x)
    [mm] w = MatMul(z, z)
    v = Add(y, y)
}"""
SQUARE, OBLONG = np.ones((2, 2), np.float32), np.ones((2, 3), np.float32)


def only(**entries: str) -> distort.RunOptions:
    made = distort.RunOptions()
    made.only_execute_path_to_fetches = True
    for name, value in entries.items():
        made.add_run_config_entry(name, value)
    return made


def test_only_the_path_to_fetches_runs(fake_cuda: Any) -> None:
    session = session_of(BRANCHES)
    with pytest.raises(C.Fail, match="mm"):
        session.run(["y"], {"x": floats(-1, 2), "z": OBLONG})
    for _ in range(3):
        (y,) = session.run(["y"], {"x": floats(-1, 2), "z": OBLONG}, only())
        assert y.tolist() == [0, 2]
    whole = program_of(session)
    assert whole.to(["y"]) is whole.to(["y"]) is not whole.to(["v"])
    assert whole.to(["w", "v", "y"]) is whole
    v, y = session.run(["v", "y"], {"x": floats(-1, 2), "z": OBLONG}, only())
    assert (v.tolist(), y.tolist()) == ([0, 4], [0, 2])
    assert sorted(len(plan.steps) for _, plan in whole.plans) == [1, 2, 3]  # those of y, of y and v, and all
    assert whole.to(["y"]).n_graph_runs == 1
    assert whole.slab is whole.to(["y"]).slab


def test_a_part_shares_weights_and_gives_up_what_the_whole_gives_up(fake_cuda: Any) -> None:
    session = session_of(
        "g (float[N,2] x) => (float[N,2] y, float[N,2] z) <float[2] w = {2.0, 3.0}> { y = Mul(x, w) z = Add(y, w) }"
    )
    x = floats(1, 2).reshape(1, 2)
    for _ in range(4):
        assert session.run(["y"], {"x": x}, only())[0].tolist() == [[2, 6]]
        assert session.run(["z"], {"x": x}, only())[0].tolist() == [[4, 9]]
    whole = program_of(session)
    assert whole.context.weights.nbytes == 8
    part = whole.to(["y"])
    assert part.n_graph_runs == 2
    whole.release_graphs(0)
    session.run(["y"], {"x": x}, only())
    assert part.n_graph_runs == 2
    shrinking = only(**{"memory.enable_memory_arena_shrinkage": "gpu:0"})
    for _ in range(2):
        assert session.run(["y"], {"x": x}, shrinking)[0].tolist() == [[2, 6]]
    assert whole.context.pool.used_nbytes < 1024


def test_a_closed_session_leaves_nothing_of_its_parts(fake_cuda: Any) -> None:
    session = session_of(BRANCHES)
    session.run(["y"], {"x": floats(-1, 2), "z": OBLONG}, only())
    pool = program_of(session).context.pool
    session._sess._loaded.engine.gpu.runs.clear()
    session._sess._close()
    assert pool.used_nbytes == 0


def test_results_that_nobody_asked_for_stay_where_they_are_made(fake_cuda: Any) -> None:
    session = session_of(BRANCHES)
    session.run(["y"], {"x": floats(-1, 2), "z": SQUARE})
    assert {name for name, transport in crossed(session) if transport == "d2h"} == {"y"}


def test_results_come_home_without_a_copy_on_the_gpu(fake_cuda: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    session = session_of(BRANCHES)
    feeds = {"x": floats(-1, 2), "z": SQUARE}
    session.run(None, feeds)
    asked = []
    malloc = Pool.malloc
    monkeypatch.setattr(Pool, "malloc", lambda self, nbytes: asked.append(nbytes) or malloc(self, nbytes))
    kept = [session.run(None, {"x": floats(1, i), "z": SQUARE}) for i in range(5)]
    assert not asked  # eager runs and captured ones alike
    assert program_of(session).n_graph_runs == 4
    for i, (y, w, v) in enumerate(kept):
        assert (y.tolist(), w.tolist(), v.tolist()) == ([1, i], [[2, 2], [2, 2]], [2, 2 * i])
        assert all(copies.is_pinned(value) and value.flags.writeable for value in (y, w, v))


def test_results_are_waited_for_even_where_the_run_is_not(fake_cuda: Any) -> None:
    session = session_of(BRANCHES)
    options = distort.RunOptions()
    options.add_run_config_entry("disable_synchronize_execution_providers", "1")
    fake_cuda.fake.set_lazy(True)
    for i in range(4):
        assert session.run(["v"], {"x": floats(1, i), "z": SQUARE}, options)[0].tolist() == [2, 2 * i]
    fake_cuda.fake.set_lazy(False)


def test_a_bound_array_of_this_process_is_written_by_the_run(fake_cuda: Any) -> None:
    """Whatever else is bound: it is written when feeds have been read, and of the same types."""
    session = session_of(BRANCHES)
    binding = session.io_binding()
    buffer = OrtValue.ortvalue_from_numpy(np.zeros(2, np.float32))
    binding.bind_cpu_input("x", floats(3, -4))
    binding.bind_cpu_input("z", SQUARE)
    binding.bind_ortvalue_output("y", buffer)
    binding.bind_output("v", "cuda")
    fake_cuda.fake.set_lazy(True)
    for _ in range(3):
        session.run_with_iobinding(binding)
        assert buffer.numpy().tolist() == [3, 0]
    fake_cuda.fake.set_lazy(False)
    into = program_of(session).runs[-1]["into"]
    assert into["y"] is buffer._ortvalue._value
    assert [value.device_name() for value in binding.get_outputs()] == ["cpu", "cuda"]
    assert crossed(session)["y", "d2h"] == 3 * 8


# -- shapes that grow


def test_growing_shapes_move_the_slab_now_and_then(fake_cuda: Any) -> None:
    """Each length's graph is captured anew only where the slab has moved since."""
    text = "g (float[N,64] x) => (float[N,64] y) { a = Softmax(x) b = Add(a, x) y = Softmax(b) }"
    moved = {}
    for strategy in ("kNextPowerOfTwo", "kSameAsRequested"):
        session = session_of(text, arena_extend_strategy=strategy)
        program = program_of(session)
        for length in range(16, 16 + 32):
            for _ in range(4):
                session.run(None, {"x": np.ones((length, 64), np.float32)})
        for length in range(16, 16 + 32):
            for _ in range(4):
                session.run(None, {"x": np.ones((length, 64), np.float32)})
        moved[strategy] = program.slab.n_moves
        if strategy == "kNextPowerOfTwo":
            # all runs but the two eager ones of each length and each address
            assert program.n_graph_runs >= 32 * 8 - 2 * 32 * 2
    assert moved["kNextPowerOfTwo"] <= 3 < 10 < moved["kSameAsRequested"]


def test_a_slab_takes_what_it_needs_where_there_is_no_more(fake_cuda: Any) -> None:
    text = "g (float[N,1024] x) => (float[N,1024] y) { y = Softmax(x) }"
    session = session_of(text, gpu_mem_limit=1 << 20)
    for n in (50, 60, 110):  # two values of 4 KiB a row, and no room for twice as much
        (y,) = session.run(None, {"x": np.zeros((n, 1024), np.float32)})
        assert y.shape == (n, 1024) and y[0, 0] == np.float32(1 / 1024)
