"""An actor that is killed: the run that needs it ends with an error soon, and the session goes on."""

from __future__ import annotations

import os
import signal
import threading
import time

import numpy as np
import onnx
import psutil
import pytest

import distort as onnxruntime
from distort.capi.onnxruntime_pybind11_state import EPFail, Fail, InvalidArgument

from .conftest import actor_pids

#: seconds within which a run that lost its actor must end
DEADLINE_S = 5.0
#: a loop long enough to be killed in
MODEL = """
<ir_version: 9, opset_import: ["" : 17]>
slow (float[64,64] x, int64 trips) => (float[64,64] y) {
    first = Mul (x, half)
    looped = Loop (trips, yes, first) <body = step (int64 i, bool going, float[64,64] state)
        => (bool still, float[64,64] next_state) {
        still = Identity (going)
        product = MatMul (state, state)
        next_state = Tanh (product)
    }>
    second = Add (looped, x)
    y = Mul (second, half)
}
"""
MANY_TRIPS = 50_000_000


def build() -> bytes:
    model = onnx.parser.parse_model(MODEL)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(0.5), "half"))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(True), "yes"))
    return model.SerializeToString()


def feeds(trips: int) -> dict[str, np.ndarray]:
    return {"x": np.eye(64, dtype=np.float32), "trips": np.array(trips)}


@pytest.fixture
def session():
    options = onnxruntime.SessionOptions()
    options.execution_mode = onnxruntime.ExecutionMode.ORT_PARALLEL
    options.add_session_config_entry("distort.start", "wait")
    options.inter_op_num_threads = 2
    options.add_session_config_entry("distort.recovery", "raise")
    with onnxruntime.InferenceSession(build(), options) as opened:
        yield opened


@pytest.fixture
def expected() -> np.ndarray:
    return onnxruntime.InferenceSession(build()).run(None, feeds(2))[0]


def busy_actor(timeout_s: float = 10) -> int:
    """The stage actor that computes: the one whose processor time grows."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        before = {pid: psutil.Process(pid).cpu_times().user for pid in actor_pids()}
        time.sleep(0.3)
        for pid, user in before.items():
            if psutil.Process(pid).cpu_times().user - user > 0.15:
                return pid
    raise AssertionError("no actor is busy")


def test_killed_during_a_run(session: onnxruntime.InferenceSession, expected: np.ndarray) -> None:
    session.run(None, feeds(2))
    outcome: list[BaseException] = []
    ended: list[float] = []

    def run() -> None:
        try:
            session.run(None, feeds(MANY_TRIPS))
        except (EPFail, Fail) as error:
            outcome.append(error)
        ended.append(time.monotonic())

    thread = threading.Thread(target=run)
    thread.start()
    pid = busy_actor()
    os.kill(pid, signal.SIGKILL)
    killed = time.monotonic()
    thread.join(timeout=DEADLINE_S + 5)
    assert ended, "the run hangs"
    assert ended[0] - killed < DEADLINE_S
    assert isinstance(outcome[0], EPFail)
    assert "lost" in str(outcome[0])
    assert "stage" in str(outcome[0])
    np.testing.assert_array_equal(session.run(None, feeds(2))[0], expected)


@pytest.mark.parametrize("which", [0, 1])
def test_killed_between_runs(session: onnxruntime.InferenceSession, expected: np.ndarray, which: int) -> None:
    session.run(None, feeds(2))
    host = session._sess._loaded.engine.executor.hosts[which]
    os.kill(host.pid, signal.SIGKILL)
    started = time.monotonic()
    # the loss may be found out by this run, which then says so; the one after it is answered
    try:
        result = session.run(None, feeds(2))[0]
    except EPFail as error:
        assert "lost" in str(error)
        assert time.monotonic() - started < DEADLINE_S
        result = session.run(None, feeds(2))[0]
    np.testing.assert_array_equal(result, expected)


def test_a_killed_actor_takes_its_values_along(session: onnxruntime.InferenceSession) -> None:
    values = {n: onnxruntime.OrtValue.ortvalue_from_numpy(v) for n, v in feeds(2).items()}
    (kept,) = session.run_with_ort_values(None, values)
    for host in session._sess._loaded.engine.executor.hosts:
        os.kill(host.pid, signal.SIGKILL)
    with pytest.raises((EPFail, InvalidArgument), match="actor"):
        kept.numpy()


def test_terminate_stops_an_actor(session: onnxruntime.InferenceSession, expected: np.ndarray) -> None:
    options = onnxruntime.RunOptions()
    timer = threading.Timer(0.5, lambda: setattr(options, "terminate", True))
    timer.start()
    started = time.monotonic()
    with pytest.raises(Fail, match="terminate"):
        session.run(None, feeds(MANY_TRIPS), options)
    assert time.monotonic() - started < DEADLINE_S
    np.testing.assert_array_equal(session.run(None, feeds(2))[0], expected)


@pytest.fixture
def interruptible():
    """SIGINT raises, as in a terminal: what a shell starts in the background begins with it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_ends_the_run_and_spares_the_session(
    session: onnxruntime.InferenceSession, expected: np.ndarray
) -> None:
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        session.run(None, feeds(MANY_TRIPS))
    started = time.monotonic()
    np.testing.assert_array_equal(session.run(None, feeds(2))[0], expected)
    assert time.monotonic() - started < DEADLINE_S


def test_a_run_has_a_deadline(expected: np.ndarray) -> None:
    options = onnxruntime.SessionOptions()
    options.execution_mode = onnxruntime.ExecutionMode.ORT_PARALLEL
    options.add_session_config_entry("distort.start", "wait")
    options.inter_op_num_threads = 2
    options.add_session_config_entry("distort.timeout_s", "1.5")
    with onnxruntime.InferenceSession(build(), options) as session:
        started = time.monotonic()
        with pytest.raises(Fail, match=r"timeout_s"):
            session.run(None, feeds(MANY_TRIPS))
        assert time.monotonic() - started < DEADLINE_S
        np.testing.assert_array_equal(session.run(None, feeds(2))[0], expected)


def test_closing_ends_a_run_under_way(session: onnxruntime.InferenceSession) -> None:
    outcome: list[BaseException] = []

    def run() -> None:
        try:
            session.run(None, feeds(MANY_TRIPS))
        except (EPFail, Fail) as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    busy_actor()
    session.close()
    thread.join(timeout=DEADLINE_S)
    assert not thread.is_alive()
    assert "closed" in str(outcome[0])
    with pytest.raises(Fail, match="closed"):
        session.run(None, feeds(1))


@pytest.mark.parametrize("which", [0, 1])
def test_replay_answers_in_spite_of_a_kill(which: int) -> None:
    """With distort.recovery=replay the run goes on from its feeds on a new actor."""
    trips = 20_000  # long enough to be killed in
    options = onnxruntime.SessionOptions()
    options.execution_mode = onnxruntime.ExecutionMode.ORT_PARALLEL
    options.add_session_config_entry("distort.start", "wait")
    options.inter_op_num_threads = 2
    options.add_session_config_entry("distort.recovery", "replay")
    with onnxruntime.InferenceSession(build(), options) as session:
        want = session.run(None, feeds(trips))[0]
        pid = session._sess._loaded.engine.executor.hosts[which].pid
        threading.Timer(0.05, os.kill, (pid, signal.SIGKILL)).start()
        np.testing.assert_array_equal(session.run(None, feeds(trips))[0], want)
        np.testing.assert_array_equal(session.run(None, feeds(trips))[0], want)
        assert not psutil.pid_exists(pid)
        assert session._sess._loaded.engine.executor.hosts[which].pid != pid
