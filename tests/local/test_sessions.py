"""Parallel sessions: several in one process, their ends, errors from actors, an address."""

from __future__ import annotations

import gc
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import onnx
import pytest

import distort as onnxruntime
from distort.capi.onnxruntime_pybind11_state import Fail, InvalidArgument

from .conftest import actor_pids

MODEL = """
<ir_version: 9, opset_import: ["" : 17]>
chain (float[N,8] x, int64[K] rows) => (float[K,8] y, float[N,8] whole) {
    a = Add (x, x)
    b = Sqrt (a)
    whole = Mul (b, b)
    y = Gather <axis=0> (whole, rows)
}
"""


def build() -> bytes:
    return onnx.parser.parse_model(MODEL).SerializeToString()


def parallel(n_actors: int = 2, **entries: str) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.execution_mode = onnxruntime.ExecutionMode.ORT_PARALLEL
    options.add_session_config_entry("distort.start", "wait")
    options.inter_op_num_threads = n_actors
    options.intra_op_num_threads = 1
    for key, value in entries.items():
        options.add_session_config_entry(f"distort.{key}", value)
    return options


def feeds(n: int = 3) -> dict[str, np.ndarray]:
    return {"x": np.arange(n * 8, dtype=np.float32).reshape(n, 8), "rows": np.array([n - 1, 0])}


def test_two_sessions_with_different_options() -> None:
    with (
        onnxruntime.InferenceSession(build(), parallel(2)) as two,
        onnxruntime.InferenceSession(build(), parallel(3)) as three,
        onnxruntime.InferenceSession(build()) as here,
    ):
        assert [len(s.plan.stages) for s in (two, three, here)] == [2, 3, 1]
        assert len(actor_pids()) == 5
        want = here.run(None, feeds())
        for session in (two, three):
            for got, expected in zip(session.run(None, feeds()), want, strict=True):
                np.testing.assert_array_equal(got, expected)
        two.close()
        np.testing.assert_array_equal(three.run(["y"], feeds())[0], want[0])


def test_a_collected_session_frees_its_actors() -> None:
    session = onnxruntime.InferenceSession(build(), parallel(2))
    session.run(None, feeds())
    assert len(actor_pids()) == 2
    del session
    gc.collect()
    deadline = time.monotonic() + 5
    while actor_pids() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not actor_pids()


def test_outputs_are_the_callers_own() -> None:
    with onnxruntime.InferenceSession(build(), parallel(2)) as session:
        first = session.run(["whole"], feeds())[0]
        first[:] = -1
        again = session.run(["whole"], feeds())[0]
    assert (again >= 0).all()


def test_an_actors_error_names_node_and_operator_and_spares_the_session() -> None:
    with onnxruntime.InferenceSession(build(), parallel(2)) as session:
        bad = feeds()
        bad["rows"] = np.array([99])
        with pytest.raises((Fail, InvalidArgument), match=r"running Gather node"):
            session.run(None, bad)
        session.run(None, feeds())


def test_many_threads_share_a_session() -> None:
    with onnxruntime.InferenceSession(build(), parallel(2)) as session:
        wrong: list[int] = []

        def ask(n: int) -> None:
            for _ in range(10):
                given = feeds(n)
                whole = session.run(["whole"], given)[0]
                if whole.shape != (n, 8) or not np.allclose(whole, 2 * given["x"]):
                    wrong.append(n)

        threads = [threading.Thread(target=ask, args=(n,)) for n in range(1, 7)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong


def test_run_async_calls_back_with_results_or_an_error() -> None:
    with onnxruntime.InferenceSession(build(), parallel(2)) as session:
        answered = threading.Event()
        answers: list[tuple[object, object, str]] = []

        def callback(results: object, user_data: object, error: str) -> None:
            answers.append((results, user_data, error))
            answered.set()

        session.run_async(["whole"], feeds(), callback, "mine")
        assert answered.wait(10)
        results, user_data, error = answers[0]
        assert user_data == "mine" and error == ""
        np.testing.assert_allclose(results[0], 2 * feeds()["x"], rtol=1e-6)


OTHER_PROCESS = """
import sys
import numpy as np
import distort as onnxruntime

options = onnxruntime.SessionOptions()
options.execution_mode = onnxruntime.ExecutionMode.ORT_PARALLEL
options.add_session_config_entry("distort.start", "wait")
options.inter_op_num_threads = 2
options.add_session_config_entry("distort.address", sys.argv[2])
with onnxruntime.InferenceSession(sys.argv[1], options) as session:
    x = np.ones((3, 8), np.float32)
    whole = session.run(["whole"], {"x": x, "rows": np.array([0])})[0]
    assert len(session.plan.stages) == 2
    np.testing.assert_allclose(whole, 2 * x, rtol=1e-6)
print("answered")
"""


@pytest.mark.parametrize("how", ["address", "auto"])
def test_on_a_running_cluster_which_stays(how: str, tmp_path: Path) -> None:
    """This process's cluster, joined by another process; it goes on after that one ends."""
    import ray

    address = ray.get_runtime_context().gcs_address
    # other clusters may run on this machine: auto means the one that the environment names
    environment = {**os.environ, "RAY_ADDRESS": address} if how == "auto" else os.environ
    (tmp_path / "chain.onnx").write_bytes(build())
    command = [sys.executable, "-c", OTHER_PROCESS, str(tmp_path / "chain.onnx"), "auto" if how == "auto" else address]
    done = subprocess.run(command, check=False, env=environment, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "answered", done.stderr
    with onnxruntime.InferenceSession(build(), parallel(2)) as session:
        session.run(None, feeds())


def test_an_address_nobody_answers_fails_soon() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]  # bound, but nobody listens
        started = time.monotonic()
        with pytest.raises(InvalidArgument, match=rf"127\.0\.0\.1:{port}"):
            onnxruntime.InferenceSession(build(), parallel(2, address=f"127.0.0.1:{port}"))
        assert time.monotonic() - started < 30


def test_unknown_key_lists_the_known_ones() -> None:
    with pytest.raises(InvalidArgument, match=r"distort\.adress.*address"):
        parallel(2, adress="auto")
        onnxruntime.InferenceSession(build(), parallel(2, adress="auto"))


def test_a_run_that_was_told_to_stop_before_it_began() -> None:
    feeds = {"x": np.ones((2, 8), np.float32), "rows": np.array([1])}
    options = onnxruntime.RunOptions()
    with onnxruntime.InferenceSession(build(), parallel()) as session:
        options.terminate = True
        with pytest.raises(Fail, match="Exiting due to terminate flag being set to true"):
            session.run(None, feeds, options)
        options.terminate = False
        assert session.run(["y"], feeds, options)[0].shape == (1, 8)
