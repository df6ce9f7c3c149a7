"""Compiled sessions that several threads use at once, that are told to stop, that end, and that are forked."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx.parser
import pytest
from onnx import numpy_helper

import distort
from distort.capi.onnxruntime_pybind11_state import Fail

Array = np.ndarray[Any, Any]
#: products large enough for two threads, and rows
_LAYERS = """g (float[N,192] x) => (float[N,192] y) {
    a = MatMul(x, w)  c = Add(a, b)  d = Gelu(c)  e = MatMul(d, w)  f = Add(e, x)  y = Softmax(f)
}"""
#: thousands of rounds of a body that is part of the plan
_ROUNDS = """g (float[64,64] x, int64 n) => (float[64,64] y) {
    go = Constant<value = bool {1}>()
    y = Loop(n, go, x) <body = round (int64 i, bool c, float[64,64] p) => (bool d, float[64,64] q) {
        d = Identity(c)
        s = MatMul(p, p)
        q = Tanh(s)
    }>
}"""


def model(text: str) -> bytes:
    made = onnx.parser.parse_model(f'<ir_version: 9, opset_import: ["" : 20]>\n{text}')
    random = np.random.default_rng(0)
    for name, shape in (("w", (192, 192)), ("b", (192,))):
        values = random.standard_normal(shape).astype(np.float32) / 10
        made.graph.initializer.append(numpy_helper.from_array(values, name))
    return bytes(made.SerializeToString())


def open_session(text: str, n_threads: int = 2) -> distort.InferenceSession:
    options = distort.SessionOptions()
    options.intra_op_num_threads = n_threads
    return distort.InferenceSession(model(text), options)


def feeds(n: int) -> dict[str, Array]:
    return {"x": np.random.default_rng(n).standard_normal((n, 192)).astype(np.float32)}


def at_once(works: list[Callable[[], None]]) -> None:
    """Each work in a thread of its own; raises what one of them raised."""
    failures: list[BaseException] = []

    def guarded(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001  # raised below, where the test sees it
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(work,), daemon=True) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "a thread hangs"
    if failures:
        raise failures[0]


@pytest.mark.parametrize("n_threads", [1, 2, 3])
def test_threads_that_share_a_session_get_their_own_answers(n_threads: int) -> None:
    """Of shapes that are new to it, too: several threads ask for the same plan at once."""
    sizes = [1, 3, 40, 70]
    with open_session(_LAYERS, 1) as alone:
        wanted = {n: alone.run(None, feeds(n))[0] for n in sizes}

    with open_session(_LAYERS, n_threads) as session:

        def ask(first: int) -> None:
            for turn in range(40):
                n = sizes[(first + turn) % len(sizes)]
                assert session.run(None, feeds(n))[0].tobytes() == wanted[n].tobytes()

        at_once([lambda first=first: ask(first // 2) for first in range(6)])


def test_sessions_side_by_side() -> None:
    def work(n: int) -> None:
        for _ in range(3):
            with open_session(_LAYERS) as session:
                first = session.run(None, feeds(n))[0]
                for _ in range(10):
                    assert session.run(None, feeds(n))[0].tobytes() == first.tobytes()

    at_once([lambda n=n: work(n) for n in (1, 30, 31, 64)])


def test_a_run_is_ended_from_another_thread() -> None:
    with open_session(_ROUNDS) as session:
        x = np.eye(64, dtype=np.float32)
        short = session.run(None, {"x": x, "n": np.array(3)})[0]
        for _ in range(3):
            options = distort.RunOptions()
            timer = threading.Timer(0.05, setattr, (options, "terminate", True))
            timer.start()
            began = time.monotonic()
            with pytest.raises(Fail, match="terminate flag"):
                session.run(None, {"x": x, "n": np.array(10**6)}, options)
            assert time.monotonic() - began < 10
            timer.join()
            assert session.run(None, {"x": x, "n": np.array(3)})[0].tobytes() == short.tobytes()


def test_one_run_is_ended_and_others_go_on() -> None:
    with open_session(_LAYERS) as session:
        wanted = session.run(None, feeds(64))[0]
        ended = threading.Event()

        def ended_ones() -> None:
            try:
                for turn in range(100):
                    options = distort.RunOptions()
                    options.terminate = turn % 2 == 0
                    if options.terminate:
                        with pytest.raises(Fail):
                            session.run(None, feeds(64), options)
                    else:
                        assert session.run(None, feeds(64), options)[0].tobytes() == wanted.tobytes()
            finally:
                ended.set()

        def others() -> None:
            while not ended.is_set():
                assert session.run(None, feeds(64))[0].tobytes() == wanted.tobytes()

        at_once([ended_ones, others])


def test_a_session_is_closed_while_others_run_it() -> None:
    """They get whole answers, or are told that it is closed."""
    for _ in range(5):
        session = open_session(_LAYERS)
        wanted = session.run(None, feeds(64))[0]
        began = threading.Barrier(3)

        def run(
            session: distort.InferenceSession = session, began: threading.Barrier = began, wanted: Array = wanted
        ) -> None:
            began.wait(10)
            for _ in range(200):
                try:
                    got = session.run(None, feeds(64))[0]
                except Exception as error:  # noqa: BLE001  # the classes of errors have no common base
                    assert "closed" in str(error)
                    return
                assert got.tobytes() == wanted.tobytes()

        def close(session: distort.InferenceSession = session, began: threading.Barrier = began) -> None:
            began.wait(10)
            time.sleep(0.01)
            session.close()

        at_once([run, run, close])


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_session_goes_on_in_a_forked_child() -> None:
    with open_session(_LAYERS) as session:
        wanted = session.run(None, feeds(64))[0]
        child = os.fork()
        if child == 0:
            same = all(session.run(None, feeds(64))[0].tobytes() == wanted.tobytes() for _ in range(5))
            new = session.run(None, feeds(5))[0].shape == (5, 192)
            os._exit(0 if same and new else 1)
        deadline = time.monotonic() + 30
        while (ended := os.waitpid(child, os.WNOHANG))[0] == 0:
            assert time.monotonic() < deadline, "the child hangs"
            time.sleep(0.005)
        assert ended[1] == 0
        assert session.run(None, feeds(64))[0].tobytes() == wanted.tobytes()
