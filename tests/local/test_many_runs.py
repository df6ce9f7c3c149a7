"""Many runs at once on actors: in order, bounded, split where their batch may be, and compared with one process."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator

import numpy as np
import onnx
import pytest

import distort
from distort.capi.onnxruntime_pybind11_state import EPFail, InvalidArgument

from ..conftest import wait_until

SIZE = 256
MODEL = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[N,256] x) => (float[N,256] y) {
    a = MatMul (x, w)
    b = Tanh (a)
    c = MatMul (b, w)
    d = Tanh (c)
    e = MatMul (d, w)
    f = Tanh (e)
    h = MatMul (f, w)
    y = Tanh (h)
}
"""


def build() -> bytes:
    model = onnx.parser.parse_model(MODEL)
    weights = np.random.default_rng(0).normal(0, 0.06, (SIZE, SIZE)).astype(np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weights, "w"))
    return model.SerializeToString()


def options(**keys: str) -> distort.SessionOptions:
    made = distort.SessionOptions()
    made.execution_mode = distort.ExecutionMode.ORT_PARALLEL
    made.inter_op_num_threads = 2
    for key, value in {"start": "wait", "costs": "estimated", **keys}.items():
        made.add_session_config_entry(f"distort.{key}", value)
    return made


@pytest.fixture
def session() -> Iterator[distort.InferenceSession]:
    with distort.InferenceSession(build(), options(max_in_flight="4")) as opened:
        yield opened


def x_of(number: int, n_rows: int = 1) -> np.ndarray:
    return np.random.default_rng(number).normal(size=(n_rows, SIZE)).astype(np.float32)


def test_callbacks_come_in_the_order_of_the_calls(session: distort.InferenceSession) -> None:
    here = distort.InferenceSession(build())
    wanted = [here.run(None, {"x": x_of(i)})[0] for i in range(60)]
    told: dict[int, list[int]] = {0: [], 1: []}
    results: dict[tuple[int, int], np.ndarray] = {}

    def tell(outputs: list[np.ndarray], which: tuple[int, int], error: str) -> None:
        assert not error
        told[which[0]].append(which[1])
        results[which] = outputs[0]

    def caller(name: int) -> None:
        for i in range(60):
            session.run_async(None, {"x": x_of(i)}, tell, (name, i))

    threads = [threading.Thread(target=caller, args=(name,)) for name in told]
    for thread in threads:
        thread.start()
    assert wait_until(lambda: len(results) == 120, 60)
    assert told == {0: list(range(60)), 1: list(range(60))}
    for (_, i), got in results.items():
        np.testing.assert_allclose(got, wanted[i], rtol=1e-5, atol=1e-6)


def test_a_caller_that_is_far_ahead_waits(session: distort.InferenceSession) -> None:
    gate = threading.Event()
    n_told = [0]

    def tell(*_: object) -> None:
        gate.wait(30)
        n_told[0] += 1

    started = [0]

    def caller() -> None:
        for i in range(30):
            session.run_async(None, {"x": x_of(i)}, tell, None)
            started[0] += 1

    thread = threading.Thread(target=caller)
    thread.start()
    assert wait_until(lambda: started[0] == 8, 30)  # two rounds of four
    time.sleep(0.3)
    assert started[0] == 8
    gate.set()
    thread.join(30)
    assert wait_until(lambda: n_told[0] == 30, 30)


def test_no_more_runs_than_allowed_are_in_flight(session: distort.InferenceSession) -> None:
    executor = session._sess._loaded.engine.executor
    most = 0
    threads = [threading.Thread(target=lambda: session.run(None, {"x": x_of(1, 512)})) for _ in range(12)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        most = max(most, len(executor._state.in_flight))
    assert 1 < most <= 4


@pytest.mark.parametrize("parts", ["5", "auto", "0"])
def test_a_batch_may_run_in_parts(parts: str) -> None:
    x = x_of(0, 4096)
    wanted = distort.InferenceSession(build()).run(None, {"x": x})[0]
    with distort.InferenceSession(build(), options(micro_batch=parts)) as session:
        got = session.run(None, {"x": x})[0]
        executions = [stats.executions for stats in session._sess._loaded.engine.executor.stats()]
        if parts == "5":
            assert executions == [5, 5]
        elif parts == "0":
            assert executions == [1, 1]
        elif len(os.sched_getaffinity(0)) > 1:
            assert executions[0] == executions[1] > 1
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)


LOOKUP = """
<ir_version: 8, opset_import: ["" : 17]>
g (int64[N] i) => (float[N,4] y) {
    a = Gather (table, i)
    y = Neg (a)
}
"""


def test_a_failed_part_fails_the_run_and_no_more() -> None:
    model = onnx.parser.parse_model(LOOKUP)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((10, 4), np.float32), "table"))
    indices = np.arange(8) % 4
    wrong = indices.copy()
    wrong[4] = 99  # in the third part
    with distort.InferenceSession(model.SerializeToString(), options(micro_batch="4")) as session:
        for _ in range(3):
            with pytest.raises(InvalidArgument, match="Gather"):
                session.run(None, {"i": wrong})
            executor = session._sess._loaded.engine.executor
            assert wait_until(lambda executor=executor: executor.in_flight == 0, 10)
            np.testing.assert_array_equal(session.run(None, {"i": indices})[0], -np.ones((8, 4), np.float32))


def test_verified_runs_agree_or_name_what_differs() -> None:
    with distort.InferenceSession(build(), options(verify="1")) as session:
        x = x_of(3)
        wanted = distort.InferenceSession(build()).run(None, {"x": x})[0]
        np.testing.assert_allclose(session.run(None, {"x": x})[0], wanted, rtol=1e-5, atol=1e-6)
        # a stage that computes something else: its reference is another model's
        reference = session._sess._loaded.engine._runs._reference
        weights = session._sess._loaded.engine.model.graph.initializers["w"]
        slot = reference._program._slots["w"]
        reference._program._template[slot] = weights * np.float32(1.5)
        crossing = [edge.value for edge in session.plan.edges if edge.between_stages]
        with pytest.raises(EPFail, match=rf"'{crossing[0]}', made by node .* in stage0 on cpu:0, differs"):
            session.run(None, {"x": x})


def test_values_go_by_shared_memory_or_by_ray_as_asked() -> None:
    x = x_of(5, 300)
    wanted = distort.InferenceSession(build()).run(None, {"x": x})[0]
    for transport in ("shm", "object_store"):
        with distort.InferenceSession(build(), options(transport=transport, micro_batch="0")) as session:
            for _ in range(3):
                np.testing.assert_allclose(session.run(None, {"x": x})[0], wanted, rtol=1e-5, atol=1e-6)
            rows = session.get_transfer_stats()
            assert {row["transport"] for row in rows} == {transport}
            assert {(row["producer"], row["consumer"]) for row in rows} == {(-1, 0), (0, 1), (1, -1)}
            assert all(row["messages"] == 3 and row["nbytes"] == 3 * x.nbytes for row in rows)
